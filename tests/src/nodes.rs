//! Runs a deployment of `antecede serve` processes, each with a file of `antecede config generate`.
//!
//! On one loopback, links between datacenters are delayed and cut at the admin ports. A node shapes
//! only what itself sends, so each wish is told to every node. On a `Network` each node has a
//! namespace and an address of its own, and ways are cut there.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use crate::demo::{Place, path_text};
use crate::patience::{Deadline, eventually, within};
use crate::process::Start;
use crate::{Client, Network, Process, Reply, Stage, binary, http, ports, tell};

/// How long the start of all nodes may take.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// A node.
#[derive(Debug)]
pub struct Node {
    /// Such as `eu-1`.
    pub name: String,
    /// Its datacenter.
    pub datacenter: String,
    /// Where it is.
    pub place: Place,
    /// Its process.
    pub process: Process,
    file: PathBuf,
    environment: Vec<(String, String)>,
    space: Option<String>,
    password: Option<String>,
}

/// All nodes of a deployment.
#[derive(Debug)]
pub struct Nodes {
    /// By number.
    pub all: Vec<Node>,
    /// Names of the datacenters.
    pub datacenters: Vec<String>,
    layout: Layout,
}

/// How nodes were laid out.
#[derive(Debug)]
struct Layout {
    /// Names of datacenters with their numbers of nodes.
    names: Vec<String>,
    /// The first port.
    port: String,
    /// What else was said to `config generate`.
    further: Vec<String>,
}

/// What clients say to nodes on a network, which take nobody without a password.
const PASSWORD: &str = "on-a-network";

/// How both ways between two datacenters are.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    /// One way, in milliseconds.
    pub delay_ms: u32,
    /// At most so much more.
    pub jitter_ms: u32,
    /// Whether nothing goes through.
    pub is_cut: bool,
}

impl Nodes {
    /// Starts datacenters with these names and numbers of nodes, and waits until all are ready.
    ///
    /// # Panics
    /// If they are not.
    #[must_use]
    pub fn start(stage: &Stage, datacenters: &[(&str, u16)]) -> Self {
        Self::start_with(stage, datacenters, &["--control", "none"], &[])
    }

    /// The same with managers that decide who serves, by agreement of the datacenters' nodes.
    ///
    /// # Panics
    /// If they are not ready.
    #[must_use]
    pub fn start_managed(stage: &Stage, datacenters: &[(&str, u16)]) -> Self {
        Self::start_with(stage, datacenters, &["--control", "embedded"], &[])
    }

    /// The same with something added to the environment of each node; `control` is `none` or
    /// `embedded`.
    ///
    /// # Panics
    /// If they are not ready.
    #[must_use]
    pub fn start_in(
        stage: &Stage,
        datacenters: &[(&str, u16)],
        control: &str,
        environment: &[(&str, &str)],
    ) -> Self {
        Self::start_with(stage, datacenters, &["--control", control], environment)
    }

    /// The same by agreement of an etcd.
    ///
    /// # Panics
    /// If they are not ready.
    #[must_use]
    pub fn start_on_etcd(stage: &Stage, datacenters: &[(&str, u16)], etcd: &str) -> Self {
        Self::start_with(stage, datacenters, &["--control", "etcd", "--endpoints", etcd], &[])
    }

    /// The same with each node on a network of its own; `change` may add to the environment of each.
    ///
    /// # Panics
    /// If they are not ready.
    #[must_use]
    pub fn start_apart(
        stage: &Stage,
        network: &Network,
        datacenters: &[(&str, u16)],
        change: impl Fn(&str) -> Vec<(String, String)>,
    ) -> Self {
        let (mut written, layout) = lay_out(stage, datacenters, &["--control", "embedded"]);
        move_apart(network, &mut written);
        let node = |(place, value): (usize, &Value)| {
            let name = value["node"].as_str().expect("it has a name");
            Node::start(stage, value, change(name), Some(network.space(place)))
        };
        Self::of(datacenters, written.iter().enumerate().map(node).collect(), layout)
    }

    fn start_with(
        stage: &Stage,
        datacenters: &[(&str, u16)],
        control: &[&str],
        environment: &[(&str, &str)],
    ) -> Self {
        let control = [control, &["--faults"]].concat();
        let (written, layout) = lay_out(stage, datacenters, &control);
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let environment: Vec<_> = environment.iter().map(owned).collect();
        let node = |value| Node::start(stage, value, environment.clone(), None);
        Self::of(datacenters, written.iter().map(node).collect(), layout)
    }

    /// Nodes that have been started, once all are ready.
    fn of(datacenters: &[(&str, u16)], all: Vec<Node>, layout: Layout) -> Self {
        let datacenters = datacenters.iter().map(|(name, _)| (*name).to_owned()).collect();
        let mut nodes = Self { all, datacenters, layout };
        for node in &mut nodes.all {
            node.await_ready(START_TIMEOUT);
        }
        nodes
    }

    /// Starts the only node of a datacenter that the settings of the others do not name; it serves
    /// nobody until the deployment is told of it. Its place among all.
    ///
    /// # Panics
    /// If there is no deployment that it could be added to.
    pub fn add(&mut self, stage: &Stage, name: &str) -> usize {
        let file = std::fs::read_to_string(&self.all[0].file).expect("there is a file");
        let id = file.lines().find_map(|line| line.strip_prefix("id = "));
        let id = id.expect("it has an id").trim_matches('"').to_owned();
        let Layout { names, port, further } = &self.layout;
        let names = [names.clone(), vec![format!("{name}:1")]].concat();
        let mut words = vec!["--added", name, "--deployment-id", &id];
        words.extend(further.iter().map(String::as_str));
        let files: Vec<(PathBuf, String)> = self
            .all
            .iter()
            .map(|node| {
                let text = std::fs::read_to_string(&node.file).expect("it can be read");
                (node.file.clone(), text)
            })
            .collect();
        let written = generate(stage, &names, port, &words);
        // The files of the others stay as they were.
        for (path, text) in files {
            std::fs::write(path, text).expect("it can be written");
        }
        let value = written.last().expect("a file for each node");
        self.all.push(Node::start(stage, value, Vec::new(), None));
        self.datacenters.push(name.to_owned());
        self.all.len() - 1
    }

    /// An address of this machine that no node has.
    ///
    /// # Panics
    /// If the ports were not laid out by a number.
    #[must_use]
    pub fn spare_address(&self) -> String {
        let base: usize = self.layout.port.parse().expect("the first port is a number");
        format!("127.0.0.1:{}", base + 300 + self.all.len())
    }

    /// Addresses for clients, in the form of `bench --endpoints`.
    #[must_use]
    pub fn endpoints(&self) -> String {
        self.all.iter().map(|node| node.place.client.as_str()).collect::<Vec<_>>().join(",")
    }

    /// Addresses of admin ports, in the form of `status --admin`.
    #[must_use]
    pub fn admins(&self) -> String {
        self.all.iter().map(|node| node.place.admin.as_str()).collect::<Vec<_>>().join(",")
    }

    /// Makes the way from one datacenter to another so, at all nodes that run.
    ///
    /// # Panics
    /// If a node that runs refuses.
    pub fn shape(&self, from: &str, to: &str, way: Way) {
        let body = json!({
            "from": from, "to": to,
            "delay_ms": way.delay_ms, "jitter_ms": way.jitter_ms, "cut": way.is_cut,
        });
        for node in &self.all {
            node.set_fault(&body.to_string());
        }
    }

    /// Makes all ways so.
    pub fn shape_all(&self, way: Way) {
        for from in &self.datacenters {
            for to in self.datacenters.iter().filter(|to| *to != from) {
                self.shape(from, to, way);
            }
        }
    }

    /// Asserts that all nodes still run.
    ///
    /// # Panics
    /// If one has ended.
    pub fn assert_running(&mut self) {
        for node in &mut self.all {
            let ended = node.process.try_end();
            assert!(ended.is_none(), "{} has ended: {ended:?}", node.name);
        }
    }

    /// The sum of a metric over all nodes.
    #[must_use]
    pub fn metric(&self, name: &str) -> f64 {
        self.all.iter().map(|node| http::metric(&node.place.admin, name)).sum()
    }
}

/// Nodes of datacenters that may be added later.
const ADDED_MAX: u16 = 1;

/// Writes the files of a deployment; what was written, and how to write them again.
fn lay_out(stage: &Stage, datacenters: &[(&str, u16)], further: &[&str]) -> (Vec<Value>, Layout) {
    let count: u16 = datacenters.iter().map(|(_, count)| count).sum();
    // Some more, for datacenters that come later.
    let offsets: Vec<u16> = (0..count + ADDED_MAX)
        .flat_map(|node| [node, 100 + node, 200 + node, 300 + node])
        .collect();
    let port = ports::base_with_free(&offsets).to_string();
    let names: Vec<String> =
        datacenters.iter().map(|(name, count)| format!("{name}:{count}")).collect();
    let written = generate(stage, &names, &port, further);
    assert_eq!(written.len(), usize::from(count), "a file for each node");
    let further = further.iter().map(|word| (*word).to_owned()).collect();
    (written, Layout { names, port, further })
}

/// Writes the files of all nodes; what it says of each.
fn generate(stage: &Stage, names: &[String], port: &str, further: &[&str]) -> Vec<Value> {
    let (data, files, names) = (stage.path("data"), stage.path("files"), names.join(","));
    let fixed = [
        "config",
        "generate",
        "--datacenters",
        &names,
        "--base-port",
        port,
        "--data",
        path_text(&data),
        "--fsync",
        "always",
        "--out",
        path_text(&files),
        "--json",
    ];
    let written = binary::answer_of(stage, &[&fixed[..], further].concat());
    let written: Value = serde_json::from_str(&written).expect("what was written is JSON");
    written.as_array().expect("it is a list").clone()
}

/// Gives each node the address that it has on a network, in all files and in what is told of them.
fn move_apart(network: &Network, written: &mut [Value]) {
    let mut moved: Vec<(String, String)> = Vec::new();
    for (place, value) in written.iter_mut().enumerate() {
        for name in ["client", "peer", "admin", "control"] {
            let old = value[name].as_str().expect("it has an address").to_owned();
            let (_, port) = old.rsplit_once(':').expect("an address has a port");
            let new = format!("{}:{port}", network.address(place));
            value[name] = json!(new);
            moved.push((old, new));
        }
    }
    for value in written {
        let file = value["file"].as_str().expect("it has a file").to_owned();
        let mut text = std::fs::read_to_string(&file).expect("the file can be read");
        for (old, new) in &moved {
            text = text.replace(&format!("\"{old}\""), &format!("\"{new}\""));
        }
        text.push_str(&format!("\n[security]\npassword = \"{PASSWORD}\"\n"));
        std::fs::write(&file, text).expect("the file can be written");
        value["password"] = json!(PASSWORD);
    }
}

impl Node {
    fn start(
        stage: &Stage,
        value: &Value,
        environment: Vec<(String, String)>,
        space: Option<String>,
    ) -> Self {
        let text = |name: &str| value[name].as_str().expect("it is text").to_owned();
        let (name, file) = (text("node"), PathBuf::from(text("file")));
        Self {
            process: serve(stage, &name, &file, &environment, space.as_deref(), &[]),
            place: Place::of(value),
            datacenter: text("datacenter"),
            name,
            file,
            environment,
            space,
            password: value["password"].as_str().map(str::to_owned),
        }
    }

    /// Replaces a line of its configuration file; counts from the next start.
    ///
    /// # Panics
    /// If there is no such line.
    pub fn replace_line(&self, line: &str, by: &str) {
        let text = std::fs::read_to_string(&self.file).expect("its file can be read");
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        let lines = text.lines().map(|found| if found == line { by } else { found });
        let text: Vec<&str> = lines.collect();
        std::fs::write(&self.file, text.join("\n")).expect("its file can be written");
    }

    /// Waits until it serves clients.
    ///
    /// # Panics
    /// If that takes longer than `patience`, or its process ends.
    pub fn await_ready(&mut self, patience: Duration) {
        let what = format!("{} is ready", self.name);
        let admin = self.place.admin.clone();
        let since = Deadline::after(patience);
        let mut is_told = false;
        self.process.eventually(&what, patience, |_| {
            if !http::is_ready(&admin) && !is_told && patience / 8 * 7 < since.elapsed() {
                is_told = true;
                let status = http::ask("GET", &admin, "/v1/status", "");
                tell(&format!("{what}: not for long: {:?}", status.map(|status| status.body)));
            }
            http::is_ready(&admin).then_some(())
        });
    }

    /// Ends it as `kill -9` does.
    pub fn crash(&mut self) {
        self.process.kill();
    }

    /// Starts it again, on the same folder, after it has ended.
    pub fn restart(&mut self, stage: &Stage) {
        self.restart_with(stage, &[]);
    }

    /// The same, with these options.
    pub fn restart_with(&mut self, stage: &Stage, options: &[&str]) {
        let space = self.space.as_deref();
        self.process = serve(stage, &self.name, &self.file, &self.environment, space, options);
    }

    /// What clients have to say, if anything.
    #[must_use]
    pub fn password(&self) -> Option<&str> {
        self.password.as_deref()
    }

    /// Sets a variable of its environment; counts from the next start.
    pub fn set_variable(&mut self, name: &str, value: &str) {
        self.environment.retain(|(known, _)| known != name);
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Its configuration file.
    #[must_use]
    pub fn file(&self) -> &std::path::Path {
        &self.file
    }

    /// What its admin port tells of it; `None` while it does not answer.
    #[must_use]
    pub fn status(&self) -> Option<Value> {
        let answer = http::ask("GET", &self.place.admin, "/v1/status", "").ok()?;
        serde_json::from_str(&answer.body).ok()
    }

    /// How many replicas serve in the shortest chain of its datacenter, as it knows them; `None`
    /// while it does not answer.
    #[must_use]
    pub fn shortest_chain(&self) -> Option<usize> {
        let status = self.status()?;
        let chains = status["chains"].as_array()?;
        chains.iter().map(|chain| chain["serving"].as_array().map_or(0, Vec::len)).min()
    }

    /// Ends it as `kill -9` does and starts it again on the same folder.
    pub fn crash_and_restart(&mut self, stage: &Stage, down_for: Duration) {
        self.process.kill();
        // Nobody is there meanwhile: the wait is for a node that must not answer.
        let answered = within(down_for, || http::is_ready(&self.place.admin).then_some(()));
        assert!(answered.is_none(), "{} answers after it was killed", self.name);
        self.restart(stage);
    }

    /// A client of it.
    ///
    /// # Panics
    /// If it takes none.
    #[must_use]
    pub fn client(&self) -> Client {
        let mut client = Client::connect(&self.place.client);
        if let Some(password) = &self.password {
            assert_eq!(client.call(&["AUTH", password]), Reply::ok(), "{}", self.name);
        }
        client
    }

    fn set_fault(&self, body: &str) {
        let what = format!("{} takes a fault", self.name);
        eventually(&what, Duration::from_secs(20), || {
            let answer = http::ask("PUT", &self.place.admin, "/v1/faults", body).ok()?;
            assert!(answer.status < 300, "{}: {answer:?}", self.name);
            Some(())
        });
    }
}

/// Little, so that a short load has many checkpoints, and logs that are cut. On a network nodes are
/// as people run them, since there it is measured what faults cost.
const CHECKPOINT: &str = "storage.checkpoint=64KiB";
const SEGMENT: &str = "storage.segment=64KiB";

fn serve(
    stage: &Stage,
    name: &str,
    file: &std::path::Path,
    environment: &[(String, String)],
    space: Option<&str>,
    options: &[&str],
) -> Process {
    let mut words = vec!["serve", "--config", path_text(file)];
    words.extend(options);
    if space.is_none() {
        words.extend(["--set", CHECKPOINT, "--set", SEGMENT]);
    }
    let environment: Vec<(&str, &str)> =
        environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    Process::start(stage, &Start { name, words: &words, environment: &environment, space })
}
