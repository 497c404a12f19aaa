//! The store among a few nodes of the deployment itself: nothing to install, agreement by Raft.
//!
//! A `Member` runs on one, three or five of the nodes and keeps the whole state; every node, also
//! one that is no member, asks through an `EmbeddedStore`. The Raft library decides who leads and
//! what is agreed; here are its disk, its network, its state, and what is asked of it.
//!
//! Ensures: what is promised in `store`; a member that lost its file is not let in as if it had
//! not.

/// What a node asks through, member or not.
pub mod client;
/// Raft's values as bytes.
mod codec;
/// A member's file: vote, log and snapshot.
pub mod disk;
/// How a group begins, and a member that has no file.
pub mod founding;
/// A running member: what it answers.
pub mod member;
/// Who the members are, and how that changes.
pub mod membership;
/// What members and nodes say to each other.
pub(crate) mod message;
/// Connections to members.
pub(crate) mod network;
/// What the Raft library is told about us.
pub mod raft;
/// Connections from members and nodes.
pub(crate) mod serving;
/// What the log adds up to.
mod state;

use std::fmt;

use antecede_model::{
    codec::{DecodeError, Reader, Writer},
    ids::{DatacenterId, DeploymentId},
};

pub use client::{EmbeddedStore, StoreOptions};
pub use disk::{FileError, Start};
pub use founding::{BeginOptions, Waiting, Way, begin, count_of_begun, has_begun};
pub use member::{Member, MemberOptions, OpenError};
pub use membership::{MEMBERS_MAX, MemberState, MembershipError};
pub use raft::Timing;
pub use serving::Port;

/// Names a group: whoever is of another one is not talked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupId {
    /// The deployment.
    pub deployment: DeploymentId,
    /// The datacenter that it decides for; `None` for the whole deployment.
    pub datacenter: Option<DatacenterId>,
}

/// What keeps the agreement of a group; all nodes of a datacenter must have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backing {
    /// Its members, by Raft.
    Embedded,
    /// etcd; its nodes only listen to each other.
    Etcd,
}

impl fmt::Display for Backing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Embedded => "embedded",
            Self::Etcd => "etcd",
        })
    }
}

impl Backing {
    fn write(self, writer: &mut Writer<'_>) {
        writer.u8(match self {
            Self::Embedded => 0,
            Self::Etcd => 1,
        });
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match reader.u8()? {
            0 => Ok(Self::Embedded),
            1 => Ok(Self::Etcd),
            found => Err(DecodeError::UnknownTag { what: "store of a group", found }),
        }
    }
}

impl GroupId {
    fn write(&self, writer: &mut Writer<'_>) {
        for byte in self.deployment.0 {
            writer.u8(byte);
        }
        writer.option(self.datacenter, Writer::datacenter);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut deployment = [0; 16];
        for byte in &mut deployment {
            *byte = reader.u8()?;
        }
        let datacenter = reader.option(Reader::datacenter)?;
        Ok(Self { deployment: DeploymentId(deployment), datacenter })
    }
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.datacenter {
            Some(datacenter) => {
                write!(f, "the group of datacenter {datacenter} of deployment {}", self.deployment)
            }
            None => write!(f, "the group of deployment {}", self.deployment),
        }
    }
}
