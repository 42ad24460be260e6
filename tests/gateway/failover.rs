//! Failures of accounts that clients do not see.

use std::time::Duration;

use fake_chatgpt::{RefreshScript, Script};
use serde_json::{Value, json};

use crate::support::{Gateway, Setup, Upstream, events, eventually, native_body};

const PATH: &str = "/backend-api/codex/responses";

#[tokio::test(flavor = "multi_thread")]
async fn a_ten_megabyte_body_is_replayed_byte_for_byte_over_four_accounts() {
    for is_http2 in [false, true] {
        let upstream = if is_http2 { Upstream::start_http2(4).await } else { Upstream::start(4).await };
        let gateway = Gateway::before(&upstream).await;
        upstream.fake.script_path(PATH, [Script::usage_limit(600), Script::server_error(503), Script::CutBeforeHead]);
        let body = native_body(&"0123456789abcdef".repeat(10 * 1024 * 1024 / 16)).to_string();
        let url = format!("{}{PATH}", gateway.proxy_url);
        let response = gateway.http.post(url).body(body.clone()).send().await.unwrap();
        assert_eq!(response.status(), 200, "HTTP/2: {is_http2}");
        assert!(response.text().await.unwrap().contains("response.completed"));

        let legs = upstream.responses();
        assert_eq!(legs.len(), 4, "HTTP/2: {is_http2}");
        for leg in &legs {
            assert_eq!(leg.body_bytes, body.len() as u64);
            assert_eq!(leg.body, body.as_bytes());
            assert_eq!(leg.head.http_version, if is_http2 { "2" } else { "1.1" });
        }
        let accounts: std::collections::HashSet<_> =
            legs.iter().map(|leg| leg.header("authorization").unwrap().to_owned()).collect();
        assert_eq!(accounts.len(), 4, "each leg used an account of its own");
        let row = gateway.exchanges(1).await.remove(0);
        assert_eq!((row.status.as_str(), row.legs, row.is_estimated), ("ok", 4, false));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_token_is_refreshed_once_for_everybody_and_stored() {
    let upstream = Upstream::start(1).await;
    let gateway = Gateway::before(&upstream).await;
    upstream.fake.revoke_access_token(&upstream.accounts[0]);
    let calls = (0..8).map(|_| gateway.post(PATH, &native_body("hi")).send());
    for response in futures_util::future::join_all(calls).await {
        assert_eq!(response.unwrap().status(), 200);
    }
    let refreshes = upstream.fake.requests().into_iter().filter(|record| record.head.path == "/oauth/token").count();
    assert_eq!(refreshes, 1);
    let stored = gateway.store.list_accounts().await.unwrap().remove(0);
    assert_eq!(stored.account.token_version, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_has_ended_takes_its_account_out_and_the_client_sees_no_401() {
    let upstream = Upstream::start(1).await;
    let gateway = Gateway::before(&upstream).await;
    upstream.fake.revoke_access_token(&upstream.accounts[0]);
    upstream.fake.revoke_refresh_token(&upstream.accounts[0]);
    let response = gateway.post(PATH, &native_body("hi")).send().await.unwrap();
    assert_eq!(response.status(), 503);
    let state = gateway.store.list_accounts().await.unwrap().remove(0).account.status.state;
    assert_eq!(state.as_str(), "reauth_required");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_that_fails_for_now_moves_on_to_the_next_account() {
    let upstream = Upstream::start(2).await;
    let gateway = Gateway::before(&upstream).await;
    upstream.fake.revoke_access_token(&upstream.accounts[0]);
    upstream.fake.script_refresh(&upstream.accounts[0], [RefreshScript::ServerError, RefreshScript::ServerError]);
    for _ in 0..4 {
        let response = gateway.post(PATH, &native_body("hi")).send().await.unwrap();
        assert_eq!(response.status(), 200);
    }
    let states: Vec<_> =
        gateway.store.list_accounts().await.unwrap().into_iter().map(|stored| stored.account.status.state).collect();
    assert!(states.iter().all(|state| state.as_str() == "active"), "{states:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limited_account_sits_out_until_its_reset_and_the_database_knows() {
    let upstream = Upstream::start(2).await;
    let gateway = Gateway::before(&upstream).await;
    upstream.fake.script_path(PATH, [Script::usage_limit(600)]);
    for _ in 0..12 {
        assert_eq!(gateway.post(PATH, &native_body("hi")).send().await.unwrap().status(), 200);
    }
    let asked: Vec<_> =
        upstream.responses().iter().map(|record| record.header("authorization").unwrap().to_owned()).collect();
    assert_eq!(asked.len(), 13);
    assert!(!asked[1..].contains(&asked[0]), "a limited account was asked again");
    eventually("the limit is written", async || {
        let accounts = gateway.store.list_accounts().await.unwrap();
        accounts.iter().any(|stored| stored.account.status.state.as_str() == "rate_limited").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_that_is_limited_says_when_to_come_back() {
    let upstream = Upstream::start(2).await;
    let gateway = Gateway::before(&upstream).await;
    upstream.fake.default_script(&upstream.accounts[0], Script::usage_limit(600));
    upstream.fake.default_script(&upstream.accounts[1], Script::usage_limit(120));
    let response = gateway.post("/v1/responses", &json!({"model": "gpt-5.5", "input": "hi"})).send().await.unwrap();
    assert_eq!(response.status(), 429);
    let wait: u64 = response.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((110..=120).contains(&wait), "{wait}");
    let body: Value = response.json().await.unwrap();
    assert_eq!(body["error"]["type"], "usage_limit_reached");
    assert!(body["error"]["resets_in_seconds"].as_u64().is_some_and(|wait| (110..=120).contains(&wait)));
    let row = gateway.exchanges(1).await.remove(0);
    assert_eq!((row.status.as_str(), row.legs, row.usage), ("error", 2, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_inside_a_200_moves_on_before_the_client_saw_anything() {
    let upstream = Upstream::start(2).await;
    let gateway = Gateway::before(&upstream).await;
    let failure = Script::FirstEventFailure { code: "rate_limit_exceeded".into(), message: "try again in 60s".into() };
    upstream.fake.default_script(&upstream.accounts[0], failure);
    let (mut asked_the_failing_one, mut rounds) = (false, 0);
    while !asked_the_failing_one {
        let text = gateway.post(PATH, &native_body("hi")).send().await.unwrap().text().await.unwrap();
        let events = events(&text);
        assert_eq!(events.iter().filter(|event| event["type"] == "response.created").count(), 1);
        assert_eq!(events.last().unwrap()["type"], "response.completed");
        asked_the_failing_one |=
            upstream.responses().iter().any(|record| record.account.as_deref() == Some("account-1"));
        rounds += 1;
        assert!(rounds < 100, "the failing account was never asked");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_upstream_says_about_the_request_reaches_the_client() {
    let upstream = Upstream::start(2).await;
    let gateway = Gateway::before(&upstream).await;
    let refusal = Script::Raw {
        status: 400,
        headers: vec![("content-type".into(), "application/json".into())],
        body: r#"{"detail":"Unsupported parameter: xyz"}"#.into(),
    };
    for account in &upstream.accounts {
        upstream.fake.default_script(account, refusal.clone());
    }
    let native = gateway.post(PATH, &native_body("hi")).send().await.unwrap();
    assert_eq!(
        (native.status().as_u16(), native.text().await.unwrap()),
        (400, r#"{"detail":"Unsupported parameter: xyz"}"#.to_owned())
    );
    let openai = gateway.post("/v1/responses", &json!({"model": "gpt-5.5", "input": "hi"})).send().await.unwrap();
    assert_eq!(openai.status(), 400);
    assert_eq!(openai.json::<Value>().await.unwrap()["error"]["message"], "Unsupported parameter: xyz");
    assert_eq!(upstream.responses().len(), 2, "a refused request is not tried elsewhere");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_cut_ends_with_a_failure_and_is_recorded_as_estimated() {
    let upstream = Upstream::start(1).await;
    let gateway = Gateway::before(&upstream).await;
    upstream.fake.default_script(&upstream.accounts[0], Script::cut_after(7));
    let native = gateway.post(PATH, &native_body("hi")).send().await.unwrap().text().await.unwrap();
    assert_eq!(native.matches("event: response.output_text.delta").count(), 7);
    let last = events(&native).pop().unwrap();
    assert_eq!(
        (last["type"].as_str(), last["response"]["error"]["code"].as_str()),
        (Some("response.failed"), Some("stream_incomplete"))
    );
    let whole = gateway.post("/v1/responses", &json!({"model": "gpt-5.5", "input": "hi"})).send().await.unwrap();
    assert_eq!(whole.status(), 502);
    let asked = json!({"model": "gpt-5.5", "input": "hi", "stream": true});
    let streamed = events(&gateway.post("/v1/responses", &asked).send().await.unwrap().text().await.unwrap());
    let (first, last) = (&streamed[0], streamed.last().unwrap());
    assert_eq!((&first["type"], &last["type"]), (&json!("response.created"), &json!("response.failed")));
    assert_eq!(last["response"]["id"], first["response"]["id"]);
    let numbers: Vec<u64> = streamed.iter().map(|event| event["sequence_number"].as_u64().unwrap()).collect();
    assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "{numbers:?}");
    for row in gateway.exchanges(3).await {
        assert_eq!(
            (row.status.as_str(), row.is_estimated, row.error_code.as_deref()),
            ("error", true, Some("stream_incomplete"))
        );
        assert!(row.usage.is_some_and(|usage| usage.output >= 7));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reasoning_that_another_account_made_is_dropped_and_the_answer_says_so() {
    let upstream = Upstream::start(2).await;
    let gateway = Gateway::before(&upstream).await;
    let thinking = fake_chatgpt::Answer { reasoning: true, ..Default::default() };
    for account in &upstream.accounts {
        upstream.fake.default_script(account, Script::Answer(thinking.clone()));
    }
    let mut body = native_body("hi");
    body["include"] = json!(["reasoning.encrypted_content"]);
    let first = gateway.post(PATH, &body).send().await.unwrap().text().await.unwrap();
    let items: Vec<Value> = events(&first)
        .into_iter()
        .filter(|event| event["type"] == "response.output_item.done")
        .map(|event| event["item"].clone())
        .collect();
    assert!(items[0]["encrypted_content"].is_string());
    let maker = upstream.responses()[0].account.clone().unwrap();
    let maker = upstream.accounts.iter().find(|account| account.name() == maker).unwrap();
    upstream.fake.default_script(maker, Script::usage_limit(600));
    body["input"].as_array_mut().unwrap().extend(items);
    let second = gateway.post(PATH, &body).send().await.unwrap();
    let dropped = second.headers().get("x-codex-lb-dropped").map(|value| value.to_str().unwrap().to_owned());
    assert!(second.text().await.unwrap().contains("response.completed"));
    assert_eq!(dropped.as_deref(), Some("encrypted_content=1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_whose_account_is_used_up_between_two_turns_goes_on_on_another() {
    let upstream = Upstream::start(3).await;
    let gateway = Gateway::before(&upstream).await;
    let thinking = fake_chatgpt::Answer { reasoning: true, ..Default::default() };
    for account in &upstream.accounts {
        upstream.fake.default_script(account, Script::Answer(thinking.clone()));
    }
    let mut body = native_body("turn 1");
    body["include"] = json!(["reasoning.encrypted_content"]);
    let mut turn = async |number: usize| {
        let asked = json!({"type": "message", "role": "user",
            "content": [{"type": "input_text", "text": format!("turn {number}")}]});
        body["input"].as_array_mut().unwrap().push(asked);
        let answer = gateway.post(PATH, &body).header("session-id", "s").header("thread-id", "t").send().await.unwrap();
        assert_eq!(answer.status(), 200, "turn {number}");
        let dropped = answer.headers().get("x-codex-lb-dropped").map(|value| value.to_str().unwrap().to_owned());
        let events = events(&answer.text().await.unwrap());
        assert_eq!(events.last().unwrap()["type"], "response.completed", "turn {number}");
        let done = events.into_iter().filter(|event| event["type"] == "response.output_item.done");
        body["input"].as_array_mut().unwrap().extend(done.map(|event| event["item"].clone()));
        (upstream.responses().pop().unwrap().account.unwrap(), dropped)
    };
    let first = turn(1).await;
    assert_eq!(turn(2).await, first);
    assert_eq!(first.1, None);
    let used_up = upstream.accounts.iter().find(|account| account.name() == first.0).unwrap();
    upstream.fake.default_script(used_up, Script::usage_limit(600));
    let (second, dropped) = turn(3).await;
    assert_ne!(second, first.0);
    assert_eq!(dropped.as_deref(), Some("encrypted_content=2"));
    // The client still sends what only the first account can read.
    let (third, dropped) = turn(4).await;
    assert_eq!((third, dropped.as_deref()), (second, Some("encrypted_content=3")));
    let asked_of_first =
        upstream.responses().iter().filter(|record| record.account.as_deref() == Some(used_up.name())).count();
    assert_eq!(asked_of_first, 3, "a limited account was asked again");
    let rows = gateway.exchanges(4).await;
    assert!(rows.iter().all(|row| row.status.as_str() == "ok" && !row.is_estimated), "{rows:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_never_answers_is_a_timeout_and_one_that_is_gone_a_503() {
    let upstream = Upstream::start(1).await;
    let mut setup = Setup::new(&upstream);
    setup.set("CODEX_LB_UPSTREAM__FIRST_BYTE_TIMEOUT", "200ms");
    let gateway = setup.serve().await;
    let place = fake_chatgpt::SilencePlace::BeforeHead;
    upstream.fake.default_script(&upstream.accounts[0], Script::Silence { place, duration_ms: None });
    let silent = gateway.post(PATH, &native_body("hi")).send().await.unwrap();
    assert_eq!(silent.status(), 504);
    upstream.fake.shutdown().await;
    let gone = gateway.post(PATH, &native_body("hi")).timeout(Duration::from_secs(20)).send().await.unwrap();
    assert_eq!(gone.status(), 503);
    assert_eq!(gone.json::<Value>().await.unwrap()["error"]["code"], "upstream_unavailable");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_stays_on_its_account_when_its_next_request_brings_the_turn_state() {
    let upstream = Upstream::start(4).await;
    let gateway = Gateway::before(&upstream).await;
    for turn in 0..6 {
        let thread = format!("thread-{turn}");
        let first = gateway.post(PATH, &native_body("hi")).header("thread-id", &thread).send().await.unwrap();
        let turn_state = first.headers()["x-codex-turn-state"].clone();
        first.text().await.unwrap();
        let second = gateway.post(PATH, &native_body("hi")).header("thread-id", &thread);
        second.header("x-codex-turn-state", turn_state).send().await.unwrap().text().await.unwrap();
        let accounts: Vec<_> = upstream.responses().into_iter().rev().take(2).map(|record| record.account).collect();
        assert_eq!(accounts[0], accounts[1], "turn {turn}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_native_client_is_told_to_wait_for_a_limit_that_ends_soon() {
    for (resets_in_seconds, status) in [(20, 200), (600, 429)] {
        let upstream = Upstream::start(1).await;
        let gateway = Gateway::before(&upstream).await;
        upstream.fake.default_script(&upstream.accounts[0], Script::usage_limit(resets_in_seconds));
        for _ in 0..2 {
            let response = gateway.post(PATH, &native_body("hi")).send().await.unwrap();
            assert_eq!(response.status(), status, "{resets_in_seconds} s");
            let text = response.text().await.unwrap();
            if status == 200 {
                let told = events(&text).pop().unwrap();
                let error = &told["response"]["error"];
                assert_eq!((&told["type"], &error["code"]), (&json!("response.failed"), &json!("rate_limit_exceeded")));
                let message = error["message"].as_str().unwrap();
                assert!(message.ends_with("Please try again in 20s.") || message.ends_with("in 19s."), "{message}");
            } else {
                let error = &serde_json::from_str::<Value>(&text).unwrap()["error"];
                assert_eq!((&error["type"], &error["plan_type"]), (&json!("usage_limit_reached"), &json!("plus")));
            }
        }
        assert_eq!(upstream.responses().len(), 1, "upstream was asked in vain");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_s_trouble_that_an_event_tells_is_not_the_client_s() {
    let upstream = Upstream::start(1).await;
    let gateway = Gateway::before(&upstream).await;
    let event = json!({"type": "error", "status": 401, "error": {"code": "token_expired", "message": "expired"}});
    let body = format!("event: error\ndata: {event}\n\n");
    upstream.fake.script(&upstream.accounts[0], [Script::Raw { status: 200, headers: Vec::new(), body }]);
    upstream.fake.script_refresh(&upstream.accounts[0], [RefreshScript::ServerError; 4]);
    let response = gateway.post("/v1/responses", &json!({"model": "gpt-5.5", "input": "hi"})).send().await.unwrap();
    let status = response.status();
    let told: Value = response.json().await.unwrap();
    assert_eq!((status.as_u16(), &told["error"]["code"]), (503, &json!("upstream_unavailable")));
}

#[tokio::test(flavor = "multi_thread")]
async fn words_that_upstream_only_quotes_harm_no_account() {
    let upstream = Upstream::start(1).await;
    let gateway = Gateway::before(&upstream).await;
    for quoted in ["model is not supported when using codex", "Selected model is at capacity"] {
        let message = format!("Invalid value: '{quoted}'. Supported values are: 'low' and 'high'.");
        let refusal = Script::Raw {
            status: 400,
            headers: vec![("content-type".into(), "application/json".into())],
            body: json!({"error": {"message": message, "type": "invalid_request_error", "code": "invalid_value"}})
                .to_string(),
        };
        upstream.fake.script(&upstream.accounts[0], [refusal, Script::Auto]);
        assert_eq!(gateway.post(PATH, &native_body("hi")).send().await.unwrap().status(), 400);
        assert_eq!(gateway.post(PATH, &native_body("hi")).send().await.unwrap().status(), 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_in_the_middle_is_recorded_by_its_name() {
    let upstream = Upstream::start(4).await;
    let gateway = Gateway::before(&upstream).await;
    let failed =
        Script::FailMidStream { after_deltas: 2, code: "server_error".to_owned(), message: "sorry".to_owned() };
    upstream.accounts.iter().for_each(|account| upstream.fake.default_script(account, failed.clone()));
    for (path, stream) in [(PATH, true), ("/v1/responses", true), ("/v1/responses", false)] {
        let body =
            if path == PATH { native_body("hi") } else { json!({"model": "gpt-5.5", "input": "hi", "stream": stream}) };
        gateway.post(path, &body).send().await.unwrap().bytes().await.unwrap();
    }
    for row in gateway.exchanges(3).await {
        assert_eq!((row.status.as_str(), row.error_code.as_deref()), ("error", Some("server_error")), "{}", row.route);
    }
}
