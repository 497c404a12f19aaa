//! The nodes of the demo, the delays between them, and what the prompt may do with them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use antecede_server::config::{Config, Layers};
use antecede_server::{
    LinkShape, LinkShaper, Listeners, Placement, RunningServer, Server, ServerOptions,
};
use anyhow::{Context, anyhow, bail};
use serde::Serialize;
use tokio::task::JoinSet;

use super::photo;
use super::verb::{HELP, Verb};
use super::{DemoOptions, places};
use crate::client::{Connection, connection::Answer};
use crate::deployment::{self, DatacenterPlace, Deployment, Keeping};
use crate::{memory, screen, serve, table};

/// The file that keeps the id of a demo whose data is kept.
const ID_FILE: &str = "deployment";

/// How long a command typed at the prompt may take.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(10);

/// Three datacenters.
#[derive(Debug)]
pub(crate) struct World {
    deployment: Deployment,
    /// By datacenter and node.
    servers: Vec<Vec<RunningServer>>,
    shaper: LinkShaper,
    placement: Option<Placement>,
}

/// What `--listening-url-file` holds.
#[derive(Serialize)]
struct Addresses<'a> {
    datacenters: &'a [DatacenterPlace],
    process: u32,
}

impl World {
    /// Starts all nodes.
    ///
    /// # Errors
    /// When a port or a folder cannot be had.
    pub(crate) async fn start(
        options: &DemoOptions,
        placement: Option<Placement>,
    ) -> anyhow::Result<Self> {
        let places = places::take(options.base_port)?;
        let deployment = Deployment {
            id: id_of(options.data.as_deref())?,
            name: "demo".to_owned(),
            shards: None,
            has_faults: true,
            control: "none",
            endpoints: Vec::new(),
            datacenters: places.datacenters,
        };
        let shaper = LinkShaper::new();
        for (from, to, delay) in options.latency.one_way() {
            shaper.set(from, to, LinkShape { delay, jitter: options.jitter, is_cut: false });
        }
        let mut world = Self { deployment, servers: Vec::new(), shaper, placement };
        for (dc, sockets) in places.sockets.into_iter().enumerate() {
            world.servers.push(Vec::new());
            for (node, listeners) in sockets.into_iter().enumerate() {
                if let Err(error) = world.start_node((dc, node), options, listeners).await {
                    world.shutdown().await;
                    return Err(error);
                }
            }
        }
        Ok(world)
    }

    async fn start_node(
        &mut self,
        (dc, node): (usize, usize),
        options: &DemoOptions,
        listeners: Listeners,
    ) -> anyhow::Result<()> {
        let name = self.deployment.node_name(dc, node);
        let folder = options.data.as_ref().map(|data| data.join(&name));
        let keeping = match &folder {
            Some(folder) => Keeping::Folder { folder, fsync: "always" },
            None => Keeping::Memory,
        };
        let text = self.deployment.to_toml(dc, node, keeping);
        let file = Some((PathBuf::from(format!("{name} of the demo")), text));
        let config = Config::load(&Layers { file, ..Layers::default() })?;
        let server_options = ServerOptions {
            memory_figure: memory::figure(),
            shaper: self.shaper.clone(),
            listeners: Some(listeners),
            placement: self.placement.clone(),
            ..ServerOptions::default()
        };
        let server = Server::start(config, server_options)
            .await
            .with_context(|| format!("cannot start node {name}"))?;
        self.servers[dc].push(server);
        Ok(())
    }

    /// Waits until every node answers clients.
    ///
    /// # Errors
    /// When it takes longer than `timeout`.
    pub(crate) async fn await_ready(&self, timeout: Duration) -> anyhow::Result<()> {
        let servers: Vec<&RunningServer> = self.servers.iter().flatten().collect();
        serve::await_ready(&servers, timeout).await
    }

    /// Ends all nodes at the same time.
    pub(crate) async fn shutdown(self) {
        let mut ends = JoinSet::new();
        for server in self.servers.into_iter().flatten() {
            ends.spawn(server.shutdown());
        }
        while let Some(ended) = ends.join_next().await {
            if let Err(error) = ended {
                screen::note(&format!("a node did not end as it should: {error}"));
            }
        }
    }

    /// The names of the datacenters.
    pub(crate) fn names(&self) -> Vec<String> {
        self.deployment.datacenters.iter().map(|place| place.name.clone()).collect()
    }

    /// Where clients reach the first node of a datacenter.
    pub(crate) fn client_of(&self, dc: usize) -> &str {
        &self.deployment.datacenters[dc].nodes[0].client
    }

    /// The links between the datacenters.
    pub(crate) const fn shaper(&self) -> &LinkShaper {
        &self.shaper
    }

    /// What is told at the start.
    pub(crate) fn introduction(&self, data: Option<&Path>) -> String {
        let names = self.names();
        let port = |dc: usize| port_of(self.client_of(dc));
        let kept = match data {
            Some(folder) => format!("data in {}", folder.display()),
            None => "data in memory only".to_owned(),
        };
        format!(
            "Three datacenters of three nodes each; every node takes any key; {kept}.\n\n\
             {}\n\n\
             Write in one, read in another:\n  \
             redis-cli -p {} SET hello world\n  \
             redis-cli -p {} GET hello\n  \
             redis-cli -p {} GET hello\n\
             One screen of everything: antecede status --admin {}\n\
             Cut {} off and go on: \\partition {} {}   \
             What causal order is for: \\photo   More: \\help\n",
            self.table(),
            port(0),
            port(1),
            port(2),
            self.deployment
                .datacenters
                .iter()
                .flat_map(|place| &place.nodes)
                .map(|node| node.admin.as_str())
                .collect::<Vec<_>>()
                .join(","),
            names[2],
            names[0],
            names[2],
        )
    }

    /// Nodes, addresses and distances.
    fn table(&self) -> String {
        let names = self.names();
        let rows = names.iter().enumerate().map(|(dc, name)| {
            let place = &self.deployment.datacenters[dc];
            let clients = place.nodes.iter().map(|node| node.client.as_str());
            let ways = names.iter().filter(|other| *other != name).map(|other| {
                let shape = self.shaper.shape(name, other);
                let how = if shape.is_cut {
                    "cut off".to_owned()
                } else {
                    humantime::format_duration(shape.delay).to_string()
                };
                format!("{other} {how}")
            });
            [
                name.clone(),
                clients.collect::<Vec<_>>().join("  "),
                ways.collect::<Vec<_>>().join(", "),
            ]
        });
        table::of(["datacenter", "Redis clients connect to", "one way to"], rows, usize::MAX)
    }

    /// Writes the addresses of all nodes to `file`, whole or not at all.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn write_addresses(&self, file: &Path) -> anyhow::Result<()> {
        let addresses =
            Addresses { datacenters: &self.deployment.datacenters, process: std::process::id() };
        let text = serde_json::to_string_pretty(&addresses)?;
        let name = file.file_name().ok_or_else(|| anyhow!("{} is no file", file.display()))?;
        let unfinished = file.with_file_name(format!("{}.unfinished", name.display()));
        std::fs::write(&unfinished, text + "\n")
            .and_then(|()| std::fs::rename(&unfinished, file))
            .with_context(|| format!("cannot write {}", file.display()))
    }

    /// Does what a verb asks for; what to show.
    ///
    /// # Errors
    /// When a node does not answer.
    pub(crate) async fn obey(&self, verb: &Verb) -> anyhow::Result<String> {
        match verb {
            Verb::Help | Verb::Quit => Ok(HELP.to_owned()),
            Verb::Datacenters => Ok(self.table()),
            Verb::Delay { one, other, delay } => {
                self.change((*one, *other), |shape| shape.delay = *delay);
                Ok(self.table())
            }
            Verb::Partition { one, other } => {
                self.change((*one, *other), |shape| shape.is_cut = true);
                Ok(self.table())
            }
            Verb::Heal(Some((one, other))) => {
                self.change((*one, *other), |shape| shape.is_cut = false);
                Ok(self.table())
            }
            Verb::Heal(None) => {
                self.shaper.heal();
                Ok(self.table())
            }
            Verb::Lag => Ok(self.lag()),
            Verb::Photo { as_json } => {
                let shown = photo::show(self).await?;
                if *as_json { Ok(serde_json::to_string(&shown)?) } else { Ok(shown.to_text()) }
            }
            Verb::Command { datacenter, words } => self.command(*datacenter, words).await,
        }
    }

    /// Changes both ways between two datacenters.
    fn change(&self, (one, other): (usize, usize), change: impl Fn(&mut LinkShape)) {
        let names = self.names();
        self.shaper.change(&names[one], &names[other], &change);
        self.shaper.change(&names[other], &names[one], &change);
    }

    /// How far each datacenter is behind each other one.
    fn lag(&self) -> String {
        let rows = self.names().into_iter().zip(&self.servers).flat_map(|(name, servers)| {
            let mut lags: Vec<(String, u64)> = Vec::new();
            for lag in servers.iter().flat_map(|server| server.status().lag) {
                match lags.iter_mut().find(|(origin, _)| *origin == lag.datacenter) {
                    Some((_, most)) => *most = (*most).max(lag.lag_ms),
                    None => lags.push((lag.datacenter, lag.lag_ms)),
                }
            }
            lags.into_iter().map(move |(origin, lag)| [name.clone(), origin, lag.to_string()])
        });
        table::of(["datacenter", "is behind", "ms"], rows, 2)
    }

    async fn command(&self, dc: usize, words: &[String]) -> anyhow::Result<String> {
        let address = self.client_of(dc);
        let mut connection = Connection::open(address, None, COMMAND_TIMEOUT).await?;
        let words: Vec<&[u8]> = words.iter().map(String::as_bytes).collect();
        let answers = connection.call_all(&[&words]).await?;
        Ok(answers.first().map_or_else(String::new, Answer::to_lines))
    }
}

/// The id of the deployment: that of the folder if there is data in it.
fn id_of(data: Option<&Path>) -> anyhow::Result<String> {
    let Some(folder) = data else { return deployment::new_id() };
    let file = folder.join(ID_FILE);
    if file.exists() {
        let id = std::fs::read_to_string(&file)
            .with_context(|| format!("cannot read {}", file.display()))?;
        let id = id.trim().to_owned();
        if id.len() != 32 {
            bail!("{} holds no id; restore it, or give an empty folder", file.display());
        }
        return Ok(id);
    }
    let id = deployment::new_id()?;
    std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::write(&file, format!("{id}\n")))
        .with_context(|| format!("cannot write {}", file.display()))?;
    Ok(id)
}

fn port_of(address: &str) -> &str {
    address.rsplit_once(':').map_or(address, |(_, port)| port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_keeps_the_id_of_its_demo() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let first = id_of(Some(&data)).unwrap();
        assert_eq!(id_of(Some(&data)).unwrap(), first);
        std::fs::write(data.join(ID_FILE), "nonsense").unwrap();
        assert!(id_of(Some(&data)).unwrap_err().to_string().contains("holds no id"));
        assert_ne!(id_of(None).unwrap(), id_of(None).unwrap());
    }
}
