//! Says what both sides of a new link tell each other first, and decides whether they may talk.
//!
//! Each side sends a hello at once and judges the other's by itself: same deployment, a node that
//! the configuration has, a common form of messages, clocks within the drift bound. What follows
//! on the link is in the largest form that both read.
//!
//! A hello has a head of its own (magic, length, checksum) that stays the same for ever; a later
//! build may put more behind what this one reads, which this one skips.
#![deny(clippy::indexing_slicing)]

use std::time::Duration;

use antecede_model::{
    clock::{DriftError, Timestamp, Wall, check_drift},
    codec::{DecodeError, Reader, Writer},
    configuration::Configuration,
    ids::{Boot, DeploymentId, MembershipEpoch, NodeId},
};

/// The most bytes that a hello may have.
pub const HELLO_BYTES_MAX: usize = 512;

const MAGIC: [u8; 8] = *b"antecede";
/// Magic, length, checksum.
pub(super) const HEAD_BYTES: usize = 14;

/// What a node tells a node that it has a new link with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The oldest form of messages that it reads.
    pub version_min: u16,
    /// The newest form of messages that it reads and writes.
    pub version_max: u16,
    /// Its deployment.
    pub deployment: DeploymentId,
    /// Who it is.
    pub node: NodeId,
    /// Its run.
    pub boot: Boot,
    /// The set of datacenters that it knows.
    pub membership: MembershipEpoch,
    /// Its HLC when it said so.
    pub hlc: Timestamp,
    /// What it may still have of what it was told in earlier runs.
    pub keeps: Keeps,
    /// The newest run before this one that used its data folder; that is this one if none did.
    pub continues: Boot,
    /// The newest run of the other side that it has written down; 0: it has never met it.
    pub known: Boot,
}

/// What a node may still have of what it was told in earlier runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keeps {
    /// Nothing that others must vouch for: it has no data folder, or managers know of its runs.
    #[default]
    Nothing,
    /// Nothing of what came before its data folder, which is new: nothing of it is whole yet.
    NewFolder,
    /// All: its data folder was whole before.
    All,
}

impl Keeps {
    const fn number(self) -> u8 {
        match self {
            Self::Nothing => 0,
            Self::NewFolder => 1,
            Self::All => 2,
        }
    }

    fn of(number: u8) -> Result<Self, DecodeError> {
        match number {
            0 => Ok(Self::Nothing),
            1 => Ok(Self::NewFolder),
            2 => Ok(Self::All),
            found => Err(DecodeError::UnknownTag { what: "state of a data folder", found }),
        }
    }
}

/// Bytes that are no hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadHelloError {
    /// Something else speaks at the other end.
    #[error("the other side does not speak Antecede's protocol between nodes; check the address")]
    NotAHello,
    /// The hello cannot be read.
    #[error("the other side's hello cannot be read; connect again")]
    Damaged(#[from] DecodeError),
}

/// Why two nodes do not talk to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkRefusal {
    /// They hold different data.
    #[error(
        "node {theirs} is of deployment {their_deployment}, this node {ours} is of {our_deployment}; \
         check the address"
    )]
    OtherDeployment {
        /// This node.
        ours: NodeId,
        /// Its deployment.
        our_deployment: DeploymentId,
        /// The other node.
        theirs: NodeId,
        /// Its deployment.
        their_deployment: DeploymentId,
    },
    /// This configuration has no such node.
    #[error(
        "node {theirs} (membership {their_membership}) is not in the configuration of this node \
         {ours} (membership {our_membership}); give both the same configuration"
    )]
    UnknownNode {
        /// This node.
        ours: NodeId,
        /// The membership that it knows.
        our_membership: MembershipEpoch,
        /// The other node.
        theirs: NodeId,
        /// The membership that it knows.
        their_membership: MembershipEpoch,
    },
    /// The other side says that it is this node.
    #[error("the other side says that it is node {0}, as this node does; give each its own number")]
    SameNode(NodeId),
    /// No form of messages is known to both.
    #[error(
        "node {theirs} speaks protocol {their_min} to {their_max}, this node {ours} speaks \
         {our_min} to {our_max}; upgrade one of them"
    )]
    NoCommonVersion {
        /// This node.
        ours: NodeId,
        /// The oldest that this node speaks.
        our_min: u16,
        /// The newest that this node speaks.
        our_max: u16,
        /// The other node.
        theirs: NodeId,
        /// The oldest that it speaks.
        their_min: u16,
        /// The newest that it speaks.
        their_max: u16,
    },
    /// Its clock runs ahead.
    #[error(
        "the clock of node {theirs} is {ahead_millis} ms ahead of that of this node {ours}, the \
         limit is {limit_millis} ms; compare the clocks of both nodes"
    )]
    Drift {
        /// This node.
        ours: NodeId,
        /// The other node.
        theirs: NodeId,
        /// How far ahead.
        ahead_millis: u64,
        /// The bound.
        limit_millis: u64,
    },
}

impl Hello {
    /// Writes the hello behind what `to` holds.
    pub fn write(&self, to: &mut Vec<u8>) {
        let mut content = Vec::with_capacity(64);
        let mut writer = Writer::new(&mut content);
        writer.number(u64::from(self.version_min));
        writer.number(u64::from(self.version_max));
        for byte in self.deployment.0 {
            writer.u8(byte);
        }
        writer.node(self.node);
        writer.number(self.boot.0);
        writer.number(self.membership.0);
        writer.timestamp(self.hlc);
        writer.u8(self.keeps.number());
        writer.number(self.continues.0);
        writer.number(self.known.0);
        write_headed(MAGIC, &content, to);
    }

    /// Reads a hello from the front of `bytes` and tells how many it took; `None` when there must
    /// come more.
    ///
    /// # Errors
    /// [`ReadHelloError`] as soon as the bytes can be no hello.
    pub fn read(bytes: &[u8]) -> Result<Option<(Self, usize)>, ReadHelloError> {
        let Some(content) = read_headed(MAGIC, bytes)? else { return Ok(None) };
        let length = HEAD_BYTES + content.len();
        Ok(Some((Self::read_content(&mut Reader::new(content))?, length)))
    }

    fn read_content(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let version_min = read_version(from)?;
        let version_max = read_version(from)?;
        let mut deployment = [0; 16];
        for byte in &mut deployment {
            *byte = from.u8()?;
        }
        Ok(Self {
            version_min,
            version_max,
            deployment: DeploymentId(deployment),
            node: from.node()?,
            boot: Boot(from.number()?),
            membership: MembershipEpoch(from.number()?),
            hlc: from.timestamp()?,
            keeps: Keeps::of(from.u8()?)?,
            continues: Boot(from.number()?),
            known: Boot(from.number()?),
        })
    }

    /// Decides whether this node, which says `self`, talks to one that says `theirs`, and in which
    /// form of messages.
    ///
    /// # Errors
    /// [`LinkRefusal`] with both sides of what does not fit.
    pub fn accept(
        &self,
        theirs: &Self,
        configuration: &Configuration,
        wall: Wall,
        max_clock_drift: Duration,
    ) -> Result<u16, LinkRefusal> {
        if self.deployment != theirs.deployment {
            return Err(LinkRefusal::OtherDeployment {
                ours: self.node,
                our_deployment: self.deployment,
                theirs: theirs.node,
                their_deployment: theirs.deployment,
            });
        }
        if self.node == theirs.node {
            return Err(LinkRefusal::SameNode(self.node));
        }
        let datacenter = configuration.datacenter(theirs.node.datacenter);
        if !datacenter.is_some_and(|found| found.nodes.contains(&theirs.node)) {
            return Err(LinkRefusal::UnknownNode {
                ours: self.node,
                our_membership: self.membership,
                theirs: theirs.node,
                their_membership: theirs.membership,
            });
        }
        let version = self.version_max.min(theirs.version_max);
        if version < self.version_min.max(theirs.version_min) {
            return Err(LinkRefusal::NoCommonVersion {
                ours: self.node,
                our_min: self.version_min,
                our_max: self.version_max,
                theirs: theirs.node,
                their_min: theirs.version_min,
                their_max: theirs.version_max,
            });
        }
        check_drift(wall, theirs.hlc, max_clock_drift).map_err(
            |DriftError { ahead_millis, limit_millis, .. }| LinkRefusal::Drift {
                ours: self.node,
                theirs: theirs.node,
                ahead_millis,
                limit_millis,
            },
        )?;
        Ok(version)
    }
}

/// Writes what a new connection begins with: the head, then its content.
pub(super) fn write_headed(magic: [u8; 8], content: &[u8], to: &mut Vec<u8>) {
    let length = u16::try_from(content.len()).expect("what a connection begins with is short");
    to.extend_from_slice(&magic);
    to.extend_from_slice(&length.to_le_bytes());
    to.extend_from_slice(&crc32c::crc32c(content).to_le_bytes());
    to.extend_from_slice(content);
}

/// The content behind a head at the front of `bytes`; `None` when there must come more.
pub(super) fn read_headed(magic: [u8; 8], bytes: &[u8]) -> Result<Option<&[u8]>, ReadHelloError> {
    if bytes.iter().zip(magic).any(|(found, wanted)| *found != wanted) {
        return Err(ReadHelloError::NotAHello);
    }
    let Some((head, rest)) = bytes.split_first_chunk::<HEAD_BYTES>() else {
        return Ok(None);
    };
    let [.., low, high, a, b, c, d] = *head;
    let length = usize::from(u16::from_le_bytes([low, high]));
    let limit = HELLO_BYTES_MAX - HEAD_BYTES;
    if limit < length {
        return Err(DecodeError::OverLimit {
            what: "bytes in a hello",
            found: length as u64,
            limit: limit as u64,
        }
        .into());
    }
    let Some(content) = rest.get(..length) else { return Ok(None) };
    let (found, computed) = (u32::from_le_bytes([a, b, c, d]), crc32c::crc32c(content));
    if found != computed {
        return Err(DecodeError::Checksum { found, computed }.into());
    }
    Ok(Some(content))
}

fn read_version(from: &mut Reader<'_>) -> Result<u16, DecodeError> {
    let found = from.number()?;
    let limit = u64::from(u16::MAX);
    u16::try_from(found).map_err(|_| DecodeError::OverLimit {
        what: "a protocol version",
        found,
        limit,
    })
}
