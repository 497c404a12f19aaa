//! The settings of a node: where they come from, what they mean, and which go together.
//!
//! Four layers, a later one overrides an earlier one: defaults, a file, `ANTECEDE_*` environment
//! variables, flags. Each value remembers its origin, so that `config show` can tell it and an
//! error can point at it. One table of keys (`keys`) drives the reader and the example.
//!
//! Ensures: a `Config` that exists is safe to start: what must not be combined was refused.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use antecede_model::{
    configuration::{Configuration, Layout},
    ids::{DatacenterId, DeploymentId, NodeId},
    key::ShardCount,
};
use antecede_storage::Fsync;

/// What is wrong, and where.
mod error;
/// The table of keys.
pub mod keys;
pub use error::{ConfigError, Excerpt, Origin};
/// A file's leaves.
mod document;
/// Which datacenters there are at first, and who agrees on them.
pub(crate) mod members;
pub use document::{Leaf, Scalar};
/// What the leaves mean.
mod resolve;

/// The prefix of environment variables that set keys.
pub const ENVIRONMENT_PREFIX: &str = "ANTECEDE_";
/// The variable that sets what is logged; it is no key.
pub const LOG_VARIABLE: &str = "ANTECEDE_LOG";

/// A node as the configuration names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeAddresses {
    /// Where clients reach it.
    pub client: String,
    /// Where other nodes reach it.
    pub peer: String,
    /// Where its admin port is, if it has one.
    pub admin: Option<String>,
    /// Where its member of the agreement is reached, if it has one.
    pub control: Option<String>,
}

/// A datacenter as the configuration names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatacenterConfig {
    /// Its number.
    pub id: DatacenterId,
    /// Its name.
    pub name: String,
    /// Its nodes; the first has number 1.
    pub nodes: Vec<NodeAddresses>,
    /// Whether it was added to a deployment that was there before.
    pub is_added: bool,
}

/// Where the log is kept and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorageConfig {
    /// `None`: in memory only.
    pub folder: Option<PathBuf>,
    /// When written records are synced.
    pub fsync: Fsync,
    /// Bytes by which the log grows before a checkpoint is taken, at least.
    pub checkpoint_bytes: u64,
    /// Bytes of a segment.
    pub segment_bytes: u64,
    /// Bytes that writes of clients leave free on the disk.
    pub reserve_bytes: u64,
}

/// Who decides which replicas serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlStore {
    /// Nobody: chains are as the settings say.
    None,
    /// A manager, by agreement of some nodes of each datacenter.
    Embedded,
    /// A manager, by agreement of an etcd.
    Etcd,
}

impl ControlStore {
    /// All, as the configuration calls them.
    pub(crate) const NAMES: [(&'static str, Self); 3] =
        [("none", Self::None), ("embedded", Self::Embedded), ("etcd", Self::Etcd)];

    /// As the configuration calls it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Embedded => "embedded",
            Self::Etcd => "etcd",
        }
    }
}

/// How an etcd is reached.
#[derive(Clone, PartialEq, Eq)]
pub struct EtcdConfig {
    /// Where its members answer.
    pub endpoints: Vec<String>,
    /// What our keys begin with.
    pub prefix: String,
    /// User and password, if it asks for them.
    pub credentials: Option<(String, String)>,
    /// Certificates that its own may be signed with; `None`: connections are not encrypted.
    pub authority: Option<PathBuf>,
    /// Our own certificate and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

impl std::fmt::Debug for EtcdConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The password must not reach a log.
        f.debug_struct("EtcdConfig")
            .field("endpoints", &self.endpoints)
            .field("prefix", &self.prefix)
            .field("authority", &self.authority)
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

/// How a datacenter agrees on who serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlConfig {
    /// Who decides.
    pub store: ControlStore,
    /// How many of the first nodes of a datacenter agree, if not as many as usual.
    pub members: Option<u16>,
    /// Where a member keeps its file; `None`: where the log is.
    pub folder: Option<PathBuf>,
    /// How etcd is reached; `None` where it is not asked.
    pub etcd: Option<EtcdConfig>,
    /// Where the witness of the agreement on datacenters is reached, if there is one.
    pub witness: Option<String>,
    /// How the etcd is reached that agrees on the datacenters; `None` where none does.
    pub deployment_etcd: Option<EtcdConfig>,
    /// How long a node that is asked to stop may take until others serve what it serves.
    pub leave_timeout: Duration,
}

/// What is refused or slowed down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of memory beyond which writes that may grow the data are refused; 0: no limit.
    pub memory_bytes_max: u64,
    /// Bytes that are kept for other datacenters beyond which writes are refused; 0: no limit.
    pub outbox_bytes_max: u64,
    /// Client connections at a time.
    pub connections_max: usize,
    /// Bytes of an unfinished command.
    pub query_bytes_max: usize,
    /// Bytes of answers that wait for a client.
    pub output_bytes_max: usize,
    /// Bytes of one argument.
    pub bulk_bytes_max: usize,
    /// Arguments of one command.
    pub arguments_max: usize,
    /// Commands of one connection in one turn.
    pub pipeline_max: usize,
    /// How long a client may be silent; zero: for ever.
    pub idle_timeout: Duration,
}

/// The settings of a node.
#[derive(Clone, PartialEq, Eq)]
pub struct Config {
    /// What people call the deployment.
    pub deployment_name: String,
    /// Names the deployment; `None`: one node alone, which draws it.
    pub deployment: Option<DeploymentId>,
    /// How many shards.
    pub shards: ShardCount,
    /// How many replicas a shard has in a datacenter.
    pub chain_length: u16,
    /// All datacenters.
    pub datacenters: Vec<DatacenterConfig>,
    /// This node.
    pub node: NodeId,
    /// The numbers that its datacenter had before it lapsed, oldest first; settings name the first.
    pub before: Vec<DatacenterId>,
    /// Where this node listens.
    pub listen: NodeAddresses,
    /// Its disk.
    pub storage: StorageConfig,
    /// Who decides which replicas serve.
    pub control: ControlConfig,
    /// Its limits.
    pub limits: Limits,
    /// What clients say with AUTH.
    pub password: Option<String>,
    /// How far ahead a peer's clock may be.
    pub max_clock_drift: Duration,
    /// How long a request to another node may take.
    pub request_timeout: Duration,
    /// Bytes that may wait for one peer.
    pub peer_queue_bytes_max: usize,
    /// Whether the admin port may delay and cut links.
    pub has_faults: bool,
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The password must not reach a log.
        f.debug_struct("Config")
            .field("node", &self.node)
            .field("listen", &self.listen)
            .field("storage", &self.storage)
            .field("control", &self.control)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// The layers above the defaults.
#[derive(Clone, Debug, Default)]
pub struct Layers {
    /// A file and its text.
    pub file: Option<(PathBuf, String)>,
    /// Environment variables; those without the prefix are passed over.
    pub environment: Vec<(String, String)>,
    /// Flags: paths of keys and values.
    pub flags: Vec<(String, String)>,
}

impl Layers {
    /// A file, the process's environment, and flags.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn of_process(
        file: Option<&Path>,
        flags: Vec<(String, String)>,
    ) -> Result<Self, ConfigError> {
        let file = match file {
            Some(path) => {
                let text = std::fs::read_to_string(path).map_err(|error| {
                    let message = format!("cannot read {}: {error}", path.display());
                    ConfigError::new(None, message)
                })?;
                Some((path.to_owned(), text))
            }
            None => None,
        };
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .filter(|(name, _)| name.starts_with(ENVIRONMENT_PREFIX) && name != LOG_VARIABLE)
            .collect();
        Ok(Self { file, environment, flags })
    }
}

/// Every value that counts, with its origin.
#[derive(Clone, Debug)]
pub struct Effective {
    leaves: BTreeMap<String, Leaf>,
}

impl Effective {
    /// Puts the layers over the defaults.
    ///
    /// # Errors
    /// When a layer names a key that there is not, or a value has the wrong form.
    pub fn of(layers: &Layers) -> Result<Self, ConfigError> {
        let mut leaves = resolve::defaults();
        if let Some((path, text)) = &layers.file {
            leaves.extend(document::read(path, text)?);
        }
        for (name, words) in &layers.environment {
            let Some(rest) = name.strip_prefix(ENVIRONMENT_PREFIX) else { continue };
            let known = keys::KEYS
                .iter()
                .find(|key| !key.path.contains('[') && resolve::variable(key.path) == rest);
            let origin = Origin::Environment(name.clone());
            let pattern = rest.to_ascii_lowercase().replacen('_', ".", 1);
            put(&mut leaves, known.map_or(pattern.as_str(), |key| key.path), words, origin)?;
        }
        for (path, words) in &layers.flags {
            put(&mut leaves, path, words, Origin::Flag(format!("--set {path}")))?;
        }
        Ok(Self { leaves })
    }

    /// All values in the order of their paths.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Leaf)> {
        self.leaves.iter().map(|(path, leaf)| (path.as_str(), leaf))
    }

    /// The values as lines of TOML-like text, each with its origin if asked for; secrets hidden.
    #[must_use]
    pub fn show(&self, with_origin: bool) -> String {
        let mut text = String::new();
        for (path, leaf) in self.iter() {
            let is_secret = keys::find(&resolve::pattern(path)).is_some_and(|key| key.is_secret);
            let value = if is_secret { "\"***\"".to_owned() } else { leaf.value.to_string() };
            text.push_str(&format!("{path} = {value}"));
            if with_origin {
                text.push_str(&format!("  # {}", leaf.origin));
            }
            text.push('\n');
        }
        text
    }

    /// What the values mean together.
    ///
    /// # Errors
    /// When a value is missing or means nothing, or values do not go together.
    pub fn config(&self) -> Result<Config, ConfigError> {
        resolve::config(&self.leaves)
    }
}

fn put(
    leaves: &mut BTreeMap<String, Leaf>,
    path: &str,
    words: &str,
    origin: Origin,
) -> Result<(), ConfigError> {
    let Some(key) = keys::find(&resolve::pattern(path)) else {
        let mut error = ConfigError::new(Some(origin), format!("there is no key {path}"));
        error.suggestion = document::suggestion(path);
        return Err(error);
    };
    let Some(value) = document::from_words(key.kind, words) else {
        let message = format!("{path} wants {}, not \"{words}\"", key.kind.name());
        return Err(ConfigError::new(Some(origin), message));
    };
    leaves.insert(path.to_owned(), Leaf { value, origin });
    Ok(())
}

impl Config {
    /// Reads and checks all layers.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub fn load(layers: &Layers) -> Result<Self, ConfigError> {
        Effective::of(layers)?.config()
    }

    /// One node alone, for a desk: `folder` or memory only, clients at `client`.
    ///
    /// # Errors
    /// When an address means nothing.
    pub fn dev(
        client: &str,
        admin: Option<&str>,
        folder: Option<&Path>,
    ) -> Result<Self, ConfigError> {
        let mut flags = vec![("listen.client".to_owned(), client.to_owned())];
        if let Some(admin) = admin {
            flags.push(("listen.admin".to_owned(), admin.to_owned()));
        }
        if let Some(folder) = folder {
            flags.push(("storage.folder".to_owned(), folder.display().to_string()));
        }
        Self::load(&Layers { flags, ..Layers::default() })
    }

    /// The chains that follow from the settings; where a manager decides, they wait for it. Of
    /// datacenters that were added later, only this node's own is there.
    #[must_use]
    pub fn configuration(&self, deployment: DeploymentId) -> Configuration {
        let datacenters = self.datacenters.iter().map(|datacenter| {
            let count = u16::try_from(datacenter.nodes.len()).unwrap_or(u16::MAX);
            (datacenter.id, datacenter.name.clone(), count)
        });
        let layout = Layout {
            deployment,
            shard_count: self.shards,
            chain_length: self.chain_length,
            datacenters: datacenters.collect(),
        };
        let mut configuration = Configuration::of(&layout);
        let managed = Configuration::managed(&layout).datacenters.into_iter();
        configuration.datacenters.extend(managed.filter(|(id, _)| self.is_managed_in(*id)));
        let members = self.first_members();
        let is_there =
            |id: &DatacenterId| *id == self.node.datacenter || members.members.contains_key(id);
        configuration.datacenters.retain(|id, _| is_there(id));
        configuration.membership = Arc::new(members);
        configuration
    }

    /// Whether a manager decides who serves in this node's datacenter.
    #[must_use]
    pub fn is_managed(&self) -> bool {
        self.is_managed_in(self.node.datacenter)
    }

    fn is_managed_in(&self, id: DatacenterId) -> bool {
        // One node alone needs no manager, but may take part in the agreement on datacenters.
        let needs_one = |there: &DatacenterConfig| {
            let has_address = there.nodes.iter().any(|node| node.control.is_some());
            1 < there.nodes.len() || 1 < self.datacenters.len() && has_address
        };
        match self.control.store {
            ControlStore::None => false,
            ControlStore::Embedded | ControlStore::Etcd => {
                self.datacenters.iter().any(|there| there.id == id && needs_one(there))
            }
        }
    }

    /// The nodes of this node's datacenter that take part in the agreement, and where they are
    /// reached; none where nobody decides. With an embedded agreement they are its members, with
    /// etcd those that may listen to beats.
    #[must_use]
    pub fn control_members(&self) -> BTreeMap<NodeId, String> {
        if !self.is_managed() {
            return BTreeMap::new();
        }
        let member = |(id, addresses): (NodeId, &NodeAddresses)| {
            Some((id, addresses.control.as_ref()?.clone()))
        };
        let count = match self.control.store {
            ControlStore::None => 0,
            ControlStore::Embedded => self.control_member_count(),
            ControlStore::Etcd => usize::MAX,
        };
        self.nodes_here().take(count).filter_map(member).collect()
    }

    /// How many of the first nodes of this node's datacenter agree where somebody decides.
    pub(crate) fn control_member_count(&self) -> usize {
        let usual = if self.nodes_here().count() < 3 { 1 } else { 3 };
        usize::from(self.control.members.unwrap_or(usual))
    }

    /// The nodes of this node's datacenter, and where they are reached.
    pub(crate) fn nodes_here(&self) -> impl Iterator<Item = (NodeId, &NodeAddresses)> {
        self.nodes().filter(|(id, _)| id.datacenter == self.node.datacenter)
    }

    /// How many of those that take part must be there, so that somebody decides.
    pub(crate) fn control_needed(&self) -> usize {
        match self.control.store {
            ControlStore::None => 0,
            ControlStore::Embedded => self.control_members().len() / 2 + 1,
            ControlStore::Etcd => 1,
        }
    }

    /// Where this node's member keeps its file, if it has one.
    #[must_use]
    pub fn control_folder(&self) -> Option<&Path> {
        self.control.folder.as_deref().or(self.storage.folder.as_deref())
    }

    /// Where this node listens for the agreement; `None` if it takes no part.
    #[must_use]
    pub fn control_address(&self) -> Option<&str> {
        let is_member = self.control_members().contains_key(&self.node);
        self.listen.control.as_deref().filter(|_| is_member)
    }

    /// Every node but this one, and where it is reached.
    pub fn peers(&self) -> impl Iterator<Item = (NodeId, &NodeAddresses)> {
        self.nodes().filter(|(id, _)| *id != self.node)
    }

    /// Every node, and where it is reached.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, &NodeAddresses)> {
        self.datacenters.iter().flat_map(|datacenter| {
            (1_u16..).zip(&datacenter.nodes).map(|(number, addresses)| {
                (NodeId { datacenter: datacenter.id, number }, addresses)
            })
        })
    }

    /// The same settings for another node of the deployment, with the folder `folder`.
    #[must_use]
    pub fn for_node(&self, node: NodeId, folder: Option<PathBuf>) -> Option<Self> {
        let (_, addresses) = self.nodes().find(|(id, _)| *id == node)?;
        let listen = addresses.clone();
        let storage = StorageConfig { folder, ..self.storage.clone() };
        Some(Self { node, listen, storage, ..self.clone() })
    }

    /// The same settings where this node's datacenter has had these numbers, and has the last one
    /// now, under which it was added; unchanged if they name none of them.
    #[must_use]
    pub(crate) fn returned(mut self, numbers: &[DatacenterId]) -> Self {
        let old = self.node.datacenter;
        let Some((last, before)) = numbers.split_last().filter(|_| numbers.contains(&old)) else {
            return self;
        };
        // Another one that was to have this number cannot be added under it any more.
        self.datacenters.retain(|there| there.id == old || there.id != *last);
        for own in self.datacenters.iter_mut().filter(|there| there.id == old) {
            (own.id, own.is_added) = (*last, true);
        }
        self.node.datacenter = *last;
        self.before = before.to_vec();
        self
    }

    /// Whether this node's datacenter has lapsed before, and comes back or is back.
    pub(crate) fn comes_back(&self) -> bool {
        !self.before.is_empty()
    }

    /// The name of a datacenter.
    #[must_use]
    pub fn datacenter_name(&self, id: DatacenterId) -> &str {
        self.datacenters
            .iter()
            .find(|datacenter| datacenter.id == id)
            .map_or("unknown", |datacenter| &datacenter.name)
    }
}

#[cfg(test)]
pub(crate) mod tests;
