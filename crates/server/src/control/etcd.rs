//! Opens a node's way to an agreement that etcd keeps, and listens to beats if the node can be
//! reached for it.
//!
//! A file beside the log tells which etcd the node has asked before. Another one would know nothing
//! of what was decided, and would let the datacenter begin anew beside itself: it is refused.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use antecede_control::{
    ConfigurationStore,
    embedded::GroupId,
    etcd::{
        ConnectOptions, Credentials, Etcd, EtcdOptions, EtcdStore, Listener, ListenerOptions, Tls,
    },
};
use tokio::{net::TcpListener, time::interval};
use tracing::info;

use super::agreement::{ATTEMPT_LIMIT, REQUEST_LIMIT};
use super::deployment;
use crate::clock;
use crate::config::EtcdConfig;
use crate::node::{
    Node, StartError,
    open::{read_file, write_file},
};

/// How long the node that listens may be silent until another one takes over: several beats.
const SILENCE: Duration = Duration::from_millis(400);
/// Tells which etcd a folder's node has asked.
const MARK: &str = "etcd";
/// How often it is looked whether etcd has answered for the first time.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What a node does for an agreement that etcd keeps.
#[derive(Debug)]
pub(crate) struct Part {
    etcd: Etcd,
    /// `None` if the node cannot be reached for it.
    listener: Option<Listener>,
    /// Where to write which etcd it is; `None` if that is written, or there is no folder.
    folder: Option<PathBuf>,
}

/// Opens it.
pub(crate) fn open(
    node: &Node,
    group: GroupId,
    config: &EtcdConfig,
    listener: Option<TcpListener>,
) -> Result<(Arc<dyn ConfigurationStore>, Part), StartError> {
    let folder = node.config.control_folder();
    let cluster = folder.map(known_cluster).transpose()?.flatten();
    let options = options_of(config, cluster);
    let etcd = Etcd::new(options, &config.prefix, group, node.id)?;
    let listeners = node.config.control_members();
    let options = EtcdOptions {
        etcd: etcd.clone(),
        node: node.id,
        listeners: listeners.clone(),
        request_limit: REQUEST_LIMIT,
        attempt_limit: ATTEMPT_LIMIT,
    };
    let rivals = node.config.control_member_count() / 2 + 1;
    let listener = listener.map(|listener| {
        let (etcd, node, clock) = (etcd.clone(), node.id, clock::steady);
        Listener::open(ListenerOptions {
            etcd,
            node,
            listener,
            listeners,
            rivals,
            silence: SILENCE,
            clock,
        })
    });
    let listener = listener.transpose()?;
    let store: Arc<dyn ConfigurationStore> = match &listener {
        Some(listener) => Arc::new(EtcdStore::beside(options, listener)),
        None => Arc::new(EtcdStore::new(options)),
    };
    info!(node = %node.id, keys = etcd.prefix(), listens = listener.is_some(), "etcd keeps the agreement");
    let folder = folder.filter(|_| cluster.is_none()).map(Path::to_owned);
    Ok((store, Part { etcd, listener, folder }))
}

/// The way to an etcd that keeps which datacenters there are. Nobody beats there.
pub(crate) fn of_deployment(
    node: &Node,
    group: GroupId,
    config: &EtcdConfig,
) -> Result<Arc<dyn ConfigurationStore>, StartError> {
    let (request_limit, attempt_limit) = (deployment::REQUEST_LIMIT, deployment::ATTEMPT_LIMIT);
    let options = ConnectOptions { request_limit, attempt_limit, ..options_of(config, None) };
    let etcd = Etcd::new(options, &config.prefix, group, node.id)?;
    let listeners = BTreeMap::new();
    let options = EtcdOptions { etcd, node: node.id, listeners, request_limit, attempt_limit };
    Ok(Arc::new(EtcdStore::new(options)))
}

fn options_of(config: &EtcdConfig, cluster: Option<u64>) -> ConnectOptions {
    let identity = config.identity.clone();
    ConnectOptions {
        endpoints: config.endpoints.clone(),
        tls: config.authority.clone().map(|authority| Tls { authority, identity }),
        credentials: config
            .credentials
            .clone()
            .map(|(user, password)| Credentials { user, password }),
        cluster,
        request_limit: REQUEST_LIMIT,
        attempt_limit: ATTEMPT_LIMIT,
    }
}

/// Which etcd a folder's node has asked before.
fn known_cluster(folder: &Path) -> Result<Option<u64>, StartError> {
    let Some(found) = read_file(&folder.join(MARK))? else { return Ok(None) };
    let wanted = "the number of an etcd cluster";
    let path = folder.join(MARK);
    let number = u64::from_str_radix(found.trim(), 16);
    number.map(Some).map_err(|_| StartError::Damaged { path, found, wanted })
}

impl Part {
    pub(super) fn leads(&self) -> bool {
        self.listener.as_ref().is_some_and(|listener| listener.leader() == Some(listener.node()))
    }

    /// Writes down which etcd it is, as soon as that is known; ends only if that fails.
    pub(super) async fn failed(&self) -> String {
        let mut looks = interval(LOOK_EVERY);
        while let Some(folder) = &self.folder {
            looks.tick().await;
            if let Some(cluster) = self.etcd.cluster() {
                match write_file(folder, MARK, &format!("{cluster:x}\n")) {
                    Ok(()) => break,
                    Err(error) => return error.to_string(),
                }
            }
        }
        std::future::pending().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_etcd_that_was_asked_before_is_known_and_nonsense_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(known_cluster(folder.path()).unwrap(), None);
        write_file(folder.path(), MARK, "cdf818194e3a8c32\n").unwrap();
        assert_eq!(known_cluster(folder.path()).unwrap(), Some(0xcdf8_1819_4e3a_8c32));
        write_file(folder.path(), MARK, "etcd\n").unwrap();
        assert!(matches!(known_cluster(folder.path()), Err(StartError::Damaged { .. })));
    }
}
