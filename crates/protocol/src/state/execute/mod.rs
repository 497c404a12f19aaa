//! Decides what a client's actions answer, and which effects they leave, as Redis 7 does.
//!
//! Actions are tried on a draft: the key as it was found, changed by one action after another. In
//! the end the draft tells the one effect that leads from what was found to what is there now, so
//! a single action and a batch follow the same rules.
//!
//! A key whose deadline has passed is absent for every action. Nobody may be told so before it is
//! hidden at all replicas; where no other effect takes its place, the effect is therefore a hiding
//! (`Executed::needs_hide`). A replica other than the head passes such a request to the head.
//! This holds for `WATCH`, too: what it finds absent is hidden, so a hiding after it is a change.
//!
//! What an action needs of a value that is on disk only is told by `needs_bytes`; an operation that
//! lacks such a value is not executed at all (`Lacking`): whoever asked has it loaded, and asks again.
//!
//! Not as in Redis: `OBJECT ENCODING` goes by the value alone, so what `APPEND` and `SETRANGE` have
//! made is not `raw` unless it is long. `SET` with a deadline that has passed leaves the value to
//! expire, which clients cannot tell from its absence.

#[cfg(test)]
mod tests;

use std::{borrow::Cow, collections::BTreeMap};

use antecede_model::{
    clock::Timestamp,
    ids::Position,
    operation::{
        Action, Condition, Deadline, Description, ExpireCondition, ExpiryForm, Operation, SetReply,
        ShardOperation, Ttl, VALUE_BYTES_MAX,
    },
    refusal::Refusal,
    response::{Response, Word},
    sighting::Sighting,
    version::Version,
};
use smallvec::{SmallVec, smallvec};

use super::{
    keys::{Keys, memory_of},
    look::{Look, Stored},
};
use crate::entry::{Change, Effect, Seen};

/// The longest value that Redis keeps in one piece with its header.
const EMBSTR_BYTES_MAX: usize = 44;
/// The most digits, with a sign, of a number that Redis keeps as one.
const INT_BYTES_MAX: usize = 20;

/// Values that an operation needs are on disk only; nothing was done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lacking {
    /// The hashes of their keys.
    pub hashes: SmallVec<[u64; 1]>,
}

/// Versions that a session has seen by an answer.
pub type Observed = SmallVec<[Version; 1]>;

/// An effect that is not encoded yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEffect<'a> {
    /// The key.
    pub key: &'a [u8],
    /// What was found there.
    pub seen: Seen,
    /// What to do.
    pub change: NewChange<'a>,
}

/// What an effect does; see [`Change`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NewChange<'a> {
    /// A new value.
    Set {
        /// The value, borrowed from the action if it is the action's.
        value: Cow<'a, [u8]>,
        /// When it expires.
        deadline: Option<Deadline>,
    },
    /// A tombstone.
    Delete,
    /// A new time to live.
    Ttl {
        /// When the value expires; `None` never.
        deadline: Option<Deadline>,
    },
    /// A weak delete.
    Hide,
}

impl NewEffect<'_> {
    /// The effect as it is encoded.
    #[must_use]
    pub fn as_effect(&self) -> Effect<'_> {
        let change = match &self.change {
            NewChange::Set { value, deadline } => Change::Set { value, deadline: *deadline },
            NewChange::Delete => Change::Delete,
            NewChange::Ttl { deadline } => Change::Ttl { deadline: *deadline },
            NewChange::Hide => Change::Hide,
        };
        Effect { key: self.key, seen: self.seen.clone(), change }
    }
}

/// What actions come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Executed<'a> {
    /// What the client is told once the effects are committed.
    pub response: Response,
    /// What has to be logged before, in one entry: at most one effect for a key, in the order of
    /// keys.
    pub effects: SmallVec<[NewEffect<'a>; 1]>,
    /// What was found, for the session's context.
    pub observed: Observed,
    /// The largest of what was found.
    pub visible_at: Timestamp,
}

impl Executed<'_> {
    /// Whether a key had expired and is not hidden yet: only the head may tell that it is absent,
    /// once the hiding, which is among the effects, is committed.
    #[must_use]
    pub fn needs_hide(&self) -> bool {
        self.effects.iter().any(|effect| effect.change == NewChange::Hide)
    }
}

/// What a read comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// What the client is told.
    pub response: Response,
    /// What was found, for the session's context.
    pub observed: Observed,
    /// The largest of what was found.
    pub visible_at: Timestamp,
    /// Whether a key had expired and is not hidden yet: the response may not be told before the
    /// head has hidden it.
    pub needs_hide: bool,
}

/// Executes an action against the newest state of its key.
///
/// # Errors
/// [`Lacking`] when it needs a value that is on disk only.
pub fn execute<'a>(
    keys: &Keys,
    operation: &Operation<'a>,
    wall_millis: u64,
) -> Result<Executed<'a>, Lacking> {
    execute_one(keys, keys.newest(operation.key), operation, wall_millis)
}

/// Executes several actions against the newest states of their keys, each on what those before it
/// have left; `Aborted` and no effect if a watched key has changed.
///
/// # Errors
/// [`Lacking`] when one of them may need a value that is on disk only.
pub fn execute_batch<'a>(
    keys: &Keys,
    watched: &[(&'a [u8], Sighting)],
    operations: &[Operation<'a>],
    wall_millis: u64,
) -> Result<Executed<'a>, Lacking> {
    execute_all((keys, |key| keys.newest(key)), watched, operations, wall_millis)
}

/// Answers an operation that only reads with the states up to a position (see [`Keys::at`]);
/// scans, counts and random keys with what is committed.
///
/// # Errors
/// [`Lacking`] when it needs a value that is on disk only.
///
/// # Panics
/// If the operation is `WAIT`, which is not about keys.
pub fn read(
    keys: &Keys,
    operation: &ShardOperation<'_>,
    to: Position,
    wall_millis: u64,
) -> Result<Shown, Lacking> {
    let response = match operation {
        ShardOperation::One(one) => {
            return read_one(keys, keys.at(one.key, to), one, wall_millis);
        }
        ShardOperation::Batch { watched, operations } => {
            let look = |key: &[u8]| keys.at(key, to);
            return execute_all((keys, look), watched, operations, wall_millis).map(Shown::of);
        }
        ShardOperation::Scan(scan) => {
            let (next, keys) = keys.scan(scan.from, scan.count, scan.pattern, wall_millis);
            Response::Scanned { next, keys: keys.into_iter().map(<[u8]>::to_vec).collect() }
        }
        ShardOperation::Count => {
            // Keys whose time is over are not there any more, hidden already or not.
            let over = keys.expired(wall_millis, usize::MAX).len();
            Response::Integer(length_of(keys.live_count().saturating_sub(over)))
        }
        ShardOperation::Random { draw } => bytes_or_nil(keys.random(*draw, wall_millis)),
        ShardOperation::Replicated { .. } => unreachable!("the chain counts datacenters"),
    };
    let observed = Observed::new();
    Ok(Shown { response, observed, visible_at: Timestamp::ZERO, needs_hide: false })
}

/// Whether an action needs the bytes of the value that it finds, not only to know that there is one.
const fn needs_bytes(action: &Action<'_>) -> bool {
    match action {
        Action::Get
        | Action::Range { .. }
        | Action::Describe(_)
        | Action::GetAndExpire { .. }
        | Action::GetAndDelete
        | Action::Append { .. }
        | Action::SetRange { .. } => true,
        Action::Set { reply, .. } => matches!(reply, SetReply::Previous),
        Action::Length
        | Action::Exists
        | Action::Type
        | Action::Expiry(_)
        | Action::Observe
        | Action::Delete
        | Action::Expire { .. }
        | Action::Persist => false,
    }
}

/// Whether an operation needs a value that is on disk only.
fn lacks(look: &Look<'_>, operation: &Operation<'_>, wall_millis: u64) -> bool {
    look.value().is_some_and(Stored::is_away)
        && !look.is_expired(wall_millis)
        && needs_bytes(&operation.action)
}

impl Shown {
    fn of(executed: Executed<'_>) -> Self {
        let needs_hide = executed.needs_hide();
        let Executed { response, effects: _, observed, visible_at } = executed;
        Self { response, observed, visible_at, needs_hide }
    }
}

/// The weak delete of a key that has expired; `None` if it has not.
#[must_use]
pub fn hide_effect<'a>(key: &'a [u8], look: &Look<'_>, wall_millis: u64) -> Option<NewEffect<'a>> {
    let is_expired = look.is_expired(wall_millis);
    is_expired.then(|| NewEffect { key, seen: look.seen(), change: NewChange::Hide })
}

fn execute_one<'a>(
    keys: &Keys,
    look: Look<'_>,
    operation: &Operation<'a>,
    wall_millis: u64,
) -> Result<Executed<'a>, Lacking> {
    if lacks(&look, operation, wall_millis) {
        return Err(Lacking { hashes: smallvec![keys.hash(operation.key)] });
    }
    let mut draft = Draft::of(keys, look, wall_millis);
    let response = draft.run(operation.key, &operation.action);
    Ok(Executed {
        response,
        effects: draft.into_effect(operation.key).into_iter().collect(),
        observed: look.observed(),
        visible_at: look.visible_at(),
    })
}

/// [`execute_one`] for an action that changes nothing: it leaves nothing behind but the hiding of a key
/// that has expired.
fn read_one(
    keys: &Keys,
    look: Look<'_>,
    operation: &Operation<'_>,
    wall_millis: u64,
) -> Result<Shown, Lacking> {
    if lacks(&look, operation, wall_millis) {
        return Err(Lacking { hashes: smallvec![keys.hash(operation.key)] });
    }
    Ok(Shown {
        response: Draft::of(keys, look, wall_millis).run(operation.key, &operation.action),
        observed: look.observed(),
        visible_at: look.visible_at(),
        needs_hide: look.is_visible() && look.is_expired(wall_millis),
    })
}

fn execute_all<'a, 'k>(
    (keys, look): (&'k Keys, impl Fn(&[u8]) -> Look<'k>),
    watched: &[(&'a [u8], Sighting)],
    operations: &[Operation<'a>],
    wall_millis: u64,
) -> Result<Executed<'a>, Lacking> {
    if 0 < keys.away_count() {
        let lacking = operations.iter().filter(|one| lacks(&look(one.key), one, wall_millis));
        let hashes: SmallVec<[u64; 1]> = lacking.map(|one| keys.hash(one.key)).collect();
        if !hashes.is_empty() {
            return Err(Lacking { hashes });
        }
    }
    let mut observed = Observed::new();
    let mut visible_at = Timestamp::ZERO;
    let mut observe = |look: &Look<'_>| {
        observed.extend(look.observed());
        visible_at = visible_at.max(look.visible_at());
    };
    let mut is_aborted = false;
    for (key, sighting) in watched {
        let look = look(key);
        observe(&look);
        is_aborted |= keys.has_changed(key, &look, *sighting, wall_millis);
    }
    let mut drafts = BTreeMap::new();
    let response = if is_aborted {
        Response::Aborted
    } else {
        let responses = operations.iter().map(|operation| {
            let draft = drafts.entry(operation.key).or_insert_with(|| {
                let look = look(operation.key);
                observe(&look);
                Draft::of(keys, look, wall_millis)
            });
            draft.run(operation.key, &operation.action)
        });
        Response::List(responses.collect())
    };
    observed.sort_unstable();
    observed.dedup();
    let effects = drafts.into_iter().filter_map(|(key, draft)| draft.into_effect(key));
    Ok(Executed { response, effects: effects.collect(), observed, visible_at })
}

/// A key as it was found, changed by actions.
#[derive(Debug)]
struct Draft<'k, 'a> {
    keys: &'k Keys,
    look: Look<'k>,
    wall_millis: u64,
    value: Value<'k, 'a>,
    deadline: Option<Deadline>,
    is_deadline_new: bool,
}

/// The value of a draft.
#[derive(Debug)]
enum Value<'k, 'a> {
    /// None.
    Absent,
    /// The one that was found.
    Found(Stored<'k>),
    /// One that an action has written.
    Written(Cow<'a, [u8]>),
}

impl Value<'_, '_> {
    fn stored(&self) -> Option<Stored<'_>> {
        match self {
            Self::Absent => None,
            Self::Found(stored) => Some(*stored),
            Self::Written(bytes) => Some(Stored::Here(bytes)),
        }
    }

    /// The value, for an action that needs its bytes.
    fn bytes(&self) -> Option<&[u8]> {
        self.stored().map(|stored| stored.bytes().expect("who lacks a value is not executed"))
    }
}

impl<'k, 'a> Draft<'k, 'a> {
    fn of(keys: &'k Keys, look: Look<'k>, wall_millis: u64) -> Self {
        let found = look.value().filter(|_| !look.is_expired(wall_millis));
        Self {
            keys,
            look,
            wall_millis,
            value: found.map_or(Value::Absent, Value::Found),
            deadline: found.and_then(|_| look.deadline()),
            is_deadline_new: false,
        }
    }

    fn into_effect(self, key: &'a [u8]) -> Option<NewEffect<'a>> {
        let look = self.look;
        self.into_change().map(|change| NewEffect { key, seen: look.seen(), change })
    }

    /// What leads from what was found to what is there now.
    fn into_change(self) -> Option<NewChange<'a>> {
        match self.value {
            Value::Written(value) => Some(NewChange::Set { value, deadline: self.deadline }),
            Value::Found(_) => {
                self.is_deadline_new.then_some(NewChange::Ttl { deadline: self.deadline })
            }
            Value::Absent if !self.look.is_visible() => None,
            Value::Absent if self.look.is_expired(self.wall_millis) => Some(NewChange::Hide),
            Value::Absent => Some(NewChange::Delete),
        }
    }

    fn run(&mut self, key: &[u8], action: &Action<'a>) -> Response {
        if self.deadline.is_some_and(|deadline| deadline < self.wall_millis) {
            // An earlier action of this batch has set a deadline that was over already.
            self.value = Value::Absent;
            self.deadline = None;
        }
        match *action {
            Action::Get => bytes_or_nil(self.value.bytes()),
            Action::Length => Response::Integer(length_of(self.value_length())),
            Action::Range { start, end } => {
                Response::Bytes(range(self.value.bytes().unwrap_or_default(), start, end).to_vec())
            }
            Action::Exists => Response::Integer(i64::from(self.is_there())),
            Action::Type => Response::Word(if self.is_there() { Word::String } else { Word::None }),
            Action::Expiry(form) => Response::Integer(self.expiry(form)),
            Action::Describe(description) => describe(key, self.value.bytes(), description),
            Action::Observe => Response::Observed(self.keys.sighting(&self.look, self.wall_millis)),
            Action::Set { value, condition, ttl, reply } => self.set(value, condition, ttl, reply),
            Action::Delete => Response::Integer(i64::from(self.delete())),
            Action::Expire { deadline, condition } => {
                Response::Integer(i64::from(self.expire(deadline, condition)))
            }
            Action::Persist => Response::Integer(i64::from(self.persist())),
            Action::GetAndExpire { ttl } => self.get_and_expire(ttl),
            Action::GetAndDelete => {
                let response = bytes_or_nil(self.value.bytes());
                self.delete();
                response
            }
            Action::Append { value } => self.append(value),
            Action::SetRange { offset, value } => self.set_range(offset, value),
        }
    }

    fn is_there(&self) -> bool {
        self.value.stored().is_some()
    }

    fn expiry(&self, form: ExpiryForm) -> i64 {
        if !self.is_there() {
            return -2;
        }
        let Some(deadline) = self.deadline else { return -1 };
        let left = deadline.saturating_sub(self.wall_millis);
        let told = match form {
            ExpiryForm::Seconds => left.saturating_add(500) / 1000,
            ExpiryForm::Millis => left,
            ExpiryForm::AtSeconds => deadline.saturating_add(500) / 1000,
            ExpiryForm::AtMillis => deadline,
        };
        i64::try_from(told).unwrap_or(i64::MAX)
    }

    fn set(
        &mut self,
        value: &'a [u8],
        condition: Condition,
        ttl: Ttl,
        reply: SetReply,
    ) -> Response {
        let is_written = match condition {
            Condition::Always => true,
            Condition::IfAbsent => !self.is_there(),
            Condition::IfPresent => self.is_there(),
        };
        let response = match reply {
            SetReply::Status if is_written => Response::Ok,
            SetReply::Status => Response::Nil,
            SetReply::Previous => bytes_or_nil(self.value.bytes()),
            SetReply::Flag => Response::Integer(i64::from(is_written)),
        };
        if is_written {
            self.deadline = match ttl {
                Ttl::Clear => None,
                Ttl::Keep => self.deadline,
                Ttl::Until(deadline) => Some(deadline),
            };
            self.value = Value::Written(Cow::Borrowed(value));
        }
        response
    }

    fn delete(&mut self) -> bool {
        let was_there = self.is_there();
        self.value = Value::Absent;
        self.deadline = None;
        was_there
    }

    fn expire(&mut self, deadline: Deadline, condition: ExpireCondition) -> bool {
        let found = self.deadline;
        let is_later = found.is_some_and(|found| found < deadline);
        let is_earlier = found.is_none_or(|found| deadline < found);
        let is_set = match condition {
            ExpireCondition::Always => true,
            ExpireCondition::IfNone => found.is_none(),
            ExpireCondition::IfSome => found.is_some(),
            ExpireCondition::IfLater | ExpireCondition::IfSomeAndLater => is_later,
            ExpireCondition::IfEarlier => is_earlier,
            ExpireCondition::IfSomeAndEarlier => found.is_some() && is_earlier,
        };
        if !is_set || !self.is_there() {
            return false;
        }
        self.set_deadline(deadline);
        true
    }

    /// Sets the deadline of a value that is there; one that has passed removes it.
    fn set_deadline(&mut self, deadline: Deadline) {
        if deadline <= self.wall_millis {
            self.delete();
        } else {
            self.deadline = Some(deadline);
            self.is_deadline_new = true;
        }
    }

    fn persist(&mut self) -> bool {
        let had_deadline = self.deadline.take().is_some();
        self.is_deadline_new |= had_deadline;
        had_deadline
    }

    fn get_and_expire(&mut self, ttl: Ttl) -> Response {
        let response = bytes_or_nil(self.value.bytes());
        if self.is_there() {
            match ttl {
                Ttl::Keep => {}
                Ttl::Clear => {
                    self.persist();
                }
                Ttl::Until(deadline) => self.set_deadline(deadline),
            }
        }
        response
    }

    fn append(&mut self, value: &'a [u8]) -> Response {
        if !self.is_there() {
            self.value = Value::Written(Cow::Borrowed(value));
            return Response::Integer(length(value));
        }
        let Some(total) = allowed_length(self.value_length(), value.len()) else {
            return Response::Refused(Refusal::TooLarge);
        };
        self.edit(total).extend_from_slice(value);
        Response::Integer(length_of(total))
    }

    fn set_range(&mut self, offset: u64, value: &[u8]) -> Response {
        let found = self.value_length();
        if value.is_empty() {
            return Response::Integer(length_of(found));
        }
        let place = usize::try_from(offset)
            .ok()
            .and_then(|start| Some(start..allowed_length(start, value.len())?));
        let Some(place) = place else { return Response::Refused(Refusal::TooLarge) };
        let total = found.max(place.end);
        let bytes = self.edit(total);
        bytes.resize(total, 0);
        bytes[place].copy_from_slice(value);
        Response::Integer(length_of(total))
    }

    fn value_length(&self) -> usize {
        self.value.stored().map_or(0, Stored::length)
    }

    /// The value, empty if there is none, as one that was written and may grow to `total` bytes.
    fn edit(&mut self, total: usize) -> &mut Vec<u8> {
        if !matches!(self.value, Value::Written(Cow::Owned(_))) {
            let mut bytes = Vec::with_capacity(total);
            bytes.extend_from_slice(self.value.bytes().unwrap_or_default());
            self.value = Value::Written(Cow::Owned(bytes));
        }
        match &mut self.value {
            Value::Written(bytes) => bytes.to_mut(),
            Value::Absent | Value::Found(_) => unreachable!("the value was made a written one"),
        }
    }
}

fn bytes_or_nil(value: Option<&[u8]>) -> Response {
    value.map_or(Response::Nil, |value| Response::Bytes(value.to_vec()))
}

fn length(value: &[u8]) -> i64 {
    length_of(value.len())
}

fn length_of(bytes: usize) -> i64 {
    i64::try_from(bytes).expect("memory is smaller than 2^63 bytes")
}

/// The sum of both, if a string may be as long.
fn allowed_length(first: usize, second: usize) -> Option<usize> {
    first.checked_add(second).filter(|total| *total <= VALUE_BYTES_MAX)
}

/// The bytes from `start` to `end`, both counted from the end if they are negative.
fn range(value: &[u8], start: i64, end: i64) -> &[u8] {
    if start < 0 && end < 0 && end < start {
        return &[];
    }
    let length = length(value);
    let from_front = |index: i64| if index < 0 { (length + index).max(0) } else { index };
    let first = from_front(start);
    let last = from_front(end).min(length - 1);
    if last < first {
        return &[];
    }
    let place = usize::try_from(first).ok().zip(usize::try_from(last).ok());
    place.and_then(|(first, last)| value.get(first..=last)).unwrap_or_default()
}

fn describe(key: &[u8], value: Option<&[u8]>, description: Description) -> Response {
    let Some(value) = value else { return Response::Nil };
    match description {
        Description::Encoding => Response::Word(if is_int(value) {
            Word::Int
        } else if value.len() <= EMBSTR_BYTES_MAX {
            Word::Embstr
        } else {
            Word::Raw
        }),
        Description::Memory => Response::Integer(length_of(memory_of(key, value))),
        Description::References => Response::Integer(1),
    }
}

/// Whether the value is a number of 64 bits with a sign, written as Redis would write it.
fn is_int(value: &[u8]) -> bool {
    if INT_BYTES_MAX < value.len() {
        return false;
    }
    let digits = value.strip_prefix(b"-").unwrap_or(value);
    let is_canonical = match digits {
        [] => false,
        [b'0'] => digits.len() == value.len(),
        [first, ..] => *first != b'0' && digits.iter().all(u8::is_ascii_digit),
    };
    is_canonical && str::from_utf8(value).is_ok_and(|text| text.parse::<i64>().is_ok())
}
