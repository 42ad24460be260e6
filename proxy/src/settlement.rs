//! Turns an exchange into a record, exactly once, whatever ends it.
//!
//! An [`OpenExchange`] must be closed; one that is dropped (the client's connection broke, a task was cancelled or
//! panicked) records itself as cancelled with what the meter saw. Records go through a bounded queue to one writer, so
//! that nothing on the streaming path waits for the database until the queue is full.

use std::sync::Arc;
use std::time::Duration;

use codex_lb_shared::domain::exchange_record::{ExchangeRecord, ExchangeStatus};
use codex_lb_shared::domain::usage::MeteredUsage;
use codex_lb_shared::state::SharedState;
use codex_lb_shared::telemetry::metrics::Metrics;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tracing::{error, info};

use crate::relay::{Meter, Terminal};
use crate::trail::Trail;

/// Records that wait for the database at most; then exchanges wait at their end.
const QUEUE_RECORDS_MAX: usize = 65_536;
/// Records written in one transaction.
const BATCH_RECORDS_MAX: usize = 500;
/// Pause before a failed batch is tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// Tries of one batch once the process is stopping.
const LAST_TRIES: u32 = 5;

/// Takes records; cheap to clone.
#[derive(Clone)]
pub(crate) struct Recorder {
    queue: mpsc::Sender<ExchangeRecord>,
    metrics: Arc<Metrics>,
}

/// Writes what recorders took. Ends when every [`Recorder`] is gone and the queue is empty.
pub(crate) struct RecordWriter {
    queue: mpsc::Receiver<ExchangeRecord>,
    state: Arc<SharedState>,
}

/// A recorder and its writer.
pub(crate) fn recorder(state: &Arc<SharedState>) -> (Recorder, RecordWriter) {
    let (sender, receiver) = mpsc::channel(QUEUE_RECORDS_MAX);
    let recorder = Recorder { queue: sender, metrics: Arc::clone(&state.metrics) };
    (recorder, RecordWriter { queue: receiver, state: Arc::clone(state) })
}

impl RecordWriter {
    /// Writes batches until all recorders are gone.
    pub(crate) async fn run(mut self) {
        let mut batch = Vec::with_capacity(BATCH_RECORDS_MAX);
        while self.queue.recv_many(&mut batch, BATCH_RECORDS_MAX).await > 0 {
            self.write(&batch).await;
            batch.clear();
        }
    }

    /// Writes one batch, trying until it works: recording is idempotent, so a try that failed half-way does no harm.
    async fn write(&self, batch: &[ExchangeRecord]) {
        let mut last_tries = LAST_TRIES;
        loop {
            match self.state.store.record_exchanges(batch).await {
                Ok(()) => return,
                Err(error) => {
                    self.state.note_database_error(&error);
                    if self.queue.is_closed() {
                        last_tries -= 1;
                        if last_tries == 0 {
                            error!(error = %error, records = batch.len(), "usage could not be written before the stop");
                            return;
                        }
                    }
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
            }
        }
    }
}

/// An exchange that has not been recorded yet.
#[must_use = "an exchange that is dropped is recorded as cancelled"]
pub(crate) struct OpenExchange {
    /// What happened so far.
    pub(crate) trail: Trail,
    recorder: Recorder,
    meter: Option<Arc<Mutex<Meter>>>,
    input_tokens_estimate: u64,
    is_closed: bool,
}

impl OpenExchange {
    /// Opens an exchange.
    pub(crate) fn new(trail: Trail, recorder: Recorder) -> Self {
        recorder.metrics.in_flight.inc();
        Self { trail, recorder, meter: None, input_tokens_estimate: 0, is_closed: false }
    }

    /// From now on this meter tells what is used.
    pub(crate) fn watch(&mut self, meter: Arc<Mutex<Meter>>, input_tokens_estimate: u64) {
        self.meter = Some(meter);
        self.input_tokens_estimate = input_tokens_estimate;
    }

    /// Closes the exchange. Closing it again changes nothing.
    pub(crate) async fn close(&mut self, status: ExchangeStatus) {
        if let Some(record) = self.finish(status)
            && self.recorder.queue.send(record).await.is_err()
        {
            error!(exchange.id = %self.trail.id, "usage came after the writer had stopped");
        }
    }

    /// Whether the answer told its own end.
    pub(crate) fn has_terminal(&self) -> bool {
        self.meter.as_ref().is_some_and(|meter| meter.lock().terminal().is_some())
    }

    /// The status that the meter's terminal event means.
    pub(crate) fn status_by_meter(&self) -> ExchangeStatus {
        match self.meter.as_ref().and_then(|meter| meter.lock().terminal()) {
            Some(Terminal::Completed | Terminal::Incomplete) => ExchangeStatus::Ok,
            Some(Terminal::Failed) | None => ExchangeStatus::Error,
        }
    }

    fn finish(&mut self, status: ExchangeStatus) -> Option<ExchangeRecord> {
        if std::mem::replace(&mut self.is_closed, true) {
            return None;
        }
        let usage = self.meter.as_ref().map_or(MeteredUsage::None, |meter| {
            let meter = meter.lock();
            self.trail.first_token_at = meter.first_token_at();
            meter.usage(self.input_tokens_estimate)
        });
        let record = self.trail.record(status, usage);
        self.report(&record);
        // Whoever is not known must not be able to fill the database.
        self.trail.is_caller_proven.then_some(record)
    }

    fn report(&self, record: &ExchangeRecord) {
        let metrics = &self.recorder.metrics;
        metrics.in_flight.dec();
        metrics.observe_exchange(record);
        let tokens = record.usage.tokens().unwrap_or_default();
        info!(
            exchange.id = %record.id,
            route = record.route,
            status = record.status.as_str(),
            error.code = record.error_code.as_deref(),
            error.kind = self.trail.error_kind.map(|kind| kind.as_str()),
            api_key.id = record.api_key_id.map(|id| id.to_string()),
            account.id = record.account_id.map(|id| id.to_string()),
            model = record.model.as_deref(),
            legs = record.legs,
            upstream.status = record.upstream_status,
            input_tokens = tokens.input,
            cached_input_tokens = tokens.cached_input,
            output_tokens = tokens.output,
            reasoning_tokens = tokens.reasoning,
            estimated = record.usage.is_estimated(),
            first_byte_ms = record.first_byte_ms,
            first_token_ms = record.first_token_ms,
            total_ms = record.total_ms,
            client = record.user_agent_group,
            "exchange ended"
        );
    }
}

impl Drop for OpenExchange {
    fn drop(&mut self) {
        if let Some(record) = self.finish(ExchangeStatus::Cancelled)
            && let Err(refused) = self.recorder.queue.try_send(record)
        {
            self.recorder.metrics.records_dropped.inc();
            error!(exchange.id = %self.trail.id, error = %refused, "the usage of a dropped exchange could not be queued");
        }
    }
}
