//! The field of a choice: all accounts gone over once, the best group of them kept, the others counted.

use codex_lb_shared::clock::Timestamp;
use codex_lb_shared::domain::account::RoutingPolicy;
use codex_lb_shared::domain::settings::RoutingSettings;
use codex_lb_shared::ids::AccountId;

use super::Choice;
use super::eligibility::Standing;
use super::health::{HealthTier, is_due_for_probe};
use super::outcome::PoolTrouble;
use super::sight::Sight;
use super::strategy::{heeds_reset_day, strategy};
use super::view::AccountView;

/// What comes before any strategy, best first. `Preserve` stands before health, because such an account serves only
/// when no other can; within one tier of health the rest of an operator's wish counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Group {
    standing: Standing,
    is_preserved: bool,
    tier: HealthTier,
    policy: RoutingPolicy,
}

/// Who takes part in a choice, and what is wrong with the others.
pub(super) struct Field<'a> {
    /// The best group among those with a free slot.
    candidates: Vec<&'a AccountView>,
    group: Option<Group>,
    /// The probing account that gets the next request, if one was not used for a while.
    due_probe: Option<&'a AccountView>,
    /// Whether any account is eligible, busy or not.
    pub(super) has_eligible: bool,
    /// What is wrong with those that are not.
    pub(super) trouble: PoolTrouble,
}

impl<'a> Field<'a> {
    /// Goes over the accounts of a choice once.
    pub(super) fn gather(choice: &Choice<'a>, sight: &Sight, is_wanted: impl Fn(&AccountView) -> bool) -> Self {
        let mut field = Self {
            candidates: Vec::with_capacity(choice.accounts.len()),
            group: None,
            due_probe: None,
            has_eligible: false,
            trouble: PoolTrouble::default(),
        };
        for account in choice.accounts {
            match choice.standing(account) {
                Ok(standing) => {
                    field.has_eligible = true;
                    if account.has_free_slot() && is_wanted(account) {
                        field.add(account, standing, sight, choice.now);
                    }
                }
                Err(reason) => field.trouble.count(account, reason),
            }
        }
        field
    }

    fn add(&mut self, account: &'a AccountView, standing: Standing, sight: &Sight, now: Timestamp) {
        let group = Group {
            standing,
            is_preserved: is_preserved(account),
            tier: sight.tier(account),
            policy: account.routing_policy,
        };
        if group.tier == HealthTier::Probing && is_due_for_probe(account, now) {
            let due = [self.due_probe, Some(account)].into_iter().flatten();
            self.due_probe = due.min_by_key(|account| probe_rank(account));
        }
        if self.group.is_none_or(|best| group < best) {
            self.candidates.clear();
            self.group = Some(group);
        }
        if self.group == Some(group) {
            self.candidates.push(account);
        }
    }

    /// The account that serves; `None` when no candidate is left.
    pub(super) fn best(&mut self, settings: &RoutingSettings, sight: &Sight) -> Option<&'a AccountView> {
        // A preserved account proves itself when it is needed, not before.
        let due = self.due_probe.filter(|due| self.group.is_some_and(|best| best.is_preserved == is_preserved(due)));
        if due.is_some() {
            return due;
        }
        if settings.prefer_earlier_reset && heeds_reset_day(settings.strategy) {
            keep_earliest_reset_day(&mut self.candidates, sight);
        }
        strategy(settings.strategy).best(&self.candidates, sight)
    }
}

fn is_preserved(account: &AccountView) -> bool {
    account.routing_policy == RoutingPolicy::Preserve
}

/// Who waited longest is tried first; never used is longest.
fn probe_rank(account: &AccountView) -> (bool, Option<Timestamp>, AccountId) {
    (is_preserved(account), account.health.last_used_at, account.id)
}

fn keep_earliest_reset_day(candidates: &mut Vec<&AccountView>, sight: &Sight) {
    if let Some(earliest) = candidates.iter().map(|account| sight.reset_day(account)).min() {
        candidates.retain(|account| sight.reset_day(account) == earliest);
    }
}
