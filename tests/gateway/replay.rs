//! Callers of `/v1/responses` refer to what they were answered before; upstream keeps nothing and gets it all.

use fake_chatgpt::Script;
use serde_json::{Value, json};

use crate::support::{Gateway, Setup, Upstream, events};

const PATH: &str = "/v1/responses";

async fn ask(gateway: &Gateway, key: Option<&str>, body: &Value) -> (u16, Value) {
    let request = gateway.post(PATH, body);
    let request = match key {
        Some(key) => request.bearer_auth(key),
        None => request,
    };
    let response = request.send().await.unwrap();
    let (status, is_stream) = (response.status().as_u16(), body["stream"] == true);
    let text = response.text().await.unwrap();
    if is_stream && status == 200 {
        return (status, events(&text).pop().unwrap()["response"].clone());
    }
    (status, serde_json::from_str(&text).unwrap())
}

fn sent_input(upstream: &Upstream) -> Vec<Value> {
    upstream.responses().last().unwrap().json()["input"].as_array().unwrap().clone()
}

fn texts(items: &[Value]) -> Vec<&str> {
    items.iter().map(|item| item["content"][0]["text"].as_str().or(item["content"].as_str()).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_goes_on_by_the_id_of_its_last_response() {
    for stream in [false, true] {
        let upstream = Upstream::start(3).await;
        let gateway = Gateway::before(&upstream).await;
        for account in &upstream.accounts {
            upstream.fake.default_script(account, Script::text("sure"));
        }
        let mut previous = Value::Null;
        for turn in ["one", "two", "three"] {
            let body = json!({"model": "gpt-5.5", "input": turn, "previous_response_id": previous, "stream": stream});
            let (status, response) = ask(&gateway, None, &body).await;
            assert_eq!(status, 200, "{response}");
            previous = response["id"].clone();
        }
        let input = sent_input(&upstream);
        assert_eq!(texts(&input), ["one", "sure", "two", "sure", "three"], "stream: {stream}");
        let accounts: Vec<_> = upstream.responses().into_iter().map(|record| record.account).collect();
        assert!(accounts.iter().all(|account| *account == accounts[0]), "the conversation moved: {accounts:?}");
        assert!(upstream.responses().iter().all(|record| record.json().get("previous_response_id").is_none()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_item_reference_becomes_the_item_of_its_own_caller_only() {
    let upstream = Upstream::start(1).await;
    let gateway = Gateway::before(&upstream).await;
    let (mine, other) = (gateway.setup.key("mine"), gateway.setup.key("other"));
    let call = fake_chatgpt::FunctionCall { name: "weather".into(), arguments: json!({}), ..Default::default() };
    let answer = fake_chatgpt::Answer { text_tokens: 0, function_calls: vec![call], ..Default::default() };
    upstream.fake.script(&upstream.accounts[0], [Script::Answer(answer)]);
    let (_, first) = ask(&gateway, Some(&mine), &json!({"model": "gpt-5.5", "input": "weather?"})).await;
    let call = &first["output"][0];
    assert_eq!(call["type"], "function_call", "{first}");

    let asked_before = upstream.responses().len();
    let second = json!({"model": "gpt-5.5", "input": [
        {"type": "message", "role": "user", "content": "weather?"},
        {"type": "item_reference", "id": call["id"]},
        {"type": "function_call_output", "call_id": call["call_id"], "output": "sunny"}]});
    let (status, refused) = ask(&gateway, Some(&other), &second).await;
    assert_eq!((status, &refused["error"]["param"]), (400, &json!("input[1]")));
    assert!(refused["error"]["message"].as_str().unwrap().contains(call["id"].as_str().unwrap()));
    let by_response = json!({"model": "gpt-5.5", "input": "and", "previous_response_id": first["id"]});
    let (status, refused) = ask(&gateway, Some(&other), &by_response).await;
    assert_eq!((status, &refused["error"]["code"]), (400, &json!("previous_response_not_found")));
    assert_eq!(upstream.responses().len(), asked_before);

    let (status, answer) = ask(&gateway, Some(&mine), &second).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(sent_input(&upstream)[1], *call);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_remembered_of_a_client_that_stores_nothing_or_when_it_is_off() {
    for (bytes_max, store) in [("256MiB", false), ("0", true)] {
        let upstream = Upstream::start(1).await;
        let mut setup = Setup::new(&upstream);
        setup.set("CODEX_LB_REPLAY__BYTES_MAX", bytes_max);
        let gateway = setup.serve().await;
        let (_, first) = ask(&gateway, None, &json!({"model": "gpt-5.5", "input": "hi", "store": store})).await;
        let second = json!({"model": "gpt-5.5", "input": "and", "previous_response_id": first["id"]});
        let (status, refused) = ask(&gateway, None, &second).await;
        assert_eq!((status, &refused["error"]["code"]), (400, &json!("previous_response_not_found")));
    }
}
