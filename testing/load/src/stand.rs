//! The stand: a fake ChatGPT, and nginx and the gateway in front of it, all on this machine and in a temporary
//! directory. Every workload gets a fresh one, so that no workload pays for the memory of another.

mod fake;
mod gateway;
mod nginx;

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context as _, ensure};
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};

use crate::events::EVENTS_AROUND_DELTAS;
use crate::process::{Process, memory};
pub(crate) use fake::Answers;
use fake::Fake;
use gateway::Gateway;

/// What the load generator talks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum TargetKind {
    /// The fake itself: what the machine, the load generator and the fake cost without anything in between.
    Direct,
    /// nginx, which understands nothing of what it relays.
    Nginx,
    /// The gateway, with everything on.
    Gateway,
}

impl TargetKind {
    /// In the order in which every round visits them.
    pub(crate) const ALL: [Self; 3] = [Self::Direct, Self::Nginx, Self::Gateway];

    /// The column's name.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Nginx => "nginx",
            Self::Gateway => "gateway",
        }
    }
}

/// Whose work is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ProcessUnderTest {
    /// By which the kernel knows it.
    pub(crate) pid: u32,
    /// The memory it held when it had just started.
    pub(crate) idle_bytes: u64,
}

/// One thing to put load on.
#[derive(Debug)]
pub(crate) struct Target {
    /// Which.
    pub(crate) kind: TargetKind,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// None when nothing is in between.
    pub(crate) process: Option<ProcessUnderTest>,
    /// The fake's process, which works for every target.
    pub(crate) fake_pid: u32,
    credentials: Vec<HeaderMap>,
}

impl Target {
    /// The credentials for a connection; without a gateway the accounts take turns.
    pub(crate) fn credentials(&self, connection: usize) -> HeaderMap {
        self.credentials[connection % self.credentials.len()].clone()
    }
}

/// The three processes.
#[derive(Debug)]
pub(crate) struct Stand {
    fake: Fake,
    nginx: Process,
    gateway: Gateway,
    targets: Vec<Target>,
    answers: Answers,
    // Last, so that it outlives the processes that write into it.
    _directory: tempfile::TempDir,
}

impl Stand {
    /// Starts everything and waits until it serves.
    pub(crate) async fn start(answers: Answers, nginx_program: &Path) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir().context("create a temporary directory")?;
        let fake = Fake::start(answers, directory.path()).await?;
        let accounts = fake.accounts().await?;
        let (nginx, nginx_address) = nginx::start(nginx_program, fake.address, directory.path()).await?;
        let gateway = Gateway::start(fake.address, &accounts, directory.path()).await?;
        let as_accounts = accounts.iter().map(fake::Account::credentials).collect::<anyhow::Result<Vec<_>>>()?;
        let target = |kind, address, process, credentials: &[HeaderMap]| Target {
            kind,
            address,
            process,
            fake_pid: fake.process.pid(),
            credentials: credentials.to_vec(),
        };
        let under_test = |process: &Process| -> anyhow::Result<_> {
            let pid = process.pid();
            Ok(Some(ProcessUnderTest { pid, idle_bytes: memory(pid)?.resident_bytes }))
        };
        let through_gateway = [bearer(&gateway.api_key)?];
        let targets = vec![
            target(TargetKind::Direct, fake.address, None, &as_accounts),
            target(TargetKind::Nginx, nginx_address, under_test(&nginx)?, &as_accounts),
            target(TargetKind::Gateway, gateway.address, under_test(&gateway.process)?, &through_gateway),
        ];
        Ok(Self { fake, nginx, gateway, targets, answers, _directory: directory })
    }

    /// In the order of a round.
    pub(crate) fn targets(&self) -> &[Target] {
        &self.targets
    }

    /// Checks the books: every target was asked so many times, and both the fake and the gateway must have counted
    /// exactly that, without a failure, a second try or a lost record.
    pub(crate) async fn audit(&mut self, requests_per_target: u64) -> anyhow::Result<()> {
        for process in [&mut self.fake.process, &mut self.nginx, &mut self.gateway.process] {
            process.check_alive()?;
        }
        let expected = requests_per_target * self.targets.len() as u64;
        let served = self.fake.served().await?;
        let is_right = served.requests == expected
            && served.completed == expected
            && served.output_tokens == expected * self.answers.tokens;
        ensure!(is_right, "the fake was to serve {expected} answers but counted {served:?}");
        self.gateway.audit(requests_per_target, self.answers.tokens).await
    }

    /// What the processes behind a target said last, to explain a failure.
    pub(crate) fn last_words(&self, kind: TargetKind) -> String {
        let process = match kind {
            TargetKind::Direct => &self.fake.process,
            TargetKind::Nginx => &self.nginx,
            TargetKind::Gateway => &self.gateway.process,
        };
        format!("the log of {} ends with\n{}", process.name(), process.log_tail())
    }

    /// Ends all processes.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        self.gateway.process.stop().await?;
        self.nginx.stop().await?;
        self.fake.process.stop().await
    }
}

impl Answers {
    /// How many events one of these answers has.
    pub(crate) fn events(self) -> u64 {
        self.tokens + EVENTS_AROUND_DELTAS
    }
}

fn bearer(secret: &str) -> anyhow::Result<HeaderMap> {
    let mut value = HeaderValue::try_from(format!("Bearer {secret}")).context("make a header of a credential")?;
    value.set_sensitive(true);
    Ok(HeaderMap::from_iter([(AUTHORIZATION, value)]))
}
