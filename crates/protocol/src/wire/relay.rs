//! Says what a node asks that cannot reach a node of another datacenter: that one of a third passes
//! on what it says.
//!
//! A connection begins with a `Hello` or with such a request. Once it is open, all that follows is
//! between the two ends, whose hellos come first; who passes it on reads none of it.
//!
//! Both have the head that a hello has, with a magic of their own; a later build may put more behind
//! what this one reads, which this one skips.
#![deny(clippy::indexing_slicing)]

use antecede_model::{
    codec::{DecodeError, Reader, Writer},
    configuration::Configuration,
    ids::{DeploymentId, NodeId},
};

use super::hello::{HEAD_BYTES, Hello, ReadHelloError, read_headed, write_headed};

const MAGIC: [u8; 8] = *b"anterely";

/// What a node that has been dialled hears first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// The other end of a link.
    Hello(Hello),
    /// A node that wants to be passed on.
    Relay(RelayRequest),
}

/// What a node asks that wants to be passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelayRequest {
    /// Its deployment.
    pub deployment: DeploymentId,
    /// Who asks.
    pub from: NodeId,
    /// Whom it wants to reach.
    pub to: NodeId,
}

/// Why a node does not pass on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RelayRefusal {
    /// It holds other data.
    #[error("the node that should pass on is of another deployment; check the addresses")]
    OtherDeployment,
    /// Its configuration has not both nodes, or not in three datacenters.
    #[error(
        "the node that should pass on does not know both ends as nodes of two other datacenters"
    )]
    NoSuchWay,
    /// It does not reach the other end itself.
    #[error("the node that should pass on does not reach the other end either")]
    Unreached,
    /// It passes on as much as it may.
    #[error("the node that should pass on does so for as many others as it may")]
    Busy,
}

/// What a node that should pass on answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelayAnswer {
    /// What follows goes to the other end and comes from there.
    Open,
    /// It does not, and closes.
    Refused(RelayRefusal),
}

impl Opening {
    /// Reads what a connection begins with and tells how many bytes it took; `None` when there must
    /// come more.
    ///
    /// # Errors
    /// [`ReadHelloError`] as soon as the bytes can be neither.
    pub fn read(bytes: &[u8]) -> Result<Option<(Self, usize)>, ReadHelloError> {
        match Hello::read(bytes) {
            Err(ReadHelloError::NotAHello) => {}
            read => return Ok(read?.map(|(hello, length)| (Self::Hello(hello), length))),
        }
        let Some(content) = read_headed(MAGIC, bytes)? else { return Ok(None) };
        let request = RelayRequest::read_content(&mut Reader::new(content))?;
        Ok(Some((Self::Relay(request), HEAD_BYTES + content.len())))
    }
}

impl RelayRequest {
    /// Writes the request behind what `to` holds.
    pub fn write(&self, to: &mut Vec<u8>) {
        let mut content = Vec::with_capacity(32);
        let mut writer = Writer::new(&mut content);
        for byte in self.deployment.0 {
            writer.u8(byte);
        }
        writer.node(self.from);
        writer.node(self.to);
        write_headed(MAGIC, &content, to);
    }

    fn read_content(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut deployment = [0; 16];
        for byte in &mut deployment {
            *byte = from.u8()?;
        }
        Ok(Self { deployment: DeploymentId(deployment), from: from.node()?, to: from.node()? })
    }

    /// Decides whether a node passes on for another as far as its configuration goes: the two ends
    /// and itself are in three datacenters.
    ///
    /// # Errors
    /// [`RelayRefusal`], what does not fit.
    pub fn accept(&self, here: NodeId, configuration: &Configuration) -> Result<(), RelayRefusal> {
        if self.deployment != configuration.deployment {
            return Err(RelayRefusal::OtherDeployment);
        }
        let knows = |node: NodeId| {
            let there = configuration.datacenter(node.datacenter);
            there.is_some_and(|there| there.nodes.contains(&node))
        };
        let (from, to) = (self.from.datacenter, self.to.datacenter);
        let is_third = from != to && from != here.datacenter && to != here.datacenter;
        if is_third && knows(self.from) && knows(self.to) {
            Ok(())
        } else {
            Err(RelayRefusal::NoSuchWay)
        }
    }
}

impl RelayAnswer {
    /// Writes the answer behind what `to` holds.
    pub fn write(&self, to: &mut Vec<u8>) {
        let number = match self {
            Self::Open => 0,
            Self::Refused(RelayRefusal::OtherDeployment) => 1,
            Self::Refused(RelayRefusal::NoSuchWay) => 2,
            Self::Refused(RelayRefusal::Unreached) => 3,
            Self::Refused(RelayRefusal::Busy) => 4,
        };
        write_headed(MAGIC, &[number], to);
    }

    /// Reads an answer from the front of `bytes` and tells how many it took; `None` when there must
    /// come more.
    ///
    /// # Errors
    /// [`ReadHelloError`] as soon as the bytes can be no answer.
    pub fn read(bytes: &[u8]) -> Result<Option<(Self, usize)>, ReadHelloError> {
        let Some(content) = read_headed(MAGIC, bytes)? else { return Ok(None) };
        let answer = match Reader::new(content).u8()? {
            0 => Self::Open,
            1 => Self::Refused(RelayRefusal::OtherDeployment),
            2 => Self::Refused(RelayRefusal::NoSuchWay),
            3 => Self::Refused(RelayRefusal::Unreached),
            4 => Self::Refused(RelayRefusal::Busy),
            found => {
                return Err(DecodeError::UnknownTag { what: "answer of a relay", found }.into());
            }
        };
        Ok(Some((answer, HEAD_BYTES + content.len())))
    }
}
