//! Draws numbers from a seed: the same run twice asks for the same keys in the same order.
//!
//! SplitMix64 (Steele, Lea and Flood, 2014): one addition and two multiplications a number.

/// A source of numbers.
#[derive(Clone, Debug)]
pub(crate) struct Chance {
    state: u64,
}

impl Chance {
    /// The source of one connection; different `lane`s give independent numbers.
    pub(crate) fn new(seed: u64, lane: u64) -> Self {
        let mut chance = Self { state: seed };
        chance.state = chance.bits() ^ lane.wrapping_mul(0xD6E8_FEB8_6659_FD93);
        chance.state = chance.bits();
        chance
    }

    /// 64 bits.
    pub(crate) fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mixed(self.state)
    }

    /// A number below `limit`; 0 if there is none.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        let product = u128::from(self.bits()) * u128::from(limit);
        u64::try_from(product >> 64).expect("the upper half of a product has 64 bits")
    }

    /// A number from 0 up to, but not, 1.
    pub(crate) fn unit(&mut self) -> f64 {
        unit_of(self.bits())
    }
}

/// Spreads the bits of `number` over all places.
pub(crate) fn mixed(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    number ^ (number >> 31)
}

/// The upper 53 bits as a number from 0 up to, but not, 1.
pub(crate) fn unit_of(bits: u64) -> f64 {
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_gives_one_sequence_and_another_lane_another() {
        let take = |seed, lane| {
            let mut chance = Chance::new(seed, lane);
            (0..4).map(|_| chance.bits()).collect::<Vec<_>>()
        };
        assert_eq!(take(7, 1), take(7, 1));
        assert_ne!(take(7, 1), take(7, 2));
        assert_ne!(take(7, 1), take(8, 1));
    }

    #[test]
    fn numbers_spread_evenly_below_their_limit() {
        let mut chance = Chance::new(1, 0);
        let mut counts = [0_u32; 10];
        for _ in 0..100_000 {
            counts[usize::try_from(chance.below(10)).unwrap()] += 1;
            assert!((0.0..1.0).contains(&chance.unit()));
        }
        assert!(counts.iter().all(|count| (9_500..10_500).contains(count)), "{counts:?}");
    }
}
