//! What an account cannot do for one model says nothing about the others.

use fake_chatgpt::Script;
use serde_json::{Value, json};

use crate::support::{Gateway, Upstream, events, eventually, native_body};

const PATH: &str = "/backend-api/codex/responses";

fn refusal(status: u16, headers: &[(&str, &str)], body: &Value) -> Script {
    let headers = [("content-type", "application/json")].iter().chain(headers);
    let headers = headers.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Script::Raw { status, headers, body: body.to_string() }
}

async fn ask(gateway: &Gateway, model: &str) -> u16 {
    let mut body = native_body("hi");
    body["model"] = json!(model);
    let response = gateway.post(PATH, &body).send().await.unwrap();
    let status = response.status().as_u16();
    response.text().await.unwrap();
    status
}

/// How many requests for this model reached the account.
fn asked(upstream: &Upstream, account: usize, model: &str) -> usize {
    let name = upstream.accounts[account].name();
    let of_account = upstream.responses().into_iter().filter(|record| record.account.as_deref() == Some(name));
    of_account.filter(|record| record.json()["model"] == model).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_of_one_model_cools_the_account_for_that_model_alone() {
    const SPARK: &str = "gpt-5.3-codex-spark";
    let upstream = Upstream::start(2).await;
    upstream.fake.set_plan_models("plus", [SPARK, "gpt-5.5"]);
    let gateway = Gateway::before(&upstream).await;
    let limited = json!({"error": {"type": "usage_limit_reached", "message": "x", "resets_in_seconds": 600}});
    upstream.fake.script_path(PATH, [refusal(429, &[("x-codex-active-limit", "codex_bengalfox")], &limited)]);
    for _ in 0..12 {
        assert_eq!(ask(&gateway, SPARK).await, 200);
    }
    let counts = [0, 1].map(|account| asked(&upstream, account, SPARK));
    assert!(counts == [1, 12] || counts == [12, 1], "{counts:?}");
    let limited = usize::from(counts[1] == 1);
    for _ in 0..40 {
        assert_eq!(ask(&gateway, "gpt-5.5").await, 200);
    }
    assert!(asked(&upstream, limited, "gpt-5.5") > 0);
    let states: Vec<_> = gateway.store.list_accounts().await.unwrap();
    assert!(states.iter().all(|stored| stored.account.status.state.as_str() == "active"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_does_not_serve_a_model_is_not_asked_for_it_again() {
    let upstream = Upstream::start(2).await;
    let gateway = Gateway::before(&upstream).await;
    let detail = "The 'gpt-5.5' model is not supported when using Codex with a ChatGPT account.";
    upstream.fake.script_path(PATH, [refusal(400, &[], &json!({"detail": detail}))]);
    for _ in 0..12 {
        assert_eq!(ask(&gateway, "gpt-5.5").await, 200);
    }
    let counts = [0, 1].map(|account| asked(&upstream, account, "gpt-5.5"));
    assert!(counts == [1, 12] || counts == [12, 1], "{counts:?}");
    let refusing = usize::from(counts[1] == 1);
    for _ in 0..40 {
        assert_eq!(ask(&gateway, "gpt-5.6-sol").await, 200);
    }
    assert!(asked(&upstream, refusing, "gpt-5.6-sol") > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_with_credits_serves_on_when_its_windows_are_used_up() {
    let upstream = Upstream::start(1).await;
    let gateway = Gateway::before(&upstream).await;
    let mut usage = fake_chatgpt::UsageState::used(100.0, 20.0);
    upstream.fake.set_usage(&upstream.accounts[0], usage.clone());
    assert_eq!(ask(&gateway, "gpt-5.5").await, 200, "nothing is known yet");
    let refused = gateway.post("/v1/responses", &json!({"model": "gpt-5.5", "input": "hi"})).send().await.unwrap();
    assert_eq!(refused.status(), 429);
    assert_eq!(upstream.responses().len(), 1, "upstream was asked in vain");

    let upstream = Upstream::start(1).await;
    let gateway = Gateway::before(&upstream).await;
    usage.credits.has_credits = true;
    upstream.fake.set_usage(&upstream.accounts[0], usage);
    for _ in 0..3 {
        assert_eq!(ask(&gateway, "gpt-5.5").await, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_fail_in_the_middle_make_their_account_sit_out() {
    let upstream = Upstream::start(1).await;
    let gateway = Gateway::before(&upstream).await;
    let failed =
        Script::FailMidStream { after_deltas: 2, code: "server_error".to_owned(), message: "sorry".to_owned() };
    upstream.fake.script(&upstream.accounts[0], [Script::cut_after(2), failed]);
    upstream.fake.default_script(&upstream.accounts[0], Script::cut_after(2));
    let asked_upstream = || upstream.responses().len();
    for failures in 1..=3 {
        ask(&gateway, "gpt-5.5").await;
        assert_eq!(asked_upstream(), failures);
    }
    let response = gateway.post(PATH, &native_body("hi")).send().await.unwrap();
    let told = events(&response.text().await.unwrap()).pop().unwrap();
    assert_eq!(told["response"]["error"]["code"], "rate_limit_exceeded", "{told}");
    assert_eq!(asked_upstream(), 3, "two failures in a row are tolerated");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_that_is_told_in_the_middle_of_an_answer_counts() {
    let upstream = Upstream::start(2).await;
    let gateway = Gateway::before(&upstream).await;
    let limited = Script::FailMidStream {
        after_deltas: 2,
        code: "rate_limit_exceeded".to_owned(),
        message: "Rate limit reached. Please try again in 600s.".to_owned(),
    };
    upstream.fake.default_script(&upstream.accounts[0], limited);
    for _ in 0..30 {
        ask(&gateway, "gpt-5.5").await;
    }
    assert_eq!(asked(&upstream, 0, "gpt-5.5"), 1);
    eventually("the limit is written", async || {
        let stored = gateway.store.list_accounts().await.unwrap();
        stored.iter().any(|stored| stored.account.status.state.as_str() == "rate_limited").then_some(())
    })
    .await;
}
