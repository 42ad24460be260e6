//! Bytes that are no proper request, or one that could be read in two ways: a clear refusal or a clean close, nothing
//! reaches upstream or the control plane that the route table does not name, and nothing is executed twice.

use serde_json::{Value, json};

use crate::leases;
use crate::support::{Gateway, Setup, Upstream, native_body};
use crate::wire::{Answer, Wire, post};

const NATIVE: &str = "/backend-api/codex/responses";
/// What a client smuggles behind its request, hoping that somebody else's answer is spoilt.
const SMUGGLED: &str = "POST /v1/responses HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 34\r\n\r\n{\"model\":\"gpt-5.5\",\"input\":\"stolen\"}";

fn head(lines: &str) -> String {
    format!("POST {NATIVE} HTTP/1.1\r\nhost: 127.0.0.1\r\n{lines}\r\n")
}

fn chunked(body: &str) -> String {
    format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_without_one_clear_reading_is_refused_and_what_follows_it_is_not_read() {
    let upstream = Upstream::start(1).await;
    let gateway = Gateway::before(&upstream).await;
    let body = native_body("hi").to_string();
    let (length, chunks) = (body.len(), chunked(&body));
    let with_chunks = |lines: &str| head(lines) + &chunks;
    let cases: Vec<(&str, String)> = vec![
        ("different lengths", head(&format!("content-length: {length}\r\ncontent-length: 3\r\n")) + &body),
        ("a length with a sign", head(&format!("content-length: +{length}\r\n")) + &body),
        ("a negative length", head("content-length: -1\r\n") + &body),
        ("an absurd length", head("content-length: 99999999999999999999999\r\n") + &body),
        ("a folded header", post(NATIVE, "x-a: b\r\n c\r\n", &body)),
        ("an unknown coding", with_chunks("transfer-encoding: xchunked\r\n")),
        ("chunked is not last", with_chunks("transfer-encoding: chunked, identity\r\n")),
        (
            "chunked is not last, in two lines",
            with_chunks("transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n"),
        ),
        ("a space before the colon", with_chunks("transfer-encoding : chunked\r\n")),
        ("a chunk of no size", head("transfer-encoding: chunked\r\n") + "zz\r\nabc\r\n0\r\n\r\n"),
        ("a chunk of negative size", head("transfer-encoding: chunked\r\n") + "-5\r\nabc\r\n0\r\n\r\n"),
        ("a chunk of absurd size", head("transfer-encoding: chunked\r\n") + "ffffffffffffffffff\r\nabc\r\n0\r\n\r\n"),
        ("a chunk longer than its size", head("transfer-encoding: chunked\r\n") + "3\r\nabcdef\r\n0\r\n\r\n"),
        ("a header name with a space", post(NATIVE, "x a: b\r\n", &body)),
        ("a header without a colon", post(NATIVE, "nonsense\r\n", &body)),
        ("a header with a NUL", post(NATIVE, "x-a: b\0c\r\n", &body)),
        ("a header with a bare CR", post(NATIVE, "x-a: b\rc: d\r\n", &body)),
        ("two hosts", post(NATIVE, "host: evil\r\n", &body)),
        ("chunks in HTTP/1.0", with_chunks("transfer-encoding: chunked\r\n").replace("HTTP/1.1", "HTTP/1.0")),
        ("HTTP/0.9", format!("GET {NATIVE}\r\n")),
        ("HTTP/2.0 in words", post(NATIVE, "", &body).replace("HTTP/1.1", "HTTP/2.0")),
        ("HTTP/2 without TLS", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned()),
        (
            "a TLS hello",
            "\u{16}\u{3}\u{1}\0\u{7f}\u{1}\0\0\u{7b}\u{3}\u{3}aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n\r\n".to_owned(),
        ),
        ("10,000 headers", post(NATIVE, &(0..10_000).map(|n| format!("x-{n}: v\r\n")).collect::<String>(), &body)),
        ("a header of 1 MB", post(NATIVE, &format!("x-big: {}\r\n", "x".repeat(1 << 20)), &body)),
        ("a path of 100 KB", post(&format!("/v1/{}", "x".repeat(100_000)), "", &body)),
        ("another origin", post("http://evil/v1/responses", "", &body)),
        (
            "another origin for the dashboard",
            "GET http://evil/api/v1/accounts HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n".into(),
        ),
        ("a tunnel", "CONNECT evil:443 HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n".to_owned()),
    ];
    for (name, bytes) in cases {
        let mut wire = Wire::with(&gateway, bytes + SMUGGLED).await;
        if let Some(answer) = wire.answer().await {
            assert!((400..=408).contains(&answer.status) || answer.status == 431, "{name}: {answer:?}");
            let behind = wire.answer().await;
            assert_eq!(behind, None, "{name}: what followed was read as a request");
        }
        assert_eq!(upstream.responses().len(), 0, "{name} reached upstream");
    }
    leases::all_slots_are_free(&gateway, &upstream, 8).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_says_its_length_twice_alike_is_served_and_one_that_says_it_in_two_ways_ends_the_connection() {
    let upstream = Upstream::start(1).await;
    let gateway = Gateway::before(&upstream).await;
    let body = native_body("hi").to_string();
    let length = format!("content-length: {}\r\n", body.len());
    for (name, bytes) in [
        ("chunks and a length", head(&format!("{length}transfer-encoding: chunked\r\n")) + &chunked(&body)),
        ("chunks and a wrong length", head("content-length: 4\r\ntransfer-encoding: chunked\r\n") + &chunked(&body)),
    ] {
        let mut wire = Wire::with(&gateway, bytes + SMUGGLED).await;
        let answer = wire.answer().await;
        assert!(answer.is_none_or(|answer| matches!(answer.status, 200 | 400)), "{name}");
        assert_eq!(wire.answer().await, None, "{name}: what followed was read as a request");
    }
    assert!(upstream.responses().iter().all(|record| record.body == body.as_bytes()), "the chunks count");
    let twice = Wire::with(&gateway, head(&format!("{length}{length}")) + &body).await.answer().await;
    assert_eq!(twice.unwrap().status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_of_one_connection_are_answered_in_order_each_with_its_own() {
    let upstream = Upstream::start(1).await;
    let gateway = Gateway::before(&upstream).await;
    let openai = |input: &str, stream: bool| {
        post("/v1/responses", "", &json!({"model": "gpt-5.5", "input": input, "stream": stream}).to_string())
    };
    let requests = [
        post(NATIVE, "", &native_body("the first").to_string()),
        openai("the second", false),
        "GET /v1/nothing HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n".to_owned(),
        openai("the third", true),
        "GET /health/live HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n".to_owned(),
        openai("the fourth", false),
    ];
    // All at once, and each only when the one before was answered.
    for is_pipelined in [true, false] {
        let mut wire = Wire::open(&gateway).await;
        if is_pipelined {
            wire.send(requests.concat()).await;
        }
        for (request, told) in
            requests.iter().zip(["the first", "the second", "unknown_url", "the third", "", "the fourth"])
        {
            if !is_pipelined {
                wire.send(request).await;
            }
            let answer = wire.answer().await.unwrap_or_else(|| panic!("closed before {told}"));
            assert!(answer.body.contains(told), "{told}, pipelined: {is_pipelined}: {answer:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_says_in_its_framing_where_it_ends() {
    let upstream = Upstream::start(1).await;
    let gateway = Gateway::before(&upstream).await;
    let body = native_body("hi").to_string();
    let answer = Wire::with(&gateway, post(NATIVE, "", &body)).await.answer().await.unwrap();
    assert!(answer.head.contains("transfer-encoding: chunked\r\n"), "{}", answer.head);
    assert!(answer.body.ends_with("0\r\n\r\n"), "{}", answer.body);
    // Such a client knows no chunks.
    let mut wire = Wire::with(&gateway, post(NATIVE, "", &body).replace("HTTP/1.1", "HTTP/1.0")).await;
    let answer = wire.answer().await.unwrap();
    assert_eq!(answer.status, 200);
    assert!(!answer.head.contains("transfer-encoding"), "{}", answer.head);
    assert!(answer.body.trim_end().ends_with('}'), "{}", answer.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_for_the_connection_to_be_closed_gets_it_closed() {
    let upstream = Upstream::start(1).await;
    let gateway = Gateway::before(&upstream).await;
    for body in [native_body("hi"), json!({"model": "gpt-5.5"})] {
        let closing = post(NATIVE, "connection: close\r\n", &body.to_string());
        let old = post(NATIVE, "", &body.to_string()).replace("HTTP/1.1", "HTTP/1.0");
        for request in [closing, old] {
            let mut wire = Wire::with(&gateway, request.clone() + SMUGGLED).await;
            assert!(wire.answer().await.is_some());
            assert_eq!(wire.answer().await, None, "{request}");
        }
    }
    assert!(upstream.responses().iter().all(|record| !String::from_utf8_lossy(&record.body).contains("stolen")));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_does_not_wait_for_the_body_says_that_the_connection_ends() {
    let upstream = Upstream::start(1).await;
    let gateway = Gateway::before(&upstream).await;
    for (request, status) in [
        (post("/v1/nothing", "", "{}"), 404),
        (post("/v1/responses", "authorization: Bearer sk-clb-nobody\r\n", "{}"), 401),
        (post("/v1/responses", "content-encoding: compress\r\n", "{}"), 415),
    ] {
        let mut wire = Wire::with(&gateway, request).await;
        let answer = wire.answer().await.unwrap();
        assert_eq!(answer.status, status);
        assert!(answer.head.contains("connection: close\r\n"), "{}", answer.head);
        assert_eq!(wire.answer().await, None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_header_of_a_client_makes_an_account_look_broken() {
    let upstream = Upstream::start(1).await;
    let gateway = Gateway::before(&upstream).await;
    let many = |count: usize| (0..count).map(|number| format!("x-codex-{number}: v\r\n")).collect::<String>();
    let mut lines = vec![
        "connection: host\r\n".to_owned(),
        "connection: :authority, \"x-forwarded-for\"\r\n".to_owned(),
        format!("connection: {}\r\n", (0..20).map(|number| format!("x-{number}")).collect::<Vec<_>>().join(", ")),
        "connection: upgrade\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n".to_owned(),
        "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n".to_owned(),
        "te: trailers, deflate;q=0.5\r\ntrailer: x-a\r\nkeep-alive: timeout=5\r\nproxy-connection: close\r\n"
            .to_owned(),
        "x-codex-a: \u{e9}\u{fc}\r\naccept-language: \u{7f}\r\n".to_owned(),
        "x-codex-:: v\r\n".to_owned(),
        "expect: 100-continue\r\n".to_owned(),
        "expect: something else\r\n".to_owned(),
        "priority: u=0\r\nmax-forwards: 0\r\nrange: bytes=0-1\r\nif-none-match: *\r\n".to_owned(),
    ];
    // Around the most that is taken at all.
    lines.extend([100, 200, 240, 247, 248, 249, 250, 251, 252, 253, 254, 255, 256].map(many));
    lines.extend(
        [8, 16, 32, 48, 60, 63, 64, 128].map(|kilobytes| format!("x-codex-big: {}\r\n", "x".repeat(kilobytes << 10))),
    );
    for lines in lines {
        let shown: String = lines.chars().take(60).collect();
        let mut wire = Wire::with(&gateway, post(NATIVE, &lines, &native_body("hi").to_string())).await;
        let mut answer = wire.answer().await;
        if answer.as_ref().is_some_and(|answer| answer.status == 100) {
            answer = wire.answer().await;
        }
        let status = answer.map(|answer| answer.status);
        assert!(status.is_none_or(|status| (200..500).contains(&status)), "{shown}: {status:?}");
        let legs =
            gateway.http.get(format!("{}/metrics", gateway.metrics_url)).send().await.unwrap().text().await.unwrap();
        assert!(!legs.contains("outcome=\"no_answer\""), "{shown} ({} bytes): a leg failed", lines.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_is_what_its_bytes_say() {
    let upstream = Upstream::start(1).await;
    let setup = Setup::new(&upstream);
    setup.key("an api key that nobody may list");
    let gateway = setup.serve().await;
    let ask = async |bytes: String| Wire::with(&gateway, bytes).await.answer().await.unwrap();
    let error = |answer: &Answer| serde_json::from_str::<Value>(&answer.body).unwrap()["error"].clone();
    for path in [
        "/v1/../v1/responses",
        "/v1/./responses",
        "/v1//responses",
        "/v1/responses/",
        "/v1/responses;x=1",
        "/v1/responses%00",
        "/v1/respo\0nses",
        "/v1/%2e%2e/v1/responses",
        "/v1/%72esponses",
        "/v1/%c0%ae%c0%ae/responses",
        "/v1/..%2fapi/v1/accounts",
        "/v1/../api/v1/accounts",
        "/v1/r\u{e9}sponses",
        "/backend-api/%63odex/responses",
        "/backend-api/codex/../codex/responses",
        "/backend-api/codex//responses",
        "/backend-api/files/..%2f..%2fcodex/uploaded",
        "/health/../api/v1/accounts",
        "/api/codex/../v1/accounts",
    ] {
        let body = native_body("hi").to_string();
        for request in
            [post(path, "x-codex-lb-request: 1\r\n", &body), format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")]
        {
            let answer = ask(request).await;
            assert_eq!(answer.status, 404, "{path}: {answer:?}");
            let error = error(&answer);
            assert_eq!(
                (error["code"].as_str(), error["type"].as_str()),
                (Some("unknown_url"), Some("invalid_request_error")),
                "{path}"
            );
        }
    }
    // What is nobody's is the control plane's, which takes paths as they are, too.
    for path in [
        "//api/v1/accounts",
        "/api/%761/accounts",
        "/x/../api/v1/accounts",
        "/api/v1/accounts/",
        "/API/v1/accounts",
        "//v1/responses",
        "/\\v1\\responses",
    ] {
        let answer = ask(format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")).await;
        assert_eq!(answer.status, 404, "{path}: {answer:?}");
        let answer = ask(post(path, "x-codex-lb-request: 1\r\n", &native_body("hi").to_string())).await;
        assert!(matches!(answer.status, 404 | 405), "{path}: {answer:?}");
    }
    assert_eq!(upstream.responses().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_way_of_writing_a_credential_gets_it_upstream() {
    let upstream = Upstream::start(1).await;
    let gateway = Gateway::before(&upstream).await;
    let lines = [
        "Authorization: Bearer canary-1\r\nAUTHORIZATION: Bearer canary-2\r\n",
        "authorization: Basic canary\r\nConnection: authorization, chatgpt-account-id, host, content-length\r\n",
        "ChatGPT-Account-ID: canary\r\nX-Codex-Installation-Id: canary\r\nX-Api-Key: canary\r\n",
        "chatgpt_account_id: canary\r\nx_api_key: canary\r\nx-request-id: canary\r\n",
        "cookie: __Secure-next-auth.session-token=canary\r\nproxy-authorization: Basic canary\r\napi-key: canary\r\n",
        "x-codex-canary-token: canary\r\nconnection: close, x-codex-canary-token\r\n",
        "te: trailers\r\nupgrade: h2c\r\nhttp2-settings: canary\r\nforwarded-canary: canary\r\n",
    ];
    for lines in lines {
        let answer = Wire::with(&gateway, post(NATIVE, lines, &native_body("hi").to_string())).await.answer().await;
        assert_eq!(answer.unwrap().status, 200, "{lines}");
        let sent = upstream.responses().pop().unwrap();
        let account = &upstream.accounts[0];
        let values = |name: &str| {
            let own = sent.head.headers.iter().filter(|(known, _)| known == name);
            own.map(|(_, value)| value.as_str()).collect::<Vec<_>>()
        };
        assert_eq!(values("authorization"), [format!("Bearer {}", account.access_token())], "{lines}");
        assert_eq!(values("chatgpt-account-id"), [account.chatgpt_account_id()], "{lines}");
        assert_eq!(values("x-codex-installation-id").len(), 1, "{lines}");
        assert!(sent.head.headers.iter().all(|(_, value)| !value.contains("canary")), "{lines}: {:?}", sent.head);
    }
}
