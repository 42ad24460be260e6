//! What one caller owns means nothing in another's mouth: its ids are answered like ids that never were, and they do not
//! decide where the other's requests go.

use std::collections::HashSet;

use fake_chatgpt::RequestRecord;
use serde_json::{Value, json};

use crate::support::{Gateway, Setup, Upstream, native_body};

const NATIVE: &str = "/backend-api/codex/responses";
const GOALS: &str = "/backend-api/codex/thread/goal";
const ACCOUNTS: usize = 6;
/// Conversations by which an influence of one caller on the other would show: by chance, both choose alike once in six.
const CONVERSATIONS: usize = 48;

/// A gateway that knows two callers by their keys.
async fn two_callers() -> (Upstream, Gateway, [String; 2]) {
    let upstream = Upstream::start(ACCOUNTS).await;
    let setup = Setup::new(&upstream);
    let keys = [setup.key("one"), setup.key("two")];
    setup.require_keys().await;
    (upstream, setup.serve().await, keys)
}

/// The account that served the newest request.
fn newest(upstream: &Upstream) -> String {
    upstream.responses().pop().and_then(|record| record.account).unwrap()
}

/// Where each caller's requests go that name a conversation in the same way: the first one's account, then the second's.
async fn places(
    upstream: &Upstream,
    gateway: &Gateway,
    keys: &[String; 2],
    name: impl Fn(usize, reqwest::RequestBuilder) -> reqwest::RequestBuilder,
    path: &str,
    body: impl Fn(usize) -> Value,
) -> Vec<[String; 2]> {
    let mut places = Vec::new();
    for number in 0..CONVERSATIONS {
        let mut place = Vec::new();
        for key in keys {
            let request = name(number, gateway.post(path, &body(number)).bearer_auth(key));
            assert_eq!(request.send().await.unwrap().status(), 200);
            place.push(newest(upstream));
        }
        places.push([place[0].clone(), place[1].clone()]);
    }
    places
}

/// The second caller is not drawn to where the first one is.
fn are_independent(places: &[[String; 2]], what: &str) {
    let alike = places.iter().filter(|[one, two]| one == two).count();
    assert!(alike * 2 < places.len(), "{what}: {alike} of {} conversations are at the same account", places.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_s_name_is_its_caller_s_own() {
    let (upstream, gateway, keys) = two_callers().await;
    for header in
        ["thread-id", "session_id", "session-id", "x-codex-session-id", "conversation_id", "x-session-affinity"]
    {
        let name =
            |number: usize, request: reqwest::RequestBuilder| request.header(header, format!("{header} {number}"));
        let places = places(&upstream, &gateway, &keys, name, NATIVE, |_| native_body("hi")).await;
        are_independent(&places, header);
        // Whatever the other did in between, each stays where it was.
        for (number, place) in places.iter().enumerate().take(6) {
            for (key, account) in keys.iter().zip(place) {
                let request = name(number, gateway.post(NATIVE, &native_body("and on")).bearer_auth(key));
                assert_eq!(request.send().await.unwrap().status(), 200);
                assert_eq!(&newest(&upstream), account, "{header} {number}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_prompts_and_equal_cache_keys_of_two_callers_are_two_conversations() {
    let (upstream, gateway, keys) = two_callers().await;
    let as_it_is = |_: usize, request: reqwest::RequestBuilder| request;
    let derived = |number: usize| json!({"model": "gpt-5.5", "input": format!("the same question {number}")});
    are_independent(&places(&upstream, &gateway, &keys, as_it_is, "/v1/responses", derived).await, "derived keys");
    let given = |number: usize| {
        let mut body = native_body("hi");
        body["prompt_cache_key"] = json!(format!("cache {number}"));
        body
    };
    are_independent(&places(&upstream, &gateway, &keys, as_it_is, NATIVE, given).await, "given keys");
    // What upstream caches by a derived key is not shared either.
    let sent: HashSet<_> = upstream
        .responses()
        .iter()
        .filter(|record| record.json()["input"][0]["content"][0]["text"] == "the same question 1")
        .map(|record| record.json()["prompt_cache_key"].to_string())
        .collect();
    assert_eq!(sent.len(), 2, "{sent:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_state_in_another_s_hands_leads_nowhere() {
    let (upstream, gateway, keys) = two_callers().await;
    let mut places = Vec::new();
    for number in 0..CONVERSATIONS {
        let begun =
            gateway.post(NATIVE, &native_body("hi")).bearer_auth(&keys[0]).header("thread-id", format!("t{number}"));
        let begun = begun.send().await.unwrap();
        let (turn_state, own) = (begun.headers()["x-codex-turn-state"].clone(), newest(&upstream));
        begun.text().await.unwrap();
        let stolen = gateway.post(NATIVE, &native_body("hi")).bearer_auth(&keys[1]);
        let stolen = stolen.header("x-codex-turn-state", turn_state.clone()).send().await.unwrap();
        assert_eq!(stolen.status(), 200, "as with a turn state that never was");
        places.push([own.clone(), newest(&upstream)]);
        let again = gateway.post(NATIVE, &native_body("hi")).bearer_auth(&keys[0]);
        assert_eq!(again.header("x-codex-turn-state", turn_state).send().await.unwrap().status(), 200);
        assert_eq!(newest(&upstream), own, "its owner is still where it was");
    }
    are_independent(&places, "turn states");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_s_thread_goal_is_as_unknown_as_one_that_never_was() {
    let (upstream, gateway, keys) = two_callers().await;
    let set = async |key: &String, thread: &str| {
        let body = json!({"threadId": thread, "objective": "mine"});
        let answer = gateway.post(&format!("{GOALS}/set"), &body).bearer_auth(key).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap().replace(thread, "ID"))
    };
    let ask = async |key: &String, verb: &str, thread: &str| {
        let answer = gateway.post(&format!("{GOALS}/{verb}"), &json!({"threadId": thread})).bearer_auth(key);
        let answer = answer.send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap().replace(thread, "ID"))
    };
    assert_eq!(set(&keys[0], "thread-of-one").await.0, 200);
    let before = upstream.fake.requests().len();
    for verb in ["get", "clear"] {
        let (status, text) = ask(&keys[1], verb, "thread-of-one").await;
        assert_eq!(status, 404, "{verb}: {text}");
    }
    assert_eq!(set(&keys[1], "thread-of-one").await.0, 404);
    assert_eq!(upstream.fake.requests().len(), before, "upstream was asked");
    assert_eq!(ask(&keys[0], "get", "thread-of-one").await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_without_keys_are_told_apart_by_where_they_call_from() {
    let upstream = Upstream::start(ACCOUNTS).await;
    let mut setup = Setup::new(&upstream);
    // So that a test on one machine can call from two addresses.
    setup.set("CODEX_LB_PROXY__TRUSTED_PROXIES", "127.0.0.1/32");
    let gateway = setup.serve().await;
    let from = |peer: &str, request: reqwest::RequestBuilder| request.header("x-forwarded-for", peer.to_owned());
    let peers = ["10.0.0.1", "10.0.0.2"];

    let mut places = Vec::new();
    for number in 0..CONVERSATIONS {
        let mut place = Vec::new();
        for peer in peers {
            let request = gateway.post(NATIVE, &native_body("hi")).header("session-id", format!("s{number}"));
            assert_eq!(from(peer, request).send().await.unwrap().status(), 200);
            place.push(newest(&upstream));
        }
        places.push([place[0].clone(), place[1].clone()]);
    }
    are_independent(&places, "keyless peers");

    let new_file = json!({"file_name": "a.txt", "file_size": 3, "use_case": "codex"});
    let made = from(peers[0], gateway.post("/backend-api/files", &new_file)).send().await.unwrap();
    let made: Value = made.json().await.unwrap();
    let finish = async |peer: &str, id: &str| {
        let request = gateway.post(&format!("/backend-api/files/{id}/uploaded"), &json!({}));
        let answer = from(peer, request).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap().replace(id, "ID"))
    };
    let file_id = made["file_id"].as_str().unwrap();
    assert_eq!(finish(peers[1], file_id).await, finish(peers[1], "file_neverwas").await);
    assert_eq!(finish(peers[1], file_id).await.0, 404);
    assert_eq!(finish(peers[0], file_id).await.0, 200);
    let uploads = |record: &RequestRecord| record.head.path.ends_with("/uploaded");
    assert_eq!(upstream.fake.requests().iter().filter(|record| uploads(record)).count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_of_answers_and_items_are_their_owner_s_to_refer_to() {
    let (upstream, gateway, keys) = two_callers().await;
    let asked = json!({"model": "gpt-5.5", "input": "hi"});
    let answer = gateway.post("/v1/responses", &asked).bearer_auth(&keys[0]).send().await.unwrap();
    let answer: Value = answer.json().await.unwrap();
    let (id, item) = (answer["id"].as_str().unwrap(), answer["output"][0]["id"].as_str().unwrap());
    let before = upstream.responses().len();
    let refer = async |key: &String, id: &str, item: &str| {
        let mut told = Vec::new();
        for body in [
            json!({"model": "gpt-5.5", "input": "and on", "previous_response_id": id}),
            json!({"model": "gpt-5.5", "input": [{"type": "item_reference", "id": item}]}),
        ] {
            let answer = gateway.post("/v1/responses", &body).bearer_auth(key).send().await.unwrap();
            let status = answer.status().as_u16();
            told.push((status, answer.text().await.unwrap().replace(id, "ID").replace(item, "ID")));
        }
        told
    };
    let stolen = refer(&keys[1], id, item).await;
    assert_eq!(stolen, refer(&keys[1], "resp_neverwas", "msg_neverwas").await);
    assert!(stolen.iter().all(|(status, _)| (400..500).contains(status)), "{stolen:?}");
    assert_eq!(upstream.responses().len(), before, "upstream was asked");
    assert!(refer(&keys[0], id, item).await.iter().all(|(status, _)| *status == 200), "they are their owner's");
}
