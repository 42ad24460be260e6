//! Many exchanges at once.

use codex_lb_shared::domain::settings::RoutingSettings;
use codex_lb_shared::store::SettingsGroup;
use fake_chatgpt::{Answer, Script, Totals};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use serde_json::{Value, json};

use crate::support::{Database, Setup, Upstream, events, eventually, native_body};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn usage_of_a_thousand_concurrent_streams_equals_what_upstream_reported() {
    rlimit::increase_nofile_limit(u64::MAX).unwrap();
    for database in [Database::Sqlite, Database::Postgres] {
        let upstream = Upstream::start(4).await;
        for account in &upstream.accounts {
            let answer = Answer { text_tokens: 20, tokens_per_second: Some(10.0), ..Answer::default() };
            upstream.fake.default_script(account, Script::Answer(answer));
        }
        let setup = Setup::on(&upstream, database);
        setup.cap_accounts(1_000).await;
        let gateway = setup.serve().await;
        let mut streams: FuturesUnordered<_> = (0..1_000)
            .map(|index| {
                let request = gateway.post("/backend-api/codex/responses", &native_body(&format!("stream {index}")));
                async move { request.send().await.unwrap().text().await.unwrap() }
            })
            .collect();
        while let Some(text) = streams.next().await {
            assert!(text.contains("event: response.completed"), "{text}");
        }
        let totals = eventually("all exchanges are recorded", async || {
            let totals = gateway.totals().await;
            (totals.requests >= 1_000).then_some(totals)
        })
        .await;
        let reported: Vec<_> = upstream.accounts.iter().map(|account| upstream.fake.totals(account)).collect();
        let sum = |tokens: fn(&Totals) -> u64| i64::try_from(reported.iter().map(tokens).sum::<u64>()).unwrap();
        assert_eq!(totals.requests, 1_000);
        assert_eq!(totals.input_tokens, sum(|totals| totals.input), "{database:?}");
        assert_eq!(totals.cached_input_tokens, sum(|totals| totals.cached), "{database:?}");
        assert_eq!(totals.output_tokens, sum(|totals| totals.output), "{database:?}");
        assert_eq!(totals.reasoning_tokens, sum(|totals| totals.reasoning), "{database:?}");
        assert!(reported.iter().all(|totals| totals.completed > 0), "every account took part: {reported:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_refused_at_the_caps_and_slots_are_handed_on_at_once() {
    let upstream = Upstream::start(2).await;
    for account in &upstream.accounts {
        let answer = Answer { text_tokens: 10, tokens_per_second: Some(50.0), ..Answer::default() };
        upstream.fake.default_script(account, Script::Answer(answer));
    }
    let setup = Setup::new(&upstream);
    setup.cap_accounts(2).await;
    let gateway = setup.serve().await;
    let began = std::time::Instant::now();
    let calls = (0..40).map(|index| {
        let request = gateway.post("/backend-api/codex/responses", &native_body(&format!("call {index}")));
        async move { request.send().await.unwrap().text().await.unwrap() }
    });
    for text in futures_util::future::join_all(calls).await {
        assert!(text.contains("event: response.completed"), "{text}");
    }
    // 40 streams of 0.2 s on 4 slots: ten rounds. Whoever polled once a second would need five times as long.
    assert!(began.elapsed() < std::time::Duration::from_secs(8), "{:?}", began.elapsed());
    assert_eq!(gateway.exchanges(40).await.iter().filter(|row| row.status.as_str() == "ok").count(), 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_pool_says_so_when_the_wait_is_over() {
    let upstream = Upstream::start(1).await;
    let place = fake_chatgpt::SilencePlace::AfterEvents(3);
    upstream.fake.default_script(&upstream.accounts[0], Script::Silence { place, duration_ms: None });
    let setup = Setup::new(&upstream);
    let routing = RoutingSettings { account_concurrency_cap: 1, queue_timeout_ms: 300, ..RoutingSettings::default() };
    setup.save(SettingsGroup::Routing, &routing).await;
    let gateway = setup.serve().await;
    let _busy = gateway.post("/backend-api/codex/responses", &native_body("first")).send().await.unwrap();
    let second = gateway.post("/v1/responses", &json!({"model": "gpt-5.5", "input": "second"})).send().await.unwrap();
    assert_eq!(second.status(), 503);
    assert!(second.headers().contains_key("retry-after"));
    assert_eq!(second.json::<Value>().await.unwrap()["error"]["code"], "pool_busy");
    // Codex would give its turn up.
    let native = gateway.post("/backend-api/codex/responses", &native_body("second")).send().await.unwrap();
    assert_eq!(native.status(), 200);
    let told = events(&native.text().await.unwrap()).pop().unwrap();
    let error = &told["response"]["error"];
    assert_eq!((&told["type"], &error["code"]), (&json!("response.failed"), &json!("rate_limit_exceeded")));
    assert!(error["message"].as_str().unwrap().ends_with("Please try again in 5s."), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_longer_for_a_slot_than_its_client_waits_for_the_answer() {
    let upstream = Upstream::start(1).await;
    let place = fake_chatgpt::SilencePlace::AfterEvents(3);
    upstream.fake.default_script(&upstream.accounts[0], Script::Silence { place, duration_ms: None });
    let setup = Setup::new(&upstream);
    let routing =
        RoutingSettings { account_concurrency_cap: 1, queue_timeout_ms: 600_000, ..RoutingSettings::default() };
    setup.save(SettingsGroup::Routing, &routing).await;
    let gateway = setup.serve().await;
    let _busy = gateway.post("/backend-api/codex/responses", &native_body("first")).send().await.unwrap();
    let impatient = gateway.post("/v1/responses", &json!({"model": "gpt-5.5", "input": "second"}));
    let told = impatient.header("x-stainless-read-timeout", "1.5").send().await.unwrap();
    assert_eq!(told.status(), 503);
    assert_eq!(told.json::<Value>().await.unwrap()["error"]["code"], "pool_busy");
}
