//! The decisions of Antecede: machines without I/O.
//!
//! A machine is a plain struct. It is told one thing, changes itself, and writes down what must
//! happen in `Outputs`. Time is an argument; there are no sockets, files, threads, chance or async
//! here, so that the simulator runs exactly what the server runs.
//!
//! Read `machine` first (what goes in and out), then `entry` (what a log holds), `chain` (how a
//! datacenter agrees on an order), `geo` (how writes reach the others), `session` (how a client's
//! requests keep their order).

/// Replicas of one shard in one datacenter: order, commit, reads, restarts.
pub mod chain;
/// What a checkpoint says, so that the log can be cut.
pub mod checkpointed;
/// What a replica copies that lacks too much.
pub mod copied;
/// What a shard's log holds.
pub mod entry;
/// Things that happened, for people, metrics and checks.
pub mod event;
/// Between datacenters: outbox, inbox, dependency checks, cuts.
pub mod geo;
/// What goes into a machine and what comes out.
pub mod machine;
/// Which replicas serve.
pub mod manager;
/// What nodes say to each other.
pub mod message;
/// Deliberate bugs, for the simulator's tests.
pub mod mutation;
/// What a node's log holds, and how it is read back.
pub mod record;
/// What requests with an id came to, for their repeats.
pub mod retries;
/// One client's sequence of requests.
pub mod session;
/// The keys of one shard: committed state, dirty states above it, and what actions do to them.
pub mod state;
/// What a log holds of its own datacenter's writes, for those that were never sent.
pub mod unsent;
/// How messages look on the wire.
pub mod wire;
