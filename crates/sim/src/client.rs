//! Keeps one client: what it has asked, what it was told, and what the history says of it.
//!
//! Times are those at which the client sent and heard. After an unknown outcome the client begins a
//! new session, as a process that lost its connection does; a session that moves with a token keeps
//! its number.
//!
//! Invariant: answers come in the order of what was asked.

use std::collections::{BTreeSet, VecDeque};

use antecede_check::{History, Kind, Level, Outcome, Record};
use antecede_model::{
    clock::Timestamp,
    context::Context,
    ids::{DatacenterId, MembershipEpoch, NodeId, SessionId},
    refusal::Refusal,
    response::Response,
    version::Version,
};

use crate::{
    chance::Chance,
    moment::Moment,
    workload::{Ask, Deed, KeyId, KeyTable, Step},
};

/// How often a client sends a command again.
const TRIES_MAX: u8 = 8;

/// A command that is not answered yet.
#[derive(Clone, Debug)]
pub struct Asked {
    /// What was asked.
    pub ask: Ask,
    /// When.
    pub call: Moment,
    /// The largest visible-at that the session had been shown.
    pub shown: Timestamp,
    /// How often it was asked before.
    pub tries: u8,
    /// What it was answered, if it is asked again for nothing but the same answer.
    pub first: Option<Response>,
}

/// What a client has read from its token.
#[derive(Clone, Debug)]
pub struct Brought {
    /// The past that it names.
    pub context: Context,
    /// Under which membership it was made: no node that knows only an earlier one takes it.
    pub membership: MembershipEpoch,
}

/// Where a client stands.
#[derive(Clone, Debug)]
pub enum Standing {
    /// It has no connection, and begins a new session with the next.
    Apart,
    /// It is connected.
    Connected(SessionId),
    /// It has no connection, and goes on with its session by this token.
    Moving(Box<Brought>),
}

/// One client.
#[derive(Debug)]
pub struct Client {
    /// Its number.
    pub number: u32,
    /// The datacenter where it begins sessions.
    pub home: DatacenterId,
    /// The node that it is, or was last, connected to.
    pub node: NodeId,
    /// What it draws from.
    pub chance: Chance,
    /// Whether it uses the level `eventual`.
    pub is_eventual: bool,
    /// Commands that it may still send.
    pub left: u32,
    /// Values that it has used.
    pub values: u32,
    /// Where it stands.
    pub standing: Standing,
    /// The number of its session in the history.
    pub session: u64,
    /// The last number given within that session.
    pub seq: u64,
    /// The last transaction number given.
    pub transaction: u32,
    /// What it waits for.
    pub waiting: VecDeque<Asked>,
    /// Counts its turns, so that an old time-out is known as such.
    pub turn: u64,
    /// The largest visible-at that its session was shown.
    pub shown: Timestamp,
    /// What it was acknowledged last: for `WAIT`.
    pub last_write: Option<usize>,
    /// What it asks again, under the same id, before anything else.
    pub again: Option<Asked>,
    /// The last commands with an id that were answered, each with its answer.
    pub answered: VecDeque<Asked>,
    /// What its request ids and repeats draw from.
    pub id_chance: Chance,
    /// The number of its last request id.
    pub last_id: u64,
}

/// What an answer says about the versions that it is made of, as far as the world could see.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// The version that was written.
    pub wrote: Option<Version>,
    /// The version of the tombstone that was found.
    pub tombstone: Option<Version>,
}

/// Finds the version that wrote a value.
pub type VersionOf<'a> = &'a dyn Fn(&[u8]) -> Option<Version>;

impl Client {
    fn level(&self) -> Level {
        if self.is_eventual { Level::Eventual } else { Level::Linearizable }
    }

    /// Begins a new session in the history.
    pub fn begin_session(&mut self, number: u64) {
        self.session = number;
        self.seq = 0;
        self.last_write = None;
        self.shown = Timestamp::ZERO;
    }

    /// What the history says about a command that was answered.
    pub fn records(
        &mut self,
        asked: &Asked,
        response: &Response,
        now: Moment,
        seen: Seen,
        (keys, version_of): (&KeyTable, VersionOf<'_>),
    ) -> Vec<Record> {
        let outcome = outcome_of(response);
        let mut records = Vec::new();
        match asked.ask.plain() {
            Ask::One(step) => {
                let record = self.step(asked, step, Some(response), keys, version_of);
                records.extend(record.map(|record| with_seen(record, seen)));
            }
            Ask::ReadSeveral(several) => {
                for (place, key) in several.iter().enumerate() {
                    let step = Step { key: *key, deed: Deed::Get };
                    let part = part_of(response, place);
                    records.extend(self.step(asked, &step, part, keys, version_of));
                }
            }
            Ask::WriteSeveral(several) => {
                for (key, value) in several {
                    let step = Step { key: *key, deed: Deed::Set(value.clone()) };
                    records.extend(self.step(asked, &step, Some(response), keys, version_of));
                }
            }
            Ask::Transaction(steps) => {
                for (place, step) in steps.iter().enumerate() {
                    let part = part_of(response, place);
                    records.extend(self.step(asked, step, part, keys, version_of));
                }
            }
            Ask::Wait { .. } | Ask::Token | Ask::After(_) | Ask::Eventual | Ask::Retried { .. } => {
            }
        }
        for record in &mut records {
            if let Some(id) = asked.ask.id() {
                record.dc = id.datacenter.0; // Wherever it was asked last, it took effect there.
            }
            record.outcome = outcome;
            record.ret_ns = (outcome != Outcome::Unknown).then_some(now.0);
        }
        self.number(&asked.ask, &mut records);
        records.retain(|record| record.op != Kind::Read || record.outcome == Outcome::Ok);
        records
    }

    /// Whether a command that was lost is asked again under its id: first of all in the session
    /// that begins next, so that the history need not know which of its sendings took effect.
    pub fn asks_again(&mut self, asked: &Asked) -> bool {
        if asked.first.is_some() {
            return true; // It was answered before; there is nothing to tell.
        }
        if asked.ask.id().is_none() || self.again.is_some() || TRIES_MAX <= asked.tries {
            return false;
        }
        let (tries, shown) = (asked.tries + 1, Timestamp::ZERO);
        self.again = Some(Asked { tries, shown, ..asked.clone() });
        true
    }

    /// What the history says about a command that will never be answered.
    pub fn unanswered(&mut self, asked: &Asked, keys: &KeyTable) -> Vec<Record> {
        if !asked.ask.is_write() {
            return Vec::new();
        }
        let refused = Response::Refused(Refusal::UnknownOutcome);
        let nothing = |_: &[u8]| None;
        self.records(asked, &refused, asked.call, Seen::default(), (keys, &nothing))
    }

    fn number(&mut self, ask: &Ask, records: &mut [Record]) {
        let is_atomic = match ask.plain() {
            Ask::ReadSeveral(_) | Ask::WriteSeveral(_) | Ask::Transaction(_) => true,
            Ask::One(_)
            | Ask::Wait { .. }
            | Ask::Token
            | Ask::After(_)
            | Ask::Eventual
            | Ask::Retried { .. } => false,
        };
        if is_atomic {
            self.transaction += 1;
        }
        for record in records {
            self.seq += 1;
            record.seq = self.seq;
            record.txn = is_atomic.then_some(self.transaction);
        }
    }

    /// One step as the history tells it; nothing of keys that expire.
    fn step(
        &self,
        asked: &Asked,
        step: &Step,
        response: Option<&Response>,
        keys: &KeyTable,
        version_of: VersionOf<'_>,
    ) -> Option<Record> {
        let facts = keys.of_id(step.key);
        if facts.is_mortal {
            return None;
        }
        let mut record = Record::new(self.session, 0, Kind::Read, &facts.name);
        record.dc = self.node.datacenter.0;
        record.call_ns = asked.call.0;
        record.level = self.level();
        record.node = Some(self.node.to_string());
        record.client = Some(format!("c{}", self.number));
        let answered = response.and_then(text_of);
        let version = |value: &str| version_of(value.as_bytes()).map(to_history);
        match &step.deed {
            Deed::Get => {
                record.version = answered.as_deref().and_then(version);
                record.value = answered;
            }
            Deed::Set(value) | Deed::SetMortal { value, deadline: _ } => {
                record.op = Kind::Write;
                record.version = version(value);
                record.value = Some(value.clone());
            }
            Deed::SetIfAbsent(value) => {
                record.op = Kind::WriteIfAbsent;
                record.result = if response == Some(&Response::Ok) {
                    Some(1)
                } else if response == Some(&Response::Nil) {
                    Some(0)
                } else {
                    None
                };
                record.version = version(value).filter(|_| record.result != Some(0));
                record.value = Some(value.clone());
            }
            Deed::Swap(value) => {
                record.op = Kind::Exchange;
                record.version = version(value);
                record.value = Some(value.clone());
                record.previous = answered;
            }
            Deed::Delete => {
                record.op = Kind::Delete;
                record.result = integer_of(response);
            }
            // Taking nothing changes nothing: it is a read.
            Deed::Take if matches!(response, Some(Response::Nil)) => {}
            Deed::Take => {
                record.op = Kind::Exchange;
                record.previous = answered;
            }
            Deed::Append(value) => {
                record.op = Kind::Append;
                record.value = Some(value.clone());
                record.result = integer_of(response);
            }
        }
        Some(record)
    }
}

fn with_seen(mut record: Record, seen: Seen) -> Record {
    match record.op {
        // With an id it is an entry all the same, but no write to its key.
        Kind::Delete | Kind::WriteIfAbsent if record.result == Some(0) => {}
        Kind::Read if record.value.is_none() => record.version = seen.tombstone.map(to_history),
        Kind::Delete | Kind::Append | Kind::Exchange | Kind::Write | Kind::WriteIfAbsent => {
            record.version = seen.wrote.map(to_history).or(record.version);
        }
        Kind::Read | Kind::Increment => {}
    }
    record
}

/// The history that records come to.
///
/// A tombstone's version tells which removal a read has seen; where the outcome of a removal is
/// unknown its version is, too, so that the versions of that key's tombstones tell nothing.
#[must_use]
pub fn history_of(records: &[Record]) -> History {
    let is_removal = |record: &&Record| {
        record.op == Kind::Delete || record.op == Kind::Exchange && record.value.is_none()
    };
    let unclear: BTreeSet<&str> = records
        .iter()
        .filter(is_removal)
        .filter(|record| record.outcome == Outcome::Unknown)
        .map(|record| record.key.as_str())
        .collect();
    let mut history = History::new();
    for record in records {
        let is_absent = record.op == Kind::Read && record.value.is_none();
        if is_absent && record.version.is_some() && unclear.contains(record.key.as_str()) {
            history.push(&Record { version: None, ..record.clone() });
        } else {
            history.push(record);
        }
    }
    history
}

/// A version as histories write it.
#[must_use]
pub fn to_history(version: Version) -> antecede_check::Version {
    antecede_check::Version(version.timestamp.0, version.origin.0)
}

fn part_of(response: &Response, place: usize) -> Option<&Response> {
    if let Response::List(parts) = response { parts.get(place) } else { None }
}

fn text_of(response: &Response) -> Option<String> {
    let Response::Bytes(bytes) = response else { return None };
    Some(String::from_utf8_lossy(bytes).into_owned())
}

fn integer_of(response: Option<&Response>) -> Option<i64> {
    if let Some(Response::Integer(number)) = response { Some(*number) } else { None }
}

/// What an answer tells of the fate of a command.
#[must_use]
pub fn outcome_of(response: &Response) -> Outcome {
    let Response::Refused(refusal) = response else { return Outcome::Ok };
    let is_open = refusal.leaves_open() || matches!(refusal, Refusal::NotKept { .. });
    if is_open { Outcome::Unknown } else { Outcome::Fail }
}

/// The keys that a command concerns.
#[must_use]
pub fn keys_of(ask: &Ask) -> Vec<KeyId> {
    match ask.plain() {
        Ask::One(step) => vec![step.key],
        Ask::ReadSeveral(several) => several.clone(),
        Ask::WriteSeveral(several) => several.iter().map(|(key, _)| *key).collect(),
        Ask::Transaction(steps) => steps.iter().map(|step| step.key).collect(),
        Ask::Wait { .. } | Ask::Token | Ask::After(_) | Ask::Eventual | Ask::Retried { .. } => {
            Vec::new()
        }
    }
}
