//! Who may serve, at every boundary.

use super::*;

type Change = fn(&mut AccountView);

#[test]
fn an_account_is_eligible_unless_something_stands_in_its_way() {
    use Ineligible as I;
    use Standing::Regular;
    let cases: [(&str, Change, Result<Standing, Ineligible>); 22] = [
        ("active", |_| {}, Ok(Regular)),
        ("paused", |view| view.state = AccountState::Paused, Err(I::Paused)),
        ("login ended", |view| view.state = AccountState::ReauthRequired, Err(I::ReauthRequired)),
        ("closed", |view| view.state = AccountState::Deactivated, Err(I::Deactivated)),
        ("without a way out", |view| view.has_way_out = false, Err(I::NoWayOut)),
        ("limited", |view| limit(view, AccountState::RateLimited, Some(at(1))), Err(I::Limited(Some(at(1))))),
        ("quota", |view| limit(view, AccountState::QuotaExceeded, None), Err(I::Limited(None))),
        ("cooling", |view| view.cooling_until = Some(at(1)), Err(I::CoolingDown(at(1)))),
        ("cooled", |view| view.cooling_until = Some(NOW), Ok(Regular)),
        ("busy", |view| view.in_flight = 8, Ok(Regular)),
        ("nearly used up", |view| view.usage = used(99.9, 99.9), Ok(Regular)),
        ("primary used up", |view| view.usage = used(100.0, 5.0), Err(I::Limited(Some(at(2 * HOUR))))),
        ("secondary used up", |view| view.usage = used(5.0, 100.0), Err(I::Limited(Some(at(3 * DAY))))),
        ("both used up", |view| view.usage = used(100.0, 101.0), Err(I::Limited(Some(at(3 * DAY))))),
        ("reset now", |view| view.usage = used_until(100.0, Some(NOW), 100.0, Some(NOW)), Ok(Regular)),
        (
            "reset in a moment",
            |view| view.usage = used_until(100.0, Some(at(1)), 0.0, None),
            Err(I::Limited(Some(at(1)))),
        ),
        ("end unknown", |view| view.usage = used_until(100.0, None, 100.0, None), Ok(Regular)),
        (
            "one end unknown",
            |view| view.usage = used_until(100.0, None, 100.0, Some(at(DAY))),
            Err(I::Limited(Some(at(DAY)))),
        ),
        ("no number", |view| view.usage = used(f64::NAN, f64::NAN), Ok(Regular)),
        ("fresh to the last", |view| sample_at(view, -600_000), Err(I::Limited(Some(at(2 * HOUR))))),
        ("stale", |view| sample_at(view, -600_001), Ok(Regular)),
        ("sample from the future", |view| sample_at(view, DAY), Err(I::Limited(Some(at(2 * HOUR))))),
    ];
    for (name, change, expected) in cases {
        let mut view = account(1);
        change(&mut view);
        assert_eq!(eligibility(&view, &Needs::default(), NOW), expected, "{name}");
    }
}

fn limit(view: &mut AccountView, state: AccountState, until: Option<Timestamp>) {
    (view.state, view.state_until) = (state, until);
}

fn sample_at(view: &mut AccountView, ms: i64) {
    view.usage = used(100.0, 0.0).map(|usage| AccountUsage { observed_at: at(ms), ..usage });
}

#[test]
fn credits_keep_an_account_that_is_used_up() {
    let paying = [(true, false), (false, true), (true, true)];
    for (has_credits, is_unlimited) in paying {
        let credits = Credits { has_credits, is_unlimited };
        let standing = |usage| eligibility(&AccountView { usage, credits, ..account(1) }, &Needs::default(), NOW);
        assert_eq!(standing(used(100.0, 0.0)), Ok(Standing::OnCredits));
        assert_eq!(standing(used_until(0.0, None, 100.0, None)), Ok(Standing::OnCredits));
        assert_eq!(standing(used(99.9, 99.9)), Ok(Standing::Regular));
    }
    // What upstream refused it refused with all its credits.
    let credits = Credits { has_credits: true, is_unlimited: true };
    let limited = AccountView { state: AccountState::QuotaExceeded, credits, ..account(1) };
    assert_eq!(eligibility(&limited, &Needs::default(), NOW), Err(Ineligible::Limited(None)));
}

#[test]
fn an_exchange_needs_an_account_that_offers_what_it_asks_for() {
    let view = AccountView { plan: Plan::Pro, ..account(5) };
    let five = [id(5)];
    let (only_four, only_five, nobody) = (ids([4]), ids([5]), ids([]));
    let (pro, plus) = ([Plan::Plus, Plan::Pro], [Plan::Plus]);
    let none = Needs::default();
    let cases = [
        ("in scope", Needs { scope: Some(&only_five), ..none }, Ok(Standing::Regular)),
        ("not in scope", Needs { scope: Some(&only_four), ..none }, Err(Ineligible::OutOfScope)),
        ("empty scope", Needs { scope: Some(&nobody), ..none }, Err(Ineligible::OutOfScope)),
        ("model offered", Needs { model_plans: Some(&pro), ..none }, Ok(Standing::Regular)),
        ("model not offered", Needs { model_plans: Some(&plus), ..none }, Err(Ineligible::ModelNotOffered)),
        ("offered by no plan", Needs { model_plans: Some(&[]), ..none }, Err(Ineligible::ModelNotOffered)),
        ("model refused", Needs { model_refused_by: Some(&only_five), ..none }, Err(Ineligible::ModelNotOffered)),
        ("refused by another", Needs { model_refused_by: Some(&only_four), ..none }, Ok(Standing::Regular)),
        ("tier offered", Needs { tier_plans: Some(&pro), ..none }, Ok(Standing::Regular)),
        ("tier not offered", Needs { tier_plans: Some(&plus), ..none }, Err(Ineligible::TierNotOffered)),
        ("excluded", Needs { excluded: &five, ..none }, Err(Ineligible::Excluded)),
        ("another excluded", Needs { excluded: &[id(4)], ..none }, Ok(Standing::Regular)),
    ];
    for (name, needs, expected) in cases {
        assert_eq!(eligibility(&view, &needs, NOW), expected, "{name}");
    }
}

#[test]
fn a_model_with_a_limit_of_its_own_heeds_that_limit_only() {
    let cooldown = |named_limit: &str, until| NamedCooldown { named_limit: named_limit.to_owned(), until };
    let view = AccountView {
        named_cooldowns: vec![cooldown("other", at(9)), cooldown("spark", at(1))],
        ..used_account(1, 100.0, 100.0)
    };
    let needs = |named_limit| Needs { named_limit, ..Needs::default() };
    assert_eq!(eligibility(&view, &needs(Some("spark")), NOW), Err(Ineligible::ModelLimited(at(1))));
    assert_eq!(eligibility(&view, &needs(Some("spark")), at(1)), Ok(Standing::Regular));
    assert_eq!(eligibility(&view, &needs(Some("third")), NOW), Ok(Standing::Regular));
    assert_eq!(eligibility(&view, &needs(None), NOW), Err(Ineligible::Limited(Some(at(3 * DAY)))));
    // The limit of some models is none of the others' business.
    let unused = AccountView { usage: None, ..view };
    assert_eq!(eligibility(&unused, &needs(None), NOW), Ok(Standing::Regular));
}

/// Of several reasons the lasting one is told: what passes sooner would promise too much.
#[test]
fn a_lasting_reason_is_told_before_a_passing_one() {
    let (one, other) = ([id(1)], ids([2]));
    let mut view =
        AccountView { state: AccountState::Paused, cooling_until: Some(at(1)), usage: used(100.0, 0.0), ..account(1) };
    let mut needs = Needs {
        excluded: &one,
        scope: Some(&other),
        model_plans: Some(&[]),
        tier_plans: Some(&[]),
        ..Needs::default()
    };
    assert_eq!(eligibility(&view, &needs, NOW), Err(Ineligible::OutOfScope));
    needs.scope = None;
    assert_eq!(eligibility(&view, &needs, NOW), Err(Ineligible::Paused));
    view.state = AccountState::RateLimited;
    assert_eq!(eligibility(&view, &needs, NOW), Err(Ineligible::ModelNotOffered));
    needs.model_plans = None;
    assert_eq!(eligibility(&view, &needs, NOW), Err(Ineligible::TierNotOffered));
    needs.tier_plans = None;
    assert_eq!(eligibility(&view, &needs, NOW), Err(Ineligible::Limited(None)));
    view.state = AccountState::Active;
    assert_eq!(eligibility(&view, &needs, NOW), Err(Ineligible::Limited(Some(at(2 * HOUR)))));
    view.usage = None;
    assert_eq!(eligibility(&view, &needs, NOW), Err(Ineligible::CoolingDown(at(1))));
    view.cooling_until = None;
    assert_eq!(eligibility(&view, &needs, NOW), Err(Ineligible::Excluded));
}
