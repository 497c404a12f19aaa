//! Lists the deliberate protocol bugs, each with the kind of trouble that must catch it.
//!
//! A simulator that has never failed is not trusted: with each bug switched on some seed of the
//! scenario must fail, and the same seeds must pass without it. What hardly any seed shows is caught
//! by a story of the protocol's tests alone.

use antecede_protocol::mutation::{Mutation, Mutations};

use crate::{plan::Plan, profiles::Profile};

/// One deliberate bug and its scenario.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// How it is called.
    pub name: &'static str,
    /// The bug.
    pub mutation: Mutation,
    /// The kind of trouble that catches it.
    pub profile: Profile,
    /// Who says which replicas serve.
    pub control: &'static str,
    /// Whether nodes take checkpoints.
    pub checkpoints: &'static str,
    /// Whether datacenters are added, removed or lost.
    pub members: &'static str,
    /// Whether they keep values on disk only.
    pub memory: &'static str,
    /// The first seed that is played: a bug that hardly any seed shows is sought where one does.
    pub first: u64,
    /// Seeds within which it must be caught.
    pub seeds: u64,
}

const fn row(name: &'static str, mutation: Mutation, profile: Profile) -> Row {
    let (control, checkpoints, members, memory) = ("fixed", "off", "off", "off");
    Row { name, mutation, profile, control, checkpoints, members, memory, first: 1, seeds: 200 }
}

const fn leases(name: &'static str, mutation: Mutation) -> Row {
    let profile = Profile::Mixed;
    Row { control: "leases", ..row(name, mutation, profile) }
}

const fn managed(name: &'static str, mutation: Mutation, profile: Profile) -> Row {
    Row { control: "managed", ..row(name, mutation, profile) }
}

const fn with_checkpoints(name: &'static str, mutation: Mutation, profile: Profile) -> Row {
    Row { checkpoints: "on", ..row(name, mutation, profile) }
}

const fn cold(name: &'static str, mutation: Mutation, profile: Profile) -> Row {
    Row { memory: "on", ..with_checkpoints(name, mutation, profile) }
}

const fn with_members(name: &'static str, mutation: Mutation) -> Row {
    Row { members: "on", ..managed(name, mutation, Profile::Mixed) }
}

/// All of them.
pub const TABLE: &[Row] = &[
    row("count-earlier-runs", Mutation::CountEarlierRuns, Profile::WeakerFsync),
    row("pass-acks-unpersisted", Mutation::PassAcksUnpersisted, Profile::WeakerFsync),
    row("skip-dependency-checks", Mutation::SkipDependencyChecks, Profile::OutOfOrder),
    row("newer-version-satisfies", Mutation::NewerVersionSatisfies, Profile::OutOfOrder),
    row("dirty-reads-at-the-middle", Mutation::DirtyReadsAtTheMiddle, Profile::TailDeath),
    row("tail-commits-on-its-own-sync", Mutation::TailCommitsOnItsOwnSync, Profile::TailDeath),
    row("acknowledge-before-persisting", Mutation::AcknowledgeBeforePersisting, Profile::TailDeath),
    row("reply-from-dirty-state", Mutation::ReplyFromDirtyState, Profile::DirtyReplies),
    row("restart-without-settling", Mutation::RestartWithoutSettling, Profile::FastRestart),
    row("lose-dependencies-on-resend", Mutation::LoseDependenciesOnResend, Profile::OutOfOrder),
    row("ignore-previous", Mutation::IgnorePrevious, Profile::OutOfOrder),
    row("tail-clock-as-tick", Mutation::TailClockAsTick, Profile::Ticks),
    row("new-head-ignores-ticks", Mutation::NewHeadIgnoresTicks, Profile::Ticks),
    row("minima-without-shards", Mutation::MinimaWithoutShards, Profile::ChainReplaced),
    row("collect-at-first-stability", Mutation::CollectAtFirstStability, Profile::GcRace),
    row("forget-exceptions-on-restart", Mutation::ForgetExceptionsOnRestart, Profile::Gaps),
    row("token-misses-last-write", Mutation::TokenMissesLastWrite, Profile::Sessions),
    row("token-without-hlc", Mutation::TokenWithoutHlc, Profile::LogicalTime),
    row("ignore-logical-time", Mutation::IgnoreLogicalTime, Profile::LogicalTime),
    row("no-wait-in-pipelines", Mutation::NoWaitInPipelines, Profile::Pipelines),
    row("stop-reading-when-blocked", Mutation::StopReadingWhenBlocked, Profile::BackPressure),
    leases("serve-without-lease", Mutation::ServeWithoutLease),
    managed("rejoin-with-uncommitted", Mutation::RejoinWithUncommitted, Profile::TailDeath),
    managed("copy-without-applied-sets", Mutation::CopyWithoutAppliedSets, Profile::TailDeath),
    managed("copy-without-history", Mutation::CopyWithoutHistory, Profile::ChainReplaced),
    leases("vouch-without-waiting", Mutation::VouchWithoutWaiting),
    managed("serve-half-copied", Mutation::ServeHalfCopied, Profile::TailDeath),
    leases("answer-aside", Mutation::AnswerAside),
    managed("keep-unreached", Mutation::KeepUnreached, Profile::Mixed),
    Row {
        control: "moves",
        profile: Profile::DirtyReplies,
        first: 700,
        seeds: 500,
        ..leases("retire-at-once", Mutation::RetireAtOnce)
    },
    managed("take-half-for-whole", Mutation::TakeHalfForWhole, Profile::Mixed),
    Row { profile: Profile::TailDeath, seeds: 150, ..leases("renew-late", Mutation::RenewLate) },
    with_checkpoints(
        "floors-beyond-committed",
        Mutation::FloorsBeyondCommitted,
        Profile::TailDeath,
    ),
    row("trim-committed", Mutation::TrimCommitted, Profile::FastRestart),
    with_checkpoints("cut-log-behind-window", Mutation::CutLogBehindWindow, Profile::Mixed),
    with_checkpoints("checkpoint-ahead-of-log", Mutation::CheckpointAheadOfLog, Profile::Mixed),
    with_checkpoints(
        "cut-log-before-checkpoint",
        Mutation::CutLogBeforeCheckpoint,
        Profile::FastRestart,
    ),
    with_members("seed-from-the-middle", Mutation::SeedFromTheMiddle),
    Row {
        members: "grown",
        profile: Profile::Gaps,
        ..with_members("open-with-torn-past", Mutation::OpenWithTornPast)
    },
    Row {
        members: "grown",
        profile: Profile::OutOfOrder,
        first: 100,
        seeds: 500,
        ..with_members("trim-without-lease", Mutation::TrimWithoutLease)
    },
    with_members("write-while-leaving", Mutation::WriteWhileLeaving),
    with_members("keep-lost-to-oneself", Mutation::KeepLostToOneself),
    with_members("serve-lapsed", Mutation::ServeLapsed),
    with_members("take-from-lapsed", Mutation::TakeFromLapsed),
    with_members("lapse-by-oneself", Mutation::LapseByOneself),
    Row { first: 250, seeds: 500, ..with_members("settle-lapsed", Mutation::SettleLapsed) },
    Row {
        profile: Profile::Retries,
        ..with_members("return-without-floors", Mutation::ReturnWithoutFloors)
    },
    cold("evict-unsaved", Mutation::EvictUnsaved, Profile::Mixed),
    cold("load-over-newer", Mutation::LoadOverNewer, Profile::Mixed),
    leases("unknown-is-expired", Mutation::UnknownIsExpired),
    leases("expire-before-lease", Mutation::ExpireBeforeLease),
    leases("leave-with-lease", Mutation::LeaveWithLease),
    row("retries-only-at-head", Mutation::RetriesOnlyAtHead, Profile::Retries),
    managed("copy-without-retries", Mutation::CopyWithoutRetries, Profile::Retries),
    with_checkpoints(
        "checkpoint-without-retries",
        Mutation::CheckpointWithoutRetries,
        Profile::Retries,
    ),
    managed("answer-repeats-while-dirty", Mutation::AnswerRepeatsWhileDirty, Profile::Retries),
    row("forget-without-floor", Mutation::ForgetWithoutFloor, Profile::Retries),
    managed("send-again-without-id", Mutation::SendAgainWithoutId, Profile::Retries),
    managed("take-damaged", Mutation::TakeDamaged, Profile::Rot),
    managed("count-runs-anew", Mutation::CountRunsAnew, Profile::Rot),
];

/// The row of a name.
#[must_use]
pub fn named(name: &str) -> Option<&'static Row> {
    TABLE.iter().find(|row| row.name == name)
}

/// The plan with the bug of this name switched on.
#[must_use]
pub fn with(mut plan: Plan, name: &str) -> Option<Plan> {
    plan.mutations = Mutations::only(named(name)?.mutation);
    Some(plan)
}
