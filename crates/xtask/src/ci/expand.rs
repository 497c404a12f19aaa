//! Puts values in place of the place-holders in the command of a step.
//!
//! `{seed}` is the seed of this run of the gate. `{known seed}` makes the command run once for each
//! seed of `SEEDS`, which holds the seeds that once found something.

use std::fs;
use std::path::Path;

use anyhow::{Context, ensure};

/// Seeds that once found something: a number a line, then what it found.
const SEEDS: &str = "crates/sim/seeds.txt";

const SEED: &str = "{seed}";
const KNOWN_SEED: &str = "{known seed}";

/// The commands that a row of the table stands for.
pub(super) fn expand(command: &[&str], seed: u64, root: &Path) -> anyhow::Result<Vec<Vec<String>>> {
    let seed = seed.to_string();
    let with = |known: &str| {
        let put = |word: &&str| word.replace(SEED, &seed).replace(KNOWN_SEED, known);
        command.iter().map(put).collect()
    };
    if !command.iter().any(|word| word.contains(KNOWN_SEED)) {
        return Ok(vec![with("")]);
    }
    let text = fs::read_to_string(root.join(SEEDS))
        .with_context(|| format!("cannot read the known seeds in {SEEDS}"))?;
    Ok(known_seeds(&text)?.iter().map(|known| with(&known.to_string())).collect())
}

fn known_seeds(text: &str) -> anyhow::Result<Vec<u64>> {
    let mut seeds = Vec::new();
    for (line, number) in text.lines().zip(1..) {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let word = line.split_whitespace().next().unwrap_or_default();
        let seed = word.parse().with_context(|| {
            format!(
                "cannot read `{word}` as a seed in {SEEDS}:{number}; a line is `SEED what it found`"
            )
        })?;
        seeds.push(seed);
    }
    ensure!(!seeds.is_empty(), "there is no seed in {SEEDS}");
    Ok(seeds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seed_is_put_into_the_command() {
        let commands = expand(&["sim", "--seed", "{seed}"], 7, Path::new("/nowhere"));
        assert_eq!(commands.expect("no file is read"), [["sim", "--seed", "7"]]);
    }

    #[test]
    fn known_seeds_are_read_past_comments() {
        let seeds = known_seeds("# Seeds.\n\n7 a lost tick\n19 a late answer\n");
        assert_eq!(seeds.expect("all lines are seeds"), [7, 19]);
        assert!(known_seeds("seven a lost tick\n").is_err());
        assert!(known_seeds("# None.\n").is_err());
    }

    #[test]
    fn missing_file_of_known_seeds_is_told() {
        let error = expand(&["sim", "replay", "{known seed}"], 7, Path::new("/nowhere"));
        assert!(error.expect_err("there is no file").to_string().contains("seeds.txt"));
    }
}
