//! Names deliberate protocol bugs that the simulator must catch.
//!
//! Ensures: without the cargo feature `mutations` none can be switched on, and the questions that
//! the machines ask are constant; the gate checks that a release build does not have the feature.

/// One deliberate bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mutation {
    /// Remote writes enter the chain without asking for their dependencies.
    SkipDependencyChecks,
    /// A dependency counts as applied when any newer stamp of its origin and shard is.
    NewerVersionSatisfies,
    /// A replica that is not the tail answers reads of dirty keys by itself.
    DirtyReadsAtTheMiddle,
    /// The tail commits what it has persisted itself.
    TailCommitsOnItsOwnSync,
    /// Entries count as persisted when they are received.
    AcknowledgeBeforePersisting,
    /// A reply without an effect leaves at once, also when it was computed from dirty state.
    ReplyFromDirtyState,
    /// A restarted replica goes on without settling, as if it had never stopped.
    RestartWithoutSettling,
    /// Entries that are sent again have lost their dependencies.
    LoseDependenciesOnResend,
    /// A receiver takes entries whatever stamp they say was before them.
    IgnorePrevious,
    /// The tail tells its own clock as the watermark of an idle shard.
    TailClockAsTick,
    /// A new head starts above the writes that it holds, not above the ticks.
    NewHeadIgnoresTicks,
    /// A node's smallest watermark is taken for the datacenter's, whatever shards it covers.
    MinimaWithoutShards,
    /// Tombstones are collected as soon as they are stable.
    CollectAtFirstStability,
    /// After a restart everything up to the largest applied stamp counts as applied.
    ForgetExceptionsOnRestart,
    /// A token leaves out the session's last write.
    TokenMissesLastWrite,
    /// A token carries no HLC and no logical times.
    TokenWithoutHlc,
    /// A stamp need not exceed the session's logical time.
    IgnoreLogicalTime,
    /// Pipelined commands to another shard are handed over at once.
    NoWaitInPipelines,
    /// What a replica's earlier run has promised goes on counting when a newer run is known.
    CountEarlierRuns,
    /// An acknowledgement passes a replica that has the entry in memory only.
    PassAcksUnpersisted,
    /// Nothing is taken from a link while too many writes are blocked.
    StopReadingWhenBlocked,
    /// A replica answers although its right to has run out.
    ServeWithoutLease,
    /// A replica that comes back keeps what it had not committed, and goes on behind it: logs are
    /// compared by their length alone.
    RejoinWithUncommitted,
    /// A copy brings the keys, but not which writes they are made of.
    CopyWithoutAppliedSets,
    /// A copy begins where the tail stands, without the entries that other datacenters still need.
    CopyWithoutHistory,
    /// While a tail waits for a replica that copies, sessions count on the order of its log.
    VouchOutOfOrder,
    /// A tail calls a replica caught up and goes on to commit without it.
    VouchWithoutWaiting,
    /// A replica may serve before it has copied all keys.
    ServeHalfCopied,
    /// A checkpoint says that it contains what is not committed yet.
    FloorsBeyondCommitted,
    /// The log says that everything committed was let go of, whoever still needs it.
    TrimCommitted,
    /// The log is cut where checkpoints allow it, whatever others still need.
    CutLogBehindWindow,
    /// A checkpoint is written before the log was synced as far as it contains it.
    CheckpointAheadOfLog,
    /// The log is cut as soon as a checkpoint was taken, before it is on disk.
    CutLogBeforeCheckpoint,
    /// A node whose lease has ended takes the next one without undoing decisions under way.
    RenewLate,
    /// A manager takes a node that it has not heard of for one that is dead.
    UnknownIsExpired,
    /// A replica that should step aside goes on answering.
    AnswerAside,
    /// A manager does not listen to nodes that cannot reach others.
    KeepUnreached,
    /// A manager does not wait until a replica has said that it steps aside.
    RetireAtOnce,
    /// A manager takes a replica that copies for whole, and lets the one go that it replaces.
    TakeHalfForWhole,
    /// Values are taken out of memory that no durable checkpoint holds.
    EvictUnsaved,
    /// What is read from a checkpoint takes the place of what is in memory, newer or not.
    LoadOverNewer,
    /// A manager gives up on a node before its right to serve has run out.
    ExpireBeforeLease,
    /// A node that leaves says so while it still answers.
    LeaveWithLease,
    /// A shard of a new datacenter stands alone before it has what its donor had when it began.
    SeedFromTheMiddle,
    /// A new datacenter opens as soon as all of its shards have copied.
    OpenWithTornPast,
    /// A node that may not answer any more goes on by what it held for stable.
    TrimWithoutLease,
    /// A datacenter that leaves goes on taking writes.
    WriteWhileLeaving,
    /// Survivors keep what they have of a lost datacenter to themselves.
    KeepLostToOneself,
    /// A datacenter that has heard that it has lapsed goes on serving.
    ServeLapsed,
    /// Entries of a datacenter that was let go of are taken from itself.
    TakeFromLapsed,
    /// A datacenter that is far behind is let go of by each of the others for itself: what it lacks
    /// counts as applied everywhere.
    LapseByOneself,
    /// One that has lapsed counts its own writes as applied everywhere, as the others do.
    SettleLapsed,
    /// One that comes back under its name takes request ids of before for new.
    ReturnWithoutFloors,
    /// What requests with an id came to is known to the head that executed them only.
    RetriesOnlyAtHead,
    /// A copy brings no request ids.
    CopyWithoutRetries,
    /// A checkpoint holds no request ids.
    CheckpointWithoutRetries,
    /// A repeat is answered although the first execution is not committed.
    AnswerRepeatsWhileDirty,
    /// What falls out of the window of request ids counts as never executed.
    ForgetWithoutFloor,
    /// A request that was lost is sent again without its id.
    SendAgainWithoutId,
    /// What is read back from a log is not compared with its checksum.
    TakeDamaged,
    /// A node that begins with an empty folder counts its runs from one again.
    CountRunsAnew,
}

/// Which deliberate bug is switched on, if any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mutations {
    #[cfg(feature = "mutations")]
    active: Option<Mutation>,
}

impl Mutations {
    /// None, as in every release.
    pub const NONE: Self = Self {
        #[cfg(feature = "mutations")]
        active: None,
    };

    /// Switches one on.
    #[cfg(feature = "mutations")]
    #[must_use]
    pub const fn only(mutation: Mutation) -> Self {
        Self { active: Some(mutation) }
    }

    /// Whether a deliberate bug is switched on; always false in a release.
    #[cfg(feature = "mutations")]
    #[must_use]
    pub fn has(self, mutation: Mutation) -> bool {
        self.active == Some(mutation)
    }

    /// Whether a deliberate bug is switched on; always false in a release.
    #[cfg(not(feature = "mutations"))]
    #[must_use]
    pub const fn has(self, _mutation: Mutation) -> bool {
        false
    }
}
