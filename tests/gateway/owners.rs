//! What only one account can read waits for it, goes there, or is told to start over.

use fake_chatgpt::Script;
use serde_json::{Value, json};

use crate::support::{Gateway, Upstream, events, native_body};

const PATH: &str = "/backend-api/codex/responses";
const THREAD: &str = "thread-id";

fn accounts(upstream: &Upstream) -> Vec<String> {
    upstream.responses().into_iter().map(|record| record.account.unwrap()).collect()
}

/// A conversation that was compacted on its account, as the body of its next turn.
async fn compacted(gateway: &Gateway) -> Value {
    let request = gateway.post("/backend-api/codex/responses/compact", &native_body("a long story"));
    let response = request.header(THREAD, "t").send().await.unwrap();
    assert_eq!(response.status(), 200);
    let answer: Value = response.json().await.unwrap();
    let mut body = native_body("go on");
    body["input"].as_array_mut().unwrap().extend(answer["output"].as_array().unwrap().iter().cloned());
    body
}

async fn turn(gateway: &Gateway, body: &Value) -> (Option<String>, Vec<Value>) {
    let response = gateway.post(PATH, body).header(THREAD, "t").send().await.unwrap();
    let dropped = response.headers().get("x-codex-lb-dropped").map(|value| value.to_str().unwrap().to_owned());
    (dropped, events(&response.text().await.unwrap()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compaction_waits_for_its_account() {
    let upstream = Upstream::start(2).await;
    let gateway = Gateway::before(&upstream).await;
    let body = compacted(&gateway).await;
    let owner = upstream.accounts.iter().find(|account| account.name() == accounts(&upstream)[0]).unwrap();
    upstream.fake.script(owner, [Script::usage_limit(2)]);
    let (dropped, events) = turn(&gateway, &body).await;
    assert_eq!(events.last().unwrap()["type"], "response.completed");
    let asked = accounts(&upstream);
    let other = upstream.accounts.iter().find(|account| account.name() != owner.name()).unwrap();
    // Compacted, limited, refused by the other account, and answered where it can be read.
    assert_eq!(asked, [owner.name(), owner.name(), other.name(), owner.name()]);
    assert_eq!(dropped, None);
    assert!(upstream.responses()[3].json()["input"].to_string().contains("compaction"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compaction_is_dropped_when_its_account_is_away_for_long() {
    let upstream = Upstream::start(2).await;
    let gateway = Gateway::before(&upstream).await;
    let body = compacted(&gateway).await;
    let owner = upstream.accounts.iter().find(|account| account.name() == accounts(&upstream)[0]).unwrap();
    upstream.fake.default_script(owner, Script::DeactivatedWorkspace);
    let (dropped, events) = turn(&gateway, &body).await;
    assert_eq!(events.last().unwrap()["type"], "response.completed");
    assert_eq!(dropped.as_deref(), Some("encrypted_content=1"));
    assert!(!upstream.responses().last().unwrap().json()["input"].to_string().contains("compaction"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_previous_response_leads_to_its_account_or_is_unknown() {
    let upstream = Upstream::start(4).await;
    let gateway = Gateway::before(&upstream).await;
    let first = gateway.post(PATH, &native_body("hi")).send().await.unwrap().text().await.unwrap();
    let response_id = events(&first).pop().unwrap()["response"]["id"].as_str().unwrap().to_owned();
    let owner = accounts(&upstream).remove(0);
    let going_on = |id: &str| {
        let mut body = native_body("go on");
        body["previous_response_id"] = json!(id);
        body
    };
    for _ in 0..6 {
        // Over HTTP upstream refuses the parameter; which account was asked is what counts.
        assert_eq!(gateway.post(PATH, &going_on(&response_id)).send().await.unwrap().status(), 400);
    }
    assert!(accounts(&upstream).iter().all(|asked| *asked == owner), "{:?}", accounts(&upstream));

    let asked_before = accounts(&upstream).len();
    let other_caller = gateway.setup.key("other");
    let unknown = [
        gateway.post(PATH, &going_on("resp_unknown")).send().await.unwrap(),
        gateway.post(PATH, &going_on(&response_id)).bearer_auth(other_caller).send().await.unwrap(),
    ];
    for response in unknown {
        assert_eq!(response.status(), 400);
        assert_eq!(response.json::<Value>().await.unwrap()["error"]["code"], "previous_response_not_found");
    }
    assert_eq!(accounts(&upstream).len(), asked_before, "upstream was asked about an unknown response");

    let stored = gateway.store.list_accounts().await.unwrap();
    let index = upstream.accounts.iter().position(|account| account.name() == owner).unwrap();
    let pause = format!("{}/api/v1/accounts/{}/pause", gateway.admin_url, stored[index].account.id);
    let paused = gateway.http.post(pause).header("x-codex-lb-request", "1").send().await.unwrap();
    assert!(paused.status().is_success(), "{paused:?}");
    let away = gateway.post(PATH, &going_on(&response_id)).send().await.unwrap();
    assert_eq!(away.json::<Value>().await.unwrap()["error"]["code"], "previous_response_not_found");
}
