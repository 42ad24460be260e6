//! The model catalog: what upstream offers, kept as upstream wrote it.

use std::collections::BTreeMap;

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
    /// Plans whose accounts offer each service tier for it, by the tier's id; tiers that no plan was shown are absent.
    #[serde(default)]
    pub tier_plans: BTreeMap<String, Vec<Plan>>,
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
            let tiers = tiers(&entry);
            let index = self.models.iter().position(|model| model.slug == slug).unwrap_or_else(|| {
                let (plans, tier_plans) = (Vec::new(), BTreeMap::new());
                self.models.push(CatalogModel { slug, plans, tier_plans, entry });
                self.models.len() - 1
            });
            let model = &mut self.models[index];
            add(&mut model.plans, plan);
            for tier in tiers {
                add(model.tier_plans.entry(tier).or_default(), plan);
            }
        }
    }

    /// The model with this slug.
    pub fn find(&self, slug: &str) -> Option<&CatalogModel> {
        self.models.iter().find(|model| model.slug == slug)
    }
}

fn add(plans: &mut Vec<Plan>, plan: Plan) {
    if !plans.contains(&plan) {
        plans.push(plan);
    }
}

/// The service tiers that an entry names.
fn tiers(entry: &Value) -> Vec<String> {
    let tiers = entry.get("service_tiers").and_then(Value::as_array).into_iter().flatten();
    tiers.filter_map(|tier| tier.get("id").and_then(Value::as_str)).map(str::to_owned).collect()
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
        assert_eq!(catalog.models[0].plans, [Plan::Plus, Plan::Pro]);
        assert_eq!(catalog.find("b").map(|model| &model.plans[..]), Some(&[Plan::Plus][..]));
        assert_eq!(catalog.find("newer-than-the-catalog"), None);
    }

    #[test]
    fn the_catalog_knows_which_plans_offer_a_tier() {
        let mut catalog = ModelCatalog::default();
        let entry = |tiers: Value| vec![json!({"slug": "a", "service_tiers": tiers})];
        catalog.merge_plan(Plan::Free, entry(json!([])));
        catalog.merge_plan(Plan::Plus, entry(json!([{"id": "priority", "name": "Fast"}])));
        catalog.merge_plan(Plan::Pro, entry(json!([{"id": "priority"}, {"id": "flex"}, {"name": "no id"}])));
        let tier_plans = &catalog.models[0].tier_plans;
        assert_eq!(tier_plans["priority"], [Plan::Plus, Plan::Pro]);
        assert_eq!(tier_plans["flex"], [Plan::Pro]);
        assert_eq!(tier_plans.len(), 2);
    }
}
