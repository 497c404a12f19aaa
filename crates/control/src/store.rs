//! Says what a store of configurations promises: a few keys, swapped one at a time, watched, and a
//! place where nodes tell that they live.
//!
//! Everything that decides who serves rests on three promises. A read returns the newest state
//! that was acknowledged to anyone before it began. A swap takes effect only on the state that the
//! caller named. A renewal was heard by a leader that was still the leader after it had heard it,
//! so a lease that is counted from before the call ends before a later leader can have listened
//! for as long.
//!
//! Limits: keys, values and facts are bounded by the constants here, so that a whole state fits
//! one message.

use std::{collections::BTreeMap, fmt, future::Future, pin::Pin, sync::Arc, time::Duration};

use antecede_model::ids::{Boot, NodeId};
use tokio::sync::watch;

/// Bytes of a key. A longer one is refused when it is made.
pub const KEY_BYTES_MAX: usize = 128;

/// Bytes of a value. A larger one is refused before it is sent.
pub const VALUE_BYTES_MAX: usize = 1024 * 1024;

/// Bytes of all keys and values together. A swap beyond it is refused.
pub const STATE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Bytes that a node may tell about itself with a heartbeat.
pub const FACTS_BYTES_MAX: usize = 16 * 1024;

/// Nodes that a store hears. One more is refused.
pub const NODES_MAX: usize = 1024;

const _: () = assert!(VALUE_BYTES_MAX < STATE_BYTES_MAX, "a value must fit the state");
const _: () = assert!(FACTS_BYTES_MAX * NODES_MAX <= STATE_BYTES_MAX, "beats must fit a message");

/// What a store answers, later.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// A few keys in linearizable agreement, and the nodes that say that they live.
pub trait ConfigurationStore: Send + Sync + fmt::Debug {
    /// Reads the newest state of a key; `None` if it was never written.
    ///
    /// Linearizable: never older than what anyone was told before this call.
    fn read(&self, key: &StoreKey) -> Answer<'_, Option<Stored>>;

    /// Writes a key if its newest revision is `expected` (`None`: it was never written).
    ///
    /// Fails with [`StoreError::Conflict`] if it is not, and changes nothing. After
    /// [`StoreError::Unknown`] the write may have happened or may still happen: read again.
    fn compare_and_swap(
        &self,
        key: &StoreKey,
        expected: Option<Revision>,
        value: Arc<[u8]>,
    ) -> Answer<'_, Revision>;

    /// Follows a key until the watch is dropped. Must be called inside a tokio runtime.
    fn watch(&self, key: &StoreKey) -> Watch;

    /// Tells that a node lives. The caller counts its lease from the moment before this call.
    fn heartbeat(&self, beat: Beat) -> Answer<'_, Renewal>;

    /// What the leader has heard from nodes since it leads.
    fn beats(&self) -> Answer<'_, Beats>;
}

/// Names a place in the store: 1 to [`KEY_BYTES_MAX`] bytes of text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StoreKey(Arc<str>);

impl StoreKey {
    /// A key with this name.
    ///
    /// # Errors
    /// [`StoreError::KeyLength`] if it is empty or too long.
    pub fn new(name: &str) -> Result<Self, StoreError> {
        if name.is_empty() || KEY_BYTES_MAX < name.len() {
            return Err(StoreError::KeyLength { bytes: name.len() });
        }
        Ok(Self(name.into()))
    }

    /// Its name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for StoreKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Numbers the states of one key from 1; each swap adds one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Revision(pub u64);

impl Revision {
    /// The one of a key's first state.
    pub const FIRST: Self = Self(1);

    /// The one that follows.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A state of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Which state it is.
    pub revision: Revision,
    /// What it says.
    pub value: Arc<[u8]>,
}

/// What a node tells when it lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beat {
    /// The node.
    pub node: NodeId,
    /// Its run; an older run of the same node is refused from then on.
    pub boot: Boot,
    /// What it says about itself, for whoever decides; at most [`FACTS_BYTES_MAX`].
    pub facts: Arc<[u8]>,
}

/// A heartbeat was heard by a leader that still led after it had heard it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Renewal {
    /// Who heard it.
    pub leader: NodeId,
}

/// What the leader has heard. It is forgotten when the leader changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beats {
    /// For how long this leader has been listening. A node that is not in `nodes` is unknown
    /// until this is longer than the time after which nodes are given up.
    pub since_leader: Duration,
    /// The nodes that it has heard.
    pub nodes: BTreeMap<NodeId, Seen>,
}

/// The last that was heard of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its run.
    pub boot: Boot,
    /// How long ago it was heard, by the leader's steady clock; at most for how long the leader
    /// has been listening.
    pub ago: Duration,
    /// What it said about itself.
    pub facts: Arc<[u8]>,
}

/// Why a store did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The key is in another state than the caller expected. Nothing was changed.
    #[error("the key is at revision {}, not at the expected one; decide again from it", revision_of(.current.as_ref()))]
    Conflict {
        /// The newest state.
        current: Option<Stored>,
    },
    /// It may have happened, or may still happen.
    #[error("the outcome of a swap is unknown, because {outage}; read the key again")]
    Unknown {
        /// What went wrong.
        outage: Outage,
    },
    /// It did not happen.
    #[error("the store cannot answer, because {outage}")]
    Unavailable {
        /// What went wrong.
        outage: Outage,
    },
    /// A newer run of the node has been heard. This process must not serve.
    #[error(
        "node {node} has started again as boot {newest}, this is boot {offered}; end this process"
    )]
    OlderBoot {
        /// The node.
        node: NodeId,
        /// The run that called.
        offered: Boot,
        /// The newest run that was heard.
        newest: Boot,
    },
    /// A key without a name, or with one that is too long.
    #[error("a key of {bytes} bytes cannot be stored, it has 1 to {KEY_BYTES_MAX}")]
    KeyLength {
        /// Its length.
        bytes: usize,
    },
    /// A value or facts that are too large.
    #[error("{what} of {bytes} bytes cannot be stored, the limit is {limit}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Its length.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The store holds as much as it may.
    #[error("the store is full: {what} would be {count}, the limit is {limit}")]
    Full {
        /// What is counted.
        what: &'static str,
        /// How much it would be.
        count: usize,
        /// The limit.
        limit: usize,
    },
}

fn revision_of(stored: Option<&Stored>) -> u64 {
    stored.map_or(0, |stored| stored.revision.0)
}

/// Why a store cannot answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Outage {
    /// No member knows a leader.
    #[error("its members have no leader; see that a majority of them runs and is connected")]
    NoLeader,
    /// The leader does not reach a majority of the members.
    #[error("its leader hears no majority of the members; see that they run and are connected")]
    NoMajority,
    /// No answer in time.
    #[error("no answer came within {limit:?}; see that its members run and are connected")]
    TimedOut {
        /// How long it was waited for.
        limit: Duration,
    },
    /// No member could be reached at all.
    #[error("none of its {members} known members can be reached; the last one said: {last}")]
    Unreachable {
        /// How many were asked.
        members: usize,
        /// What the last attempt ended with.
        last: String,
    },
    /// The leader was replaced while it worked on the request.
    #[error("its leader was replaced meanwhile")]
    LeaderChanged,
    /// The connection broke after the request was sent.
    #[error("the connection to {address} broke: {reason}")]
    ConnectionLost {
        /// Who was asked.
        address: String,
        /// How it broke.
        reason: String,
    },
    /// A member answered, and said no.
    #[error("{address} refuses: {reason}")]
    Refused {
        /// Who was asked.
        address: String,
        /// What it said.
        reason: String,
    },
    /// This member waits for all others with whom the group begins.
    #[error("member {member} has not begun; its status and its log say whom it waits for")]
    NotBegun {
        /// The member.
        member: NodeId,
    },
    /// This member has stopped, because of its disk or because it was told to.
    #[error("member {member} has stopped; look at its log and restart it")]
    Stopped {
        /// The member.
        member: NodeId,
    },
}

/// Follows one key: yields newer states, at least the last one, never an older one again.
#[derive(Debug)]
pub struct Watch {
    states: watch::Receiver<Option<Stored>>,
}

/// The other end of a [`Watch`], held by a store.
#[derive(Debug)]
pub struct Feed {
    states: watch::Sender<Option<Stored>>,
}

impl Watch {
    /// A watch, and the end that a store feeds.
    #[must_use]
    pub fn channel() -> (Feed, Self) {
        let (sender, receiver) = watch::channel(None);
        (Feed { states: sender }, Self { states: receiver })
    }

    /// Waits for a state newer than any before; states between may be skipped.
    ///
    /// `None` when the store is gone. May be dropped while it waits, nothing is lost.
    pub async fn next(&mut self) -> Option<Stored> {
        loop {
            self.states.changed().await.ok()?;
            if let Some(stored) = self.states.borrow_and_update().clone() {
                return Some(stored);
            }
        }
    }
}

impl Feed {
    /// Passes a state on if it is newer than all before.
    pub fn offer(&self, stored: Stored) {
        self.states.send_if_modified(|last| {
            let is_newer = last.as_ref().is_none_or(|last| last.revision < stored.revision);
            if is_newer {
                *last = Some(stored);
            }
            is_newer
        });
    }

    /// The newest revision that was passed on.
    #[must_use]
    pub fn newest(&self) -> Option<Revision> {
        self.states.borrow().as_ref().map(|stored| stored.revision)
    }

    /// Waits until the watch is dropped.
    pub async fn closed(&self) {
        self.states.closed().await;
    }
}

/// Refuses bytes beyond a limit.
pub(crate) fn check_size(what: &'static str, bytes: &[u8], limit: usize) -> Result<(), StoreError> {
    if limit < bytes.len() {
        return Err(StoreError::TooLarge { what, bytes: bytes.len(), limit });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(revision: u64) -> Stored {
        Stored { revision: Revision(revision), value: Arc::from(revision.to_be_bytes()) }
    }

    #[tokio::test]
    async fn a_watch_yields_the_newest_state_and_no_older_one_after_it() {
        let (feed, mut watch) = Watch::channel();
        feed.offer(stored(1));
        feed.offer(stored(3));
        feed.offer(stored(2));
        assert_eq!(watch.next().await, Some(stored(3)));
        feed.offer(stored(2));
        feed.offer(stored(3));
        feed.offer(stored(4));
        assert_eq!(watch.next().await, Some(stored(4)));
        drop(feed);
        assert_eq!(watch.next().await, None);
    }

    #[test]
    fn a_key_has_a_name_of_bounded_length() {
        assert!(StoreKey::new(&"x".repeat(KEY_BYTES_MAX)).is_ok());
        for refused in [String::new(), "x".repeat(KEY_BYTES_MAX + 1)] {
            assert!(matches!(StoreKey::new(&refused), Err(StoreError::KeyLength { .. })));
        }
    }
}
