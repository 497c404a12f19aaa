//! The words of Antecede: values that every other crate speaks in, without any I/O.
//!
//! Start with `clock` and `version` (how writes are ordered), then `dependency` and `context`
//! (what a session has seen), then `operation` and `response` (what clients ask and are told).
//!
//! Invariant: nothing here asks for the time, a socket, a file, chance or another thread.

/// Which stamps of an origin are applied to a shard: a watermark and the exceptions above it.
pub mod applied;
/// Hybrid logical clocks: stamps, visible-at, and the clocks that give them.
pub mod clock;
/// Bytes in, bytes out, with limits.
pub mod codec;
/// Which datacenters, nodes and chains there are.
pub mod configuration;
/// How strong an operation's promises are.
pub mod consistency;
/// A session's causal past.
pub mod context;
/// Cuts: one timestamp per origin, up to which everything is applied.
pub mod cut;
/// Dependencies: writes that must be applied before another may be.
pub mod dependency;
/// Names of datacenters, nodes, shards, epochs and boots.
pub mod ids;
/// Keys, their slots, their shards and their hashes.
pub mod key;
/// Which datacenters a deployment has, and what each may do.
pub mod membership;
/// What a client can ask of a key.
pub mod operation;
/// Requests that are not served, for reasons that a client may act on.
pub mod refusal;
/// What a client is told.
pub mod response;
/// Request ids: a client's own names for requests that it may send again.
pub mod retry;
/// What `WATCH` remembers of a key.
pub mod sighting;
/// A context written down for a client to carry.
pub mod token;
/// Versions: the total order in which the last writer wins.
pub mod version;
