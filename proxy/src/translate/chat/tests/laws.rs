//! What holds of every answer and every request.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{answer, collected, completion, framed, prepared, reassembled, streamed};
use crate::translate::Collected;

/// Any JSON, often with the names that mean something.
fn any_json() -> impl Strategy<Value = Value> {
    let word = prop::sample::select(vec![
        "response.output_text.delta",
        "response.output_item.added",
        "response.output_item.done",
        "response.function_call_arguments.done",
        "response.reasoning_summary_part.done",
        "response.content_part.done",
        "response.completed",
        "message",
        "reasoning",
        "function_call",
        "output_text",
        "assistant",
        "user",
        "tool",
        "call_1",
        "",
        "é\u{1f600}\"\\",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        word.prop_map(Value::from),
    ];
    let name = prop::sample::select(vec![
        "type",
        "item",
        "part",
        "delta",
        "text",
        "content",
        "summary",
        "output_index",
        "item_id",
        "content_index",
        "response",
        "output",
        "usage",
        "annotations",
        "call_id",
        "name",
        "arguments",
        "role",
        "messages",
        "tool_calls",
        "function",
        "id",
        "tool_call_id",
        "image_url",
        "file",
        "url",
        "reasoning_details",
        "data",
        "index",
        "other",
    ]);
    leaf.prop_recursive(4, 64, 8, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((name.clone(), inner), 0..8).prop_map(|members| {
                Value::Object(members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
            }),
        ]
    })
}

/// An event of a known type with any other members.
fn any_event() -> impl Strategy<Value = Value> {
    let kind = prop::sample::select(vec![
        "response.created",
        "response.output_item.added",
        "response.output_item.done",
        "response.output_text.delta",
        "response.output_text.done",
        "response.output_text.annotation.added",
        "response.refusal.delta",
        "response.content_part.done",
        "response.reasoning_summary_text.delta",
        "response.reasoning_summary_part.done",
        "response.reasoning_text.done",
        "response.function_call_arguments.delta",
        "response.custom_tool_call_input.done",
        "response.completed",
        "response.incomplete",
        "response.failed",
        "error",
        "codex.rate_limits",
    ]);
    (kind, any_json()).prop_map(|(kind, mut event)| match &mut event {
        Value::Object(members) => {
            members.insert("type".to_owned(), Value::from(kind));
            event
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            json!({"type": kind, "delta": event})
        }
    })
}

/// Parallel calls as upstream tells them: each begins, goes on by deltas and ends; `order` mixes them.
fn interleaved(arguments: &[String], order: &[usize]) -> Vec<Value> {
    let mut queues: Vec<Vec<Value>> = arguments.iter().enumerate().map(|(at, text)| call_events(at, text)).collect();
    let mut events = Vec::new();
    let mut turns = order.iter();
    while queues.iter().any(|queue| !queue.is_empty()) {
        let turn = turns.next().map_or(0, |turn| turn % queues.len());
        let chosen = (0..queues.len()).map(|step| (turn + step) % queues.len()).find(|at| !queues[*at].is_empty());
        events.push(queues[chosen.unwrap()].remove(0));
    }
    events.push(json!({"type": "response.completed", "response": {"output": []}}));
    events
}

fn call_events(at: usize, arguments: &str) -> Vec<Value> {
    let item = |arguments: &str| {
        json!({"type": "function_call", "id": format!("fc_{at}"), "call_id": format!("call_{at}"),
            "name": format!("tool_{at}"), "arguments": arguments})
    };
    let about = |kind: &str, field: &str, value: Value| json!({"type": kind, "output_index": at, "item_id": format!("fc_{at}"), field: value});
    let mut events = vec![about("response.output_item.added", "item", item(""))];
    let deltas = arguments.chars().map(|char| Value::from(char.to_string()));
    events.extend(deltas.map(|delta| about("response.function_call_arguments.delta", "delta", delta)));
    events.push(about("response.function_call_arguments.done", "arguments", Value::from(arguments)));
    events.push(about("response.output_item.done", "item", item(arguments)));
    events
}

proptest! {
    #[test]
    fn any_split_of_the_bytes_gives_the_same_chunks(
        arguments in prop::collection::vec("[a-z\"é]{0,6}", 1..4),
        order in prop::collection::vec(0_usize..4, 0..20),
        cuts in prop::collection::vec(0_usize..4_000, 0..12),
    ) {
        let text = framed(&interleaved(&arguments, &order));
        let whole = streamed([text.as_bytes()], answer());
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
        cuts.extend([0, text.len()]);
        cuts.sort_unstable();
        let pieces = cuts.windows(2).map(|pair| &text.as_bytes()[pair[0]..pair[1]]);
        prop_assert_eq!(streamed(pieces, answer()), whole);
    }

    #[test]
    fn parallel_calls_are_reassembled_from_any_interleaving(
        arguments in prop::collection::vec("[a-z{}\"é]{0,8}", 1..5),
        order in prop::collection::vec(0_usize..8, 0..60),
    ) {
        let stream = streamed([framed(&interleaved(&arguments, &order)).as_bytes()], answer());
        let message = reassembled(&stream);
        let mut calls: Vec<Value> = message["tool_calls"].as_array().unwrap().clone();
        for (index, call) in calls.iter().enumerate() {
            prop_assert_eq!(&call["index"], &json!(index));
        }
        calls.sort_by_key(|call| call["id"].as_str().unwrap().to_owned());
        for (at, call) in calls.iter().enumerate() {
            let expected = json!({"name": format!("tool_{at}"), "arguments": arguments[at]});
            prop_assert_eq!(&call["function"], &expected);
            let id = format!("\"id\":\"call_{at}\"");
            prop_assert_eq!(stream.matches(&id).count(), 1, "the id comes once");
        }
        prop_assert_eq!(calls.len(), arguments.len());
        prop_assert!(stream.contains(r#""finish_reason":"tool_calls""#));
    }

    #[test]
    fn text_arrives_once_by_whatever_events_it_comes(text in "[a-zé ]{1,20}", told in 0_usize..20, closings in 1_u8..16) {
        let told: String = text.chars().take(told).collect();
        let part = json!({"type": "output_text", "text": text, "annotations": []});
        let item = json!({"type": "message", "id": "m", "role": "assistant", "content": [part]});
        let about = |kind: &str, field: &str, value: &Value| {
            json!({"type": kind, "output_index": 0, "item_id": "m", "content_index": 0, field: value})
        };
        let mut events = vec![about("response.output_text.delta", "delta", &json!(told))];
        let output = if closings & 8 == 0 { json!([]) } else { json!([item]) };
        let closing = [
            about("response.output_text.done", "text", &json!(text)),
            about("response.content_part.done", "part", &part),
            about("response.output_item.done", "item", &item),
        ];
        events.extend(closing.into_iter().enumerate().filter(|(at, _)| closings & (1 << at) != 0).map(|(_, event)| event));
        events.push(json!({"type": "response.completed", "response": {"output": output}}));
        let events = framed(&events);
        prop_assert_eq!(&reassembled(&streamed([events.as_bytes()], answer()))["content"], &json!(text));
        prop_assert_eq!(&completion(events.as_bytes(), answer())["choices"][0]["message"]["content"], &json!(text));
    }

    #[test]
    fn no_event_is_too_odd(events in prop::collection::vec(any_event(), 0..12)) {
        let text = framed(&events);
        let stream = streamed([text.as_bytes()], answer());
        for data in stream.lines().filter_map(|line| line.strip_prefix("data: ")).filter(|data| *data != "[DONE]") {
            prop_assert!(serde_json::from_str::<Value>(data).is_ok(), "{}", data);
        }
        if let Collected::Done(completion) = collected(text.as_bytes(), answer()) {
            prop_assert!(serde_json::from_slice::<Value>(&completion).is_ok());
        }
    }

    #[test]
    fn no_request_is_too_odd(messages in prop::collection::vec(any_json(), 0..4), mut body in any_json()) {
        if let Value::Object(members) = &mut body {
            members.insert("model".to_owned(), json!("gpt-5.5"));
            members.insert("messages".to_owned(), Value::from(messages));
        }
        if let Ok(request) = prepared(body.to_string().as_bytes()) {
            prop_assert!(serde_json::from_slice::<Value>(&request.body).is_ok(), "{:?}", request.body);
        }
    }

    #[test]
    fn no_bytes_are_too_odd(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(prepared(&bytes).is_err());
        streamed([bytes.as_slice()], answer());
    }
}
