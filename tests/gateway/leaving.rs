//! Clients that leave or stall, at every stage of an exchange: the leg ends within a second, the exchange is recorded once
//! as what it was, and neither a slot nor a descriptor stays behind.

use std::time::Duration;

use fake_chatgpt::{Answer, RequestRecord, Script, SilencePlace};
use serde_json::Value;

use crate::leases;
use crate::support::{Gateway, Setup, Upstream, eventually, native_body};
use crate::wire::{Wire, post};

const NATIVE: &str = "/backend-api/codex/responses";
/// How soon upstream must know that nobody reads any more.
const CANCEL_MAX: Duration = Duration::from_secs(1);
const CAP: u32 = 2;

async fn start(settings: &[(&str, &str)]) -> (Upstream, Gateway) {
    let upstream = Upstream::start(2).await;
    let mut setup = Setup::new(&upstream);
    for (name, value) in settings {
        setup.set(name, value);
    }
    setup.cap_accounts(CAP).await;
    let gateway = setup.serve().await;
    (upstream, gateway)
}

fn request() -> String {
    post(NATIVE, "", &native_body("hi").to_string())
}

fn script(upstream: &Upstream, script: &Script) {
    for account in &upstream.accounts {
        upstream.fake.default_script(account, script.clone());
    }
}

const fn silence(place: SilencePlace) -> Script {
    Script::Silence { place, duration_ms: None }
}

/// The outcomes of all recorded exchanges, once there are as many.
async fn outcomes(gateway: &Gateway, count: usize) -> Vec<(String, Option<String>)> {
    leases::nothing_runs(gateway).await;
    let rows = gateway.exchanges(count).await;
    rows.into_iter().map(|row| (row.status.as_str().to_owned(), row.error_code)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_leaves_while_upstream_works_takes_the_leg_along() {
    let slow = Answer { text_tokens: 500, tokens_per_second: Some(20.0), ..Answer::default() };
    for (stage, behaviour, wait_for) in [
        ("before the head", silence(SilencePlace::BeforeHead), None),
        ("after the head", silence(SilencePlace::AfterHead), None),
        ("after `created`", silence(SilencePlace::AfterEvents(2)), None),
        ("in mid-stream, while it is silent", silence(SilencePlace::AfterEvents(6)), Some("output_text.delta")),
        ("in mid-stream", Script::Answer(slow), Some("output_text.delta")),
    ] {
        let (upstream, gateway) = start(&[]).await;
        script(&upstream, &behaviour);
        for _ in 0..6 {
            let mut wire = Wire::with(&gateway, request()).await;
            let is_running = |record: &RequestRecord| record.is_responses() && !record.is_over();
            let leg = upstream.fake.wait_for(is_running).await.unwrap();
            if let Some(text) = wait_for {
                wire.read_until(text).await;
            }
            drop(wire);
            let is_cancelled = |record: &RequestRecord| record.sequence == leg.sequence && record.is_cancelled();
            let cancelled = upstream.fake.wait_for_within(CANCEL_MAX, is_cancelled).await;
            assert!(cancelled.is_ok(), "{stage}: upstream still works");
        }
        let expected = vec![("cancelled".to_owned(), None); 6];
        assert_eq!(outcomes(&gateway, 6).await, expected, "{stage}");
        leases::all_slots_are_free(&gateway, &upstream, CAP as usize).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_leaves_before_the_request_is_whole_reaches_nobody() {
    let (upstream, gateway) = start(&[]).await;
    let request = request();
    let body_at = request.find("\r\n\r\n").unwrap() + 4;
    for cut in [1, 40, body_at - 2] {
        drop(Wire::with(&gateway, &request[..cut]).await);
    }
    leases::nothing_runs(&gateway).await;
    for cut in [body_at, body_at + 1, request.len() - 1] {
        drop(Wire::with(&gateway, &request[..cut]).await);
    }
    let chunks =
        format!("POST {NATIVE} HTTP/1.1\r\nhost: 127.0.0.1\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{{\"mod\r\n");
    drop(Wire::with(&gateway, chunks).await);
    assert_eq!(outcomes(&gateway, 4).await, vec![("cancelled".to_owned(), None); 4]);
    assert_eq!(upstream.responses().len(), 0);
    leases::all_slots_are_free(&gateway, &upstream, CAP as usize).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_never_sends_the_body_is_told_that_time_is_over() {
    let (upstream, gateway) = start(&[("CODEX_LB_INTAKE__BODY_TIMEOUT", "1s")]).await;
    let request = request();
    let body_at = request.find("\r\n\r\n").unwrap() + 4;
    for cut in [body_at, body_at + 10] {
        let mut wire = Wire::with(&gateway, &request[..cut]).await;
        let answer = wire.answer().await.unwrap();
        assert_eq!(answer.status, 408);
        let body: Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(body["error"]["code"], "request_timeout");
        assert_eq!(wire.answer().await, None);
    }
    assert_eq!(outcomes(&gateway, 2).await, vec![("rejected".to_owned(), Some("request_timeout".to_owned())); 2]);
    assert_eq!(upstream.responses().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_takes_a_byte_now_and_then_does_not_hold_its_slot() {
    let (upstream, gateway) = start(&[("CODEX_LB_PROXY__WRITE_TIMEOUT", "1s")]).await;
    // More than every buffer on the way holds.
    let delta =
        "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\"word\"}\n\n";
    let headers = vec![("content-type".to_owned(), "text/event-stream".to_owned())];
    script(&upstream, &Script::Raw { status: 200, headers, body: delta.repeat(32 * 1024 * 1024 / delta.len()) });
    let mut wire = Wire::with(&gateway, request()).await;
    wire.read_until("output_text.delta").await;
    let crawl = async {
        loop {
            tokio::time::sleep(Duration::from_millis(100)).await;
            wire.read_byte().await;
        }
    };
    tokio::select! {
        () = crawl => {}
        recorded = outcomes(&gateway, 1) => assert_eq!(recorded, [("cancelled".to_owned(), None)]),
    }
    let is_over = |record: &RequestRecord| record.is_responses() && record.is_over();
    assert!(upstream.fake.wait_for_within(CANCEL_MAX, is_over).await.is_ok());
    leases::all_slots_are_free(&gateway, &upstream, CAP as usize).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_descriptor_stays_behind_whoever_left() {
    let (upstream, gateway) = start(&[("CODEX_LB_INTAKE__BODY_TIMEOUT", "1s")]).await;
    let endless = silence(SilencePlace::AfterEvents(6));
    let round = async || {
        script(&upstream, &endless);
        let request = request();
        let body_at = request.find("\r\n\r\n").unwrap() + 4;
        let mut wires = Vec::new();
        for cut in [1, 30, body_at, body_at + 5, request.len() - 1] {
            for _ in 0..8 {
                wires.push(Wire::with(&gateway, &request[..cut]).await);
            }
        }
        for _ in 0..CAP {
            let mut wire = Wire::with(&gateway, &request).await;
            wire.read_until("output_text.delta").await;
            wires.push(wire);
        }
        drop(wires);
        leases::nothing_runs(&gateway).await;
    };
    round().await;
    upstream.fake.drop_connections();
    let before = eventually("the first round is over", async || {
        let first = gateway.open_descriptors();
        tokio::time::sleep(Duration::from_millis(200)).await;
        (gateway.open_descriptors() == first).then_some(first)
    })
    .await;
    for _ in 0..3 {
        round().await;
    }
    upstream.fake.drop_connections();
    eventually("descriptors are given back", async || (gateway.open_descriptors() <= before).then_some(())).await;
}
