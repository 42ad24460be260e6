//! The model catalog: what upstream offers, kept as upstream wrote it.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::domain::account::Plan;

/// One model of the catalog.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CatalogModel {
    /// Upstream's name for it, used in requests.
    pub slug: String,
    /// Plans whose accounts offer it.
    pub plans: Vec<Plan>,
    /// Upstream's entry with all its keys, because Codex parses the list strictly and every release adds some.
    pub entry: Value,
}

/// The union of the models of all plans.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ModelCatalog {
    /// In upstream's order.
    pub models: Vec<CatalogModel>,
}

impl ModelCatalog {
    /// Merges the list that one plan was shown; entries of a plan seen later never replace earlier ones.
    pub fn merge_plan(&mut self, plan: Plan, entries: Vec<Value>) {
        for entry in entries {
            let Some(slug) = entry.get("slug").and_then(Value::as_str).map(str::to_owned) else { continue };
            match self.models.iter_mut().find(|model| model.slug == slug) {
                Some(known) if known.plans.contains(&plan) => {}
                Some(known) => known.plans.push(plan),
                None => self.models.push(CatalogModel { slug, plans: vec![plan], entry }),
            }
        }
    }

    /// The model with this slug.
    pub fn find(&self, slug: &str) -> Option<&CatalogModel> {
        self.models.iter().find(|model| model.slug == slug)
    }

    /// Whether an account of `plan` may be asked for `slug`. A model the catalog does not know is left to upstream,
    /// which alone can say: the catalog may be older than the model.
    pub fn plan_offers(&self, plan: Plan, slug: &str) -> bool {
        self.find(slug).is_none_or(|model| model.plans.contains(&plan))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_catalog_is_the_union_over_plans_and_knows_who_offers_what() {
        let mut catalog = ModelCatalog::default();
        catalog.merge_plan(Plan::Plus, vec![json!({"slug": "a", "x": 1}), json!({"slug": "b"})]);
        catalog.merge_plan(Plan::Pro, vec![json!({"slug": "a", "x": 2}), json!({"slug": "c"}), json!({"no": "slug"})]);
        let slugs: Vec<_> = catalog.models.iter().map(|model| model.slug.as_str()).collect();
        assert_eq!(slugs, ["a", "b", "c"]);
        assert_eq!(catalog.models[0].entry["x"], 1);
        assert!(catalog.plan_offers(Plan::Pro, "a") && catalog.plan_offers(Plan::Plus, "a"));
        assert!(!catalog.plan_offers(Plan::Pro, "b"));
        assert!(catalog.plan_offers(Plan::Free, "newer-than-the-catalog"));
    }
}
