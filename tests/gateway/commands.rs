//! The command line: what it does, what a running server notices of it, and how it fails.

use std::net::TcpListener;

use serde_json::json;

use crate::support::{Gateway, Setup, Upstream, eventually, native_body};

#[tokio::test(flavor = "multi_thread")]
async fn an_account_imported_beside_a_running_server_serves_within_two_seconds() {
    let upstream = Upstream::start(1).await;
    let mut gateway = Setup::without_accounts(&upstream.fake).serve().await;
    let empty = gateway.post("/backend-api/codex/responses", &native_body("hi")).send().await.unwrap();
    assert_eq!(empty.status(), 503);
    assert_eq!(empty.json::<serde_json::Value>().await.unwrap()["error"]["code"], "no_accounts");

    let file = gateway.setup.path("auth.json");
    std::fs::write(&file, upstream.accounts[0].auth_json().to_string()).unwrap();
    let broken = gateway.setup.path("broken.json");
    std::fs::write(&broken, "{\"tokens\":{\"id_token\":\"secret-part\"}}").unwrap();
    let (file, broken) = (file.to_string_lossy().into_owned(), broken.to_string_lossy().into_owned());
    let complaint = gateway.setup.command(&["accounts", "import", &broken, &file]).expect_failure();
    assert!(complaint.contains("`tokens.access_token` is missing"), "{complaint}");
    assert!(!complaint.contains("secret-part"), "{complaint}");
    let imported_at = std::time::Instant::now();
    eventually("the account serves", async || {
        let response = gateway.post("/backend-api/codex/responses", &native_body("hi")).send().await.unwrap();
        (response.status() == 200).then_some(())
    })
    .await;
    assert!(imported_at.elapsed() < std::time::Duration::from_secs(3), "{:?}", imported_at.elapsed());
    let list = gateway.setup.command(&["accounts", "list"]).expect_success();
    assert!(list.contains("active") && list.contains("account-1@example.test"), "{list}");
    assert!(gateway.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_start_says_why_in_one_sentence() {
    let upstream = Upstream::start(1).await;
    let mut setup = Setup::new(&upstream);
    let one_sentence = |complaint: &str, words: &[&str]| {
        assert_eq!(complaint.trim().lines().count(), 1, "{complaint}");
        assert!(words.iter().all(|word| complaint.contains(word)), "{complaint}");
    };

    setup.set("CODEX_LB_ENCRYPTION_KEY", &"ab".repeat(32));
    one_sentence(&setup.command(&["serve"]).expect_failure(), &["encryption key", "restore the original key"]);
    setup.set("CODEX_LB_ENCRYPTION_KEY", "");

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    setup.set("CODEX_LB_PROXY__LISTEN", &taken.local_addr().unwrap().to_string());
    one_sentence(&setup.command(&["serve"]).expect_failure(), &["listen on", "proxy.listen", "in use"]);
    setup.set("CODEX_LB_PROXY__LISTEN", "127.0.0.1:0");
    setup.set("CODEX_LB_ADMIN__LISTEN", &taken.local_addr().unwrap().to_string());
    one_sentence(&setup.command(&["serve"]).expect_failure(), &["admin.listen", "in use"]);
    setup.set("CODEX_LB_ADMIN__LISTEN", "127.0.0.1:0");

    setup.set("CODEX_LB_DATABASE_URL", "postgres://nobody:hush@127.0.0.1:1/none");
    let complaint = setup.command(&["serve"]).expect_failure();
    one_sentence(&complaint, &["127.0.0.1:1"]);
    assert!(!complaint.contains("hush"), "{complaint}");
    setup.set("CODEX_LB_DATABASE_URL", "");

    let file = setup.path("a-file");
    std::fs::write(&file, "x").unwrap();
    setup.set("CODEX_LB_DATA_DIR", &file.to_string_lossy());
    one_sentence(&setup.command(&["serve"]).expect_failure(), &["data directory", "a-file"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_mistakes_of_a_configuration_are_told_at_once() {
    let upstream = Upstream::start(0).await;
    let mut setup = Setup::new(&upstream);
    setup.set("CODEX_LB_PROXY__LISTEN", "nowhere");
    setup.set("CODEX_LB_UPSTREAM__IDLE_TIMEOUT", "soon");
    let unknown = concat!("CODEX_LB_", "NO_SUCH__SETTING");
    setup.set(unknown, "1");
    let complaint = setup.command(&["check-config"]).expect_failure();
    for word in ["proxy.listen", "nowhere", "upstream.idle_timeout", "soon", unknown] {
        assert!(complaint.contains(word), "{word} is not in {complaint}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_server_on_the_same_sqlite_file_is_refused() {
    let upstream = Upstream::start(1).await;
    let gateway = Gateway::before(&upstream).await;
    let complaint = gateway.setup.command(&["serve"]).expect_failure();
    assert!(complaint.contains("another codex-lb serves") && complaint.contains("PostgreSQL"), "{complaint}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_lets_running_streams_end_and_writes_what_they_used() {
    let upstream = Upstream::start(1).await;
    let mut gateway = Gateway::before(&upstream).await;
    let slow = fake_chatgpt::Answer { text_tokens: 20, tokens_per_second: Some(20.0), ..Default::default() };
    upstream.fake.script(&upstream.accounts[0], [fake_chatgpt::Script::Answer(slow)]);
    let response = gateway.post("/backend-api/codex/responses", &native_body("hi")).send().await.unwrap();
    let reader = tokio::spawn(response.text());
    let status = tokio::task::spawn_blocking(move || (gateway.stop(), gateway)).await.unwrap();
    assert!(status.0.success());
    let text = reader.await.unwrap().unwrap();
    assert!(text.contains("response.completed"), "{text}");
    assert_eq!(status.1.totals().await.requests, 1);
    assert!(status.1.totals().await.output_tokens >= 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_does_what_the_command_line_does() {
    let upstream = Upstream::start(1).await;
    let gateway = Setup::without_accounts(&upstream.fake).serve().await;
    let post = async |path: &str, body: serde_json::Value| {
        let request = gateway.http.post(format!("{}/api/v1{path}", gateway.admin_url)).json(&body);
        let response = request.header("x-codex-lb-request", "1").send().await.unwrap();
        (response.status().as_u16(), response.json::<serde_json::Value>().await.unwrap_or_default())
    };
    let files = json!({"files": [{"name": "auth.json", "content": upstream.accounts[0].auth_json().to_string()}]});
    let (status, imported) = post("/accounts/import", files).await;
    assert_eq!(status, 200, "{imported}");
    let (status, key) = post("/api-keys", json!({"name": "made by the API"})).await;
    assert!(status == 200 || status == 201, "{key}");
    let secret = key["secret"].as_str().unwrap();
    // Effective at once: no waiting for the change watch.
    let request = gateway.post("/v1/responses", &json!({"model": "gpt-5.5", "input": "hi"})).bearer_auth(secret);
    assert_eq!(request.send().await.unwrap().status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_ends_idle_connections_and_itself_within_a_second_of_its_grace() {
    let upstream = Upstream::start(1).await;
    let mut gateway = Gateway::before(&upstream).await;
    // Thirty connections that stay open for their next request.
    let calls = (0..30).map(|_| gateway.http.get(format!("{}/health", gateway.proxy_url)).send());
    for response in futures_util::future::join_all(calls).await {
        response.unwrap().text().await.unwrap();
    }
    let began = std::time::Instant::now();
    let (status, _gateway) = tokio::task::spawn_blocking(move || (gateway.stop(), gateway)).await.unwrap();
    assert!(status.success());
    assert!(began.elapsed() < std::time::Duration::from_secs(2), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_outlasts_the_drain_is_told_and_recorded() {
    let upstream = Upstream::start(1).await;
    let mut setup = Setup::new(&upstream);
    setup.set("CODEX_LB_SHUTDOWN__DRAIN_TIMEOUT", "300ms");
    let mut gateway = setup.serve().await;
    let endless = fake_chatgpt::Answer { text_tokens: 100_000, tokens_per_second: Some(50.0), ..Default::default() };
    upstream.fake.script(&upstream.accounts[0], [fake_chatgpt::Script::Answer(endless)]);
    let response = gateway.post("/backend-api/codex/responses", &native_body("hi")).send().await.unwrap();
    let reader = tokio::spawn(response.text());
    let (status, gateway) = tokio::task::spawn_blocking(move || (gateway.stop(), gateway)).await.unwrap();
    assert!(status.success());
    let last = crate::support::events(&reader.await.unwrap().unwrap()).pop().unwrap();
    assert_eq!(
        (last["type"].as_str(), last["response"]["error"]["code"].as_str()),
        (Some("response.failed"), Some("restarting"))
    );
    let row = gateway.exchanges(1).await.remove(0);
    assert_eq!((row.status.as_str(), row.is_estimated), ("error", true));
}
