//! `relative_availability`: a weighted draw among the accounts that have most to spend until their reset.

use super::{AccountView, Figure, Sight, Strategy};

/// How many accounts take part in the draw.
const DRAWN_MAX: usize = 5;
/// A reset nearer than this counts as this near: what is left then cannot be spent anyway.
const SECONDS_TO_RESET_MIN: f64 = 300.0;
/// Credits that count as left at least, so that weights stay positive.
const CREDITS_LEFT_MIN: f64 = 1.0;

/// Draws among the best five; an account weighs the square of the credits per second that it has until its reset.
pub(super) struct RelativeAvailability;

impl Strategy for RelativeAvailability {
    fn best<'a>(&self, candidates: &[&'a AccountView], sight: &Sight) -> Option<&'a AccountView> {
        let best = best_five(candidates, sight);
        sight.draw(best.into_iter().flatten().map(|(score, account)| (account, score.0 * score.0)))
    }
}

/// Keeps the five best in order while going over the candidates once. Of equal ones the luckier stay: else of six
/// accounts that are alike one would never serve.
fn best_five<'a>(candidates: &[&'a AccountView], sight: &Sight) -> [Option<(Figure, &'a AccountView)>; DRAWN_MAX] {
    let mut best: [Option<(Figure, &'a AccountView)>; DRAWN_MAX] = [None; DRAWN_MAX];
    for account in candidates.iter().copied() {
        let score = Figure(credits_per_second(account, sight));
        if best[DRAWN_MAX - 1].is_some_and(|(fifth, _)| score < fifth) {
            continue;
        }
        let mut falling = Some((score, account));
        for place in &mut best {
            let is_better = match (falling, *place) {
                (Some(falling), Some(held)) => is_better(falling, held, sight),
                (falling, _) => falling.is_some(),
            };
            if is_better {
                std::mem::swap(place, &mut falling);
            }
        }
    }
    best
}

fn is_better(one: (Figure, &AccountView), other: (Figure, &AccountView), sight: &Sight) -> bool {
    let by_luck = || sight.luck(one.1).cmp(&sight.luck(other.1));
    one.0.cmp(&other.0).then_with(by_luck).then_with(|| one.1.id.cmp(&other.1.id)).is_gt()
}

fn credits_per_second(account: &AccountView, sight: &Sight) -> f64 {
    let credits_left = sight.credits_left(account).max(CREDITS_LEFT_MIN);
    credits_left / sight.seconds_to_reset(account).max(SECONDS_TO_RESET_MIN)
}
