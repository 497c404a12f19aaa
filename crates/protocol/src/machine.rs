//! Defines what goes into a machine and what comes out of it.
//!
//! Outputs have two lanes: `durable` messages leave only after everything that was appended before
//! them is on disk (the default, for anything a peer may rely on); `early` ones leave at once and
//! promise nothing about the disk. `Outbound::release` keeps that rule for server and simulator.
//!
//! Ensures: nothing leaves in the durable lane before it is persisted.

use antecede_model::{
    clock::{Now, Steady, Timestamp},
    ids::{Boot, LogIndex, NodeId, RequestId},
    refusal::Refusal,
};

use crate::{
    event::Event,
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

/// The node's log as machines see it.
pub trait Storage {
    /// Appends a record that `write` encodes behind what the buffer holds; tells its place.
    ///
    /// Nothing is on disk yet: that is told by an input of its own, [`Persisted`].
    fn append(&mut self, write: &mut dyn FnMut(&mut Vec<u8>)) -> LogIndex;

    /// How far the log has come by now; may be ahead of the last [`Persisted`] input.
    fn reached(&self) -> Persisted;

    /// Whether new writes of clients may be appended.
    ///
    /// # Errors
    /// The refusal to answer with: a full disk, a log that is too far behind.
    fn room(&self) -> Result<(), Refusal>;

    /// Whether the node's memory limit leaves room for writes that may grow the data.
    fn has_memory(&self) -> bool;
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

/// What a machine wants done. Reused from batch to batch.
#[derive(Debug, Default)]
pub struct Outputs {
    /// Messages that leave at once, in order.
    pub early: Vec<(NodeId, Message)>,
    /// Messages that leave once the log is persisted up to the index.
    pub durable: Vec<(LogIndex, NodeId, Message)>,
    /// Answers to requests, for sessions on this node and elsewhere.
    pub replies: Vec<(RequestId, Reply)>,
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

    /// Sends once everything appended so far is persisted.
    pub fn durable(&mut self, after: LogIndex, to: NodeId, message: Message) {
        self.durable.push((after, to, message));
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

    /// Moves durable messages whose part of the log is persisted to the early lane, in order.
    pub fn release(&mut self, persisted: Persisted) {
        let is_released = |(after, _, _): &mut (LogIndex, NodeId, Message)| *after <= persisted.to;
        self.early
            .extend(self.durable.extract_if(.., is_released).map(|(_, to, message)| (to, message)));
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
}
