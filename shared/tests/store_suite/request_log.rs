//! `request_log`: every exchange is recorded once, whoever records it how often, and read back page by page.

use std::collections::HashSet;

use codex_lb_shared::domain::exchange_record::{ExchangeRecord, ExchangeStatus};
use codex_lb_shared::domain::usage::{MeteredUsage, TokenUsage};
use codex_lb_shared::ids::{AccountId, ApiKeyId, ExchangeId};
use codex_lb_shared::store::{LoggedExchange, PAGE_ROWS_MAX, PageRequest, Store};

use crate::databases::Database;
use crate::samples::{USAGE, at, exchange};

/// An exchange with every field filled.
fn full_exchange() -> ExchangeRecord {
    ExchangeRecord {
        account_id: Some(AccountId::generate()),
        api_key_id: Some(ApiKeyId::generate()),
        status: ExchangeStatus::Error,
        error_code: Some("server_error".to_owned()),
        upstream_status: Some(503),
        legs: 3,
        model_requested: Some("gpt-5.5-high".to_owned()),
        effort: Some("high".to_owned()),
        tier: Some("priority".to_owned()),
        usage: MeteredUsage::AtLeast(USAGE),
        conversation_id: Some("conversation \"1\" \\ ü".to_owned()),
        ..exchange(1_000)
    }
}

/// An exchange that no model saw.
fn refused_exchange(requested_at: i64) -> ExchangeRecord {
    ExchangeRecord {
        status: ExchangeStatus::Rejected,
        upstream_status: None,
        legs: 0,
        model_requested: None,
        model: None,
        usage: MeteredUsage::None,
        cost_micros: None,
        first_byte_ms: None,
        first_token_ms: None,
        ..exchange(requested_at)
    }
}

fn as_logged(record: &ExchangeRecord) -> LoggedExchange {
    let record = record.clone();
    LoggedExchange {
        id: record.id,
        requested_at: record.requested_at,
        account_id: record.account_id,
        api_key_id: record.api_key_id,
        route: record.route.to_owned(),
        transport: record.transport.to_owned(),
        status: record.status,
        error_code: record.error_code,
        upstream_status: record.upstream_status,
        legs: record.legs,
        model_requested: record.model_requested,
        model: record.model,
        effort: record.effort,
        tier: record.tier,
        usage: record.usage.tokens(),
        is_estimated: record.usage.is_estimated(),
        cost_micros: record.cost_micros,
        first_byte_ms: record.first_byte_ms,
        first_token_ms: record.first_token_ms,
        total_ms: record.total_ms,
        user_agent_group: record.user_agent_group.to_owned(),
        conversation_id: record.conversation_id,
    }
}

async fn logged(store: &Store, page: PageRequest) -> Vec<LoggedExchange> {
    store.recent_exchanges(&page).await.unwrap()
}

/// Whether the sums over the log equal the hourly sums, key by key.
async fn assert_sums_equal_the_log(db: &Database) {
    const LOG: &str = "\
        select cast(requested_at - requested_at % 3600000 as text) || '|' || coalesce(account_id, '') || '|' || \
            coalesce(api_key_id, '') || '|' || coalesce(model, '') || '|' || coalesce(tier, '') || '|' || status || \
            '|' || cast(count(*) as text) || '|' || cast(coalesce(sum(input_tokens), 0) as text) || '|' || \
            cast(coalesce(sum(output_tokens), 0) as text) || '|' || cast(coalesce(sum(cost_micros), 0) as text) \
        from request_log group by requested_at - requested_at % 3600000, account_id, api_key_id, model, tier, status";
    const SUMS: &str = "\
        select cast(hour_at as text) || '|' || account_id || '|' || api_key_id || '|' || model || '|' || tier || '|' || \
            status || '|' || cast(requests as text) || '|' || cast(input_tokens as text) || '|' || \
            cast(output_tokens as text) || '|' || cast(cost_micros as text) \
        from usage_hourly";
    let (mut of_log, mut of_sums) = (db.texts(LOG, LOG).await, db.texts(SUMS, SUMS).await);
    of_log.sort();
    of_sums.sort();
    assert_eq!(of_log, of_sums);
}

both_databases! {
    async fn an_exchange_reads_back_as_it_was_recorded(db: Database) {
        let records = [full_exchange(), exchange(900), refused_exchange(800)];
        db.store.record_exchanges(&records).await.unwrap();
        let expected: Vec<_> = records.iter().map(as_logged).collect();
        assert_eq!(logged(&db.store, PageRequest::default()).await, expected);
        assert_eq!(expected[2].usage, None);
        assert!(expected[0].is_estimated && !expected[1].is_estimated);
    }

    async fn recording_the_same_batch_again_changes_nothing(db: Database) {
        let records = [full_exchange(), exchange(1), exchange(2), refused_exchange(3)];
        db.store.record_exchanges(&records).await.unwrap();
        let before = db.store.usage_totals(at(0), at(10_000)).await.unwrap();
        // The replay after a crash: everything again, with one that is new and one that comes twice.
        let new = exchange(4);
        let replay = [&records[..], &[new.clone(), new]].concat();
        for _ in 0..2 {
            db.store.record_exchanges(&replay).await.unwrap();
        }
        let after = db.store.usage_totals(at(0), at(10_000)).await.unwrap();
        assert_eq!(after.requests, before.requests + 1);
        assert_eq!(after.input_tokens, before.input_tokens + 100);
        assert_eq!(logged(&db.store, PageRequest::default()).await.len(), 5);
        assert_sums_equal_the_log(&db).await;
        db.store.record_exchanges(&[]).await.unwrap();
    }

    async fn what_is_recorded_twice_with_different_words_keeps_the_first(db: Database) {
        let first = exchange(1);
        let second = ExchangeRecord { usage: MeteredUsage::None, total_ms: 9, ..first.clone() };
        db.store.record_exchanges(&[first.clone(), second.clone()]).await.unwrap();
        db.store.record_exchanges(&[second]).await.unwrap();
        assert_eq!(logged(&db.store, PageRequest::default()).await, [as_logged(&first)]);
        assert_sums_equal_the_log(&db).await;
    }

    async fn overlapping_batches_of_several_processes_count_every_exchange_once(db: Database) {
        let (accounts, keys) = ([AccountId::generate(), AccountId::generate()], [ApiKeyId::generate()]);
        let models = ["gpt-5.5", "gpt-5.4", ""];
        let records: Vec<_> = (0..240)
            .map(|index| ExchangeRecord {
                account_id: accounts.get(index % 3).copied(),
                api_key_id: keys.get(index % 2).copied(),
                model: Some(models[index % 3].to_owned()).filter(|model| !model.is_empty()),
                status: if index % 7 == 0 { ExchangeStatus::Error } else { ExchangeStatus::Ok },
                ..exchange(i64::try_from(index).unwrap() * 100_000)
            })
            .collect();
        // Each of four writers has half of the records, in an order of its own.
        let writers: Vec<_> = (0..4_usize)
            .map(|writer| {
                let url = db.url.clone();
                let mut ours: Vec<_> = records.iter().cycle().skip(writer * 60).take(120).cloned().collect();
                if writer % 2 == 1 {
                    ours.reverse();
                }
                tokio::spawn(async move {
                    let store = Store::connect(&url).await.unwrap();
                    for batch in ours.chunks(30) {
                        store.record_exchanges(batch).await.unwrap();
                    }
                })
            })
            .collect();
        for writer in writers {
            writer.await.unwrap();
        }
        let totals = db.store.usage_totals(at(0), at(i64::MAX)).await.unwrap();
        assert_eq!((totals.requests, totals.input_tokens, totals.cost_micros), (240, 24_000, 240 * 6_200));
        assert_sums_equal_the_log(&db).await;
    }

    async fn a_batch_of_five_hundred_is_recorded_in_one_go(db: Database) {
        let records: Vec<_> = (0..500).map(exchange).collect();
        let started = std::time::Instant::now();
        db.store.record_exchanges(&records).await.unwrap();
        // Typically 20 ms; the bound only catches a change of kind, such as a round trip per row.
        assert!(started.elapsed().as_secs() < 3, "took {:?}", started.elapsed());
        assert_eq!(db.store.usage_totals(at(0), at(1_000)).await.unwrap().requests, 500);
    }

    async fn texts_and_counts_beyond_all_bounds_do_not_spoil_the_batch(db: Database) {
        let endless = "ä\0".repeat(10_000);
        let record = ExchangeRecord {
            error_code: Some(endless.clone()),
            model_requested: Some(endless.clone()),
            model: Some(endless.clone()),
            effort: Some(endless.clone()),
            tier: Some(endless.clone()),
            conversation_id: Some(endless),
            usage: MeteredUsage::Exact(TokenUsage { input: u64::MAX, cached_input: 1, output: u64::MAX, reasoning: 2 }),
            cost_micros: Some(i64::MAX),
            ..exchange(1)
        };
        let again = ExchangeRecord { id: ExchangeId::generate(), ..record.clone() };
        db.store.record_exchanges(&[record, again, exchange(2)]).await.unwrap();
        let rows = logged(&db.store, PageRequest::default()).await;
        assert_eq!(rows.len(), 3);
        let cut = "ä".repeat(128);
        for text in [&rows[1].error_code, &rows[1].model, &rows[1].model_requested, &rows[1].conversation_id] {
            assert_eq!(text.as_deref(), Some(cut.as_str()));
        }
        assert!(db.store.usage_totals(at(0), at(10)).await.unwrap().input_tokens > 0);
        assert_sums_equal_the_log(&db).await;
    }

    async fn pages_miss_nothing_and_repeat_nothing_where_many_arrived_at_once(db: Database) {
        let mut records: Vec<_> = (0..25).map(|index| exchange([5, 5, 5, 6, 7][index % 5])).collect();
        db.store.record_exchanges(&records).await.unwrap();
        let mut seen = Vec::new();
        let mut before = None;
        loop {
            let page = logged(&db.store, PageRequest { before, limit: 4, ..PageRequest::default() }).await;
            let Some(last) = page.last() else { break };
            before = Some((last.requested_at, last.id));
            assert!(page.len() == 4 || seen.len() + page.len() == records.len());
            seen.extend(page.iter().map(|row| row.id));
            // What arrives meanwhile belongs to no later page.
            db.store.record_exchanges(&[exchange(8)]).await.unwrap();
        }
        records.sort_by_key(|record| (record.requested_at, record.id));
        let expected: Vec<_> = records.iter().rev().map(|record| record.id).collect();
        assert_eq!(seen, expected);
    }

    async fn a_page_holds_at_least_one_row_and_no_more_than_its_bound(db: Database) {
        let records: Vec<_> = (0..250).map(exchange).collect();
        db.store.record_exchanges(&records).await.unwrap();
        for (limit, rows) in [(0, 1), (1, 1), (PAGE_ROWS_MAX, 200), (u32::MAX, 200)] {
            assert_eq!(logged(&db.store, PageRequest { limit, ..PageRequest::default() }).await.len(), rows);
        }
    }

    async fn filters_narrow_a_page_alone_and_together(db: Database) {
        let (account, key) = (AccountId::generate(), ApiKeyId::generate());
        let mut records = Vec::new();
        for bits in 0..16 {
            records.push(ExchangeRecord {
                account_id: Some(if bits & 1 == 0 { AccountId::generate() } else { account }),
                api_key_id: (bits & 2 != 0).then_some(key),
                model: Some(if bits & 4 == 0 { "gpt-5.4" } else { "gpt-5.5" }.to_owned()),
                status: if bits & 8 == 0 { ExchangeStatus::Ok } else { ExchangeStatus::Cancelled },
                ..exchange(i64::from(bits))
            });
        }
        db.store.record_exchanges(&records).await.unwrap();
        for wanted in 0..16 {
            let page = PageRequest {
                account_id: (wanted & 1 != 0).then_some(account),
                api_key_id: (wanted & 2 != 0).then_some(key),
                model: (wanted & 4 != 0).then(|| "gpt-5.5".to_owned()),
                status: (wanted & 8 != 0).then_some(ExchangeStatus::Cancelled),
                ..PageRequest::default()
            };
            let found: HashSet<_> = logged(&db.store, page).await.iter().map(|row| row.requested_at).collect();
            let expected: HashSet<_> = (0..16).filter(|bits| bits & wanted == wanted).map(at).collect();
            assert_eq!(found, expected, "filter {wanted:04b}");
        }
    }

    async fn a_logged_exchange_is_shown_in_camel_case(db: Database) {
        db.store.record_exchanges(&[full_exchange()]).await.unwrap();
        let shown = serde_json::to_value(&logged(&db.store, PageRequest::default()).await[0]).unwrap();
        assert_eq!(shown["requestedAt"], 1_000);
        assert_eq!(shown["usage"], serde_json::json!({"input": 100, "cachedInput": 40, "output": 20, "reasoning": 5}));
        assert_eq!(shown["isEstimated"], true);
        assert_eq!(shown["status"], "error");
        assert_eq!(shown.as_object().unwrap().len(), 22);
    }
}
