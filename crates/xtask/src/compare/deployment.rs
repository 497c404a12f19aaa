//! Runs a deployment of several of our processes on this machine.
//!
//! The files come from `antecede config generate`, as a user's would. Every node is its own
//! process; all are ended when the value is dropped.
//!
//! Limits: the ports lie in one block that was free when it was looked for.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde::Deserialize;

use super::servers::Durability;
use crate::machine::{self, Running};

/// Ports from the first one on of which some are used.
const PORT_BLOCK: u16 = 300;
/// Blocks of ports that are tried.
const BLOCKS_MAX: u32 = 100;
/// How long the nodes may take to agree with each other.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// A node as `config generate --json` tells of it.
#[derive(Debug, Deserialize)]
struct Node {
    node: String,
    file: String,
    client: String,
    peer: String,
    admin: String,
}

/// Processes that make up a deployment.
#[derive(Debug)]
pub(super) struct Deployment {
    nodes: Vec<Running>,
    /// Of the first node, for clients.
    port: u16,
}

impl Deployment {
    /// Starts a deployment such as `eu:3,us:3,ap:3`, and waits until every node serves.
    pub(super) fn start(
        binary: &Path,
        datacenters: &str,
        durability: Durability,
        folder: &Path,
    ) -> anyhow::Result<Self> {
        let folder = folder.join("deployment");
        if folder.exists() {
            fs::remove_dir_all(&folder)
                .with_context(|| format!("cannot remove {}", folder.display()))?;
        }
        let nodes = generate(binary, datacenters, durability, &folder)?;
        let mut running = Vec::new();
        for node in &nodes {
            let mut command = Command::new(binary);
            command.args(["serve", "--config", &node.file]);
            let log = folder.join(format!("{}.log", node.node));
            running.push(Running::start(&node.node, &mut command, port_of(&node.client)?, &log)?);
        }
        for node in &nodes {
            let is_ready = machine::wait_until(READY_WITHIN, || is_ready(&node.admin));
            ensure!(is_ready, "{} was not ready within {READY_WITHIN:?}", node.node);
        }
        let first = nodes.first().context("a deployment has nodes")?;
        Ok(Self { nodes: running, port: port_of(&first.client)? })
    }

    /// The port of the first node for clients.
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn stop(self) -> anyhow::Result<()> {
        self.nodes.into_iter().try_for_each(Running::stop)
    }
}

fn generate(
    binary: &Path,
    datacenters: &str,
    durability: Durability,
    folder: &Path,
) -> anyhow::Result<Vec<Node>> {
    let data = folder.join("data");
    fs::create_dir_all(&data).with_context(|| format!("cannot create {}", data.display()))?;
    let fsync = if durability == Durability::Never { "never" } else { "always" };
    for _ in 0..BLOCKS_MAX {
        let base = machine::free_port()?;
        let mut command = Command::new(binary);
        command.args(["config", "generate", "--json", "--fsync", fsync]);
        command.args(["--datacenters", datacenters, "--base-port", &base.to_string()]);
        command.arg("--data").arg(&data).arg("--out").arg(folder);
        if base.checked_add(PORT_BLOCK).is_none() {
            continue;
        }
        let text = machine::output_of(&mut command)?;
        let nodes: Vec<Node> =
            serde_json::from_str(&text).context("cannot read what config generate printed")?;
        let is_free = |address: &str| TcpListener::bind(address).is_ok();
        let are_free =
            |node: &Node| is_free(&node.client) && is_free(&node.peer) && is_free(&node.admin);
        if !nodes.iter().all(are_free) {
            continue;
        }
        if durability == Durability::Memory {
            nodes.iter().try_for_each(|node| keep_in_memory(Path::new(&node.file)))?;
        }
        return Ok(nodes);
    }
    anyhow::bail!("found no {PORT_BLOCK} ports in a row of which the needed ones are free")
}

/// Changes a file so that its node keeps nothing on the disk.
fn keep_in_memory(file: &Path) -> anyhow::Result<()> {
    let text =
        fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let line = |line: &str| {
        if line.starts_with("folder =") { "memory = true".to_owned() } else { line.to_owned() }
    };
    let changed: Vec<String> = text.lines().map(line).collect();
    fs::write(file, changed.join("\n")).with_context(|| format!("cannot write {}", file.display()))
}

fn port_of(address: &str) -> anyhow::Result<u16> {
    let port = address.rsplit(':').next().and_then(|port| port.parse().ok());
    port.with_context(|| format!("cannot find the port in `{address}`"))
}

fn is_ready(admin: &str) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(admin)?;
        stream.set_read_timeout(Some(READY_WITHIN))?;
        stream.write_all(b"GET /readyz HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.split(' ').nth(1) == Some("200"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_is_what_stands_behind_the_last_colon() {
        assert_eq!(port_of("127.0.0.1:7000").expect("a port"), 7000);
        assert!(port_of("127.0.0.1").is_err());
    }
}
