//! Three regions of the world and how far they are from each other.

use std::time::Duration;

/// The names of the datacenters.
pub(crate) const NAMES: [&str; 3] = ["eu-west", "us-east", "ap-south"];

/// The pairs of them, in the order in which latencies are given.
pub(crate) const PAIRS: [(usize, usize); 3] = [(0, 1), (0, 2), (1, 2)];

/// Round trips of the pairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Latencies(pub(crate) [Duration; 3]);

impl std::str::FromStr for Latencies {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let times: Result<Vec<Duration>, String> =
            text.split('/').map(crate::arguments::time).collect();
        match times?[..] {
            [all] => Ok(Self([all; 3])),
            [first, second, third] => Ok(Self([first, second, third])),
            _ => Err("give one round trip for all pairs, or three such as 80ms/140ms/180ms".into()),
        }
    }
}

impl Latencies {
    /// The one-way delays of all directions: half of the round trip each.
    pub(crate) fn one_way(self) -> impl Iterator<Item = (&'static str, &'static str, Duration)> {
        PAIRS.into_iter().zip(self.0).flat_map(|((one, other), round_trip)| {
            let delay = round_trip / 2;
            [(NAMES[one], NAMES[other], delay), (NAMES[other], NAMES[one], delay)]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_trip_is_two_equal_ways() {
        let latencies: Latencies = "80ms/140ms/180ms".parse().unwrap();
        let ways: Vec<_> = latencies.one_way().collect();
        assert_eq!(ways.len(), 6);
        let way = |from, to| ways.iter().find(|way| (way.0, way.1) == (from, to)).unwrap().2;
        assert_eq!(way("eu-west", "us-east"), Duration::from_millis(40));
        assert_eq!(way("us-east", "eu-west"), Duration::from_millis(40));
        assert_eq!(way("ap-south", "us-east"), Duration::from_millis(90));
    }

    #[test]
    fn one_time_stands_for_all_pairs_and_two_for_none() {
        assert_eq!("10ms".parse(), Ok(Latencies([Duration::from_millis(10); 3])));
        assert!("1ms/2ms".parse::<Latencies>().is_err());
        assert!("fast".parse::<Latencies>().is_err());
    }
}
