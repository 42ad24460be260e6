//! More clients than slots, all at work without a pause: everybody waits a little and equally, and nobody is refused.
//! That who asks little does not wait for who asks much is shown where the clock stands still, beside the queue.
//!
//! `CODEX_LB_WAITING_ROUNDS` says how many streams each client takes. On a machine that is too busy to send two seconds
//! of events in two seconds everything takes longer alike, so the bounds grow with what a stream really took.

use std::time::{Duration, Instant};

use fake_chatgpt::{Answer, Script};
use futures_util::StreamExt as _;

use crate::support::{Gateway, Setup, Upstream, eventually, native_body};

const ACCOUNTS: usize = 4;
const SLOTS_PER_ACCOUNT: u32 = 7;
/// Clients of each api key: four that ask as much as each other, and one that asks little.
const CLIENTS: [usize; 5] = [15, 15, 15, 15, 4];
const ROUNDS: usize = 3;
/// How long a stream takes from its first token to its end.
const STREAM: Duration = Duration::from_millis(1_900);
const MEDIAN_MAX: Duration = Duration::from_secs(3);
const P99_MAX: Duration = Duration::from_secs(5);
/// Below so many rounds one percent are two streams, and those that queue up last while all slots are first filled.
const ROUNDS_OF_P99: usize = 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_clients_on_28_slots_wait_a_little_and_nobody_is_refused() {
    let upstream = Upstream::start(ACCOUNTS).await;
    for account in &upstream.accounts {
        let answer = Answer { text_tokens: 20, tokens_per_second: Some(10.0), ..Answer::default() };
        upstream.fake.default_script(account, Script::Answer(answer));
    }
    let setup = Setup::new(&upstream);
    setup.cap_accounts(SLOTS_PER_ACCOUNT).await;
    let keys: Vec<String> = (0..CLIENTS.len()).map(|number| setup.key(&format!("key {number}"))).collect();
    let gateway = setup.serve().await;
    let rounds = std::env::var("CODEX_LB_WAITING_ROUNDS").map_or(ROUNDS, |rounds| rounds.parse().unwrap());

    let gateway = &gateway;
    let clients = keys.iter().zip(CLIENTS).map(|(key, clients)| {
        let work = (0..clients).map(async |client| {
            let mut waits = Vec::new();
            for round in 0..rounds {
                waits.push(take(gateway, key, &format!("client {client} round {round}")).await);
            }
            waits
        });
        futures_util::future::join_all(work)
    });
    let by_key: Vec<Vec<Taken>> = futures_util::future::join_all(clients)
        .await
        .into_iter()
        .map(|clients| clients.into_iter().flatten().collect())
        .collect();
    let sorted = |mut spans: Vec<Duration>| {
        spans.sort_unstable();
        spans
    };
    let streams = sorted(by_key.iter().flatten().map(|taken| taken.stream).collect());
    let stretch = (percentile(&streams, 90).as_secs_f64() / STREAM.as_secs_f64()).max(1.0);
    let by_key: Vec<Vec<Duration>> =
        by_key.into_iter().map(|taken| sorted(taken.into_iter().map(|taken| taken.wait).collect())).collect();
    let all = sorted(by_key.iter().flatten().copied().collect());
    let medians: Vec<Duration> = by_key.iter().map(|waits| percentile(waits, 50)).collect();
    let tail = if rounds >= ROUNDS_OF_P99 { 99 } else { 95 };
    let (median, p99) = (percentile(&all, 50), percentile(&all, tail));
    eprintln!(
        "{} streams: median wait {median:.2?}, p{tail} {p99:.2?}, medians by key {medians:.2?}, streams took {stretch:.2} \
         times as long as they should",
        all.len()
    );
    let within = |span: Duration, bound: Duration| span <= bound.mul_f64(stretch);
    assert!(
        within(median, MEDIAN_MAX) && within(p99, P99_MAX),
        "median {median:?}, p{tail} {p99:?}, stretch {stretch}"
    );
    let (_, much) = medians.split_last().unwrap();
    let (least, most) = (much.iter().min().unwrap(), much.iter().max().unwrap());
    assert!(within(*most - *least, Duration::from_millis(1_000)), "keys that ask alike wait {medians:?}");
    eventually("each exchange is recorded", async || {
        (gateway.totals().await.requests == i64::try_from(all.len()).unwrap()).then_some(())
    })
    .await;
}

/// A stream that was taken to its end.
struct Taken {
    /// Until its first token.
    wait: Duration,
    /// From there to its end.
    stream: Duration,
}

/// Takes a whole stream.
async fn take(gateway: &Gateway, key: &str, prompt: &str) -> Taken {
    let began = Instant::now();
    let request = gateway.post("/backend-api/codex/responses", &native_body(prompt)).bearer_auth(key);
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 200, "{prompt} was refused");
    let (mut text, mut first) = (String::new(), None);
    let mut stream = response.bytes_stream();
    while let Some(bytes) = stream.next().await {
        text.push_str(&String::from_utf8_lossy(&bytes.unwrap()));
        if first.is_none() && text.contains("output_text.delta") {
            first = Some(began.elapsed());
        }
    }
    assert!(text.contains("event: response.completed"), "{prompt}: {text}");
    let wait = first.unwrap();
    Taken { wait, stream: began.elapsed() - wait }
}

fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)]
}
