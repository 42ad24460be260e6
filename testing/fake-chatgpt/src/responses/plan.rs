//! The course of one stream, fixed before its first byte: which events, at which pace, with which end.
//!
//! Sequence numbers are given out here, so a plan can be shortened but not rearranged.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::render::DeltaRun;
use crate::record::Terminal;
use crate::script::Usage;

/// One step of a stream.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// One rendered event.
    Event(Bytes),
    /// Many small events, rendered while they are sent.
    Deltas(Arc<DeltaRun>),
    /// Nothing for a while.
    Pause(Duration),
    /// Nothing until the client goes.
    Forever,
    /// The end of the connection or of the stream, once everything before it has been flushed.
    Tear { reset: bool },
    /// The last event.
    Terminal(Bytes, Terminal, Option<Usage>),
}

impl Step {
    /// How many events this step sends.
    fn events(&self) -> u64 {
        match self {
            Self::Event(_) | Self::Terminal(..) => 1,
            Self::Deltas(run) => run.count,
            Self::Pause(_) | Self::Forever | Self::Tear { .. } => 0,
        }
    }
}

/// A whole stream.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) steps: Vec<Step>,
    /// Time between deltas; none means as fast as the peer reads.
    pub(crate) interval: Option<Duration>,
    /// Lets deltas share a frame when there is no interval.
    pub(crate) coalesce: bool,
    /// How long the response head waits.
    pub(crate) head_delay: Duration,
}

impl Plan {
    /// A plan without any waiting.
    pub(crate) fn immediate(steps: Vec<Step>) -> Self {
        Self { steps, interval: None, coalesce: false, head_delay: Duration::ZERO }
    }

    /// Keeps the first `events` events; the rest, pauses between them included, is cut off and returned.
    pub(crate) fn split_after_events(&mut self, events: u64) -> Vec<Step> {
        self.split(events, Step::events)
    }

    /// Keeps everything up to the delta with this number; the rest is cut off and returned.
    pub(crate) fn split_after_deltas(&mut self, deltas: u64) -> Vec<Step> {
        self.split(deltas, |step| match step {
            Step::Deltas(run) => run.count,
            Step::Event(_) | Step::Pause(_) | Step::Forever | Step::Tear { .. } | Step::Terminal(..) => 0,
        })
    }

    // Steps that weigh nothing stay with what precedes the cut, until something heavier or the last event comes.
    fn split(&mut self, wanted: u64, weigh: impl Fn(&Step) -> u64) -> Vec<Step> {
        let mut left = wanted;
        for index in 0..self.steps.len() {
            let weight = weigh(&self.steps[index]);
            let is_terminal = matches!(self.steps[index], Step::Terminal(..));
            if weight <= left && !(is_terminal && weight == 0) {
                left -= weight;
                continue;
            }
            let mut rest = self.steps.split_off(index);
            if let (Step::Deltas(run), true) = (&rest[0], left > 0) {
                let (kept, dropped) = run.split_at(left);
                self.steps.push(Step::Deltas(Arc::new(kept)));
                rest[0] = Step::Deltas(Arc::new(dropped));
            }
            return rest;
        }
        Vec::new()
    }
}
