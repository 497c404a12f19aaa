//! Opens logs and writes recognisable records, for the tests beside it.

use antecede_storage::{Disk, Identity, Log, LogIndex, OpenError, Options, RecoveryReport};

pub(crate) const NODE_1: Identity = Identity { deployment: *b"sixteen bytes ok", node: 1 };

/// Small segments, so that a few records fill one.
pub(crate) const SMALL: Options = Options {
    segment_bytes: 8192,
    pending_bytes_max: 1 << 20,
    record_bytes_max: 1 << 20,
    salt: 0x5a17,
    zero_ahead: false,
};

pub(crate) type Records = Vec<Vec<u8>>;

/// Opens the log and collects its records.
pub(crate) fn try_open<D: Disk>(disk: D) -> Result<(Log<D>, Records, RecoveryReport), OpenError> {
    let mut records = Records::new();
    let (log, report) = Log::open(disk, SMALL, NODE_1, |index, payload| {
        records.push(payload.to_vec());
        assert_eq!(LogIndex::new(records.len() as u64), index, "records come in order");
    })?;
    assert_eq!(report.records, records.len() as u64);
    assert_eq!(log.positions().synced_to, report.recovered_to);
    Ok((log, records, report))
}

pub(crate) fn open<D: Disk>(disk: D) -> (Log<D>, Records, RecoveryReport) {
    try_open(disk).unwrap()
}

/// A record that differs from all others, of a length that depends on its number.
pub(crate) fn record(generation: u64, number: u64) -> Vec<u8> {
    let mut bytes = format!("generation {generation} record {number} ").into_bytes();
    let length = bytes.len() + usize::try_from(number * 37 % 700).unwrap();
    bytes.resize(length, b'a' + u8::try_from(number % 26).unwrap());
    bytes
}

/// Draws numbers from a seed.
pub(crate) struct Draw(pub(crate) u64);

impl Draw {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (self.0 >> 33) % bound
    }
}
