//! What reached the fake and what became of it.
//!
//! A [`Ticket`] belongs to exactly one request. Whoever finishes the request consumes it; a ticket that is dropped says
//! that the client went away first. So no request can end twice or not at all.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use bytes::Bytes;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::Notify;

use crate::account::Account;
use crate::script::{Script, Usage};

/// One request as it arrived, and its outcome so far.
#[derive(Clone, Debug)]
pub struct RequestRecord {
    /// Counts requests from 1 in the order in which their bodies were complete.
    pub sequence: u64,
    /// Which connection it came on, counted from 1.
    pub connection: u64,
    /// The request line and the headers.
    pub head: Arc<RequestHead>,
    /// The body after content decoding; empty when bodies are not recorded.
    pub body: Bytes,
    /// Length of the decoded body, also when it is not recorded.
    pub body_bytes: u64,
    /// Hex SHA-256 of the decoded body; `None` when bodies are not recorded.
    pub body_sha256: Option<String>,
    /// Name of the account whose access token it carried.
    pub account: Option<String>,
    /// When its body was complete.
    pub received_at: SystemTime,
    /// What its account answered it with, if it came that far.
    pub script: Option<Arc<Script>>,
    /// The status, once a response head was made.
    pub status: Option<u16>,
    /// Server-sent events handed to the HTTP layer.
    pub events_sent: u64,
    /// How it ended.
    pub outcome: Outcome,
}

/// The request line and the headers.
#[derive(Clone, Debug, Serialize)]
pub struct RequestHead {
    /// The method.
    pub method: String,
    /// The path without the query.
    pub path: String,
    /// The query without the question mark, empty if there is none.
    pub query: String,
    /// 1.0, 1.1 or 2.
    pub http_version: &'static str,
    /// Names in lower case, in the order of their first appearance; values of one name stand together.
    pub headers: Vec<(String, String)>,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Outcome {
    /// It has not.
    InFlight,
    /// A whole response without a stream was handed to the socket.
    Answered,
    /// The terminal event of a stream was handed to the socket.
    Ended {
        /// Which terminal event.
        terminal: Terminal,
        /// The usage in it.
        usage: Option<Usage>,
    },
    /// The fake tore the connection or the stream on purpose.
    Torn,
    /// The client (or [`crate::FakeChatGpt::drop_connections`]) went before the end.
    Cancelled,
}

/// The event that ends a stream.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Terminal {
    /// `response.completed`.
    Completed,
    /// `response.incomplete`.
    Incomplete,
    /// `response.failed`.
    Failed,
}

impl RequestRecord {
    /// The first value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The body as JSON, `null` if it is none.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The usage that its terminal event reported, once that was handed to the socket.
    pub fn usage(&self) -> Option<Usage> {
        match self.outcome {
            Outcome::Ended { usage, .. } => usage,
            Outcome::InFlight | Outcome::Answered | Outcome::Torn | Outcome::Cancelled => None,
        }
    }

    /// Whether it has ended, well or badly.
    pub fn is_over(&self) -> bool {
        self.outcome != Outcome::InFlight
    }

    /// Whether the client went away first.
    pub fn is_cancelled(&self) -> bool {
        self.outcome == Outcome::Cancelled
    }

    /// Whether it asked for a model answer.
    pub fn is_responses(&self) -> bool {
        self.head.method == "POST" && self.head.path.ends_with("/codex/responses")
    }

    /// The record as JSON, with the body as text.
    pub fn to_json(&self) -> serde_json::Value {
        let received_ms =
            self.received_at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
        serde_json::json!({
            "sequence": self.sequence, "connection": self.connection, "head": &*self.head,
            "body": String::from_utf8_lossy(&self.body), "body_bytes": self.body_bytes, "body_sha256": self.body_sha256,
            "account": self.account, "received_ms": received_ms, "script": self.script, "status": self.status,
            "events_sent": self.events_sent, "outcome": self.outcome,
        })
    }
}

/// A request that is being answered. Shared between the log and its ticket.
#[derive(Debug)]
struct Entry {
    arrived: RequestRecord,
    account: Option<Arc<Account>>,
    events_sent: AtomicU64,
    progress: Mutex<Progress>,
}

/// What became of a request so far.
#[derive(Clone, Debug)]
struct Progress {
    script: Option<Arc<Script>>,
    status: Option<u16>,
    outcome: Outcome,
}

impl Entry {
    fn snapshot(&self) -> RequestRecord {
        let Progress { script, status, outcome } = self.progress.lock().clone();
        let events_sent = self.events_sent.load(Ordering::SeqCst);
        RequestRecord { script, status, outcome, events_sent, ..self.arrived.clone() }
    }
}

/// The bounded list of requests, oldest first.
#[derive(Debug)]
pub(crate) struct Log {
    entries: Mutex<VecDeque<Arc<Entry>>>,
    entries_max: usize,
    sequence: AtomicU64,
    waiters: AtomicUsize,
    changed: Notify,
}

impl Log {
    pub(crate) fn new(entries_max: usize) -> Self {
        Self {
            entries: Mutex::default(),
            entries_max,
            sequence: AtomicU64::new(0),
            waiters: AtomicUsize::new(0),
            changed: Notify::new(),
        }
    }

    /// Enters a request; `arrived.sequence` is filled in.
    pub(crate) fn open(self: &Arc<Self>, mut arrived: RequestRecord, account: Option<Arc<Account>>) -> Ticket {
        arrived.sequence = self.sequence.fetch_add(1, Ordering::Relaxed) + 1;
        let progress = Mutex::new(Progress { script: None, status: None, outcome: Outcome::InFlight });
        let entry = Arc::new(Entry { arrived, account, events_sent: AtomicU64::new(0), progress });
        let mut entries = self.entries.lock();
        if entries.len() == self.entries_max {
            entries.pop_front();
        }
        entries.push_back(entry.clone());
        drop(entries);
        self.notify();
        Ticket { entry, log: self.clone(), is_open: true }
    }

    pub(crate) fn snapshot(&self) -> Vec<RequestRecord> {
        self.entries.lock().iter().map(|entry| entry.snapshot()).collect()
    }

    pub(crate) fn clear(&self) {
        self.entries.lock().clear();
    }

    /// Waits until a logged request satisfies the predicate and returns the first that does.
    pub(crate) async fn wait_for(
        &self,
        timeout: Duration,
        mut predicate: impl FnMut(&RequestRecord) -> bool,
    ) -> anyhow::Result<RequestRecord> {
        let _waiter = Waiter::join(&self.waiters);
        let search = async {
            loop {
                let mut changed = std::pin::pin!(self.changed.notified());
                // Enabled before the look, so that a change during the look is not missed.
                changed.as_mut().enable();
                if let Some(found) = self.snapshot().into_iter().find(|record| predicate(record)) {
                    return found;
                }
                changed.await;
            }
        };
        tokio::time::timeout(timeout, search).await.with_context(|| {
            let seen: Vec<_> = self.snapshot().iter().map(RequestRecord::summary).collect();
            format!("wait for a matching request, seen: {}", seen.join(", "))
        })
    }

    // Called once per event, so it must cost nothing while nobody waits.
    fn notify(&self) {
        if self.waiters.load(Ordering::SeqCst) > 0 {
            self.changed.notify_waiters();
        }
    }
}

/// Counts as a waiter until dropped, also when the waiting future is.
struct Waiter<'a>(&'a AtomicUsize);

impl<'a> Waiter<'a> {
    fn join(waiters: &'a AtomicUsize) -> Self {
        waiters.fetch_add(1, Ordering::SeqCst);
        Self(waiters)
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl RequestRecord {
    fn summary(&self) -> String {
        format!("#{} {} {} {:?} {:?}", self.sequence, self.head.method, self.head.path, self.status, self.outcome)
    }
}

/// The duty to say how one request ended.
#[derive(Debug)]
pub(crate) struct Ticket {
    entry: Arc<Entry>,
    log: Arc<Log>,
    is_open: bool,
}

impl Ticket {
    pub(crate) fn set_status(&self, status: u16) {
        self.entry.progress.lock().status = Some(status);
        self.log.notify();
    }

    pub(crate) fn set_script(&self, script: &Script) {
        self.entry.progress.lock().script = Some(Arc::new(script.clone()));
    }

    pub(crate) fn events_sent(&self, events: u64) {
        self.entry.events_sent.fetch_add(events, Ordering::SeqCst);
        self.log.notify();
    }

    /// Ends the request. This is where usage enters the account's totals.
    pub(crate) fn end(mut self, outcome: Outcome) {
        self.close(outcome);
    }

    fn close(&mut self, outcome: Outcome) {
        self.is_open = false;
        if let (Outcome::Ended { terminal, usage }, Some(account)) = (outcome, &self.entry.account) {
            account.add_to_totals(terminal, usage);
        }
        self.entry.progress.lock().outcome = outcome;
        self.log.notify();
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.is_open {
            self.close(Outcome::Cancelled);
        }
    }
}
