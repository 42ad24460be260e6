//! Exchanges that go well.

use std::time::Duration;

use codex_lb_shared::domain::usage::TokenUsage;
use fake_chatgpt::{Script, Usage};
use futures_util::StreamExt as _;
use serde_json::json;

use crate::support::{Database, Gateway, Setup, Upstream, events, eventually, native_body};

#[tokio::test(flavor = "multi_thread")]
async fn a_native_stream_is_relayed_byte_for_byte_and_its_usage_recorded() {
    let upstream = Upstream::start(1).await;
    let gateway = Gateway::before(&upstream).await;
    let text = "event: response.created\r\ndata: {\"type\":\"response.created\"}\r\n\r\n: hello\n\ndata: {\"type\":\"brand.new\"}\n\nevent: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{\"id\":\"r\",\"output\":[],\"usage\":{\"input_tokens\":1000,\"input_tokens_details\":{\"cached_tokens\":400},\"output_tokens\":100,\"output_tokens_details\":{\"reasoning_tokens\":60}}}}\n\ndata: [DONE]\n\n";
    let headers = [
        ("content-type", "text/event-stream"),
        ("set-cookie", "a=b"),
        ("openai-model", "gpt-5.5"),
        ("x-codex-turn-state", "t"),
    ];
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    upstream.fake.script(&upstream.accounts[0], [Script::Raw { status: 200, headers, body: text.to_owned() }]);

    let response = gateway.post("/backend-api/codex/responses", &native_body("hi")).send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["openai-model"], "gpt-5.5");
    assert_eq!(response.headers()["x-codex-turn-state"], "t");
    assert!(response.headers().get("set-cookie").is_none());
    let request_id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
    assert_eq!(response.text().await.unwrap(), text);

    let rows = gateway.exchanges(1).await;
    let row = &rows[0];
    assert_eq!(row.id.to_string(), request_id);
    assert_eq!((row.status.as_str(), row.legs, row.model.as_deref()), ("ok", 1, Some("gpt-5.5")));
    assert_eq!(row.usage, Some(TokenUsage { input: 1_000, cached_input: 400, output: 100, reasoning: 60 }));
    assert_eq!((row.cost_micros, row.is_estimated), (Some(6_200), false));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_sdk_gets_a_stream_and_a_whole_answer_on_both_databases() {
    for database in [Database::Sqlite, Database::Postgres] {
        let upstream = Upstream::start(1).await;
        let gateway = Setup::on(&upstream, database).serve().await;
        let usage = Usage { input: 20, cached: 5, output: 9, reasoning: 2 };
        let answer = fake_chatgpt::Answer {
            text: Some("hello there".to_owned()),
            usage: Some(usage),
            rate_limits_event: true,
            ..Default::default()
        };
        upstream.fake.default_script(&upstream.accounts[0], Script::Answer(answer));

        let body = json!({"model": "gpt-5.5", "input": "hi", "temperature": 0.3, "max_output_tokens": 7});
        let whole = gateway.post("/v1/responses", &body).send().await.unwrap();
        assert_eq!(whole.status(), 200);
        assert_eq!(whole.headers()["x-codex-lb-ignored-params"], "max_output_tokens,temperature");
        assert_eq!(whole.headers()["content-type"], "application/json");
        let whole: serde_json::Value = whole.json().await.unwrap();
        assert_eq!(whole["output"][0]["content"][0]["text"], "hello there");
        assert_eq!(whole["usage"]["input_tokens"], 20);

        let body = json!({"model": "gpt-5.5", "input": [{"role": "system", "content": "be kind"}, {"role": "user", "content": "hi"}], "stream": true});
        let streamed = gateway.post("/v1/responses", &body).send().await.unwrap().text().await.unwrap();
        let events = events(&streamed);
        assert_eq!(events[0]["type"], "response.created");
        assert!(!streamed.contains("codex.rate_limits"));
        let last = events.last().unwrap();
        assert_eq!(last["type"], "response.completed");
        assert_eq!(last["response"]["output"][0]["content"][0]["text"], "hello there");

        let sent: Vec<_> = upstream.responses().iter().map(fake_chatgpt::RequestRecord::json).collect();
        assert_eq!(sent[1]["instructions"], "be kind");
        let rows = gateway.exchanges(2).await;
        assert!(
            rows.iter().all(|row| row.usage.is_some_and(|usage| usage.output == 9) && row.cost_micros.is_some()),
            "{database:?}"
        );
        let totals = gateway.totals().await;
        assert_eq!((totals.requests, totals.input_tokens, totals.reasoning_tokens), (2, 40, 4), "{database:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn none_of_200_canary_headers_and_no_credential_reaches_upstream() {
    let upstream = Upstream::start(1).await;
    let gateway = Gateway::before(&upstream).await;
    let key = gateway.setup.key("canary");
    let mut request = gateway.post("/backend-api/codex/responses", &native_body("hi")).bearer_auth(&key);
    for index in 0..190 {
        request = request.header(format!("x-canary-{index}"), format!("canary-value-{index}"));
    }
    for (name, value) in [
        ("cookie", "canary-value=1"),
        ("x-api-key", &key),
        ("proxy-authorization", "Basic canary-value"),
        ("chatgpt-account-id", "canary-value"),
        ("x-codex-installation-id", "canary-value"),
        ("x-forwarded-for", "203.0.113.1"),
        ("x-auth-request-email", "canary-value"),
        ("originator", "canary-value"),
        ("x-codex-lb-hop", "canary-value"),
        ("x-codex-secret-hop", "canary-value"),
        ("connection", "x-codex-secret-hop"),
        ("x-openai-api-key", "canary-value"),
        ("x-openai-account-routing-override", "canary-value"),
        ("x-codex-access-token", "canary-value"),
        ("x-codex-window-id", "goes-on"),
        ("session-id", "goes-on-too"),
    ] {
        request = request.header(name, value);
    }
    assert_eq!(request.send().await.unwrap().status(), 200);
    let seen = upstream.responses().remove(0);
    for (name, value) in &seen.head.headers {
        assert!(!value.contains("canary-value") && !value.contains(&key) && value != "203.0.113.1", "{name}: {value}");
    }
    assert_eq!(seen.header("authorization"), Some(format!("Bearer {}", upstream.accounts[0].access_token()).as_str()));
    assert_eq!(seen.header("chatgpt-account-id"), Some(upstream.accounts[0].chatgpt_account_id()));
    assert_eq!(seen.header("x-codex-window-id"), Some("goes-on"));
    assert_eq!(seen.header("session-id"), Some("goes-on-too"));
    assert_eq!(seen.header("originator"), Some("codex_lb"));
    assert!(seen.header("user-agent").is_some_and(|agent| agent.starts_with("codex-lb/")));
    assert!(!gateway.log().contains(&key), "a secret is in the log");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_native_codex_client_keeps_its_identity() {
    let upstream = Upstream::start(1).await;
    let gateway = Gateway::before(&upstream).await;
    let agent = "codex_exec/0.169.0 (Debian 12.0.0; x86_64) xterm-256color (codex_exec; 0.169.0)";
    let request = gateway.post("/backend-api/codex/responses", &native_body("hi"));
    let request = request.header("originator", "codex_exec").header("user-agent", agent).header("version", "0.169.0");
    assert_eq!(request.send().await.unwrap().status(), 200);
    let seen = upstream.responses().remove(0);
    assert_eq!(seen.header("originator"), Some("codex_exec"));
    assert_eq!(seen.header("user-agent"), Some(agent));
    assert_eq!(seen.header("version"), Some("0.169.0"));
}

#[tokio::test(flavor = "multi_thread")]
async fn compressed_bodies_are_understood() {
    let upstream = Upstream::start(1).await;
    let gateway = Gateway::before(&upstream).await;
    let plain = native_body(&"word ".repeat(50_000)).to_string();
    let zstd = zstd::encode_all(plain.as_bytes(), 3).unwrap();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gzip, plain.as_bytes()).unwrap();
    for (coding, body) in [("zstd", zstd), ("gzip", gzip.finish().unwrap())] {
        let url = format!("{}/backend-api/codex/responses", gateway.proxy_url);
        let request = gateway.http.post(url).header("content-encoding", coding).body(body);
        assert_eq!(request.send().await.unwrap().status(), 200, "{coding}");
    }
    for record in upstream.responses() {
        assert_eq!(record.body, plain.as_bytes());
        assert_eq!(record.header("content-encoding"), None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_stays_on_its_account() {
    let upstream = Upstream::start(4).await;
    let gateway = Gateway::before(&upstream).await;
    for _ in 0..6 {
        let request = gateway.post("/backend-api/codex/responses", &native_body("hi")).header("session-id", "s-1");
        assert_eq!(request.send().await.unwrap().status(), 200);
    }
    let accounts: std::collections::HashSet<_> =
        upstream.responses().into_iter().map(|record| record.account).collect();
    assert_eq!(accounts.len(), 1, "{accounts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_up_ends_its_leg_and_pays_for_what_was_sent() {
    let upstream = Upstream::start(1).await;
    let gateway = Gateway::before(&upstream).await;
    let slow = fake_chatgpt::Answer { text_tokens: 100_000, tokens_per_second: Some(200.0), ..Default::default() };
    upstream.fake.script(&upstream.accounts[0], [Script::Answer(slow)]);
    let response = gateway.post("/backend-api/codex/responses", &native_body("hi")).send().await.unwrap();
    let mut stream = response.bytes_stream();
    let mut text = String::new();
    while text.matches("output_text.delta").count() < 10 {
        text.push_str(&String::from_utf8_lossy(&stream.next().await.unwrap().unwrap()));
    }
    drop(stream);
    upstream.fake.wait_for_within(Duration::from_secs(3), fake_chatgpt::RequestRecord::is_cancelled).await.unwrap();
    let row = gateway.exchanges(1).await.remove(0);
    assert_eq!((row.status.as_str(), row.is_estimated), ("cancelled", true));
    assert!(row.usage.is_some_and(|usage| usage.output >= 5), "{row:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_is_filled_with_what_each_client_counts_as_life() {
    let upstream = Upstream::start(1).await;
    let mut setup = Setup::new(&upstream);
    setup.set("CODEX_LB_UPSTREAM__STATUS_HOLD", "50ms").set("CODEX_LB_UPSTREAM__KEEP_ALIVE_INTERVAL", "50ms");
    let gateway = setup.serve().await;
    let late = fake_chatgpt::Answer { text_tokens: 2, first_token_delay_ms: 400, ..Default::default() };
    upstream.fake.default_script(&upstream.accounts[0], Script::Answer(late));
    let native = gateway.post("/backend-api/codex/responses", &native_body("hi")).send().await.unwrap();
    let native = native.text().await.unwrap();
    assert!(native.starts_with("data: {\"type\":\"keepalive\"}\n\n"), "{native}");
    let body = json!({"model": "gpt-5.5", "input": "hi", "stream": true});
    let openai = gateway.post("/v1/responses", &body).send().await.unwrap().text().await.unwrap();
    assert!(openai.starts_with(": keep-alive\n\n"), "{openai}");
    assert_eq!(events(&openai).last().unwrap()["type"], "response.completed");
}

#[tokio::test(flavor = "multi_thread")]
async fn models_are_listed_in_both_shapes() {
    let upstream = Upstream::start(1).await;
    let gateway = Gateway::before(&upstream).await;
    let get = async |path: &str| {
        let response = gateway.http.get(format!("{}{path}", gateway.proxy_url)).send().await.unwrap();
        response.json::<serde_json::Value>().await.unwrap()
    };
    let list = eventually("the models are fetched", async || {
        let list = get("/v1/models").await;
        (!list["data"].as_array().unwrap().is_empty()).then_some(list)
    })
    .await;
    assert_eq!((list["object"].as_str(), list["data"][0]["object"].as_str()), (Some("list"), Some("model")));
    assert_eq!(get("/v1/models/gpt-5.5").await["id"], "gpt-5.5");
    assert_eq!(get("/v1/models/gpt-0").await["error"]["code"], "model_not_found");
    for path in ["/backend-api/codex/models", "/v1/models?client_version=0.169.0"] {
        let catalog = get(path).await;
        assert!(catalog["models"][0]["supported_reasoning_levels"].is_array(), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dashboard_opens_on_the_data_plane_s_port_and_health_is_told_on_both() {
    let upstream = Upstream::start(1).await;
    let gateway = Gateway::before(&upstream).await;
    let page = gateway.http.get(&gateway.proxy_url).header("accept", "text/html").send().await.unwrap();
    assert_eq!(page.status(), 200);
    assert!(page.headers()["content-type"].to_str().unwrap().starts_with("text/html"));
    let accounts = gateway.http.get(format!("{}/api/v1/accounts", gateway.proxy_url)).send().await.unwrap();
    assert_eq!(accounts.json::<serde_json::Value>().await.unwrap()["items"].as_array().unwrap().len(), 1);
    for base in [&gateway.proxy_url, &gateway.admin_url] {
        for path in ["/health", "/health/live", "/health/ready", "/health/startup"] {
            assert_eq!(gateway.http.get(format!("{base}{path}")).send().await.unwrap().status(), 200, "{path}");
        }
    }
    let metrics = gateway.http.get(format!("{}/metrics", gateway.metrics_url)).send().await.unwrap();
    assert!(metrics.text().await.unwrap().contains("codex_lb_build_info"));
}
