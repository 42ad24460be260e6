//! Many exchanges at once.

use fake_chatgpt::{Answer, Script, Totals};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

use crate::support::{Database, Setup, Upstream, eventually, native_body};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn usage_of_a_thousand_concurrent_streams_equals_what_upstream_reported() {
    rlimit::increase_nofile_limit(u64::MAX).unwrap();
    for database in [Database::Sqlite, Database::Postgres] {
        let upstream = Upstream::start(4).await;
        for account in &upstream.accounts {
            let answer = Answer { text_tokens: 20, tokens_per_second: Some(10.0), ..Answer::default() };
            upstream.fake.default_script(account, Script::Answer(answer));
        }
        let gateway = Setup::on(&upstream, database).serve().await;
        let mut streams: FuturesUnordered<_> = (0..1_000)
            .map(|index| {
                let request = gateway.post("/backend-api/codex/responses", &native_body(&format!("stream {index}")));
                async move { request.send().await.unwrap().text().await.unwrap() }
            })
            .collect();
        while let Some(text) = streams.next().await {
            assert!(text.contains("event: response.completed"), "{text}");
        }
        let totals = eventually("all exchanges are recorded", async || {
            let totals = gateway.totals().await;
            (totals.requests >= 1_000).then_some(totals)
        })
        .await;
        let reported: Vec<_> = upstream.accounts.iter().map(|account| upstream.fake.totals(account)).collect();
        let sum = |tokens: fn(&Totals) -> u64| i64::try_from(reported.iter().map(tokens).sum::<u64>()).unwrap();
        assert_eq!(totals.requests, 1_000);
        assert_eq!(totals.input_tokens, sum(|totals| totals.input), "{database:?}");
        assert_eq!(totals.cached_input_tokens, sum(|totals| totals.cached), "{database:?}");
        assert_eq!(totals.output_tokens, sum(|totals| totals.output), "{database:?}");
        assert_eq!(totals.reasoning_tokens, sum(|totals| totals.reasoning), "{database:?}");
        assert!(reported.iter().all(|totals| totals.completed > 0), "every account took part: {reported:?}");
    }
}
