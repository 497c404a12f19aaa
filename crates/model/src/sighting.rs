//! What `WATCH` finds under a key, for `EXEC` to tell whether the key has changed since.
//!
//! A key that is absent leaves nothing to compare: its tombstone may be collected, and then it
//! looks as if it never had a version. So the sighting names the moment instead.
//!
//! Assumes: visible-at grows along the log of a shard, at every replica of the chain alike.
#![deny(clippy::indexing_slicing)]

use crate::{
    clock::Timestamp,
    codec::{DecodeError, Reader, Writer},
    version::Version,
};

/// A key as `WATCH` found it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sighting {
    /// It had a value: the state's visible-at, and the value's origin.
    Present(Version),
    /// It had no value: never one, or deleted, or expired and hidden.
    Absent {
        /// The visible-at of the newest entry of the shard in the state that was looked at: what
        /// became visible later was not there.
        at: Timestamp,
    },
}

impl Sighting {
    /// The sighting in a state that is known to hold what became visible at `shown`, too.
    #[must_use]
    pub fn not_before(self, shown: Timestamp) -> Self {
        match self {
            Self::Present(version) => Self::Present(version),
            Self::Absent { at } => Self::Absent { at: at.max(shown) },
        }
    }

    /// Writes the sighting.
    pub fn write(self, to: &mut Writer<'_>) {
        match self {
            Self::Absent { at } => {
                to.u8(0);
                to.timestamp(at);
            }
            Self::Present(version) => {
                to.u8(1);
                to.version(version);
            }
        }
    }

    /// Reads a sighting.
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes are none.
    pub fn read(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match from.u8()? {
            0 => Ok(Self::Absent { at: from.timestamp()? }),
            1 => Ok(Self::Present(from.version()?)),
            found => Err(DecodeError::UnknownTag { what: "sighting of a key", found }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::DatacenterId;

    #[test]
    fn sightings_come_back() {
        let version = Version { timestamp: Timestamp(7 << 40), origin: DatacenterId(3) };
        for sighting in [Sighting::Present(version), Sighting::Absent { at: Timestamp(9 << 30) }] {
            let mut bytes = Vec::new();
            sighting.write(&mut Writer::new(&mut bytes));
            let mut reader = Reader::new(&bytes);
            assert_eq!(Sighting::read(&mut reader), Ok(sighting));
            assert_eq!(reader.finish(), Ok(()));
        }
    }

    #[test]
    fn a_sighting_of_another_kind_is_refused() {
        let error = Sighting::read(&mut Reader::new(&[2, 0, 0])).unwrap_err();
        assert_eq!(error, DecodeError::UnknownTag { what: "sighting of a key", found: 2 });
    }

    #[test]
    fn an_absent_key_is_seen_as_late_as_the_answer_says_and_a_present_one_as_it_was() {
        let absent = |at| Sighting::Absent { at: Timestamp(at) };
        assert_eq!(absent(5).not_before(Timestamp(7)), absent(7));
        assert_eq!(absent(5).not_before(Timestamp(3)), absent(5));
        let present = Sighting::Present(Version::default());
        assert_eq!(present.not_before(Timestamp(7)), present);
    }
}
