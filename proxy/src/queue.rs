//! The fair queue at the concurrency caps: nobody is refused at once. Callers take turns, first come first served
//! within a caller, and a waiting exchange is handed the very slot that was freed, the moment it is.
//!
//! A slot is handed over and not announced, so nobody who comes later can snatch it, and nobody polls.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use codex_lb_shared::pool::{Lease, Pool, PooledAccount};
use parking_lot::Mutex;
use tokio::sync::oneshot;

/// Exchanges that wait at most; more are refused at once, because they could not be served in time.
const WAITING_MAX: usize = 20_000;

/// Whether a waiting exchange may use an account that has a free slot.
pub(crate) type Wants = Box<dyn Fn(&PooledAccount) -> bool + Send>;

/// The exchanges that wait for a slot.
#[derive(Default)]
pub(crate) struct SlotQueue {
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    /// Callers with waiting exchanges; the first one's turn is next.
    turns: VecDeque<String>,
    by_caller: HashMap<String, VecDeque<Waiter>>,
    count: usize,
    last_number: u64,
}

struct Waiter {
    number: u64,
    wants: Wants,
    slot: oneshot::Sender<Lease>,
}

/// A place in the queue. Leaving it (by dropping it) is safe at any time: a slot that was just handed over goes on to
/// the next.
pub(crate) struct Place<'q> {
    queue: &'q SlotQueue,
    caller: String,
    number: u64,
    slot: oneshot::Receiver<Lease>,
}

impl SlotQueue {
    /// A queue that is woken by every freed slot of `pool`.
    pub(crate) fn of(pool: &Arc<Pool>) -> Arc<Self> {
        let queue = Arc::new(Self::default());
        let (weak_queue, weak_pool) = (Arc::downgrade(&queue), Arc::downgrade(pool));
        pool.on_slot_freed(move |account| {
            if let (Some(queue), Some(pool)) = (weak_queue.upgrade(), weak_pool.upgrade()) {
                queue.hand_over(account, |account| pool.try_lease(account));
            }
        });
        queue
    }

    /// Queues up behind the caller's other exchanges. `None` when too many wait already.
    pub(crate) fn enter(&self, caller: &str, wants: Wants) -> Option<Place<'_>> {
        let mut waiting = self.waiting.lock();
        if waiting.count >= WAITING_MAX {
            return None;
        }
        let (slot, receiver) = oneshot::channel();
        waiting.count += 1;
        waiting.last_number += 1;
        let number = waiting.last_number;
        if !waiting.by_caller.contains_key(caller) {
            waiting.turns.push_back(caller.to_owned());
        }
        waiting.by_caller.entry(caller.to_owned()).or_default().push_back(Waiter { number, wants, slot });
        Some(Place { queue: self, caller: caller.to_owned(), number, slot: receiver })
    }

    /// Hands a free slot of `account` to whoever's turn it is.
    fn hand_over(&self, account: &Arc<PooledAccount>, lease: impl Fn(&Arc<PooledAccount>) -> Option<Lease>) {
        let mut held: Option<Lease> = None;
        loop {
            let Some((caller, waiter)) = self.waiting.lock().take_next(account) else { break };
            let Some(slot) = held.take().or_else(|| lease(account)) else {
                // Somebody who just arrived was faster; the waiter keeps its turn.
                self.waiting.lock().put_back(caller, waiter);
                return;
            };
            match waiter.slot.send(slot) {
                Ok(()) => return,
                // It left in this very moment.
                Err(slot) => held = Some(slot),
            }
        }
        if let Some(slot) = held {
            slot.release_quietly();
        }
    }
}

impl Waiting {
    /// Takes out the first waiter, in turn, that may use the account. Its caller's next turn comes last.
    fn take_next(&mut self, account: &PooledAccount) -> Option<(String, Waiter)> {
        let found = self.turns.iter().enumerate().find_map(|(turn, caller)| {
            let position = self.by_caller.get(caller)?.iter().position(|waiter| (waiter.wants)(account))?;
            Some((turn, position))
        });
        let (turn, position) = found?;
        let caller = self.turns.remove(turn)?;
        let waiters = self.by_caller.get_mut(&caller)?;
        let waiter = waiters.remove(position)?;
        if waiters.is_empty() {
            self.by_caller.remove(&caller);
        } else {
            self.turns.push_back(caller.clone());
        }
        self.count -= 1;
        Some((caller, waiter))
    }

    fn put_back(&mut self, caller: String, waiter: Waiter) {
        self.turns.retain(|known| *known != caller);
        self.turns.push_front(caller.clone());
        self.by_caller.entry(caller).or_default().push_front(waiter);
        self.count += 1;
    }

    fn leave(&mut self, caller: &str, number: u64) {
        let Some(waiters) = self.by_caller.get_mut(caller) else { return };
        let Some(position) = waiters.iter().position(|waiter| waiter.number == number) else { return };
        waiters.remove(position);
        self.count -= 1;
        if waiters.is_empty() {
            self.by_caller.remove(caller);
            self.turns.retain(|known| known != caller);
        }
    }
}

impl Place<'_> {
    /// Waits for a slot. Cancelling the wait is safe; the place is kept until it is dropped.
    pub(crate) async fn slot(&mut self) -> Option<Lease> {
        (&mut self.slot).await.ok()
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.queue.waiting.lock().leave(&self.caller, self.number);
    }
}

#[cfg(test)]
mod tests;
