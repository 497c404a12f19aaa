//! `antecede config`: files that configure nodes, written, checked and shown.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use antecede_server::config::{Config, Effective, Layers, Origin, keys};
use anyhow::{Context, bail};
use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;

use crate::arguments::UsageError;
use crate::deployment::{self, DatacenterPlace, Deployment, Keeping, NodePlace};
use crate::screen;
use crate::serve::{FsyncChoice, setting};

/// Ports of one kind for so many nodes at most.
const NODES_MAX: u16 = 100;

/// Configuration files: an example, one for each node of a deployment, checks.
#[derive(Clone, Debug, Args)]
pub(crate) struct ConfigOptions {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Clone, Debug, Subcommand)]
enum Chore {
    /// Read a file as serve would, and tell what is wrong with it
    Check {
        /// The configuration file
        file: PathBuf,
    },
    /// Show the values that count
    Show {
        /// The configuration file
        #[arg(long, short, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Override one key
        #[arg(long = "set", value_name = "KEY=VALUE", value_parser = setting)]
        settings: Vec<(String, String)>,
        /// All values, those that nobody set too
        #[arg(long)]
        effective: bool,
        /// Where each value comes from
        #[arg(long)]
        origin: bool,
    },
    /// Print a file with every key, its default and what it does
    Example,
    /// Write the files of all nodes of a deployment on this machine
    Generate(GenerateOptions),
}

#[derive(Clone, Debug, Args)]
struct GenerateOptions {
    /// Names and numbers of nodes, such as eu:3,us:3,ap:3
    #[arg(long, value_delimiter = ',', required = true, value_parser = datacenter,
          value_name = "NAME:NODES,...")]
    datacenters: Vec<(String, u16)>,
    /// Those of them that are added to a deployment that is there already
    #[arg(long, value_delimiter = ',', value_name = "NAME,...", requires = "deployment_id")]
    added: Vec<String>,
    /// The id of the deployment, 32 hexadecimal digits; without it, a new one
    #[arg(long, value_name = "ID")]
    deployment_id: Option<String>,
    /// First port; nodes take it and the next for clients, from 100 on for peers, from 200 on for
    /// the admin ports, from 300 on for the agreement
    #[arg(long, default_value_t = 7000)]
    base_port: u16,
    /// The folder in which each node gets a folder for its data
    #[arg(long, value_name = "FOLDER", default_value = "./data")]
    data: PathBuf,
    /// When written records are synced to disk
    #[arg(long, value_enum, default_value = "always")]
    fsync: FsyncChoice,
    /// How many shards
    #[arg(long)]
    shards: Option<u32>,
    /// Let the admin ports delay and cut links between datacenters
    #[arg(long)]
    faults: bool,
    /// Who decides which replicas serve
    #[arg(long, value_enum, default_value = "none")]
    control: ControlChoice,
    /// Where etcd answers, such as 127.0.0.1:2379; for --control etcd
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "HOST:PORT,...",
        required_if_eq("control", "etcd")
    )]
    endpoints: Vec<String>,
    /// The folder for the files
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    out: PathBuf,
    /// Print what was written as JSON
    #[arg(long)]
    json: bool,
}

/// Who decides which replicas serve.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum ControlChoice {
    /// Nobody: a chain waits for a node that is away
    None,
    /// A manager, by agreement of up to three nodes of each datacenter
    Embedded,
    /// A manager, by agreement of an etcd
    Etcd,
}

impl ControlChoice {
    /// As the configuration calls it.
    const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Embedded => "embedded",
            Self::Etcd => "etcd",
        }
    }
}

/// A name and a number of nodes.
fn datacenter(text: &str) -> Result<(String, u16), String> {
    let parts = text.split_once(':').and_then(|(name, count)| Some((name, count.parse().ok()?)));
    let is_name = |name: &str| {
        !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
    };
    match parts {
        Some((name, count)) if is_name(name) && (1..=NODES_MAX).contains(&count) => {
            Ok((name.to_owned(), count))
        }
        Some(_) | None => Err("give a name and a number of nodes such as eu:3".to_owned()),
    }
}

/// Runs the command.
///
/// # Errors
/// When a file is wrong, or cannot be read or written.
pub(crate) fn run(options: &ConfigOptions) -> anyhow::Result<ExitCode> {
    match &options.chore {
        Chore::Check { file } => check(file)?,
        Chore::Show { config, settings, effective, origin } => {
            let layers = Layers::of_process(config.as_deref(), settings.clone())?;
            let all = Effective::of(&layers)?;
            screen::answer(shown(&all, *effective, *origin).trim_end());
        }
        Chore::Example => screen::answer(keys::example().trim_end()),
        Chore::Generate(options) => generate(options)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn check(file: &Path) -> anyhow::Result<()> {
    let config = Config::load(&Layers::of_process(Some(file), Vec::new())?)?;
    let name = config.datacenter_name(config.node.datacenter);
    let nodes = config.nodes().count();
    screen::answer(&format!(
        "{} is fine: node {} of {name}, one of {nodes} nodes in {} datacenters",
        file.display(),
        config.node.number,
        config.datacenters.len(),
    ));
    Ok(())
}

/// The lines of the values that are asked for.
fn shown(all: &Effective, is_all: bool, with_origin: bool) -> String {
    let text = all.show(with_origin);
    if is_all {
        return text;
    }
    // One line a value, in the order of the values.
    let lines = all.iter().zip(text.lines());
    lines
        .filter(|((_, leaf), _)| leaf.origin != Origin::Default)
        .fold(String::new(), |text, (_, line)| text + line + "\n")
}

/// One node as `--json` tells it.
#[derive(Serialize)]
struct Written {
    node: String,
    datacenter: String,
    file: PathBuf,
    #[serde(flatten)]
    place: NodePlace,
}

fn generate(options: &GenerateOptions) -> anyhow::Result<()> {
    let deployment = laid_out(options)?;
    std::fs::create_dir_all(&options.out)
        .with_context(|| format!("cannot make the folder {}", options.out.display()))?;
    let data = std::path::absolute(&options.data).context("cannot tell the current folder")?;
    let mut written = Vec::new();
    for (dc, node) in deployment.places() {
        let name = deployment.node_name(dc, node);
        let folder = data.join(&name);
        let keeping = Keeping::Folder { folder: &folder, fsync: options.fsync.name() };
        let file = options.out.join(format!("{name}.toml"));
        std::fs::write(&file, deployment.to_toml(dc, node, keeping))
            .with_context(|| format!("cannot write {}", file.display()))?;
        // What nodes could not start with is told now.
        if let Err(error) = Config::load(&Layers::of_process(Some(&file), Vec::new())?) {
            bail!("{error}");
        }
        let place = deployment.datacenters[dc].nodes[node].clone();
        let datacenter = deployment.datacenters[dc].name.clone();
        written.push(Written { node: name, datacenter, file, place });
    }
    if options.json {
        return screen::json(&written);
    }
    for one in &written {
        screen::answer(&format!(
            "antecede serve --config {}  # clients {}, admin {}",
            one.file.display(),
            one.place.client,
            one.place.admin
        ));
    }
    Ok(())
}

fn laid_out(options: &GenerateOptions) -> anyhow::Result<Deployment> {
    let count: u32 = options.datacenters.iter().map(|(_, count)| u32::from(*count)).sum();
    if u32::from(NODES_MAX) < count {
        let what = format!("{count} nodes are more than the {NODES_MAX} that have ports here");
        return Err(UsageError(what).into());
    }
    if u32::from(u16::MAX) < u32::from(options.base_port) + 4 * u32::from(NODES_MAX) {
        let what = format!("ports from {} on are too few; give a lower one", options.base_port);
        return Err(UsageError(what).into());
    }
    let is_named = |added: &&String| options.datacenters.iter().any(|(name, _)| name == *added);
    if let Some(unknown) = options.added.iter().find(|added| !is_named(added)) {
        let what = format!("{unknown} is said to be added; name it among the datacenters, too");
        return Err(UsageError(what).into());
    }
    let mut port = options.base_port;
    let mut datacenters = Vec::new();
    for (name, count) in &options.datacenters {
        let mut nodes = Vec::new();
        for _ in 0..*count {
            let at = |offset: u16| format!("127.0.0.1:{}", port + offset);
            nodes.push(NodePlace {
                client: at(0),
                peer: at(NODES_MAX),
                admin: at(2 * NODES_MAX),
                control: Some(at(3 * NODES_MAX)),
            });
            port += 1;
        }
        let is_added = options.added.contains(name);
        datacenters.push(DatacenterPlace { name: name.clone(), nodes, is_added });
    }
    Ok(Deployment {
        id: options.deployment_id.clone().map_or_else(deployment::new_id, Ok)?,
        name: "antecede".to_owned(),
        shards: options.shards,
        has_faults: options.faults,
        control: options.control.name(),
        endpoints: options.endpoints.clone(),
        datacenters,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datacenter_is_a_name_and_a_number_of_nodes() {
        assert_eq!(datacenter("eu-west:3"), Ok(("eu-west".to_owned(), 3)));
        for text in ["eu", "eu:0", ":3", "e u:1", "eu:101", "eu:x"] {
            assert!(datacenter(text).is_err(), "{text}");
        }
    }

    #[test]
    fn files_for_all_nodes_are_written_and_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let options = GenerateOptions {
            added: Vec::new(),
            deployment_id: None,
            datacenters: vec![("eu".to_owned(), 3), ("us".to_owned(), 3), ("ap".to_owned(), 3)],
            base_port: 7000,
            data: folder.path().join("data"),
            fsync: FsyncChoice::Always,
            shards: None,
            faults: true,
            control: ControlChoice::Embedded,
            endpoints: Vec::new(),
            out: folder.path().join("files"),
            json: true,
        };
        generate(&options).unwrap();
        let mut clients = Vec::new();
        for name in ["eu", "us", "ap"] {
            for node in 1..=3 {
                let file = folder.path().join(format!("files/{name}-{node}.toml"));
                let layers = Layers::of_process(Some(&file), Vec::new()).unwrap();
                let config = Config::load(&layers).unwrap();
                assert_eq!(config.nodes().count(), 9);
                assert_eq!(config.control_members().len(), 3);
                clients.push(config.listen.client);
            }
        }
        clients.sort_unstable();
        clients.dedup();
        assert_eq!(clients.len(), 9, "every node has a port of its own");
    }

    #[test]
    fn files_name_the_members_of_etcd() {
        let folder = tempfile::tempdir().unwrap();
        let options = GenerateOptions {
            added: Vec::new(),
            deployment_id: None,
            datacenters: vec![("eu".to_owned(), 3)],
            base_port: 7000,
            data: folder.path().join("data"),
            fsync: FsyncChoice::Always,
            shards: None,
            faults: false,
            control: ControlChoice::Etcd,
            endpoints: vec!["127.0.0.1:2379".to_owned()],
            out: folder.path().join("files"),
            json: true,
        };
        generate(&options).unwrap();
        let file = folder.path().join("files/eu-2.toml");
        let config = Config::load(&Layers::of_process(Some(&file), Vec::new()).unwrap()).unwrap();
        assert_eq!(config.control.etcd.unwrap().endpoints, ["127.0.0.1:2379"]);
    }

    #[test]
    fn only_what_somebody_set_is_shown_unless_all_is_asked_for() {
        let flags = vec![("limits.maxmemory".to_owned(), "1GiB".to_owned())];
        let all = Effective::of(&Layers { flags, ..Layers::default() }).unwrap();
        let some = shown(&all, false, true);
        assert_eq!(some.lines().count(), 1, "{some}");
        assert!(some.starts_with("limits.maxmemory = \"1GiB\"") && some.contains('#'), "{some}");
        assert!(10 < shown(&all, true, false).lines().count());
    }
}
