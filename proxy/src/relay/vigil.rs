//! Waits on behalf of a client that must not think we died: it is told that we are alive, and its leaving ends the wait.

use std::time::Duration;

use tokio::time::Instant;

use super::{AnswerHead, ClientGone, Downstream};
use crate::route::Dialect;

/// How silence is filled while nothing of the answer can be sent.
pub(crate) struct Vigil {
    /// When the status is given up and keep-alives begin; `None` for a client that does not stream.
    pub(crate) status_hold_until: Option<Instant>,
    /// Between two signs of life.
    pub(crate) interval: Duration,
    /// The client's dialect.
    pub(crate) dialect: Dialect,
    /// What the head says, should it have to go out before upstream's is known.
    pub(crate) head: AnswerHead,
    /// The last sign of life.
    pub(crate) told_at: Instant,
}

impl Vigil {
    /// Waits for `work`, or until the deadline: then `None`.
    ///
    /// # Errors
    /// When the client left.
    pub(crate) async fn wait<T>(
        &mut self,
        downstream: &mut Downstream<'_>,
        deadline: Instant,
        work: impl Future<Output = T>,
    ) -> Result<Option<T>, ClientGone> {
        tokio::pin!(work);
        loop {
            let tell_at = match self.status_hold_until {
                Some(until) if !downstream.is_head_sent() => until,
                Some(_) => self.told_at + self.interval,
                None => deadline,
            };
            tokio::select! {
                biased;
                done = &mut work => return Ok(Some(done)),
                gone = downstream.client_gone() => return Err(gone),
                () = tokio::time::sleep_until(deadline.min(tell_at)) => {}
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
            downstream.begin_stream(&self.head).await?;
            downstream.keep_alive(self.dialect).await?;
            self.told_at = Instant::now();
        }
    }
}
