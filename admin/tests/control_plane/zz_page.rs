//! Temporary: serves the page for a look at it.
use crate::support::{Plane, add_fake_account};
use codex_lb_admin::serve;
use codex_lb_shared::clock::{self, Timestamp};
use codex_lb_shared::domain::account::{AccountState, AccountStatus};
use codex_lb_shared::domain::upstream_window::{AccountUsage, UpstreamWindow};
use codex_lb_shared::ids::ApiKeyId;
use std::sync::Arc;

#[tokio::test(flavor = "multi_thread")]
async fn page() {
    let plane = Plane::new().await;
    let listening = serve(Arc::clone(&plane.state)).await.unwrap();
    let fresh = add_fake_account(&plane.fake, "pro");
    std::fs::write("/tmp/page/auth.json", fresh.auth_json().to_string()).unwrap();
    std::fs::write("/tmp/page/address", listening.address.to_string()).unwrap();
    let mut filled = false;
    for _ in 0..1600 {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        if !filled && std::fs::exists("/tmp/page/fill").unwrap() {
            filled = true;
            for plan in ["plus", "team", "free"] {
                plane.import_account(plan).await;
            }
            let pool = plane.state.pool.snapshot();
            let now = clock::now();
            let at = |s: i64| Some(Timestamp::from_unix_ms(now.as_unix_ms() + s * 1000));
            for (i, p) in pool.accounts.iter().enumerate() {
                let w = |u, m, r| Some(UpstreamWindow { used_percent: u, window_minutes: m, resets_at: at(r) });
                let primary = if i == 3 { None } else { w(20.0 + 30.0 * i as f64, 300, 5000) };
                plane.state.pool.observe_usage(
                    p,
                    AccountUsage {
                        primary,
                        secondary: w(97.0 - 40.0 * i as f64 / 2.0, 10080, 300_000),
                        observed_at: now,
                    },
                );
            }
            plane.state.pool.apply_status(
                &pool.accounts[1],
                AccountStatus {
                    state: AccountState::RateLimited,
                    reason: Some("upstream limits its rate".into()),
                    until: at(3000),
                },
            );
            let key = plane.post("/api/v1/api-keys", serde_json::json!({"name": "<b>ci</b> bot"})).await.ok();
            let id: ApiKeyId = key["apiKey"]["id"].as_str().unwrap().parse().unwrap();
            let mut records = Vec::new();
            for i in 0..12 {
                let mut r = crate::usage::exchange(i * 7);
                r.account_id = Some(pool.accounts[(i % 3) as usize].account.id);
                if i % 2 == 0 {
                    r.api_key_id = Some(id);
                }
                if i == 3 {
                    r.status = codex_lb_shared::domain::exchange_record::ExchangeStatus::Error;
                    r.error_code = Some("server_error".into());
                }
                records.push(r);
            }
            plane.state.store.record_exchanges(&records).await.unwrap();
        }
        if std::fs::exists("/tmp/page/stop").unwrap() {
            break;
        }
    }
    listening.stop().await;
}
