//! Turns leaves into a `Config`: what each value means, and which values go together.

use std::collections::BTreeMap;
use std::net::ToSocketAddrs;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use antecede_model::{
    ids::{DatacenterId, DeploymentId, NodeId},
    key::ShardCount,
};
use antecede_storage::Fsync;

use super::document::{self, Leaf, Leaves, Scalar};
use super::error::{ConfigError, Origin, nearest};
use super::keys::{self, Bounds, KEYS};
use super::{
    Config, ControlConfig, ControlStore, DatacenterConfig, EtcdConfig, Limits, NodeAddresses,
    StorageConfig,
};

/// The path without its indexes: `datacenter[0].id` becomes `datacenter[].id`.
pub(crate) fn pattern(path: &str) -> String {
    let mut pattern = String::new();
    let mut is_inside = false;
    for letter in path.chars() {
        match letter {
            '[' => is_inside = true,
            ']' => is_inside = false,
            _ if is_inside => continue,
            _ => {}
        }
        pattern.push(letter);
    }
    pattern
}

/// The part of an environment variable's name behind the prefix.
pub(crate) fn variable(path: &str) -> String {
    path.replace('.', "_").to_ascii_uppercase()
}

/// The defaults as leaves.
pub(crate) fn defaults() -> Leaves {
    let defaults = KEYS.iter().filter_map(|key| Some((key, key.default?)));
    defaults
        .filter_map(|(key, default)| {
            let text = format!("{} = {default}", key.path);
            let leaf = document::read("defaults".as_ref(), &text).ok()?.remove(key.path)?;
            Some((key.path.to_owned(), Leaf { origin: Origin::Default, ..leaf }))
        })
        .collect()
}

/// Which values of a path are accepted.
fn bounds(path: &str) -> Bounds {
    keys::find(&pattern(path)).map_or(Bounds::Any, |key| key.bounds)
}

struct Source<'a> {
    leaves: &'a BTreeMap<String, Leaf>,
}

impl Source<'_> {
    fn error(&self, path: &str, message: impl Into<String>) -> ConfigError {
        let origin = self.leaves.get(path).map(|leaf| leaf.origin.clone());
        ConfigError::new(origin.filter(|origin| *origin != Origin::Default), message)
    }

    fn missing(&self, path: &str) -> ConfigError {
        ConfigError::new(None, format!("{path} is missing; set it"))
    }

    fn optional_text(&self, path: &str) -> Option<&str> {
        match &self.leaves.get(path)?.value {
            Scalar::Text(text) => Some(text),
            Scalar::Integer(_) | Scalar::Flag(_) | Scalar::List(_) => None,
        }
    }

    fn text(&self, path: &str) -> Result<&str, ConfigError> {
        self.optional_text(path).ok_or_else(|| self.missing(path))
    }

    fn flag(&self, path: &str) -> bool {
        matches!(self.leaves.get(path), Some(Leaf { value: Scalar::Flag(true), .. }))
    }

    /// A whole number within the bounds that the table of keys gives.
    fn integer(&self, path: &str) -> Result<i64, ConfigError> {
        let (least, most) = match bounds(path) {
            Bounds::Numbers(least, most) => (least, most),
            Bounds::Any | Bounds::Words(_) | Bounds::HexDigits(_) | Bounds::Bytes(..) => {
                (i64::MIN, i64::MAX)
            }
        };
        match self.leaves.get(path).map(|leaf| &leaf.value) {
            Some(Scalar::Integer(number)) if (least..=most).contains(number) => Ok(*number),
            Some(found) => {
                Err(self.error(path, format!("{path} is {found}, it must be {least} to {most}")))
            }
            None => Err(self.missing(path)),
        }
    }

    fn count(&self, path: &str) -> Result<usize, ConfigError> {
        let number = self.integer(path)?;
        usize::try_from(number).map_err(|_| self.error(path, format!("{path} is negative")))
    }

    fn small(&self, path: &str) -> Result<u16, ConfigError> {
        let number = self.integer(path)?;
        u16::try_from(number).map_err(|_| self.error(path, format!("{path} is too large")))
    }

    fn size(&self, path: &str) -> Result<u64, ConfigError> {
        let leaf = self.leaves.get(path).ok_or_else(|| self.missing(path))?;
        match &leaf.value {
            Scalar::Integer(bytes) => u64::try_from(*bytes)
                .map_err(|_| self.error(path, format!("{path} is {bytes}, it cannot be negative"))),
            Scalar::Text(text) => {
                bytesize::ByteSize::from_str(text).map(|size| size.0).map_err(|_| {
                    self.error(
                        path,
                        format!("{path} is \"{text}\", it wants a size such as \"64MiB\""),
                    )
                })
            }
            Scalar::Flag(_) | Scalar::List(_) => {
                Err(self.error(path, format!("{path} wants a size")))
            }
        }
    }

    fn size_in_memory(&self, path: &str) -> Result<usize, ConfigError> {
        let bytes = self.size(path)?;
        usize::try_from(bytes).map_err(|_| self.error(path, format!("{path} is too large")))
    }

    fn time(&self, path: &str) -> Result<Duration, ConfigError> {
        let text = self.text(path)?;
        humantime::parse_duration(text).map_err(|error| {
            let wanted = "it wants a time such as \"500ms\"";
            self.error(path, format!("{path} is \"{text}\", {wanted}: {error}"))
        })
    }

    fn address(&self, path: &str) -> Result<String, ConfigError> {
        self.address_in(path, self.text(path)?)
    }

    /// The addresses of a list; none if it is not there.
    fn addresses(&self, path: &str) -> Result<Vec<String>, ConfigError> {
        match self.leaves.get(path).map(|leaf| &leaf.value) {
            Some(Scalar::List(texts)) => {
                texts.iter().map(|text| self.address_in(path, text)).collect()
            }
            Some(Scalar::Text(_) | Scalar::Integer(_) | Scalar::Flag(_)) | None => Ok(Vec::new()),
        }
    }

    fn address_in(&self, path: &str, text: &str) -> Result<String, ConfigError> {
        let port = text.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
        if port.is_none() {
            let wanted = "it wants an address such as \"127.0.0.1:6379\"";
            return Err(self.error(path, format!("{path} is \"{text}\", {wanted}")));
        }
        Ok(text.to_owned())
    }

    fn optional_address(&self, path: &str) -> Result<Option<String>, ConfigError> {
        if self.leaves.contains_key(path) { self.address(path).map(Some) } else { Ok(None) }
    }
}

/// What the leaves mean together.
pub(crate) fn config(leaves: &Leaves) -> Result<Config, ConfigError> {
    let source = Source { leaves };
    let datacenters = datacenters(&source)?;
    let is_alone = datacenters.is_empty();
    let datacenters = if is_alone { vec![alone(&source)?] } else { datacenters };
    let node = if is_alone {
        NodeId { datacenter: DatacenterId(1), number: 1 }
    } else {
        this_node(&source, &datacenters)?
    };
    let listen = listen(&source, &datacenters, node)?;
    let shards = u32::try_from(source.integer("deployment.shards")?)
        .ok()
        .and_then(|count| ShardCount::new(count).ok())
        .ok_or_else(|| {
            let message = "deployment.shards must be a power of two from 1 to 16384";
            source.error("deployment.shards", message)
        })?;
    let config = Config {
        deployment_name: source.text("deployment.name")?.to_owned(),
        deployment: deployment(&source)?,
        shards,
        chain_length: source.small("deployment.chain_length")?,
        datacenters,
        node,
        before: Vec::new(),
        listen,
        storage: storage(&source)?,
        control: control(&source)?,
        limits: limits(&source)?,
        password: source.optional_text("security.password").map(str::to_owned),
        max_clock_drift: source.time("clock.max_drift")?,
        request_timeout: source.time("request.timeout")?,
        peer_queue_bytes_max: source.size_in_memory("peer.queue")?,
        has_faults: source.flag("faults.enabled"),
    };
    check_together(&source, &config)?;
    Ok(config)
}

fn deployment(source: &Source<'_>) -> Result<Option<DeploymentId>, ConfigError> {
    let Some(text) = source.optional_text("deployment.id") else { return Ok(None) };
    let wrong = || {
        let message = format!("deployment.id is \"{text}\", it must be 32 hexadecimal digits");
        source.error("deployment.id", message)
    };
    if Bounds::HexDigits(text.len()) != bounds("deployment.id") {
        return Err(wrong());
    }
    u128::from_str_radix(text, 16)
        .map(|number| Some(DeploymentId(number.to_be_bytes())))
        .map_err(|_| wrong())
}

/// The only datacenter of a node that no datacenter is configured for.
fn alone(source: &Source<'_>) -> Result<DatacenterConfig, ConfigError> {
    let client = source.optional_address("listen.client")?;
    let peer = source.optional_address("listen.peer")?;
    let addresses = NodeAddresses {
        client: client.unwrap_or_else(|| "127.0.0.1:6379".to_owned()),
        peer: peer.unwrap_or_else(|| "127.0.0.1:0".to_owned()),
        admin: source.optional_address("listen.admin")?,
        control: source.optional_address("listen.control")?,
    };
    let (id, name) = (DatacenterId(1), "local".to_owned());
    Ok(DatacenterConfig { id, name, nodes: vec![addresses], is_added: false })
}

fn datacenters(source: &Source<'_>) -> Result<Vec<DatacenterConfig>, ConfigError> {
    let mut datacenters: Vec<DatacenterConfig> = Vec::new();
    for index in 0.. {
        let at = format!("datacenter[{index}]");
        if !has_any(source, &format!("{at}.")) {
            break;
        }
        let id = DatacenterId(source.small(&format!("{at}.id"))?);
        let name = source.text(&format!("{at}.name"))?.to_owned();
        let mut nodes = Vec::new();
        for node_index in 0.. {
            let node = format!("{at}.node[{node_index}]");
            if !has_any(source, &format!("{node}.")) {
                break;
            }
            let number = source.integer(&format!("{node}.number"))?;
            let wanted = node_index + 1;
            if number != wanted {
                let message = format!(
                    "node {number} of {name} stands at place {wanted}; number nodes 1, 2, 3 in order"
                );
                return Err(source.error(&format!("{node}.number"), message));
            }
            nodes.push(NodeAddresses {
                client: source.address(&format!("{node}.client"))?,
                peer: source.address(&format!("{node}.peer"))?,
                admin: source.optional_address(&format!("{node}.admin"))?,
                control: source.optional_address(&format!("{node}.control"))?,
            });
        }
        if nodes.is_empty() {
            return Err(source.missing(&format!("{at}.node")));
        }
        if datacenters.iter().any(|other| other.id == id || other.name == name) {
            let message = format!(
                "datacenter {id} \"{name}\" is there twice; each needs its own id and name"
            );
            return Err(source.error(&format!("{at}.id"), message));
        }
        let is_added = source.flag(&format!("{at}.added"));
        datacenters.push(DatacenterConfig { id, name, nodes, is_added });
    }
    Ok(datacenters)
}

fn has_any(source: &Source<'_>, prefix: &str) -> bool {
    source
        .leaves
        .range(prefix.to_owned()..)
        .next()
        .is_some_and(|(path, _)| path.starts_with(prefix))
}

fn this_node(source: &Source<'_>, datacenters: &[DatacenterConfig]) -> Result<NodeId, ConfigError> {
    let name = source.text("node.datacenter")?;
    let Some(datacenter) = datacenters.iter().find(|datacenter| datacenter.name == name) else {
        let message = format!("node.datacenter is \"{name}\", there is no such datacenter");
        let mut error = source.error("node.datacenter", message);
        let names = datacenters.iter().map(|datacenter| datacenter.name.as_str());
        error.suggestion = nearest(name, names).map(str::to_owned);
        return Err(error);
    };
    let number = source.small("node.number")?;
    if datacenter.nodes.len() < usize::from(number) {
        let count = datacenter.nodes.len();
        let message = format!("node.number is {number}, datacenter {name} has {count} nodes");
        return Err(source.error("node.number", message));
    }
    Ok(NodeId { datacenter: datacenter.id, number })
}

fn listen(
    source: &Source<'_>,
    datacenters: &[DatacenterConfig],
    node: NodeId,
) -> Result<NodeAddresses, ConfigError> {
    let own = datacenters
        .iter()
        .find(|datacenter| datacenter.id == node.datacenter)
        .and_then(|datacenter| datacenter.nodes.get(usize::from(node.number) - 1))
        .ok_or_else(|| source.missing("node.number"))?;
    Ok(NodeAddresses {
        client: source.optional_address("listen.client")?.unwrap_or_else(|| own.client.clone()),
        peer: source.optional_address("listen.peer")?.unwrap_or_else(|| own.peer.clone()),
        admin: source.optional_address("listen.admin")?.or_else(|| own.admin.clone()),
        control: source.optional_address("listen.control")?.or_else(|| own.control.clone()),
    })
}

fn storage(source: &Source<'_>) -> Result<StorageConfig, ConfigError> {
    let fsync = match source.text("storage.fsync")? {
        "always" => Fsync::Always,
        "interval" => Fsync::Interval(source.time("storage.interval")?),
        "never" => Fsync::Never,
        found => {
            let message =
                format!("storage.fsync is \"{found}\", it must be always, interval or never");
            let mut error = source.error("storage.fsync", message);
            error.suggestion = nearest(found, ["always", "interval", "never"]).map(str::to_owned);
            return Err(error);
        }
    };
    Ok(StorageConfig {
        folder: source.optional_text("storage.folder").map(PathBuf::from),
        fsync,
        checkpoint_bytes: source.size("storage.checkpoint")?,
        segment_bytes: source.size("storage.segment")?,
        reserve_bytes: source.size("storage.reserve")?,
    })
}

fn control(source: &Source<'_>) -> Result<ControlConfig, ConfigError> {
    let path = "control.store";
    let found = source.text(path)?;
    let Some((_, store)) = ControlStore::NAMES.into_iter().find(|(name, _)| *name == found) else {
        let message = format!("{path} is \"{found}\", it must be none, embedded or etcd");
        let mut error = source.error(path, message);
        let names = ControlStore::NAMES.into_iter().map(|(name, _)| name);
        error.suggestion = nearest(found, names).map(str::to_owned);
        return Err(error);
    };
    let is_given = source.leaves.contains_key("control.members");
    Ok(ControlConfig {
        store,
        members: is_given.then(|| source.small("control.members")).transpose()?,
        folder: source.optional_text("control.folder").map(PathBuf::from),
        etcd: (store == ControlStore::Etcd)
            .then(|| etcd(source, "control.endpoints"))
            .transpose()?,
        witness: source.optional_address("control.witness")?,
        deployment_etcd: (store == ControlStore::Etcd
            && source.leaves.contains_key("control.deployment_endpoints"))
        .then(|| etcd(source, "control.deployment_endpoints"))
        .transpose()?,
        leave_timeout: source.time("control.leave_timeout")?,
    })
}

fn etcd(source: &Source<'_>, path: &str) -> Result<EtcdConfig, ConfigError> {
    let endpoints = source.addresses(path)?;
    if endpoints.is_empty() {
        let message =
            format!("{path} is missing; name the members of etcd, such as [\"127.0.0.1:2379\"]");
        return Err(source.error("control.store", message));
    }
    let prefix = source.text("control.prefix")?.trim_end_matches('/').to_owned();
    let both =
        |one: &str, other: &str| match (source.optional_text(one), source.optional_text(other)) {
            (Some(one), Some(other)) => Ok(Some((one.to_owned(), other.to_owned()))),
            (None, None) => Ok(None),
            (Some(_), None) => Err(source.error(one, format!("{one} needs {other}; set both"))),
            (None, Some(_)) => Err(source.error(other, format!("{other} needs {one}; set both"))),
        };
    let identity = both("control.certificate", "control.key")?;
    let authority = source.optional_text("control.ca").map(PathBuf::from);
    if identity.is_some() && authority.is_none() {
        let message = "control.certificate needs control.ca: only an encrypted connection shows it";
        return Err(source.error("control.certificate", message));
    }
    Ok(EtcdConfig {
        endpoints,
        prefix,
        credentials: both("control.user", "control.password")?,
        authority,
        identity: identity.map(|(one, other)| (PathBuf::from(one), PathBuf::from(other))),
    })
}

/// Refuses an agreement that cannot begin.
fn check_control(source: &Source<'_>, config: &Config) -> Result<(), ConfigError> {
    if !config.is_managed() {
        return Ok(());
    }
    match config.control.store {
        ControlStore::None => Ok(()),
        ControlStore::Embedded => check_embedded(source, config),
        ControlStore::Etcd => check_etcd(source, config),
    }
}

fn check_etcd(source: &Source<'_>, config: &Config) -> Result<(), ConfigError> {
    if cfg!(not(feature = "etcd")) {
        let message = "this build cannot ask etcd; build it with the feature etcd, or set embedded";
        return Err(source.error("control.store", message));
    }
    if config.control_members().is_empty() {
        let message = format!(
            "no node of datacenter {} has an address for the agreement, so nobody would hear who \
             lives; set control beside the other addresses of each node",
            config.datacenter_name(config.node.datacenter)
        );
        return Err(source.error("control.store", message));
    }
    Ok(())
}

fn check_embedded(source: &Source<'_>, config: &Config) -> Result<(), ConfigError> {
    let count = config.nodes_here().count();
    let name = config.datacenter_name(config.node.datacenter);
    if let Some(members) = config.control.members {
        let path = "control.members";
        if members.is_multiple_of(2) {
            let message = format!("{path} is {members}, it must be 1, 3 or 5");
            return Err(source.error(path, message));
        }
        if count < usize::from(members) {
            let message = format!("{path} is {members}, datacenter {name} has {count} nodes");
            return Err(source.error(path, message));
        }
    }
    let mut members = config.nodes_here().take(config.control_member_count());
    if let Some((id, _)) = members.find(|(_, addresses)| addresses.control.is_none()) {
        let message = format!(
            "node {} of datacenter {name} is a member of the agreement and has no address for it; \
             set control beside its other addresses",
            id.number
        );
        return Err(source.error("control.store", message));
    }
    if config.control_members().contains_key(&config.node) && config.control_folder().is_none() {
        let message = "control.folder is missing; a member of the agreement keeps a file, also where \
                       storage.memory is true";
        return Err(source.error("control.store", message));
    }
    Ok(())
}

fn limits(source: &Source<'_>) -> Result<Limits, ConfigError> {
    Ok(Limits {
        memory_bytes_max: source.size("limits.maxmemory")?,
        outbox_bytes_max: source.size("limits.outbox")?,
        connections_max: source.count("limits.connections")?,
        query_bytes_max: source.size_in_memory("limits.query_buffer")?,
        output_bytes_max: source.size_in_memory("limits.output_buffer")?,
        bulk_bytes_max: source.size_in_memory("limits.bulk")?,
        arguments_max: source.count("limits.arguments")?,
        pipeline_max: source.count("limits.pipeline")?,
        idle_timeout: source.time("limits.idle_timeout")?,
    })
}

/// Refuses what must not be combined.
fn check_together(source: &Source<'_>, config: &Config) -> Result<(), ConfigError> {
    let node_count: usize = config.datacenters.iter().map(|dc| dc.nodes.len()).sum();
    if 1 < node_count && config.deployment.is_none() {
        let message = "deployment.id is missing; several nodes must agree on one (32 hexadecimal digits, drawn once)";
        return Err(ConfigError::new(None, message));
    }
    if 1 < config.datacenters.len() && config.storage.fsync == Fsync::Never {
        let message = "fsync = \"never\" is refused where there are several datacenters: a power loss \
                       would take back what others have seen; choose always or interval";
        return Err(source.error("storage.fsync", message));
    }
    if config.storage.folder.is_none() && 1 < node_count && !source.flag("storage.memory") {
        let message = "storage.folder is missing; set it, or say storage.memory = true if all data may \
                       be lost with the process";
        return Err(ConfigError::new(None, message));
    }
    if config.storage.folder.is_some() && source.flag("storage.memory") {
        let message = "storage.memory = true does not go with a storage.folder; drop one of them";
        return Err(source.error("storage.memory", message));
    }
    if config.founders().next().is_none() {
        let message = "every datacenter is said to be added; those with which the deployment began \
                       are not";
        return Err(ConfigError::new(None, message));
    }
    if config.limits.query_bytes_max < config.limits.bulk_bytes_max {
        let message =
            "limits.query_buffer is smaller than limits.bulk; raise it, or lower limits.bulk";
        return Err(source.error("limits.query_buffer", message));
    }
    if let Some(password) = &config.password
        && let Bounds::Bytes(least, most) = bounds("security.password")
        && !(least..=most).contains(&password.len())
    {
        let message = format!("security.password must have {least} to {most} bytes");
        return Err(source.error("security.password", message));
    }
    check_control(source, config)?;
    let has_open_admin = config.listen.admin.as_deref().is_some_and(|admin| !is_loopback(admin));
    if config.has_faults && has_open_admin {
        let message = "faults.enabled lets everybody who reaches the admin port cut links; listen \
                       for it on 127.0.0.1";
        return Err(source.error("faults.enabled", message));
    }
    let is_open = !is_loopback(&config.listen.client);
    if is_open && config.password.is_none() {
        let message = format!(
            "clients beyond loopback could reach {} without a password (protected mode); set \
             security.password, or listen on 127.0.0.1",
            config.listen.client
        );
        return Err(ConfigError::new(None, message));
    }
    Ok(())
}

/// Whether an address can be reached from this machine only.
pub(crate) fn is_loopback(address: &str) -> bool {
    match address.to_socket_addrs() {
        Ok(mut addresses) => addresses.all(|address| address.ip().is_loopback()),
        Err(_) => false,
    }
}
