//! Draws everything that is left to chance in a run from its seed.
//!
//! Each part of a run draws from a stream of its own, so that leaving one client or fault out of a
//! run, as shrinking does, does not change what the others draw.
//!
//! Ensures: the same seed and stream give the same draws on every machine.

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

/// A stream of draws.
#[derive(Clone, Debug)]
pub struct Chance {
    source: ChaCha8Rng,
}

impl Chance {
    /// The stream of this number of a seed.
    #[must_use]
    pub fn new(seed: u64, stream: u64) -> Self {
        let mut source = ChaCha8Rng::seed_from_u64(seed);
        source.set_stream(stream);
        Self { source }
    }

    /// 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.source.next_u64()
    }

    /// A number below `bound`, which must not be zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(0 < bound, "a draw needs something to draw from");
        let wide = u128::from(self.bits()) * u128::from(bound);
        u64::try_from(wide >> 64).expect("the upper half of a product fits")
    }

    /// A number from `least` to `most`, both included.
    pub fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.below(most - least + 1)
    }

    /// A place in a list of this length, which must not be empty.
    pub fn place(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).expect("below a length")
    }

    /// True in so many of a thousand cases.
    pub fn per_mille(&mut self, cases: u64) -> bool {
        cases != 0 && self.below(1000) < cases
    }

    /// One of the items, which must not be empty.
    pub fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.place(items.len())]
    }

    /// A number around `mean`, mostly smaller and at times several times as large.
    pub fn spread(&mut self, mean: u64) -> u64 {
        let uniform = self.between(1, 1 << 20);
        let doublings = 20 - u64::from(63 - uniform.leading_zeros()); // Geometric, 2 in the mean.
        let within = self.below(1 << 20);
        mean * doublings * 3 / 8 + ((mean * within) >> 20) / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_seed_and_stream_draw_the_same() {
        let draw = |seed, stream| {
            let mut chance = Chance::new(seed, stream);
            (0..20).map(|_| chance.bits()).collect::<Vec<_>>()
        };
        assert_eq!(draw(7, 1), draw(7, 1));
        assert_ne!(draw(7, 1), draw(7, 2));
        assert_ne!(draw(7, 1), draw(8, 1));
    }

    #[test]
    fn draws_stay_within_their_bounds_and_reach_them() {
        let mut chance = Chance::new(3, 0);
        let draws: Vec<u64> = (0..1000).map(|_| chance.between(5, 9)).collect();
        assert_eq!((draws.iter().min(), draws.iter().max()), (Some(&5), Some(&9)));
    }

    #[test]
    fn spread_keeps_its_mean() {
        let mut chance = Chance::new(3, 0);
        let sum: u64 = (0..20_000).map(|_| chance.spread(1000)).sum();
        assert!((700..1300).contains(&(sum / 20_000)), "the mean is {}", sum / 20_000);
    }
}
