//! Asks etcd for keys and our own listener for beats, in a node's name.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use antecede_model::ids::NodeId;
use tokio::time::{sleep, timeout};

use super::{
    keys::{Etcd, Name, Swapped, stored},
    listener::Listener,
    message::EVENT_PUT,
};
use crate::{
    embedded::{Backing, EmbeddedStore, StoreOptions, client::Local},
    store::{
        Answer, Beat, Beats, ConfigurationStore, Feed, Renewal, Revision, StoreError, StoreKey,
        Stored, VALUE_BYTES_MAX, Watch, check_size,
    },
};

/// How long a followed key may be silent until it is read again.
const QUIET_MAX: Duration = Duration::from_secs(2);

/// Pause before a stream that ended is opened again.
const FOLLOW_PAUSE: Duration = Duration::from_millis(50);

/// What a store is told when it is made.
#[derive(Debug)]
pub struct EtcdOptions {
    /// The group's place in etcd.
    pub etcd: Etcd,
    /// The node that asks.
    pub node: NodeId,
    /// Nodes that may listen to beats, and where.
    pub listeners: BTreeMap<NodeId, String>,
    /// How long it may take until a beat is heard, all attempts together.
    pub request_limit: Duration,
    /// How long one listener may take to answer.
    pub attempt_limit: Duration,
}

/// A node's way to the agreement. Cheap to clone.
#[derive(Clone, Debug)]
pub struct EtcdStore {
    etcd: Etcd,
    /// Asks the listeners; only beats go that way.
    beats: EmbeddedStore,
}

impl EtcdStore {
    /// A store of a node that does not listen itself.
    #[must_use]
    pub fn new(options: EtcdOptions) -> Self {
        Self::with(options, None)
    }

    /// A store of a node that may listen, and asks itself first.
    #[must_use]
    pub fn beside(options: EtcdOptions, listener: &Listener) -> Self {
        Self::with(options, Some(Local::One(listener.answering())))
    }

    fn with(options: EtcdOptions, local: Option<Local>) -> Self {
        let EtcdOptions { etcd, node, listeners, request_limit, attempt_limit } = options;
        let group = etcd.group;
        let asking = StoreOptions { group, node, members: listeners, request_limit, attempt_limit };
        Self { etcd, beats: EmbeddedStore::with(asking, local, Backing::Etcd) }
    }

    /// The group's place in etcd.
    #[must_use]
    pub const fn etcd(&self) -> &Etcd {
        &self.etcd
    }

    async fn read_key(&self, key: StoreKey) -> Result<Option<Stored>, StoreError> {
        Ok(self.etcd.read(&Name::Of(key)).await?.stored)
    }

    async fn swap(
        &self,
        key: StoreKey,
        expected: Option<Revision>,
        value: Arc<[u8]>,
    ) -> Result<Revision, StoreError> {
        check_size("a value", &value, VALUE_BYTES_MAX)?;
        match self.etcd.swap(&Name::Of(key), expected, &value).await? {
            Swapped::Done(revision) => Ok(revision),
            Swapped::Conflict(current) => Err(StoreError::Conflict { current }),
        }
    }

    /// What came of a question to a listener. Where none leads because etcd does not answer, that
    /// is what a person has to hear.
    fn told<T>(&self, answer: Result<T, StoreError>) -> Result<T, StoreError> {
        match (answer, self.etcd.outage()) {
            (Err(StoreError::Unavailable { .. }), Some(outage)) => {
                Err(StoreError::Unavailable { outage })
            }
            (answer, _) => answer,
        }
    }

    /// Feeds a watch until it is dropped.
    async fn feed(self, key: StoreKey, feed: Feed) {
        let name = Name::Of(key);
        let news = async {
            loop {
                self.feed_once(&name, &feed).await;
                sleep(FOLLOW_PAUSE).await;
            }
        };
        tokio::select! {
            () = feed.closed() => {}
            () = news => {}
        }
    }

    /// Reads, then follows until there is silence.
    async fn feed_once(&self, name: &Name, feed: &Feed) {
        let Ok(reading) = self.etcd.read(name).await else { return };
        if let Some(stored) = reading.stored {
            feed.offer(stored);
        }
        let Some(mut stream) = self.etcd.follow(name, reading.at).await else { return };
        while let Ok(Ok(Some(response))) = timeout(QUIET_MAX, stream.message()).await {
            if response.is_canceled {
                tracing::debug!(reason = response.reason, "etcd ended a watch; it begins anew");
                return;
            }
            let written = response.events.into_iter().filter(|event| event.kind == EVENT_PUT);
            for state in written.filter_map(|event| event.written).filter_map(stored) {
                feed.offer(state);
            }
        }
    }
}

impl ConfigurationStore for EtcdStore {
    fn read(&self, key: &StoreKey) -> Answer<'_, Option<Stored>> {
        Box::pin(self.read_key(key.clone()))
    }

    fn compare_and_swap(
        &self,
        key: &StoreKey,
        expected: Option<Revision>,
        value: Arc<[u8]>,
    ) -> Answer<'_, Revision> {
        Box::pin(self.swap(key.clone(), expected, value))
    }

    fn watch(&self, key: &StoreKey) -> Watch {
        let (feed, watch) = Watch::channel();
        tokio::spawn(self.clone().feed(key.clone(), feed));
        watch
    }

    fn heartbeat(&self, beat: Beat) -> Answer<'_, Renewal> {
        Box::pin(async { self.told(self.beats.beat(beat).await) })
    }

    fn beats(&self) -> Answer<'_, Beats> {
        Box::pin(async { self.told(self.beats.all_beats().await) })
    }
}
