//! Names datacenters, nodes, shards, epochs and boots, so that no two kinds of number are mixed.
//!
//! Invariant: datacenter ids and lineages are never used again for something else (DESIGN section 2).

use std::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// One full copy of the data; also the origin of the writes that begin there.
    DatacenterId(u16)
}
number! {
    /// A fixed part of the key space, the same in every datacenter.
    ShardId(u16)
}
number! {
    /// Numbers the configurations of one datacenter; grows by one with each.
    Epoch(u64)
}
number! {
    /// Numbers the sets of datacenters that make up the deployment.
    MembershipEpoch(u64)
}
number! {
    /// One run of a process; larger than every earlier one of the same node.
    Boot(u64)
}
number! {
    /// Numbers the lines of stamps of an (origin, shard); grows when the end of a line was lost.
    Lineage(u32)
}
number! {
    /// A place in one shard's log, counted from 1; 0 is before the first entry.
    Position(u64)
}
number! {
    /// A place in one node's log on disk, counted from 1; 0 is before the first record.
    LogIndex(u64)
}
number! {
    /// One client session on a node; never used again in one boot.
    SessionId(u64)
}

impl Position {
    /// The place right behind this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl Epoch {
    /// The epoch that follows this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// One server process of a datacenter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId {
    /// Where the node stands.
    pub datacenter: DatacenterId,
    /// Its number within the datacenter, from 1.
    pub number: u16,
}

impl NodeId {
    /// Both parts in one number, as peers and files carry it.
    #[must_use]
    pub fn to_bits(self) -> u32 {
        u32::from(self.datacenter.0) << 16 | u32::from(self.number)
    }

    /// The node whose parts were packed by [`NodeId::to_bits`].
    #[must_use]
    pub fn from_bits(bits: u32) -> Self {
        let [a, b, c, d] = bits.to_be_bytes();
        Self {
            datacenter: DatacenterId(u16::from_be_bytes([a, b])),
            number: u16::from_be_bytes([c, d]),
        }
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.datacenter, self.number)
    }
}

/// Names one deployment for ever; drawn when it is created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeploymentId(pub [u8; 16]);

impl fmt::Display for DeploymentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0 {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

/// One request of one session; the answer carries it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId {
    /// The node where the session lives.
    pub node: NodeId,
    /// The session.
    pub session: SessionId,
    /// Counts the requests of the session from 1.
    pub number: u64,
}
