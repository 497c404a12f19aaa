//! Counts what became of operations: latencies by kind, errors by code, lost connections.
//!
//! Latencies are kept in nanoseconds with three digits in HDR histograms, one for each thread and
//! kind, added up at the end.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::Serialize;

/// The longest latency that is told apart, in nanoseconds; longer ones count as this.
const LATENCY_MAX: u64 = 1_000_000_000_000;

/// Latencies below are not told apart.
const LATENCY_MIN: u64 = 100;

/// What is measured by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// `GET`.
    Get,
    /// `SET`.
    Set,
    /// `DEL`.
    Delete,
    /// From a `SET` to the answer of the `WAIT` behind it.
    SetAndWait,
}

impl Kind {
    /// All kinds, in the order of the report.
    pub(crate) const ALL: [Self; 4] = [Self::Get, Self::Set, Self::Delete, Self::SetAndWait];

    /// What people call it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Set => "SET",
            Self::Delete => "DEL",
            Self::SetAndWait => "SET+WAIT",
        }
    }

    const fn place(self) -> usize {
        match self {
            Self::Get => 0,
            Self::Set => 1,
            Self::Delete => 2,
            Self::SetAndWait => 3,
        }
    }
}

/// What one thread counted, or all together.
#[derive(Clone, Debug)]
pub(crate) struct Tally {
    latencies: [Histogram<u64>; 4],
    /// Reads that found a value.
    pub(crate) hits: u64,
    /// Reads that found nothing.
    pub(crate) misses: u64,
    /// `WAIT`s that ended with fewer acknowledgements than asked for.
    pub(crate) short_waits: u64,
    /// Refusals by the first word of the error.
    pub(crate) errors: BTreeMap<String, u64>,
    /// What happened to connections.
    pub(crate) faults: BTreeMap<&'static str, u64>,
    /// Operations whose answer never came.
    pub(crate) unanswered: u64,
    /// Acknowledged writes of the whole run, before and after the measured time too.
    pub(crate) writes: u64,
    /// Bytes of their keys and values.
    pub(crate) payload_bytes: u64,
}

impl Default for Tally {
    fn default() -> Self {
        let histogram = || {
            Histogram::new_with_bounds(LATENCY_MIN, LATENCY_MAX, 3)
                .expect("the bounds are more than a factor of two apart")
        };
        Self {
            latencies: [histogram(), histogram(), histogram(), histogram()],
            hits: 0,
            misses: 0,
            short_waits: 0,
            errors: BTreeMap::new(),
            faults: BTreeMap::new(),
            unanswered: 0,
            writes: 0,
            payload_bytes: 0,
        }
    }
}

impl Tally {
    /// Counts an operation that was served.
    pub(crate) fn served(&mut self, kind: Kind, nanos: u64) {
        self.latencies[kind.place()].saturating_record(nanos.max(1));
    }

    /// Counts a refusal.
    pub(crate) fn refused(&mut self, code: &[u8]) {
        let code = String::from_utf8_lossy(code);
        match self.errors.get_mut(code.as_ref()) {
            Some(count) => *count += 1,
            None => {
                self.errors.insert(code.into_owned(), 1);
            }
        }
    }

    /// Counts what happened to a connection.
    pub(crate) fn fault(&mut self, what: &'static str) {
        *self.faults.entry(what).or_default() += 1;
    }

    /// Adds what another thread counted.
    pub(crate) fn add(&mut self, other: &Self) {
        for (own, other) in self.latencies.iter_mut().zip(&other.latencies) {
            own.add(other).expect("all histograms have the same bounds");
        }
        self.hits += other.hits;
        self.misses += other.misses;
        self.short_waits += other.short_waits;
        self.unanswered += other.unanswered;
        self.writes += other.writes;
        self.payload_bytes += other.payload_bytes;
        for (code, count) in &other.errors {
            *self.errors.entry(code.clone()).or_default() += count;
        }
        for (what, count) in &other.faults {
            *self.faults.entry(what).or_default() += count;
        }
    }

    /// The figures of each kind that was asked for, over `seconds`.
    pub(crate) fn figures(&self, seconds: f64) -> Vec<Figures> {
        let asked = Kind::ALL.into_iter().map(|kind| (kind, &self.latencies[kind.place()]));
        asked
            .filter(|(_, latencies)| !latencies.is_empty())
            .map(|(kind, latencies)| Figures::of(kind.name(), latencies, seconds))
            .collect()
    }

    /// The figures of all kinds together, each operation once.
    pub(crate) fn total(&self, seconds: f64) -> Figures {
        let mut all = self.latencies[Kind::Get.place()].clone();
        let pairs = &self.latencies[Kind::SetAndWait.place()];
        let sets = &self.latencies[Kind::Set.place()];
        for part in [if pairs.is_empty() { sets } else { pairs }, &self.latencies[2]] {
            all.add(part).expect("all histograms have the same bounds");
        }
        Figures::of("all", &all, seconds)
    }
}

/// What is told about a kind of operation; latencies in microseconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Figures {
    /// The kind.
    pub(crate) command: &'static str,
    /// How many were served.
    pub(crate) operations: u64,
    /// How many in a second.
    pub(crate) per_second: f64,
    /// Mean latency.
    pub(crate) mean_us: f64,
    /// Half of the operations took at most so long.
    pub(crate) p50_us: f64,
    /// 90 of 100.
    pub(crate) p90_us: f64,
    /// 99 of 100.
    pub(crate) p99_us: f64,
    /// 999 of 1000.
    pub(crate) p999_us: f64,
    /// The slowest.
    pub(crate) max_us: f64,
}

impl Figures {
    fn of(command: &'static str, latencies: &Histogram<u64>, seconds: f64) -> Self {
        let micros = |nanos: u64| nanos as f64 / 1000.0;
        let at = |quantile: f64| micros(latencies.value_at_quantile(quantile));
        Self {
            command,
            operations: latencies.len(),
            per_second: if 0.0 < seconds { latencies.len() as f64 / seconds } else { 0.0 },
            mean_us: latencies.mean() / 1000.0,
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: micros(latencies.max()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_latencies_to_three_digits() {
        let mut tally = Tally::default();
        for micros in 1..=1000_u64 {
            tally.served(Kind::Get, micros * 1000);
        }
        let figures = &tally.figures(2.0)[0];
        let near = |found: f64, wanted: f64| (found / wanted - 1.0).abs() < 0.002;
        assert!(near(figures.p50_us, 500.0), "{figures:?}");
        assert!(near(figures.p99_us, 990.0), "{figures:?}");
        assert!(near(figures.max_us, 1000.0), "{figures:?}");
        assert!(near(figures.per_second, 500.0), "{figures:?}");
    }

    #[test]
    fn threads_add_up_and_a_pair_counts_once() {
        let mut one = Tally::default();
        one.served(Kind::Set, 5_000);
        one.served(Kind::SetAndWait, 9_000);
        one.refused(b"OOM");
        let mut other = Tally::default();
        other.served(Kind::Get, u64::MAX);
        other.refused(b"OOM");
        other.fault("connection lost");
        one.add(&other);
        assert_eq!(one.errors["OOM"], 2);
        assert_eq!(one.faults["connection lost"], 1);
        let total = one.total(1.0);
        assert_eq!(total.operations, 2);
        assert!(total.p50_us < 9.1 && 8.9 < total.p50_us, "{total:?}");
    }
}
