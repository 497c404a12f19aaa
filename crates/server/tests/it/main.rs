//! Tests of whole nodes in this process, on free ports of the loopback address.

/// A client's connection, and nodes to connect to.
mod harness;

/// The admin port.
mod admin;
/// What one node does for its clients.
mod alone;
/// Several nodes.
mod several;
