//! What a node tells of its replicas with each beat: facts for whoever decides.
//!
//! Limits: at most `FACTS_MAX` of each kind, so that they fit a beat; what does not fit is told
//! once others have been decided upon.

use std::sync::Arc;
use std::time::Duration;

use antecede_control::store::FACTS_BYTES_MAX;
use antecede_model::{
    codec::{DecodeError, Reader, Writer},
    ids::{Epoch, NodeId, ShardId},
};

/// Facts of one kind in a beat.
const FACTS_MAX: usize = 800;
/// Bytes of one fact at most: a shard and both parts of a node.
const FACT_BYTES_MAX: usize = 3 + 3 + 3;
/// Other nodes in a beat; of a larger datacenter not all are told.
const NODES_MAX: usize = 128;
/// Bytes of a node at most.
const NODE_BYTES_MAX: usize = 3 + 3;
const _: () = assert!(
    2 * FACTS_MAX * FACT_BYTES_MAX + NODES_MAX * NODE_BYTES_MAX + 32 < FACTS_BYTES_MAX,
    "a beat takes facts"
);

/// What a node has measured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NodeFacts {
    /// The epoch in which it was measured.
    pub(crate) epoch: Epoch,
    /// Whether its present run began with an empty log.
    pub(crate) has_begun_empty: bool,
    /// Whether its disk has no room for new writes.
    pub(crate) is_short: bool,
    /// Syncing replicas that have all that this node's tails have.
    pub(crate) caught_up: Vec<(ShardId, NodeId)>,
    /// Replicas whose log cannot be brought together with this node's.
    pub(crate) misfits: Vec<(ShardId, NodeId)>,
    /// For how long its present run has said that it is about to stop, and has given up its right
    /// to serve, in whole milliseconds.
    pub(crate) leaves_for: Option<Duration>,
    /// Nodes of its datacenter that it has not reached for long.
    pub(crate) unreached: Vec<NodeId>,
    /// Whether a replica serves here that has not settled.
    pub(crate) is_settling: bool,
    /// Whether no manager has known a run with its folder before this one.
    pub(crate) has_new_folder: bool,
}

impl NodeFacts {
    /// Nothing of its replicas yet, in an epoch.
    pub(crate) fn of(epoch: Epoch, has_begun_empty: bool) -> Self {
        Self { epoch, has_begun_empty, ..Self::default() }
    }

    /// Adds a replica that has caught up, if there is one.
    pub(crate) fn add_caught_up(&mut self, fact: Option<(ShardId, NodeId)>) {
        add(&mut self.caught_up, fact);
    }

    /// Adds a replica that does not fit, if there is one.
    pub(crate) fn add_misfit(&mut self, fact: Option<(ShardId, NodeId)>) {
        add(&mut self.misfits, fact);
    }

    /// Adds a node that was not reached for long.
    pub(crate) fn add_unreached(&mut self, node: NodeId) {
        if self.unreached.len() < NODES_MAX {
            self.unreached.push(node);
        }
    }

    /// As a beat carries them.
    pub(crate) fn encoded(&self) -> Arc<[u8]> {
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes);
        writer.number(self.epoch.0);
        writer.flag(self.has_begun_empty);
        writer.flag(self.is_short);
        for list in [&self.caught_up, &self.misfits] {
            writer.length(list.len());
            for (shard, node) in list {
                writer.shard(*shard);
                writer.node(*node);
            }
        }
        // Left out while there is nothing to say: what an earlier build does not know.
        let has_settling = self.is_settling || self.has_new_folder;
        let has_unreached = !self.unreached.is_empty() || has_settling;
        if self.leaves_for.is_some() || has_unreached {
            writer.flag(self.leaves_for.is_some());
        }
        if self.leaves_for.is_some() || has_unreached {
            writer.length(self.unreached.len());
            for node in &self.unreached {
                writer.node(*node);
            }
        }
        if self.leaves_for.is_some() || has_settling {
            writer.flag(self.is_settling);
        }
        if self.leaves_for.is_some() || self.has_new_folder {
            writer.flag(self.has_new_folder);
        }
        if let Some(leaves_for) = self.leaves_for {
            writer.number(u64::try_from(leaves_for.as_millis()).unwrap_or(u64::MAX));
        }
        bytes.into()
    }

    /// From a beat.
    pub(crate) fn decoded(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let fact = |reader: &mut Reader<'_>| Ok((reader.shard()?, reader.node()?));
        let mut facts = Self {
            epoch: Epoch(reader.number()?),
            has_begun_empty: reader.flag()?,
            is_short: reader.flag()?,
            caught_up: reader.list("replicas that have caught up", fact)?,
            misfits: reader.list("replicas that do not fit", fact)?,
            leaves_for: None,
            unreached: Vec::new(),
            is_settling: false,
            has_new_folder: false,
        };
        let has_more = |reader: &Reader<'_>| reader.finish().is_err();
        if has_more(&reader) {
            facts.leaves_for = reader.flag()?.then_some(Duration::ZERO);
        }
        if has_more(&reader) {
            facts.unreached = reader.list("nodes that are not reached", Reader::node)?;
        }
        if has_more(&reader) {
            facts.is_settling = reader.flag()?;
        }
        if has_more(&reader) {
            facts.has_new_folder = reader.flag()?;
        }
        if has_more(&reader) {
            facts.leaves_for = Some(Duration::from_millis(reader.number()?));
        }
        reader.finish()?;
        Ok(facts)
    }
}

fn add(list: &mut Vec<(ShardId, NodeId)>, fact: Option<(ShardId, NodeId)>) {
    if let Some(fact) = fact
        && list.len() < FACTS_MAX
    {
        list.push(fact);
    }
}

#[cfg(test)]
mod tests {
    use antecede_model::ids::DatacenterId;

    use super::*;

    #[test]
    fn facts_are_read_as_they_were_written_and_fit_a_beat() {
        let node = NodeId { datacenter: DatacenterId(u16::MAX), number: u16::MAX };
        let mut facts = NodeFacts::of(Epoch(u64::MAX), true);
        for number in (0..16_384).rev() {
            facts.add_caught_up(Some((ShardId(number), node)));
            facts.add_misfit(Some((ShardId(number), node)));
        }
        facts.add_misfit(None);
        facts.is_short = true;
        let bytes = facts.encoded();
        assert!(bytes.len() <= FACTS_BYTES_MAX, "{} bytes", bytes.len());
        assert_eq!(NodeFacts::decoded(&bytes).unwrap(), facts);
        assert_eq!(facts.caught_up.len(), FACTS_MAX);
        assert!(NodeFacts::decoded(&bytes[..bytes.len() - 1]).is_err());
        facts.unreached = vec![node; NODES_MAX];
        let bytes = facts.encoded();
        assert!(bytes.len() <= FACTS_BYTES_MAX, "{} bytes", bytes.len());
        assert_eq!(NodeFacts::decoded(&bytes).unwrap(), facts);
        facts.unreached.clear();
        facts.is_settling = true;
        let bytes = facts.encoded();
        assert_eq!(NodeFacts::decoded(&bytes).unwrap(), facts);
        facts.is_settling = false;
        facts.has_new_folder = true;
        let bytes = facts.encoded();
        assert_eq!(NodeFacts::decoded(&bytes).unwrap(), facts);
        facts.has_new_folder = false;
        for millis in [0, 40, 10_000] {
            facts.leaves_for = Some(Duration::from_millis(millis));
            let bytes = facts.encoded();
            assert!(bytes.len() <= FACTS_BYTES_MAX, "{} bytes", bytes.len());
            assert_eq!(NodeFacts::decoded(&bytes).unwrap(), facts);
        }
        facts.unreached = vec![node; NODES_MAX];
        (facts.is_settling, facts.has_new_folder) = (true, true);
        let bytes = facts.encoded();
        assert!(bytes.len() <= FACTS_BYTES_MAX, "{} bytes", bytes.len());
        assert_eq!(NodeFacts::decoded(&bytes).unwrap(), facts);
    }
}
