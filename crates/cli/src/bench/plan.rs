//! What a run is to do, with everything asked for and looked up.
//!
//! Each endpoint is asked once before the load begins: whether it is there, and in which datacenter.

use std::time::Duration;

use anyhow::Context;

use super::chance::Chance;
use super::distribution::Choice;
use super::keys::KeySpace;
use super::options::BenchOptions;
use crate::arguments::UsageError;
use crate::client::Connection;

/// The name of the datacenter of servers that do not tell one.
const UNNAMED: &str = "unnamed";

/// How long an endpoint may take to answer before the run.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// A server under load.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    /// Where it is.
    pub(crate) address: String,
    /// Its datacenter, by its place in [`Plan::datacenters`].
    pub(crate) dc: u16,
}

/// What is sent.
#[derive(Clone, Debug)]
pub(crate) struct Mix {
    /// The part of reads among all operations.
    pub(crate) reads: f64,
    /// The part of deletes among writes.
    pub(crate) deletes: f64,
    /// Acknowledgements that each SET waits for.
    pub(crate) wait: Option<u32>,
    /// How long, at most.
    pub(crate) wait_timeout: Duration,
    /// Whether sessions change their level.
    pub(crate) has_mixed_levels: bool,
}

/// A run, ready to begin.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// The servers.
    pub(crate) endpoints: Vec<Endpoint>,
    /// Names of the datacenters, in the order in which endpoints name them.
    pub(crate) datacenters: Vec<String>,
    /// The keys.
    pub(crate) keys: KeySpace,
    /// Which of them is next.
    pub(crate) choice: Choice,
    /// What is sent.
    pub(crate) mix: Mix,
    /// Requests before answers are waited for.
    pub(crate) pipeline: usize,
    /// Bytes of a value.
    pub(crate) value_bytes: usize,
    /// Connections to each endpoint.
    pub(crate) connections: u32,
    /// Time between two operations of one connection, if they are due at fixed times.
    pub(crate) interval: Option<Duration>,
    /// How long an answer may take.
    pub(crate) timeout: Duration,
    /// Said on every connection.
    pub(crate) password: Option<String>,
    /// Whether values are unique and everything is recorded.
    pub(crate) has_history: bool,
    /// What everything is drawn from.
    pub(crate) seed: u64,
}

impl Plan {
    /// Asks the endpoints who they are, and fits everything together.
    ///
    /// # Errors
    /// When an endpoint does not answer, or options do not go together.
    pub(crate) async fn of(options: &BenchOptions, run_name: &str) -> anyhow::Result<Self> {
        let given = options.datacenters.len();
        if given != 0 && given != options.endpoints.len() {
            let count = options.endpoints.len();
            let what =
                format!("{given} datacenters are given for {count} endpoints; name one each");
            return Err(UsageError(what).into());
        }
        let mut names: Vec<String> = Vec::new();
        let mut endpoints = Vec::new();
        for (place, address) in options.endpoints.iter().enumerate() {
            let found = probe(address, options.password.as_deref()).await?;
            let name = options.datacenter_of(place).map_or(found, str::to_owned);
            let known = names.iter().position(|other| *other == name).unwrap_or_else(|| {
                names.push(name);
                names.len() - 1
            });
            let dc = u16::try_from(known).context("there are more than 65536 datacenters")?;
            endpoints.push(Endpoint { address: address.clone(), dc });
        }
        let has_history = options.history.is_some();
        let usual = if has_history { format!("{run_name}:") } else { "key:".to_owned() };
        let prefix = options.key_prefix.clone().unwrap_or(usual);
        let lanes = f64::from(options.connections) * endpoints.len() as f64;
        let interval = match options.rate {
            Some(rate) if 0.0 < rate && rate.is_finite() => {
                Some(Duration::from_secs_f64(lanes / rate))
            }
            Some(rate) => return Err(UsageError(format!("a rate of {rate} never ends")).into()),
            None => None,
        };
        Ok(Self {
            keys: KeySpace::new(prefix, options.key_size, options.keys)
                .with_homes(names.len() as u64, options.home_keys),
            datacenters: names,
            endpoints,
            choice: Choice::new(options.distribution, options.keys),
            mix: Mix {
                reads: options.ratio.read_fraction(),
                deletes: options.delete_fraction(),
                wait: options.wait,
                wait_timeout: options.wait_timeout,
                has_mixed_levels: options.mixed_levels,
            },
            pipeline: options.pipeline as usize,
            value_bytes: options.value_size,
            connections: options.connections,
            interval,
            timeout: options.timeout,
            password: options.password.clone(),
            has_history,
            seed: options.seed,
        })
    }

    /// Connections in all.
    pub(crate) fn lane_count(&self) -> usize {
        self.endpoints.len() * self.connections as usize
    }

    /// Bytes that values are cut from where they need not be unique; they do not compress to nothing.
    pub(crate) fn value_pool(&self) -> Vec<u8> {
        let mut chance = Chance::new(self.seed, u64::MAX);
        let letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let letter = |bits: u64| letters[usize::try_from(bits & 63).unwrap_or(0)];
        (0..self.value_bytes * 2 + 64).map(|_| letter(chance.bits())).collect()
    }
}

/// The datacenter that the server at `address` says it is in.
async fn probe(address: &str, password: Option<&str>) -> anyhow::Result<String> {
    let mut connection = Connection::open(address, password, PROBE_TIMEOUT).await?;
    connection.call(&[b"PING"]).await?;
    let hello: &[&[u8]] = &[b"HELLO"];
    let answers = connection.call_all(&[hello]).await?;
    let name = answers.first().and_then(|answer| answer.field("availability_zone"));
    Ok(name.filter(|name| !name.is_empty()).unwrap_or_else(|| UNNAMED.to_owned()))
}
