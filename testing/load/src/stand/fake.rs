//! The fake ChatGPT as a process: starts it, learns its accounts, reads its totals.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use http::{HeaderMap, HeaderValue, Method};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

use super::bearer;
use crate::http::call_json;
use crate::process::Process;
use crate::sibling::sibling_program;

const ACCOUNTS: usize = 4;
const START_MAX: Duration = Duration::from_secs(30);

/// What the fake answers to every request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answers {
    /// Deltas of each answer, which are also its output tokens.
    pub(crate) tokens: u64,
    /// Deltas per second; as fast as they are read when absent.
    pub(crate) tokens_per_second: Option<u32>,
}

/// The running fake.
#[derive(Debug)]
pub(super) struct Fake {
    pub(super) process: Process,
    pub(super) address: SocketAddr,
}

/// An account of the fake's, as its control API describes it.
#[derive(Debug)]
pub(super) struct Account(Value);

/// What the fake has counted since its start, over all accounts.
#[derive(Debug, Default)]
pub(super) struct Served {
    pub(super) requests: u64,
    pub(super) completed: u64,
    pub(super) output_tokens: u64,
}

impl Fake {
    pub(super) async fn start(answers: Answers, directory: &Path) -> anyhow::Result<Self> {
        let mut command = Command::new(sibling_program("fake-chatgpt")?);
        // One thread, like nginx and the load generator: what it does costs each target the same.
        command.args(["--no-bodies", "--records", "16", "--threads", "1"]);
        command.args(["--accounts", &ACCOUNTS.to_string(), "--tokens", &answers.tokens.to_string()]);
        if let Some(rate) = answers.tokens_per_second {
            command.args(["--rate", &rate.to_string()]);
        }
        command.env_clear().stdout(Stdio::piped());
        let mut process = Process::start("fake-chatgpt", command, directory)?;
        let stdout = process.take_stdout().context("read from fake-chatgpt")?;
        let mut line = String::new();
        let reading = tokio::time::timeout(START_MAX, BufReader::new(stdout).read_line(&mut line)).await;
        reading.context("wait for fake-chatgpt")?.context("read from fake-chatgpt")?;
        process.check_alive()?;
        let address = address_in(&line).with_context(|| format!("find the address in {line:?}"))?;
        Ok(Self { process, address })
    }

    pub(super) async fn accounts(&self) -> anyhow::Result<Vec<Account>> {
        let mut answer = self.ask("accounts").await?;
        let accounts = answer["accounts"].as_array_mut().map(std::mem::take).unwrap_or_default();
        Ok(accounts.into_iter().map(Account).collect())
    }

    pub(super) async fn served(&self) -> anyhow::Result<Served> {
        let answer = self.ask("totals").await?;
        let mut served = Served::default();
        for totals in answer["totals"].as_object().into_iter().flat_map(|accounts| accounts.values()) {
            let count = |name: &str| totals[name].as_u64().unwrap_or_default();
            served.requests += count("requests");
            served.completed += count("completed");
            served.output_tokens += count("output");
        }
        Ok(served)
    }

    async fn ask(&self, what: &str) -> anyhow::Result<Value> {
        call_json(self.address, Method::GET, &format!("/__fake/{what}"), &HeaderMap::new(), None).await
    }
}

impl Account {
    /// The login file of the Codex CLI.
    pub(super) fn login(&self) -> &Value {
        &self.0["auth_json"]
    }

    pub(super) fn name(&self) -> &str {
        self.0["name"].as_str().unwrap_or_default()
    }

    /// What upstream wants to see.
    pub(super) fn credentials(&self) -> anyhow::Result<HeaderMap> {
        let access_token = self.login()["tokens"]["access_token"].as_str().context("find an access token")?;
        let account_id = self.0["chatgpt_account_id"].as_str().context("find an account's id")?;
        let mut headers = bearer(access_token)?;
        headers.insert("chatgpt-account-id", HeaderValue::try_from(account_id).context("make a header of an id")?);
        Ok(headers)
    }
}

fn address_in(line: &str) -> anyhow::Result<SocketAddr> {
    let ready: Value = serde_json::from_str(line).context("read JSON")?;
    let issuer = ready["issuer"].as_str().and_then(|issuer| issuer.strip_prefix("http://"));
    issuer.context("find the issuer")?.parse().context("read an address")
}
