//! Recorded answers: the events of each `golden/<name>.events` become the bytes of `<name>.chunks`, and the completion
//! of `<name>.json` where the answer is none that failed.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::{REQUESTED_AT, answer, collected, completion, framed, id, reassembled, streamed};
use crate::relay::EventSplitter;
use crate::translate::Collected;
use crate::translate::chat::{ChatAnswer, ChatCollector, ChatStream};

fn golden() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/translate/chat/golden")
}

fn recorded(name: &str, ending: &str) -> Option<String> {
    std::fs::read_to_string(golden().join(format!("{name}.{ending}"))).ok()
}

/// The names of the recordings.
fn names() -> BTreeSet<String> {
    let files = std::fs::read_dir(golden()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    files.filter_map(|name| name.strip_suffix(".events").map(str::to_owned)).collect()
}

fn answer_to(name: &str) -> ChatAnswer {
    ChatAnswer { has_legacy_calls: name == "legacy_call", ..answer() }
}

#[test]
fn recorded_answers_become_the_recorded_chunks_and_completions() {
    assert!(names().len() >= 7, "{:?}", names());
    for name in names() {
        let events = recorded(&name, "events").unwrap();
        let chunks = streamed([events.as_bytes()], answer_to(&name));
        assert_eq!(chunks, recorded(&name, "chunks").unwrap_or_default(), "{name}");
        match recorded(&name, "json") {
            Some(expected) => {
                let expected: Value = serde_json::from_str(&expected).unwrap();
                let got = completion(events.as_bytes(), answer_to(&name));
                assert_eq!(got, expected, "{name}:\n{got:#}");
            }
            None => assert!(matches!(collected(events.as_bytes(), answer_to(&name)), Collected::Failed(_)), "{name}"),
        }
    }
}

/// What a client that streams puts together is what one that waits gets.
#[test]
fn a_stream_says_what_the_completion_says() {
    for name in names().into_iter().filter(|name| recorded(name, "json").is_some()) {
        let events = recorded(&name, "events").unwrap();
        let whole = completion(events.as_bytes(), answer_to(&name));
        let (message, stream) = (&whole["choices"][0]["message"], streamed([events.as_bytes()], answer_to(&name)));
        let told = reassembled(&stream);
        for member in ["content", "refusal", "reasoning_content", "reasoning_details", "function_call", "images"] {
            // What is empty in the one is absent in the other.
            let plain = |value: &Value| if *value == "" { Value::Null } else { value.clone() };
            assert_eq!(plain(&told[member]), plain(&message[member]), "{name}: {member}");
        }
        let mut calls = told["tool_calls"].clone();
        for call in calls.as_array_mut().into_iter().flatten() {
            call.as_object_mut().unwrap().remove("index");
        }
        assert_eq!(calls, message["tool_calls"], "{name}");
        let last: Vec<&str> = stream.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
        assert_eq!(last.last(), Some(&"[DONE]"), "{name}");
    }
}

#[test]
fn usage_is_told_only_if_asked_for_and_known() {
    let events = framed(&[
        json!({"type": "response.output_text.delta", "delta": "a"}),
        json!({"type": "response.completed", "response": {"usage": {"input_tokens": 3, "output_tokens": 2}}}),
    ]);
    let unasked = streamed([events.as_bytes()], ChatAnswer { tells_usage: false, ..answer() });
    assert!(!unasked.contains("usage"), "{unasked}");
    let asked = streamed([events.as_bytes()], answer());
    let usage = json!({"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5});
    assert!(asked.contains(&format!(r#""choices":[],"usage":{usage}}}"#)), "{asked}");
    let unknown = framed(&[json!({"type": "response.completed", "response": {"usage": {"input_tokens": "many"}}})]);
    assert!(!streamed([unknown.as_bytes()], answer()).contains(r#""choices":[]"#));
    assert!(completion(unknown.as_bytes(), answer()).get("usage").is_none());
}

#[test]
fn an_answer_that_says_nothing_still_has_a_beginning_and_an_end() {
    let events = framed(&[json!({"type": "response.completed", "response": null})]);
    let stream = streamed([events.as_bytes()], answer());
    assert_eq!(reassembled(&stream), json!({"role": "assistant", "content": ""}));
    assert!(stream.ends_with("data: [DONE]\n\n") && stream.contains(r#""finish_reason":"stop""#), "{stream}");
    assert_eq!(completion(events.as_bytes(), answer())["choices"][0]["message"]["content"], "");
}

#[test]
fn the_end_is_told_whatever_else_its_event_says_twice() {
    let text = "data: {\"type\":\"response.completed\",\"item\":1,\"item\":2}\n\n";
    assert!(streamed([text.as_bytes()], answer()).ends_with("data: [DONE]\n\n"));
}

#[test]
fn an_answer_that_is_too_large_ends_with_an_error() {
    let delta = json!({"type": "response.output_text.delta", "delta": "x".repeat(400)});
    let end = json!({"type": "response.completed", "response": {}});
    let events = framed(&[delta.clone(), delta.clone(), delta, end]);
    let (mut out, mut collected) = (Vec::new(), Vec::new());
    let mut stream = ChatStream::bounded(answer(), id(), REQUESTED_AT, 1_000);
    let mut collector = ChatCollector::bounded(answer(), id(), REQUESTED_AT, 1_000);
    EventSplitter::default()
        .push(events.as_bytes(), |event| {
            stream.translate(event, &mut out);
            collected.push(collector.collect(event));
        })
        .unwrap();
    let out = String::from_utf8(out).unwrap();
    let last = out.trim_end().lines().last().unwrap().strip_prefix("data: ").unwrap();
    assert_eq!(serde_json::from_str::<Value>(last).unwrap()["error"]["code"], "answer_too_large", "{out}");
    assert_eq!(stream.failure().map(|rejection| rejection.code), Some("answer_too_large"));
    assert!(!out.contains("[DONE]"));
    assert!(collected.contains(&Collected::TooLarge), "{collected:?}");
}

#[test]
fn nothing_follows_the_end() {
    let events = [
        json!({"type": "error", "code": "server_error", "message": "broken"}),
        json!({"type": "response.output_text.delta", "delta": "late"}),
        json!({"type": "response.completed", "response": {}}),
    ];
    let stream = streamed([framed(&events).as_bytes()], answer());
    let error = json!({"error": {"message": "broken", "type": "server_error", "param": null, "code": "server_error"}});
    assert_eq!(stream, format!("data: {error}\n\n"));
}

#[test]
fn upstreams_that_change_ids_between_events_are_understood() {
    let item = |id: &str| json!({"type": "function_call", "id": id, "call_id": "call_1", "name": "f", "arguments": "{\"a\":1}"});
    let events = [
        json!({"type": "response.output_item.added", "output_index": 0, "item": item("x")}),
        json!({"type": "response.function_call_arguments.delta", "output_index": 0, "item_id": "y", "delta": "{\"a\""}),
        json!({"type": "response.function_call_arguments.done", "output_index": 0, "item_id": "z", "arguments": "{\"a\":1}"}),
        json!({"type": "response.output_item.done", "output_index": 0, "item": item("w")}),
        json!({"type": "response.completed", "response": {"output": [item("v")]}}),
    ];
    let message = completion(framed(&events).as_bytes(), answer())["choices"][0]["message"].clone();
    let expected = json!([{"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{\"a\":1}"}}]);
    assert_eq!(message["tool_calls"], expected);
}
