//! Who may come in: every endpoint of the API, for everybody who must not and for those who may.

use codex_lb_admin::access::{Entrance, REQUEST_HEADER};
use codex_lb_admin::router::api_endpoints;
use codex_lb_shared::hop::{HOP_HEADER, HopSecret};
use http::{Method, StatusCode};

use crate::support::{Answer, Call, Plane};

/// A call of every endpoint, from this machine, on things that exist.
async fn every_call(plane: &Plane) -> Vec<Call> {
    let (account_id, _) = plane.import_account("plus").await;
    let made = plane.post("/api/v1/api-keys", serde_json::json!({"name": "ci"})).await.ok();
    let key_id = made["apiKey"]["id"].as_str().unwrap().to_owned();
    let egress = serde_json::json!({"name": "one", "kind": "http", "host": "127.0.0.1", "port": 1});
    let made = plane.post("/api/v1/egress-proxies", egress).await.ok();
    let egress_id = made["id"].as_str().unwrap().to_owned();
    let endpoints = api_endpoints();
    assert!(endpoints.len() > 15);
    let calls = endpoints.into_iter().map(|(method, path)| {
        let id = match path {
            path if path.contains("/accounts/") => account_id.to_string(),
            path if path.contains("/egress-proxies/") => egress_id.clone(),
            _ => key_id.clone(),
        };
        Call::here(method, &path.replace("{id}", &id).replace("{group}", "routing"))
    });
    calls.collect()
}

/// What the walk must leave as it was.
async fn everything(plane: &Plane) -> String {
    let paths = ["/api/v1/accounts", "/api/v1/api-keys", "/api/v1/egress-proxies", "/api/v1/settings"];
    let mut all = String::new();
    for path in paths {
        all += &plane.get(path).await.text;
    }
    all
}

/// Sends every endpoint's call, made worse by `spoil`, and expects this refusal each time and no effect at all.
async fn all_refused(status: StatusCode, code: &str, only_mutations: bool, spoil: impl Fn(&Plane, Call) -> Call) {
    let plane = Plane::new().await;
    let calls = every_call(&plane).await;
    let before = everything(&plane).await;
    for call in calls.into_iter().filter(|call| !only_mutations || call.is_mutation()) {
        plane.send(spoil(&plane, call)).await.refused(status, code);
    }
    assert_eq!(everything(&plane).await, before);
}

const ACCESS_CODES: [&str; 4] = ["local_only", "foreign_origin", "request_header_missing", "hop_header_refused"];

fn is_let_in(answer: &Answer) -> bool {
    let body = answer.json();
    !ACCESS_CODES.contains(&body["error"]["code"].as_str().unwrap_or_default())
        && answer.status != StatusCode::NOT_FOUND
}

#[tokio::test]
async fn who_sits_at_this_machine_may_call_every_endpoint() {
    let plane = Plane::new().await;
    let mut calls = every_call(&plane).await;
    // What is deleted cannot be called any more.
    calls.sort_by_key(|call| call.method() == Method::DELETE);
    let own_page = |call: Call| call.header("origin", "http://localhost:2456").header("sec-fetch-site", "same-origin");
    for call in calls {
        let is_last = call.method() == Method::DELETE;
        let ways = [
            call.clone(),
            call.clone().from("::1").header("host", "[::1]:2456"),
            call.clone().header("host", "127.0.0.1"),
            own_page(call.clone()),
            call.through_hop(&plane.signed("127.0.0.1", false)),
        ];
        for way in ways.into_iter().take(if is_last { 1 } else { 5 }) {
            let answer = plane.send(way).await;
            assert!(is_let_in(&answer), "{answer:?}");
        }
    }
}

#[tokio::test]
async fn a_remote_peer_is_refused_everywhere() {
    for ip in ["203.0.113.9", "192.168.0.5", "172.17.0.1", "fd00::1", "::ffff:203.0.113.9"] {
        all_refused(StatusCode::FORBIDDEN, "local_only", false, |_, call| call.from(ip)).await;
    }
}

#[tokio::test]
async fn a_remote_peer_of_the_data_plane_is_refused_everywhere() {
    let through = |plane: &Plane, call: Call| call.through_hop(&plane.signed("203.0.113.9", false));
    all_refused(StatusCode::FORBIDDEN, "local_only", false, through).await;
    let forwarded = |plane: &Plane, call: Call| call.through_hop(&plane.signed("127.0.0.1", true));
    all_refused(StatusCode::FORBIDDEN, "local_only", false, forwarded).await;
}

#[tokio::test]
async fn somebody_in_between_is_refused_everywhere() {
    for name in ["forwarded", "x-forwarded-for", "x-forwarded-proto", "x-real-ip", "via"] {
        all_refused(StatusCode::FORBIDDEN, "local_only", false, |_, call| call.header(name, "x")).await;
    }
}

#[tokio::test]
async fn a_foreign_host_is_refused_everywhere() {
    for host in ["evil.example:2456", "localhost.evil.example", "192.168.0.5:2456"] {
        all_refused(StatusCode::FORBIDDEN, "local_only", false, |_, call| call.header("host", host)).await;
    }
    all_refused(StatusCode::FORBIDDEN, "local_only", false, |_, call| call.without("host")).await;
}

#[tokio::test]
async fn a_page_of_another_origin_changes_nothing() {
    for origin in ["http://evil.example", "null", "http://localhost:3000", "http://127.0.0.1:2456"] {
        all_refused(StatusCode::FORBIDDEN, "foreign_origin", true, |_, call| call.header("origin", origin)).await;
    }
    for site in ["cross-site", "same-site"] {
        all_refused(StatusCode::FORBIDDEN, "foreign_origin", true, |_, call| call.header("sec-fetch-site", site)).await;
    }
    // What a form of another page could send, had its browser sent neither of the two.
    let plain = |_: &Plane, call: Call| call.without(REQUEST_HEADER).header("content-type", "text/plain");
    all_refused(StatusCode::FORBIDDEN, "request_header_missing", true, plain).await;
    all_refused(StatusCode::FORBIDDEN, "request_header_missing", true, |_, call| call.header(REQUEST_HEADER, "")).await;
}

#[tokio::test]
async fn the_header_of_the_hop_is_refused_over_tcp_whoever_sends_it() {
    let signed = |plane: &Plane, call: Call| {
        let signed = plane.signed("127.0.0.1", false);
        call.header(HOP_HEADER, &signed)
    };
    all_refused(StatusCode::BAD_REQUEST, "hop_header_refused", false, signed).await;
    all_refused(StatusCode::BAD_REQUEST, "hop_header_refused", false, |_, call| call.header(HOP_HEADER, "")).await;
}

#[tokio::test]
async fn over_the_hop_only_what_this_process_signed_is_believed() {
    all_refused(StatusCode::BAD_REQUEST, "hop_header_refused", false, |_, call| call.by(Entrance::Hop)).await;
    let forged = |plane: &Plane, call: Call| {
        let signed = plane.signed("203.0.113.9", false);
        call.through_hop(&signed.replace("203.0.113.9", "127.0.0.1"))
    };
    all_refused(StatusCode::BAD_REQUEST, "hop_header_refused", false, forged).await;
    let elsewhere = HopSecret::generate();
    let peer = codex_lb_shared::hop::HopPeer { ip: "127.0.0.1".parse().unwrap(), is_tls: false, was_forwarded: false };
    let foreign = |_: &Plane, call: Call| call.through_hop(&elsewhere.sign(peer));
    all_refused(StatusCode::BAD_REQUEST, "hop_header_refused", false, foreign).await;
}

#[tokio::test]
async fn the_refusal_says_how_to_get_in() {
    let plane = Plane::new().await;
    let answer = plane.send(Call::here(Method::GET, "/api/v1/accounts").from("203.0.113.9")).await;
    let body = answer.refused(StatusCode::FORBIDDEN, "local_only");
    let message = body["error"]["message"].as_str().unwrap();
    assert!(message.contains("ssh -L") && message.contains("http://localhost:"), "{message}");
}
