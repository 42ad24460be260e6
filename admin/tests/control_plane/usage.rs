//! `/api/v1/requests` and `/api/v1/overview`: what was recorded, page by page and summed up.

use codex_lb_shared::clock::{self, Timestamp};
use codex_lb_shared::domain::exchange_record::{ExchangeRecord, ExchangeStatus};
use codex_lb_shared::domain::usage::{MeteredUsage, TokenUsage};
use codex_lb_shared::ids::{AccountId, ApiKeyId, ExchangeId};
use http::StatusCode;
use serde_json::{Value, json};

use crate::support::Plane;

fn exchange(minutes_ago: i64) -> ExchangeRecord {
    ExchangeRecord {
        id: ExchangeId::generate(),
        requested_at: Timestamp::from_unix_ms(clock::now().as_unix_ms() - minutes_ago * 60_000),
        account_id: None,
        api_key_id: None,
        route: "responses",
        transport: "sse",
        status: ExchangeStatus::Ok,
        error_code: None,
        upstream_status: Some(200),
        legs: 1,
        model_requested: Some("gpt-5.5".to_owned()),
        model: Some("gpt-5.5".to_owned()),
        effort: None,
        tier: None,
        usage: MeteredUsage::Exact(TokenUsage { input: 100, cached_input: 40, output: 20, reasoning: 5 }),
        cost_micros: Some(700),
        first_byte_ms: Some(120),
        first_token_ms: Some(340),
        total_ms: 2_000,
        user_agent_group: "codex_cli",
        conversation_id: None,
    }
}

async fn ids(plane: &Plane, query: &str) -> Vec<String> {
    let page = plane.get(&format!("/api/v1/requests?{query}")).await.ok();
    let items = page["items"].as_array().unwrap();
    items.iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn pages_follow_each_other_without_gaps_also_within_one_millisecond() {
    let plane = Plane::new().await;
    let at = clock::now();
    let records: Vec<_> = (0..7).map(|_| ExchangeRecord { requested_at: at, ..exchange(0) }).collect();
    plane.state.store.record_exchanges(&records).await.unwrap();
    let (mut seen, mut query) = (Vec::new(), "limit=3".to_owned());
    loop {
        let page = plane.get(&format!("/api/v1/requests?{query}")).await.ok();
        seen.extend(page["items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().to_owned()));
        let Value::String(cursor) = &page["nextCursor"] else { break };
        query = format!("limit=3&cursor={cursor}");
    }
    let mut expected: Vec<_> = records.iter().map(|record| record.id.to_string()).collect();
    expected.sort_by(|one, other| other.cmp(one));
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn the_log_is_filtered_by_each_of_its_parameters() {
    let plane = Plane::new().await;
    let (account_id, api_key_id) = (AccountId::generate(), ApiKeyId::generate());
    let records = [
        ExchangeRecord { account_id: Some(account_id), ..exchange(4) },
        ExchangeRecord { api_key_id: Some(api_key_id), ..exchange(3) },
        ExchangeRecord { model: Some("gpt-5.4".to_owned()), ..exchange(2) },
        ExchangeRecord { status: ExchangeStatus::Rejected, usage: MeteredUsage::None, ..exchange(1) },
    ];
    plane.state.store.record_exchanges(&records).await.unwrap();
    let filters = [
        format!("accountId={account_id}"),
        format!("apiKeyId={api_key_id}"),
        "model=gpt-5.4".to_owned(),
        "status=rejected".to_owned(),
    ];
    for (record, filter) in records.iter().zip(filters) {
        assert_eq!(ids(&plane, &filter).await, [record.id.to_string()], "{filter}");
    }
    assert_eq!(ids(&plane, "").await.len(), 4);
    let wrong = ["limit=0", "limit=201", "limit=x", "cursor=x", "status=good", "accountId=x", "what=ever"];
    for query in wrong {
        let answer = plane.get(&format!("/api/v1/requests?{query}")).await;
        answer.refused(StatusCode::BAD_REQUEST, "invalid_request");
    }
}

#[tokio::test]
async fn the_overview_sums_up_its_range_and_counts_the_pool() {
    let plane = Plane::new().await;
    let (account_id, _) = plane.import_account("plus").await;
    let api_key_id = ApiKeyId::generate();
    let records = [
        ExchangeRecord { account_id: Some(account_id), api_key_id: Some(api_key_id), ..exchange(0) },
        ExchangeRecord { status: ExchangeStatus::Error, cost_micros: None, ..exchange(0) },
        exchange(3 * 24 * 60),
        exchange(10 * 24 * 60),
        exchange(40 * 24 * 60),
    ];
    plane.state.store.record_exchanges(&records).await.unwrap();

    let day = plane.get("/api/v1/overview").await.ok();
    assert_eq!(
        day["totals"],
        json!({
            "requests": 2, "errorRequests": 1, "inputTokens": 200, "cachedInputTokens": 80, "outputTokens": 40,
            "reasoningTokens": 10, "costMicros": 700, "unpricedRequests": 1,
        })
    );
    assert_eq!(day["range"], "24h");
    let of = |list: &Value, of: Value| {
        let found = list.as_array().unwrap().iter().find(|entry| entry["of"] == of);
        found.map_or(Value::Null, |entry| entry["requests"].clone())
    };
    assert_eq!(of(&day["byAccount"], json!(account_id.to_string())), 1);
    assert_eq!(of(&day["byAccount"], Value::Null), 1);
    assert_eq!(of(&day["byApiKey"], json!(api_key_id.to_string())), 1);
    assert_eq!(of(&day["byModel"], json!("gpt-5.5")), 2);
    let states = json!({
        "active": 1, "rate_limited": 0, "quota_exceeded": 0, "paused": 0, "reauth_required": 0, "deactivated": 0,
    });
    assert_eq!(day["accountsByState"], states);

    for (range, requests) in [("24h", 2), ("7d", 3), ("28d", 4)] {
        let overview = plane.get(&format!("/api/v1/overview?range={range}")).await.ok();
        assert_eq!(overview["totals"]["requests"], requests, "{range}");
    }
    plane.get("/api/v1/overview?range=1y").await.refused(StatusCode::BAD_REQUEST, "invalid_request");
}
