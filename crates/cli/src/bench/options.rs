//! The options of `antecede bench`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::distribution::Distribution;
use crate::arguments::{self, Ratio};

/// Measure: put load on servers and tell throughput and latencies.
///
/// Speaks the Redis protocol, so it measures any server that does. By default every connection
/// sends its next requests when the last are answered; with --rate requests are due at fixed
/// times, and latency counts from there, so that a stalled server is not flattered.
///
/// With --history everything that was asked and answered is written to a file which
/// `antecede check` judges.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  antecede bench --endpoints 127.0.0.1:6379 --pipeline 16 --requests 1000000
  antecede bench --endpoints 6379,7379,8379 --ratio 50:50 --duration 60s --rate 5000 \\
    --keys 2000 --history run.jsonl --home-keys 0.5 --final-state && antecede check run.jsonl

Exit status: 0 measured; 1 nothing was served, or the final states did not agree; 2 wrong usage.")]
pub(crate) struct BenchOptions {
    /// Servers, host:port or a port of this machine, separated by commas
    #[arg(long, short, value_delimiter = ',', value_parser = arguments::address,
          default_value = "127.0.0.1:6379", value_name = "HOST:PORT,...")]
    pub(crate) endpoints: Vec<String>,
    /// Names of the endpoints' datacenters, in the same order; by default the servers are asked
    #[arg(long, value_delimiter = ',', value_name = "NAME,...")]
    pub(crate) datacenters: Vec<String>,
    /// Connections to each endpoint
    #[arg(long, short, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) connections: u32,
    /// Requests that a connection sends before it waits for answers
    #[arg(long, short = 'P', default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) pipeline: u32,
    /// Threads that make the load; by default as many as there are cores
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) threads: Option<u16>,
    /// GETs for SETs
    #[arg(long, default_value = "90:10", value_name = "GET:SET")]
    pub(crate) ratio: Ratio,
    /// The fraction of writes that are DELs; by default 0, with --history 0.02
    #[arg(long, value_parser = arguments::fraction, value_name = "FRACTION")]
    pub(crate) deletes: Option<f64>,
    /// How many different keys
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) keys: u64,
    /// Bytes of a key; longer if the prefix and the number need it
    #[arg(long, default_value_t = 16)]
    pub(crate) key_size: usize,
    /// What keys begin with; with --history by default something new, so that old data is not met
    #[arg(long)]
    pub(crate) key_prefix: Option<String>,
    /// Bytes of a value
    #[arg(long, short = 'd', default_value_t = 128)]
    pub(crate) value_size: usize,
    /// Which keys are asked for: uniform, zipfian or zipfian:THETA
    #[arg(long, default_value = "uniform")]
    pub(crate) distribution: Distribution,
    /// End after so many operations in all, warm-up not counted
    #[arg(long, short = 'n', conflicts_with = "duration")]
    pub(crate) requests: Option<u64>,
    /// End after this time; the default is 10s
    #[arg(long, value_parser = arguments::time)]
    pub(crate) duration: Option<Duration>,
    /// Time before measuring begins
    #[arg(long, value_parser = arguments::time, default_value = "0s")]
    pub(crate) warmup: Duration,
    /// Operations a second in all, due at fixed times; by default as fast as answers come
    #[arg(long)]
    pub(crate) rate: Option<f64>,
    /// Send WAIT for so many acknowledgements after each SET, in the same packet
    #[arg(long, value_name = "COUNT")]
    pub(crate) wait: Option<u32>,
    /// How long a WAIT may take
    #[arg(long, value_parser = arguments::time, default_value = "1s")]
    pub(crate) wait_timeout: Duration,
    /// After so long without an answer a connection is given up and made anew
    #[arg(long, value_parser = arguments::time, default_value = "10s")]
    pub(crate) timeout: Duration,
    /// Said with AUTH on every connection
    #[arg(long)]
    pub(crate) password: Option<String>,
    /// Write everything that was asked and answered to this file, for `antecede check`
    #[arg(long, value_name = "FILE")]
    pub(crate) history: Option<PathBuf>,
    /// The fraction of keys that are written in one datacenter only
    #[arg(long, value_parser = arguments::fraction, default_value = "0", value_name = "FRACTION")]
    pub(crate) home_keys: f64,
    /// Let sessions change between the levels eventual and linearizable
    #[arg(long)]
    pub(crate) mixed_levels: bool,
    /// Afterwards wait until all endpoints agree, and add what they hold to the history
    #[arg(long, requires = "history")]
    pub(crate) final_state: bool,
    /// How long to wait for that
    #[arg(long, value_parser = arguments::time, default_value = "60s")]
    pub(crate) final_timeout: Duration,
    /// Admin ports of all nodes: tell the metadata of a replicated write from their counters
    #[arg(long, value_delimiter = ',', value_name = "URL,...")]
    pub(crate) admin: Vec<String>,
    /// What keys and kinds of operations are drawn from
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Print the result as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

impl BenchOptions {
    /// Datacenters of the endpoints in order, as far as they were given.
    pub(crate) fn datacenter_of(&self, endpoint: usize) -> Option<&str> {
        self.datacenters.get(endpoint).map(String::as_str)
    }

    /// The fraction of writes that are deletes.
    pub(crate) fn delete_fraction(&self) -> f64 {
        let usual = if self.history.is_some() { 0.02 } else { 0.0 };
        self.deletes.unwrap_or(usual)
    }
}
