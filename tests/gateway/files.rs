//! Files and recordings: they go through as they come, and a file stays with its account and its caller.

use std::collections::HashSet;

use fake_chatgpt::{RequestRecord, Script};
use serde_json::{Value, json};

use crate::support::{Gateway, Setup, Upstream};

const FILES: &str = "/backend-api/files";

/// A request that refers to a file.
fn body_with(file_id: &str) -> Value {
    json!({"model": "gpt-5.5", "input": [{"type": "message", "role": "user", "content": [
        {"type": "input_text", "text": "read this"}, {"type": "input_file", "file_id": file_id}]}]})
}

fn new_file() -> Value {
    json!({"file_name": "a.txt", "file_size": 3, "use_case": "codex"})
}

fn to(upstream: &Upstream, ending: &str) -> Vec<RequestRecord> {
    upstream.fake.requests().into_iter().filter(|record| record.head.path.ends_with(ending)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_made_finished_and_used_on_one_account() {
    let upstream = Upstream::start(4).await;
    let gateway = Gateway::before(&upstream).await;
    let made = gateway.post(FILES, &new_file()).send().await.unwrap();
    assert_eq!((made.status().as_u16(), made.headers()["content-type"].to_str().unwrap()), (200, "application/json"));
    assert!(made.headers().get("set-cookie").is_none() && made.headers().get("x-codex-turn-state").is_none());
    let made: Value = made.json().await.unwrap();
    let file_id = made["file_id"].as_str().unwrap();
    assert!(made["upload_url"].is_string());
    let sent = to(&upstream, FILES).remove(0);
    assert_eq!((sent.json(), sent.header("content-type")), (new_file(), Some("application/json")));
    let owner = sent.account.unwrap();

    let done = gateway.post(&format!("{FILES}/{file_id}/uploaded"), &json!({})).send().await.unwrap();
    assert_eq!(
        (done.status().as_u16(), done.json::<Value>().await.unwrap()["status"].as_str()),
        (200, Some("success"))
    );
    for index in 0..6 {
        for path in ["/v1/responses", "/backend-api/codex/responses"] {
            let mut body = body_with(file_id);
            body["stream"] = json!(true);
            body["store"] = json!(false);
            let request = gateway.post(path, &body).header("session-id", format!("s-{index}"));
            let response = request.send().await.unwrap();
            assert_eq!(response.status(), 200, "{path}: {}", response.text().await.unwrap());
        }
    }
    assert!(upstream.responses().iter().all(|record| record.account.as_ref() == Some(&owner)));
    assert_eq!(to(&upstream, "/uploaded")[0].account.as_ref(), Some(&owner));

    let rows = gateway.exchanges(14).await;
    let row = rows.iter().find(|row| row.route == "files").unwrap();
    assert_eq!((row.status.as_str(), row.usage, row.model.as_deref(), row.legs), ("ok", None, None, 1));
    assert!(rows.iter().any(|row| row.route == "file_uploaded" && row.status.as_str() == "ok"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_files_of_a_caller_come_together() {
    let upstream = Upstream::start(4).await;
    let gateway = Gateway::before(&upstream).await;
    for _ in 0..8 {
        assert_eq!(gateway.post(FILES, &new_file()).send().await.unwrap().status(), 200);
    }
    let accounts: HashSet<_> = to(&upstream, FILES).into_iter().map(|record| record.account).collect();
    assert_eq!(accounts.len(), 1, "{accounts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_caller_s_file_is_as_unknown_as_one_that_never_was() {
    let upstream = Upstream::start(1).await;
    let setup = Setup::new(&upstream);
    let keys = [setup.key("one"), setup.key("two")];
    setup.require_keys().await;
    let gateway = setup.serve().await;
    let made = gateway.post(FILES, &new_file()).bearer_auth(&keys[0]).send().await.unwrap();
    let made: Value = made.json().await.unwrap();
    let file_id = made["file_id"].as_str().unwrap();
    let calls_before = upstream.fake.requests().len();

    let ask = async |key: &str, file_id: &str| {
        let uploaded = gateway.post(&format!("{FILES}/{file_id}/uploaded"), &json!({})).bearer_auth(key);
        let response = gateway.post("/v1/responses", &body_with(file_id)).bearer_auth(key);
        let mut answers = Vec::new();
        for request in [uploaded, response] {
            let answer = request.send().await.unwrap();
            let status = answer.status().as_u16();
            answers.push((status, answer.text().await.unwrap().replace(file_id, "ID")));
        }
        answers
    };
    let stolen = ask(&keys[1], file_id).await;
    assert_eq!(stolen, ask(&keys[1], "file_neverwas").await);
    for (status, text) in stolen {
        assert_eq!(status, 404);
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap()["error"]["code"], "file_not_found");
    }
    assert_eq!(upstream.fake.requests().len(), calls_before, "upstream was asked");
    assert!(ask(&keys[0], file_id).await.iter().all(|(status, _)| *status == 200));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_whose_account_cannot_serve_is_not_looked_for_elsewhere() {
    let upstream = Upstream::start(3).await;
    let gateway = Gateway::before(&upstream).await;
    let made: Value = gateway.post(FILES, &new_file()).send().await.unwrap().json().await.unwrap();
    let owner = to(&upstream, FILES).remove(0).account.unwrap();
    let owner = upstream.accounts.iter().find(|account| account.name() == owner).unwrap();
    upstream.fake.default_script(owner, Script::usage_limit(600));
    for _ in 0..2 {
        let body = body_with(made["file_id"].as_str().unwrap());
        let response = gateway.post("/v1/responses", &body).send().await.unwrap();
        assert_eq!(response.status(), 503);
        assert_eq!(response.json::<Value>().await.unwrap()["error"]["code"], "owner_unavailable");
    }
    assert!(upstream.responses().iter().all(|record| record.account.as_deref() == Some(owner.name())));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_upstream_says_about_a_file_reaches_the_client_and_its_troubles_do_not() {
    let upstream = Upstream::start(2).await;
    let gateway = Gateway::before(&upstream).await;
    let refused = gateway.post(FILES, &json!({"file_size": 3})).send().await.unwrap();
    assert_eq!(
        (refused.status().as_u16(), refused.text().await.unwrap()),
        (400, r#"{"detail":"file_name is required"}"#.to_owned())
    );
    upstream.fake.script_path(FILES, [Script::server_error(503), Script::CutBeforeHead]);
    upstream.fake.clear();
    let moved = gateway.post(FILES, &new_file()).send().await.unwrap();
    assert_eq!(moved.status(), 503, "both accounts failed: {}", moved.text().await.unwrap());
    assert_eq!(gateway.post(FILES, &new_file()).send().await.unwrap().status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_goes_through_with_its_boundary() {
    let upstream = Upstream::start(1).await;
    let gateway = Gateway::before(&upstream).await;
    let mut form = b"--xYz\r\ncontent-disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\r\n".to_vec();
    form.extend((0..=255_u8).cycle().take(300_000));
    form.extend_from_slice(b"\r\n--xYz--\r\n");
    let content_type = "multipart/form-data; boundary=xYz";
    for path in ["/backend-api/transcribe", "/v1/audio/transcriptions"] {
        let request = gateway.http.post(format!("{}{path}", gateway.proxy_url));
        let request = request.header("content-type", content_type).body(form.clone());
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200, "{path}");
        let text = format!("a recording of {} bytes", form.len());
        assert_eq!(response.json::<Value>().await.unwrap(), json!({ "text": text }));
        let plain = gateway.post(path, &json!({"file": "x"})).send().await.unwrap();
        assert_eq!(plain.status(), 400, "{path}");
    }
    let sent = to(&upstream, "/transcribe");
    assert_eq!(sent.len(), 2);
    for record in sent {
        assert_eq!(
            (record.head.path.as_str(), record.header("content-type")),
            ("/backend-api/transcribe", Some(content_type))
        );
        assert_eq!(record.body, form);
        assert_eq!(record.header("accept"), None);
    }
    let rows = gateway.exchanges(4).await;
    assert!(rows.iter().any(|row| row.route == "transcribe" && row.status.as_str() == "ok" && row.usage.is_none()));
    assert!(rows.iter().any(|row| row.route == "audio_transcriptions" && row.status.as_str() == "rejected"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_outlives_the_process_that_met_it() {
    let upstream = Upstream::start(3).await;
    let setup = Setup::new(&upstream);
    let mut gateway = setup.clone().serve().await;
    let made: Value = gateway.post(FILES, &new_file()).send().await.unwrap().json().await.unwrap();
    let owner = to(&upstream, FILES).remove(0).account;
    assert!(gateway.stop().success());
    let gateway = setup.serve().await;
    let body = body_with(made["file_id"].as_str().unwrap());
    assert_eq!(gateway.post("/v1/responses", &body).send().await.unwrap().status(), 200);
    assert_eq!(upstream.responses()[0].account, owner);
}
