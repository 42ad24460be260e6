//! `/api/v1/settings`: of two people who change a group at once, one is told.

use codex_lb_shared::clock;
use codex_lb_shared::domain::settings::{KeylessAccess, RoutingSettings};
use codex_lb_shared::domain::strategy_kind::StrategyKind;
use codex_lb_shared::store::SettingsGroup;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{Answer, Plane};

async fn patch(plane: &Plane, group: &str, version: i64, value: Value) -> Answer {
    let body = json!({"version": version, "value": value});
    plane.call(Method::PATCH, &format!("/api/v1/settings/{group}"), Some(body)).await
}

#[tokio::test]
async fn a_change_is_effective_at_once_and_leaves_the_rest_of_its_group() {
    let plane = Plane::new().await;
    let all = plane.get("/api/v1/settings").await.ok();
    let defaults = json!({
        "routing": {"version": 0, "value": RoutingSettings::default()},
        "access": {"version": 0, "value": {"apiKeyAuth": false, "keylessAccess": "private", "hidePoolQuota": false}},
    });
    assert_eq!(all, defaults);

    let routing = patch(&plane, "routing", 0, json!({"strategy": "round_robin"})).await.ok();
    let expected = RoutingSettings { strategy: StrategyKind::RoundRobin, ..RoutingSettings::default() };
    assert_eq!(routing, json!({"version": 1, "value": expected}));
    assert_eq!(plane.get("/api/v1/settings/routing").await.ok(), routing);
    let access = patch(&plane, "access", 0, json!({"keylessAccess": "loopback"})).await.ok();
    assert_eq!(access["value"], json!({"apiKeyAuth": false, "keylessAccess": "loopback", "hidePoolQuota": false}));
    let access = patch(&plane, "access", 1, json!({"apiKeyAuth": true})).await.ok();
    assert_eq!(
        access,
        json!({"version": 2, "value": {"apiKeyAuth": true, "keylessAccess": "loopback", "hidePoolQuota": false}})
    );

    let live = plane.state.settings.load();
    assert_eq!(live.routing.strategy, StrategyKind::RoundRobin);
    assert!(live.access.api_key_auth && live.access.keyless_access == KeylessAccess::Loopback);
}

#[tokio::test]
async fn a_change_made_from_an_older_version_is_a_conflict() {
    let plane = Plane::new().await;
    patch(&plane, "routing", 0, json!({"strategy": "round_robin"})).await.ok();
    for version in [0, 2, -1] {
        let answer = patch(&plane, "routing", version, json!({"strategy": "capacity_weighted"})).await;
        answer.refused(StatusCode::CONFLICT, "conflict");
    }
    assert_eq!(plane.get("/api/v1/settings/routing").await.ok()["value"]["strategy"], "round_robin");
}

#[tokio::test]
async fn a_field_of_a_newer_version_survives_a_change() {
    let plane = Plane::new().await;
    let stored = json!({"strategy": "round_robin", "fromTheFuture": 7});
    let group = SettingsGroup::Routing;
    plane.state.store.save_settings_group(group, &stored, 0, clock::now()).await.unwrap();
    patch(&plane, "routing", 1, json!({"strategy": "capacity_weighted"})).await.ok();
    let kept = plane.state.store.load_settings_group::<serde_json::Map<String, Value>>(group).await.unwrap().value;
    assert_eq!(Value::Object(kept), json!({"strategy": "capacity_weighted", "fromTheFuture": 7}));
}

#[tokio::test]
async fn what_a_group_does_not_know_is_refused_and_saves_nothing() {
    let plane = Plane::new().await;
    for value in [json!({"strategy": "fastest"}), json!({"speed": 1}), json!({"strategy": null})] {
        patch(&plane, "routing", 0, value).await.refused(StatusCode::BAD_REQUEST, "invalid_request");
    }
    let path = "/api/v1/settings/routing";
    for body in [json!({"value": {}}), json!({"version": 0, "value": []}), json!({"strategy": "round_robin"})] {
        plane.call(Method::PATCH, path, Some(body)).await.refused(StatusCode::BAD_REQUEST, "invalid_request");
    }
    assert_eq!(plane.get(path).await.ok()["version"], 0);
    plane.get("/api/v1/settings/model_catalog").await.refused(StatusCode::NOT_FOUND, "not_found");
    patch(&plane, "nonsense", 0, json!({})).await.refused(StatusCode::NOT_FOUND, "not_found");
}

#[tokio::test]
async fn a_value_outside_its_range_is_refused_and_saves_nothing() {
    let plane = Plane::new().await;
    for change in [json!({"accountConcurrencyCap": 0}), json!({"stickyLeaveAbovePercent": 101})] {
        patch(&plane, "routing", 0, change).await.refused(StatusCode::BAD_REQUEST, "invalid_request");
    }
    assert_eq!(plane.state.settings.load().routing, RoutingSettings::default());
}
