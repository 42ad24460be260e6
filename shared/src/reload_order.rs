//! Reloads that run side by side must not go backwards: what was read later wins, however long the other one took.

use parking_lot::Mutex;

/// Orders reloads by when they began to read.
#[derive(Debug, Default)]
pub(crate) struct ReloadOrder {
    order: Mutex<Order>,
}

#[derive(Debug, Default)]
struct Order {
    begun: u64,
    applied: u64,
}

/// One reload's place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reload(u64);

impl ReloadOrder {
    /// Call before reading.
    pub(crate) fn begin(&self) -> Reload {
        let mut order = self.order.lock();
        order.begun += 1;
        Reload(order.begun)
    }

    /// Runs `apply` with what was read, unless something newer was applied. Whether it ran.
    pub(crate) fn apply(&self, reload: Reload, apply: impl FnOnce()) -> bool {
        let mut order = self.order.lock();
        if reload.0 <= order.applied {
            return false;
        }
        order.applied = reload.0;
        apply();
        true
    }
}

/// Which reload was applied last, at some moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LastApplied(u64);

impl ReloadOrder {
    /// Call before reading a single thing.
    pub(crate) fn last_applied(&self) -> LastApplied {
        LastApplied(self.order.lock().applied)
    }

    /// Runs `apply` with the single thing that was read, unless a reload was applied meanwhile. Whether it ran.
    pub(crate) fn apply_single(&self, since: LastApplied, apply: impl FnOnce()) -> bool {
        let order = self.order.lock();
        if order.applied != since.0 {
            return false;
        }
        apply();
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_earlier_never_replaces_what_was_read_later() {
        let order = ReloadOrder::default();
        let (early, late) = (order.begin(), order.begin());
        let mut applied = Vec::new();
        assert!(order.apply(late, || applied.push("late")));
        assert!(!order.apply(early, || applied.push("early")));
        assert!(order.apply(order.begin(), || applied.push("next")));
        assert_eq!(applied, ["late", "next"]);
    }

    #[test]
    fn a_single_thing_never_replaces_a_reload_and_never_holds_one_back() {
        let order = ReloadOrder::default();
        let (reload, since) = (order.begin(), order.last_applied());
        assert!(order.apply_single(since, || {}));
        assert!(order.apply(reload, || {}));
        assert!(!order.apply_single(since, || {}));
    }
}
