//! What clients may ask about the server: INFO, CONFIG, CLIENT LIST.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use antecede_model::ids::DatacenterId;
use antecede_storage::Fsync;

use crate::clock;
use crate::connection::{KEEPALIVE_TIME, registry::Client};
use crate::node::{Node, open::draw};
use crate::resp::{
    commands::ClientFilter,
    environment::{ClientEntry, Environment, Identity, Killed, REDIS_VERSION, SettingError},
};

/// Writes the lines of one section of INFO.
type Section = fn(&Node, &mut String);

/// The sections of INFO in their order.
const SECTIONS: [(&str, Section); 9] = [
    ("server", server),
    ("clients", clients),
    ("memory", memory),
    ("persistence", persistence),
    ("stats", stats),
    ("replication", replication),
    ("cpu", cpu),
    ("causal", causal),
    ("keyspace", keyspace),
];

/// The server as one of its connections sees it.
#[derive(Debug)]
pub(crate) struct Surroundings<'a> {
    pub(crate) node: &'a Arc<Node>,
    /// The number of that connection.
    pub(crate) caller: u64,
}

impl Environment for Surroundings<'_> {
    fn wall_micros(&self) -> u64 {
        clock::wall().0
    }

    fn draw(&mut self) -> u64 {
        draw()
    }

    fn info(&self, sections: &[&[u8]]) -> String {
        info(self.node, sections)
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        settings(self.node)
    }

    fn change_setting(&mut self, name: &str, value: &[u8]) -> Result<(), SettingError> {
        change_setting(self.node, name, value)
    }

    fn reset_statistics(&mut self) {
        self.node.registry.reset();
    }

    fn clients(&self, filter: &ClientFilter<'_>) -> Vec<ClientEntry> {
        let now = clock::steady();
        let all = self.node.registry.all().into_iter();
        let entries = all.map(|(id, client)| {
            let (state, last_active) = client.told();
            ClientEntry {
                id,
                address: client.address.to_string(),
                local_address: client.local_address.to_string(),
                age_seconds: now.0.saturating_sub(client.opened.0).as_secs(),
                idle_seconds: now.0.saturating_sub(last_active.0).as_secs(),
                state,
            }
        });
        entries.filter(|entry| filter.has(entry.id, &entry.address, &entry.local_address)).collect()
    }

    fn kill(&mut self, filter: &ClientFilter<'_>, spared: Option<u64>) -> Killed {
        let mut killed = Killed::default();
        for (id, client) in self.node.registry.all() {
            let Client { session, address, local_address, .. } = &*client;
            let (address, local_address) = (address.to_string(), local_address.to_string());
            if Some(id) == spared || !filter.has(id, &address, &local_address) {
                continue;
            }
            killed.count += 1;
            if id == self.caller {
                killed.is_caller_among = true;
            } else {
                self.node.sessions.kill(*session);
            }
        }
        killed
    }

    fn identity(&self) -> Identity {
        let node = self.node;
        let [a, b, c, d] = node.id.to_bits().to_be_bytes();
        let configuration = node.configuration();
        let here = configuration.datacenter(node.id.datacenter);
        Identity {
            version: env!("CARGO_PKG_VERSION"),
            datacenter: node.name_of(node.id.datacenter),
            node: format!("{}{a:02x}{b:02x}{c:02x}{d:02x}", configuration.deployment),
            node_count: here.map_or(1, |here| here.nodes.len()),
        }
    }
}

/// The text of INFO; no sections, or `all`, `everything`, `default`, mean all.
fn info(node: &Node, sections: &[&[u8]]) -> String {
    let is_all = |name: &&[u8]| {
        ["all", "everything", "default"].iter().any(|all| name.eq_ignore_ascii_case(all.as_bytes()))
    };
    let shows_all = sections.is_empty() || sections.iter().any(is_all);
    let mut text = String::new();
    for (name, write) in SECTIONS {
        let is_asked = sections.iter().any(|asked| asked.eq_ignore_ascii_case(name.as_bytes()));
        if shows_all || is_asked {
            if !text.is_empty() {
                text.push_str("\r\n");
            }
            let (first, rest) = name.split_at(1);
            let title = if name == "cpu" { "CPU".into() } else { first.to_uppercase() + rest };
            text.push_str("# ");
            text.push_str(&title);
            text.push_str("\r\n");
            write(node, &mut text);
        }
    }
    text
}

/// Adds a line `name:value`.
fn line(text: &mut String, name: &str, value: impl std::fmt::Display) {
    write!(text, "{name}:{value}\r\n").expect("writing to a string does not fail");
}

fn server(node: &Node, text: &mut String) {
    let now = clock::now();
    let up = now.steady.0.saturating_sub(node.started.steady.0).as_secs();
    let port = node.config.listen.client.rsplit_once(':').map_or("0", |(_, port)| port);
    line(text, "redis_version", REDIS_VERSION);
    line(text, "antecede_version", env!("CARGO_PKG_VERSION"));
    line(text, "redis_mode", "standalone");
    line(text, "os", "Linux");
    line(text, "arch_bits", usize::BITS);
    line(text, "process_id", std::process::id());
    line(text, "run_id", format_args!("{:024x}{:016x}", node.id.to_bits(), node.boot.0));
    line(text, "tcp_port", port);
    line(text, "server_time_usec", now.wall.0);
    line(text, "uptime_in_seconds", up);
    line(text, "uptime_in_days", up / 86_400);
}

fn clients(node: &Node, text: &mut String) {
    line(text, "connected_clients", node.registry.count());
    line(text, "maxclients", node.connections_max.load(Ordering::Relaxed));
    line(text, "blocked_clients", 0);
}

fn memory(node: &Node, text: &mut String) {
    let used = node.memory.used();
    let human = |bytes: u64| bytesize::ByteSize(bytes).to_string();
    line(text, "used_memory", used);
    line(text, "used_memory_human", human(used));
    line(text, "used_memory_rss", crate::node::memory::resident_bytes());
    line(text, "used_memory_peak", node.memory.peak());
    line(text, "used_memory_peak_human", human(node.memory.peak()));
    line(text, "maxmemory", node.memory.limit());
    line(text, "maxmemory_human", human(node.memory.limit()));
    line(text, "maxmemory_policy", "noeviction");
    let cold = crate::admin::cold_of(node);
    line(text, "values_on_disk", cold.values);
    line(text, "values_on_disk_bytes", cold.bytes);
    line(text, "values_evicted", cold.evicted);
    line(text, "values_loaded", cold.loads);
    line(text, "values_failed_to_load", cold.failed_loads);
}

fn persistence(node: &Node, text: &mut String) {
    let positions = node.log.positions();
    let is_kept = u8::from(!node.log.is_in_memory());
    line(text, "loading", 0);
    line(text, "async_loading", 0);
    line(text, "rdb_changes_since_last_save", 0);
    line(text, "rdb_bgsave_in_progress", 0);
    line(text, "rdb_last_bgsave_status", "ok");
    line(text, "aof_enabled", is_kept);
    line(text, "aof_rewrite_in_progress", 0);
    line(text, "aof_last_write_status", if node.log.is_disk_full() { "err" } else { "ok" });
    line(text, "log_appended_to", positions.appended_to);
    line(text, "log_written_to", positions.written_to);
    line(text, "log_synced_to", positions.synced_to);
    line(text, "log_pending_bytes", node.log.pending_bytes());
}

fn stats(node: &Node, text: &mut String) {
    let registry = &node.registry;
    let read = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    line(text, "total_connections_received", read(&registry.connections));
    line(text, "rejected_connections", read(&registry.refused));
    line(text, "total_commands_processed", read(&registry.commands));
    line(text, "total_net_input_bytes", read(&registry.read_bytes));
    line(text, "total_net_output_bytes", read(&registry.written_bytes));
    line(text, "expired_keys", 0);
    line(text, "evicted_keys", 0);
}

fn replication(_: &Node, text: &mut String) {
    line(text, "role", "master");
    line(text, "connected_slaves", 0);
}

fn cpu(_: &Node, text: &mut String) {
    let (user, system) = cpu_seconds().unwrap_or_default();
    line(text, "used_cpu_sys", format_args!("{system:.6}"));
    line(text, "used_cpu_user", format_args!("{user:.6}"));
}

/// Seconds of processor time of this process: its own, and the system's for it.
fn cpu_seconds() -> Option<(f64, f64)> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name of the process, in brackets, may hold blanks.
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ').skip(11);
    let ticks = rustix::param::clock_ticks_per_second();
    let per_second = f64::from(u32::try_from(ticks).ok()?);
    let mut seconds = || Some(fields.next()?.parse::<f64>().ok()? / per_second);
    Some((seconds()?, seconds()?))
}

fn keyspace(node: &Node, text: &mut String) {
    let mut keys = 0;
    let mut expires = 0;
    for shard in node.shards() {
        if let Some((live, expiring)) = node.look(shard, |replica| {
            let keys = replica.keys();
            (keys.live_count(), keys.ttl_count())
        }) {
            keys += live;
            expires += expiring;
        }
    }
    if 0 < keys {
        line(text, "db0", format_args!("keys={keys},expires={expires},avg_ttl=0"));
    }
}

fn causal(node: &Node, text: &mut String) {
    let cuts = node.cuts();
    let here = node.id.datacenter;
    line(text, "dc", node.name_of(here));
    line(text, "dc_id", here);
    line(text, "node", node.id);
    line(text, "boot", node.boot);
    let configuration = node.configuration();
    line(text, "epoch", configuration.epoch(here));
    line(text, "membership", configuration.membership.epoch);
    line(text, "datacenters", configuration.datacenters.len());
    line(text, "shards_here", configuration.shards_of(node.id).count());
    line(text, "shards_settling", node.unsettled());
    line(text, "default_level", "linearizable");
    for (origin, stamp) in cuts.stable.iter() {
        line(text, &format!("stable_{}", node.name_of(origin)), stamp);
    }
    for (peer, lag) in node.lags() {
        let name = node.name_of(peer);
        line(text, &format!("lag_ms_{name}"), lag.as_millis());
    }
}

impl Node {
    /// For each other datacenter, how old what is applied here of it is.
    ///
    /// While ticks flow it is the replication lag; an idle deployment sends none, so that its
    /// lags grow although nothing is missing.
    pub(crate) fn lags(&self) -> Vec<(DatacenterId, Duration)> {
        let cuts = self.cuts();
        let now = clock::wall().millis();
        self.configuration()
            .peers(self.id.datacenter)
            .map(|peer| {
                let applied_to = cuts.applied.at(peer);
                // Nobody knows of anything that is newer than what promises are wanted for.
                let lag = now.saturating_sub(applied_to.millis());
                (peer, Duration::from_millis(if applied_to < cuts.ticks_to { lag } else { 0 }))
            })
            .collect()
    }
}

fn settings(node: &Node) -> Vec<(&'static str, String)> {
    let config = &node.config;
    let limits = &config.limits;
    let folder = config.storage.folder.as_ref();
    let (appendfsync, appendonly) = match config.storage.fsync {
        Fsync::Always => ("always", folder.is_some()),
        Fsync::Interval(_) => ("everysec", folder.is_some()),
        Fsync::Never => ("no", folder.is_some()),
    };
    let port = config.listen.client.rsplit_once(':').map_or("0", |(_, port)| port);
    let bind = config.listen.client.rsplit_once(':').map_or("", |(host, _)| host);
    vec![
        ("appendfsync", appendfsync.to_owned()),
        ("appendonly", if appendonly { "yes" } else { "no" }.to_owned()),
        ("bind", bind.to_owned()),
        ("cluster-enabled", "no".to_owned()),
        ("databases", "1".to_owned()),
        ("dir", folder.map_or_else(String::new, |folder| folder.display().to_string())),
        ("io-threads", "1".to_owned()),
        ("maxclients", node.connections_max.load(Ordering::Relaxed).to_string()),
        ("maxmemory", node.memory.limit().to_string()),
        ("maxmemory-policy", "noeviction".to_owned()),
        ("port", port.to_owned()),
        ("proto-max-bulk-len", limits.bulk_bytes_max.to_string()),
        ("protected-mode", "yes".to_owned()),
        ("save", String::new()),
        ("tcp-keepalive", KEEPALIVE_TIME.as_secs().to_string()),
        ("timeout", node.idle_timeout().as_secs().to_string()),
    ]
}

fn change_setting(node: &Node, name: &str, value: &[u8]) -> Result<(), SettingError> {
    let words = std::str::from_utf8(value).unwrap_or("");
    match name {
        "maxmemory" => {
            let bytes = memory_bytes(words)
                .ok_or(SettingError::Unfit { reason: "argument must be a memory value" })?;
            node.memory.set_limit(bytes);
        }
        "timeout" => {
            let seconds = words.parse::<u32>().map_err(|_| SettingError::Unfit {
                reason: "argument couldn't be parsed into an integer",
            })?;
            node.set_idle_timeout(Duration::from_secs(u64::from(seconds)));
        }
        "maxclients" => {
            let count = words.parse::<u64>().ok().filter(|count| (1..=65_536).contains(count));
            let reason = "argument must be between 1 and 65536 inclusive";
            let count = count.ok_or(SettingError::Unfit { reason })?;
            node.connections_max.store(count, Ordering::Relaxed);
        }
        "maxmemory-policy" if words.eq_ignore_ascii_case("noeviction") => {}
        "maxmemory-policy" => {
            return Err(SettingError::Unfit { reason: "only noeviction exists here" });
        }
        _ if settings(node).iter().any(|(known, _)| *known == name) => {
            return Err(SettingError::Fixed);
        }
        _ => return Err(SettingError::Unknown),
    }
    Ok(())
}

/// Bytes as Redis reads them: a number with `k`, `kb`, `m`, `mb`, `g`, `gb` or `b` behind it.
fn memory_bytes(words: &str) -> Option<u64> {
    let lower = words.to_ascii_lowercase();
    let digits = lower.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let factor: u64 = match lower.get(digits.len()..)? {
        "" | "b" => 1,
        "k" => 1_000,
        "kb" => 1 << 10,
        "m" => 1_000_000,
        "mb" => 1 << 20,
        "g" => 1_000_000_000,
        "gb" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_as_redis_reads_it() {
        assert_eq!(memory_bytes("100mb"), Some(100 << 20));
        assert_eq!(memory_bytes("1G"), Some(1_000_000_000));
        assert_eq!(memory_bytes("5"), Some(5));
        assert_eq!(memory_bytes("5x"), None);
        assert_eq!(memory_bytes(""), None);
        assert_eq!(memory_bytes("99999999999gb"), None);
    }

    #[test]
    fn processor_time_is_told_by_the_system() {
        let (user, system) = cpu_seconds().unwrap();
        assert!(0.0 <= user && 0.0 <= system);
    }
}
