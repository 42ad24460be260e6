//! Chat Completions on accounts.

use std::time::Duration;

use fake_chatgpt::{Answer, FunctionCall, Script, SilencePlace, Usage};
use futures_util::StreamExt as _;
use serde_json::{Value, json};

use crate::support::{Gateway, Setup, Upstream, events, eventually};

const PATH: &str = "/v1/chat/completions";

fn body(content: &str, more: Value) -> Value {
    let mut body = json!({"model": "gpt-5.5", "messages": [{"role": "user", "content": content}]});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

/// The chunks of a stream that ended well.
fn chunks(stream: &str) -> Vec<Value> {
    events(stream.strip_suffix("data: [DONE]\n\n").unwrap_or_else(|| panic!("no end: {stream}")))
}

/// What the deltas of this member add up to.
fn told(chunks: &[Value], member: &str) -> String {
    chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"][member].as_str()).collect()
}

async fn post(gateway: &Gateway, body: &Value) -> Value {
    let response = gateway.post(PATH, body).send().await.unwrap();
    let (status, answer) = (response.status(), response.json::<Value>().await.unwrap());
    assert_eq!(status, 200, "{answer}");
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chat_is_answered_whole_and_streamed_and_counted() {
    let upstream = Upstream::start(1).await;
    let gateway = Gateway::before(&upstream).await;
    let usage = Usage { input: 20, cached: 5, output: 9, reasoning: 2 };
    let answer = Answer {
        text: Some("hello there".to_owned()),
        usage: Some(usage),
        rate_limits_event: true,
        ..Answer::default()
    };
    upstream.fake.default_script(&upstream.accounts[0], Script::Answer(answer));

    let asked = body("hi", json!({"temperature": 0.3, "max_tokens": 7}));
    let response = gateway.post(PATH, &asked).send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["x-codex-lb-ignored-params"], "max_tokens,temperature");
    let request_id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
    let whole: Value = response.json().await.unwrap();
    assert_eq!(whole["id"], format!("chatcmpl-{request_id}"));
    assert_eq!((&whole["object"], &whole["model"]), (&json!("chat.completion"), &json!("gpt-5.5")));
    let choice = &whole["choices"][0];
    assert_eq!((&choice["message"]["content"], &choice["finish_reason"]), (&json!("hello there"), &json!("stop")));
    let expected = json!({"prompt_tokens": 20, "completion_tokens": 9, "total_tokens": 29,
        "prompt_tokens_details": {"cached_tokens": 5}, "completion_tokens_details": {"reasoning_tokens": 2}});
    assert_eq!(whole["usage"], expected);

    let asked = body("hi", json!({"stream": true, "stream_options": {"include_usage": true}}));
    let response = gateway.post(PATH, &asked).send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream; charset=utf-8");
    let chunks = chunks(&response.text().await.unwrap());
    assert_eq!(chunks[0]["choices"][0]["delta"]["role"], "assistant");
    assert_eq!(told(&chunks, "content"), "hello there");
    for name in ["id", "created", "model", "object"] {
        assert!(chunks.iter().all(|chunk| chunk[name] == chunks[0][name] && !chunk[name].is_null()), "{name}");
    }
    let (last, before) = chunks.split_last().unwrap();
    assert_eq!((&last["choices"], &last["usage"]), (&json!([]), &expected));
    assert_eq!(before.last().unwrap()["choices"][0]["finish_reason"], "stop");
    assert!(before.iter().all(|chunk| chunk["usage"].is_null()));

    let rows = gateway.exchanges(2).await;
    for row in &rows {
        assert_eq!((row.route.as_str(), row.status.as_str()), ("chat_completions", "ok"));
        assert!(row.usage.is_some_and(|usage| usage.output == 9) && row.cost_micros.is_some() && !row.is_estimated);
    }
    assert_eq!(rows.iter().filter(|row| row.transport == "sse").count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn parallel_calls_and_their_reasoning_come_back_in_the_second_round() {
    let upstream = Upstream::start(2).await;
    let gateway = Gateway::before(&upstream).await;
    let tool = |name: &str| json!({"type": "function", "function": {"name": name, "parameters": {"type": "object"}}});
    let tools = json!([tool("weather"), tool("time")]);
    let question = "calls: weather {\"city\":\"Oslo\"}; time {\"zone\":\"CET\"}";
    for is_streamed in [false, true] {
        let asked = body(question, json!({"tools": tools, "stream": is_streamed}));
        let message = match is_streamed {
            false => post(&gateway, &asked).await["choices"][0]["message"].take(),
            true => {
                let text = gateway.post(PATH, &asked).send().await.unwrap().text().await.unwrap();
                let chunks = chunks(&text);
                assert_eq!(chunks.last().unwrap()["choices"][0]["finish_reason"], "tool_calls");
                merged(&chunks)
            }
        };
        let calls = message["tool_calls"].as_array().unwrap();
        let named: Vec<_> =
            calls.iter().map(|call| (&call["function"]["name"], &call["function"]["arguments"])).collect();
        let expected = [(json!("weather"), json!("{\"city\":\"Oslo\"}")), (json!("time"), json!("{\"zone\":\"CET\"}"))];
        assert_eq!(named, expected.iter().map(|(name, arguments)| (name, arguments)).collect::<Vec<_>>());
        assert!(message["reasoning_content"].as_str().is_some_and(|text| text == message["reasoning"]));

        let mut messages = vec![json!({"role": "user", "content": question}), message.clone()];
        for (call, output) in calls.iter().zip(["rain", "noon"]) {
            messages.push(json!({"role": "tool", "tool_call_id": call["id"], "content": output}));
        }
        let second = post(&gateway, &json!({"model": "gpt-5.5", "tools": tools, "messages": messages})).await;
        assert_eq!(second["choices"][0]["message"]["content"], "the tool returned: rain; noon");

        let sent = upstream.responses().pop().unwrap();
        let input = sent.json()["input"].clone();
        let kinds: Vec<_> = input.as_array().unwrap().iter().map(|item| item["type"].as_str().unwrap()).collect();
        let calls_and_outputs = ["function_call", "function_call", "function_call_output", "function_call_output"];
        assert_eq!(kinds, [&["message", "reasoning"][..], &calls_and_outputs].concat());
        let details = message["reasoning_details"].as_array().unwrap();
        assert_eq!(input[1]["encrypted_content"], details.last().unwrap()["data"]);
        assert_eq!(input[1]["summary"][0]["text"], details[0]["summary"]);
        assert_eq!(input[1]["id"], details[0]["id"]);
        // Only the account that reasoned can read it, so the second round went there.
        let rounds = upstream.responses();
        assert_eq!(rounds[rounds.len() - 2].account, sent.account);
    }
    assert!(gateway.exchanges(4).await.iter().all(|row| row.legs == 1));
}

/// The message that a client puts together: lists by their index, texts added up.
fn merged(chunks: &[Value]) -> Value {
    let mut message = json!({"role": "assistant", "content": told(chunks, "content")});
    for member in ["reasoning", "reasoning_content"] {
        message[member] = json!(told(chunks, member));
    }
    for (list, texts) in [("tool_calls", "arguments"), ("reasoning_details", "summary")] {
        let mut entries: Vec<Value> = Vec::new();
        for entry in chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"][list].as_array()).flatten() {
            match entries.iter_mut().find(|known| known["index"] == entry["index"]) {
                None => entries.push(entry.clone()),
                Some(known) => {
                    let at = if list == "tool_calls" { &mut known["function"] } else { known };
                    let more = entry["function"][texts].as_str().or(entry[texts].as_str()).unwrap();
                    at[texts] = json!(at[texts].as_str().unwrap().to_owned() + more);
                }
            }
        }
        message[list] = json!(entries);
    }
    message
}

#[tokio::test(flavor = "multi_thread")]
async fn structured_output_images_and_custom_tools_reach_upstream_as_it_takes_them() {
    let upstream = Upstream::start(1).await;
    let gateway = Gateway::before(&upstream).await;
    let schema = json!({"type": "object", "properties": {"city": {"type": "string", "minLength": 3}}, "required": ["city"],
        "additionalProperties": false});
    let format = json!({"type": "json_schema", "json_schema": {"name": "place", "strict": true, "schema": schema}});
    let answer = post(&gateway, &body("a place", json!({"response_format": format, "verbosity": "low"}))).await;
    assert_eq!(answer["choices"][0]["message"]["content"], "{\"city\":\"xxx\"}");
    let image = json!([{"type": "text", "text": "what is it?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw==", "detail": "low"}}]);
    let asked = json!({"model": "gpt-5.5-high", "messages": [{"role": "user", "content": image}]});
    assert_eq!(post(&gateway, &asked).await["choices"][0]["message"]["content"], "You said: what is it?");
    let run = FunctionCall { name: "run".to_owned(), arguments: json!("ls"), custom: true, namespace: None };
    let answer = Answer { text_tokens: 0, function_calls: vec![run], ..Answer::default() };
    upstream.fake.script(&upstream.accounts[0], [Script::Answer(answer)]);
    let tools = json!([{"type": "custom", "custom": {"name": "run", "description": "runs"}}]);
    let called = post(&gateway, &body("run it", json!({"tools": tools}))).await;
    assert_eq!(called["choices"][0]["message"]["tool_calls"][0]["custom"], json!({"name": "run", "input": "ls"}));

    let sent: Vec<Value> = upstream.responses().iter().map(fake_chatgpt::RequestRecord::json).collect();
    let expected = json!({"format": {"type": "json_schema", "name": "place", "strict": true, "schema": schema},
        "verbosity": "low"});
    assert_eq!(sent[0]["text"], expected);
    let part = json!({"type": "input_image", "image_url": "data:image/png;base64,iVBORw==", "detail": "low"});
    assert_eq!(sent[1]["input"][0]["content"][1], part);
    assert_eq!((&sent[1]["model"], &sent[1]["reasoning"]["effort"]), (&json!("gpt-5.5"), &json!("high")));
    assert_eq!(sent[2]["tools"], json!([{"type": "custom", "name": "run", "description": "runs"}]));
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_are_told_in_the_form_that_is_still_possible() {
    // Of several accounts, since one that fails in the middle again and again sits out.
    let upstream = Upstream::start(4).await;
    let gateway = Gateway::before(&upstream).await;
    let ask = |stream: bool| gateway.post(PATH, &body("hi", json!({"stream": stream}))).send();
    let failing =
        || Script::FailMidStream { after_deltas: 2, code: "server_error".to_owned(), message: "sorry".to_owned() };
    let refusing = || Script::Raw {
        status: 400,
        headers: vec![("content-type".to_owned(), "application/json".to_owned())],
        body: "{\"detail\":\"That cannot be.\"}".to_owned(),
    };
    let everywhere = |script: Script| {
        upstream.accounts.iter().for_each(|account| upstream.fake.default_script(account, script.clone()));
    };

    let cases = [(failing(), "server_error", "sorry"), (Script::cut_after(2), "stream_incomplete", "cut off")];
    for (script, code, message) in cases {
        everywhere(script);
        let streamed = ask(true).await.unwrap();
        assert_eq!(streamed.status(), 200);
        let text = streamed.text().await.unwrap();
        let last = events(&text).pop().unwrap();
        assert_eq!(last["error"]["code"], code, "{text}");
        assert!(last["error"]["message"].as_str().unwrap().contains(message) && !text.contains("[DONE]"), "{text}");
        assert!(!text.contains("event:") && text.contains("\"role\":\"assistant\""), "{text}");
        let whole = ask(false).await.unwrap();
        assert_eq!(whole.status(), 502);
        assert_eq!(whole.json::<Value>().await.unwrap()["error"]["code"], code);
    }
    everywhere(refusing());
    for stream in [true, false] {
        let refused = ask(stream).await.unwrap();
        assert_eq!(refused.status(), 400);
        let error = refused.json::<Value>().await.unwrap()["error"].take();
        assert_eq!((&error["message"], &error["type"]), (&json!("That cannot be."), &json!("invalid_request_error")));
    }
    let rows = gateway.exchanges(6).await;
    assert!(rows.iter().all(|row| row.status.as_str() == "error"), "{rows:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limited_pool_and_a_wrong_key_are_told_as_openai_tells_them() {
    let upstream = Upstream::start(2).await;
    let setup = Setup::new(&upstream);
    let key = setup.key("chat");
    setup.require_keys().await;
    let gateway = setup.serve().await;
    let asked = body("hi", json!({"stream": true}));
    for wrong in ["anything", "sk-clb-wrong"] {
        let refused = gateway.post(PATH, &asked).bearer_auth(wrong).send().await.unwrap();
        assert_eq!(refused.status(), 401);
        assert_eq!(refused.json::<Value>().await.unwrap()["error"]["code"], "invalid_api_key");
    }
    assert_eq!(upstream.responses().len(), 0);

    // One account's limit is the other's turn; both limited is the caller's to wait out.
    upstream.fake.default_script(&upstream.accounts[0], Script::usage_limit(600));
    for _ in 0..4 {
        let answered = gateway.post(PATH, &asked).bearer_auth(&key).send().await.unwrap();
        assert_eq!(answered.status(), 200);
        assert!(answered.text().await.unwrap().ends_with("data: [DONE]\n\n"));
    }
    upstream.fake.default_script(&upstream.accounts[1], Script::usage_limit(900));
    upstream.fake.default_script(&upstream.accounts[0], Script::usage_limit(600));
    let limited = eventually("both accounts are limited", async || {
        let response = gateway.post(PATH, &body("other", json!({}))).bearer_auth(&key).send().await.unwrap();
        (response.status() == 429).then_some(response)
    })
    .await;
    let retry_after: u64 = limited.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=900).contains(&retry_after), "{retry_after}");
    assert_eq!(limited.json::<Value>().await.unwrap()["error"]["type"], "usage_limit_reached");
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_is_filled_with_comments_and_a_later_failure_is_a_chunk() {
    let upstream = Upstream::start(1).await;
    let mut setup = Setup::new(&upstream);
    setup.set("CODEX_LB_UPSTREAM__STATUS_HOLD", "50ms");
    setup.set("CODEX_LB_UPSTREAM__KEEP_ALIVE_INTERVAL", "50ms");
    setup.set("CODEX_LB_UPSTREAM__IDLE_TIMEOUT", "2s");
    setup.set("CODEX_LB_UPSTREAM__FIRST_BYTE_TIMEOUT", "2s");
    let gateway = setup.serve().await;
    let silence = Script::Silence { place: SilencePlace::AfterHead, duration_ms: None };
    upstream.fake.default_script(&upstream.accounts[0], silence);
    let response = gateway.post(PATH, &body("hi", json!({"stream": true}))).send().await.unwrap();
    assert_eq!(response.status(), 200);
    let text = response.text().await.unwrap();
    assert!(text.starts_with(": keep-alive\n\n"), "{text}");
    let told = events(&text);
    assert_eq!(told.len(), 1, "{text}");
    assert!(told[0]["error"]["message"].is_string() && !text.contains("event:") && !text.contains("[DONE]"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_ends_the_exchange() {
    let upstream = Upstream::start(1).await;
    let gateway = Gateway::before(&upstream).await;
    let slow = Answer { text_tokens: 10_000, tokens_per_second: Some(50.0), ..Answer::default() };
    upstream.fake.default_script(&upstream.accounts[0], Script::Answer(slow));
    let response = gateway.post(PATH, &body("hi", json!({"stream": true}))).send().await.unwrap();
    let mut stream = response.bytes_stream();
    assert!(stream.next().await.unwrap().unwrap().starts_with(b"data: {\"id\":\"chatcmpl-"));
    drop(stream);
    let rows = tokio::time::timeout(Duration::from_secs(20), gateway.exchanges(1)).await.unwrap();
    assert_eq!((rows[0].status.as_str(), rows[0].is_estimated), ("cancelled", true));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_or_not_there_is_said_and_upstream_is_not_asked() {
    let upstream = Upstream::start(1).await;
    let gateway = Gateway::before(&upstream).await;
    for (more, param) in
        [(json!({"n": 2}), "n"), (json!({"messages": []}), "messages"), (json!({"audio": {}}), "audio")]
    {
        let refused = gateway.post(PATH, &body("hi", more)).send().await.unwrap();
        assert_eq!(refused.status(), 400);
        assert_eq!(refused.json::<Value>().await.unwrap()["error"]["param"], param);
    }
    for (path, word) in [("/v1/embeddings", "embedding"), ("/v1/completions", "/v1/chat/completions")] {
        let refused = gateway.post(path, &json!({"model": "m", "input": "x"})).send().await.unwrap();
        assert_eq!(refused.status(), 404);
        let error = refused.json::<Value>().await.unwrap()["error"].take();
        assert_eq!((&error["type"], &error["code"]), (&json!("invalid_request_error"), &json!("unknown_url")));
        assert!(error["message"].as_str().unwrap().contains(word), "{error}");
    }
    assert_eq!(upstream.responses().len(), 0);
}
