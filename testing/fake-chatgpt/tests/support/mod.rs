//! What the tests of the fake share: a client, and a reader of streams that checks their form.

#![allow(dead_code, unreachable_pub, reason = "every test file uses another part")]
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::time::Duration;

use fake_chatgpt::{FakeAccount, FakeChatGpt};
use serde_json::{Value, json};

pub fn client(fake: &FakeChatGpt) -> reqwest::Client {
    // Every test wants it and the second call fails.
    drop(rustls::crypto::ring::default_provider().install_default());
    let builder =
        reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).timeout(Duration::from_secs(20));
    let builder = match fake.ca_pem() {
        Some(pem) => builder.tls_certs_only([reqwest::Certificate::from_pem(pem.as_bytes()).unwrap()]),
        None => builder,
    };
    builder.build().unwrap()
}

/// A minimal good body with one user message.
pub fn body(text: &str) -> Value {
    json!({
        "model": "gpt-5.5", "stream": true, "store": false, "include": ["reasoning.encrypted_content"],
        "input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}],
    })
}

pub async fn post(fake: &FakeChatGpt, account: &FakeAccount, body: &Value) -> reqwest::Result<reqwest::Response> {
    client(fake)
        .post(format!("{}/codex/responses", fake.base_url()))
        .bearer_auth(account.access_token())
        .header("chatgpt-account-id", account.chatgpt_account_id())
        .json(body)
        .send()
        .await
}

/// The events of a whole stream.
pub async fn ask(fake: &FakeChatGpt, account: &FakeAccount, body: &Value) -> Vec<Value> {
    let response = post(fake, account, body).await.unwrap();
    let status = response.status();
    let text = response.text().await.unwrap();
    assert_eq!(status, 200, "{text}");
    events(&text)
}

/// Parses a stream and checks that it is one.
pub fn events(stream: &str) -> Vec<Value> {
    let blocks = stream.split_terminator("\n\n").map(|block| {
        let (name, data) = block.split_once('\n').unwrap();
        let data: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(data["type"], name.strip_prefix("event: ").unwrap());
        data
    });
    blocks.collect()
}

/// The names of the events, with runs of the same one taken together.
pub fn names(events: &[Value]) -> Vec<&str> {
    let mut names: Vec<_> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    names.dedup();
    names
}

/// The finished output items.
pub fn items(events: &[Value]) -> Vec<&Value> {
    events.iter().filter(|event| event["type"] == "response.output_item.done").map(|event| &event["item"]).collect()
}

/// The text of the answer, put together from its deltas.
pub fn text(events: &[Value]) -> String {
    events.iter().filter(|e| e["type"] == "response.output_text.delta").map(|e| e["delta"].as_str().unwrap()).collect()
}
