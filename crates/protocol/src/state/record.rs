//! Packs the committed state of a key into one allocation.
//!
//! ```text
//! flags      1      tombstone, hidden, times to live, long key; upper half: bytes of distance,
//!                   and whether the value is on disk only
//! origin     2      of the version
//! timestamp  8      of the version
//! distance   0..8   from the timestamp to visible-at; none where they are the same
//! key length 1 or 3
//! key
//! hidden     0 or 10
//! ttls       0 or 2 + 18 each
//! value             the rest; of one that is on disk only its length, 4
//! ```
//!
//! A record whose value is on disk only is *away*. It exists in memory alone: `check` refuses it, so
//! that it is never taken from another node or a disk.
//!
//! A write of local origin with a key of 16 bytes and a value of 128 takes 156 bytes, one of remote
//! origin that became visible within four seconds 160: both are the allocator's class of 160.
//!
//! Invariant: a record is made by `write` only, and never empty.

use antecede_model::{
    clock::Timestamp, codec::DecodeError, ids::DatacenterId, key::KEY_BYTES_MAX, version::Version,
};

use super::{
    look::{Look, Stored, TtlWrite, Ttls},
    merge::KeyState,
};

const TOMBSTONE: u8 = 1;
const HIDDEN: u8 = 1 << 1;
const TTLS: u8 = 1 << 2;
const LONG_KEY: u8 = 1 << 3;
const DISTANCE_SHIFT: u32 = 4;
/// What the upper half of the flags says: bytes of distance of a record that is whole, then of one
/// that is away, where they are rounded up to what can be said.
const DISTANCE_BYTES: [u8; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 0, 2, 3, 4, 5, 6, 8];
/// The first number that says that a record is away.
const AWAY: u8 = 9;
/// Bytes of the length of a value that is away.
const LENGTH_BYTES: usize = 4;

const VERSION_BYTES: usize = 10;
const TTL_BYTES: usize = VERSION_BYTES + 8;
const DISTANCE_AT: usize = 1 + VERSION_BYTES;
const SHORT_KEY_MAX: usize = 255;
const _: () = assert!(KEY_BYTES_MAX < 1 << 24, "a key's length must fit its three bytes");

/// The key of a record.
pub(super) fn key(record: &[u8]) -> &[u8] {
    let (start, length) = key_place(record);
    &record[start..start + length]
}

fn key_place(record: &[u8]) -> (usize, usize) {
    let at = DISTANCE_AT + distance_bytes_of(record[0]);
    if record[0] & LONG_KEY == 0 {
        (at + 1, usize::from(record[at]))
    } else {
        let [low, middle, high] = [record[at], record[at + 1], record[at + 2]].map(usize::from);
        (at + 3, low | middle << 8 | high << 16)
    }
}

fn distance_bytes_of(flags: u8) -> usize {
    usize::from(DISTANCE_BYTES[usize::from(flags >> DISTANCE_SHIFT)])
}

/// Whether the value is on disk only.
pub(super) fn is_away(record: &[u8]) -> bool {
    AWAY <= record[0] >> DISTANCE_SHIFT
}

/// Bytes of its value, wherever that is.
pub(super) fn value_length(record: &[u8]) -> usize {
    read(record).held.map_or(0, Stored::length)
}

/// The same record without its value; `None` if it has none, or a shorter one than `bytes_min`.
pub(super) fn without_value(record: &[u8], bytes_min: usize) -> Option<Box<[u8]>> {
    let look = read(record);
    let value = look.held?.bytes().filter(|value| bytes_min <= value.len())?;
    Some(rewritten(record, &look, Stored::Away { length: value.len() }))
}

/// A record that is away, with the value that another record of its key holds; `None` if that is
/// not the same value.
pub(super) fn with_value_of(away: &[u8], whole: &[u8]) -> Option<Box<[u8]>> {
    let (look, found) = (read(away), read(whole));
    let value = found.held?.bytes()?;
    let is_it = key(away) == key(whole)
        && look.version == found.version
        && look.held == Some(Stored::Away { length: value.len() });
    is_it.then(|| rewritten(away, &look, Stored::Here(value)))
}

fn rewritten(record: &[u8], look: &Look<'_>, value: Stored<'_>) -> Box<[u8]> {
    let (key, state) = (key(record), KeyState::of(look, ()));
    write(Vec::with_capacity(length(key, &state, Some(value))), key, &state, Some(value))
}

/// The state that a record holds.
pub(super) fn read(record: &[u8]) -> Look<'_> {
    let flags = record[0];
    let version = read_version(&record[1..]);
    let mut distance = [0; 8];
    let distance_bytes = distance_bytes_of(flags);
    distance[..distance_bytes].copy_from_slice(&record[DISTANCE_AT..DISTANCE_AT + distance_bytes]);
    let visible_at = version.timestamp.0.wrapping_add(u64::from_le_bytes(distance));
    let (key_start, key_length) = key_place(record);
    let mut rest = &record[key_start + key_length..];
    let mut hidden = None;
    if flags & HIDDEN != 0 {
        hidden = Some(read_version(rest));
        rest = &rest[VERSION_BYTES..];
    }
    let mut ttls = Ttls::default();
    if flags & TTLS != 0 {
        let count = usize::from(u16::from_le_bytes([rest[0], rest[1]]));
        (ttls.packed, rest) = rest[2..].split_at(count * TTL_BYTES);
    }
    let held = if flags & TOMBSTONE != 0 {
        None
    } else if flags >> DISTANCE_SHIFT < AWAY {
        Some(Stored::Here(rest))
    } else {
        let length = u32::from_le_bytes(*rest.first_chunk().expect("records are whole"));
        Some(Stored::Away { length: usize::try_from(length).expect("it was in memory once") })
    };
    Look { version: Some(version), held, hidden, ttls, visible_at: Timestamp(visible_at) }
}

/// The writes to a time to live, as they lie in a record.
pub(super) fn unpack_ttls(packed: &[u8]) -> impl Iterator<Item = TtlWrite> {
    packed.chunks_exact(TTL_BYTES).map(|ttl| TtlWrite {
        version: read_version(ttl),
        deadline: read_u64(&ttl[VERSION_BYTES..]),
    })
}

/// The number of bytes of the record that `write` makes.
pub(super) fn length<V>(key: &[u8], state: &KeyState<V>, value: Option<Stored<'_>>) -> usize {
    let key_length_bytes = if key.len() <= SHORT_KEY_MAX { 1 } else { 3 };
    let ttl_bytes = if state.ttls.is_empty() { 0 } else { 2 + state.ttls.len() * TTL_BYTES };
    DISTANCE_AT
        + usize::from(DISTANCE_BYTES[usize::from(distance_kind(distance(state), value))])
        + key_length_bytes
        + key.len()
        + state.hidden.map_or(0, |_| VERSION_BYTES)
        + ttl_bytes
        + match value {
            None => 0,
            Some(Stored::Here(value)) => value.len(),
            Some(Stored::Away { .. }) => LENGTH_BYTES,
        }
}

/// Writes the record of a key that has a version. `to` is empty; if it has exactly the capacity
/// that [`length`] tells, nothing is allocated.
pub(super) fn write<V>(
    mut to: Vec<u8>,
    key: &[u8],
    state: &KeyState<V>,
    value: Option<Stored<'_>>,
) -> Box<[u8]> {
    let version = state.version.expect("only keys that have a version are kept");
    let distance = distance(state);
    let kind = distance_kind(distance, value);
    let distance_bytes = usize::from(DISTANCE_BYTES[usize::from(kind)]);
    let mut flags = kind << DISTANCE_SHIFT;
    if value.is_none() {
        flags |= TOMBSTONE;
    }
    if state.hidden.is_some() {
        flags |= HIDDEN;
    }
    if !state.ttls.is_empty() {
        flags |= TTLS;
    }
    let key_length = u32::try_from(key.len()).expect("keys are shorter than KEY_BYTES_MAX");
    if SHORT_KEY_MAX < key.len() {
        flags |= LONG_KEY;
    }
    to.push(flags);
    write_version(&mut to, version);
    to.extend_from_slice(&distance.to_le_bytes()[..distance_bytes]);
    let key_length_bytes = if flags & LONG_KEY == 0 { 1 } else { 3 };
    to.extend_from_slice(&key_length.to_le_bytes()[..key_length_bytes]);
    to.extend_from_slice(key);
    if let Some(hidden) = state.hidden {
        write_version(&mut to, hidden);
    }
    if !state.ttls.is_empty() {
        let count = u16::try_from(state.ttls.len())
            .expect("writes of one origin to a time to live have seen each other");
        to.extend_from_slice(&count.to_le_bytes());
        for ttl in &state.ttls {
            write_version(&mut to, ttl.version);
            to.extend_from_slice(&ttl.deadline.to_le_bytes());
        }
    }
    match value {
        None => {}
        Some(Stored::Here(value)) => to.extend_from_slice(value),
        Some(Stored::Away { length }) => {
            let length = u32::try_from(length).expect("values are shorter than VALUE_BYTES_MAX");
            to.extend_from_slice(&length.to_le_bytes());
        }
    }
    to.into_boxed_slice()
}

/// Checks bytes that another node, or the disk, gave as a record.
///
/// # Errors
/// [`DecodeError`] when they are none.
pub(super) fn check(record: &[u8]) -> Result<(), DecodeError> {
    let whole = |found: Option<&[u8]>| found.map(drop).ok_or(DecodeError::Short { wanted: 1 });
    let Some(flags) = record.first().copied() else { return Err(DecodeError::Short { wanted: 1 }) };
    let unknown = DecodeError::UnknownTag { what: "record of a key", found: flags };
    if AWAY <= flags >> DISTANCE_SHIFT {
        return Err(unknown);
    }
    let distance_bytes = distance_bytes_of(flags);
    let needless = record.get(DISTANCE_AT + distance_bytes - usize::from(0 < distance_bytes));
    if 0 < distance_bytes && needless == Some(&0) {
        return Err(unknown);
    }
    let lengths = DISTANCE_AT + distance_bytes;
    whole(record.get(..lengths + if flags & LONG_KEY == 0 { 1 } else { 3 }))?;
    let (key_start, key_length) = key_place(record);
    if KEY_BYTES_MAX < key_length || (flags & LONG_KEY != 0) != (SHORT_KEY_MAX < key_length) {
        return Err(unknown);
    }
    let mut at = key_start + key_length;
    whole(record.get(..at))?;
    if flags & HIDDEN != 0 {
        at += VERSION_BYTES;
        whole(record.get(..at))?;
    }
    if flags & TTLS != 0 {
        let count = record.get(at..at + 2).ok_or(DecodeError::Short { wanted: 1 })?;
        let count = usize::from(u16::from_le_bytes([count[0], count[1]]));
        at += 2 + count * TTL_BYTES;
        whole(record.get(..at))?;
    }
    if flags & TOMBSTONE != 0 && at != record.len() {
        return Err(unknown); // What was removed has no value.
    }
    Ok(())
}

/// From the version's timestamp to visible-at; wraps round where a clock was set back.
fn distance<V>(state: &KeyState<V>) -> u64 {
    let timestamp = state.version.map_or(0, |version| version.timestamp.0);
    state.visible_at.0.wrapping_sub(timestamp)
}

/// What the upper half of the flags says.
fn distance_kind(distance: u64, value: Option<Stored<'_>>) -> u8 {
    let bits = u64::BITS - distance.leading_zeros();
    let bytes = u8::try_from(bits.div_ceil(8)).expect("at most eight");
    if value.is_none_or(|value| !value.is_away()) {
        return bytes;
    }
    match bytes {
        0 => AWAY,
        1 | 2 => AWAY + 1,
        3..=6 => AWAY + bytes - 1,
        _ => AWAY + 6,
    }
}

fn read_version(from: &[u8]) -> Version {
    Version {
        origin: DatacenterId(u16::from_le_bytes([from[0], from[1]])),
        timestamp: Timestamp(read_u64(&from[2..])),
    }
}

fn write_version(to: &mut Vec<u8>, version: Version) {
    to.extend_from_slice(&version.origin.0.to_le_bytes());
    to.extend_from_slice(&version.timestamp.0.to_le_bytes());
}

fn read_u64(from: &[u8]) -> u64 {
    u64::from_le_bytes(*from.first_chunk().expect("records are whole"))
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, option, prelude::*};

    use super::{super::testing::version, *};

    fn any_version() -> impl Strategy<Value = Version> {
        (any::<u64>(), any::<u16>()).prop_map(|(timestamp, origin)| version(timestamp, origin))
    }

    fn any_ttls() -> impl Strategy<Value = Vec<TtlWrite>> {
        let ttl = (any_version(), any::<u64>());
        vec(ttl.prop_map(|(version, deadline)| TtlWrite { version, deadline }), 0..4)
    }

    fn packed(key: &[u8], state: &KeyState<()>, value: Option<&[u8]>) -> Box<[u8]> {
        let value = value.map(Stored::Here);
        let length = length(key, state, value);
        let record = write(Vec::with_capacity(length), key, state, value);
        assert_eq!(record.len(), length);
        record
    }

    proptest! {
        #[test]
        fn what_was_packed_is_read_again(
            key in prop_oneof![vec(any::<u8>(), 0..20), vec(any::<u8>(), 250..600)],
            value in option::of(vec(any::<u8>(), 0..50)),
            of in any_version(),
            visible_at in prop_oneof![any::<u64>(), 0_u64..300],
            hidden in option::of(any_version()),
            ttls in any_ttls(),
        ) {
            let state = KeyState {
                version: Some(of),
                value: None::<()>,
                hidden,
                ttls: ttls.iter().copied().collect(),
                visible_at: Timestamp(of.timestamp.0.wrapping_add(visible_at)),
            };
            let record = packed(&key, &state, value.as_deref());
            let look = read(&record);
            prop_assert_eq!(check(&record), Ok(()));
            prop_assert_eq!(super::key(&record), &key[..]);
            prop_assert_eq!(look.version, Some(of));
            prop_assert_eq!(look.held, value.as_deref().map(Stored::Here));
            prop_assert_eq!(look.hidden, hidden);
            prop_assert_eq!(look.visible_at, state.visible_at);
            prop_assert_eq!(&look.ttls.iter().collect::<Vec<_>>(), &ttls);
            prop_assert!(!is_away(&record));

            let away = without_value(&record, 1);
            let has_value = value.as_ref().is_some_and(|value| !value.is_empty());
            prop_assert_eq!(away.is_some(), has_value);
            if let Some((away, value)) = away.zip(value) {
                let look = read(&away);
                prop_assert!(is_away(&away));
                prop_assert!(check(&away).is_err(), "it is in memory only");
                prop_assert_eq!(without_value(&away, 0), None);
                prop_assert_eq!(super::key(&away), &key[..]);
                prop_assert_eq!(look.held, Some(Stored::Away { length: value.len() }));
                prop_assert_eq!(look.version, Some(of));
                prop_assert_eq!(look.hidden, hidden);
                prop_assert_eq!(look.visible_at, state.visible_at);
                prop_assert_eq!(&look.ttls.iter().collect::<Vec<_>>(), &ttls);
                prop_assert_eq!(with_value_of(&away, &record), Some(record));
            }
        }
    }

    #[test]
    fn only_the_same_value_fits_a_record_that_is_away() {
        let state = |timestamp| KeyState::<()> {
            version: Some(version(timestamp, 1)),
            ..KeyState::default()
        };
        let record = packed(b"key", &state(5), Some(b"value"));
        let away = without_value(&record, 5).unwrap();
        assert_eq!(without_value(&record, 6), None, "it is too short");
        assert_eq!(with_value_of(&away, &record), Some(record));
        for other in [
            packed(b"key", &state(6), Some(b"value")),
            packed(b"key", &state(5), Some(b"values")),
            packed(b"kez", &state(5), Some(b"value")),
            packed(b"key", &state(5), None),
        ] {
            assert_eq!(with_value_of(&away, &other), None);
        }
    }

    proptest! {
        #[test]
        fn bytes_that_are_accepted_can_be_read(
            bytes in vec(any::<u8>(), 0..80),
            flags in prop_oneof![0_u8..32, any::<u8>()],
        ) {
            let mut bytes = bytes;
            if let Some(first) = bytes.first_mut() {
                *first = flags;
            }
            if check(&bytes).is_ok() {
                let look = read(&bytes);
                prop_assert!(key(&bytes).len() <= KEY_BYTES_MAX);
                look.ttls.iter().for_each(drop);
            }
        }
    }

    #[test]
    fn a_small_key_fits_the_allocators_class_of_160_bytes() {
        let local = KeyState::<()> {
            version: Some(version(1 << 60, 1)),
            visible_at: Timestamp(1 << 60),
            ..KeyState::default()
        };
        assert_eq!(packed(&[0; 16], &local, Some(&[0; 128])).len(), 156);
        let within_four_seconds = Timestamp((1 << 60) + (4000 << 16));
        let remote = KeyState { visible_at: within_four_seconds, ..local };
        assert_eq!(packed(&[0; 16], &remote, Some(&[0; 128])).len(), 160);
    }

    #[test]
    fn the_longest_key_is_kept_whole() {
        let key = vec![7; KEY_BYTES_MAX];
        let state = KeyState::<()> { version: Some(version(5, 1)), ..KeyState::default() };
        let record = packed(&key, &state, Some(b"value"));
        assert_eq!(super::key(&record), key);
        assert_eq!(read(&record).held, Some(Stored::Here(b"value")));
    }
}
