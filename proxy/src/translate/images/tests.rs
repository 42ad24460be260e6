//! Cases of image requests and of their answers.

use bytes::Bytes;
use codex_lb_shared::domain::account::Plan;
use codex_lb_shared::domain::models::ModelCatalog;
use http::{HeaderMap, Method, header};
use serde_json::{Value, json};

use super::super::request::{AnswerShape, Inquiry, PreparedRequest};
use super::{ImageStream, prepare, to_images};
use crate::rejection::Rejection;
use crate::relay::EventSplitter;
use crate::route::{Dialect, Endpoint, ImageTask};

const PNG: &[u8] = b"\x89PNG\r\n\x1a\n--xy";

fn ask(task: ImageTask, content_type: &str, body: Bytes) -> Result<PreparedRequest, Rejection> {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, content_type.parse().unwrap());
    let mut catalog = ModelCatalog::default();
    catalog.merge_plan(Plan::Plus, vec![json!({"slug": "gpt-9"}), json!({"slug": "gpt-5.5"})]);
    let inquiry = Inquiry {
        endpoint: Endpoint::Images(task, Dialect::OpenAi),
        method: &Method::POST,
        query: None,
        headers: &headers,
        body: &body,
        caller_scope: "keyless",
        replay_store: &crate::replay_store::ReplayStore::off(),
    };
    prepare(&inquiry, task, &catalog)
}

fn ask_json(task: ImageTask, body: &Value) -> Result<PreparedRequest, Rejection> {
    ask(task, "application/json", Bytes::from(body.to_string()))
}

fn upstream_body(request: &PreparedRequest) -> Value {
    serde_json::from_slice(&request.body).unwrap()
}

fn form(fields: &[(&str, &str)], files: &[(&str, &[u8])]) -> Bytes {
    let mut body = Vec::new();
    for (name, value) in fields {
        body.extend(format!("--B\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n").into_bytes());
    }
    for (name, bytes) in files {
        let head = format!("--B\r\ncontent-disposition: form-data; name=\"{name}\"; filename=\"a\"\r\n\r\n");
        body.extend(head.into_bytes());
        body.extend_from_slice(bytes);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"--B--\r\n");
    Bytes::from(body)
}

#[test]
fn a_generation_becomes_one_forced_tool() {
    let body = json!({"prompt": "a cat", "model": "gpt-image-1.5", "n": 1, "size": "1536x1024", "quality": "low",
        "background": "transparent", "output_format": "webp", "output_compression": 80, "moderation": "low",
        "response_format": "b64_json", "user": "u", "partial_images": 2, "style": null});
    let request = ask_json(ImageTask::Generation, &body).unwrap();
    assert_eq!(request.answer, AnswerShape::Images);
    assert_eq!(request.ignored_params, ["partial_images", "user"]);
    let names = (request.model_requested.as_deref(), request.model.as_deref());
    assert_eq!(names, (Some("gpt-image-1.5"), Some("gpt-5.5")));
    let sent = upstream_body(&request);
    let tool = json!({"type": "image_generation", "model": "gpt-image-1.5", "size": "1536x1024", "quality": "low",
        "background": "transparent", "output_format": "webp", "output_compression": 80, "moderation": "low"});
    assert_eq!((&sent["tools"], &sent["tool_choice"]), (&json!([tool]), &json!({"type": "image_generation"})));
    assert_eq!((&sent["store"], &sent["stream"], &sent["model"]), (&json!(false), &json!(true), &json!("gpt-5.5")));
    assert_eq!(sent["input"][0]["content"], json!([{"type": "input_text", "text": "a cat"}]));

    let streamed = json!({"prompt": "a cat", "stream": true, "partial_images": 2});
    let request = ask_json(ImageTask::Generation, &streamed).unwrap();
    assert_eq!(request.answer, AnswerShape::ImageStream(ImageTask::Generation));
    let tool = json!({"type": "image_generation", "model": "gpt-image-2", "partial_images": 2});
    assert_eq!(upstream_body(&request)["tools"], json!([tool]));
}

#[test]
fn an_edit_takes_files_of_a_form_and_urls_of_json() {
    let fields = [("prompt", "a hat"), ("stream", "false"), ("n", "1"), ("input_fidelity", "high")];
    let files = [("image[]", PNG), ("image[]", &b"\xff\xd8\xff\xe0"[..]), ("mask", PNG)];
    let request = ask(ImageTask::Edit, "multipart/form-data; boundary=B", form(&fields, &files)).unwrap();
    let sent = upstream_body(&request);
    let tool = json!({"type": "image_generation", "model": "gpt-image-2", "action": "edit", "input_fidelity": "high"});
    assert_eq!(sent["tools"], json!([tool]));
    let content = sent["input"][0]["content"].as_array().unwrap();
    let urls: Vec<&str> = content.iter().filter_map(|part| part["image_url"].as_str()).collect();
    let png = "data:image/png;base64,iVBORw0KGgotLXh5";
    assert_eq!(urls, [png, "data:image/jpeg;base64,/9j/4A==", png]);
    assert!(content[4]["text"].as_str().unwrap().contains("mask"), "{content:?}");

    let codex = json!({"prompt": "p", "images": [{"image_url": "data:image/png;base64,AAAA"}, {"file_id": "file_1"}],
        "mask": {"image_url": "https://example.com/mask.png"}, "future": true});
    let request = ask_json(ImageTask::Edit, &codex).unwrap();
    assert_eq!(request.ignored_params, ["future"]);
    let content = upstream_body(&request)["input"][0]["content"].take();
    assert_eq!(content[1], json!({"type": "input_image", "image_url": "data:image/png;base64,AAAA"}));
    assert_eq!(content[2], json!({"type": "input_image", "file_id": "file_1"}));
    assert_eq!(content[3], json!({"type": "input_image", "image_url": "https://example.com/mask.png"}));
}

#[test]
fn what_cannot_be_done_is_refused_by_name() {
    use ImageTask::{Edit, Generation};
    let image = json!({"image_url": "data:image/png;base64,AAAA"});
    let cases = [
        (Generation, json!({}), "prompt"),
        (Generation, json!({"prompt": " "}), "prompt"),
        (Generation, json!({"prompt": "x".repeat(32_001)}), "prompt"),
        (Generation, json!({"prompt": "p", "n": 2}), "n"),
        (Generation, json!({"prompt": "p", "model": "dall-e-3"}), "model"),
        (Generation, json!({"prompt": "p", "size": "big"}), "size"),
        (Generation, json!({"prompt": "p", "size": "1x"}), "size"),
        (Generation, json!({"prompt": "p", "quality": "hd"}), "quality"),
        (Generation, json!({"prompt": "p", "background": 1}), "background"),
        (Generation, json!({"prompt": "p", "output_compression": 101}), "output_compression"),
        (Generation, json!({"prompt": "p", "partial_images": 4}), "partial_images"),
        (Generation, json!({"prompt": "p", "response_format": "url"}), "response_format"),
        (Generation, json!({"prompt": "p", "input_fidelity": "low"}), "input_fidelity"),
        (Generation, json!({"prompt": "p", "stream": 1}), "stream"),
        (Edit, json!({"prompt": "p"}), "image"),
        (Edit, json!({"prompt": "p", "images": vec![image.clone(); 17]}), "image"),
        (Edit, json!({"prompt": "p", "images": [image, {"image_url": "ftp://x"}]}), "images[1].image_url"),
        (Edit, json!({"prompt": "p", "images": [7]}), "images[0]"),
        (Edit, json!({"prompt": "p", "image": "data:text/html,x"}), "image"),
    ];
    for (task, body, param) in cases {
        let rejection = ask_json(task, &body).unwrap_err();
        assert_eq!((rejection.status, rejection.param.as_deref()), (400, Some(param)), "{body:.200}");
    }
    let no_image = form(&[("prompt", "p")], &[("image", b"GIF89a")]);
    let rejection = ask(Edit, "multipart/form-data; boundary=B", no_image).unwrap_err();
    assert_eq!(rejection.param.as_deref(), Some("image"));
    let form_as_generation = form(&[("prompt", "p")], &[]);
    assert_eq!(ask(Generation, "multipart/form-data; boundary=B", form_as_generation).unwrap_err().status, 400);
}

#[test]
fn the_image_is_taken_out_of_the_answer() {
    let image = json!({"type": "image_generation_call", "id": "ig", "status": "completed", "result": "AAAA",
        "revised_prompt": "a nicer cat", "size": "1024x1024", "output_format": "png", "quality": null});
    let response = json!({"created_at": 7, "output": [{"type": "message"}, image], "usage": {"input_tokens": 1},
        "tool_usage": {"image_gen": {"input_tokens": 5, "output_tokens": 9, "total_tokens": 14}}});
    let images: Value = serde_json::from_slice(&to_images(&Bytes::from(response.to_string())).unwrap()).unwrap();
    let usage = &response["tool_usage"]["image_gen"];
    let expected = json!({"created": 7, "size": "1024x1024", "output_format": "png", "usage": usage,
        "data": [{"b64_json": "AAAA", "revised_prompt": "a nicer cat"}]});
    assert_eq!(images, expected);
    for output in [json!([]), json!([{"type": "image_generation_call", "result": null}])] {
        let response = json!({ "output": output }).to_string();
        assert_eq!(to_images(&Bytes::from(response)).unwrap_err().code, "image_generation_failed");
    }
}

fn streamed(task: ImageTask, events: &[Value]) -> (Vec<Value>, bool) {
    let kind = |event: &Value| event["type"].as_str().unwrap().to_owned();
    let text: String = events.iter().map(|event| format!("event: {}\ndata: {event}\n\n", kind(event))).collect();
    let mut stream = ImageStream::new(task);
    let mut out = Vec::new();
    EventSplitter::default().push(text.as_bytes(), |event| stream.translate(event, &mut out)).unwrap();
    let out = String::from_utf8(out).unwrap();
    let data = out.lines().filter_map(|line| line.strip_prefix("data: ")).filter(|data| *data != "[DONE]");
    (data.map(|data| serde_json::from_str(data).unwrap()).collect(), stream.failure().is_some())
}

#[test]
fn a_streamed_image_comes_in_the_events_of_its_task() {
    let partial = json!({"type": "response.image_generation_call.partial_image", "partial_image_b64": "AA",
        "partial_image_index": 0, "size": "1024x1024", "item_id": "ig"});
    let item = json!({"type": "image_generation_call", "result": "AAAA", "size": "1024x1024", "quality": "low"});
    let events = [
        json!({"type": "response.created", "response": {"created_at": 7}}),
        partial,
        json!({"type": "response.output_item.done", "item": item}),
        json!({"type": "response.completed", "response": {"output": [], "usage": {"total_tokens": 3}}}),
    ];
    let expected = [
        json!({"type": "image_edit.partial_image", "created_at": 7, "b64_json": "AA", "partial_image_index": 0,
            "size": "1024x1024"}),
        json!({"type": "image_edit.completed", "created_at": 7, "b64_json": "AAAA", "size": "1024x1024",
            "quality": "low", "usage": {"total_tokens": 3}}),
    ];
    assert_eq!(streamed(ImageTask::Edit, &events), (expected.to_vec(), false));
    assert_eq!(streamed(ImageTask::Generation, &events).0[1]["type"], "image_generation.completed");

    let (none, has_failed) = streamed(ImageTask::Generation, &events[3..]);
    assert_eq!((none[0]["type"].as_str(), has_failed), (Some("error"), true));
    assert_eq!(none[0]["error"]["code"], "image_generation_failed");
    let refused =
        json!({"type": "response.failed", "response": {"error": {"code": "moderation_blocked", "message": "no"}}});
    let (failed, _) = streamed(ImageTask::Generation, &[refused]);
    let expected = json!({"message": "no", "type": "server_error", "param": null, "code": "moderation_blocked"});
    assert_eq!(failed, [json!({"type": "error", "error": expected})]);
}
