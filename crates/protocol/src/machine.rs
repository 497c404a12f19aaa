//! Defines what goes into a machine and what comes out of it.
//!
//! Messages leave at once (`early`): the shell holds none back for the disk. What a peer may rely on
//! is said only when it is so: a machine learns by `Persisted` how far the node's log has come,
//! and its promises (`Persisted` down the chain, `Ack` up, watermarks, `Received`) name positions
//! that this input has reached. The server holds a message back for one thing only, which machines
//! know nothing of: a timestamp above the ceiling that its log holds.
//!
//! Assumes: the shell tells `Persisted` only of what is on disk.

use antecede_model::{
    clock::{Now, Steady, Timestamp},
    ids::{Boot, LogIndex, NodeId, RequestId, ShardId},
};

use crate::{
    event::Event,
    geo::kept::Behind,
    message::{Message, Reply},
};

/// How far a log has come, by place in the node's log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Persisted {
    /// Everything up to here counts as on disk for a commit: synced under `fsync = always`,
    /// handed to the operating system under `interval` and `never`.
    pub to: LogIndex,
    /// Everything up to here survives a power loss.
    pub synced_to: LogIndex,
}

/// Whether the node's disk takes more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Room {
    /// It does.
    #[default]
    Ample,
    /// Only what is under way already, and what a node needs to go on: no new writes.
    Low,
    /// It is full, or the log is too far behind.
    None,
}

/// The node's log as machines see it.
pub trait Storage {
    /// Appends a record that `write` encodes behind what the buffer holds; tells its place.
    ///
    /// Nothing is on disk yet: that is told by an input of its own, `Persisted`.
    fn append(&mut self, write: &mut dyn FnMut(&mut Vec<u8>)) -> LogIndex;

    /// How far the log has come by now; may be ahead of the last `Persisted` input.
    fn reached(&self) -> Persisted;

    /// Whether the disk takes more.
    fn room(&self) -> Room;

    /// Whether the node's memory limit leaves room for writes that may grow the data.
    fn has_memory(&self) -> bool;

    /// Who is so far behind that the node keeps as much for other datacenters as it may.
    fn held_up_by(&self) -> Option<Behind>;
}

/// A message with the node and boot that sent it.
#[derive(Clone, Debug)]
pub struct Envelope {
    /// The sender.
    pub from: NodeId,
    /// Its run; a larger one than known means that it has restarted.
    pub boot: Boot,
    /// What it says.
    pub message: Message,
}

/// A value that is on disk only and is wanted: the shell reads the records of the hash from the
/// shard's checkpoint and answers with `Input::Loaded`, whatever comes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// The shard.
    pub shard: ShardId,
    /// The hash.
    pub hash: u64,
    /// Which load it is.
    pub number: u64,
}

/// What a machine wants done. Reused from batch to batch.
#[derive(Debug, Default)]
pub struct Outputs {
    /// Messages that leave at once, in order.
    pub early: Vec<(NodeId, Message)>,
    /// Answers to requests, for sessions on this node and elsewhere.
    pub replies: Vec<(RequestId, Reply)>,
    /// What must be read from the checkpoint.
    pub loads: Vec<Load>,
    /// What happened.
    pub events: Vec<Event>,
    /// When the machine wants to be woken at the latest, if at all.
    pub wake: Option<Steady>,
    /// The last place appended to in the node's log during this batch.
    pub appended_to: LogIndex,
}

impl Outputs {
    /// Sends at once; promises nothing about the disk.
    pub fn early(&mut self, to: NodeId, message: Message) {
        self.early.push((to, message));
    }

    /// Answers a request.
    pub fn reply(&mut self, request: RequestId, reply: Reply) {
        self.replies.push((request, reply));
    }

    /// Tells what happened.
    pub fn event(&mut self, event: Event) {
        self.events.push(event);
    }

    /// Asks to be woken at `at` or earlier.
    pub fn wake_at(&mut self, at: Steady) {
        self.wake = Some(self.wake.map_or(at, |found| found.min(at)));
    }
}

/// What every machine knows about where and when it runs.
#[derive(Clone, Copy, Debug)]
pub struct Here {
    /// This node.
    pub node: NodeId,
    /// This run of it.
    pub boot: Boot,
    /// The clocks.
    pub now: Now,
    /// The largest HLC that the node persisted a ceiling for in an earlier boot.
    pub hlc_floor: Timestamp,
    /// Until when the node may answer by the configuration that it has; for ever where nobody
    /// decides who serves.
    pub lease_until: Lease,
}

/// A moment of a node's steady clock at which its right to serve ends.
///
/// It is counted from the moment at which the renewal was sent, so that it ends before whoever
/// granted it can think that it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lease {
    /// The right does not end: the configuration is fixed.
    Unbounded,
    /// It ends then.
    Until(Steady),
}

impl Here {
    /// Whether the node may answer now.
    #[must_use]
    pub fn may_serve(&self) -> bool {
        match self.lease_until {
            Lease::Unbounded => true,
            Lease::Until(end) => self.now.steady < end,
        }
    }
}
