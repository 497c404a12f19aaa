//! Names keys and values.
//!
//! All keys have one length: a prefix and a number with leading zeros. For histories a fraction of
//! the keys has a home: they are written in one datacenter only, and are the ones on which each
//! datacenter can be judged to be linearizable. Keys lie in groups of one key for each datacenter;
//! a group has homes or has none.
//!
//! Ensures: a writer that draws a key that is at home elsewhere is given the one of the same group
//! that is at home with it, so that homes change nothing about how often groups are written.

use super::chance::{mixed, unit_of};

/// What fills values up to their length.
const FILL: u8 = b'.';

/// All keys of a run.
#[derive(Clone, Debug)]
pub(crate) struct KeySpace {
    /// What all names begin with.
    pub(crate) prefix: String,
    /// Digits after the prefix.
    digits: usize,
    /// How many keys.
    pub(crate) count: u64,
    /// How many datacenters write.
    dc_count: u64,
    /// The part of the groups that have homes.
    home_fraction: f64,
}

impl KeySpace {
    /// Keys of `key_bytes` bytes where the numbers fit into so many, else of as many as needed.
    pub(crate) fn new(prefix: String, key_bytes: usize, count: u64) -> Self {
        let needed = count.saturating_sub(1).checked_ilog10().unwrap_or(0) as usize + 1;
        let digits = key_bytes.saturating_sub(prefix.len()).max(needed);
        Self { prefix, digits, count, dc_count: 1, home_fraction: 0.0 }
    }

    /// The same with homes in `dc_count` datacenters for a part of the keys.
    #[must_use]
    pub(crate) fn with_homes(self, dc_count: u64, home_fraction: f64) -> Self {
        Self { dc_count: dc_count.max(1), home_fraction, ..self }
    }

    /// Bytes of every key.
    pub(crate) fn key_bytes(&self) -> usize {
        self.prefix.len() + self.digits
    }

    /// Appends the name of a key.
    pub(crate) fn write_name(&self, key: u64, out: &mut Vec<u8>) {
        out.extend_from_slice(self.prefix.as_bytes());
        let start = out.len();
        out.resize(start + self.digits, b'0');
        let mut rest = key;
        for place in out.iter_mut().skip(start).rev() {
            *place += u8::try_from(rest % 10).expect("a digit is below 10");
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
    }

    /// The name of a key.
    pub(crate) fn name(&self, key: u64) -> String {
        let mut name = Vec::with_capacity(self.key_bytes());
        self.write_name(key, &mut name);
        String::from_utf8_lossy(&name).into_owned()
    }

    /// The datacenter in which alone `key` is written, if there is one.
    pub(crate) fn home_of(&self, key: u64) -> Option<u64> {
        let group = key / self.dc_count;
        let is_whole = (group + 1) * self.dc_count <= self.count;
        let has_homes = is_whole && unit_of(mixed(group)) < self.home_fraction;
        has_homes.then_some(key % self.dc_count)
    }

    /// The key that a writer in `dc` takes when it has drawn `key`.
    pub(crate) fn for_writer(&self, key: u64, dc: u64) -> u64 {
        match self.home_of(key) {
            None => key,
            Some(home) => key - home + dc,
        }
    }
}

/// Appends a value that no other write has, filled up to `length` bytes.
pub(crate) fn write_unique_value(session: u64, seq: u64, length: usize, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(unique_name(session, seq).as_bytes());
    if out.len() < start + length {
        out.resize(start + length, FILL);
    }
}

/// What a value says without what fills it up.
pub(crate) fn unique_name(session: u64, seq: u64) -> String {
    format!("s{session}-{seq}")
}

/// The name of a value that was read; a value of another length is given as it is.
pub(crate) fn name_of_value(value: &[u8], length: usize) -> String {
    let is_filled = value.len() == length;
    let end = value.iter().rposition(|byte| !is_filled || *byte != FILL).map_or(0, |last| last + 1);
    match std::str::from_utf8(value.get(..end).unwrap_or_default()) {
        Ok(text) => text.to_owned(),
        Err(_) => format!("\\x{}", value.escape_ascii()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_one_length_and_grow_only_where_they_must() {
        let keys = KeySpace::new("key:".to_owned(), 16, 1_000_000);
        assert_eq!(keys.name(0), "key:000000000000");
        assert_eq!(keys.name(999_999), "key:000000999999");
        assert_eq!(keys.key_bytes(), 16);
        assert_eq!(KeySpace::new("k".to_owned(), 2, 1000).name(999), "k999");
        assert_eq!(KeySpace::new("k".to_owned(), 0, 1).name(0), "k0");
    }

    #[test]
    fn a_key_with_a_home_is_written_there_only() {
        let keys = KeySpace::new("k".to_owned(), 8, 1000).with_homes(3, 0.5);
        let mut homes = 0;
        for key in 0..1000 {
            for dc in 0..3 {
                let taken = keys.for_writer(key, dc);
                assert!(taken < 1000);
                assert!(keys.home_of(taken).is_none_or(|home| home == dc), "{key} {dc}");
            }
            homes += u32::from(keys.home_of(key).is_some());
        }
        assert!((400..600).contains(&homes), "{homes}");
    }

    #[test]
    fn without_or_with_only_homes_every_key_is_alike() {
        let keys = KeySpace::new("k".to_owned(), 8, 30);
        assert!((0..30).all(|key| keys.home_of(key).is_none()));
        let keys = keys.with_homes(3, 1.0);
        assert!((0..30).all(|key| keys.home_of(key) == Some(key % 3)));
        let uneven = KeySpace::new("k".to_owned(), 8, 31).with_homes(3, 1.0);
        assert_eq!(uneven.home_of(30), None, "the last group lacks keys for all");
    }

    #[test]
    fn a_value_is_told_by_its_name() {
        let mut value = Vec::new();
        write_unique_value(12, 7, 20, &mut value);
        assert_eq!(value, b"s12-7...............");
        assert_eq!(name_of_value(&value, 20), unique_name(12, 7));
        assert_eq!(name_of_value(b"s12-7...", 20), "s12-7...", "a torn value is not its own");
        assert_eq!(name_of_value(b"\xff", 20), "\\x\\xff");
        value.clear();
        write_unique_value(12, 7, 2, &mut value);
        assert_eq!(value, b"s12-7", "uniqueness goes before the length");
    }
}
