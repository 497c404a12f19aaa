//! Chooses keys: all alike, or a few far more often than the others.
//!
//! The zipfian choice follows Gray et al., "Quickly generating billion-record synthetic databases"
//! (1994), the way YCSB does: one power a draw, and a sum over all keys once at the start.

use super::chance::Chance;

/// Of so many keys the sum of the zipfian law is exact; what lies beyond is an integral.
const EXACT_MAX: u64 = 10_000_000;

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Distribution {
    /// Every key as often as every other.
    Uniform,
    /// The key of rank r in proportion to r to the power of minus theta.
    Zipfian {
        /// Above 0 and below 1; the larger, the more uneven.
        theta: f64,
    },
}

impl std::str::FromStr for Distribution {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "\"{text}\" is not a distribution; give uniform, zipfian, or zipfian:0.99 with \
                 an exponent above 0 and below 1"
            )
        };
        let (name, theta) = match text.split_once([':', '(']) {
            Some((name, theta)) => (name, theta.trim_end_matches(')')),
            None => (text, "0.99"),
        };
        match name {
            "uniform" if name == text => Ok(Self::Uniform),
            "zipfian" => match theta.parse() {
                Ok(theta) if 0.0 < theta && theta < 1.0 => Ok(Self::Zipfian { theta }),
                Ok(_) | Err(_) => Err(wrong()),
            },
            _ => Err(wrong()),
        }
    }
}

impl std::fmt::Display for Distribution {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Uniform => f.write_str("uniform"),
            Self::Zipfian { theta } => write!(f, "zipfian:{theta}"),
        }
    }
}

/// Draws key numbers below a count.
#[derive(Clone, Debug)]
pub(crate) enum Choice {
    /// See [`Distribution::Uniform`].
    Uniform {
        /// How many keys.
        count: u64,
    },
    /// See [`Distribution::Zipfian`].
    Zipfian {
        /// How many keys.
        count: u64,
        /// The exponent.
        theta: f64,
        /// The sum of the law over all keys.
        zeta: f64,
        /// 1 / (1 - theta).
        alpha: f64,
        /// Gray's eta.
        eta: f64,
    },
}

impl Choice {
    /// Prepares draws among `count` keys.
    pub(crate) fn new(distribution: Distribution, count: u64) -> Self {
        match distribution {
            Distribution::Uniform => Self::Uniform { count },
            Distribution::Zipfian { theta } => {
                let zeta = sum_of_powers(count, theta);
                let alpha = 1.0 / (1.0 - theta);
                let two = sum_of_powers(2, theta);
                let eta = (1.0 - (2.0 / count as f64).powf(1.0 - theta)) / (1.0 - two / zeta);
                Self::Zipfian { count, theta, zeta, alpha, eta }
            }
        }
    }

    /// The number of a key; small numbers are the ones asked for most.
    pub(crate) fn draw(&self, chance: &mut Chance) -> u64 {
        match self {
            Self::Uniform { count } => chance.below(*count),
            Self::Zipfian { count, theta, zeta, alpha, eta } => {
                let unit = chance.unit();
                let share = unit * zeta;
                if share < 1.0 || *count <= 1 {
                    return 0;
                }
                if share < 1.0 + 0.5_f64.powf(*theta) || *count <= 2 {
                    return 1;
                }
                let place = *count as f64 * (eta * unit - eta + 1.0).powf(*alpha);
                whole(place).min(count - 1)
            }
        }
    }
}

/// The sum of r to the power of -theta for r from 1 to `count`.
fn sum_of_powers(count: u64, theta: f64) -> f64 {
    let exact: f64 = (1..=count.min(EXACT_MAX)).map(|rank| (rank as f64).powf(-theta)).sum();
    if count <= EXACT_MAX {
        return exact;
    }
    let integral = |to: u64| (to as f64 + 0.5).powf(1.0 - theta) / (1.0 - theta);
    exact + integral(count) - integral(EXACT_MAX)
}

/// The whole part of a number that is not negative.
#[expect(clippy::cast_possible_truncation, reason = "the fraction is what is cut off")]
fn whole(number: f64) -> u64 {
    number as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(distribution: Distribution, count: u64, draws: u32) -> Vec<f64> {
        let choice = Choice::new(distribution, count);
        let mut chance = Chance::new(3, 0);
        let mut counts = vec![0.0; usize::try_from(count).unwrap()];
        for _ in 0..draws {
            counts[usize::try_from(choice.draw(&mut chance)).unwrap()] += 1.0 / f64::from(draws);
        }
        counts
    }

    #[test]
    fn uniform_choice_takes_all_keys_alike() {
        for share in shares(Distribution::Uniform, 20, 200_000) {
            assert!((share - 0.05).abs() < 0.005, "{share}");
        }
    }

    #[test]
    fn zipfian_choice_follows_its_law() {
        let theta = 0.9;
        let found = shares(Distribution::Zipfian { theta }, 1000, 500_000);
        let zeta = sum_of_powers(1000, theta);
        let wanted = |rank: usize| (rank as f64 + 1.0).powf(-theta) / zeta;
        for rank in [0, 1] {
            let (found, wanted) = (found[rank], wanted(rank));
            assert!((found / wanted - 1.0).abs() < 0.05, "rank {rank}: {found}, {wanted}");
        }
        // Gray's method is an approximation in the single rank, and good in ranges of them.
        for range in [2..10, 10..100, 100..1000] {
            let part = found[range.clone()].iter().sum::<f64>();
            let law = range.clone().map(wanted).sum::<f64>();
            assert!((part / law - 1.0).abs() < 0.12, "ranks {range:?}: {part}, {law}");
        }
    }

    #[test]
    fn every_count_of_keys_can_be_drawn_from() {
        let mut chance = Chance::new(5, 0);
        for count in 1..6 {
            for distribution in [Distribution::Uniform, Distribution::Zipfian { theta: 0.99 }] {
                let choice = Choice::new(distribution, count);
                assert!((0..1000).all(|_| choice.draw(&mut chance) < count));
            }
        }
    }

    #[test]
    fn the_sum_goes_on_smoothly_where_it_becomes_an_integral() {
        let step = sum_of_powers(EXACT_MAX + 1, 0.99) - sum_of_powers(EXACT_MAX, 0.99);
        let wanted = (EXACT_MAX as f64 + 1.0).powf(-0.99);
        assert!((step / wanted - 1.0).abs() < 0.01, "{step} {wanted}");
    }

    #[test]
    fn distributions_are_written_as_they_are_read() {
        for text in ["uniform", "zipfian:0.99", "zipfian:0.5"] {
            assert_eq!(text.parse::<Distribution>().unwrap().to_string(), text);
        }
        assert_eq!("zipfian".parse(), Ok(Distribution::Zipfian { theta: 0.99 }));
        assert_eq!("zipfian(0.7)".parse(), Ok(Distribution::Zipfian { theta: 0.7 }));
        for text in ["", "zipf", "zipfian:1", "zipfian:0", "zipfian:x", "uniform:1"] {
            assert!(text.parse::<Distribution>().is_err(), "{text}");
        }
    }
}
