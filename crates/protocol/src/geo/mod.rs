//! Between datacenters: outbox, inbox, dependency checks, cuts.
//!
//! The tail of a shard sends committed entries that began here to the head of the same shard in
//! every other datacenter; there each waits for its dependencies and enters the local chain
//! (COPS, SOSP 2011 section 4). What is applied everywhere is stable and may be forgotten.

/// Entries whose dependencies are applied enter the local chain.
pub mod apply;
/// What is applied here, and everywhere.
pub mod cuts;
/// Questions whether a write is applied, and the answers.
pub mod dependency;
/// What survivors have of a datacenter that is lost.
pub mod hand_on;
/// Entries from another datacenter, in order and once.
pub mod inbox;
/// How much is kept for datacenters that are behind, and when that is too much.
pub mod kept;
/// Committed entries on their way to another datacenter.
pub mod outbox;
/// Ticks of idle shards, and what may be collected.
pub mod stable;
