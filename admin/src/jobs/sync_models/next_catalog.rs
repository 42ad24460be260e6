//! The catalog that follows from the one before and what was fetched since. Pure: no I/O and no clock.

use std::collections::HashMap;

use codex_lb_shared::domain::account::Plan;
use codex_lb_shared::domain::models::ModelCatalog;
use serde_json::Value;

/// The union over the plans that are present, in their order. A plan that was not fetched keeps what `previous` says of
/// it; a plan that is no longer present is forgotten. Of a model that several plans offer, an entry fetched now wins over
/// one that was kept.
pub(super) fn next_catalog(
    previous: &ModelCatalog,
    present: &[Plan],
    mut fetched: Vec<(Plan, Vec<Value>)>,
) -> ModelCatalog {
    let mut fresh: HashMap<String, Value> = HashMap::new();
    for entry in fetched.iter().flat_map(|(_, entries)| entries) {
        if let Some(slug) = entry.get("slug").and_then(Value::as_str) {
            fresh.entry(slug.to_owned()).or_insert_with(|| entry.clone());
        }
    }
    let mut next = ModelCatalog::default();
    for plan in present {
        let entries = match fetched.iter().position(|(of, _)| of == plan) {
            Some(index) => fetched.swap_remove(index).1,
            None => {
                let kept = previous.models.iter().filter(|model| model.plans.contains(plan));
                kept.map(|model| fresh.get(&model.slug).unwrap_or(&model.entry).clone()).collect()
            }
        };
        next.merge_plan(*plan, entries);
    }
    next
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn entries(slugs: &[&str], mark: i64) -> Vec<Value> {
        slugs.iter().map(|slug| json!({"slug": slug, "mark": mark})).collect()
    }

    /// The catalog as `slug:plans:mark` words.
    fn words(catalog: &ModelCatalog) -> Vec<String> {
        let word = |model: &codex_lb_shared::domain::models::CatalogModel| {
            let plans: Vec<_> = model.plans.iter().map(|plan| plan.as_str()).collect();
            format!("{}:{}:{}", model.slug, plans.join("+"), model.entry["mark"])
        };
        catalog.models.iter().map(word).collect()
    }

    #[test]
    fn a_plan_that_was_not_fetched_keeps_its_models_and_one_that_left_loses_them() {
        let present = [Plan::Plus, Plan::Pro];
        let all = vec![(Plan::Plus, entries(&["a", "b"], 1)), (Plan::Pro, entries(&["a", "c"], 1))];
        let first = next_catalog(&ModelCatalog::default(), &present, all);
        assert_eq!(words(&first), ["a:plus+pro:1", "b:plus:1", "c:pro:1"]);

        let second = next_catalog(&first, &present, vec![(Plan::Pro, entries(&["a", "d"], 2))]);
        assert_eq!(words(&second), ["a:plus+pro:2", "b:plus:1", "d:pro:2"]);

        let third = next_catalog(&second, &[Plan::Pro], vec![(Plan::Pro, entries(&["a", "d"], 2))]);
        assert_eq!(words(&third), ["a:pro:2", "d:pro:2"]);
    }

    #[test]
    fn fetching_the_same_again_changes_nothing_whichever_plan_was_due() {
        let present = [Plan::Plus, Plan::Pro];
        let (plus, pro) = ((Plan::Plus, entries(&["a", "b"], 1)), (Plan::Pro, entries(&["c", "a"], 1)));
        let first = next_catalog(&ModelCatalog::default(), &present, vec![plus.clone(), pro.clone()]);
        for due in [vec![plus.clone()], vec![pro.clone()], vec![pro, plus]] {
            assert_eq!(next_catalog(&first, &present, due), first);
        }
    }
}
