//! Finds the slot and the shard of a key, as Redis Cluster does, and the hash that orders a scan.
//!
//! Slots are CRC16 (XMODEM) of the key or of its `{hash tag}`, modulo 16,384; a shard is a
//! contiguous run of slots.

use crate::ids::ShardId;

/// Slots of the key space, the number that Redis Cluster uses.
pub const SLOT_COUNT: u16 = 16_384;
/// The longest key that is accepted, in bytes.
pub const KEY_BYTES_MAX: usize = 64 * 1024;

/// Bytes that are taken at once.
const STRIDE: usize = 4;
/// For each byte value, what it leaves in the checksum with so many bytes behind it.
const CRC16: [[u16; 256]; STRIDE] = crc16_tables();

const fn crc16_tables() -> [[u16; 256]; STRIDE] {
    let mut tables = [[0_u16; 256]; STRIDE];
    let mut byte = 0_u16;
    while byte < 256 {
        let mut crc = byte << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
            bit += 1;
        }
        tables[0][byte as usize] = crc;
        byte += 1;
    }
    let mut behind = 1;
    while behind < STRIDE {
        let mut byte = 0;
        while byte < 256 {
            let before = tables[behind - 1][byte];
            tables[behind][byte] = (before << 8) ^ tables[0][(before >> 8) as usize];
            byte += 1;
        }
        behind += 1;
    }
    tables
}

/// The slot of a key, from its hash tag if it has one that is not empty.
#[must_use]
pub fn slot_of(key: &[u8]) -> u16 {
    let mut crc = 0_u16;
    let (strides, rest) = hashed_part(key).as_chunks::<STRIDE>();
    for [first, second, third, fourth] in strides {
        let [high, low] = crc.to_be_bytes();
        crc = CRC16[3][usize::from(high ^ first)]
            ^ CRC16[2][usize::from(low ^ second)]
            ^ CRC16[1][usize::from(*third)]
            ^ CRC16[0][usize::from(*fourth)];
    }
    for byte in rest {
        let [high, low] = crc.to_be_bytes();
        crc = (u16::from(low) << 8) ^ CRC16[0][usize::from(high ^ byte)];
    }
    crc % SLOT_COUNT
}

fn hashed_part(key: &[u8]) -> &[u8] {
    // No branch in this loop, so that it takes many bytes at a time.
    let has_open = key.iter().fold(false, |found, byte| found | (*byte == b'{'));
    if !has_open {
        return key;
    }
    let Some(open) = key.iter().position(|byte| *byte == b'{') else { return key };
    let inside = &key[open + 1..];
    match inside.iter().position(|byte| *byte == b'}') {
        Some(length) if 0 < length => &inside[..length],
        Some(_) | None => key,
    }
}

/// How many shards the key space is cut into: a power of two from 1 to 16,384.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardCount {
    bits: u8,
}

/// A number of shards that is no power of two from 1 to 16,384.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{given} shards are not possible: choose a power of two from 1 to {SLOT_COUNT}")]
pub struct ShardCountError {
    given: u32,
}

impl ShardCount {
    /// Takes a number of shards.
    ///
    /// # Errors
    /// [`ShardCountError`] unless it is a power of two from 1 to 16,384.
    pub fn new(count: u32) -> Result<Self, ShardCountError> {
        if !count.is_power_of_two() || u32::from(SLOT_COUNT) < count {
            return Err(ShardCountError { given: count });
        }
        let bits =
            u8::try_from(count.trailing_zeros()).map_err(|_| ShardCountError { given: count })?;
        Ok(Self { bits })
    }

    /// The number itself.
    #[must_use]
    pub const fn count(self) -> u16 {
        1 << self.bits
    }

    /// The shard that holds a key.
    #[must_use]
    pub fn shard_of(self, key: &[u8]) -> ShardId {
        ShardId(slot_of(key) >> (14 - self.bits))
    }

    /// All shards in order.
    pub fn shards(self) -> impl DoubleEndedIterator<Item = ShardId> {
        (0..self.count()).map(ShardId)
    }
}

/// The hash that places a key in a shard's index and orders a scan; the same on every replica.
///
/// It is even: the lowest bit is left to whoever keeps hashes.
#[must_use]
pub fn hash_of(key: &[u8], secret: u64) -> u64 {
    xxhash_rust::xxh3::xxh3_64_with_seed(key, secret) & !1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_redis_cluster() {
        assert_eq!(slot_of(b"123456789"), 0x31c3 % SLOT_COUNT);
        assert_eq!(slot_of(b"foo"), 12182);
        assert_eq!(slot_of(b"bar"), 5061);
        assert_eq!(slot_of(b"{user1000}.following"), slot_of(b"{user1000}.followers"));
        assert_eq!(slot_of(b"foo{}{bar}"), slot_of_whole(b"foo{}{bar}"));
        assert_eq!(slot_of(b"foo{{bar}}zap"), slot_of(b"{bar"));
    }

    /// Bit by bit, as the definition has it.
    fn slot_of_whole(key: &[u8]) -> u16 {
        let shift = |crc: u16| if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
        let crc = key.iter().fold(0_u16, |crc, byte| {
            (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| shift(crc))
        });
        crc % SLOT_COUNT
    }

    #[test]
    fn keys_of_every_length_have_the_slot_that_the_definition_gives() {
        let key: Vec<u8> = (0..=u8::MAX).filter(|byte| *byte != b'{').rev().collect();
        for length in 0..key.len() {
            assert_eq!(slot_of(&key[..length]), slot_of_whole(&key[..length]), "{length}");
        }
    }

    #[test]
    fn shards_are_runs_of_slots() {
        let count = ShardCount::new(256).unwrap();
        assert_eq!(count.shard_of(b"foo"), ShardId(12182 / 64));
        assert_eq!(ShardCount::new(1).unwrap().shard_of(b"foo"), ShardId(0));
        assert_eq!(ShardCount::new(16_384).unwrap().shard_of(b"foo"), ShardId(12182));
        assert!(ShardCount::new(3).is_err());
        assert!(ShardCount::new(32_768).is_err());
        assert!(ShardCount::new(0).is_err());
    }
}
