//! Tests of the agreement: one suite for every backend, and what is particular to each.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

/// What every store of configurations must do, whatever is behind it.
mod conformance;
/// The embedded store: the suite, and its members.
mod embedded;
/// Members with connections that can be cut.
mod group;
/// A network that can be cut.
mod wires;
