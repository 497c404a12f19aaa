//! Checks that after healing everything comes to rest in bounded time: clients are answered,
//! replicas settle, writes become stable everywhere.

use super::Failure;
use crate::moment::{Moment, SECOND};

/// Virtual time in which a healed deployment must come to rest.
pub const REST_WITHIN: u64 = 60 * SECOND;

/// What is still under way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unrest {
    /// Clients that wait for an answer.
    pub clients: Vec<String>,
    /// Replicas that have not settled.
    pub unsettled: Vec<String>,
    /// Tails that have not applied every write, or do not know that no more will come.
    pub behind: Vec<String>,
    /// Nodes whose stable cut does not cover every write.
    pub unstable: Vec<String>,
    /// Replicas that do not hold what they should.
    pub different: Vec<String>,
}

impl Unrest {
    /// Whether nothing is under way.
    #[must_use]
    pub fn is_rest(&self) -> bool {
        self.clients.is_empty()
            && self.unsettled.is_empty()
            && self.unstable.is_empty()
            && self.different.is_empty()
    }
}

/// Judges what is under way at a moment.
///
/// # Errors
/// When the bound is over and something still is.
pub fn check(healed: Moment, now: Moment, unrest: &Unrest) -> Result<(), Failure> {
    if unrest.is_rest() || now.since(healed) < REST_WITHIN {
        return Ok(());
    }
    let seconds = REST_WITHIN / SECOND;
    let (property, why) = if unrest.clients.is_empty() && unrest.unsettled.is_empty() {
        ("converged", "the datacenters still differ or do not know that they agree")
    } else {
        ("no_stuck", "something is still under way")
    };
    Err(Failure::new(property, format!("{seconds} s after healing {why}: {unrest:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_under_way_is_a_failure_only_after_the_bound() {
        let healed = Moment(30 * SECOND);
        let mut unrest = Unrest::default();
        assert_eq!(check(healed, healed.after(2 * REST_WITHIN), &unrest), Ok(()));
        unrest.unsettled.push("1.1 shard 0".to_owned());
        assert_eq!(check(healed, healed.after(SECOND), &unrest), Ok(()));
        let failure = check(healed, healed.after(REST_WITHIN), &unrest).unwrap_err();
        assert_eq!(failure.property, "no_stuck");
    }
}
