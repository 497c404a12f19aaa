//! Checks that a stalled shard does not delay writes that do not depend on it.
//!
//! Two runs of one plan are measured, with and without a node that is down for long: the delays
//! from stamp to visible of the shards that the node does not hold must stay alike.

use super::Failure;

/// Delays from stamp to visible, in microseconds.
#[derive(Clone, Debug, Default)]
pub struct Delays {
    micros: Vec<u64>,
}

impl Delays {
    /// Adds one.
    pub fn add(&mut self, micros: u64) {
        self.micros.push(micros);
    }

    /// How many there are.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.micros.len()
    }

    /// The delay that so many of a hundred do not exceed.
    #[must_use]
    pub fn percentile(&self, percent: usize) -> u64 {
        let mut sorted = self.micros.clone();
        sorted.sort_unstable();
        let place = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
        sorted.get(place).copied().unwrap_or_default()
    }
}

/// Judges the delays of unrelated shards with a stall by those without.
///
/// # Errors
/// When they are more than a fifth and two milliseconds larger.
pub fn check(without: &Delays, with: &Delays) -> Result<(), Failure> {
    for percent in [50, 99] {
        let (usual, stalled) = (without.percentile(percent), with.percentile(percent));
        if usual + usual / 5 + 2_000 < stalled {
            let what = format!(
                "p{percent} of unrelated shards is {stalled} us while one is stalled, {usual} us \
                 otherwise"
            );
            return Err(Failure::new("visibility", what));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delays(micros: impl Iterator<Item = u64>) -> Delays {
        Delays { micros: micros.collect() }
    }

    #[test]
    fn a_longer_tail_is_found() {
        let usual = delays((0..1000).map(|_| 40_000));
        let alike = delays((0..1000).map(|number| 40_000 + number));
        let late = delays((0..1000).map(|number| if number < 20 { 900_000 } else { 40_000 }));
        assert_eq!(check(&usual, &alike), Ok(()));
        assert!(check(&usual, &late).unwrap_err().what.contains("p99"));
    }
}
