//! Makes medians, ratios and lines of what was measured.

use super::load::Work;
use super::servers::{Durability, RIVALS};

/// A measured work or weight, with the rounds of each rival in the order of `RIVALS`.
#[derive(Debug)]
pub(super) struct Row {
    name: String,
    durability: Durability,
    rounds: Vec<Vec<f64>>,
    /// The rounds of nine processes, where they were measured.
    nine: Vec<f64>,
    bar: Option<Bar>,
}

/// What the ratio of ours to Redis has to be.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Bar {
    /// Speed: more is better.
    AtLeast(f64),
    /// Memory: less is better.
    AtMost(f64),
}

impl Bar {
    fn is_met(self, ratio: f64) -> bool {
        match self {
            Self::AtLeast(bar) => bar <= ratio,
            Self::AtMost(bar) => ratio <= bar,
        }
    }

    fn shown(self) -> String {
        match self {
            Self::AtLeast(bar) => format!(">= {bar:.1}"),
            Self::AtMost(bar) => format!("<= {bar:.1}"),
        }
    }
}

impl Row {
    pub(super) fn of_speed(
        durability: Durability,
        work: &Work,
        rounds: Vec<Vec<f64>>,
        nine: Vec<f64>,
    ) -> Self {
        let name = format!("{}, requests/s", work.name());
        let bar = bar_of(durability, work.command, work.pipeline);
        Self { name, durability, rounds, nine, bar }
    }

    pub(super) fn of_chain(durability: Durability, rounds: [Vec<f64>; 2]) -> Self {
        let name = "SET held by two, requests/s".to_owned();
        let bar = Some(Bar::AtLeast(0.8));
        Self { name, durability, rounds: rounds.into(), nine: Vec::new(), bar }
    }

    pub(super) fn of_memory(durability: Durability, rounds: Vec<Vec<f64>>) -> Self {
        let bar = (durability == Durability::Memory).then_some(Bar::AtMost(1.0));
        let name = "resident bytes per key".to_owned();
        Self { name, durability, rounds, nine: Vec::new(), bar }
    }

    /// The distance between the slowest and the fastest round, as a share of the median; the worst
    /// of all rivals.
    fn spread(&self) -> f64 {
        let of_one = |rounds: &Vec<f64>| {
            let least = rounds.iter().copied().fold(f64::INFINITY, f64::min);
            let most = rounds.iter().copied().fold(0.0, f64::max);
            (most - least) / median(rounds)
        };
        self.rounds.iter().map(of_one).fold(0.0, f64::max)
    }

    fn line(&self) -> String {
        let medians: Vec<f64> = self.rounds.iter().map(|rounds| median(rounds)).collect();
        let shown = |figures: Option<&Vec<f64>>| match figures {
            Some(rounds) if !rounds.is_empty() => format!("{:>11.0}", median(rounds)),
            Some(_) | None => format!("{:>11}", "-"),
        };
        let figures: Vec<String> = (0..RIVALS.len())
            .map(|rival| shown(self.rounds.get(rival)))
            .chain([shown(Some(&self.nine))])
            .collect();
        let ours = medians.first().copied().unwrap_or(f64::NAN);
        let ratios: Vec<f64> = medians.iter().skip(1).map(|theirs| ours / theirs).collect();
        let told: Vec<String> = (0..RIVALS.len() - 1)
            .map(|rival| match ratios.get(rival) {
                Some(ratio) => format!("{ratio:>7.2}x"),
                None => format!("{:>8}", "-"),
            })
            .collect();
        let verdict = match (self.bar, ratios.first()) {
            (Some(bar), Some(ratio)) => {
                format!("{} {}", bar.shown(), if bar.is_met(*ratio) { "met" } else { "MISSED" })
            }
            (Some(_) | None, _) => "none".to_owned(),
        };
        format!(
            "{:<28} {:<13} {} {} {:>5.0} %  {verdict}",
            self.name,
            self.durability.name(),
            figures.join(" "),
            told.join(" "),
            self.spread() * 100.0
        )
    }
}

/// What is promised against Redis 7; pipelined rows promise only where no disk is waited for.
fn bar_of(durability: Durability, command: &str, pipeline: u32) -> Option<Bar> {
    match (durability, command, pipeline) {
        (Durability::Memory | Durability::Never, _, 1) => Some(Bar::AtLeast(1.0)),
        (Durability::Memory | Durability::Never, "GET", _) => Some(Bar::AtLeast(1.5)),
        (Durability::Memory | Durability::Never, _, _) => Some(Bar::AtLeast(1.3)),
        (Durability::Always, "SET", _) => Some(Bar::AtLeast(1.0)),
        (Durability::Always, _, _) => None,
    }
}

/// The whole table.
pub(super) fn lines(rows: &[Row]) -> Vec<String> {
    let names = RIVALS.iter().map(|rival| rival.name()).chain(["nine"]);
    let columns: Vec<String> = names.map(|name| format!("{name:>11}")).collect();
    let ratios = RIVALS.iter().skip(1).map(|rival| format!("{:>8}", format!("/{}", rival.name())));
    let head = format!(
        "{:<28} {:<13} {} {} {:>7}  bar (ours to redis)",
        "",
        "durability",
        columns.join(" "),
        ratios.collect::<Vec<_>>().join(" "),
        "spread"
    );
    std::iter::once(head).chain(rows.iter().map(Row::line)).collect()
}

/// The middle of the rounds; of an even count the mean of the two middle ones.
fn median(rounds: &[f64]) -> f64 {
    let mut sorted = rounds.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match (sorted.get(middle), middle.checked_sub(1).and_then(|before| sorted.get(before))) {
        (Some(upper), Some(lower)) if sorted.len().is_multiple_of(2) => {
            f64::midpoint(*upper, *lower)
        }
        (Some(upper), _) => *upper,
        (None, _) => f64::NAN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_is_the_middle_round() {
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((median(&[4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-9);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn row_shows_ratios_and_whether_the_bar_is_met() {
        let rounds = vec![vec![150.0, 160.0, 140.0], vec![100.0; 3], vec![300.0; 3]];
        let work = Work { command: "GET", pipeline: 16 };
        let line = Row::of_speed(Durability::Memory, &work, rounds, vec![70.0]).line();
        assert!(line.contains("1.50x") && line.contains("0.50x"), "{line}");
        assert!(line.contains(" 70 "), "{line}");
        assert!(line.contains(">= 1.5 met") && line.contains("13 %"), "{line}");
    }

    #[test]
    fn what_was_not_measured_is_a_dash() {
        let row = Row::of_chain(Durability::Always, [vec![9.0; 3], vec![10.0; 3]]);
        let line = row.line();
        assert!(line.contains("0.90x        -"), "{line}");
        assert!(line.contains(">= 0.8 met"), "{line}");
    }

    #[test]
    fn memory_above_that_of_redis_misses_the_bar() {
        let line =
            Row::of_memory(Durability::Memory, vec![vec![300.0], vec![258.0], vec![231.0]]).line();
        assert!(line.contains("<= 1.0 MISSED"), "{line}");
    }
}
