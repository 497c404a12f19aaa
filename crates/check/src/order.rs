//! Lays a history out as transactions in sessions, and joins each read to the write it returned.
//!
//! Values written to a key are unique, so a value tells its write; where values repeat, versions
//! tell. A read of nothing returned the key's initial state if nobody ever removed the key; with a
//! version it returned that removal; otherwise any removal may be meant, and the read is `Unclear`.
//!
//! A write with an unknown outcome is part of the order only if somebody read it, and then its own
//! session need not have seen it afterwards: it stands in a session of its own, after what its
//! session had done before. An eventual write that a stronger read returned stands in a session of
//! its own with nothing before it.
//!
//! Left out, and counted: eventual operations unless asked for, and keys with appends or
//! increments, whose values are not in the record.

use std::ops::Range;

use rustc_hash::{FxHashMap, FxHashSet};

use crate::{
    history::{History, Kind, Level, Operation, Outcome, Symbol},
    verdict::{Pattern, Verdict, Violation},
};

/// Where the answer of a read came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// From nowhere: nobody had written the key.
    Initial,
    /// From this transaction.
    Node(u32),
    /// From the initial state or from one of several removals.
    Unclear,
}

/// What one part of a transaction did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// Left a value, or nothing, for others to read.
    Write { removal: bool },
    /// Returned what stands outside of its transaction.
    Read(Source),
}

/// One part of a transaction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Event {
    pub(crate) operation: u32,
    pub(crate) key: Symbol,
    pub(crate) what: What,
}

/// One transaction; most are a single operation.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    /// The session, by its place in `Order::sessions`.
    pub(crate) session: u32,
    /// Place in the session, counted from 1.
    pub(crate) index: u32,
    /// What comes before the first transaction of a session that split off from another.
    pub(crate) parent: Option<u32>,
    events: Range<u32>,
}

/// A history as sessions of transactions.
#[derive(Debug)]
pub(crate) struct Order<'h> {
    pub(crate) history: &'h History,
    pub(crate) nodes: Vec<Node>,
    pub(crate) sessions: Vec<Vec<u32>>,
    events: Vec<Event>,
    node_of: Vec<Option<u32>>,
    removals: FxHashMap<Symbol, Vec<(u32, u32)>>,
    /// Operations that take part.
    pub(crate) checked: u64,
    /// Operations left out.
    pub(crate) skipped: u64,
    /// Reads of a value that was written more than once, by anyone.
    pub(crate) repeated: Option<u32>,
}

/// Which operations take part.
#[derive(Clone, Copy, Debug, Default)]
pub struct OrderOptions {
    /// Whether operations at the eventual level are judged as if they were causal.
    pub with_eventual: bool,
}

impl<'h> Order<'h> {
    /// Lays `history` out; the error is the verdict where that cannot be done.
    pub(crate) fn new(history: &'h History, options: OrderOptions) -> Result<Self, Verdict> {
        if u32::try_from(history.operations().len()).is_err() {
            let why = "the history has more than 2^32 operations; check it in parts".to_owned();
            return Err(Verdict::Undecided { why });
        }
        let mut builder = Builder::new(history, options);
        builder.resolve()?;
        builder.group()?;
        builder.join()
    }

    pub(crate) fn events(&self, node: u32) -> &[Event] {
        let range = &self.nodes[node as usize].events;
        &self.events[range.start as usize..range.end as usize]
    }

    /// The event at this place in the whole order.
    pub(crate) fn event(&self, place: u32) -> &Event {
        &self.events[place as usize]
    }

    /// The place in the whole order of the first event of a transaction.
    pub(crate) fn first_event(&self, node: u32) -> u32 {
        self.nodes[node as usize].events.start
    }

    /// The transaction of an event.
    pub(crate) fn node_of_event(&self, place: u32) -> u32 {
        let count = self.nodes.partition_point(|node| node.events.start <= place);
        u32::try_from(count - 1).expect("nodes are numbered with u32")
    }

    /// The transaction of an operation, if it takes part.
    pub(crate) fn node_of_operation(&self, operation: u32) -> Option<u32> {
        self.node_of.get(operation as usize).copied().flatten()
    }

    /// The removals of a key, each as transaction and operation.
    pub(crate) fn removals(&self, key: Symbol) -> &[(u32, u32)] {
        self.removals.get(&key).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn operation(&self, event: &Event) -> &'h Operation {
        &self.history.operations()[event.operation as usize]
    }

    /// The transaction at this place (from 1) of this session.
    pub(crate) fn at(&self, session: u32, index: u32) -> u32 {
        self.sessions[session as usize][index as usize - 1]
    }

    /// The transaction that comes right before in the session, or that the session split off from.
    pub(crate) fn before(&self, node: u32) -> Option<u32> {
        let place = &self.nodes[node as usize];
        match place.index {
            1 => place.parent,
            index => Some(self.at(place.session, index - 1)),
        }
    }

    /// The transactions whose writes this one returned, with the event that returned them.
    pub(crate) fn sources(&self, node: u32) -> impl Iterator<Item = (u32, &Event)> {
        self.events(node).iter().filter_map(|event| match event.what {
            What::Read(Source::Node(source)) => Some((source, event)),
            What::Read(Source::Initial | Source::Unclear) | What::Write { .. } => None,
        })
    }

    /// The write of `key` in this transaction.
    pub(crate) fn write_of(&self, node: u32, key: Symbol) -> Option<&Event> {
        let mut events = self.events(node).iter();
        events.find(|event| event.key == key && matches!(event.what, What::Write { .. }))
    }

    /// `Passed`, or why not although no violation was found.
    pub(crate) fn verdict_without_violation(&self) -> Verdict {
        if let Some(operation) = self.repeated {
            let record = self.history.record(&self.history.operations()[operation as usize]);
            let why = format!(
                "the value of \"{record}\" was written more than once, so what it read is not \
                 known; write unique values, or record versions"
            );
            return Verdict::Undecided { why };
        }
        if self.checked == 0 {
            let why = "no operation at a level above eventual on a plain key".to_owned();
            return Verdict::NothingToCheck { why };
        }
        let note = if self.skipped == 0 {
            String::new()
        } else {
            "eventual operations and keys with appends or increments".to_owned()
        };
        Verdict::Passed { checked: self.checked, skipped: self.skipped, note }
    }
}

/// Who wrote a value of a key.
#[derive(Clone, Copy)]
struct Writer {
    operation: u32,
    repeated: bool,
}

/// To which operation a read is joined, before transactions have numbers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Joined {
    Initial,
    Operation(u32),
    Unclear,
    /// Says nothing about the order.
    Free,
}

struct Builder<'h> {
    history: &'h History,
    options: OrderOptions,
    computed_keys: FxHashSet<Symbol>,
    writers: FxHashMap<(Symbol, Symbol), Writer>,
    removals: FxHashMap<Symbol, Vec<u32>>,
    /// What each operation that reads returned.
    joined: Vec<Joined>,
    /// Whether somebody whose read counts returned its write.
    used: Vec<bool>,
    /// Writes that their own transaction wrote over.
    overwritten: FxHashSet<u32>,
    order: Order<'h>,
}

impl<'h> Builder<'h> {
    fn new(history: &'h History, options: OrderOptions) -> Self {
        let count = history.operations().len();
        Self {
            history,
            options,
            computed_keys: FxHashSet::default(),
            writers: FxHashMap::default(),
            removals: FxHashMap::default(),
            joined: vec![Joined::Free; count],
            used: vec![false; count],
            overwritten: FxHashSet::default(),
            order: Order {
                history,
                nodes: Vec::new(),
                sessions: Vec::new(),
                events: Vec::new(),
                node_of: vec![None; count],
                removals: FxHashMap::default(),
                checked: 0,
                skipped: 0,
                repeated: None,
            },
        }
    }

    fn is_eventual(&self, operation: &Operation) -> bool {
        operation.level == Level::Eventual && !self.options.with_eventual
    }

    /// Joins every read that counts to the operation whose write it returned.
    fn resolve(&mut self) -> Result<(), Violation> {
        let operations = self.history.operations();
        for (place, operation) in (0u32..).zip(operations) {
            if operation.outcome == Outcome::Fail {
                // Kept only to say more about a read that returned it.
                if let (true, Some(value)) = (operation.is_write(), operation.value) {
                    let writer = Writer { operation: place, repeated: false };
                    self.writers.entry((operation.key, value)).or_insert(writer);
                }
                continue;
            }
            if operation.is_computed() {
                self.computed_keys.insert(operation.key);
            } else if operation.is_removal() {
                self.removals.entry(operation.key).or_default().push(place);
            } else if operation.is_write()
                && let Some(value) = operation.value
            {
                self.add_writer(place, operation.key, value);
            }
        }
        for (place, operation) in (0u32..).zip(operations) {
            let counts = operation.outcome == Outcome::Ok
                && !self.is_eventual(operation)
                && !self.computed_keys.contains(&operation.key);
            if !counts {
                continue;
            }
            let Some(value) = returned(operation) else { continue };
            let joined = self.join_one(place, value)?;
            self.joined[place as usize] = joined;
            if let Joined::Operation(source) = joined {
                self.used[source as usize] = true;
            }
        }
        Ok(())
    }

    fn add_writer(&mut self, place: u32, key: Symbol, value: Symbol) {
        let operations = self.history.operations();
        let writer = Writer { operation: place, repeated: false };
        let known = self.writers.entry((key, value)).or_insert(writer);
        if known.operation == place {
            return;
        }
        if operations[known.operation as usize].outcome == Outcome::Fail {
            *known = writer;
        } else {
            known.repeated = true;
        }
    }

    fn join_one(&mut self, place: u32, value: Option<Symbol>) -> Result<Joined, Violation> {
        let operations = self.history.operations();
        let read = &operations[place as usize];
        // The version of an exchange is that of its write, not of what it found.
        let version = if read.kind == Kind::Read { read.version } else { None };
        let Some(value) = value else { return Ok(self.join_absence(read.key, version)) };
        let Some(&writer) = self.writers.get(&(read.key, value)) else {
            let summary = "the value was never written to this key";
            return Err(Violation::new(Pattern::ThinAirRead, summary).step(
                self.history,
                read,
                "returned it",
            ));
        };
        let source = &operations[writer.operation as usize];
        if source.outcome == Outcome::Fail {
            return Err(Violation::new(Pattern::ThinAirRead, "a failed write was read")
                .step(self.history, source, "was refused, so it must have no effect")
                .step(self.history, read, "returned it all the same"));
        }
        if writer.repeated {
            let same = version.and_then(|version| self.writer_by_version(read.key, value, version));
            if same.is_none() {
                self.order.repeated = self.order.repeated.or(Some(place));
            }
            return Ok(same.map_or(Joined::Free, Joined::Operation));
        }
        if let (Some(read_version), Some(written)) = (version, source.version)
            && read_version != written
        {
            let summary = "the value was read with another version than it was written with";
            return Err(Violation::new(Pattern::ThinAirRead, summary)
                .step(self.history, source, "wrote the value")
                .step(self.history, read, "returned it with another version"));
        }
        Ok(Joined::Operation(writer.operation))
    }

    /// The one writer of a repeated value that has this version. Slow, and only for such values.
    fn writer_by_version(
        &self,
        key: Symbol,
        value: Symbol,
        version: crate::history::Version,
    ) -> Option<u32> {
        let is_it = |operation: &Operation| {
            operation.key == key
                && operation.value == Some(value)
                && operation.version == Some(version)
                && operation.is_write()
                && operation.outcome != Outcome::Fail
        };
        let operations = self.history.operations();
        (0u32..).zip(operations).find(|(_, operation)| is_it(operation)).map(|(place, _)| place)
    }

    fn join_absence(&self, key: Symbol, version: Option<crate::history::Version>) -> Joined {
        let operations = self.history.operations();
        let removals = self.removals.get(&key).map_or(&[][..], Vec::as_slice);
        if version.is_some() {
            let same =
                removals.iter().find(|&&place| operations[place as usize].version == version);
            // A version that no removal of a client has belongs to an expiry, or to a removal whose
            // outcome is unknown.
            return same.map_or(Joined::Free, |&place| Joined::Operation(place));
        }
        if removals.is_empty() {
            return Joined::Initial;
        }
        let is_open = |place: &u32| {
            let removal = &operations[*place as usize];
            removal.outcome == Outcome::Unknown || self.is_eventual(removal)
        };
        if removals.iter().any(is_open) { Joined::Free } else { Joined::Unclear }
    }

    /// Makes transactions of operations, and sessions of transactions.
    fn group(&mut self) -> Result<(), Verdict> {
        let operations = self.history.operations();
        let mut places: Vec<u32> = (0u32..).zip(operations).map(|(place, _)| place).collect();
        places.sort_by_key(|&place| {
            let operation = &operations[place as usize];
            (operation.session, operation.seq)
        });
        let of = |place: u32| &operations[place as usize];
        for session in places.chunk_by(|&a, &b| of(a).session == of(b).session) {
            if let Some(pair) = session.windows(2).find(|pair| of(pair[0]).seq == of(pair[1]).seq) {
                let (session, seq) = (of(pair[0]).session, of(pair[0]).seq);
                let why = format!(
                    "session {session} has two operations with seq {seq}; number them as issued"
                );
                return Err(Verdict::Undecided { why });
            }
            let together = |a: u32, b: u32| of(a).txn.is_some() && of(a).txn == of(b).txn;
            let mut known = FxHashSet::default();
            let mut last = None;
            let mut main = None;
            for group in session.chunk_by(|&a, &b| together(a, b)) {
                if let Some(transaction) = of(group[0]).txn
                    && !known.insert(transaction)
                {
                    let why = format!(
                        "transaction {transaction} of session {} is mixed with other operations; \
                         number its operations one after the other",
                        of(group[0]).session
                    );
                    return Err(Verdict::Undecided { why });
                }
                self.add_group(group, &mut last, &mut main)?;
            }
        }
        Ok(())
    }

    /// Adds one transaction; `main` is the place of its session, `last` the transaction before it.
    fn add_group(
        &mut self,
        group: &[u32],
        last: &mut Option<u32>,
        main: &mut Option<u32>,
    ) -> Result<(), Violation> {
        let operations = self.history.operations();
        let any = |is: &dyn Fn(&Operation) -> bool| {
            group.iter().any(|&place| is(&operations[place as usize]))
        };
        let is_eventual = any(&|operation| self.is_eventual(operation));
        let is_unknown = any(&|operation| operation.outcome == Outcome::Unknown);
        let is_apart = is_eventual || is_unknown;
        let is_used = group.iter().any(|&place| self.used[place as usize]);
        let start = self.order.events.len();
        if !is_apart || is_used {
            self.add_events(group, is_eventual)?;
        }
        let taken = self.order.events[start..].chunk_by(|a, b| a.operation == b.operation).count();
        let offered = group
            .iter()
            .filter(|&&place| operations[place as usize].outcome == Outcome::Ok)
            .count();
        self.order.checked += taken as u64;
        self.order.skipped += offered.saturating_sub(taken) as u64;
        if taken == 0 {
            return Ok(());
        }
        let node = place_of(self.order.nodes.len());
        let (session, parent) = if is_apart {
            self.order.sessions.push(Vec::new());
            let parent = if is_eventual { None } else { *last };
            (place_of(self.order.sessions.len() - 1), parent)
        } else {
            let session = *main.get_or_insert_with(|| {
                self.order.sessions.push(Vec::new());
                place_of(self.order.sessions.len() - 1)
            });
            *last = Some(node);
            (session, None)
        };
        let members = &mut self.order.sessions[session as usize];
        members.push(node);
        let index = place_of(members.len());
        let events = place_of(start)..place_of(self.order.events.len());
        self.order.nodes.push(Node { session, index, parent, events });
        for &place in group {
            self.order.node_of[place as usize] = Some(node);
        }
        Ok(())
    }

    /// Adds the parts of one transaction. Reads carry their operation's join until `join`.
    fn add_events(&mut self, group: &[u32], is_eventual: bool) -> Result<(), Violation> {
        let operations = self.history.operations();
        let start = self.order.events.len();
        for &place in group {
            let operation = &operations[place as usize];
            if operation.outcome == Outcome::Fail || self.computed_keys.contains(&operation.key) {
                continue;
            }
            let key = operation.key;
            let written = self.order.events[start..]
                .iter()
                .position(|event| event.key == key && matches!(event.what, What::Write { .. }));
            let is_read = operation.outcome == Outcome::Ok && !is_eventual;
            if is_read && let Some(value) = returned(operation) {
                if let Some(own) = written {
                    self.check_own(operation, value, start + own)?;
                } else if self.joined[place as usize] != Joined::Free {
                    let what = What::Read(Source::Unclear);
                    self.order.events.push(Event { operation: place, key, what });
                }
            }
            let is_lost_removal = operation.is_removal()
                && operation.outcome == Outcome::Unknown
                && !self.used[place as usize];
            if operation.is_write() && !is_lost_removal {
                if let Some(own) = written {
                    let earlier = self.order.events.remove(start + own);
                    self.overwritten.insert(earlier.operation);
                }
                let what = What::Write { removal: operation.is_removal() };
                self.order.events.push(Event { operation: place, key, what });
            }
        }
        Ok(())
    }

    /// A read after a write of the same transaction returns that write.
    fn check_own(
        &self,
        read: &Operation,
        value: Option<Symbol>,
        own: usize,
    ) -> Result<(), Violation> {
        let write = self.order.operation(&self.order.events[own]);
        let written = if write.is_removal() { None } else { write.value };
        if value == written {
            return Ok(());
        }
        Err(Violation::new(Pattern::ReadYourWrites, "a transaction did not see its own write")
            .step(self.history, write, "wrote")
            .step(self.history, read, "came later in the same transaction"))
    }

    /// Replaces operations by transactions in what reads returned.
    fn join(mut self) -> Result<Order<'h>, Verdict> {
        for (node, place) in (0u32..).zip(&self.order.nodes) {
            for event in &self.order.events[place.events.start as usize..place.events.end as usize]
            {
                if event.what == (What::Write { removal: true }) {
                    let removals = self.order.removals.entry(event.key).or_default();
                    removals.push((node, event.operation));
                }
            }
        }
        for (node, place) in (0u32..).zip(&self.order.nodes) {
            for event in place.events.clone() {
                let event = &mut self.order.events[event as usize];
                let What::Read(source) = &mut event.what else { continue };
                let writer = match self.joined[event.operation as usize] {
                    Joined::Operation(writer) => writer,
                    Joined::Initial => {
                        *source = Source::Initial;
                        continue;
                    }
                    Joined::Unclear | Joined::Free => continue,
                };
                let read = &self.history.operations()[event.operation as usize];
                let write = &self.history.operations()[writer as usize];
                let Some(from) = self.order.node_of[writer as usize] else { continue };
                *source = Source::Node(from);
                if from == node {
                    let summary = "a transaction returned what it wrote only later";
                    return Err(Violation::new(Pattern::CyclicCO, summary)
                        .step(self.history, read, "returned the value")
                        .step(self.history, write, "wrote it, later in the same transaction")
                        .into());
                }
                if self.overwritten.contains(&writer) {
                    let summary = "a value was read that its own transaction wrote over";
                    return Err(Violation::new(Pattern::ThinAirRead, summary)
                        .step(self.history, write, "was never visible as the transaction's result")
                        .step(self.history, read, "returned it")
                        .into());
                }
            }
        }
        Ok(self.order)
    }
}

/// What an acknowledged operation tells of the state that it found: a value, or absence.
pub(crate) fn returned(operation: &Operation) -> Option<Option<Symbol>> {
    match operation.kind {
        Kind::Read => Some(operation.value),
        Kind::Exchange => Some(operation.previous),
        Kind::Delete if operation.result == Some(0) => Some(None),
        Kind::WriteIfAbsent if operation.result == Some(1) => Some(None),
        Kind::Delete | Kind::WriteIfAbsent | Kind::Write | Kind::Append | Kind::Increment => None,
    }
}

fn place_of(length: usize) -> u32 {
    u32::try_from(length).expect("at most two events for each of fewer than 2^31 operations")
}
