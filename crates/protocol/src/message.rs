//! What nodes say to each other.
//!
//! Every message about a shard carries the epoch of its chain and the sender's HLC; a receiver
//! refuses an older epoch, and merges the HLC within the drift limit. Messages between datacenters
//! carry the membership epoch as well.

use antecede_model::{
    clock::Timestamp,
    configuration::Datacenter,
    consistency::Consistency,
    context::Dependencies,
    cut::Cut,
    dependency::Dependency,
    ids::{
        Boot, DatacenterId, Epoch, Lineage, MembershipEpoch, NodeId, Position, RequestId, ShardId,
    },
    operation::ShardOperation,
    response::Response,
    retry::Retry,
    version::Version,
};
use smallvec::SmallVec;

use crate::{
    copied::{Part, Start},
    entry::{Entry, Identity},
};

/// Something one node tells another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// For the replica of a shard.
    Shard(ShardMessage),
    /// For the session that asked.
    Reply(RequestId, Reply),
    /// For the node's keeper of cuts.
    Cut(CutReport),
    /// What do you know of a datacenter? Asked where a message told of a newer epoch of it.
    AskConfiguration(DatacenterId),
    /// What the sender knows of a datacenter.
    Configuration(DatacenterId, Box<Datacenter>),
}

/// Something for the replica of a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardMessage {
    /// The shard.
    pub shard: ShardId,
    /// The epoch of the sender's chain (of its own datacenter).
    pub epoch: Epoch,
    /// The sender's HLC.
    pub hlc: Timestamp,
    /// What is said.
    pub body: Body,
}

/// How far a prefix of a chain has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Every replica so far has everything up to here where a commit needs it.
    pub persisted_to: Position,
    /// Every replica so far would keep everything up to here in a power loss.
    pub synced_to: Position,
}

/// Runs of replicas, from the head on; `Boot(0)` stands for a run that is not known yet.
pub type Boots = SmallVec<[Boot; 2]>;

/// How far a prefix of a chain has come, and on whose word.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Promise {
    /// How far.
    pub progress: Progress,
    /// The runs of the replicas before the sender that have said so; the sender's own run comes
    /// with its message. A run that has ended promises nothing any more.
    pub boots: Boots,
}

/// What is said to a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// Down the chain: entries in order.
    Forward {
        /// At least one.
        entries: Vec<Entry>,
    },
    /// Down the chain: how far every replica so far has come.
    Persisted(Promise),
    /// Up the chain: everything up to here is committed; synced by all up to the second.
    Ack(Progress),
    /// Up the chain: this replica is short of disk, so that the head should take no new writes.
    /// Said again and again while it is so.
    NoRoom {
        /// The replica.
        node: NodeId,
    },
    /// Up the chain: entries are missing from here on.
    SendAgain {
        /// The first that is missing.
        from: Position,
    },
    /// To the tail: what is committed? Sent while reads of dirty keys wait.
    Question {
        /// Counts the questions of the asking replica in this boot.
        number: u64,
    },
    /// From the tail: everything up to here was committed when it was asked.
    Answer {
        /// The question.
        number: u64,
        /// The tail's position.
        committed_to: Position,
    },
    /// To the successor, until both have agreed after a restart or a change of epoch.
    SettleAsk {
        /// Nothing behind this was ever committed, as far as those before the successor know;
        /// `None` until the sender has heard so from its own predecessor.
        committed_at_most: Option<Position>,
    },
    /// To the predecessor: where this log ends, and whether it holds all that those further down
    /// hold.
    SettleTell {
        /// The last entry, if there is one.
        last: Option<Identity>,
        /// Whether the log is complete.
        is_complete: bool,
        /// The run of the predecessor that has asked; `None` if nobody has. Only an answer to its
        /// own question tells a predecessor that nothing of an earlier run of its is still on its
        /// way: what is refused from then on was refused by someone who knows the newer one.
        asked_by: Option<Boot>,
    },
    /// To the successor: entries that it still has and this replica has lost.
    TakeBack {
        /// The first that is missing.
        from: Position,
    },
    /// To the predecessor: entries that it lost.
    Returned {
        /// In order from the position that was asked for.
        entries: Vec<Entry>,
    },
    /// A client's request, handed over by its session or by another replica.
    Request(Request),
    /// To a tail: tell me when these writes are applied.
    AwaitApplied {
        /// Who waits.
        asker: Asker,
        /// Origins and stamps; the shard is the message's.
        writes: Vec<(DatacenterId, Timestamp)>,
    },
    /// From a tail, to a shard that waits: these writes are applied.
    Applied {
        /// The shard that applied them.
        by: ShardId,
        /// Origins and stamps.
        writes: Vec<(DatacenterId, Timestamp)>,
    },
    /// From an origin's tail to the head of another datacenter: committed entries in order.
    Replicate(Replicate),
    /// Back to the sending node: how far the receiver has come.
    Received(Received),
    /// Back to the sending node: bodies that were dropped and are needed now.
    Fetch {
        /// Under which membership.
        membership: MembershipEpoch,
        /// The line of stamps.
        lineage: Lineage,
        /// Stamps of the entries that are needed, at least one.
        stamps: Vec<Timestamp>,
    },
    /// To the head of another datacenter that stands before what it had.
    HadApplied(HadApplied),
    /// From a syncing replica to the tail: what do I lack?
    CopyAsk(CopyAsk),
    /// From the tail: your log cannot be continued, begin anew here.
    CopyAnew {
        /// The question.
        number: u64,
        /// What the log has come to.
        start: Start,
    },
    /// From the tail: some of what you lack.
    Copied(Copied),
    /// From a tail to the head of another datacenter: committed entries of one that is lost.
    HandOn {
        /// Under which membership.
        membership: MembershipEpoch,
        /// Where they began.
        origin: DatacenterId,
        /// In the order of the sender's log.
        entries: Vec<Entry>,
    },
    /// Back to the sending node: those of them that are applied and persisted.
    HandedOn {
        /// Under which membership.
        membership: MembershipEpoch,
        /// Where they began.
        origin: DatacenterId,
        /// Their stamps.
        stamps: Vec<Timestamp>,
    },
}

/// What a syncing replica has, and what it wants next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyAsk {
    /// Counts the questions of the asking run.
    pub number: u64,
    /// The last entry that it has; all of its log is persisted.
    pub last: Option<Identity>,
    /// The last one of which it knows that it is committed.
    pub committed: Option<Identity>,
    /// Entries before this position, this one included, are wanted as well, for those who may
    /// still ask for them.
    pub window_from: Option<Position>,
    /// The first hash whose keys it has not copied; none once it has all.
    pub part_from: Option<u64>,
    /// Whether it has all that a serving replica needs, on its disk, but for the end of the log.
    pub is_whole: bool,
}

/// Some of what a syncing replica lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copied {
    /// The question.
    pub number: u64,
    /// How far the log of the replica is that of the tail; what it has behind this was never
    /// committed.
    pub behind: Position,
    /// What the tail has committed.
    pub committed_to: Position,
    /// What survives a power loss of all serving replicas.
    pub durable_to: Position,
    /// Entries right before the position that was asked for, in order; none when nobody needs
    /// them any more.
    pub history: Vec<Entry>,
    /// What comes behind it, in order.
    pub entries: Vec<Entry>,
    /// Keys as they are right behind the last of `entries`; only where that is `committed_to`.
    pub part: Option<Part>,
}

/// Committed entries of one origin and shard, on their way to another datacenter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replicate {
    /// Under which membership.
    pub membership: MembershipEpoch,
    /// Where the entries began.
    pub origin: DatacenterId,
    /// The line of stamps.
    pub lineage: Lineage,
    /// The stamp before the first entry, so that a gap or a repeat is seen.
    pub previous: Timestamp,
    /// In order; none asks only for a [`Received`].
    pub entries: Vec<Entry>,
    /// Bodies that were asked for with [`Body::Fetch`]: out of line, `previous` says nothing.
    pub is_fetched: bool,
}

/// How far a receiving datacenter has come with an origin's line of a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// Under which membership.
    pub membership: MembershipEpoch,
    /// The line of stamps.
    pub lineage: Lineage,
    /// Everything up to here has arrived at the head.
    pub received_to: Timestamp,
    /// Everything up to here is applied and persisted.
    pub applied_to: Timestamp,
    /// Single stamps applied above, smallest first, as many as fit.
    pub above: Vec<Timestamp>,
    /// How many more entries may be sent beyond `received_to`.
    pub credit: u32,
}

/// What the receiving datacenter had applied and persisted of the sender's line, as it said itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HadApplied {
    /// Under which membership.
    pub membership: MembershipEpoch,
    /// The line of stamps.
    pub lineage: Lineage,
    /// Everything up to here.
    pub to: Timestamp,
}

/// Who waits for writes to be applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Asker {
    /// The head of another shard, for a remote write.
    Shard(ShardId),
    /// A session, for a token; answered by a reply with `Response::Ok`.
    Session(RequestId),
}

/// A request for a shard, owned, as it travels between nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Who asked, and where the reply goes.
    pub id: RequestId,
    /// The operation's bytes, see [`ShardOperation::write`].
    pub operation: Vec<u8>,
    /// What the session brings.
    pub carried: Carried,
    /// The client's own name for a write, if it gave one.
    pub retry: Option<Retry>,
}

/// What a session brings with a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// What a write depends on; empty at level `eventual` and for reads.
    pub dependencies: Dependencies,
    /// The session's logical time, which a stamp must exceed.
    pub time: Timestamp,
    /// How strong the promises are.
    pub level: Consistency,
    /// Where it must be evaluated.
    pub place: Place,
}

/// Which replica may evaluate a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Place {
    /// Any replica, by CRAQ's rule.
    #[default]
    Anywhere,
    /// The head, against its newest state, also dirty; the reply waits for the commit.
    Head,
    /// The tail: how many other datacenters have applied a write (`WAIT`).
    Tail,
}

/// A request as it is handed to a replica on the same node: nothing is copied.
#[derive(Clone, Copy, Debug)]
pub struct LocalRequest<'a> {
    /// Who asked.
    pub id: RequestId,
    /// The operation.
    pub operation: &'a ShardOperation<'a>,
    /// What the session brings.
    pub carried: &'a Carried,
    /// The client's own name for a write, if it gave one.
    pub retry: Option<&'a Retry>,
}

/// The answer of a shard to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// What the client is told.
    pub response: Response,
    /// The write that the request made, if it made one.
    pub wrote: Option<Dependency>,
    /// Versions that were returned or found absent, for the session's context.
    pub observed: SmallVec<[Version; 1]>,
    /// The shard that answered.
    pub shard: ShardId,
    /// The largest visible-at of what was returned, or the stamp of the write.
    pub visible_at: Timestamp,
}

impl Reply {
    /// An answer that tells nothing of any version.
    #[must_use]
    pub fn plain(shard: ShardId, response: Response) -> Self {
        Self {
            response,
            wrote: None,
            observed: SmallVec::new(),
            shard,
            visible_at: Timestamp::ZERO,
        }
    }
}

/// One node's, or one datacenter's, part of the cuts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CutReport {
    /// Which configuration the shards are named under.
    pub epoch: Epoch,
    /// Which membership.
    pub membership: MembershipEpoch,
    /// At least the logical time of every tail whose watermark went into the report.
    pub hlc: Timestamp,
    /// What the report says.
    pub scope: CutScope,
}

/// What a cut report is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CutScope {
    /// Applied watermarks of the shards whose tail is on the sending node: the smallest over
    /// exactly these shards.
    Node {
        /// Runs of shard numbers (first, last), sorted.
        shards: Vec<(ShardId, ShardId)>,
        /// Per origin the smallest watermark.
        applied: Cut,
        /// Up to when promises are wanted: something of that time is not stable, or waits for them.
        ticks_to: Timestamp,
        /// Whether these shards have handed out what the membership asks for.
        is_handed_out: bool,
    },
    /// The applied cut of the sender's whole datacenter.
    Datacenter {
        /// Per origin.
        applied: Cut,
        /// Up to when promises are wanted from this datacenter's peers.
        ticks_to: Timestamp,
    },
}
