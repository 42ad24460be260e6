//! The Responses call: the form of streams, the rules, and what scripts make of it.

mod support;

use std::io::Write as _;
use std::time::Duration;

use fake_chatgpt::{
    AccountSpec, Answer, FakeChatGpt, FunctionCall, Outcome, Script, SilencePlace, Terminal, Totals, Usage, UsageState,
};
use serde_json::{Value, json};
use support::{ask, body, client, events, items, names, post, text};

#[tokio::test]
async fn a_stream_has_upstreams_form() {
    let fake = FakeChatGpt::start().await.unwrap();
    let account = fake.add_account(AccountSpec::default());
    let usage = Usage { input: 120, cached: 64, output: 40, reasoning: 16 };
    let function_calls =
        vec![FunctionCall { name: "look".into(), arguments: json!({"at": "it"}), ..FunctionCall::default() }];
    let answer = Answer { text_tokens: 40, reasoning: true, function_calls, usage: Some(usage), ..Answer::default() };
    fake.script(&account, [Script::Answer(answer)]);
    fake.set_usage(&account, UsageState::used(12.5, 40.0));

    let response = post(&fake, &account, &body("hello")).await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream; charset=utf-8");
    assert_eq!(response.headers()["openai-model"], "gpt-5.5");
    assert_eq!(response.headers()["x-codex-primary-used-percent"], "12.5");
    assert_eq!(response.headers()["x-codex-secondary-window-minutes"], "10080");
    let events = events(&response.text().await.unwrap());
    assert_eq!(
        names(&events),
        [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.reasoning_summary_part.added",
            "response.reasoning_summary_text.delta",
            "response.reasoning_summary_text.done",
            "response.reasoning_summary_part.done",
            "response.output_item.done",
            "response.output_item.added",
            "response.content_part.added",
            "response.output_text.delta",
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.output_item.added",
            "response.function_call_arguments.delta",
            "response.function_call_arguments.done",
            "response.output_item.done",
            "response.completed",
        ]
    );
    for (number, event) in events.iter().enumerate() {
        assert_eq!(event["sequence_number"], number, "{event}");
    }
    let items = items(&events);
    assert!(items[0]["encrypted_content"].is_string());
    assert_eq!(items[1]["content"][0]["text"], text(&events));
    assert_eq!(items[2]["arguments"], r#"{"at":"it"}"#);
    let completed = &events.last().unwrap()["response"];
    assert_eq!(completed["output"], json!([]));
    assert_eq!(completed["id"], events[0]["response"]["id"]);
    assert_eq!(completed["usage"]["input_tokens_details"]["cached_tokens"], 64);
    assert_eq!(completed["usage"]["total_tokens"], 160);

    let record = fake.requests().pop().unwrap();
    assert_eq!(record.events_sent, events.len() as u64);
    assert_eq!(record.outcome, Outcome::Ended { terminal: Terminal::Completed, usage: Some(usage) });
    let expected =
        Totals { requests: 1, completed: 1, input: 120, cached: 64, output: 40, reasoning: 16, ..Totals::default() };
    assert_eq!(fake.totals(&account), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_read_the_end_finds_it_counted() {
    let fake = FakeChatGpt::start().await.unwrap();
    let account = fake.add_account(AccountSpec::default());
    fake.default_script(&account, Script::answer(20));
    let request = client(&fake)
        .post(format!("{}/codex/responses", fake.base_url()))
        .bearer_auth(account.access_token())
        .header("chatgpt-account-id", account.chatgpt_account_id())
        .json(&body("hello"));
    for turn in 1..=500 {
        request.try_clone().unwrap().send().await.unwrap().bytes().await.unwrap();
        assert_eq!((fake.totals(&account).completed, fake.totals(&account).output), (turn, turn * 20));
    }
}

#[tokio::test]
async fn encrypted_content_is_good_on_its_own_account_only() {
    let fake = FakeChatGpt::start().await.unwrap();
    let (own, other) = (fake.add_account(AccountSpec::default()), fake.add_account(AccountSpec::default()));
    fake.script(&own, [Script::Answer(Answer { reasoning: true, ..Answer::default() })]);
    let first = ask(&fake, &own, &body("think")).await;
    let mut next = body("go on");
    next["input"].as_array_mut().unwrap().insert(0, items(&first)[0].clone());

    assert_eq!(post(&fake, &own, &next).await.unwrap().status(), 200);
    let refused = post(&fake, &other, &next).await.unwrap();
    assert_eq!(refused.status(), 400);
    let refused: Value = refused.json().await.unwrap();
    assert_eq!(refused["error"]["code"], "invalid_encrypted_content");

    next["input"].as_array_mut().unwrap().push(json!({"type": "compaction_trigger"}));
    let compacted = ask(&fake, &own, &next).await;
    assert_eq!(items(&compacted).len(), 1);
    assert_eq!(items(&compacted)[0]["type"], "compaction");
}

#[tokio::test]
async fn a_cut_stream_loses_its_end_and_nothing_else() {
    let fake = FakeChatGpt::start().await.unwrap();
    let account = fake.add_account(AccountSpec::default());
    let reset = Script::CutMidStream { after_deltas: 3, reset: true };
    fake.script(&account, [Script::cut_after(100), reset, Script::CutBeforeHead]);

    let mut response = post(&fake, &account, &body("hello")).await.unwrap();
    let mut received = Vec::new();
    let failure = loop {
        match response.chunk().await {
            Ok(Some(chunk)) => received.extend_from_slice(&chunk),
            Ok(None) => panic!("the stream ended well"),
            Err(error) => break error,
        }
    };
    assert!(failure.is_body() || failure.is_decode(), "{failure:?}");
    let events = events(std::str::from_utf8(&received).unwrap());
    assert_eq!(events.iter().filter(|event| event["type"] == "response.output_text.delta").count(), 100);
    assert_eq!(names(&events).last(), Some(&"response.output_text.delta"));

    let torn = post(&fake, &account, &body("hello")).await.unwrap().text().await;
    assert!(torn.is_err());
    assert!(post(&fake, &account, &body("hello")).await.is_err());
    assert!(fake.requests().iter().all(|request| request.outcome == Outcome::Torn));
    assert_eq!(fake.totals(&account), Totals { requests: 3, ..Totals::default() });
}

#[tokio::test]
async fn a_client_that_goes_is_seen_and_not_counted() {
    let fake = FakeChatGpt::start().await.unwrap();
    let account = fake.add_account(AccountSpec::default());
    let silence = |place| Script::Silence { place, duration_ms: None };
    fake.script(&account, [silence(SilencePlace::AfterEvents(4)), silence(SilencePlace::BeforeHead)]);

    let mut response = post(&fake, &account, &body("hello")).await.unwrap();
    assert!(response.chunk().await.unwrap().is_some());
    fake.wait_for(|request| request.events_sent == 4).await.unwrap();
    drop(response);
    fake.wait_for(|request| request.sequence == 1 && request.is_cancelled()).await.unwrap();

    let request_body = body("hello");
    let impatient = tokio::time::timeout(Duration::from_millis(300), post(&fake, &account, &request_body));
    assert!(impatient.await.is_err());
    let silent = fake.wait_for(|request| request.sequence == 2 && request.is_cancelled()).await.unwrap();
    assert_eq!(silent.status, None);

    fake.script(&account, [silence(SilencePlace::AfterHead)]);
    let response = post(&fake, &account, &body("hello")).await.unwrap();
    fake.drop_connections();
    assert!(response.text().await.is_err());
    assert_eq!(fake.totals(&account), Totals { requests: 3, ..Totals::default() });
}

#[tokio::test]
async fn scripted_failures_look_like_upstreams() {
    let fake = FakeChatGpt::start().await.unwrap();
    let account = fake.add_account(AccountSpec { plan: "pro".into(), ..AccountSpec::default() });
    let scripts = json!([
        {"kind": "usage_limit", "resets_in_seconds": 60},
        {"kind": "rate_limited", "retry_after": "2"},
        {"kind": "unauthorized"},
        {"kind": "deactivated_workspace"},
        {"kind": "server_error", "status": 502, "html": true},
        {"kind": "raw", "status": 418, "headers": [["x-tea", "green"]], "body": "short and stout"},
    ]);
    fake.script(&account, serde_json::from_value::<Vec<Script>>(scripts).unwrap());
    let mut answers = Vec::new();
    while fake.scripts_left(&account) > 0 {
        let response = post(&fake, &account, &body("hello")).await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        answers.push((status, headers, response.text().await.unwrap()));
    }
    let json = |index: usize| serde_json::from_str::<Value>(&answers[index].2).unwrap();
    assert_eq!(answers.iter().map(|answer| answer.0).collect::<Vec<_>>(), [429, 429, 401, 402, 502, 418]);
    assert_eq!(json(0)["error"]["type"], "usage_limit_reached");
    assert_eq!(json(0)["error"]["plan_type"], "pro");
    assert_eq!(answers[1].1["retry-after"], "2");
    assert!(json(1)["error"]["message"].as_str().unwrap().contains("try again in 1.3s"));
    assert_eq!(json(2)["error"]["code"], "token_invalidated");
    assert_eq!(json(3), json!({"detail": {"code": "deactivated_workspace"}}));
    assert_eq!(answers[4].1["content-type"], "text/html; charset=UTF-8");
    assert_eq!((&*answers[5].2, &answers[5].1["x-tea"]), ("short and stout", &"green".parse().unwrap()));

    let failure = |code: &str| Script::FailMidStream { after_deltas: 5, code: code.into(), message: "busy".into() };
    let first = Script::FirstEventFailure { code: "server_is_overloaded".into(), message: "busy".into() };
    fake.script(&account, [first, failure("slow_down")]);
    assert_eq!(names(&ask(&fake, &account, &body("hello")).await), ["response.created", "response.failed"]);
    let late = ask(&fake, &account, &body("hello")).await;
    let expected = [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.failed",
    ];
    assert_eq!(names(&late), expected);
    assert_eq!(late.last().unwrap()["response"]["error"]["code"], "slow_down");
    assert_eq!(late.last().unwrap()["sequence_number"], late.len() - 1);
}

#[tokio::test]
async fn markers_lead_a_client_through_a_tool_call() {
    let fake = FakeChatGpt::start().await.unwrap();
    let account = fake.add_account(AccountSpec::default());
    let mut request = body("run: echo hi");
    let parameters = json!({"type": "object", "properties": {"cmd": {"type": "string"}}, "required": ["cmd"]});
    request["tools"] = json!([{"type": "function", "name": "exec_command", "parameters": parameters}]);
    let called = ask(&fake, &account, &request).await;
    let output: Vec<Value> = items(&called).into_iter().cloned().collect();
    assert_eq!(output[1]["arguments"], r#"{"cmd":"echo hi"}"#);

    let input = request["input"].as_array_mut().unwrap();
    input.extend(output.clone());
    let printed = "Chunk ID: 1\nProcess exited with code 0\nOutput:\nhi\n";
    input.push(json!({"type": "function_call_output", "call_id": output[1]["call_id"], "output": printed}));
    assert_eq!(text(&ask(&fake, &account, &request).await), "the command printed: hi");

    let mut lite = body("run: echo hi");
    let exec = json!({"type": "custom", "name": "exec"});
    let tools = json!([{"type": "namespace", "name": "functions", "tools": [exec]}]);
    lite["input"]
        .as_array_mut()
        .unwrap()
        .insert(0, json!({"type": "additional_tools", "role": "developer", "tools": tools}));
    let called = ask(&fake, &account, &lite).await;
    let call = items(&called)[1];
    assert_eq!((&call["type"], &call["namespace"]), (&json!("custom_tool_call"), &json!("functions")));
    assert!(call["input"].as_str().unwrap().contains(r#"tools.exec_command({"cmd":"echo hi"})"#));

    let parallel = ask(&fake, &account, &body(r#"calls: a {"x":1}; b {"y":[2]}"#)).await;
    let calls: Vec<_> =
        items(&parallel).iter().skip(1).map(|call| (call["name"].clone(), call["arguments"].clone())).collect();
    assert_eq!(calls, [(json!("a"), json!(r#"{"x":1}"#)), (json!("b"), json!(r#"{"y":[2]}"#))]);
    assert_eq!(text(&ask(&fake, &account, &body("good morning")).await), "You said: good morning");
}

#[tokio::test]
async fn only_a_good_token_with_its_account_id_is_let_in() {
    let fake = FakeChatGpt::start().await.unwrap();
    let account = fake.add_account(AccountSpec::default());
    let models = format!("{}/codex/models?client_version=0.169.0", fake.base_url());
    let get = async |access_token: &str, account_id: &str| {
        let request = client(&fake).get(&models).bearer_auth(access_token).header("chatgpt-account-id", account_id);
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.json::<Value>().await.unwrap())
    };
    let (good, id) = (account.access_token(), account.chatgpt_account_id());
    let (status, catalog) = get(&good, id).await;
    assert_eq!((status, catalog["models"].as_array().unwrap().len()), (200, 5));
    assert_eq!(get(&good, "another").await, (401, json!({"detail": "Unauthorized"})));
    assert_eq!(get("unknown", id).await.1["error"]["code"], "token_invalidated");
    fake.expire_access_token(&account);
    assert_eq!(get(&good, id).await.1["error"]["code"], "token_expired");
    fake.revoke_access_token(&account);
    assert_eq!(get(&good, id).await.1["error"]["code"], "token_revoked");
}

#[tokio::test]
async fn compressed_bodies_are_recorded_as_what_they_hold() {
    let fake = FakeChatGpt::start().await.unwrap();
    let account = fake.add_account(AccountSpec::default());
    let plain = body("compressed").to_string();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(plain.as_bytes()).unwrap();
    let encoded = [("zstd", zstd::encode_all(plain.as_bytes(), 1).unwrap()), ("gzip", gzip.finish().unwrap())];
    for (encoding, bytes) in encoded {
        let request = client(&fake)
            .post(format!("{}/codex/responses", fake.base_url()))
            .bearer_auth(account.access_token())
            .header("chatgpt-account-id", account.chatgpt_account_id())
            .header("content-encoding", encoding)
            .body(bytes);
        let events = events(&request.send().await.unwrap().text().await.unwrap());
        assert_eq!(text(&events), "You said: compressed");
    }
    let (first, second) = (&fake.requests()[0], &fake.requests()[1]);
    assert_eq!(first.body, plain.as_bytes());
    assert_eq!(first.body_sha256, second.body_sha256);
}
