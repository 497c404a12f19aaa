//! A group's keys in etcd: read, swapped, followed.
//!
//! All of them lie below `<prefix>/<deployment>/<datacenter>/`, so any number of deployments share
//! an etcd without knowing of each other. Beside the keys of the store, `key/...`, there are
//! `leader`, which names the listener, and `boot/<node>`, the newest run of each node.

use std::sync::Arc;

use antecede_model::ids::NodeId;
use tonic::Streaming;

use super::{
    connection::{ConnectOptions, Connections, OptionsError},
    message::{
        COMPARE_EQUAL, COMPARE_VERSION, Compare, KeyValue, Operation, PutRequest, RANGE,
        RangeRequest, RangeResponse, TXN, TxnRequest, TxnResponse, WATCH, WatchCreate,
        WatchRequest, WatchResponse,
    },
};
use crate::{
    embedded::{
        GroupId,
        client::{AskError, Repeat},
    },
    store::{Outage, Revision, StoreKey, Stored},
};

/// A group's place in an etcd. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Etcd {
    connections: Arc<Connections>,
    /// What all keys begin with.
    prefix: Arc<str>,
    pub(super) group: GroupId,
}

/// A key of a group.
#[derive(Clone, Debug)]
pub(super) enum Name {
    /// One of the store's.
    Of(StoreKey),
    /// Who listens.
    Leader,
    /// The newest run of a node.
    Boot(NodeId),
}

/// What came of a swap.
#[derive(Debug)]
pub(super) enum Swapped {
    /// The key has this revision now.
    Done(Revision),
    /// It was in another state.
    Conflict(Option<Stored>),
}

/// A key as it is, and when that was.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) stored: Option<Stored>,
    /// How many changes etcd had seen.
    pub(super) at: i64,
}

impl Etcd {
    /// A group's place below `prefix`. Files are read here; connections are opened when needed,
    /// beginning with another member for each node.
    ///
    /// # Errors
    /// [`OptionsError`] says what is wrong with the options.
    pub fn new(
        options: ConnectOptions,
        prefix: &str,
        group: GroupId,
        node: NodeId,
    ) -> Result<Self, OptionsError> {
        let datacenter =
            group.datacenter.map_or_else(|| "all".to_owned(), |datacenter| datacenter.to_string());
        let prefix: Arc<str> = format!("{prefix}/{}/{datacenter}/", group.deployment).into();
        let probe = format!("{prefix}leader").into_bytes();
        let connections = Connections::new(options, usize::from(node.number), probe)?;
        Ok(Self { connections: Arc::new(connections), prefix, group })
    }

    /// The number of the etcd cluster, once it has answered.
    #[must_use]
    pub fn cluster(&self) -> Option<u64> {
        self.connections.cluster()
    }

    /// What all keys of the group begin with.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Why etcd does not answer; `None` while it does.
    pub(super) fn outage(&self) -> Option<Outage> {
        self.connections.outage()
    }

    /// Reads a key, linearizable.
    pub(super) async fn read(&self, name: &Name) -> Result<Reading, AskError> {
        let request = self.range(name);
        let answer: RangeResponse = self.connections.ask(RANGE, &request, Repeat::Safe).await?;
        let at = answer.header.map_or(0, |header| header.revision);
        Ok(Reading { stored: answer.found.into_iter().next().and_then(stored), at })
    }

    /// Writes a key if it has the expected revision.
    pub(super) async fn swap(
        &self,
        name: &Name,
        expected: Option<Revision>,
        value: &[u8],
    ) -> Result<Swapped, AskError> {
        let key = self.key(name);
        let version = expected.map_or(0, |revision| revision.0);
        let compare = Compare {
            how: COMPARE_EQUAL,
            what: COMPARE_VERSION,
            key: key.clone(),
            // A revision that no key of etcd can have fits none.
            version: Some(i64::try_from(version).unwrap_or(i64::MAX)),
        };
        let put = PutRequest { key, value: value.to_vec() };
        let request = TxnRequest {
            compare: vec![compare],
            success: vec![Operation { put: Some(put), range: None }],
            failure: vec![Operation { put: None, range: Some(self.range(name)) }],
        };
        let answer: TxnResponse = self.connections.ask(TXN, &request, Repeat::Never).await?;
        if answer.has_succeeded {
            return Ok(Swapped::Done(expected.map_or(Revision::FIRST, Revision::next)));
        }
        let found = answer.results.into_iter().find_map(|result| result.range);
        let found = found.and_then(|range| range.found.into_iter().next());
        Ok(Swapped::Conflict(found.and_then(stored)))
    }

    /// Follows a key from the change after `at`.
    pub(super) async fn follow(&self, name: &Name, at: i64) -> Option<Streaming<WatchResponse>> {
        let create = WatchCreate { key: self.key(name), start: at + 1 };
        self.connections.stream(WATCH, WatchRequest { create: Some(create) }).await
    }

    fn range(&self, name: &Name) -> RangeRequest {
        RangeRequest { key: self.key(name), is_serializable: false }
    }

    fn key(&self, name: &Name) -> Vec<u8> {
        let name = match name {
            Name::Of(key) => format!("key/{key}"),
            Name::Leader => "leader".to_owned(),
            Name::Boot(node) => format!("boot/{node}"),
        };
        format!("{}{name}", self.prefix).into_bytes()
    }
}

/// A state as the store tells it; `None` of a key that was deleted.
pub(super) fn stored(found: KeyValue) -> Option<Stored> {
    let version = u64::try_from(found.version).ok().filter(|version| 0 < *version)?;
    Some(Stored { revision: Revision(version), value: found.value.into() })
}
