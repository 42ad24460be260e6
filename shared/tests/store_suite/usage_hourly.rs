//! `usage_hourly`: sums by hour and by whom, in which unknown is told apart from zero.

use codex_lb_shared::domain::exchange_record::{ExchangeRecord, ExchangeStatus};
use codex_lb_shared::domain::usage::MeteredUsage;
use codex_lb_shared::ids::{AccountId, ApiKeyId};
use codex_lb_shared::store::{UsageOf, UsageTotals};

use crate::samples::{USAGE, at, exchange};

const HOUR: i64 = 3_600_000;

/// What so many exchanges of [`exchange`] sum up to.
fn totals(requests: i64) -> UsageTotals {
    UsageTotals {
        requests,
        error_requests: 0,
        input_tokens: requests * 100,
        cached_input_tokens: requests * 40,
        output_tokens: requests * 20,
        reasoning_tokens: requests * 5,
        cost_micros: requests * 6_200,
        unpriced_requests: 0,
    }
}

fn sums<T>(of: Option<T>, requests: i64) -> UsageOf<T> {
    UsageOf { of, totals: totals(requests) }
}

both_databases! {
    async fn nothing_sums_up_to_zero(db: Database) {
        assert_eq!(db.store.usage_totals(at(0), at(HOUR)).await.unwrap(), UsageTotals::default());
        assert_eq!(db.store.usage_by_account(at(0), at(HOUR)).await.unwrap(), []);
    }

    async fn an_exchange_without_a_model_is_a_request_and_nothing_else(db: Database) {
        let record = ExchangeRecord {
            status: ExchangeStatus::Rejected,
            usage: MeteredUsage::None,
            cost_micros: None,
            model: None,
            ..exchange(1)
        };
        db.store.record_exchanges(&[record]).await.unwrap();
        let expected = UsageTotals { requests: 1, ..UsageTotals::default() };
        assert_eq!(db.store.usage_totals(at(0), at(HOUR)).await.unwrap(), expected);
    }

    async fn a_cost_that_is_not_known_is_counted_and_not_zero(db: Database) {
        let unpriced = ExchangeRecord { cost_micros: None, ..exchange(1) };
        let cut = ExchangeRecord { usage: MeteredUsage::AtLeast(USAGE), cost_micros: None, ..exchange(2) };
        db.store.record_exchanges(&[unpriced, cut, exchange(3)]).await.unwrap();
        let expected = UsageTotals { cost_micros: 6_200, unpriced_requests: 2, ..totals(3) };
        assert_eq!(db.store.usage_totals(at(0), at(HOUR)).await.unwrap(), expected);
    }

    async fn only_errors_count_as_errors(db: Database) {
        let records = [ExchangeStatus::Ok, ExchangeStatus::Error, ExchangeStatus::Cancelled, ExchangeStatus::Rejected]
            .map(|status| ExchangeRecord { status, ..exchange(1) });
        db.store.record_exchanges(&records).await.unwrap();
        let expected = UsageTotals { error_requests: 1, ..totals(4) };
        assert_eq!(db.store.usage_totals(at(0), at(HOUR)).await.unwrap(), expected);
    }

    async fn an_hour_belongs_to_a_span_that_begins_within_it(db: Database) {
        let records = [0, HOUR - 1, HOUR, 3 * HOUR].map(exchange);
        db.store.record_exchanges(&records).await.unwrap();
        let spans = [
            (0, HOUR, 2),
            (HOUR - 1, HOUR, 2),
            (HOUR, 2 * HOUR, 1),
            (0, HOUR + 1, 3),
            (2 * HOUR, 3 * HOUR, 0),
            (0, i64::MAX, 4),
            (HOUR, 0, 0),
        ];
        for (from, to, requests) in spans {
            let sums = db.store.usage_totals(at(from), at(to)).await.unwrap();
            assert_eq!(sums, totals(requests), "{from}..{to}");
        }
    }

    async fn sums_are_told_by_account_by_key_and_by_model(db: Database) {
        let (account, key) = (AccountId::from_u128(1), ApiKeyId::from_u128(2));
        let records = [
            ExchangeRecord { account_id: Some(account), api_key_id: Some(key), ..exchange(1) },
            ExchangeRecord { account_id: Some(account), tier: Some("priority".to_owned()), ..exchange(2 * HOUR) },
            ExchangeRecord { model: Some("gpt-5.4".to_owned()), ..exchange(3) },
            ExchangeRecord { model: None, ..exchange(4) },
        ];
        db.store.record_exchanges(&records).await.unwrap();
        let (from, to) = (at(0), at(5 * HOUR));
        let by_account = db.store.usage_by_account(from, to).await.unwrap();
        assert_eq!(by_account, [sums(None, 2), sums(Some(account), 2)]);
        let by_api_key = db.store.usage_by_api_key(from, to).await.unwrap();
        assert_eq!(by_api_key, [sums(None, 3), sums(Some(key), 1)]);
        let by_model = db.store.usage_by_model(from, to).await.unwrap();
        assert_eq!(by_model, [sums(None, 1), sums(Some("gpt-5.4".to_owned()), 1), sums(Some("gpt-5.5".to_owned()), 2)]);

        let shown = serde_json::to_value(&by_model[1]).unwrap();
        assert_eq!((&shown["of"], &shown["inputTokens"]), (&"gpt-5.4".into(), &100.into()));
    }
}
