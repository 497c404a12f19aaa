//! Holds one entry of a shard's log: a write with its dependencies and effects, or a tick.
//!
//! The bytes of a write's body (dependencies, then effects) are made once, at its origin, and are
//! the same in the log, in messages down the chain and between datacenters. Stamps inside are
//! written as the distance below the entry's own stamp, which is larger by rule.
//!
//! Where the request that made an entry had an id, the id and its answer stand beside the body, in
//! the log and in messages of the origin's chain: no other datacenter ever answers that id. The
//! origin is then written `WITH_KEPT` larger, so that entries without an id are as they always were.
//!
//! Ensures: a body that was checked by `Body::check` is read later without errors.
#![deny(clippy::indexing_slicing)]

use std::sync::Arc;

use antecede_model::{
    clock::Timestamp,
    codec::{DecodeError, Reader, Writer},
    context::Dependencies,
    dependency::Dependency,
    ids::{Boot, DatacenterId, Epoch, Lineage, Position, ShardId},
    operation::Deadline,
    version::Version,
};
use smallvec::SmallVec;

use crate::retries::Kept;

/// What is added to the origin of an entry that has an id and an answer behind its body.
const WITH_KEPT: u64 = 1 << 16;

/// Names one entry of one chain: no two different entries ever share it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The epoch in which the head took it.
    pub epoch: Epoch,
    /// The run of the head that took it.
    pub boot: Boot,
    /// Its place in the shard's log.
    pub position: Position,
    /// CRC32C over origin, stamp, body, and what is kept of a request with an id.
    pub checksum: u32,
}

impl Identity {
    /// Writes the name.
    pub fn write(self, to: &mut Writer<'_>) {
        to.number(self.epoch.0);
        to.number(self.boot.0);
        to.number(self.position.0);
        to.fixed32(self.checksum);
    }

    /// Reads a name.
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes are none.
    pub fn read(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            epoch: Epoch(from.number()?),
            boot: Boot(from.number()?),
            position: Position(from.number()?),
            checksum: from.fixed32()?,
        })
    }
}

/// One entry of a shard's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name within the chain.
    pub identity: Identity,
    /// The datacenter where it began.
    pub origin: DatacenterId,
    /// The line of stamps that it belongs to.
    pub lineage: Lineage,
    /// The number that the origin's head gave it.
    pub stamp: Timestamp,
    /// The stamp before it in that line.
    pub previous: Timestamp,
    /// When it became readable in this datacenter; the stamp itself where it began.
    pub visible_at: Timestamp,
    /// What it says.
    pub body: Body,
    /// The id and the answer of the request that made it, if it had an id; only in its origin.
    pub kept: Option<Arc<Kept>>,
}

/// What an entry says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// The head gives no stamp up to this entry's any more.
    Tick,
    /// A write: encoded dependencies and effects.
    Write(Arc<[u8]>),
}

/// Versions that a write found and supersedes: the key's value or tombstone first, then the
/// writes to its time to live.
pub type Seen = SmallVec<[Version; 1]>;

/// What a write does to one key. At most one effect of an entry concerns a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effect<'a> {
    /// The key.
    pub key: &'a [u8],
    /// What the write found there; empty if the key never had a version.
    pub seen: Seen,
    /// What it does.
    pub change: Change<'a>,
}

/// What is done to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change<'a> {
    /// A new value; the last writer wins.
    Set {
        /// The value.
        value: &'a [u8],
        /// When it expires.
        deadline: Option<Deadline>,
    },
    /// A tombstone; the last writer wins.
    Delete,
    /// A new time to live of the value that was seen; supersedes the ones seen, and between
    /// concurrent ones the longest counts.
    Ttl {
        /// When the value expires; `None` never, the longest.
        deadline: Option<Deadline>,
    },
    /// A weak delete after expiry: hides the value that was seen as long as no time to live that
    /// was not seen keeps it.
    Hide,
}

impl Entry {
    /// The version that the entry's values have.
    #[must_use]
    pub const fn version(&self) -> Version {
        Version { timestamp: self.stamp, origin: self.origin }
    }

    /// The checksum that belongs into the identity.
    #[must_use]
    pub fn computed_checksum(&self) -> u32 {
        let mut head = [0_u8; 10];
        head.first_chunk_mut::<8>()
            .expect("ten bytes have eight")
            .copy_from_slice(&self.stamp.0.to_le_bytes());
        head.last_chunk_mut::<2>()
            .expect("ten bytes have two")
            .copy_from_slice(&self.origin.0.to_le_bytes());
        let start = crc32c::crc32c(&head);
        let sum = match &self.body {
            Body::Tick => start,
            Body::Write(bytes) => crc32c::crc32c_append(start, bytes),
        };
        let kept = self.kept.as_ref();
        kept.map_or(sum, |kept| crc32c::crc32c_append(sum, &kept.encoded()))
    }

    /// Writes the body anew without dependencies: a deliberate bug of the simulator's tests.
    pub(crate) fn forget_dependencies(&mut self) {
        if self.is_tick() {
            return;
        }
        let mut effects = Vec::new();
        self.for_each_effect(|effect| effects.push(effect));
        let mut bytes = Vec::new();
        Body::encode(&mut bytes, self.stamp, &Dependencies::default(), effects.into_iter());
        self.body = Body::Write(bytes.into());
    }

    /// Bytes of the body, and of what is kept beside it.
    #[must_use]
    #[inline]
    pub fn body_bytes(&self) -> usize {
        let kept = self.kept.as_ref().map_or(0, |kept| kept.encoded().len());
        kept + match &self.body {
            Body::Tick => 0,
            Body::Write(bytes) => bytes.len(),
        }
    }

    /// The entry as other datacenters get it.
    #[must_use]
    pub fn for_others(&self) -> Self {
        Self { kept: None, ..self.clone() }
    }

    /// Whether the entry is a tick.
    #[must_use]
    pub const fn is_tick(&self) -> bool {
        matches!(self.body, Body::Tick)
    }

    /// What it depends on, apart from what its effects have seen.
    #[must_use]
    pub fn dependencies(&self) -> Dependencies {
        match &self.body {
            Body::Tick => Dependencies::default(),
            Body::Write(bytes) => read_dependencies(&mut Reader::new(bytes), self.stamp)
                .expect("bodies are checked when they arrive"),
        }
    }

    /// The key of its first effect.
    #[must_use]
    pub fn first_key(&self) -> Option<&[u8]> {
        let Body::Write(bytes) = &self.body else { return None };
        let mut reader = Reader::new(bytes);
        skip_dependencies(&mut reader).expect("bodies are checked when they arrive");
        let count = reader.count("effects").expect("bodies are checked when they arrive");
        (0 < count).then(|| reader.bytes().expect("bodies are checked when they arrive"))
    }

    /// Calls `each` with every effect, in order.
    pub fn for_each_effect<'a>(&'a self, mut each: impl FnMut(Effect<'a>)) {
        let Body::Write(bytes) = &self.body else { return };
        let mut reader = Reader::new(bytes);
        skip_dependencies(&mut reader).expect("bodies are checked when they arrive");
        let count = reader.count("effects").expect("bodies are checked when they arrive");
        for _ in 0..count {
            each(
                read_effect(&mut reader, self.stamp).expect("bodies are checked when they arrive"),
            );
        }
    }

    /// Writes all of it.
    pub fn write(&self, to: &mut Writer<'_>) {
        self.identity.write(to);
        let added = if self.kept.is_some() { WITH_KEPT } else { 0 };
        to.number(u64::from(self.origin.0) + added);
        to.number(u64::from(self.lineage.0));
        to.timestamp(self.stamp);
        to.number(self.stamp.0.wrapping_sub(self.previous.0));
        match &self.body {
            Body::Tick => to.length(0),
            Body::Write(bytes) => to.bytes(bytes),
        }
        if let Some(kept) = &self.kept {
            kept.write(to);
        }
        to.timestamp(self.visible_at);
    }

    /// Reads and checks an entry.
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes are none, or their checksum does not fit.
    pub fn read(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let identity = Identity::read(from)?;
        let (origin, has_kept) = read_origin(from)?;
        let found = from.number()?;
        let lineage = u32::try_from(found).map_err(|_| DecodeError::OverLimit {
            what: "a lineage",
            found,
            limit: u64::from(u32::MAX),
        })?;
        let stamp = from.timestamp()?;
        let previous = below(stamp, from.number()?)?;
        let bytes = from.bytes()?;
        let body = if bytes.is_empty() {
            Body::Tick
        } else {
            Body::check(bytes, stamp)?;
            Body::Write(bytes.into())
        };
        let kept = if has_kept { Some(Arc::new(Kept::read(from)?)) } else { None };
        let visible_at = from.timestamp()?;
        let lineage = Lineage(lineage);
        let entry = Self { identity, origin, lineage, stamp, previous, visible_at, body, kept };
        let computed = entry.computed_checksum();
        if computed != identity.checksum {
            return Err(DecodeError::Checksum { found: identity.checksum, computed });
        }
        Ok(entry)
    }
}

impl Body {
    /// Encodes a write's body behind what `to` holds.
    pub fn encode<'a>(
        to: &mut Vec<u8>,
        stamp: Timestamp,
        dependencies: &Dependencies,
        effects: impl ExactSizeIterator<Item = Effect<'a>>,
    ) {
        let mut writer = Writer::new(to);
        writer.length(dependencies.exact.len());
        for dependency in &dependencies.exact {
            writer.datacenter(dependency.origin);
            writer.shard(dependency.shard);
            writer.number(stamp.0 - dependency.stamp.0);
        }
        writer.length(dependencies.floor.len());
        for (origin, floor) in &dependencies.floor {
            writer.datacenter(*origin);
            writer.number(stamp.0 - floor.0);
        }
        writer.length(effects.len());
        for effect in effects {
            write_effect(&mut writer, stamp, &effect);
        }
    }

    /// Reads the whole body once, so that later reads cannot fail.
    ///
    /// # Errors
    /// [`DecodeError`] when it is none.
    pub fn check(bytes: &[u8], stamp: Timestamp) -> Result<(), DecodeError> {
        let mut reader = Reader::new(bytes);
        read_dependencies(&mut reader, stamp)?;
        for _ in 0..reader.count("effects")? {
            read_effect(&mut reader, stamp)?;
        }
        reader.finish()
    }
}

fn below(stamp: Timestamp, distance: u64) -> Result<Timestamp, DecodeError> {
    stamp.0.checked_sub(distance).map(Timestamp).ok_or(DecodeError::OverLimit {
        what: "a distance below a stamp",
        found: distance,
        limit: stamp.0,
    })
}

/// The origin of an entry, and whether something is kept beside its body.
fn read_origin(from: &mut Reader<'_>) -> Result<(DatacenterId, bool), DecodeError> {
    let found = from.number()?;
    let has_kept = WITH_KEPT <= found;
    let origin = u16::try_from(if has_kept { found - WITH_KEPT } else { found });
    let limit = u64::from(u16::MAX) + WITH_KEPT;
    let what = "a datacenter";
    let origin = origin.map_err(|_| DecodeError::OverLimit { what, found, limit })?;
    Ok((DatacenterId(origin), has_kept))
}

fn read_dependencies(from: &mut Reader<'_>, stamp: Timestamp) -> Result<Dependencies, DecodeError> {
    Ok(Dependencies {
        exact: from.list("dependencies", |from| {
            let origin = from.datacenter()?;
            let shard: ShardId = from.shard()?;
            Ok(Dependency { origin, shard, stamp: below(stamp, from.number()?)? })
        })?,
        floor: from.list("floors", |from| {
            let origin = from.datacenter()?;
            Ok((origin, below(stamp, from.number()?)?))
        })?,
    })
}

fn skip_dependencies(from: &mut Reader<'_>) -> Result<(), DecodeError> {
    for _ in 0..from.count("dependencies")? {
        from.datacenter()?;
        from.shard()?;
        from.number()?;
    }
    for _ in 0..from.count("floors")? {
        from.datacenter()?;
        from.number()?;
    }
    Ok(())
}

fn write_effect(to: &mut Writer<'_>, stamp: Timestamp, effect: &Effect<'_>) {
    to.bytes(effect.key);
    to.length(effect.seen.len());
    for version in &effect.seen {
        to.datacenter(version.origin);
        to.number(stamp.0 - version.timestamp.0);
    }
    match effect.change {
        Change::Set { value, deadline: None } => {
            to.u8(0);
            to.bytes(value);
        }
        Change::Set { value, deadline: Some(deadline) } => {
            to.u8(1);
            to.number(deadline);
            to.bytes(value);
        }
        Change::Delete => to.u8(2),
        Change::Ttl { deadline: None } => to.u8(3),
        Change::Ttl { deadline: Some(deadline) } => {
            to.u8(4);
            to.number(deadline);
        }
        Change::Hide => to.u8(5),
    }
}

fn read_effect<'a>(from: &mut Reader<'a>, stamp: Timestamp) -> Result<Effect<'a>, DecodeError> {
    let key = from.bytes()?;
    let count = from.count("versions seen")?;
    let mut seen = Seen::new();
    for _ in 0..count {
        let origin = from.datacenter()?;
        seen.push(Version { timestamp: below(stamp, from.number()?)?, origin });
    }
    let change = match from.u8()? {
        0 => Change::Set { value: from.bytes()?, deadline: None },
        1 => {
            let deadline = Some(from.number()?);
            Change::Set { value: from.bytes()?, deadline }
        }
        2 => Change::Delete,
        3 => Change::Ttl { deadline: None },
        4 => Change::Ttl { deadline: Some(from.number()?) },
        5 => Change::Hide,
        found => return Err(DecodeError::UnknownTag { what: "change", found }),
    };
    Ok(Effect { key, seen, change })
}
