//! Looks whether anything is still held when nothing runs any more: exchanges and slots of accounts.

use bytes::Bytes;
use fake_chatgpt::{Answer, Script};
use futures_util::stream::{BoxStream, StreamExt as _};

use crate::support::{Gateway, PATIENCE, Upstream, eventually, native_body};

const PATH: &str = "/backend-api/codex/responses";
/// A busy machine may be too slow for the time-outs of a test's gateway; what leaked stays away for ever.
const TRIES: u32 = 4;

/// Waits until the gateway says that no exchange runs.
pub(crate) async fn nothing_runs(gateway: &Gateway) {
    let is_idle = async || (metric(gateway, "codex_lb_in_flight_exchanges").await == 0.0).then_some(());
    eventually("no exchange runs", is_idle).await;
}

/// Proves that every slot of every account is free, by filling them all at once.
pub(crate) async fn all_slots_are_free(gateway: &Gateway, upstream: &Upstream, cap: usize) {
    let endless = Answer { text_tokens: 500, tokens_per_second: Some(10.0), ..Answer::default() };
    for account in &upstream.accounts {
        upstream.fake.reset_scripts(account);
        upstream.fake.default_script(account, Script::Answer(endless.clone()));
    }
    let mut filled = Vec::new();
    for _ in 0..TRIES {
        nothing_runs(gateway).await;
        resume_accounts(gateway).await;
        filled = fill_slots(gateway, upstream, cap).await;
        if filled == vec![cap; upstream.accounts.len()] {
            nothing_runs(gateway).await;
            return;
        }
    }
    panic!("of {cap} slots per account, so many could be filled: {filled:?}");
}

/// Starts as many streams as there are slots. None ends in time, so once all have begun all run at once, and whoever
/// finds a slot taken waits. Returns how many run on each account then.
async fn fill_slots(gateway: &Gateway, upstream: &Upstream, cap: usize) -> Vec<usize> {
    upstream.fake.clear();
    let streams = (0..cap * upstream.accounts.len()).map(|index| begin_stream(gateway, index));
    let all = tokio::time::timeout(PATIENCE / 2, futures_util::future::join_all(streams)).await;
    let running: Vec<_> = upstream.responses().into_iter().filter(|record| !record.is_over()).collect();
    drop(all);
    let of = |name: &str| running.iter().filter(|record| record.account.as_deref() == Some(name)).count();
    upstream.accounts.iter().map(|account| of(account.name())).collect()
}

/// A stream that has brought its first token, if it did.
async fn begin_stream(gateway: &Gateway, index: usize) -> Option<BoxStream<'static, reqwest::Result<Bytes>>> {
    let response = gateway.post(PATH, &native_body(&format!("slot {index}"))).send().await.unwrap();
    let mut stream = response.bytes_stream().boxed();
    let mut text = String::new();
    while !text.contains("output_text.delta") {
        text.push_str(&String::from_utf8_lossy(&stream.next().await?.ok()?));
    }
    Some(stream)
}

/// Lets every account serve again, whatever took it out.
pub(crate) async fn resume_accounts(gateway: &Gateway) {
    for stored in gateway.store.list_accounts().await.unwrap() {
        let url = format!("{}/api/v1/accounts/{}/resume", gateway.admin_url, stored.account.id);
        let resumed = gateway.http.post(url).header("x-codex-lb-request", "1").send().await.unwrap();
        assert_eq!(resumed.status(), 200);
    }
}

/// One metric without labels.
pub(crate) async fn metric(gateway: &Gateway, name: &str) -> f64 {
    let text = gateway.http.get(format!("{}/metrics", gateway.metrics_url)).send().await.unwrap().text().await.unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{name} is not in\n{text}")).parse().unwrap()
}
