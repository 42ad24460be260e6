//! What becomes of requests.

use serde_json::{Value, json};

use super::prepared;
use crate::rejection::Rejection;
use crate::translate::{AnswerShape, PreparedRequest};

fn ask(body: &Value) -> Result<PreparedRequest, Rejection> {
    prepared(body.to_string().as_bytes())
}

/// The body that goes upstream.
fn upstream(body: &Value) -> Value {
    serde_json::from_slice(&ask(body).unwrap_or_else(|rejection| panic!("{body}: {rejection:?}")).body).unwrap()
}

/// The input that these messages become.
fn input(messages: Value) -> Value {
    upstream(&json!({"model": "gpt-5.5", "messages": messages}))["input"].take()
}

fn hello(more: Value) -> Value {
    let mut body = json!({"model": "gpt-5.5", "messages": [{"role": "user", "content": "hello"}]});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

/// A tool nested deeper than anybody's parser goes.
fn nested() -> Value {
    let deep = (0..100).fold(json!(1), |inner, _| json!([[inner]]));
    json!({"type": "web_search_preview", "x": deep})
}

#[test]
fn a_plain_request_becomes_what_upstream_takes() {
    let request = ask(&json!({"model": "gpt-5.5", "messages": [
        {"role": "system", "content": "be brief"}, {"role": "user", "content": "say \"hi\"\n"},
        {"role": "developer", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]}))
    .unwrap();
    let key = request.prompt_cache_key.clone().unwrap();
    let expected = json!({"model": "gpt-5.5", "stream": true, "store": false, "instructions": "be brief\n\na\nb",
        "input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "say \"hi\"\n"}]}],
        "include": ["reasoning.encrypted_content"], "reasoning": {"summary": "auto"}, "prompt_cache_key": key});
    assert_eq!(serde_json::from_slice::<Value>(&request.body).unwrap(), expected);
    assert!(matches!(&request.answer, AnswerShape::ChatJson(answer) if !answer.has_legacy_calls));
    assert_eq!((request.model.as_deref(), request.ignored_params.len()), (Some("gpt-5.5"), 0));
}

#[test]
fn every_parameter_has_its_place_or_is_named() {
    let request = ask(&hello(json!({
        "stream": true, "stream_options": {"include_usage": true}, "reasoning_effort": "ultra", "verbosity": "low",
        "service_tier": "fast", "prompt_cache_key": "mine", "temperature": 0.2, "top_p": null, "max_tokens": 5,
        "max_completion_tokens": 6, "stop": ["x"], "seed": 1, "logit_bias": {}, "user": "u", "metadata": {"a": "b"},
        "n": 1, "modalities": ["text"], "audio": null, "store": true, "prediction": {"type": "content"}, "top_k": 4,
        "chat_template_kwargs": {"x": 1}, "not a header\n": 1,
    })))
    .unwrap();
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    assert_eq!(body["reasoning"], json!({"effort": "max", "summary": "auto"}));
    assert_eq!(body["text"], json!({"verbosity": "low"}));
    assert_eq!((&body["service_tier"], &body["prompt_cache_key"]), (&json!("priority"), &json!("mine")));
    let mut ignored = request.ignored_params.clone();
    ignored.sort_unstable();
    let expected = [
        "chat_template_kwargs",
        "logit_bias",
        "max_completion_tokens",
        "max_tokens",
        "metadata",
        "prediction",
        "seed",
        "stop",
        "store",
        "temperature",
        "top_k",
        "user",
    ];
    assert_eq!(ignored, expected);
    for name in expected.iter().filter(|name| **name != "store") {
        assert!(body.get(name).is_none(), "{name} reached upstream");
    }
    assert!(matches!(&request.answer, AnswerShape::ChatStream(answer) if answer.tells_usage));
}

#[test]
fn effort_and_summary_are_read_wherever_clients_put_them() {
    let cases = [
        (json!({"reasoning_effort": "low"}), json!({"effort": "low", "summary": "auto"})),
        (
            json!({"reasoning": {"effort": "high", "summary": "detailed"}}),
            json!({"effort": "high", "summary": "detailed"}),
        ),
        (json!({"reasoning": {"exclude": true}, "reasoning_effort": "low"}), json!({"effort": "low"})),
        (json!({"reasoning_effort": "none"}), json!({"effort": "none"})),
        (json!({"model": "gpt-5.5-high", "reasoning_effort": "low"}), json!({"effort": "high", "summary": "auto"})),
    ];
    for (more, expected) in cases {
        assert_eq!(upstream(&hello(more.clone()))["reasoning"], expected, "{more}");
    }
}

#[test]
fn a_suffix_of_the_model_sets_effort_and_tier_as_on_responses() {
    let request = ask(&hello(json!({"model": "gpt-5.5-xhigh-fast"}))).unwrap();
    let told = (request.model.as_deref(), request.effort.as_deref(), request.tier.as_deref());
    assert_eq!(told, (Some("gpt-5.5"), Some("xhigh"), Some("priority")));
    assert_eq!(request.model_requested.as_deref(), Some("gpt-5.5-xhigh-fast"));
}

#[test]
fn what_cannot_be_done_or_understood_is_refused_by_name() {
    let cases = [
        (json!({"model": null}), "model"),
        (json!({"messages": null}), "messages"),
        (json!({"messages": []}), "messages"),
        (json!({"messages": "hi"}), "messages"),
        (json!({"messages": [{"role": "user", "content": "x"}, 7]}), "messages[1]"),
        (json!({"messages": [{"content": "x"}]}), "messages[0].role"),
        (json!({"messages": [{"role": "wizard", "content": "x"}]}), "messages[0].role"),
        (json!({"messages": [{"role": "user", "content": null}]}), "messages[0].content"),
        (json!({"messages": [{"role": "user", "content": 7}]}), "messages[0].content"),
        (json!({"messages": [{"role": "user", "content": [7]}]}), "messages[0].content[0]"),
        (json!({"messages": [{"role": "user", "content": [{"type": "text"}]}]}), "messages[0].content[0].text"),
        (json!({"messages": [{"role": "user", "content": [{"type": "hologram"}]}]}), "messages[0].content[0].type"),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "x"}}]}]}),
            "messages[0].content[0]",
        ),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": 7}}]}]}),
            "messages[0].content[0].image_url.url",
        ),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "file", "file": {}}]}]}),
            "messages[0].content[0].file.file_data",
        ),
        (json!({"messages": [{"role": "system", "content": [{"type": "image_url"}]}]}), "messages[0].content[0].type"),
        (json!({"messages": [{"role": "assistant", "audio": {"id": "a"}}]}), "messages[0].audio"),
        (
            json!({"messages": [{"role": "assistant", "tool_calls": [{"id": "c"}]}]}),
            "messages[0].tool_calls[0].function",
        ),
        (
            json!({"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]}]}),
            "messages[0].tool_calls[0].id",
        ),
        (
            json!({"messages": [{"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": 7}}]}]}),
            "messages[0].tool_calls[0].function.name",
        ),
        (json!({"messages": [{"role": "tool", "content": "x"}]}), "messages[0].tool_call_id"),
        (json!({"messages": [{"role": "tool", "tool_call_id": "c", "content": "x"}]}), "messages[0].tool_call_id"),
        (json!({"messages": [{"role": "function", "name": "f", "content": "x"}]}), "messages[0].name"),
        (json!({"n": 2}), "n"),
        (json!({"n": 0}), "n"),
        (json!({"modalities": ["text", "audio"]}), "modalities"),
        (json!({"audio": {"voice": "x"}}), "audio"),
        (json!({"stream": "yes"}), "stream"),
        (json!({"tools": {}}), "tools"),
        (json!({"tools": [7]}), "tools[0]"),
        (json!({"tools": [{"type": "function", "function": {}}]}), "tools[0].function.name"),
        (json!({"tools": [{}]}), "tools[0].type"),
        (json!({"tools": [nested()]}), "tools[0]"),
        (json!({"functions": [{"parameters": {}}]}), "functions[0].name"),
        (json!({"tool_choice": {}}), "tool_choice.type"),
        (json!({"tool_choice": {"type": "function", "function": {}}}), "tool_choice.function.name"),
        (json!({"function_call": {}}), "function_call.name"),
        (json!({"response_format": {"type": "json_schema"}}), "response_format.json_schema"),
        (json!({"response_format": {"type": "json_schema", "json_schema": {}}}), "response_format.json_schema.name"),
        (json!({"response_format": "json"}), "response_format"),
        (json!({"reasoning_effort": 7}), "reasoning_effort"),
    ];
    for (more, param) in cases {
        let rejection = ask(&hello(more.clone())).err().unwrap_or_else(|| panic!("{more} was let through"));
        assert_eq!((rejection.status, rejection.param.as_deref()), (400, Some(param)), "{more}");
    }
}

#[test]
fn what_sdks_echo_does_no_harm() {
    let echoed = json!([{"role": "user", "content": "a"},
        {"role": "assistant", "content": "b", "refusal": null, "tool_calls": null, "function_call": null, "audio": null,
            "annotations": [], "reasoning_content": "thought", "reasoning_details": "thought", "name": null}]);
    let message = |role: &str, kind: &str, text: &str| json!({"type": "message", "role": role, "content": [{"type": kind, "text": text}]});
    assert_eq!(input(echoed), json!([message("user", "input_text", "a"), message("assistant", "output_text", "b")]));
}

#[test]
fn images_and_files_become_input_parts() {
    let cases = [
        (
            json!({"type": "image_url", "image_url": {"url": "data:image/png;base64,AA==", "detail": "low"}}),
            json!({"type": "input_image", "image_url": "data:image/png;base64,AA==", "detail": "low"}),
        ),
        (
            json!({"type": "image_url", "image_url": "https://example.com/a.png"}),
            json!({"type": "input_image", "image_url": "https://example.com/a.png"}),
        ),
        (
            json!({"type": "file", "file": {"file_data": "AAAA", "filename": "Notes.TXT"}}),
            json!({"type": "input_file", "filename": "Notes.TXT", "file_data": "data:text/plain;base64,AAAA"}),
        ),
        (
            json!({"type": "file", "file": {"file_data": "JVBERi0xLjQ="}}),
            json!({"type": "input_file", "filename": "file.pdf", "file_data": "data:application/pdf;base64,JVBERi0xLjQ="}),
        ),
        (
            json!({"type": "file", "file": {"file_data": "data:application/pdf;base64,AAAA", "filename": "a \"b\".pdf"}}),
            json!({"type": "input_file", "filename": "a \"b\".pdf", "file_data": "data:application/pdf;base64,AAAA"}),
        ),
        (
            json!({"type": "file", "file": {"file_url": "https://example.com/a.pdf"}}),
            json!({"type": "input_file", "file_url": "https://example.com/a.pdf"}),
        ),
        (json!({"type": "file", "file": {"file_id": "file_1"}}), json!({"type": "input_file", "file_id": "file_1"})),
        (
            json!({"type": "input_image", "image_url": "x", "future": 1}),
            json!({"type": "input_image", "image_url": "x", "future": 1}),
        ),
    ];
    for (part, expected) in cases {
        let content = json!([{"type": "text", "text": "look"}, part]);
        let input = input(json!([{"role": "user", "content": content}]));
        assert_eq!(input[0]["content"], json!([{"type": "input_text", "text": "look"}, expected]), "{part}");
    }
}

#[test]
fn calls_and_their_outputs_become_items() {
    let messages = json!([
        {"role": "user", "content": "weather?"},
        {"role": "assistant", "content": "", "tool_calls": [
            {"id": "call_a", "type": "function", "function": {"name": "get", "arguments": "{\"city\":\"Oslo\"}"}},
            {"id": "call_b", "type": "custom", "custom": {"name": "run", "input": "ls"}},
            {"id": "call_c", "type": "function", "function": {"name": "now", "arguments": ""}}]},
        {"role": "tool", "tool_call_id": "call_b", "content": "files"},
        {"role": "tool", "tool_call_id": "call_a", "content": [{"type": "text", "text": "rain"},
            {"type": "image_url", "image_url": {"url": "https://example.com/map.png"}}]},
        {"role": "tool", "tool_call_id": "call_c", "content": null},
        {"role": "assistant", "content": [{"type": "text", "text": "It rains."}, {"type": "thinking", "thinking": "x"}],
            "refusal": "No more."},
    ]);
    let expected = json!([
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "weather?"}]},
        {"type": "function_call", "call_id": "call_a", "name": "get", "arguments": "{\"city\":\"Oslo\"}"},
        {"type": "custom_tool_call", "call_id": "call_b", "name": "run", "input": "ls"},
        {"type": "function_call", "call_id": "call_c", "name": "now", "arguments": "{}"},
        {"type": "custom_tool_call_output", "call_id": "call_b", "output": "files"},
        {"type": "function_call_output", "call_id": "call_a", "output": [{"type": "input_text", "text": "rain"},
            {"type": "input_image", "image_url": "https://example.com/map.png"}]},
        {"type": "function_call_output", "call_id": "call_c", "output": ""},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "It rains."},
            {"type": "refusal", "refusal": "No more."}]},
    ]);
    assert_eq!(input(messages), expected);
}

#[test]
fn call_ids_that_a_client_changed_still_find_their_calls() {
    let long = "x".repeat(100);
    for (called, answered) in [("call_AB_1", "callAB1"), ("callAB1", "call_AB_1"), (long.as_str(), long.as_str())] {
        let input = input(json!([
            {"role": "assistant", "tool_calls": [{"id": called, "function": {"name": "f", "arguments": "{}"}}]},
            {"role": "tool", "tool_call_id": answered, "content": "done"}]));
        assert_eq!(input[0]["call_id"], input[1]["call_id"], "{called} {answered}");
        assert!(input[0]["call_id"].as_str().unwrap().len() <= 64);
    }
}

#[test]
fn functions_of_old_become_tools_and_their_calls_get_ids() {
    let body = json!({"model": "gpt-5.5", "functions": [{"name": "f", "description": "d", "parameters": {"type": "object"}}],
        "function_call": {"name": "f"}, "parallel_tool_calls": true, "messages": [
        {"role": "assistant", "content": null, "function_call": {"name": "f", "arguments": "{\"a\":1}"}},
        {"role": "function", "name": "f", "content": "one"},
        {"role": "assistant", "content": null, "function_call": {"name": "f", "arguments": "{\"a\":2}"}},
        {"role": "function", "name": "f", "content": "two"}]});
    let sent = upstream(&body);
    assert_eq!(
        sent["tools"],
        json!([{"type": "function", "name": "f", "description": "d", "parameters": {"type": "object"}, "strict": false}])
    );
    assert_eq!(sent["tool_choice"], json!({"type": "function", "name": "f"}));
    assert_eq!(sent["parallel_tool_calls"], false);
    let ids: Vec<_> = (0..4).map(|at| sent["input"][at]["call_id"].clone()).collect();
    assert!(ids[0] == ids[1] && ids[2] == ids[3] && ids[0] != ids[2], "{ids:?}");
    assert!(matches!(ask(&body).unwrap().answer, AnswerShape::ChatJson(answer) if answer.has_legacy_calls));
    assert_eq!(upstream(&hello(json!({"function_call": "none"})))["tool_choice"], "none");
}

#[test]
fn tools_are_flat_and_not_strict_unless_asked() {
    let cases = [
        (
            json!({"type": "function", "function": {"name": "f", "strict": true, "parameters": {"z": 1, "a": 2}}}),
            json!({"type": "function", "name": "f", "parameters": {"z": 1, "a": 2}, "strict": true}),
        ),
        (
            json!({"type": "function", "function": {"name": "f", "description": null, "strict": null}}),
            json!({"type": "function", "name": "f", "parameters": {"type": "object", "properties": {}}, "strict": false}),
        ),
        (
            json!({"type": "custom", "custom": {"name": "c", "description": "d",
                "format": {"type": "grammar", "grammar": {"syntax": "lark", "definition": "start: x"}}}}),
            json!({"type": "custom", "name": "c", "description": "d",
                "format": {"type": "grammar", "syntax": "lark", "definition": "start: x"}}),
        ),
        (
            json!({"type": "custom", "custom": {"name": "c", "format": {"type": "text"}}}),
            json!({"type": "custom", "name": "c", "format": {"type": "text"}}),
        ),
        (
            json!({"type": "function", "name": "flat", "parameters": {}}),
            json!({"type": "function", "name": "flat", "parameters": {}}),
        ),
        (json!({"type": "web_search_preview", "x": 1}), json!({"type": "web_search", "x": 1})),
    ];
    for (tool, expected) in cases {
        assert_eq!(upstream(&hello(json!({"tools": [tool]})))["tools"], json!([expected]), "{tool}");
    }
    // Models follow the order of a schema's members.
    let body = br#"{"model":"gpt-5.5","messages":[{"role":"user","content":"x"}],"tools":[{"type":"function","function":{"name":"f","parameters":{"z":1,"a":2}}}]}"#;
    assert!(String::from_utf8(prepared(body).unwrap().body.into()).unwrap().contains(r#"{"z":1,"a":2}"#));
    let search = json!({"web_search_options": {"search_context_size": "low",
        "user_location": {"type": "approximate", "approximate": {"city": "Oslo", "country": null}}}});
    let expected = json!([{"type": "web_search", "search_context_size": "low",
        "user_location": {"type": "approximate", "city": "Oslo"}}]);
    assert_eq!(upstream(&hello(search))["tools"], expected);
    assert!(upstream(&hello(json!({"tools": [], "parallel_tool_calls": true}))).get("parallel_tool_calls").is_none());
}

#[test]
fn every_form_of_tool_choice_is_understood() {
    let named = |kind: &str, name: &str| json!({"type": kind, kind: {"name": name}});
    let cases = [
        (json!("auto"), json!("auto")),
        (json!("required"), json!("required")),
        (named("function", "f"), json!({"type": "function", "name": "f"})),
        (named("custom", "c"), json!({"type": "custom", "name": "c"})),
        (json!({"type": "function", "name": "f"}), json!({"type": "function", "name": "f"})),
        (json!({"type": "web_search_preview"}), json!({"type": "web_search"})),
        (
            json!({"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [named("function", "f"), named("custom", "c")]}}),
            json!({"type": "allowed_tools", "mode": "required",
                "tools": [{"type": "function", "name": "f"}, {"type": "custom", "name": "c"}]}),
        ),
    ];
    for (choice, expected) in cases {
        assert_eq!(upstream(&hello(json!({"tool_choice": choice})))["tool_choice"], expected, "{choice}");
    }
}

#[test]
fn response_formats_are_flat_and_keep_the_order_of_their_schema() {
    let body = br#"{"model":"gpt-5.5","verbosity":"high","messages":[{"role":"user","content":"x"}],"response_format":{"type":"json_schema","json_schema":{"name":"n","strict":true,"description":"d","schema":{"z":1,"a":2}}}}"#;
    let sent = String::from_utf8(prepared(body).unwrap().body.into()).unwrap();
    let expected = r#""text":{"format":{"type":"json_schema","name":"n","schema":{"z":1,"a":2},"strict":true,"description":"d"},"verbosity":"high"}"#;
    assert!(sent.contains(expected), "{sent}");
    assert_eq!(
        upstream(&hello(json!({"response_format": {"type": "text"}})))["text"],
        json!({"format": {"type": "text"}})
    );
}

#[test]
fn a_json_object_leaves_the_system_s_text_where_upstream_looks_for_the_word() {
    let sent = upstream(&json!({"model": "gpt-5.5", "response_format": {"type": "json_object"}, "messages": [
        {"role": "system", "content": "Answer in JSON."}, {"role": "user", "content": "x"}]}));
    assert_eq!((&sent["instructions"], &sent["text"]["format"]), (&json!(""), &json!({"type": "json_object"})));
    let developer =
        json!({"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "Answer in JSON."}]});
    assert_eq!(sent["input"][0], developer);
}

#[test]
fn reasoning_comes_back_in_front_of_what_it_led_to() {
    let sealed = |id: Value, data: &str| json!({"type": "reasoning.encrypted", "id": id, "data": data, "format": "openai-responses-v1"});
    let summary = |id: Value, index: u64, text: &str| json!({"type": "reasoning.summary", "id": id, "index": index, "summary": text});
    let item = |id: Value, summary: &[&str], data: &str| {
        let summary: Vec<Value> = summary.iter().map(|text| json!({"type": "summary_text", "text": text})).collect();
        let mut item = json!({"type": "reasoning", "summary": summary, "encrypted_content": data});
        if !id.is_null() {
            item["id"] = id;
        }
        item
    };
    let (one, two) = (json!("rs_1"), json!("rs_2"));
    let cases = [
        // Merged by the client, and as the pieces of a stream came.
        (
            json!([summary(one.clone(), 0, "ab"), summary(one.clone(), 1, "c"), sealed(one.clone(), "X")]),
            vec![item(one.clone(), &["ab", "c"], "X")],
        ),
        (
            json!([summary(one.clone(), 0, "a"), summary(one.clone(), 0, "b"), sealed(one.clone(), "X")]),
            vec![item(one.clone(), &["ab"], "X")],
        ),
        (
            json!([sealed(one.clone(), "X"), summary(two.clone(), 1, "c"), sealed(two.clone(), "Y")]),
            vec![item(one.clone(), &[], "X"), item(two.clone(), &["c"], "Y")],
        ),
        (
            json!([summary(Value::Null, 0, "a"), sealed(Value::Null, "X"), sealed(Value::Null, "Y")]),
            vec![item(Value::Null, &["a"], "X"), item(Value::Null, &[], "Y")],
        ),
        // What upstream could do nothing with.
        (json!([summary(one.clone(), 0, "a")]), vec![]),
        (
            json!([{"type": "reasoning.encrypted", "id": "x", "data": "X", "format": "google-gemini-v1"}, 7, {"type": 7}]),
            vec![],
        ),
        (json!("text"), vec![]),
    ];
    for (details, expected) in cases {
        let call = json!([{"id": "call_1", "function": {"name": "f", "arguments": "{}"}}]);
        let input = input(json!([{"role": "user", "content": "x"},
            {"role": "assistant", "content": "said", "tool_calls": call, "reasoning_details": details},
            {"role": "tool", "tool_call_id": "call_1", "content": "y"}]));
        let kinds: Vec<_> = input.as_array().unwrap().iter().map(|item| item["type"].as_str().unwrap()).collect();
        let items = &input.as_array().unwrap()[1..=expected.len()];
        assert_eq!(items, expected, "{details}");
        assert_eq!(kinds[1 + expected.len()..], ["message", "function_call", "function_call_output"], "{details}");
    }
    let nothing_came_of_it = json!([{"role": "user", "content": "x"},
        {"role": "assistant", "content": "", "reasoning_details": [sealed(one, "X")]}]);
    assert_eq!(input(nothing_came_of_it).as_array().unwrap().len(), 1);
}

#[test]
fn equal_conversations_of_one_caller_share_a_cache_key() {
    let key = |system: &str, first: &str, tail: &str| {
        let body = json!({"model": "gpt-5.5", "messages": [{"role": "system", "content": system},
            {"role": "user", "content": [{"type": "text", "text": first}]}, {"role": "assistant", "content": tail}]});
        ask(&body).unwrap().prompt_cache_key.unwrap()
    };
    assert_eq!(key("s", "hello", "a"), key("s", "hello", "b"));
    assert_ne!(key("s", "hello", "a"), key("s", "other", "a"));
    assert_ne!(key("s", "hello", "a"), key("t", "hello", "a"));
}
