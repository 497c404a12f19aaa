//! Fills a server, weighs it and loads it.
//!
//! Keys are those of redis-benchmark (`key:` and twelve digits, 16 bytes), so that every GET finds
//! a value of the size that every SET writes.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};

use super::CompareOptions;
use crate::machine;

/// Bytes of a value.
pub(super) const VALUE_BYTES: usize = 128;

/// Connections of the load.
pub(super) const CONNECTIONS: u32 = 50;

/// Commands that are sent before their answers are read, while a server is filled.
const FILL_BATCH: u32 = 1000;

/// What a server answers to a SET that went well.
const OK: &[u8] = b"+OK\r\n";

/// How long a server may leave a batch of the filling unanswered.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// A load that is measured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Work {
    /// What redis-benchmark calls it.
    pub(super) command: &'static str,
    pub(super) pipeline: u32,
}

/// The loads, in the order of the rows.
pub(super) const WORKS: &[Work] = &[
    Work { command: "GET", pipeline: 1 },
    Work { command: "GET", pipeline: 16 },
    Work { command: "SET", pipeline: 1 },
    Work { command: "SET", pipeline: 16 },
];

impl Work {
    pub(super) fn name(&self) -> String {
        format!("{} pipeline {}", self.command, self.pipeline)
    }
}

/// Writes `keys` keys, each once.
pub(super) fn fill(port: u16, keys: u32) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).context("cannot connect to fill")?;
    stream.set_read_timeout(Some(ANSWER_WITHIN)).context("cannot set a time-out")?;
    let value = "x".repeat(VALUE_BYTES);
    let mut next = 0;
    while next < keys {
        let end = keys.min(next + FILL_BATCH);
        let mut batch = String::new();
        for key in next..end {
            batch += "*3\r\n$3\r\nSET\r\n$16\r\n";
            batch += &format!("key:{key:012}\r\n${VALUE_BYTES}\r\n{value}\r\n");
        }
        stream.write_all(batch.as_bytes()).context("cannot send keys")?;
        let count = usize::try_from(end - next).context("cannot count a batch")?;
        let mut answers = vec![0; count * OK.len()];
        stream.read_exact(&mut answers).context("cannot read the answers to SET")?;
        let bad = answers.chunks(OK.len()).find(|answer| *answer != OK);
        ensure!(bad.is_none(), "a SET was answered with {}", String::from_utf8_lossy(&answers));
        next = end;
    }
    Ok(())
}

/// The memory of a process that is resident, in KiB.
pub(super) fn resident_kib(id: u32) -> anyhow::Result<u32> {
    let path = format!("/proc/{id}/status");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    resident_in(&text).with_context(|| format!("cannot find VmRSS in {path}"))
}

fn resident_in(status: &str) -> Option<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Requests a second that a server took of one work.
pub(super) fn measure(
    port: u16,
    work: &Work,
    requests: u64,
    options: &CompareOptions,
) -> anyhow::Result<f64> {
    let requests = if work.pipeline == 1 { requests } else { requests * 10 };
    let mut command = Command::new("redis-benchmark");
    command.args(["-h", "127.0.0.1", "-p", &port.to_string(), "--csv"]);
    command.args(["-c", &CONNECTIONS.to_string(), "-d", &VALUE_BYTES.to_string()]);
    command.args(["-r", &options.keys.to_string(), "-n", &requests.to_string()]);
    command.args(["-P", &work.pipeline.to_string(), "-t", &work.command.to_lowercase()]);
    if 1 < options.threads {
        command.args(["--threads", &options.threads.to_string()]);
    }
    let text = machine::output_of(&mut command)?;
    rate_in(&text, work.command)
        .with_context(|| format!("cannot find the rate of {} in `{}`", work.command, text.trim()))
}

/// The rate in the lines of redis-benchmark: `"GET","123456.78",...`.
fn rate_in(text: &str, command: &str) -> Option<f64> {
    let name = format!("\"{command}\",\"");
    let rest = text.lines().find_map(|line| line.strip_prefix(&name))?;
    rest.split('"').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_is_read_from_the_line_of_the_command() {
        let text = "\"test\",\"rps\"\n\"GET\",\"199600.80\",\"0.131\"\n";
        assert_eq!(rate_in(text, "GET"), Some(199_600.8));
        assert_eq!(rate_in(text, "SET"), None);
    }

    #[test]
    fn resident_memory_is_read_in_its_unit() {
        assert_eq!(resident_in("Name:\tx\nVmRSS:\t   12345 kB\n"), Some(12345));
        assert_eq!(resident_in("Name:\tx\n"), None);
    }
}
