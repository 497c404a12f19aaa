//! Holds a history: what clients asked and were told, and what the replicas held at the end.
//!
//! A `Record` is one operation with its strings, as written to a file. In memory an `Operation`
//! holds numbers for the strings (keys, values, nodes), so that millions fit: about 150 bytes each.
//!
//! Invariant: every `Symbol` in an operation or a final state names a string of this history.
//!
//! Session tokens are part of the record for people who read the file; no model needs them, and
//! they are not kept in memory.

use std::{fmt, num::NonZeroU32};

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

/// Which of two writes of a key wins: HLC timestamp, then origin datacenter; larger wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Version(pub u64, pub u16);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.0, self.1)
    }
}

/// What an operation asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Returned `value`; no value means that the key was absent.
    #[default]
    Read,
    /// Set the key to `value`.
    Write,
    /// Removed the key. `result` 1: it was there; 0: it was not, and nothing was written.
    Delete,
    /// Set the key to `value` if it was absent. `result` 1: done; 0: the key was there.
    WriteIfAbsent,
    /// Set the key to `value` (none: removed it) and returned what it held before: `previous`.
    Exchange,
    /// Added `value` at the end; `result` is the length in bytes afterwards, where it is known.
    Append,
    /// Added `value`, a decimal integer; `result` is the sum, where it is known.
    Increment,
}

/// What the client knows of the fate of an operation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was acknowledged.
    #[default]
    Ok,
    /// It was refused and certainly has no effect.
    Fail,
    /// No answer: it may take effect at any time after the call, or never.
    Unknown,
}

/// The consistency level that the client asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// No promise of order.
    Eventual,
    /// Never before what it depends on.
    Causal,
    /// As causal, and in real-time order inside the datacenter.
    #[default]
    Linearizable,
    /// As causal, and not older than a bound.
    Bounded,
    /// One order of writes in all datacenters.
    Sequential,
    /// Linearizable over all datacenters.
    Global,
}

impl Level {
    /// Whether a read at this level follows real time inside its datacenter.
    pub fn is_linearizable(self) -> bool {
        match self {
            Self::Linearizable | Self::Global => true,
            Self::Eventual | Self::Causal | Self::Bounded | Self::Sequential => false,
        }
    }
}

/// One operation of one client, as it is written to a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// The session; keeps its number when it moves to another datacenter with a token.
    pub session: u64,
    /// Place in the session, growing.
    pub seq: u64,
    /// The datacenter that was asked.
    #[serde(default)]
    pub dc: u16,
    /// Name of the client, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// Operations of one session with the same number are one atomic read or write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub txn: Option<u32>,
    /// What was asked.
    pub op: Kind,
    /// The key; bytes that are not UTF-8 are the recorder's to escape.
    pub key: String,
    /// The value written or returned; `None` means absent. Written values are unique for a key.
    #[serde(default)]
    pub value: Option<String>,
    /// What an exchange found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<String>,
    /// What a delete, a conditional write, an append or an increment answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<i64>,
    /// The version written or returned; of a tombstone, where a read found one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<Version>,
    /// When the client asked, in nanoseconds of one clock for the whole history.
    #[serde(default)]
    pub call_ns: u64,
    /// When the answer came; `None` if it never did.
    #[serde(default)]
    pub ret_ns: Option<u64>,
    /// What the client knows of its fate.
    #[serde(default)]
    pub outcome: Outcome,
    /// The level that was asked for.
    #[serde(default)]
    pub level: Level,
    /// The session token sent, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_in: Option<String>,
    /// The session token received, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_out: Option<String>,
    /// The node that answered, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The epoch in which it answered, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
}

impl Record {
    /// An acknowledged operation of `session` on `key`; set the other fields as needed.
    pub fn new(session: u64, seq: u64, op: Kind, key: &str) -> Self {
        Self { session, seq, op, key: key.to_owned(), ..Self::default() }
    }

    /// The same with a value; `None` is absent.
    #[must_use]
    pub fn with_value(self, value: Option<&str>) -> Self {
        Self { value: value.map(str::to_owned), ..self }
    }

    /// The same, called and answered at these times in this datacenter.
    #[must_use]
    pub fn at(self, dc: u16, call_ns: u64, ret_ns: Option<u64>) -> Self {
        Self { dc, call_ns, ret_ns, ..self }
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "session {} #{} dc {}: ", self.session, self.seq, self.dc)?;
        let value = self.value.as_deref().unwrap_or("(absent)");
        let key = &self.key;
        match self.op {
            Kind::Read => write!(f, "read {key} -> {value}")?,
            Kind::Write => write!(f, "write {key} = {value}")?,
            Kind::Delete => write!(f, "delete {key}")?,
            Kind::WriteIfAbsent => write!(f, "write {key} = {value} if absent")?,
            Kind::Exchange => {
                let previous = self.previous.as_deref().unwrap_or("(absent)");
                write!(f, "exchange {key} = {value}, was {previous}")?;
            }
            Kind::Append => write!(f, "append {key} += {value}")?,
            Kind::Increment => write!(f, "increment {key} by {value}")?,
        }
        if let Some(result) = self.result {
            write!(f, " -> {result}")?;
        }
        if let Some(version) = self.version {
            write!(f, " version {version}")?;
        }
        if let Some(transaction) = self.txn {
            write!(f, " in transaction {transaction}")?;
        }
        match self.outcome {
            Outcome::Ok => {}
            Outcome::Fail => write!(f, " (failed)")?,
            Outcome::Unknown => write!(f, " (outcome unknown)")?,
        }
        match (self.call_ns, self.ret_ns) {
            (0, None | Some(u64::MAX)) => Ok(()), // No times were recorded.
            (call, Some(ret)) => write!(f, " [{call}..{ret} ns]"),
            (call, None) => write!(f, " [{call}.. ns]"),
        }
    }
}

/// What one replica held for one key when everything had come to rest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FinalRecord {
    /// The datacenter.
    pub dc: u16,
    /// The replica, by the name of its node.
    pub node: String,
    /// The key.
    pub key: String,
    /// Its value; `None` means absent.
    #[serde(default)]
    pub value: Option<String>,
    /// Its version; that of the tombstone if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<Version>,
}

impl fmt::Display for FinalRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.value.as_deref().unwrap_or("(absent)");
        write!(f, "dc {} node {}: {} holds {value}", self.dc, self.node, self.key)?;
        match self.version {
            Some(version) => write!(f, " version {version}"),
            None => Ok(()),
        }
    }
}

/// A string of the history, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Symbol(NonZeroU32);

impl Symbol {
    /// The place of its string, counted from 0.
    pub fn index(self) -> usize {
        self.0.get() as usize - 1
    }
}

/// The strings of a history, each once, in one piece of memory.
#[derive(Clone, Debug, Default)]
struct Names {
    text: String,
    ends: Vec<usize>,
    /// From the hash of a string, moved on while it is taken by another, to its place.
    places: FxHashMap<u64, u32>,
}

impl Names {
    fn add(&mut self, name: &str) -> Symbol {
        self.add_at(name, hash(name))
    }

    /// Adds a string whose hash is `slot`.
    fn add_at(&mut self, name: &str, mut slot: u64) -> Symbol {
        loop {
            match self.places.get(&slot) {
                None => break,
                Some(&place) if self.name(place as usize) == name => return symbol(place),
                Some(_) => slot = slot.wrapping_add(0x9E37_79B9_7F4A_7C15),
            }
        }
        let place = u32::try_from(self.ends.len()).expect("a history has fewer than 2^32 strings");
        self.text.push_str(name);
        self.ends.push(self.text.len());
        self.places.insert(slot, place);
        symbol(place)
    }

    fn name(&self, place: usize) -> &str {
        let start = if place == 0 { 0 } else { self.ends[place - 1] };
        &self.text[start..self.ends[place]]
    }
}

fn hash(name: &str) -> u64 {
    use std::hash::{BuildHasher, BuildHasherDefault};
    BuildHasherDefault::<rustc_hash::FxHasher>::default().hash_one(name)
}

fn symbol(place: u32) -> Symbol {
    Symbol(NonZeroU32::MIN.checked_add(place).expect("a history has fewer than 2^32 strings"))
}

/// One operation in memory; the fields mean what they mean in `Record`.
#[derive(Clone, Copy, Debug)]
pub struct Operation {
    /// The session.
    pub session: u64,
    /// Place in the session.
    pub seq: u64,
    /// When the client asked.
    pub call_ns: u64,
    /// When the answer came.
    pub ret_ns: Option<u64>,
    /// The version written or returned.
    pub version: Option<Version>,
    /// What it answered, as a number.
    pub result: Option<i64>,
    /// The epoch in which it was answered.
    pub epoch: Option<u64>,
    /// The transaction.
    pub txn: Option<u32>,
    /// The key.
    pub key: Symbol,
    /// The value written or returned.
    pub value: Option<Symbol>,
    /// What an exchange found.
    pub previous: Option<Symbol>,
    /// The node that answered.
    pub node: Option<Symbol>,
    /// The client's name.
    pub client: Option<Symbol>,
    /// The datacenter that was asked.
    pub dc: u16,
    /// What was asked.
    pub kind: Kind,
    /// What the client knows of its fate.
    pub outcome: Outcome,
    /// The level that was asked for.
    pub level: Level,
}

impl Operation {
    /// Whether it changes the key if it takes effect, as far as its answer tells.
    pub fn is_write(&self) -> bool {
        match self.kind {
            Kind::Read => false,
            Kind::Delete | Kind::WriteIfAbsent => self.result != Some(0),
            Kind::Write | Kind::Exchange | Kind::Append | Kind::Increment => true,
        }
    }

    /// Whether it leaves the key absent if it takes effect.
    pub fn is_removal(&self) -> bool {
        match self.kind {
            Kind::Delete => self.result != Some(0),
            Kind::Exchange => self.value.is_none(),
            Kind::Read | Kind::Write | Kind::WriteIfAbsent | Kind::Append | Kind::Increment => {
                false
            }
        }
    }

    /// Whether the value it leaves is made from the value it found, and so not in the record.
    pub fn is_computed(&self) -> bool {
        match self.kind {
            Kind::Append | Kind::Increment => true,
            Kind::Read | Kind::Write | Kind::Delete | Kind::WriteIfAbsent | Kind::Exchange => false,
        }
    }
}

/// What one replica held for one key at the end; the fields mean what they mean in `FinalRecord`.
#[derive(Clone, Copy, Debug)]
pub struct Final {
    /// The datacenter.
    pub dc: u16,
    /// The replica.
    pub node: Symbol,
    /// The key.
    pub key: Symbol,
    /// Its value.
    pub value: Option<Symbol>,
    /// Its version.
    pub version: Option<Version>,
}

/// What clients asked and were told, and what the replicas held at the end.
#[derive(Clone, Debug, Default)]
pub struct History {
    names: Names,
    operations: Vec<Operation>,
    finals: Vec<Final>,
}

impl History {
    /// A history of nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one operation. The order of adding does not matter to any verdict.
    pub fn push(&mut self, record: &Record) {
        let mut name = |text: &Option<String>| text.as_deref().map(|text| self.names.add(text));
        let (value, previous) = (name(&record.value), name(&record.previous));
        let (node, client) = (name(&record.node), name(&record.client));
        self.operations.push(Operation {
            session: record.session,
            seq: record.seq,
            call_ns: record.call_ns,
            ret_ns: record.ret_ns,
            version: record.version,
            result: record.result,
            epoch: record.epoch,
            txn: record.txn,
            key: self.names.add(&record.key),
            value,
            previous,
            node,
            client,
            dc: record.dc,
            kind: record.op,
            outcome: record.outcome,
            level: record.level,
        });
    }

    /// Adds what one replica held for one key at the end.
    pub fn push_final(&mut self, record: &FinalRecord) {
        let value = record.value.as_deref().map(|text| self.names.add(text));
        self.finals.push(Final {
            dc: record.dc,
            node: self.names.add(&record.node),
            key: self.names.add(&record.key),
            value,
            version: record.version,
        });
    }

    /// All operations, in the order in which they were added.
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// All final states, in the order in which they were added.
    pub fn finals(&self) -> &[Final] {
        &self.finals
    }

    /// The string of a symbol of this history.
    pub fn name(&self, symbol: Symbol) -> &str {
        self.names.name(symbol.index())
    }

    /// The operation as a record, without its tokens.
    pub fn record(&self, operation: &Operation) -> Record {
        let text = |symbol: Option<Symbol>| symbol.map(|symbol| self.name(symbol).to_owned());
        Record {
            session: operation.session,
            seq: operation.seq,
            dc: operation.dc,
            client: text(operation.client),
            txn: operation.txn,
            op: operation.kind,
            key: self.name(operation.key).to_owned(),
            value: text(operation.value),
            previous: text(operation.previous),
            result: operation.result,
            version: operation.version,
            call_ns: operation.call_ns,
            ret_ns: operation.ret_ns,
            outcome: operation.outcome,
            level: operation.level,
            token_in: None,
            token_out: None,
            node: text(operation.node),
            epoch: operation.epoch,
        }
    }

    /// The final state as a record.
    pub fn final_record(&self, state: &Final) -> FinalRecord {
        FinalRecord {
            dc: state.dc,
            node: self.name(state.node).to_owned(),
            key: self.name(state.key).to_owned(),
            value: state.value.map(|value| self.name(value).to_owned()),
            version: state.version,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_strings_share_a_symbol_and_are_found_again() {
        let mut names = Names::default();
        let words: Vec<String> = (0..5000).map(|number| format!("w{number}")).collect();
        let symbols: Vec<Symbol> = words.iter().map(|word| names.add(word)).collect();
        let empty = names.add("");

        for (word, &symbol) in words.iter().zip(&symbols) {
            assert_eq!(names.add(word), symbol);
            assert_eq!(names.name(symbol.index()), word);
        }
        assert_eq!(names.add(""), empty);
        assert_eq!(names.ends.len(), 5001);
    }

    #[test]
    fn strings_with_one_hash_are_told_apart() {
        let mut names = Names::default();
        let symbols = ["a", "b", "c"].map(|name| names.add_at(name, 7));
        assert_eq!(["a", "b", "c"].map(|name| names.add_at(name, 7)), symbols);
        assert_eq!(symbols.map(|symbol| names.name(symbol.index()).to_owned()), ["a", "b", "c"]);
    }

    #[test]
    fn a_record_survives_the_way_into_a_history_and_back() {
        let record = Record {
            session: 7,
            seq: 3,
            dc: 2,
            client: Some("c".into()),
            txn: Some(4),
            op: Kind::Exchange,
            key: "k".into(),
            value: Some("new".into()),
            previous: Some("old".into()),
            result: Some(1),
            version: Some(Version(9, 2)),
            call_ns: 10,
            ret_ns: Some(20),
            outcome: Outcome::Unknown,
            level: Level::Causal,
            token_in: None,
            token_out: None,
            node: Some("a1".into()),
            epoch: Some(6),
        };
        let mut history = History::new();
        history.push(&record);
        assert_eq!(history.record(&history.operations()[0]), record);
    }
}
