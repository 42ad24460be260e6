//! Random numbers that a seed repeats.

/// Rolls the same numbers for the same seed.
pub(super) struct Dice(u64);

impl Dice {
    /// Dice for one of many purposes under the run's seed.
    pub(super) fn new(seed: u64, purpose: u64) -> Self {
        Self(seed ^ purpose.wrapping_mul(0xd134_2543_de82_ef95))
    }

    /// A number below `bound`.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.roll() % bound
    }

    /// Whether something happens that happens in so many of a hundred cases.
    pub(super) fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }

    /// Brings a deck into any order.
    pub(super) fn shuffle<T>(&mut self, deck: &mut [T]) {
        for left in (1..deck.len()).rev() {
            let other = self.below(left as u64 + 1);
            deck.swap(left, usize::try_from(other).unwrap());
        }
    }

    // SplitMix64.
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
