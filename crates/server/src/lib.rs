//! The shell of Antecede: it moves bytes, time and threads, and decides nothing.
//!
//! Network tasks run commands directly against the replicas of their node, each behind its own
//! short mutex that is never held over an await or a sync. What a machine wants done is sent on
//! at the end of a batch: messages to links, records to the log, answers to connections.
//!
//! Read `node` first (how inputs reach machines and outputs leave), then `connection` (a client),
//! `peer` (other nodes), `server` (start and end).
//!
//! Invariant: no branch on the protocol's state is here.

/// The admin port.
pub mod admin;
/// What belongs to an old number of a datacenter that comes back.
mod aside;
/// Asks the machine for the time.
pub mod clock;
/// The settings of a node.
pub mod config;
/// Client connections.
mod connection;
/// The right to serve, and who decides on it.
mod control;
/// The end of a process that must not go on.
mod fatal;
/// What clients may ask about the server.
mod info;
/// What is counted and measured.
pub mod metrics;
/// One node: how inputs reach machines, and outputs leave.
mod node;
/// The folder of a node that does not run.
pub mod old_folder;
/// Links between nodes.
mod peer;
/// The Redis protocol.
pub mod resp;
/// Start and end of a node.
pub mod server;
/// Log lines and metrics.
mod telemetry;
/// The threads that run everything.
mod workers;

pub use aside::{Lapse, Quarantine};
pub use config::Config;
pub use control::member::BeginAtOnce;
pub use control::witness::{Witness, WitnessError};
pub use node::{MemoryFigure, StartError};
pub use peer::{LinkError, LinkShape, LinkShaper, read_opening, take_messages};
pub use server::{Listeners, RunningServer, Server, ServerOptions};
pub use workers::{Placement, Workers};
