//! Measures speed and memory beside Redis 7 and Valkey 9 on this machine, and prints the ratios.
//!
//! For each durability the three servers are started side by side on free ports and filled with the
//! same keys; then the works take turns over them, round by round (A B C, A B C, ...), so that a
//! machine that slows down slows all of them. A figure is the median of its rounds; the widest
//! spread between the rounds of a row stands beside it, because a ratio within the noise says
//! nothing.
//!
//! Assumes: `redis-server`, `redis-cli` and `redis-benchmark` are installed (`cargo xtask setup`)
//! and the machine does nothing else meanwhile.
//! Ensures: every server that was started is ended, by its process id, also after a failure.
//!
//! Beside each figure stands that of nine processes, three datacenters of three nodes on the same
//! cores, asked at one node, with a part of the keys and requests; and writes held by two processes are compared with Redis with one
//! replica and `WAIT 1` (`chain`).

/// Writes that two processes hold.
mod chain;
/// Our processes, several of them.
pub(crate) mod deployment;
/// Filling a server, loading it, weighing it.
mod load;
/// The three servers, and how each is started with the same durability.
pub(crate) mod servers;
/// Medians, ratios and lines.
mod table;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use clap::Args;

use self::deployment::Deployment;
use self::servers::{DURABILITIES, Durability, RIVALS, Server};
use self::table::Row;
use crate::{machine, say, setup};

/// The deployment whose figures stand beside ours.
const NINE: &str = "eu:3,us:3,ap:3";
/// They get this part of the requests: every write is carried out nine times on the same cores.
const NINTHS: u64 = 9;

#[derive(Args, Debug)]
pub(crate) struct CompareOptions {
    /// Rounds; a figure is the median of them.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(3..))]
    rounds: u32,
    /// Requests of a round without pipeline; pipelined rounds send ten times as many.
    #[arg(long, default_value_t = 200_000)]
    requests: u64,
    /// Keys that each server holds while it is measured.
    #[arg(long, default_value_t = 1_000_000)]
    keys: u32,
    /// Threads of redis-benchmark.
    #[arg(long, default_value_t = 1)]
    threads: u32,
    /// The binary to measure.
    #[arg(long, default_value = "target/release/antecede")]
    binary: PathBuf,
}

/// Runs the comparison and prints its table.
pub(crate) fn run(options: &CompareOptions) -> anyhow::Result<()> {
    let root = machine::workspace()?;
    ensure!(setup::REDIS.is_met(&root), "{}", setup::REDIS.advice());
    let antecede = root.join(&options.binary);
    ensure!(
        antecede.is_file(),
        "there is no binary at {}; build it with `cargo build --release`",
        antecede.display()
    );
    let valkey = servers::valkey(&root)?;
    let binaries = [antecede, PathBuf::from("redis-server"), valkey];
    let folder = root.join("target/compare");
    let mut rows = Vec::new();
    for durability in DURABILITIES {
        // What a broken run left behind would be loaded.
        if folder.exists() {
            fs::remove_dir_all(&folder)
                .with_context(|| format!("cannot remove {}", folder.display()))?;
        }
        let result = compare_at(*durability, options, &binaries, &folder, &mut rows);
        let removed = fs::remove_dir_all(&folder);
        result.with_context(|| format!("cannot compare with {}", durability.name()))?;
        removed.with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    say::line("");
    say::line(&format!(
        "redis-benchmark -r {} -d {} -c {} --threads {}, median of {} rounds",
        options.keys,
        load::VALUE_BYTES,
        load::CONNECTIONS,
        options.threads,
        options.rounds
    ));
    for line in table::lines(&rows) {
        say::line(&line);
    }
    Ok(())
}

/// Measures all works with one durability.
fn compare_at(
    durability: Durability,
    options: &CompareOptions,
    binaries: &[PathBuf; 3],
    folder: &Path,
    rows: &mut Vec<Row>,
) -> anyhow::Result<()> {
    let of_nine = measure_nine(durability, options, &binaries[0], folder)?;
    let mut servers = Vec::new();
    let mut weights = Vec::new();
    for (rival, binary) in RIVALS.iter().zip(binaries) {
        let server = Server::start(*rival, binary, durability, folder)?;
        let empty = load::resident_kib(server.id())?;
        load::fill(server.port(), options.keys)?;
        let full = load::resident_kib(server.id())?;
        weights
            .push(vec![f64::from(full.saturating_sub(empty)) * 1024.0 / f64::from(options.keys)]);
        say::line(&format!("compare: {} with {} is filled", rival.name(), durability.name()));
        servers.push(server);
    }
    rows.push(Row::of_memory(durability, weights));
    for (work, of_nine) in load::WORKS.iter().zip(of_nine) {
        let mut figures = vec![Vec::new(); servers.len()];
        for round in 1..=options.rounds {
            for (server, figures) in servers.iter().zip(&mut figures) {
                let rate = load::measure(server.port(), work, options.requests, options)?;
                tell(durability, work, round, server.rival().name(), rate);
                figures.push(rate);
            }
        }
        rows.push(Row::of_speed(durability, work, figures, of_nine));
    }
    servers.into_iter().try_for_each(Server::stop)?;
    let held_by_two = chain::measure(durability, options, &binaries[0], folder)?;
    rows.push(Row::of_chain(durability, held_by_two));
    Ok(())
}

/// Measures the works over nine processes; by work, then by round.
///
/// Alone, because what was written goes on to the other datacenters after the answer.
fn measure_nine(
    durability: Durability,
    options: &CompareOptions,
    binary: &Path,
    folder: &Path,
) -> anyhow::Result<Vec<Vec<f64>>> {
    let nine = Deployment::start(binary, NINE, durability, folder)?;
    nine.warm_up(options)?;
    let mut figures = Vec::new();
    for work in load::WORKS {
        let mut rounds = Vec::new();
        for round in 1..=options.rounds {
            let rate = load::measure(nine.ports()[0], work, options.requests / NINTHS, options)?;
            tell(durability, work, round, "nine processes", rate);
            rounds.push(rate);
        }
        figures.push(rounds);
    }
    nine.stop()?;
    Ok(figures)
}

fn tell(durability: Durability, work: &load::Work, round: u32, who: &str, rate: f64) {
    let (durability, work) = (durability.name(), work.name());
    say::line(&format!("compare: {durability}, {work}, round {round}: {who} {rate:.0}/s"));
}
