//! Tests of the built binary: real processes, sockets, disks, signals and clients.
//!
//! Build it first: `cargo build --release -p antecede`. Loads with faults are short here;
//! `ANTECEDE_TEST_SECONDS=600` makes them as long as one likes.

/// Nodes on a network of their own: cut lines, dead machines, wrong clocks.
mod apart;
/// Three datacenters in one process, with verbs.
mod demo;
/// One datacenter on a desk: durable, ends well, refuses what is wrong.
mod dev;
/// What a doctor finds.
mod doctor;
/// The agreement is kept by an etcd.
mod etcd;
/// A disk whose syncs fail.
mod failed_sync;
/// Nine processes under load and faults, judged.
mod faults;
/// Folders that a node must not start on.
mod folders;
/// A disk that is full and has room again.
mod full_disk;
/// Bytes from people who mean no good.
mod hostile;
/// Nothing to do, so nothing is done.
mod idle;
/// A datacenter that is behind is let go of, and comes back.
mod lapse;
/// More data than memory.
mod larger_than_memory;
/// All that a datacenter had of something is lost.
mod lost_data;
/// Nodes are lost where managers decide, and everything goes on.
mod lost_nodes;
/// What a write costs between datacenters.
mod metadata;
/// A node is emptied, lost, and taken back.
mod moves;
/// What is kept for a datacenter that is cut off.
mod outbox;
/// A client that many use from Rust.
mod redis_rs;
/// Writes that are sent again while nodes are killed.
mod retries;
/// Nodes are restarted one by one, and nobody notices much.
mod rolling_restart;
/// Datacenters come and go.
mod topology;

/// What a lost datacenter never sent.
mod unsent;
