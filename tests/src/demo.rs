//! Runs `antecede demo` and reads where its nodes are.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::process::Start;
use crate::{Client, Process, Stage, http, ports};

/// How long the start of nine nodes may take.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// Where the three first ports of the datacenters lie, from the base.
const OFFSETS: [u16; 9] = [0, 1, 2, 1000, 1001, 1002, 2000, 2001, 2002];

/// Ends a demo whose test cannot end it any more.
const EXIT_AFTER: &str = "10m";

/// Where a node is reached.
#[derive(Clone, Debug)]
pub struct Place {
    /// By clients.
    pub client: String,
    /// By other nodes.
    pub peer: String,
    /// By people who look after it.
    pub admin: String,
}

impl Place {
    /// As commands print it with `--json`.
    ///
    /// # Panics
    /// If something is missing.
    #[must_use]
    pub fn of(value: &Value) -> Self {
        let text = |name: &str| {
            let text = value[name].as_str();
            text.unwrap_or_else(|| panic!("{value} has no {name}")).to_owned()
        };
        Self { client: text("client"), peer: text("peer"), admin: text("admin") }
    }
}

/// Three datacenters of three nodes in one process.
#[derive(Debug)]
pub struct Demo {
    /// The process.
    pub process: Process,
    /// The first port that was asked for.
    pub base_port: u16,
    /// Names of the datacenters.
    pub names: Vec<String>,
    /// By datacenter and node.
    pub places: Vec<Vec<Place>>,
}

impl Demo {
    /// Starts it with these further options and waits until it is ready.
    #[must_use]
    pub fn start(stage: &Stage, words: &[&str]) -> Self {
        let base_port = ports::base_with_free(&OFFSETS);
        let file = stage.path("addresses.json");
        let port = base_port.to_string();
        let fixed = ["demo", "--base-port", &port, "--exit-after", EXIT_AFTER];
        let listed = ["--listening-url-file", path_text(&file)];
        let words = [&fixed[..], &listed, words].concat();
        let start = Start { name: "demo", words: &words, ..Start::default() };
        let mut process = Process::start(stage, &start);
        let text = process.eventually("the demo is ready", START_TIMEOUT, |_| {
            std::fs::read_to_string(&file).ok()
        });
        let value: Value = serde_json::from_str(&text).expect("addresses are JSON");
        let all = value["datacenters"].as_array().expect("there is a list of datacenters");
        let name = |value: &Value| value["name"].as_str().expect("it has a name").to_owned();
        let nodes = |value: &Value| value["nodes"].as_array().expect("it has nodes").clone();
        Self {
            process,
            base_port,
            names: all.iter().map(name).collect(),
            places: all.iter().map(|dc| nodes(dc).iter().map(Place::of).collect()).collect(),
        }
    }

    /// A client of a node.
    #[must_use]
    pub fn client(&self, dc: usize, node: usize) -> Client {
        Client::connect(&self.places[dc][node].client)
    }

    /// Clients of all nodes.
    #[must_use]
    pub fn clients(&self) -> Vec<Client> {
        self.places.iter().flatten().map(|place| Client::connect(&place.client)).collect()
    }

    /// How many records the nodes' logs have, and how far they are written, in all.
    ///
    /// # Panics
    /// If a node does not tell.
    #[must_use]
    pub fn log_positions(&self) -> Vec<[u64; 2]> {
        let position = |status: &Value, name: &str| {
            status["log"][name].as_u64().unwrap_or_else(|| panic!("{status} has no {name}"))
        };
        let positions = |place: &Place| {
            let status = http::status(&place.admin);
            [position(&status, "appended_to"), position(&status, "synced_to")]
        };
        self.places.iter().flatten().map(positions).collect()
    }
}

/// A path as an argument.
///
/// # Panics
/// If it is no text.
#[must_use]
pub fn path_text(path: &Path) -> &str {
    path.to_str().expect("temporary folders have names that are text")
}

/// When files below a folder were last changed, with their names.
///
/// # Panics
/// If the folder cannot be read.
#[must_use]
pub fn changes_below(folder: &Path) -> Vec<(PathBuf, std::time::SystemTime)> {
    let mut changes = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("the folder can be read") {
            let entry = entry.expect("the folder can be read");
            let metadata = entry.metadata().expect("a file can be asked for");
            if metadata.is_dir() {
                folders.push(entry.path());
            } else {
                changes.push((entry.path(), metadata.modified().expect("files have times")));
            }
        }
    }
    changes.sort();
    changes
}
