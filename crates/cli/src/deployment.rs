//! Lays a deployment out on this machine and writes the configuration of each of its nodes.
//!
//! `demo` and `config generate` share it, so that nine processes are configured as the demo is.
//!
//! Ensures: what is written is read again by `config check`.

use std::fmt::Write as _;
use std::io::Read;
use std::path::Path;

use anyhow::Context;
use serde::Serialize;

/// Where a node is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct NodePlace {
    /// By clients.
    pub(crate) client: String,
    /// By other nodes.
    pub(crate) peer: String,
    /// By people who look after it.
    pub(crate) admin: String,
    /// By those who take part in the agreement; where there is none, nobody asks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) control: Option<String>,
}

/// A datacenter of a deployment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct DatacenterPlace {
    /// What people call it.
    pub(crate) name: String,
    /// Its nodes in order.
    pub(crate) nodes: Vec<NodePlace>,
    /// Whether it is added to a deployment that is there already.
    #[serde(skip)]
    pub(crate) is_added: bool,
}

/// Where a node keeps its log.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Keeping<'a> {
    /// Nowhere: all is lost with the process.
    Memory,
    /// In this folder, synced as the word says.
    Folder {
        /// Where.
        folder: &'a Path,
        /// `always` or `interval`.
        fsync: &'a str,
    },
}

/// A deployment on this machine.
#[derive(Clone, Debug)]
pub(crate) struct Deployment {
    /// Names it for ever: 32 hexadecimal digits.
    pub(crate) id: String,
    /// What people call it.
    pub(crate) name: String,
    /// How many shards, if not as many as usual.
    pub(crate) shards: Option<u32>,
    /// Whether admin ports may delay and cut links.
    pub(crate) has_faults: bool,
    /// Who decides which replicas serve, as the configuration calls it.
    pub(crate) control: &'static str,
    /// Where etcd answers, if it is asked.
    pub(crate) endpoints: Vec<String>,
    /// Its datacenters; the first has number 1.
    pub(crate) datacenters: Vec<DatacenterPlace>,
}

impl Deployment {
    /// The configuration file of one node; places count from 0.
    pub(crate) fn to_toml(&self, dc: usize, node: usize, keeping: Keeping<'_>) -> String {
        let mut text = String::new();
        self.write(&mut text, (dc, node), keeping).expect("a string takes all text");
        text
    }

    fn write(
        &self,
        text: &mut String,
        (dc, node): (usize, usize),
        keeping: Keeping<'_>,
    ) -> std::fmt::Result {
        writeln!(text, "[deployment]")?;
        writeln!(text, "name = {}", quoted(&self.name))?;
        writeln!(text, "id = {}", quoted(&self.id))?;
        if let Some(shards) = self.shards {
            writeln!(text, "shards = {shards}")?;
        }
        for (number, datacenter) in (1..).zip(&self.datacenters) {
            writeln!(text, "\n[[datacenter]]")?;
            writeln!(text, "id = {number}")?;
            writeln!(text, "name = {}", quoted(&datacenter.name))?;
            if datacenter.is_added {
                writeln!(text, "added = true")?;
            }
            for (number, node) in (1..).zip(&datacenter.nodes) {
                writeln!(text, "\n[[datacenter.node]]")?;
                writeln!(text, "number = {number}")?;
                writeln!(text, "client = {}", quoted(&node.client))?;
                writeln!(text, "peer = {}", quoted(&node.peer))?;
                writeln!(text, "admin = {}", quoted(&node.admin))?;
                if let Some(control) = &node.control {
                    writeln!(text, "control = {}", quoted(control))?;
                }
            }
        }
        let own = self.datacenters.get(dc).map_or("", |datacenter| &datacenter.name);
        writeln!(text, "\n[node]")?;
        writeln!(text, "datacenter = {}", quoted(own))?;
        writeln!(text, "number = {}", node + 1)?;
        writeln!(text, "\n[control]")?;
        writeln!(text, "store = {}", quoted(self.control))?;
        if !self.endpoints.is_empty() {
            let endpoints: Vec<String> = self.endpoints.iter().map(|it| quoted(it)).collect();
            writeln!(text, "endpoints = [{}]", endpoints.join(", "))?;
        }
        writeln!(text, "\n[storage]")?;
        match keeping {
            Keeping::Memory => writeln!(text, "memory = true")?,
            Keeping::Folder { folder, fsync } => {
                writeln!(text, "folder = {}", quoted(&folder.display().to_string()))?;
                writeln!(text, "fsync = {}", quoted(fsync))?;
            }
        }
        if self.has_faults {
            writeln!(text, "\n[faults]")?;
            writeln!(text, "enabled = true")?;
        }
        Ok(())
    }

    /// The name of a node for people and folders, such as `eu-west-1`.
    pub(crate) fn node_name(&self, dc: usize, node: usize) -> String {
        let name = self.datacenters.get(dc).map_or("", |datacenter| &datacenter.name);
        format!("{name}-{}", node + 1)
    }

    /// The places of all nodes: datacenter and node, from 0.
    pub(crate) fn places(&self) -> impl Iterator<Item = (usize, usize)> {
        let nodes_of = |(dc, place): (usize, &DatacenterPlace)| {
            (0..place.nodes.len()).map(move |node| (dc, node))
        };
        self.datacenters.iter().enumerate().flat_map(nodes_of)
    }
}

/// Text in quotes, as TOML and JSON both read it.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// An id that no other deployment has.
///
/// # Errors
/// When the system gives no random bytes.
pub(crate) fn new_id() -> anyhow::Result<String> {
    let mut bytes = [0; 16];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut bytes))
        .context("cannot draw an id from /dev/urandom")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use antecede_server::config::{Config, Layers};

    use super::*;

    pub(crate) fn of_nine() -> Deployment {
        let datacenter = |name: &str, base: u16| DatacenterPlace {
            name: name.to_owned(),
            is_added: name == "ap",
            nodes: (0..3)
                .map(|node| NodePlace {
                    client: format!("127.0.0.1:{}", base + node),
                    peer: format!("127.0.0.1:{}", base + 100 + node),
                    admin: format!("127.0.0.1:{}", base + 200 + node),
                    control: Some(format!("127.0.0.1:{}", base + 300 + node)),
                })
                .collect(),
        };
        Deployment {
            id: new_id().unwrap(),
            name: "nine \"nodes\"".to_owned(),
            shards: Some(64),
            has_faults: true,
            control: "embedded",
            endpoints: Vec::new(),
            datacenters: vec![
                datacenter("eu", 7000),
                datacenter("us", 8000),
                datacenter("ap", 9000),
            ],
        }
    }

    fn read(text: String) -> Config {
        let layers = Layers { file: Some((PathBuf::from("node.toml"), text)), ..Layers::default() };
        Config::load(&layers).unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn every_node_reads_its_own_configuration() {
        let deployment = of_nine();
        assert_eq!(deployment.places().count(), 9);
        for (dc, node) in deployment.places() {
            let folder = PathBuf::from("/tmp/a \"b\"\\c");
            let keeping = Keeping::Folder { folder: &folder, fsync: "always" };
            let config = read(deployment.to_toml(dc, node, keeping));
            assert_eq!(config.listen.client, deployment.datacenters[dc].nodes[node].client);
            assert_eq!(usize::from(config.node.number), node + 1);
            assert_eq!(config.storage.folder, Some(folder));
            assert_eq!(config.deployment_name, deployment.name);
            assert!(config.has_faults);
            assert_eq!(config.control_members().len(), 3);
            let added: Vec<bool> = config.datacenters.iter().map(|there| there.is_added).collect();
            assert_eq!(added, [false, false, true]);
            assert_eq!(
                config.control_address(),
                deployment.datacenters[dc].nodes[node].control.as_deref()
            );
        }
        let deployment = Deployment { control: "none", ..deployment };
        let config = read(deployment.to_toml(2, 1, Keeping::Memory));
        assert!(!config.is_managed());
        assert_eq!(config.storage.folder, None);
        assert_eq!(deployment.node_name(2, 1), "ap-2");
    }

    #[test]
    fn ids_are_32_digits_and_differ() {
        let (one, other) = (new_id().unwrap(), new_id().unwrap());
        assert_eq!(one.len(), 32);
        assert_ne!(one, other);
    }
}
