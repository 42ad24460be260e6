//! The endpoints beside plain Responses: what upstream is asked, what the client gets, and what is recorded.

use serde_json::{Value, json};

use crate::support::{Gateway, Setup, Upstream};

/// Every endpoint of this page and the methods it has.
const ENDPOINTS: [(&str, &str); 23] = [
    ("/v1/images/generations", "POST"),
    ("/v1/images/edits", "POST"),
    ("/backend-api/codex/images/generations", "POST"),
    ("/backend-api/codex/images/edits", "POST"),
    ("/v1/responses/compact", "POST"),
    ("/backend-api/codex/responses/compact", "POST"),
    ("/backend-api/files", "POST"),
    ("/backend-api/files/file_1/uploaded", "POST"),
    ("/backend-api/transcribe", "POST"),
    ("/v1/audio/transcriptions", "POST"),
    ("/backend-api/codex/thread/goal/get", "GET, POST"),
    ("/backend-api/codex/thread/goal/set", "POST"),
    ("/backend-api/codex/thread/goal/clear", "POST"),
    ("/backend-api/codex/memories/trace_summarize", "POST"),
    ("/backend-api/codex/safety/arc", "POST"),
    ("/backend-api/codex/alpha/search", "POST"),
    ("/backend-api/codex/agent-identities/jwks", "GET"),
    ("/backend-api/codex/analytics-events/events", "POST"),
    ("/api/codex/usage", "GET"),
    ("/backend-api/wham/usage", "GET"),
    ("/backend-api/wham/accounts/check", "GET"),
    ("/backend-api/wham/config/bundle", "GET"),
    ("/backend-api/wham/settings/user", "GET"),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_endpoint_names_its_methods_and_asks_who_calls() {
    let upstream = Upstream::start(1).await;
    let setup = Setup::new(&upstream);
    setup.require_keys().await;
    let gateway = setup.serve().await;
    for (path, allow) in ENDPOINTS {
        let url = format!("{}{path}", gateway.proxy_url);
        let wrong = gateway.http.delete(&url).send().await.unwrap();
        assert_eq!((wrong.status().as_u16(), wrong.headers()["allow"].to_str().unwrap()), (405, allow), "{path}");
        assert!(wrong.json::<Value>().await.unwrap()["error"]["message"].is_string(), "{path}");
        for method in allow.split(", ") {
            let request = gateway.http.request(method.parse().unwrap(), &url);
            let stranger = request.send().await.unwrap();
            assert_eq!(stranger.status(), 401, "{method} {path}");
            assert_eq!(stranger.json::<Value>().await.unwrap()["error"]["code"], "invalid_api_key", "{method} {path}");
        }
    }
    assert_eq!(upstream.fake.requests().iter().filter(|record| record.head.method != "GET").count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_endpoint_keeps_the_keyless_rule() {
    let upstream = Upstream::start(1).await;
    let gateway = Gateway::before(&upstream).await;
    for (path, allow) in ENDPOINTS {
        for method in allow.split(", ") {
            let request = gateway.http.request(method.parse().unwrap(), format!("{}{path}", gateway.proxy_url));
            let page = request.header("origin", "https://evil.example.com").send().await.unwrap();
            assert_eq!(page.status(), 401, "{method} {path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_client_s_compaction_is_one_object_and_is_counted() {
    let upstream = Upstream::start(1).await;
    let gateway = Gateway::before(&upstream).await;
    let user = json!({"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]});
    let body = json!({"model": "gpt-5.5", "instructions": "be brief", "input": [user, {"type": "message",
        "role": "assistant", "content": [{"type": "output_text", "text": "hello"}]}]});
    for path in ["/backend-api/codex/responses/compact", "/v1/responses/compact"] {
        let response = gateway.post(path, &body).send().await.unwrap();
        assert_eq!(
            (response.status().as_u16(), &response.headers()["content-type"]),
            (200, &"application/json".parse().unwrap())
        );
        let answer: Value = response.json().await.unwrap();
        assert_eq!(answer["object"], "response.compaction", "{path}");
        let output = answer["output"].as_array().unwrap();
        assert_eq!((output.len(), &output[0]), (2, &user), "{path}");
        assert_eq!(output[1]["type"], "compaction");
        assert!(output[1]["encrypted_content"].is_string() && answer["usage"]["output_tokens"].is_u64());
    }
    let sent: Vec<_> = upstream.responses();
    assert_eq!(sent.len(), 2);
    for record in sent {
        let body = record.json();
        assert_eq!(body["input"].as_array().unwrap().last().unwrap(), &json!({"type": "compaction_trigger"}));
        assert_eq!((&body["stream"], &body["store"]), (&json!(true), &json!(false)));
    }
    let rows = gateway.exchanges(2).await;
    let mut routes: Vec<_> = rows.iter().map(|row| row.route.as_str()).collect();
    routes.sort_unstable();
    assert_eq!(routes, ["codex_compact", "compact"]);
    assert!(rows.iter().all(|row| row.status.as_str() == "ok" && row.usage.is_some() && row.cost_micros.is_some()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_no_compaction_is_told_as_a_failure() {
    let upstream = Upstream::start(1).await;
    let gateway = Gateway::before(&upstream).await;
    let text = concat!(
        "data: {\"type\":\"response.output_item.done\",\"item\":{\"type\":\"message\",\"content\":[]}}\n\n",
        "data: {\"type\":\"response.completed\",\"response\":{\"id\":\"r\",\"output\":[]}}\n\n",
    );
    let script = fake_chatgpt::Script::Raw { status: 200, headers: Vec::new(), body: text.to_owned() };
    upstream.fake.script(&upstream.accounts[0], [script]);
    let response =
        gateway.post("/v1/responses/compact", &json!({"model": "gpt-5.5", "input": "hi"})).send().await.unwrap();
    assert_eq!(response.status(), 502);
    assert_eq!(response.json::<Value>().await.unwrap()["error"]["code"], "compaction_failed");
    let row = gateway.exchanges(1).await.remove(0);
    assert_eq!((row.status.as_str(), row.error_code.as_deref()), ("error", Some("compaction_failed")));
}

#[tokio::test(flavor = "multi_thread")]
async fn control_paths_go_through_as_they_come_and_are_recorded() {
    let upstream = Upstream::start(2).await;
    let gateway = Gateway::before(&upstream).await;
    let body = "{ \"threadId\":\"t-1\", \"x\" : [1.50] }";
    let others = ["images", "compact", "analytics"];
    let control =
        |path: &str| path.starts_with("/backend-api/codex/") && !others.iter().any(|other| path.contains(other));
    for (path, allow) in ENDPOINTS.into_iter().filter(|(path, _)| control(path)) {
        for method in allow.split(", ") {
            upstream.fake.clear();
            let url = format!("{}{path}?threadId=t-1&n=%2F", gateway.proxy_url);
            let request = gateway.http.request(method.parse().unwrap(), url).header("accept", "application/x-a");
            let request = if method == "GET" { request } else { request.header("content-type", "x/y").body(body) };
            let response = request.header("cookie", "canary=1").send().await.unwrap();
            assert_eq!(response.status(), 200, "{method} {path}");
            assert!(response.headers().get("set-cookie").is_none());
            let answer: Value = response.json().await.unwrap();
            assert_eq!((answer["path"].as_str(), answer["query"].as_str()), (Some(path), Some("threadId=t-1&n=%2F")));
            let sent = upstream.fake.requests().into_iter().find(|record| record.head.path == path).unwrap();
            assert_eq!(sent.head.method, method);
            assert_eq!((sent.header("accept"), sent.header("cookie")), (Some("application/x-a"), None));
            if method == "POST" {
                assert_eq!((sent.header("content-type"), &*sent.body), (Some("x/y"), body.as_bytes()));
            }
        }
    }
    let rows = gateway.exchanges(8).await;
    assert!(rows.iter().all(|row| row.status.as_str() == "ok" && row.usage.is_none()));
    for route in ["thread_goal_get", "thread_goal_set", "safety_arc", "alpha_search", "agent_identities_jwks"] {
        assert!(rows.iter().any(|row| row.route == route), "{route}");
    }
    let metrics = gateway.http.get(format!("{}/metrics", gateway.metrics_url)).send().await.unwrap();
    let metrics = metrics.text().await.unwrap();
    assert!(
        metrics.contains("codex_lb_exchanges_total{route=\"memories_trace_summarize\",status=\"ok\"} 1"),
        "{metrics}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_raw_answer_comes_back_byte_for_byte_with_its_type_and_status() {
    for is_http2 in [false, true] {
        let upstream = if is_http2 { Upstream::start_http2(1).await } else { Upstream::start(1).await };
        let gateway = Gateway::before(&upstream).await;
        let path = "/backend-api/codex/agent-identities/jwks";
        let raw = |status, body: &str| fake_chatgpt::Script::Raw {
            status,
            headers: vec![("content-type".into(), "application/jwk-set+json".into()), ("x-secret".into(), "1".into())],
            body: body.to_owned(),
        };
        upstream
            .fake
            .script_path(path, [raw(202, "{ \"keys\" : [] }\n"), raw(404, "{\"detail\":\"no\"}"), raw(204, "")]);
        let url = format!("{}{path}", gateway.proxy_url);
        let good = gateway.http.get(&url).send().await.unwrap();
        assert_eq!(good.status(), 202);
        assert_eq!(good.headers()["content-type"], "application/jwk-set+json");
        assert!(good.headers().get("x-secret").is_none() && good.headers().contains_key("x-request-id"));
        assert_eq!(good.text().await.unwrap(), "{ \"keys\" : [] }\n");
        let missing = gateway.http.get(&url).send().await.unwrap();
        assert_eq!((missing.status().as_u16(), missing.text().await.unwrap()), (404, "{\"detail\":\"no\"}".to_owned()));
        assert_eq!(gateway.http.get(&url).send().await.unwrap().status(), 204);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_goal_is_asked_for_where_its_thread_lives() {
    let upstream = Upstream::start(4).await;
    let gateway = Gateway::before(&upstream).await;
    let turn =
        gateway.post("/backend-api/codex/responses", &crate::support::native_body("hi")).header("thread-id", "t-7");
    assert_eq!(turn.send().await.unwrap().status(), 200);
    for _ in 0..4 {
        let set = gateway.post("/backend-api/codex/thread/goal/set", &json!({"threadId": "t-7"}));
        assert_eq!(set.send().await.unwrap().status(), 200);
        let get = gateway.http.get(format!("{}/backend-api/codex/thread/goal/get?threadId=t-7", gateway.proxy_url));
        assert_eq!(get.send().await.unwrap().status(), 200);
    }
    let requests =
        upstream.fake.requests().into_iter().filter(|record| record.head.path.starts_with("/backend-api/codex/"));
    let used = requests.filter(|record| !record.head.path.ends_with("/models"));
    let accounts: std::collections::HashSet<_> = used.map(|record| record.account).collect();
    assert_eq!(accounts.len(), 1, "{accounts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_of_other_endpoints_have_a_smaller_bound_and_unlisted_paths_do_not_exist() {
    let upstream = Upstream::start(1).await;
    let mut setup = Setup::new(&upstream);
    setup.set("CODEX_LB_INTAKE__OTHER_BODY_BYTES_MAX", "64KiB");
    let gateway = setup.serve().await;
    let big = json!({"x": "y".repeat(70 * 1024)});
    for path in ["/backend-api/codex/alpha/search", "/backend-api/files"] {
        assert_eq!(gateway.post(path, &big).send().await.unwrap().status(), 413, "{path}");
    }
    for path in ["/backend-api/codex/realtime/calls", "/backend-api/codex/alpha/searches", "/backend-api/wham/tasks"] {
        assert_eq!(gateway.post(path, &json!({})).send().await.unwrap().status(), 404, "{path}");
    }
    assert_eq!(upstream.fake.requests().iter().filter(|record| record.head.method == "POST").count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_codex_asks_of_chatgpt_is_answered_here_and_recorded() {
    let upstream = Upstream::start(1).await;
    let gateway = Gateway::before(&upstream).await;
    let get = async |path: &str, account: Option<&str>| {
        let request = gateway.http.get(format!("{}{path}", gateway.proxy_url));
        let request = account.into_iter().fold(request, |request, id| request.header("chatgpt-account-id", id));
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200, "{path}");
        response.json::<Value>().await.unwrap()
    };
    let own = get("/backend-api/wham/accounts/check", Some("acc-of-the-client")).await;
    assert_eq!(
        (&own["default_account_id"], &own["account_ordering"]),
        (&json!("acc-of-the-client"), &json!(["acc-of-the-client"]))
    );
    let account = &own["accounts"][0];
    assert_eq!((&account["id"], &account["plan_type"]), (&json!("acc-of-the-client"), &json!("plus")));
    assert_eq!(account["workspace_backend_origin"], "NO_CONSTRAINT");
    assert_eq!(account["account_routing_override"], "NO_CONSTRAINT");
    let synthetic = get("/backend-api/wham/accounts/check", None).await;
    assert_eq!(synthetic["accounts"][0]["id"], synthetic["default_account_id"]);
    assert!(!synthetic.to_string().contains(upstream.accounts[0].chatgpt_account_id()));
    assert_eq!(get("/backend-api/wham/config/bundle", None).await, json!({}));
    assert_eq!(get("/backend-api/wham/settings/user", None).await, json!({}));
    for path in ["/backend-api/ps/plugins/installed?limit=200", "/backend-api/ps/plugins/suggested/codex"] {
        let missing = gateway.http.get(format!("{}{path}", gateway.proxy_url)).send().await.unwrap();
        assert_eq!(missing.status(), 404, "{path}");
    }
    let events = "/backend-api/codex/analytics-events/events";
    let swallowed = gateway.post(events, &json!({"events": [{"x": "y".repeat(100_000)}]})).send().await.unwrap();
    assert_eq!((swallowed.status().as_u16(), swallowed.json::<Value>().await.unwrap()), (200, json!({})));
    let flood = gateway.post(events, &json!({"x": "y".repeat(2 << 20)})).send().await.unwrap();
    assert_eq!(flood.status(), 413);

    assert!(upstream.fake.requests().iter().all(|record| record.head.path.ends_with("/models")), "upstream was asked");
    let rows = gateway.exchanges(6).await;
    let count = |route: &str, status: &str| {
        rows.iter().filter(|row| row.route == route && row.status.as_str() == status).count()
    };
    assert_eq!((count("accounts_check", "ok"), count("config_bundle", "ok"), count("user_settings", "ok")), (2, 1, 1));
    assert_eq!((count("analytics_events", "ok"), count("analytics_events", "rejected")), (1, 1));
    assert!(rows.iter().all(|row| row.account_id.is_none() && row.usage.is_none()));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_caller_s_thread_is_unknown() {
    let upstream = Upstream::start(1).await;
    let setup = Setup::new(&upstream);
    let keys = [setup.key("one"), setup.key("two")];
    setup.require_keys().await;
    let gateway = setup.serve().await;
    let ask = async |key: &str, call: &str, thread: &str| {
        let path = format!("/backend-api/codex/thread/goal/{call}");
        let request = gateway.post(&path, &json!({ "threadId": thread })).bearer_auth(key);
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.json::<Value>().await.unwrap()["error"]["code"].clone())
    };
    assert_eq!(ask(&keys[0], "set", "t-1").await.0, 200);
    for call in ["get", "set", "clear"] {
        assert_eq!(ask(&keys[1], call, "t-1").await, (404, json!("thread_not_found")), "{call}");
        let query = format!("{}/backend-api/codex/thread/goal/get?threadId=t-1", gateway.proxy_url);
        assert_eq!(gateway.http.get(query).bearer_auth(&keys[1]).send().await.unwrap().status(), 404);
    }
    assert_eq!((ask(&keys[0], "get", "t-1").await.0, ask(&keys[1], "set", "t-2").await.0), (200, 200));
    let goals = upstream.fake.requests().into_iter().filter(|record| record.head.path.contains("goal")).count();
    assert_eq!(goals, 3, "upstream was asked about another caller's thread");
}
