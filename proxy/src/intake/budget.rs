//! Memory for bodies: bounded over all exchanges together, so that many large uploads at once leave the process alive.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::rejection::Rejection;

/// The unit in which memory is handed out.
const UNIT_BYTES: usize = 1_024;
/// Longest wait for memory.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// Keyless callers together get at most this part of all memory.
const KEYLESS_PART: usize = 4;

/// Hands out memory for bodies.
pub(crate) struct BodyBudget {
    all: Arc<Semaphore>,
    keyless: Arc<Semaphore>,
    /// How much there is of each.
    all_units: usize,
    keyless_units: usize,
}

/// Memory held for one body; given back on drop.
pub(crate) struct HeldBytes<'b> {
    budget: &'b BodyBudget,
    is_keyless: bool,
    held_units: usize,
    permits: Vec<OwnedSemaphorePermit>,
}

impl BodyBudget {
    /// A budget of so many bytes.
    pub(crate) fn new(bytes_max: usize) -> Self {
        let units = (bytes_max / UNIT_BYTES).clamp(1, u32::MAX as usize);
        let keyless_units = (units / KEYLESS_PART).max(1);
        Self {
            all: Arc::new(Semaphore::new(units)),
            keyless: Arc::new(Semaphore::new(keyless_units)),
            all_units: units,
            keyless_units,
        }
    }

    /// Memory for a body that has not been read yet: none.
    pub(crate) const fn hold(&self, is_keyless: bool) -> HeldBytes<'_> {
        HeldBytes { budget: self, is_keyless, held_units: 0, permits: Vec::new() }
    }
}

impl HeldBytes<'_> {
    /// Holds memory for `bytes` in all, waiting for it if need be.
    ///
    /// # Errors
    /// 413 when there is not so much for this caller at all, 503 when it does not become free in time.
    pub(crate) async fn grow_to(&mut self, bytes: u64) -> Result<(), Rejection> {
        let Some(missing) = self.missing_units(bytes) else { return Ok(()) };
        let units_max = if self.is_keyless { self.budget.keyless_units } else { self.budget.all_units };
        if self.held_units + missing > units_max {
            return Err(Rejection::payload_too_large((units_max * UNIT_BYTES) as u64));
        }
        let missing = u32::try_from(missing).map_err(|_| Rejection::busy())?;
        let acquire = async {
            // In this order everywhere, so that two waits never wait for each other.
            let keyless = match self.is_keyless {
                true => Some(Arc::clone(&self.budget.keyless).acquire_many_owned(missing).await),
                false => None,
            };
            (keyless, Arc::clone(&self.budget.all).acquire_many_owned(missing).await)
        };
        let (keyless, all) = tokio::time::timeout(WAIT_MAX, acquire).await.map_err(|_| Rejection::busy())?;
        for permit in keyless.into_iter().chain([all]) {
            self.permits.push(permit.map_err(|_| Rejection::internal())?);
        }
        self.held_units += missing as usize;
        Ok(())
    }

    /// Holds memory for `bytes` in all if it is free. Whether it was.
    pub(crate) fn try_grow_to(&mut self, bytes: u64) -> bool {
        let Some(missing) = self.missing_units(bytes) else { return true };
        let Ok(missing) = u32::try_from(missing) else { return false };
        let keyless = match self.is_keyless {
            true => match Arc::clone(&self.budget.keyless).try_acquire_many_owned(missing) {
                Ok(permit) => Some(permit),
                Err(_) => return false,
            },
            false => None,
        };
        let Ok(all) = Arc::clone(&self.budget.all).try_acquire_many_owned(missing) else { return false };
        self.permits.extend(keyless.into_iter().chain([all]));
        self.held_units += missing as usize;
        true
    }

    /// Gives back what is held beyond `bytes`.
    pub(crate) fn shrink_to(&mut self, bytes: usize) {
        let units = bytes.div_ceil(UNIT_BYTES);
        let Some(excess) = self.held_units.checked_sub(units).filter(|excess| *excess > 0) else { return };
        // Each budget's permits are merged by what they are permits of, so both give back the same.
        for semaphore in [&self.budget.all, &self.budget.keyless] {
            let mut left = excess;
            for permit in self.permits.iter_mut().filter(|permit| Arc::ptr_eq(permit.semaphore(), semaphore)) {
                let given_back = left.min(permit.num_permits());
                drop(permit.split(given_back));
                left -= given_back;
            }
        }
        self.held_units = units;
    }

    fn missing_units(&self, bytes: u64) -> Option<usize> {
        let wanted = usize::try_from(bytes).unwrap_or(usize::MAX).div_ceil(UNIT_BYTES);
        wanted.checked_sub(self.held_units).filter(|missing| *missing > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    #[tokio::test(start_paused = true)]
    async fn a_body_waits_for_memory_and_gives_up_in_time() {
        let budget = BodyBudget::new(8 * MIB as usize);
        let mut first = budget.hold(false);
        first.grow_to(6 * MIB).await.unwrap();
        let mut second = budget.hold(false);
        second.grow_to(2 * MIB).await.unwrap();
        assert_eq!(second.grow_to(3 * MIB).await.unwrap_err().status, 503);
        assert_eq!(second.grow_to(9 * MIB).await.unwrap_err().status, 413);
        drop(first);
        second.grow_to(8 * MIB).await.unwrap();
        assert!(!budget.hold(false).try_grow_to(1));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_needed_any_more_is_given_back() {
        let budget = BodyBudget::new(8 * MIB as usize);
        let mut keyless = budget.hold(true);
        assert!(keyless.try_grow_to(MIB) && keyless.try_grow_to(2 * MIB));
        keyless.shrink_to(MIB as usize / 2);
        assert!(!budget.hold(true).try_grow_to(2 * MIB));
        assert!(budget.hold(true).try_grow_to(3 * MIB / 2));
        assert!(!budget.hold(false).try_grow_to(8 * MIB));
        keyless.shrink_to(MIB as usize);
        keyless.shrink_to(0);
        assert!(budget.hold(true).try_grow_to(2 * MIB));
        assert!(budget.hold(false).try_grow_to(8 * MIB));
    }

    #[tokio::test(start_paused = true)]
    async fn keyless_callers_never_take_more_than_their_part() {
        let budget = BodyBudget::new(8 * MIB as usize);
        let mut keyless = budget.hold(true);
        assert!(keyless.try_grow_to(2 * MIB));
        assert!(!keyless.try_grow_to(3 * MIB));
        assert_eq!(keyless.grow_to(3 * MIB).await.unwrap_err().status, 413);
        assert!(!budget.hold(true).try_grow_to(1));
        assert!(budget.hold(false).try_grow_to(6 * MIB));
    }
}
