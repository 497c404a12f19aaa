//! The proof: whole deployments of Antecede in virtual time, from one seed.
//!
//! The machines, the bytes of messages and records, and the log with its recovery are those of the
//! server. The clocks, the wires, the disks and the clients are simulated, and all that is left to
//! chance is drawn from the seed: the same seed gives the same trace, byte for byte. Faults are
//! drawn from it, too; while and after a run its properties are checked.
//!
//! Read `plan` first (what a run consists of), then `world` (how it runs), then `check` (what must
//! hold).

/// What a run consists of: start here.
pub mod plan;
/// Kinds of trouble that a run can seek.
pub mod profiles;

/// What goes wrong.
pub mod faults;
/// What clients ask.
pub mod workload;

/// How a run runs.
pub mod world;

/// What nodes do with each other.
mod talk;

/// Writes that clients send again under request ids.
mod repeat;
/// What clients do.
mod visit;

/// How faults begin and end.
mod trouble;

/// Bits that change on disks.
pub mod rot;

/// Who decides which replicas serve.
mod control;
/// Nodes that shall hold nothing.
pub mod drains;
/// The agreement of a deployment on its datacenters.
pub mod members;

/// What nodes write down so that their logs can be cut.
pub mod checkpoints;
/// Values that are on disk only.
pub mod cold;
/// Datacenters that the others let go of, and that come back.
pub mod lapse;

/// How nodes leave their chains before they stop.
pub mod leave;

/// A crash at every output of a short script.
pub mod script;

/// How a run ends.
mod rest;

/// One node.
pub mod node;

/// One client's connection.
pub mod connection;

/// One client.
pub mod client;

/// What is known beside the protocol.
pub mod ledger;

/// What must hold.
pub mod check;

/// When messages arrive.
pub mod network;
/// Messages as bytes.
pub mod parcel;

/// Chance from a seed.
pub mod chance;
/// Virtual time.
pub mod moment;
/// What happens next.
pub mod queue;
/// What a run did.
pub mod trace;

/// Runs and their outcomes.
pub mod run;

/// Deliberate bugs and the scenarios that catch them.
#[cfg(feature = "mutations")]
pub mod mutations;
