//! Runs a deployment of several of our processes on this machine.
//!
//! The files come from `antecede config generate`, as a user's would. Every node is its own
//! process; all are ended when the value is dropped.
//!
//! Limits: the ports lie in one block that was free when it was looked for, below those from which
//! the system gives ports to clients.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde::Deserialize;

use super::CompareOptions;
use super::load::{self, Work};
use super::servers::Durability;
use crate::machine::{self, Running};

/// Where blocks of ports begin.
const PORTS_FROM: u16 = 10_000;
/// Ports from the first one on of which some are used.
const PORT_BLOCK: u16 = 300;
/// Blocks of ports that are tried.
const BLOCKS_MAX: u16 = 70;
/// How long the nodes may take to agree with each other.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// How long all datacenters may take to apply what one has written.
const SETTLED_WITHIN: Duration = Duration::from_secs(120);

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
pub(crate) struct Deployment {
    nodes: Vec<Running>,
    /// Of the nodes, for clients.
    ports: Vec<u16>,
    /// Of the nodes' admin ports.
    admins: Vec<String>,
}

impl Deployment {
    /// Starts a deployment such as `eu:3,us:3,ap:3`, and waits until every node serves.
    pub(crate) fn start(
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
        let ports =
            nodes.iter().map(|node| port_of(&node.client)).collect::<anyhow::Result<_>>()?;
        let admins = nodes.into_iter().map(|node| node.admin).collect();
        Ok(Self { nodes: running, ports, admins })
    }

    /// The nodes' ports for clients, in the order of the datacenters.
    pub(crate) fn ports(&self) -> &[u16] {
        &self.ports
    }

    /// Asks every admin port for a path; the answers' bodies.
    pub(crate) fn ask(&self, request: &str) -> anyhow::Result<Vec<String>> {
        self.admins.iter().map(|admin| ask(admin, request)).collect()
    }

    /// Writes some keys, and waits until all nodes hold the same number.
    pub(super) fn warm_up(&self, options: &CompareOptions) -> anyhow::Result<()> {
        let work = Work { command: "SET", pipeline: 16 };
        load::measure(self.ports[0], &work, options.requests / 5, options)?;
        let has_settled = machine::wait_until(SETTLED_WITHIN, || {
            let sizes: Vec<Option<String>> = self.ports.iter().map(|port| size_at(*port)).collect();
            sizes.iter().all(|size| size.is_some() && *size == sizes[0])
        });
        ensure!(has_settled, "the nodes did not hold the same keys within {SETTLED_WITHIN:?}");
        Ok(())
    }

    pub(crate) fn stop(self) -> anyhow::Result<()> {
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
    // Several datacenters take nothing weaker than a sync every second.
    let fsync = match durability {
        Durability::Never if datacenters.contains(',') => "interval",
        Durability::Never => "never",
        Durability::Memory | Durability::Always => "always",
    };
    let first = u16::try_from(std::process::id() % u32::from(BLOCKS_MAX))?;
    for block in 0..BLOCKS_MAX {
        let base = PORTS_FROM + (first + block) % BLOCKS_MAX * PORT_BLOCK;
        let mut command = Command::new(binary);
        command.args(["config", "generate", "--json", "--faults", "--fsync", fsync]);
        command.args(["--datacenters", datacenters, "--base-port", &base.to_string()]);
        command.arg("--data").arg(&data).arg("--out").arg(folder);
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

/// How many keys a node's datacenter holds.
fn size_at(port: u16) -> Option<String> {
    let ask = ["-p", &port.to_string(), "dbsize"];
    machine::output_of(Command::new("redis-cli").args(ask)).ok()
}

fn port_of(address: &str) -> anyhow::Result<u16> {
    let port = address.rsplit(':').next().and_then(|port| port.parse().ok());
    port.with_context(|| format!("cannot find the port in `{address}`"))
}

fn is_ready(admin: &str) -> bool {
    ask(admin, "GET /readyz HTTP/1.0\r\n\r\n").is_ok()
}

/// Sends a request to an admin port; the body of an answer that says that all is well.
fn ask(admin: &str, request: &str) -> anyhow::Result<String> {
    let mut stream =
        TcpStream::connect(admin).with_context(|| format!("cannot connect to {admin}"))?;
    stream.set_read_timeout(Some(READY_WITHIN)).context("cannot set a time-out")?;
    stream.write_all(request.as_bytes()).context("cannot ask an admin port")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).context("cannot read the answer of an admin port")?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let is_well = head.split(' ').nth(1).is_some_and(|status| status.starts_with('2'));
    ensure!(is_well, "{admin} answered {}", head.lines().next().unwrap_or_default());
    Ok(body.to_owned())
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
