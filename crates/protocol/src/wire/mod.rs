//! Says how messages look on the wire between nodes.
//!
//! A link begins with a `hello::Hello` from each side, behind a `relay::RelayRequest` where a third
//! node passes it on. Then follow `frame`s, each with its
//! length and checksum, that hold `message`s. Everything that comes in is checked once, here:
//! the machines behind it see only messages that are whole and within limits.
//!
//! Ensures: reading never panics, and allocates only in proportion to the bytes that arrived.

/// Frames: many messages under one length and one checksum.
pub mod frame;
/// What both sides of a new link tell each other.
pub mod hello;
/// The bytes of each message.
mod message;
/// What a node says that wants to be passed on, and what it is answered.
pub mod relay;
/// The bytes of entries on their way to another datacenter.
mod replicate;

#[cfg(test)]
mod tests;

pub use self::message::{read_message, write_message};

/// The oldest form of messages that this build reads.
pub const PROTOCOL_VERSION_MIN: u16 = 1;
/// The form of messages that this build writes if the other side reads it.
pub const PROTOCOL_VERSION_MAX: u16 = 1;
/// Entries, stamps or writes that one message may name.
pub const ITEMS_MAX: usize = 65_536;
