//! Thousands of exchanges while most accounts fail in every way that upstream is known for. No client sees a failure
//! that a healthy account could have served, everything is recorded once and truly, and nothing is held afterwards.
//!
//! `CODEX_LB_FAULT_EXCHANGES` says how many exchanges, `CODEX_LB_FAULT_SEED` repeats a run.

mod deck;
mod dice;
mod laws;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use codex_lb_shared::domain::settings::RoutingSettings;
use codex_lb_shared::domain::usage::TokenUsage;
use codex_lb_shared::store::{LoggedExchange, PageRequest, SettingsGroup};
use fake_chatgpt::{FakeChatGpt, RefreshScript, RequestRecord};
use futures_util::StreamExt as _;
use serde_json::{Value, json};

use self::dice::Dice;
use self::laws::{End, Seen, judge};
use crate::leases;
use crate::support::{Gateway, Setup, Upstream, eventually, native_body};

const ACCOUNTS: usize = 8;
/// The first accounts never fail, and are too slow to serve everybody.
const HEALTHY: usize = 2;
const CAP: u32 = 8;
const CLIENTS: u64 = 64;
const EXCHANGES: u64 = 1_000;
/// Far above what an answer takes, far below what anybody wants to wait.
const TIME_OUT: &str = "1500ms";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_client_sees_a_failure_that_a_healthy_account_could_have_served() {
    run(false, exchanges()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_holds_over_http_2() {
    run(true, exchanges() / 4).await;
}

fn exchanges() -> u64 {
    std::env::var("CODEX_LB_FAULT_EXCHANGES").map_or(EXCHANGES, |count| count.parse().unwrap())
}

fn seed() -> u64 {
    let fresh = || u64::try_from(codex_lb_shared::clock::now().as_unix_ms()).unwrap();
    std::env::var("CODEX_LB_FAULT_SEED").map_or_else(|_| fresh(), |seed| seed.parse().unwrap())
}

async fn run(is_http2: bool, count: u64) {
    let seed = seed();
    eprintln!("CODEX_LB_FAULT_SEED={seed} CODEX_LB_FAULT_EXCHANGES={count}, HTTP/2: {is_http2}");
    let fake = FakeChatGpt::builder().tls(is_http2).http2(is_http2).records_max(10 * count as usize);
    let upstream = Upstream::with(fake.start().await.unwrap(), ACCOUNTS);
    let mut setup = Setup::new(&upstream);
    setup.set("CODEX_LB_UPSTREAM__FIRST_BYTE_TIMEOUT", TIME_OUT).set("CODEX_LB_UPSTREAM__IDLE_TIMEOUT", TIME_OUT);
    let routing = RoutingSettings { account_concurrency_cap: CAP, ..RoutingSettings::default() };
    setup.save(SettingsGroup::Routing, &routing).await;
    let gateway = setup.serve().await;
    let kinds = script(&upstream, seed, count);

    let began = std::time::Instant::now();
    let next = AtomicU64::new(0);
    let clients = (0..CLIENTS).map(async |_| {
        let mut seen = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= count {
                return seen;
            }
            seen.push(exchange(&gateway, index, Dice::new(seed, index)).await);
        }
    });
    let clients = futures_util::future::join_all(clients);
    let seen: Vec<Seen> = tokio::select! {
        seen = clients => seen.into_iter().flatten().collect(),
        never = trouble(&gateway, &upstream, Dice::new(seed, u64::MAX)) => never,
    };
    let took = began.elapsed();

    leases::nothing_runs(&gateway).await;
    let rows = all_rows(&gateway, count).await;
    let legs = legs_by_exchange(&upstream);
    let courses = check_each(&seen, &rows, &legs, is_http2);
    check_sums(&gateway, &upstream, &seen, &rows, &legs).await;
    eprintln!("{courses:?} in {took:.1?}; legs: {}", legs.values().map(Vec::len).sum::<usize>());
    let met: HashSet<String> =
        legs.values().flatten().filter_map(|leg| leg.script.as_deref()).map(deck::kind).collect();
    let never_met: Vec<_> = kinds.difference(&met).collect();
    assert!(count < EXCHANGES || never_met.is_empty(), "never met: {never_met:?}");
    leases::all_slots_are_free(&gateway, &upstream, CAP as usize).await;
}

/// Tells every account what it answers, as often as it may be asked. Returns the kinds of behaviour.
fn script(upstream: &Upstream, seed: u64, count: u64) -> HashSet<String> {
    let mut kinds = HashSet::new();
    for (number, account) in upstream.accounts.iter().enumerate() {
        let mut dice = Dice::new(seed, u64::MAX - 1 - number as u64);
        if number < HEALTHY {
            upstream.fake.script(account, (0..count).map(|_| deck::slow_answer(&mut dice)));
            continue;
        }
        let mut left = usize::try_from(count).unwrap();
        while left > 0 {
            let deck = deck::deck(&mut dice);
            left = left.saturating_sub(deck.len());
            kinds.extend(deck.iter().map(deck::kind));
            upstream.fake.script(account, deck);
        }
        let refreshes = (0..count).map(|_| match dice.below(5) {
            0 => RefreshScript::ServerError,
            1 => RefreshScript::AccessTokenOnly,
            _ => RefreshScript::Rotate,
        });
        upstream.fake.script_refresh(account, refreshes);
    }
    kinds
}

/// Ends access tokens now and then, and lets every account serve again soon after it was taken out: a run is shorter
/// than what accounts sit out.
async fn trouble<T>(gateway: &Gateway, upstream: &Upstream, mut dice: Dice) -> T {
    let mut tick = tokio::time::interval(Duration::from_millis(250));
    loop {
        tick.tick().await;
        leases::resume_accounts(gateway).await;
        if dice.percent(30) {
            let failing = HEALTHY as u64 + dice.below((ACCOUNTS - HEALTHY) as u64);
            upstream.fake.revoke_access_token(&upstream.accounts[usize::try_from(failing).unwrap()]);
        }
    }
}

/// One exchange as its client sees it.
async fn exchange(gateway: &Gateway, index: u64, mut dice: Dice) -> Seen {
    let prompt = format!("exchange {index} of many {}", "padding ".repeat(dice.below(200) as usize));
    let is_native = dice.percent(50);
    let is_stream = is_native || dice.percent(50);
    let leaves = is_stream && dice.percent(3);
    let request = if is_native {
        gateway.post("/backend-api/codex/responses", &native_body(&prompt))
    } else {
        gateway.post("/v1/responses", &json!({"model": "gpt-5.5", "input": prompt, "stream": is_stream}))
    };
    let request = match dice.percent(30) {
        true => request.header("session-id", format!("conversation-{}", dice.below(40))),
        false => request,
    };
    let response = match request.send().await {
        Ok(response) => response,
        Err(error) => {
            let end = End::Broken(format!("{error:?}"));
            return Seen { id: String::new(), is_stream, status: 0, end, deltas: 0 };
        }
    };
    let status = response.status().as_u16();
    let id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
    let mut text = String::new();
    let mut chunks = response.bytes_stream();
    let mut end = None;
    while let Some(chunk) = chunks.next().await {
        match chunk {
            Ok(bytes) => text.push_str(&String::from_utf8_lossy(&bytes)),
            Err(error) => end = Some(End::Broken(format!("{error:?} behind {text}"))),
        }
        if leaves && text.contains("output_text.delta") {
            end = Some(End::Left);
            break;
        }
    }
    let end = end.unwrap_or_else(|| {
        if is_stream && status == 200 { end_of_stream(&text) } else { end_of_object(status, &text) }
    });
    Seen { id, is_stream, status, end, deltas: text.matches("event: response.output_text.delta").count() as u64 }
}

fn end_of_stream(text: &str) -> End {
    let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
    let events: Result<Vec<Value>, _> = data.map(serde_json::from_str).collect();
    let Ok(events) = events else { return End::Broken(text.to_owned()) };
    let kinds: Vec<&str> = events.iter().filter_map(|event| event["type"].as_str()).collect();
    let has_begun = kinds.iter().any(|kind| {
        !matches!(*kind, "response.created" | "response.in_progress" | "response.failed" | "error" | "keepalive")
    });
    match kinds.last() {
        Some(&("response.completed" | "response.incomplete")) => End::Whole,
        Some(&("response.failed" | "error")) if has_begun => End::FailedInside,
        Some(&("response.failed" | "error")) => End::FailedAtOnce,
        Some(_) | None => End::Broken(format!("a silent end: {text}")),
    }
}

fn end_of_object(status: u16, text: &str) -> End {
    let Ok(body) = serde_json::from_str::<Value>(text) else { return End::Broken(text.to_owned()) };
    match status {
        200 if body["object"] == "response" => End::Whole,
        400.. if body["error"]["message"].is_string() || body["detail"].is_string() => End::FailedAtOnce,
        _ => End::Broken(text.to_owned()),
    }
}

/// Every row of the request log, by its id, once there are as many as exchanges. One more would be one too many.
async fn all_rows(gateway: &Gateway, count: u64) -> HashMap<String, LoggedExchange> {
    eventually("all exchanges are recorded", async || {
        (gateway.totals().await.requests >= i64::try_from(count).unwrap()).then_some(())
    })
    .await;
    let mut rows = Vec::new();
    loop {
        let before = rows.last().map(|row: &LoggedExchange| (row.requested_at, row.id));
        let page = PageRequest { before, limit: 200, ..PageRequest::default() };
        let page = gateway.store.recent_exchanges(&page).await.unwrap();
        if page.is_empty() {
            break;
        }
        rows.extend(page);
    }
    let recorded = rows.len() as u64;
    let rows: HashMap<_, _> = rows.into_iter().map(|row| (row.id.to_string(), row)).collect();
    assert_eq!((recorded, rows.len() as u64), (count, count), "every exchange is recorded once");
    rows
}

/// What reached upstream for each exchange, in order.
fn legs_by_exchange(upstream: &Upstream) -> HashMap<String, Vec<RequestRecord>> {
    let mut legs: HashMap<String, Vec<RequestRecord>> = HashMap::new();
    for record in upstream.responses() {
        let id = record.header("x-request-id").unwrap().to_owned();
        legs.entry(id).or_default().push(record);
    }
    legs
}

fn check_each(
    seen: &[Seen],
    rows: &HashMap<String, LoggedExchange>,
    legs: &HashMap<String, Vec<RequestRecord>>,
    is_http2: bool,
) -> BTreeMap<String, u32> {
    let mut courses: BTreeMap<String, u32> = BTreeMap::new();
    for seen in seen {
        let legs = legs.get(&seen.id).map_or(&[][..], Vec::as_slice);
        let row = rows.get(&seen.id).unwrap_or_else(|| panic!("an exchange is not recorded: {seen:#?}"));
        match judge(seen, legs, row, is_http2) {
            Ok(course) => *courses.entry(format!("{course:?}")).or_default() += 1,
            Err(why) => {
                let legs: Vec<_> =
                    legs.iter().map(|leg| (&leg.account, &leg.script, leg.status, leg.outcome)).collect();
                panic!("{why}: {seen:#?}\nlegs: {legs:#?}\nrecorded: {row:#?}");
            }
        }
    }
    courses
}

/// Per account, what the log says is what the fake reported.
async fn check_sums(
    gateway: &Gateway,
    upstream: &Upstream,
    seen: &[Seen],
    rows: &HashMap<String, LoggedExchange>,
    legs: &HashMap<String, Vec<RequestRecord>>,
) {
    let stored = gateway.store.list_accounts().await.unwrap();
    // Upstream cannot know whether somebody who left still read its last event.
    let stayed: Vec<&Seen> = seen.iter().filter(|seen| seen.end != End::Left).collect();
    for account in &upstream.accounts {
        let is_it = |id| {
            stored.iter().any(|stored| {
                stored.account.id == id && stored.account.identity.chatgpt_account_id == account.chatgpt_account_id()
            })
        };
        let recorded = stayed
            .iter()
            .map(|seen| &rows[&seen.id])
            .filter(|row| !row.is_estimated && row.account_id.is_some_and(is_it));
        let recorded = recorded.filter_map(|row| row.usage).fold(TokenUsage::default(), TokenUsage::plus);
        let own_legs = stayed.iter().flat_map(|seen| legs.get(&seen.id).into_iter().flatten());
        let own_legs = own_legs.filter(|leg| leg.account.as_deref() == Some(account.name()));
        let reported = own_legs.filter_map(RequestRecord::usage).map(laws::token_usage);
        let reported = reported.fold(TokenUsage::default(), TokenUsage::plus);
        assert_eq!(recorded, reported, "{}", account.name());
        assert!(reported.output > 0, "{} took no part", account.name());
    }
}
