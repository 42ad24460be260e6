//! The Images API on accounts.

use fake_chatgpt::{IMAGE_BASE64, Script};
use serde_json::{Value, json};

use crate::support::{Gateway, Upstream, events};

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_made_by_a_forced_tool_and_counted() {
    let upstream = Upstream::start(1).await;
    let gateway = Gateway::before(&upstream).await;
    let body = json!({"prompt": "a cat", "size": "1536x1024", "user": "u"});
    for path in ["/v1/images/generations", "/backend-api/codex/images/generations"] {
        let response = gateway.post(path, &body).send().await.unwrap();
        assert_eq!(response.status(), 200, "{path}");
        assert_eq!(response.headers()["x-codex-lb-ignored-params"], "user");
        let answer: Value = response.json().await.unwrap();
        assert_eq!(answer["data"], json!([{"b64_json": IMAGE_BASE64, "revised_prompt": "As asked: a cat"}]));
        assert_eq!(
            (answer["size"].as_str(), answer["usage"]["output_tokens"].as_u64()),
            (Some("1536x1024"), Some(1_056))
        );
        assert!(answer["created"].as_u64().is_some_and(|at| at > 1_600_000_000));
    }
    let sent = upstream.responses().remove(0).json();
    assert_eq!(sent["tool_choice"]["type"], "image_generation");
    let rows = gateway.exchanges(2).await;
    for row in &rows {
        let models = (row.model_requested.as_deref(), row.model.as_deref());
        assert_eq!(models, (Some("gpt-image-2"), Some("gpt-5.5")));
        assert!(row.status.as_str() == "ok" && row.usage.is_some());
    }
    let mut routes: Vec<_> = rows.iter().map(|row| row.route.as_str()).collect();
    routes.sort_unstable();
    assert_eq!(routes, ["codex_images_generations", "images_generations"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_sends_its_images_along_and_can_be_streamed() {
    let upstream = Upstream::start(1).await;
    let gateway = Gateway::before(&upstream).await;
    let mut form = Vec::new();
    for (name, value) in [("prompt", "a hat"), ("stream", "true"), ("partial_images", "2")] {
        form.extend(format!("--B\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n").into_bytes());
    }
    form.extend_from_slice(b"--B\r\ncontent-disposition: form-data; name=\"image\"; filename=\"a.png\"\r\n\r\n\x89PNG");
    form.extend_from_slice(b"\r\n--B--\r\n");
    let request = gateway.http.post(format!("{}/v1/images/edits", gateway.proxy_url)).body(form);
    let response = request.header("content-type", "multipart/form-data; boundary=B").send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream; charset=utf-8");
    let text = response.text().await.unwrap();
    let text = text.strip_suffix("data: [DONE]\n\n").unwrap();
    let told = events(text);
    let kinds: Vec<_> = told.iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["image_edit.partial_image", "image_edit.partial_image", "image_edit.completed"]);
    assert_eq!(told[2]["b64_json"], IMAGE_BASE64);
    let sent = upstream.responses().remove(0).json();
    assert_eq!(sent["input"][0]["content"][1]["image_url"], "data:image/png;base64,iVBORw==");
    assert_eq!(
        (sent["tools"][0]["action"].as_str(), sent["tools"][0]["partial_images"].as_u64()),
        (Some("edit"), Some(2))
    );
    let row = gateway.exchanges(1).await.remove(0);
    assert_eq!((row.route.as_str(), row.transport.as_str(), row.status.as_str()), ("images_edits", "sse", "ok"));
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_are_told_in_the_form_that_is_still_possible() {
    let upstream = Upstream::start(1).await;
    let gateway = Gateway::before(&upstream).await;
    let generate = |stream| gateway.post("/v1/images/generations", &json!({"prompt": "a cat", "stream": stream}));
    let wrong = gateway.post("/v1/images/generations", &json!({"prompt": "a cat", "n": 2})).send().await.unwrap();
    assert_eq!(wrong.status(), 400);
    assert_eq!(wrong.json::<Value>().await.unwrap()["error"]["param"], "n");
    assert_eq!(upstream.responses().len(), 0);

    let text_only = "data: {\"type\":\"response.output_item.added\"}\n\ndata: {\"type\":\"response.completed\",\"response\":{\"output\":[]}}\n\n";
    let cut = "data: {\"type\":\"response.output_item.added\"}\n\n";
    let raw = |body: &str| Script::Raw { status: 200, headers: Vec::new(), body: body.to_owned() };
    upstream.fake.script(&upstream.accounts[0], [raw(text_only), raw(text_only), raw(cut)]);
    let none = generate(false).send().await.unwrap();
    assert_eq!(none.status(), 502);
    assert_eq!(none.json::<Value>().await.unwrap()["error"]["code"], "image_generation_failed");
    for code in ["image_generation_failed", "stream_incomplete"] {
        let streamed = generate(true).send().await.unwrap().text().await.unwrap();
        let last = events(&streamed).pop().unwrap();
        assert_eq!((last["type"].as_str(), last["error"]["code"].as_str()), (Some("error"), Some(code)), "{streamed}");
    }
    let rows = gateway.exchanges(4).await;
    let codes: Vec<_> = rows.iter().map(|row| (row.status.as_str(), row.error_code.as_deref().unwrap())).collect();
    assert_eq!(codes.iter().filter(|code| **code == ("error", "image_generation_failed")).count(), 2, "{codes:?}");
    assert!(codes.contains(&("error", "stream_incomplete")) && codes.contains(&("rejected", "invalid_value")));
}
