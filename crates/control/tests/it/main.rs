//! Tests of the agreement: one suite for every backend, and what is particular to each.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

/// What every store of configurations must do, whatever is behind it.
mod conformance;
/// The embedded store: the suite, and its members.
mod embedded;
/// The store on etcd: the suite, and what is particular to it.
#[cfg(feature = "etcd")]
mod etcd;
/// Members of etcd with nodes of ours beside them.
#[cfg(feature = "etcd")]
mod etcd_group;
/// How a group begins, and members that have lost their files.
mod founding;
/// Members with connections that can be cut.
mod group;
/// A network that can be cut.
mod wires;
