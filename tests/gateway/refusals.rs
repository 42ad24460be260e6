//! Bad input: the right 4xx in OpenAI's shape, upstream untouched, nothing recorded as usage.

use serde_json::{Value, json};

use crate::support::{Gateway, Setup, Upstream, eventually, native_body};

const NATIVE: &str = "/backend-api/codex/responses";

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_request_is_said_in_openai_s_shape() {
    let upstream = Upstream::start(1).await;
    let mut setup = Setup::new(&upstream);
    setup.set("CODEX_LB_INTAKE__RESPONSES_BODY_BYTES_MAX", "100KiB");
    let gateway = setup.serve().await;
    let big = native_body(&"x".repeat(200 * 1024)).to_string();
    let bomb = zstd::encode_all(big.as_bytes(), 3).unwrap();
    let fine = native_body("hi").to_string();
    type Case<'a> = (&'a str, Option<&'a str>, Vec<u8>, u16, Option<&'a str>);
    let cases: Vec<Case<'_>> = vec![
        (NATIVE, None, b"{".to_vec(), 400, None),
        (NATIVE, None, b"[]".to_vec(), 400, None),
        (NATIVE, None, Vec::new(), 400, None),
        (NATIVE, None, b"{\"model\":\"a\",\"model\":\"b\"}".to_vec(), 400, None),
        (NATIVE, None, b"{}".to_vec(), 400, Some("model")),
        ("/v1/responses", None, b"{\"model\":7}".to_vec(), 400, Some("model")),
        ("/v1/responses", None, b"{\"model\":\"m\"}".to_vec(), 400, Some("input")),
        ("/v1/responses", None, b"{\"model\":\"m\",\"input\":\"x\",\"stream\":\"y\"}".to_vec(), 400, Some("stream")),
        (
            "/v1/responses",
            None,
            b"{\"model\":\"m\",\"input\":[{\"type\":\"item_reference\",\"id\":\"rs_1\"}]}".to_vec(),
            400,
            Some("input[0]"),
        ),
        (NATIVE, None, big.into_bytes(), 413, None),
        (NATIVE, Some("zstd"), bomb, 413, None),
        (NATIVE, Some("zstd"), fine.clone().into_bytes(), 400, None),
        (NATIVE, Some("gzip"), b"\x1f\x8b\x08garbage".to_vec(), 400, None),
        (NATIVE, Some("compress"), fine.into_bytes(), 415, None),
        ("/v1/embeddings", None, b"{}".to_vec(), 404, None),
        ("/backend-api/wham/tasks", None, b"{}".to_vec(), 404, None),
        ("/v1/models", None, b"{}".to_vec(), 405, None),
    ];
    for (path, coding, body, status, param) in cases {
        let shown = String::from_utf8_lossy(&body).chars().take(60).collect::<String>();
        let mut request = gateway.http.post(format!("{}{path}", gateway.proxy_url)).body(body);
        if let Some(coding) = coding {
            request = request.header("content-encoding", coding);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status().as_u16(), status, "{path} {coding:?} {shown}");
        let body: Value = response.json().await.unwrap();
        assert!(body["error"]["message"].as_str().is_some_and(|message| !message.is_empty()), "{path} {shown}");
        assert!(body["error"]["type"].is_string() && body["error"]["code"].is_string(), "{path} {shown}");
        assert_eq!(body["error"]["param"].as_str(), param, "{path} {shown}");
    }
    for path in [NATIVE, "/v1/responses"] {
        let request = gateway.http.get(format!("{}{path}", gateway.proxy_url));
        let upgrade = request.header("connection", "upgrade").header("upgrade", "websocket").send().await.unwrap();
        assert_eq!(upgrade.status(), 426, "{path}");
    }
    assert_eq!(upstream.responses().len(), 0);
    let totals = gateway.totals().await;
    assert_eq!((totals.input_tokens, totals.output_tokens, totals.cost_micros), (0, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_open_the_door_until_they_are_revoked_and_a_running_server_notices() {
    let upstream = Upstream::start(1).await;
    let setup = Setup::new(&upstream);
    setup.require_keys().await;
    let gateway = setup.serve().await;
    let status = async |key: Option<&str>| {
        let request = gateway.post("/v1/responses", &json!({"model": "gpt-5.5", "input": "hi"}));
        let request = match key {
            Some(key) => request.bearer_auth(key),
            None => request,
        };
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        if status == 401 {
            let body: Value = response.json().await.unwrap();
            assert_eq!(body["error"]["code"], "invalid_api_key");
        }
        status
    };
    assert_eq!(status(None).await, 401);
    assert_eq!(status(Some("sk-clb-nobody")).await, 401);
    assert_eq!(status(Some("any")).await, 401);
    let expired = gateway.setup.command(&["keys", "create", "--name", "old", "--expires-at", "2020-01-01T00:00:00Z"]);
    assert_eq!(status(Some(expired.expect_success().trim())).await, 401);

    let key = gateway.setup.key("ci");
    assert_eq!(status(Some(&key)).await, 200);
    let row = gateway.exchanges(1).await.remove(0);
    let id = gateway.store.list_api_keys().await.unwrap().into_iter().find(|key| key.name == "ci").unwrap().id;
    assert_eq!(row.api_key_id, Some(id));
    gateway.setup.command(&["keys", "revoke", &id.to_string()]).expect_success();
    let revoked_at = std::time::Instant::now();
    eventually("the revoked key is refused", async || (status(Some(&key)).await == 401).then_some(())).await;
    assert!(revoked_at.elapsed() < std::time::Duration::from_secs(3), "{:?}", revoked_at.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn keyless_callers_come_from_near_and_not_from_a_web_page() {
    let upstream = Upstream::start(1).await;
    let gateway = Gateway::before(&upstream).await;
    let status = async |headers: &[(&str, &str)]| {
        let mut request = gateway.post(NATIVE, &native_body("hi"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!(status(&[]).await, 200);
    assert_eq!(status(&[("authorization", "Bearer anything")]).await, 200);
    assert_eq!(status(&[("authorization", "Bearer sk-clb-nobody")]).await, 401);
    assert_eq!(status(&[("origin", "https://evil.example.com")]).await, 401);
    assert_eq!(status(&[("sec-fetch-site", "cross-site")]).await, 401);
    assert_eq!(status(&[("host", "evil.example.com")]).await, 401);
    assert_eq!(status(&[("x-forwarded-for", "127.0.0.1")]).await, 401);
}
