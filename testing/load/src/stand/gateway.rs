//! The gateway as people run it: SQLite, its request log and its log line on, and a caller that needs an api key.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use http::{HeaderMap, HeaderValue, Method};
use serde_json::{Value, json};
use tokio::process::Command;

use super::fake::Account;
use crate::http::{call, call_json};
use crate::process::{Process, free_address};
use crate::sibling::sibling_program;

/// The request log and its metrics are written behind the answers.
const AUDIT_MAX: Duration = Duration::from_secs(10);

/// Exchanges that may run on each account at once: more than any workload has.
const ACCOUNT_CAP: u32 = 1_000;

/// The running gateway.
#[derive(Debug)]
pub(super) struct Gateway {
    pub(super) process: Process,
    pub(super) address: SocketAddr,
    /// The secret of the one api key.
    pub(super) api_key: String,
    metrics_address: SocketAddr,
}

impl Gateway {
    /// Starts it, imports the accounts and makes keys obligatory.
    pub(super) async fn start(upstream: SocketAddr, accounts: &[Account], directory: &Path) -> anyhow::Result<Self> {
        let (address, admin_address, metrics_address) = (free_address()?, free_address()?, free_address()?);
        let mut command = Command::new(sibling_program("codex-lb")?);
        let stdout = directory.join("codex-lb.out");
        command.arg("serve").env_clear().envs([
            ("CODEX_LB_DATA_DIR", directory.join("data").display().to_string()),
            ("CODEX_LB_UPSTREAM__BASE_URL", format!("http://{upstream}/backend-api")),
            ("CODEX_LB_OAUTH__ISSUER", format!("http://{upstream}")),
            ("CODEX_LB_PROXY__LISTEN", address.to_string()),
            ("CODEX_LB_ADMIN__LISTEN", admin_address.to_string()),
            ("CODEX_LB_METRICS__LISTEN", metrics_address.to_string()),
            ("CODEX_LB_SHUTDOWN__GRACE", "0s".to_owned()),
        ]);
        command.stdout(File::create(&stdout).with_context(|| format!("create {}", stdout.display()))?);
        let mut process = Process::start("codex-lb", command, directory)?;
        for listener in [admin_address, metrics_address, address] {
            process.wait_for(listener).await?;
        }
        import(admin_address, accounts).await?;
        // What is measured is the relay, not the queue at the caps.
        set(admin_address, "routing", &json!({"accountConcurrencyCap": ACCOUNT_CAP})).await?;
        let api_key = require_api_key(admin_address).await?;
        Ok(Self { process, address, api_key, metrics_address })
    }

    /// Checks that it has recorded exactly so many exchanges, all of them good and served at the first try.
    pub(super) async fn audit(&self, exchanges: u64, tokens_per_exchange: u64) -> anyhow::Result<()> {
        let expected = Books {
            exchanges,
            good: exchanges,
            legs: exchanges,
            output_tokens: exchanges * tokens_per_exchange,
            dropped: 0,
        };
        let deadline = Instant::now() + AUDIT_MAX;
        loop {
            let text = call(self.metrics_address, Method::GET, "/metrics", &HeaderMap::new(), None).await?;
            let books = Books::read(&String::from_utf8_lossy(&text));
            if books == expected {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "the gateway was to record {expected:?} but recorded {books:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Sums over the gateway's metrics.
#[derive(Debug, Default, PartialEq)]
struct Books {
    exchanges: u64,
    good: u64,
    legs: u64,
    output_tokens: u64,
    dropped: u64,
}

impl Books {
    fn read(metrics: &str) -> Self {
        let mut sums: BTreeMap<&str, u64> = BTreeMap::new();
        let mut books = Self::default();
        for (name, count) in metrics.lines().filter_map(|line| line.rsplit_once(' ')) {
            let Ok(count) = count.parse::<u64>() else { continue };
            let family = name.split('{').next().unwrap_or_default();
            *sums.entry(family).or_default() += count;
            if family == "codex_lb_exchanges_total" && name.contains("status=\"ok\"") {
                books.good += count;
            }
            if name == "codex_lb_tokens_total{kind=\"output\"}" {
                books.output_tokens = count;
            }
        }
        let sum = |family| sums.get(family).copied().unwrap_or_default();
        books.exchanges = sum("codex_lb_exchanges_total");
        books.legs = sum("codex_lb_legs_total");
        books.dropped = sum("codex_lb_records_dropped_total");
        books
    }
}

async fn import(admin_address: SocketAddr, accounts: &[Account]) -> anyhow::Result<()> {
    let files: Vec<Value> = accounts
        .iter()
        .map(|account| json!({"name": account.name(), "content": account.login().to_string()}))
        .collect();
    let answer = change(admin_address, Method::POST, "accounts/import", &json!({"files": files})).await?;
    let results = answer["results"].as_array().map(Vec::as_slice).unwrap_or_default();
    let imported = results.iter().filter(|result| result["account"].is_object()).count();
    ensure!(imported == accounts.len(), "{imported} of {} accounts were imported: {answer}", accounts.len());
    Ok(())
}

/// Makes a key and lets nobody in without one.
async fn require_api_key(admin_address: SocketAddr) -> anyhow::Result<String> {
    let made = change(admin_address, Method::POST, "api-keys", &json!({"name": "bench"})).await?;
    set(admin_address, "access", &json!({"apiKeyAuth": true})).await?;
    made["secret"].as_str().map(str::to_owned).context("find the secret of the new api key")
}

/// Changes a group of settings.
async fn set(admin_address: SocketAddr, group: &str, value: &Value) -> anyhow::Result<()> {
    let path = format!("settings/{group}");
    let before = call_json(admin_address, Method::GET, &format!("/api/v1/{path}"), &HeaderMap::new(), None).await?;
    change(admin_address, Method::PATCH, &path, &json!({"version": before["version"], "value": value})).await?;
    Ok(())
}

async fn change(address: SocketAddr, method: Method, path: &str, body: &Value) -> anyhow::Result<Value> {
    let headers = HeaderMap::from_iter([(
        http::HeaderName::from_static("x-codex-lb-request"),
        HeaderValue::from_static("bench"),
    )]);
    call_json(address, method, &format!("/api/v1/{path}"), &headers, Some(body)).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_books_are_sums_over_the_metrics() {
        let metrics = "# TYPE codex_lb_exchanges_total counter\n\
            codex_lb_exchanges_total{route=\"responses\",status=\"ok\"} 5\n\
            codex_lb_exchanges_total{route=\"codex_responses\",status=\"ok\"} 2\n\
            codex_lb_exchanges_total{route=\"responses\",status=\"error\"} 1\n\
            codex_lb_legs_total{outcome=\"relayed\"} 9\ncodex_lb_records_dropped_total 3\n\
            codex_lb_tokens_total{kind=\"input\"} 70\ncodex_lb_tokens_total{kind=\"output\"} 80\n";
        let expected = Books { exchanges: 8, good: 7, legs: 9, output_tokens: 80, dropped: 3 };
        assert_eq!(Books::read(metrics), expected);
    }
}
