//! Reads what is typed behind options: times, fractions, ratios, addresses.

use std::time::Duration;

/// The command was used wrongly: the arguments are fine one by one, but not together.
#[derive(Debug, thiserror::Error)]
#[error("{0}; see antecede help for what there is")]
pub(crate) struct UsageError(pub(crate) String);

/// A time such as `1m 30s`.
pub(crate) fn time(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|error| format!("{error}; give a time such as 500ms, 60s or 2m"))
}

/// A number from 0 to 1.
pub(crate) fn fraction(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(fraction) if (0.0..=1.0).contains(&fraction) => Ok(fraction),
        Ok(_) | Err(_) => Err("give a fraction from 0 to 1".to_owned()),
    }
}

/// How many reads for how many writes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Ratio {
    /// Reads.
    pub(crate) reads: u32,
    /// Writes.
    pub(crate) writes: u32,
}

impl Ratio {
    /// The part of reads among all.
    pub(crate) fn read_fraction(self) -> f64 {
        f64::from(self.reads) / (f64::from(self.reads) + f64::from(self.writes))
    }
}

impl std::str::FromStr for Ratio {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once(':').and_then(|(reads, writes)| {
            Some(Self { reads: reads.parse().ok()?, writes: writes.parse().ok()? })
        });
        parts
            .filter(|ratio| 0 < ratio.reads.saturating_add(ratio.writes))
            .ok_or_else(|| "give reads and writes such as 90:10".to_owned())
    }
}

impl std::fmt::Display for Ratio {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.reads, self.writes)
    }
}

/// An address with a port; a port alone is on this machine.
pub(crate) fn address(text: &str) -> Result<String, String> {
    let full = if text.contains(':') { text.to_owned() } else { format!("127.0.0.1:{text}") };
    let is_whole = full
        .rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
    if is_whole { Ok(full) } else { Err("give an address such as 127.0.0.1:6379".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_tells_the_part_of_reads() {
        assert_eq!("90:10".parse::<Ratio>().unwrap().read_fraction(), 0.9);
        assert_eq!("0:1".parse::<Ratio>().unwrap().read_fraction(), 0.0);
        for text in ["", "1", "0:0", "-1:2", "1:2:3"] {
            assert!(text.parse::<Ratio>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_port_alone_is_on_this_machine() {
        assert_eq!(address("6379").unwrap(), "127.0.0.1:6379");
        assert_eq!(address("[::1]:6379").unwrap(), "[::1]:6379");
        for text in ["", "host", ":1", "host:", "host:99999"] {
            assert!(address(text).is_err(), "{text}");
        }
    }

    #[test]
    fn fractions_and_times_have_bounds_and_units() {
        assert_eq!(fraction("0.25"), Ok(0.25));
        assert!(fraction("1.1").is_err() && fraction("NaN").is_err());
        assert_eq!(time("1m 30s"), Ok(Duration::from_secs(90)));
        assert!(time("soon").unwrap_err().contains("500ms"));
    }
}
