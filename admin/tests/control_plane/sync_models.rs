//! The job that keeps the model catalog: what each plan offers, and what happens when upstream does not say.

use std::sync::Arc;
use std::time::Duration;

use codex_lb_admin::serve;
use codex_lb_shared::clock;
use codex_lb_shared::domain::account::Plan;
use codex_lb_shared::domain::models::ModelCatalog;
use fake_chatgpt::Script;
use serde_json::json;

use crate::support::Plane;

/// Waits until the catalog in memory is as `expected` says, for ten seconds at most.
async fn wait_for_catalog(plane: &Plane, expected: impl Fn(&ModelCatalog) -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(10), async {
        while !expected(&plane.state.models.load()) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    assert!(waited.await.is_ok(), "{:?}", slugs(&plane.state.models.load()));
}

fn slugs(catalog: &ModelCatalog) -> Vec<&str> {
    catalog.models.iter().map(|model| model.slug.as_str()).collect()
}

#[tokio::test]
async fn the_catalog_is_the_union_over_the_plans_and_is_stored() {
    let plane = Plane::with_accounts(&["plus", "pro"]).await;
    plane.fake.set_plan_models("plus", ["gpt-a", "gpt-b"]);
    plane.fake.set_plan_models("pro", ["gpt-b", "gpt-c"]);
    let listening = serve(Arc::clone(&plane.state)).await.unwrap();
    wait_for_catalog(&plane, |catalog| slugs(catalog) == ["gpt-a", "gpt-b", "gpt-c"]).await;
    let catalog = plane.state.models.load_full();
    let plans = |slug| catalog.find(slug).unwrap().plans.clone();
    assert_eq!((plans("gpt-b"), plans("gpt-c")), (vec![Plan::Plus, Plan::Pro], vec![Plan::Pro]));
    assert_eq!(plane.state.store.load_model_catalog().await.unwrap(), *catalog);
    listening.stop().await;
}

#[tokio::test]
async fn a_token_that_upstream_no_longer_takes_is_renewed_first() {
    let plane = Plane::with_accounts(&["plus"]).await;
    let account = plane.fake.accounts().remove(0);
    plane.fake.expire_access_token(&account);
    let listening = serve(Arc::clone(&plane.state)).await.unwrap();
    wait_for_catalog(&plane, |catalog| !catalog.models.is_empty()).await;
    assert_eq!(plane.state.pool.snapshot().accounts[0].account.token_version, 2);
    listening.stop().await;
}

#[tokio::test]
async fn another_account_of_the_plan_is_asked_when_one_fails() {
    let plane = Plane::with_accounts(&["plus", "plus"]).await;
    plane.fake.script_path("/backend-api/codex/models", [Script::server_error(503)]);
    let listening = serve(Arc::clone(&plane.state)).await.unwrap();
    wait_for_catalog(&plane, |catalog| !catalog.models.is_empty()).await;
    let asked: Vec<_> = plane.fake.requests().into_iter().map(|request| request.status).collect();
    assert_eq!(asked, [Some(503), Some(200)]);
    listening.stop().await;
}

#[tokio::test]
async fn a_list_that_cannot_be_fetched_leaves_the_old_one_until_it_can() {
    let plane = Plane::with_accounts(&["plus"]).await;
    let mut old = ModelCatalog::default();
    old.merge_plan(Plan::Plus, vec![json!({"slug": "gpt-old"})]);
    plane.state.store.save_model_catalog(&old, clock::now()).await.unwrap();
    plane.state.reload_settings().await.unwrap();
    plane.fake.script_path("/backend-api/codex/models", [Script::server_error(500)]);
    let listening = serve(Arc::clone(&plane.state)).await.unwrap();
    plane.fake.wait_for(|request| request.status == Some(500)).await.unwrap();
    assert_eq!(*plane.state.models.load_full(), old);
    plane.fake.wait_for(|request| request.status == Some(200)).await.unwrap();
    wait_for_catalog(&plane, |catalog| catalog.find("gpt-old").is_none() && catalog.models.len() > 1).await;
    listening.stop().await;
}

#[tokio::test]
async fn a_plan_that_joins_later_is_asked_within_seconds() {
    let plane = Plane::new().await;
    let listening = serve(Arc::clone(&plane.state)).await.unwrap();
    plane.fake.set_plan_models("pro", ["gpt-c"]);
    plane.import_account("pro").await;
    wait_for_catalog(&plane, |catalog| slugs(catalog) == ["gpt-c"]).await;
    listening.stop().await;
}
