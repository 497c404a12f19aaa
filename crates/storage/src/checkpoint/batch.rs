//! Collects the changes that one write makes durable together.
//!
//! Changes are only appended here, which is cheap for whoever holds a shard meanwhile; they are
//! sorted where they are written. Of several changes of one key the last one counts.

use std::collections::BTreeMap;

use antecede_model::ids::ShardId;

/// Bytes that a change takes besides key and value, about.
const CHANGE_BYTES: usize = 64;

/// A change of one key: its new value, or `None` if it is gone.
type Change = (Vec<u8>, Option<Vec<u8>>);

/// What has changed in any number of shards, to be written at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckpointBatch {
    shards: BTreeMap<ShardId, ShardChanges>,
    bytes: usize,
}

/// What has changed in one shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShardChanges {
    /// Whether everything that the store has of the shard goes away first.
    reset: bool,
    changes: Vec<Change>,
    /// `None`: the old one stays.
    meta: Option<Vec<u8>>,
}

impl CheckpointBatch {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives `key` a value.
    pub fn put(&mut self, shard: ShardId, key: Vec<u8>, value: Vec<u8>) {
        self.add(shard, key, Some(value));
    }

    /// Removes `key`, if it is there.
    pub fn remove(&mut self, shard: ShardId, key: Vec<u8>) {
        self.add(shard, key, None);
    }

    fn add(&mut self, shard: ShardId, key: Vec<u8>, value: Option<Vec<u8>>) {
        self.bytes += CHANGE_BYTES + key.len() + value.as_ref().map_or(0, Vec::len);
        self.shards.entry(shard).or_default().changes.push((key, value));
    }

    /// Gives the shard a new meta record.
    pub fn set_meta(&mut self, shard: ShardId, meta: Vec<u8>) {
        self.bytes += CHANGE_BYTES + meta.len();
        self.shards.entry(shard).or_default().meta = Some(meta);
    }

    /// Drops all records of the shard and its meta, also what this batch has of it so far.
    pub fn reset(&mut self, shard: ShardId) {
        let changes = self.shards.entry(shard).or_default();
        *changes = ShardChanges { reset: true, ..ShardChanges::default() };
        self.bytes += CHANGE_BYTES;
    }

    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.shards.is_empty()
    }

    /// Bytes that the batch takes in memory, about.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// The shards and what has changed in each, in order.
    pub fn shards(&self) -> impl Iterator<Item = (ShardId, &ShardChanges)> {
        self.shards.iter().map(|(shard, changes)| (*shard, changes))
    }
}

impl ShardChanges {
    /// Whether everything that the store has of the shard goes away first.
    #[must_use]
    pub const fn is_reset(&self) -> bool {
        self.reset
    }

    /// The new meta record; `None` if the old one stays.
    #[must_use]
    pub fn meta(&self) -> Option<&[u8]> {
        self.meta.as_deref()
    }

    /// The last change of each key, in the order of keys.
    pub(crate) fn sorted(&self) -> Vec<(&[u8], Option<&[u8]>)> {
        let mut sorted: Vec<_> = self.changes.iter().collect();
        sorted.sort_by(|a, b| b.0.cmp(&a.0)); // Keeps the order of equal keys.
        sorted.reverse(); // So the last of equal keys comes first.
        sorted.dedup_by(|later, first| later.0 == first.0);
        sorted.into_iter().map(|(key, value)| (key.as_slice(), value.as_deref())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_changes_of_a_key_the_last_counts() {
        let mut batch = CheckpointBatch::new();
        let shard = ShardId(3);
        batch.put(shard, b"b".to_vec(), b"1".to_vec());
        batch.put(shard, b"a".to_vec(), b"2".to_vec());
        batch.put(shard, b"b".to_vec(), b"3".to_vec());
        batch.remove(shard, b"a".to_vec());
        batch.put(shard, b"".to_vec(), b"4".to_vec());
        let (_, changes) = batch.shards().next().unwrap();
        let expected: [(&[u8], Option<&[u8]>); 3] =
            [(b"", Some(b"4")), (b"a", None), (b"b", Some(b"3"))];
        assert_eq!(changes.sorted(), expected);
    }

    #[test]
    fn a_reset_drops_what_the_batch_has_so_far() {
        let mut batch = CheckpointBatch::new();
        batch.put(ShardId(1), b"a".to_vec(), b"1".to_vec());
        batch.set_meta(ShardId(1), b"old".to_vec());
        batch.reset(ShardId(1));
        batch.put(ShardId(1), b"b".to_vec(), b"2".to_vec());
        let (_, changes) = batch.shards().next().unwrap();
        assert!(changes.is_reset());
        assert_eq!(changes.meta(), None);
        assert_eq!(changes.sorted().len(), 1);
        assert!(0 < batch.bytes());
    }
}
