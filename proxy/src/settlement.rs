//! Turns an exchange into a record, exactly once, whatever ends it.
//!
//! An [`OpenExchange`] must be closed; one that is dropped (the client's connection broke, a task was cancelled or
//! panicked) records itself as cancelled with what the meter saw. Records go through a bounded queue to one writer, so
//! that nothing on the streaming path waits for the database until the queue is full.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use codex_lb_shared::domain::exchange_record::{ExchangeRecord, ExchangeStatus};
use codex_lb_shared::domain::usage::{MeteredUsage, TokenUsage};
use codex_lb_shared::state::SharedState;
use codex_lb_shared::telemetry::metrics::Metrics;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::relay::{Meter, Terminal};
use crate::trail::Trail;

/// Records that wait for the database at most; then exchanges wait at their end.
const QUEUE_RECORDS_MAX: usize = 65_536;
/// Records written in one transaction.
const BATCH_RECORDS_MAX: usize = 500;
/// Pause before a failed batch is tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// Longest time that a stopping process spends on writing what is queued.
const LAST_WRITES_MAX: Duration = Duration::from_secs(20);

/// Takes records; cheap to clone.
#[derive(Clone)]
pub(crate) struct Recorder {
    queue: mpsc::Sender<ExchangeRecord>,
    metrics: Arc<Metrics>,
}

/// Writes what recorders took.
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
    /// Writes batches until `stop`, then what is queued by then, as far as the database lets it in time.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut batch = Vec::with_capacity(BATCH_RECORDS_MAX);
        loop {
            tokio::select! {
                biased;
                taken = self.queue.recv_many(&mut batch, BATCH_RECORDS_MAX) => if taken == 0 { return },
                () = stop.cancelled() => break,
            }
            if !self.write(&batch, &stop).await {
                break;
            }
            batch.clear();
        }
        self.queue.close();
        let rest = async {
            loop {
                if !batch.is_empty() {
                    self.write(&batch, &CancellationToken::new()).await;
                    batch.clear();
                }
                if self.queue.recv_many(&mut batch, BATCH_RECORDS_MAX).await == 0 {
                    return;
                }
            }
        };
        if tokio::time::timeout(LAST_WRITES_MAX, rest).await.is_err() {
            error!("usage that was still queued could not be written before the stop");
        }
    }

    /// Writes one batch, trying until it works or `stop`: recording is idempotent, so a try that failed half-way does
    /// no harm. Whether it was written.
    async fn write(&self, batch: &[ExchangeRecord], stop: &CancellationToken) -> bool {
        loop {
            match self.state.store.record_exchanges(batch).await {
                Ok(()) => return true,
                Err(error) => self.state.note_database_error(&error),
            }
            tokio::select! {
                () = tokio::time::sleep(RETRY_PAUSE) => {}
                () = stop.cancelled() => return false,
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
    earlier_legs: TokenUsage,
    input_tokens_estimate: u64,
    is_closed: bool,
}

impl OpenExchange {
    /// Opens an exchange.
    pub(crate) fn new(trail: Trail, recorder: Recorder) -> Self {
        recorder.metrics.in_flight.inc();
        Self {
            trail,
            recorder,
            meter: None,
            earlier_legs: TokenUsage::default(),
            input_tokens_estimate: 0,
            is_closed: false,
        }
    }

    /// From now on this meter tells what is used.
    /// What upstream told of an earlier leg was used all the same.
    pub(crate) fn watch(&mut self, meter: Arc<Mutex<Meter>>, input_tokens_estimate: u64) {
        if let Some(MeteredUsage::Exact(told)) = self.meter.as_ref().map(|meter| meter.lock().usage(0)) {
            self.earlier_legs = self.earlier_legs.plus(told);
        }
        self.meter = Some(meter);
        self.input_tokens_estimate = input_tokens_estimate;
    }

    /// Closes the exchange. Closing it again changes nothing.
    pub(crate) async fn close(&mut self, status: ExchangeStatus) {
        // The place is taken first: an exchange that is cancelled while it waits is still open, and its drop tells.
        let queue = self.recorder.queue.clone();
        let place = queue.reserve().await;
        if let Some(record) = self.finish(status) {
            match place {
                Ok(place) => place.send(record),
                Err(_) => {
                    self.recorder.metrics.records_dropped.inc();
                    error!(exchange.id = %self.trail.id, "usage came after the writer had stopped");
                }
            }
        }
    }

    /// Whether the answer told its own end.
    pub(crate) fn has_terminal(&self) -> bool {
        self.meter.as_ref().is_some_and(|meter| meter.lock().terminal().is_some())
    }

    /// The event by which upstream said that its answer failed, if it did.
    pub(crate) fn failure(&self) -> Option<Bytes> {
        self.meter.as_ref().and_then(|meter| meter.lock().failure().cloned())
    }

    /// The id of the response that ended, if it has one.
    pub(crate) fn response_id(&self) -> Option<String> {
        self.meter.as_ref().and_then(|meter| meter.lock().response_id().map(str::to_owned))
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
        let usage = usage.plus(self.earlier_legs);
        let record = self.trail.record(status, usage);
        self.report(&record);
        // Whoever is not known must not be able to fill the database.
        self.trail.is_caller_proven.then_some(record)
    }

    fn report(&self, record: &ExchangeRecord) {
        let metrics = &self.recorder.metrics;
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
        // In flight until its last byte is out, which is after its usage was settled.
        self.recorder.metrics.in_flight.dec();
        if let Some(record) = self.finish(ExchangeStatus::Cancelled)
            && let Err(refused) = self.recorder.queue.try_send(record)
        {
            self.recorder.metrics.records_dropped.inc();
            error!(exchange.id = %self.trail.id, error = %refused, "the usage of a dropped exchange could not be queued");
        }
    }
}
