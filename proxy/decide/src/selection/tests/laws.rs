//! What holds of every strategy, whatever the accounts.

use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::strategy::Strategy as PropStrategy;

use super::*;

prop_compose! {
    fn any_window(minutes: u32)(
        percent in prop_oneof![8 => -20.0..150.0, 1 => Just(f64::NAN), 1 => Just(f64::INFINITY), 2 => Just(100.0)],
        minutes in prop_oneof![3 => Just(minutes), 1 => Just(0)],
        resets_in in prop::option::of(prop_oneof![-HOUR..8 * DAY, Just(0), Just(i64::MAX / 2)]),
    ) -> Option<UpstreamWindow> {
        window(percent, minutes, resets_in.map(at))
    }
}

prop_compose! {
    fn any_facts()(
        error in prop::option::of(-100_000_i64..100),
        reason in prop::option::of(-200_000_i64..100),
        successes in prop::array::uniform3(prop::option::of(-100_000_i64..0)),
        used in prop::option::of(-100_000_i64..100),
    ) -> HealthFacts {
        HealthFacts {
            last_error_at: error.map(at),
            last_reason_at: reason.map(at),
            successes_at: successes.map(|ms| ms.map(at)),
            last_used_at: used.map(at),
        }
    }
}

prop_compose! {
    fn any_account()(
        plan in prop::sample::select(vec![Plan::Free, Plan::Plus, Plan::Prolite, Plan::Pro]),
        state in prop::sample::select(vec![
            AccountState::Active, AccountState::Active, AccountState::Active, AccountState::Active,
            AccountState::RateLimited, AccountState::Paused,
        ]),
        usage in prop::option::of((prop::option::of(any_window(300)), prop::option::of(any_window(10_080)), -HOUR..HOUR)),
        policy in prop::sample::select(vec![RoutingPolicy::BurnFirst, RoutingPolicy::Normal, RoutingPolicy::Preserve]),
        has_credits in any::<bool>(),
        cooling in prop::option::of(-10_i64..10),
        in_flight in 0_u32..10,
        last_chosen in 0_u64..4,
        health in any_facts(),
    ) -> AccountView {
        let usage = usage.map(|(primary, secondary, observed)| AccountUsage {
            primary: primary.flatten(),
            secondary: secondary.flatten(),
            observed_at: at(observed),
        });
        AccountView {
            plan, state, usage, in_flight, last_chosen, health,
            routing_policy: policy,
            credits: Credits { has_credits, is_unlimited: false },
            cooling_until: cooling.map(at),
            ..account(0)
        }
    }
}

/// Accounts with ids of their own.
fn any_pool(size: std::ops::Range<usize>) -> impl PropStrategy<Value = Vec<AccountView>> {
    prop::collection::vec(any_account(), size).prop_map(|mut pool| {
        for (number, view) in pool.iter_mut().enumerate() {
            view.id = id(number as u128 * 5 % 64);
        }
        pool
    })
}

fn any_rules() -> impl PropStrategy<Value = RoutingSettings> {
    (prop::sample::select(StrategyKind::ALL.to_vec()), any::<bool>(), any::<bool>(), prop::option::of(0_u128..64))
        .prop_map(|(strategy, prefer_earlier_reset, sticky_sessions, single)| RoutingSettings {
            strategy,
            prefer_earlier_reset,
            sticky_sessions,
            single_account: single.map(id),
            ..RoutingSettings::default()
        })
}

fn any_affinity() -> impl PropStrategy<Value = Affinity> {
    let sticky = (any::<[u8; 16]>(), 0_u128..64, any::<bool>());
    prop_oneof![
        Just(Affinity::None),
        any::<[u8; 16]>().prop_map(|key| Affinity::New { key }),
        sticky.prop_map(|(key, own, has_waited)| Affinity::Sticky { key, account: id(own), has_waited }),
        (0_u128..64).prop_map(|own| Affinity::Owner(id(own))),
    ]
}

proptest! {
    #[test]
    fn a_strategy_keeps_the_set_and_is_deterministic_given_the_dice(
        pool in any_pool(0..13),
        dice in any::<u128>(),
        rotation in 0_usize..13,
    ) {
        for kind in StrategyKind::ALL {
            for basis in [Basis::Process, Basis::Shared] {
                let sight = Sight::new(NOW, basis, dice);
                let mut candidates: Vec<&AccountView> = pool.iter().collect();
                let mut turned = candidates.clone();
                turned.rotate_left(rotation.min(pool.len()));
                let mut taken = BTreeSet::new();
                while let Some(best) = strategy(kind).best(&candidates, &sight) {
                    let same = strategy(kind).best(&turned, &sight).map(|account| account.id);
                    prop_assert_eq!(Some(best.id), same, "{:?} depends on the order of the accounts", kind);
                    prop_assert!(taken.insert(best.id));
                    candidates.retain(|account| account.id != best.id);
                    turned.retain(|account| account.id != best.id);
                }
                prop_assert_eq!(taken.len(), pool.len(), "{:?} lost an account", kind);
            }
        }
    }

    #[test]
    fn a_choice_is_eligible_has_a_slot_and_is_made_if_one_can_be(
        pool in any_pool(0..13),
        settings in any_rules(),
        affinity in any_affinity(),
        dice in any::<u128>(),
    ) {
        let needs = Needs::default();
        let choice = Choice { accounts: &pool, needs: &needs, settings: &settings, now: NOW };
        let may_serve = |account: &AccountView| match affinity {
            Affinity::Owner(owner) => account.id == owner && eligibility(account, &needs, NOW).is_ok(),
            Affinity::None | Affinity::New { .. } | Affinity::Sticky { .. } => choice.standing(account).is_ok(),
        };
        let find = |wanted: AccountId| pool.iter().find(|account| account.id == wanted);
        let answer = choose(&pool, &needs, &settings, affinity, dice, NOW);
        prop_assert_eq!(&answer, &choose(&pool, &needs, &settings, affinity, dice, NOW));
        match answer {
            Ok(chosen) => {
                prop_assert!(find(chosen.account).is_some_and(|account| may_serve(account) && account.has_free_slot()));
            }
            Err(NotChosen::AtCapacity(at_capacity)) => {
                prop_assert!(!at_capacity.eligible.is_empty());
                for busy in &at_capacity.eligible {
                    prop_assert!(find(*busy).is_some_and(|account| may_serve(account) && !account.has_free_slot()));
                }
                let has_slot = pool.iter().any(|account| may_serve(account) && account.has_free_slot());
                prop_assert!(at_capacity.is_for_own() || !has_slot);
            }
            Err(NotChosen::Nobody(trouble)) => {
                prop_assert!(!pool.iter().any(may_serve));
                prop_assert_eq!(trouble.accounts as usize, pool.len());
            }
            Err(NotChosen::OwnerUnavailable(unavailable)) => {
                prop_assert_eq!(affinity, Affinity::Owner(unavailable.owner));
                prop_assert!(!pool.iter().any(may_serve));
            }
        }
    }

    #[test]
    fn an_eligible_conversation_with_a_slot_moves_for_no_reason_but_wear(
        pool in any_pool(1..13),
        settings in any_rules(),
        own in 0_usize..13,
        dice in any::<u128>(),
    ) {
        let own = &pool[own % pool.len()];
        let needs = Needs::default();
        let choice = Choice { accounts: &pool, needs: &needs, settings: &settings, now: NOW };
        let Ok(standing) = choice.standing(own) else { return Ok(()) };
        let is_kept = settings.sticky_sessions && own.has_free_slot() && !choice.is_worn(own, standing);
        prop_assume!(is_kept);
        let affinity = Affinity::Sticky { key: KEY, account: own.id, has_waited: false };
        prop_assert_eq!(
            choose(&pool, &needs, &settings, affinity, dice, NOW),
            Ok(Chosen { account: own.id, why: Why::Sticky })
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Every account serves before the pool is used up, though its share be small and nothing ever resets.
    #[test]
    fn nobody_starves(plans in prop::collection::vec(prop::sample::select(vec![Plan::Plus, Plan::Prolite, Plan::Pro]), 1..9)) {
        const CREDITS_PER_EXCHANGE: f64 = 100.0;
        let kinds = [StrategyKind::CapacityWeighted, StrategyKind::RelativeAvailability, StrategyKind::RoundRobin];
        for kind in kinds {
            let view = |(number, plan): (usize, &Plan)| AccountView { plan: *plan, ..used_account(number as u128, 0.0, 0.0) };
            let mut pool: Vec<AccountView> = plans.iter().enumerate().map(view).collect();
            let mut served = BTreeSet::new();
            let mut round = 0;
            while let Ok(chosen) = choose(&pool, &Needs::default(), &rules(kind), Affinity::None, round, NOW) {
                round += 1;
                let is_in_time = pool.iter().any(|view| view.secondary_percent_at(NOW) < 80.0);
                if is_in_time {
                    served.insert(chosen.account);
                }
                let view = pool.iter_mut().find(|view| view.id == chosen.account).unwrap();
                view.last_chosen = round as u64;
                if let Some(secondary) = view.usage.as_mut().and_then(|usage| usage.secondary.as_mut()) {
                    secondary.used_percent += 100.0 * CREDITS_PER_EXCHANGE / f64::from(view.plan.secondary_credits());
                }
            }
            prop_assert_eq!(served.len(), pool.len(), "{:?} starves an account", kind);
        }
    }
}
