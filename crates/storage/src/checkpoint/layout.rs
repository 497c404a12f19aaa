//! Lays out what is in a checkpoint: tables, keys, records, shard rows, the head.
//!
//! Each shard has a table of its own, so that it can be dropped at once; the key of a record is
//! the key itself, its value begins with a checksum over shard, key and value. One more table has
//! a row for each shard: number and sum of its records, and the meta. The head has one row: format
//! and identity, laid out as in the log's files.
//!
//! Ensures: whatever bytes are found, decoding does not panic, and what it yields was written so.

#![deny(clippy::indexing_slicing)]

use antecede_model::ids::ShardId;

use crate::frame::Identity;

/// The format of checkpoints. A build reads this one and refuses others.
pub const CHECKPOINT_FORMAT: u32 = 1;

/// The table with a row for each shard.
pub(crate) const SHARDS_TABLE: &str = "shards";

/// The table with the head.
pub(crate) const HEAD_TABLE: &str = "head";

/// The one key of the head table.
pub(crate) const HEAD_KEY: &[u8] = b"head";

const HEAD_MAGIC: [u8; 8] = *b"antechk\0";
const HEAD_BYTES: usize = 36;

/// Bytes of a shard row before the meta: checksum, count, sum, and whether there is a meta.
const ROW_HEADER_BYTES: usize = 21;

/// The name of the table with the records of a shard.
pub(crate) fn records_table(shard: ShardId) -> String {
    format!("records-{:05}", shard.0)
}

/// The key of a shard's row.
pub(crate) const fn row_key(shard: ShardId) -> [u8; 2] {
    shard.0.to_be_bytes()
}

/// The shard of a row's key.
pub(crate) fn row_shard(key: &[u8]) -> Option<ShardId> {
    Some(ShardId(u16::from_be_bytes(key.try_into().ok()?)))
}

fn record_crc(shard: ShardId, key: &[u8], value: &[u8]) -> u32 {
    let key_length = u64::try_from(key.len()).expect("a size fits u64");
    let crc = crc32c::crc32c(&shard.0.to_le_bytes());
    let crc = crc32c::crc32c_append(crc, &key_length.to_le_bytes());
    let crc = crc32c::crc32c_append(crc, key);
    crc32c::crc32c_append(crc, value)
}

/// Lays out the record of `key` in `buffer`, which is emptied first; yields its checksum.
pub(crate) fn encode_record(buffer: &mut Vec<u8>, shard: ShardId, key: &[u8], value: &[u8]) -> u32 {
    let crc = record_crc(shard, key, value);
    buffer.clear();
    buffer.extend_from_slice(&crc.to_le_bytes());
    buffer.extend_from_slice(value);
    crc
}

/// A record that is what was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    pub(crate) value: &'a [u8],
    pub(crate) crc: u32,
}

/// The record of `key`, if it is what was written.
pub(crate) fn decode_record<'a>(
    shard: ShardId,
    key: &[u8],
    record: &'a [u8],
) -> Option<Record<'a>> {
    let (crc, value) = record.split_first_chunk()?;
    let crc = u32::from_le_bytes(*crc);
    (record_crc(shard, key, value) == crc).then_some(Record { value, crc })
}

/// Number and sum of the records of a shard: what is compared after a scan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) count: u64,
    /// The sum of their checksums, which does not depend on their order.
    sum: u64,
}

impl Tally {
    pub(crate) const fn add(&mut self, crc: u32) {
        self.count = self.count.wrapping_add(1);
        self.sum = self.sum.wrapping_add(spread(crc));
    }

    /// A damaged row may claim less than there is: the next scan tells.
    pub(crate) const fn subtract(&mut self, crc: u32) {
        self.count = self.count.wrapping_sub(1);
        self.sum = self.sum.wrapping_sub(spread(crc));
    }
}

/// Spreads a checksum over more bits, so that sums of few do not meet.
const fn spread(crc: u32) -> u64 {
    (crc as u64 ^ 0x5bd1_e995).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// The row of a shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ShardRow {
    pub(crate) tally: Tally,
    pub(crate) meta: Option<Vec<u8>>,
}

impl ShardRow {
    pub(crate) fn encode(&self, shard: ShardId) -> Vec<u8> {
        let mut bytes = vec![0; 4];
        bytes.extend_from_slice(&self.tally.count.to_le_bytes());
        bytes.extend_from_slice(&self.tally.sum.to_le_bytes());
        bytes.push(u8::from(self.meta.is_some()));
        bytes.extend_from_slice(self.meta.as_deref().unwrap_or_default());
        let crc = row_crc(shard, bytes.get(4..).unwrap_or_default());
        if let Some(place) = bytes.first_chunk_mut() {
            *place = crc.to_le_bytes();
        }
        bytes
    }

    pub(crate) fn decode(shard: ShardId, bytes: &[u8]) -> Option<Self> {
        let header = bytes.first_chunk::<ROW_HEADER_BYTES>()?;
        let (crc, covered) = bytes.split_first_chunk()?;
        if row_crc(shard, covered) != u32::from_le_bytes(*crc) {
            return None;
        }
        let (count, rest) = covered.split_first_chunk()?;
        let (sum, rest) = rest.split_first_chunk()?;
        let (_, meta) = rest.split_first()?;
        let tally = Tally { count: u64::from_le_bytes(*count), sum: u64::from_le_bytes(*sum) };
        let has_meta = header.last() == Some(&1);
        Some(Self { tally, meta: has_meta.then(|| meta.to_vec()) })
    }
}

fn row_crc(shard: ShardId, covered: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&shard.0.to_le_bytes()), covered)
}

/// Why a head is none of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeadError {
    /// Another length or magic, or a wrong checksum.
    Damaged,
    /// Sound, but of this format.
    Format(u32),
}

/// Lays out the head.
pub(crate) fn encode_head(identity: Identity) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEAD_BYTES);
    bytes.extend_from_slice(&HEAD_MAGIC);
    bytes.extend_from_slice(&CHECKPOINT_FORMAT.to_le_bytes());
    bytes.extend_from_slice(&identity.node.to_le_bytes());
    bytes.extend_from_slice(&identity.deployment);
    let crc = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes
}

/// The identity that a head names.
pub(crate) fn decode_head(bytes: &[u8]) -> Result<Identity, HeadError> {
    let damaged = HeadError::Damaged;
    let bytes: &[u8; HEAD_BYTES] = bytes.try_into().map_err(|_| damaged)?;
    let (covered, crc) = bytes.split_last_chunk().ok_or(damaged)?;
    if crc32c::crc32c(covered) != u32::from_le_bytes(*crc) {
        return Err(damaged);
    }
    let (magic, rest) = covered.split_first_chunk::<8>().ok_or(damaged)?;
    let (format, rest) = rest.split_first_chunk().ok_or(damaged)?;
    let (node, rest) = rest.split_first_chunk().ok_or(damaged)?;
    if *magic != HEAD_MAGIC {
        return Err(damaged);
    }
    let format = u32::from_le_bytes(*format);
    if format != CHECKPOINT_FORMAT {
        return Err(HeadError::Format(format));
    }
    let deployment = *rest.first_chunk().ok_or(damaged)?;
    Ok(Identity { deployment, node: u32::from_le_bytes(*node) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE_1: Identity = Identity { deployment: *b"sixteen bytes ok", node: 1 };

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn records_rows_and_the_head_keep_their_bytes() {
        let mut record = Vec::new();
        let crc = encode_record(&mut record, ShardId(7), b"key", b"value");
        assert_eq!(hex(&record), "c898ea9276616c7565");
        let mut row = ShardRow { tally: Tally::default(), meta: Some(b"meta".to_vec()) };
        row.tally.add(crc);
        assert_eq!(
            hex(&row.encode(ShardId(7))),
            "4d38158e0100000000000000a158ab342aeb93a9016d657461"
        );
        assert_eq!(
            hex(&ShardRow::default().encode(ShardId(7))),
            "fb1207940000000000000000000000000000000000"
        );
        assert_eq!(
            hex(&encode_head(NODE_1)),
            "616e746563686b0001000000010000007369787465656e206279746573206f6b07bc8433"
        );
        assert_eq!(records_table(ShardId(7)), "records-00007");
        assert_eq!(row_key(ShardId(259)), [1, 3]);
    }

    #[test]
    fn what_is_laid_out_is_found_again() {
        let mut record = Vec::new();
        let crc = encode_record(&mut record, ShardId(7), b"key", b"value");
        let found = decode_record(ShardId(7), b"key", &record);
        assert_eq!(found, Some(Record { value: b"value", crc }));
        for meta in [None, Some(Vec::new()), Some(b"meta".to_vec())] {
            let row = ShardRow { tally: Tally { count: 3, sum: 99 }, meta };
            assert_eq!(ShardRow::decode(ShardId(9), &row.encode(ShardId(9))), Some(row));
        }
        assert_eq!(decode_head(&encode_head(NODE_1)), Ok(NODE_1));
        assert_eq!(row_shard(&row_key(ShardId(700))), Some(ShardId(700)));
        assert_eq!(row_shard(b"abc"), None);
    }

    #[test]
    fn a_change_of_any_bit_is_noticed() {
        let mut record = Vec::new();
        encode_record(&mut record, ShardId(7), b"key", b"value");
        let row = ShardRow { tally: Tally::default(), meta: Some(b"meta".to_vec()) };
        let row = row.encode(ShardId(7));
        let head = encode_head(NODE_1);
        let flips = |bytes: &[u8], is_sound: &dyn Fn(&[u8]) -> bool| {
            for bit in 0..bytes.len() * 8 {
                let mut bytes = bytes.to_vec();
                bytes[bit / 8] ^= 1 << (bit % 8);
                assert!(!is_sound(&bytes), "bit {bit} went unnoticed");
            }
            for length in 0..bytes.len() {
                assert!(!is_sound(&bytes[..length]), "length {length} went unnoticed");
            }
            assert!(is_sound(bytes));
        };
        flips(&record, &|bytes| decode_record(ShardId(7), b"key", bytes).is_some());
        flips(b"key", &|key| decode_record(ShardId(7), key, &record).is_some());
        flips(&row, &|bytes| ShardRow::decode(ShardId(7), bytes).is_some());
        flips(&head, &|bytes| decode_head(bytes).is_ok());
        assert_eq!(decode_record(ShardId(8), b"key", &record), None);
        assert_eq!(ShardRow::decode(ShardId(8), &row), None);
        // A byte may not move from the key to the value.
        let shifted: Vec<u8> = [&record[..4], b"y", &record[4..]].concat();
        assert_eq!(decode_record(ShardId(7), b"ke", &shifted), None);
    }

    #[test]
    fn another_format_is_told_from_damage() {
        let mut head = encode_head(NODE_1);
        head[8] = 9;
        let crc = crc32c::crc32c(&head[..32]);
        head[32..].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(decode_head(&head), Err(HeadError::Format(9)));
    }
}
