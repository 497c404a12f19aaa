//! Checks causal+ while the history is being made, by versions.
//!
//! Versions say how writes of one key are ordered, so no graph is needed: each session has a vector
//! clock of what is in its past, and a read must return a version at least as large as every write
//! of the key inside that clock; a write must get a version larger than all of them. Fed event by
//! event, in any order across sessions: a session whose read returned a write that was not told yet
//! is parked until it is.
//!
//! Assumes: the events of one session come in its order.
//! Ensures: the same events in the same order give the same answer; nothing outside is asked, so
//! that the simulator can run it inside.
//! Invariant: a parked session waits for a version that is in `waiting`.
//!
//! A write without a version (unknown outcome) takes part once a read returns its value, and then
//! with that read's version. A read of nothing without a version is compared at the end with the
//! removals of its key, since a tombstone may have been collected.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use crate::{
    history::{History, Kind, Level, Operation, Outcome, Symbol, Version},
    order::{OrderOptions, returned},
    verdict::{Pattern, Verdict, Violation},
};

/// Clock counters beyond which `check` gives up, four bytes each.
const CLOCK_CELLS_MAX: usize = 1 << 29;

/// Where an event stands in the causal order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// After what the session did before, and before what it does next.
    InSession,
    /// After what the session did before; the session need not see it (unknown outcome).
    AfterSession,
    /// In no order but that of its readers (level eventual); its reads are not checked.
    Apart,
}

/// What one part of an event read.
#[derive(Clone, Debug)]
pub struct Read<K, V> {
    /// The key.
    pub key: K,
    /// What it returned; `None` is absent.
    pub value: Option<V>,
    /// The version of the value or of the tombstone; `None` if nothing is left of the key.
    pub version: Option<Version>,
}

/// What one part of an event wrote.
#[derive(Clone, Debug)]
pub struct Write<K, V> {
    /// The key.
    pub key: K,
    /// What it left; `None` is absent.
    pub value: Option<V>,
    /// Its version; `None` if it is not known.
    pub version: Option<Version>,
}

/// One transaction of one session; usually a single read or write.
#[derive(Clone, Debug)]
pub struct Event<K, V> {
    /// The session.
    pub session: u64,
    /// The caller's name for it, given back in proofs.
    pub label: u64,
    /// Where it stands.
    pub place: Place,
    /// What it read, before its own writes.
    pub reads: Vec<Read<K, V>>,
    /// What it wrote.
    pub writes: Vec<Write<K, V>>,
}

/// Why the events are not causal+: a pattern, and the events that prove it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// The kind of break.
    pub pattern: Pattern,
    /// What is wrong.
    pub summary: &'static str,
    /// Labels of events, each with its part in the proof.
    pub steps: Vec<(u64, &'static str)>,
}

type Clock = Arc<Vec<u32>>;

/// A write that takes part.
#[derive(Clone, Debug)]
struct Known {
    session: u32,
    index: u32,
    clock: Clock,
}

/// A write that takes part once somebody has read it.
#[derive(Clone, Debug)]
struct Open {
    label: u64,
    clock: Clock,
}

/// One write of a key by a session.
#[derive(Clone, Copy, Debug)]
struct Entry {
    index: u32,
    version: Version,
    is_removal: bool,
    label: u64,
}

#[derive(Debug)]
struct Session<K, V> {
    clock: Clock,
    count: u32,
    parked: VecDeque<Event<K, V>>,
}

/// A read of nothing that only a removal above `newest` can explain.
#[derive(Debug)]
struct Absence<K> {
    key: K,
    reader: u64,
    newest: Entry,
}

/// The checker. Give it events with `observe`, ask for the verdict with `finish`.
#[derive(Debug)]
pub struct Online<K, V> {
    numbers: BTreeMap<u64, u32>,
    sessions: Vec<Session<K, V>>,
    known: BTreeMap<(K, Version), Known>,
    /// For each key and session the writes, in session order and so in version order.
    entries: BTreeMap<K, BTreeMap<u32, Vec<Entry>>>,
    /// Unknown writes by value.
    unknown: BTreeMap<(K, V), Open>,
    /// Keys whose removal has an unknown outcome.
    unknown_removals: BTreeMap<K, u64>,
    /// Eventual writes by version.
    apart: BTreeMap<(K, Version), (Open, bool)>,
    waiting: BTreeMap<(K, Version), Vec<u32>>,
    absences: Vec<Absence<K>>,
    checked: u64,
    clock_cells: usize,
}

impl<K: Ord + Clone, V: Ord + Clone> Default for Online<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Ord + Clone, V: Ord + Clone> Online<K, V> {
    /// A checker that has seen nothing.
    pub fn new() -> Self {
        Self {
            numbers: BTreeMap::new(),
            sessions: Vec::new(),
            known: BTreeMap::new(),
            entries: BTreeMap::new(),
            unknown: BTreeMap::new(),
            unknown_removals: BTreeMap::new(),
            apart: BTreeMap::new(),
            waiting: BTreeMap::new(),
            absences: Vec::new(),
            checked: 0,
            clock_cells: 0,
        }
    }

    /// Takes the next event of its session.
    ///
    /// # Errors
    /// The first proof that the events are not causal+. What is told afterwards is not judged
    /// reliably.
    pub fn observe(&mut self, event: Event<K, V>) -> Result<(), Proof> {
        if event.place == Place::Apart {
            return self.observe_apart(event);
        }
        let session = self.number_of(event.session);
        let state = &mut self.sessions[session as usize];
        state.parked.push_back(event);
        if state.parked.len() == 1 { self.run(session) } else { Ok(()) }
    }

    /// Judges what is left when no more events will come.
    ///
    /// # Errors
    /// The proof that the events are not causal+.
    pub fn finish(&mut self) -> Result<u64, Proof> {
        let parked = self.sessions.iter().filter_map(|session| session.parked.front());
        if let Some(event) = parked.min_by_key(|event| event.label) {
            return Err(self.stuck(event));
        }
        for absence in &self.absences {
            let entries = self.entries.get(&absence.key).into_iter().flat_map(BTreeMap::values);
            let is_removed = entries
                .flatten()
                .any(|entry| entry.is_removal && absence.newest.version < entry.version);
            if !is_removed && !self.unknown_removals.contains_key(&absence.key) {
                return Err(Proof {
                    pattern: Pattern::WriteCOInitRead,
                    summary: "a read found nothing although a write of the key is in its past",
                    steps: vec![
                        (
                            absence.newest.label,
                            "wrote the key, and no removal has a larger version",
                        ),
                        (absence.reader, "has that write in its past and found nothing"),
                    ],
                });
            }
        }
        Ok(self.checked)
    }

    fn stuck(&self, event: &Event<K, V>) -> Proof {
        let missing = self.missing(event).expect("a session is parked only while it waits");
        let mut parked = self.sessions.iter().flat_map(|session| &session.parked);
        let writer = parked.find(|other| {
            let mut writes = other.writes.iter();
            writes.any(|write| write.key == missing.0 && write.version == Some(missing.1))
        });
        match writer {
            Some(writer) => Proof {
                pattern: Pattern::CyclicCO,
                summary: "an operation comes before itself",
                steps: vec![
                    (event.label, "returned a write that comes after it"),
                    (writer.label, "is that write, and has the read in its past"),
                ],
            },
            None => Proof {
                pattern: Pattern::ThinAirRead,
                summary: "the version was never written to this key",
                steps: vec![(event.label, "returned it")],
            },
        }
    }

    fn number_of(&mut self, session: u64) -> u32 {
        if let Some(&number) = self.numbers.get(&session) {
            return number;
        }
        let number = self.add_session(Clock::default());
        self.numbers.insert(session, number);
        number
    }

    fn add_session(&mut self, clock: Clock) -> u32 {
        self.sessions.push(Session { clock, count: 0, parked: VecDeque::new() });
        u32::try_from(self.sessions.len() - 1).expect("fewer than 2^32 sessions")
    }

    fn observe_apart(&mut self, event: Event<K, V>) -> Result<(), Proof> {
        for write in event.writes {
            let open = Open { label: event.label, clock: Clock::default() };
            match (write.version, write.value) {
                (Some(version), value) => {
                    let key = (write.key, version);
                    self.apart.insert(key.clone(), (open, value.is_none()));
                    self.wake(&key)?;
                }
                (None, Some(value)) => {
                    self.unknown.insert((write.key.clone(), value), open);
                    self.wake_key(&write.key)?;
                }
                (None, None) => {
                    self.unknown_removals.insert(write.key, event.label);
                }
            }
        }
        Ok(())
    }

    /// Takes what the session has parked, as far as it goes.
    fn run(&mut self, first: u32) -> Result<(), Proof> {
        let mut woken = vec![first];
        while let Some(session) = woken.pop() {
            while let Some(event) = self.sessions[session as usize].parked.front().cloned() {
                self.admit(&event)?;
                if let Some(missing) = self.missing(&event) {
                    self.waiting.entry(missing).or_default().push(session);
                    break;
                }
                self.take(session, &event)?;
                self.sessions[session as usize].parked.pop_front();
                for write in &event.writes {
                    woken.extend(self.woken_by(write));
                }
            }
        }
        Ok(())
    }

    /// The sessions that a write lets go on.
    fn woken_by(&mut self, write: &Write<K, V>) -> Vec<u32> {
        match write.version {
            Some(version) => self.waiting.remove(&(write.key.clone(), version)).unwrap_or_default(),
            None => self.waiting_for_key(&write.key),
        }
    }

    fn waiting_for_key(&mut self, key: &K) -> Vec<u32> {
        let from = (key.clone(), Version(0, 0))..=(key.clone(), Version(u64::MAX, u16::MAX));
        let versions: Vec<_> =
            self.waiting.range(from).map(|(version, _)| version.clone()).collect();
        versions.iter().filter_map(|version| self.waiting.remove(version)).flatten().collect()
    }

    fn wake(&mut self, key: &(K, Version)) -> Result<(), Proof> {
        let woken = self.waiting.remove(key).unwrap_or_default();
        woken.into_iter().try_for_each(|session| self.run(session))
    }

    fn wake_key(&mut self, key: &K) -> Result<(), Proof> {
        let woken = self.waiting_for_key(key);
        woken.into_iter().try_for_each(|session| self.run(session))
    }

    /// Lets writes take part that this event is the first to read.
    fn admit(&mut self, event: &Event<K, V>) -> Result<(), Proof> {
        for read in &event.reads {
            let Some(version) = read.version else { continue };
            let key = (read.key.clone(), version);
            if self.known.contains_key(&key) {
                continue;
            }
            let (open, is_removal) = if let Some(apart) = self.apart.remove(&key) {
                apart
            } else if let Some(value) = &read.value
                && let Some(open) = self.unknown.remove(&(read.key.clone(), value.clone()))
            {
                (open, false)
            } else if read.value.is_none()
                && let Some(&label) = self.unknown_removals.get(&read.key)
            {
                (Open { label, clock: Clock::default() }, true)
            } else {
                continue;
            };
            let mut clock = open.clock;
            let session = self.add_session(Clock::default());
            tick(&mut clock, session, 1);
            let entry = Entry { index: 1, version, is_removal, label: open.label };
            self.add_write(read.key.clone(), session, entry, &clock)?;
        }
        Ok(())
    }

    /// A version that the event read and that nobody is known to have written.
    fn missing(&self, event: &Event<K, V>) -> Option<(K, Version)> {
        let versions =
            event.reads.iter().filter_map(|read| Some((read.key.clone(), read.version?)));
        versions.into_iter().find(|version| !self.known.contains_key(version))
    }

    fn take(&mut self, session: u32, event: &Event<K, V>) -> Result<(), Proof> {
        if event.place == Place::AfterSession {
            return self.take_unknown(session, event);
        }
        let mut clock = std::mem::take(&mut self.sessions[session as usize].clock);
        for read in &event.reads {
            if let Some(version) = read.version {
                let known = &self.known[&(read.key.clone(), version)];
                debug_assert!(known.index <= known.clock[known.session as usize]);
                join(&mut clock, &known.clock);
            }
        }
        for read in &event.reads {
            self.check_read(event.label, read, &clock)?;
        }
        let state = &mut self.sessions[session as usize];
        state.count += 1;
        let index = state.count;
        tick(&mut clock, session, index);
        state.clock = Arc::clone(&clock);
        self.checked += (event.reads.len() + event.writes.len()) as u64;
        for write in &event.writes {
            let Some(version) = write.version else { continue };
            let is_removal = write.value.is_none();
            let entry = Entry { index, version, is_removal, label: event.label };
            self.add_write(write.key.clone(), session, entry, &clock)?;
        }
        Ok(())
    }

    fn take_unknown(&mut self, session: u32, event: &Event<K, V>) -> Result<(), Proof> {
        let clock = Arc::clone(&self.sessions[session as usize].clock);
        for write in &event.writes {
            let open = Open { label: event.label, clock: Arc::clone(&clock) };
            match (&write.value, write.version) {
                (value, Some(version)) => {
                    let version = (write.key.clone(), version);
                    self.apart.insert(version, (open, value.is_none()));
                }
                (Some(value), None) => {
                    self.unknown.insert((write.key.clone(), value.clone()), open);
                }
                (None, None) => {
                    self.unknown_removals.insert(write.key.clone(), event.label);
                }
            }
        }
        Ok(())
    }

    /// The largest write of the key in the past, leaving out the session's own event under way.
    fn newest(&self, key: &K, clock: &Clock) -> Option<Entry> {
        let sessions = self.entries.get(key)?;
        let lasts = sessions.iter().filter_map(|(&session, entries)| {
            let known = clock.get(session as usize).copied().unwrap_or_default();
            let count = entries.partition_point(|entry| entry.index <= known);
            count.checked_sub(1).map(|place| entries[place])
        });
        lasts.max_by_key(|entry| entry.version)
    }

    fn check_read(&mut self, reader: u64, read: &Read<K, V>, clock: &Clock) -> Result<(), Proof> {
        let Some(newest) = self.newest(&read.key, clock) else { return Ok(()) };
        match read.version {
            Some(version) if newest.version <= version => Ok(()),
            Some(_) => Err(Proof {
                pattern: Pattern::WriteCORead,
                summary: "a read returned an older version than its past holds",
                steps: vec![
                    (newest.label, "wrote a newer version"),
                    (reader, "has that write in its past and returned an older one"),
                ],
            }),
            None => {
                if !newest.is_removal {
                    let key = read.key.clone();
                    self.absences.push(Absence { key, reader, newest });
                }
                Ok(())
            }
        }
    }

    fn add_write(
        &mut self,
        key: K,
        session: u32,
        entry: Entry,
        clock: &Clock,
    ) -> Result<(), Proof> {
        if let Some(newest) = self.newest(&key, clock)
            && entry.version <= newest.version
        {
            return Err(Proof {
                pattern: Pattern::VersionAgainstCause,
                summary: "a write has a smaller version than a write in its past",
                steps: vec![
                    (newest.label, "wrote the key before"),
                    (entry.label, "has that write in its past and should win over it"),
                ],
            });
        }
        self.clock_cells += clock.len();
        let known = Known { session, index: entry.index, clock: Arc::clone(clock) };
        if let Some(other) = self.known.insert((key.clone(), entry.version), known) {
            let same = self.entries[&key][&other.session].iter();
            let other = same.clone().find(|same| same.version == entry.version);
            return Err(Proof {
                pattern: Pattern::VersionReused,
                summary: "two writes of one key have one version",
                steps: vec![
                    (other.map_or(entry.label, |other| other.label), "wrote with this version"),
                    (entry.label, "wrote with the same version"),
                ],
            });
        }
        self.entries.entry(key).or_default().entry(session).or_default().push(entry);
        Ok(())
    }
}

fn tick(clock: &mut Clock, session: u32, index: u32) {
    let own = Arc::make_mut(clock);
    if own.len() <= session as usize {
        own.resize(session as usize + 1, 0);
    }
    own[session as usize] = index;
}

fn join(clock: &mut Clock, other: &Clock) {
    let own = Arc::make_mut(clock);
    if own.len() < other.len() {
        own.resize(other.len(), 0);
    }
    for (mine, theirs) in own.iter_mut().zip(other.iter()) {
        *mine = (*mine).max(*theirs);
    }
}

/// Judges a finished history by its versions; keys without them are left out.
pub fn check(history: &History, options: OrderOptions) -> Verdict {
    let operations = history.operations();
    if operations.iter().all(|operation| operation.version.is_none()) {
        return Verdict::NothingToCheck { why: "no operation has a version".to_owned() };
    }
    let versionless = keys_without_versions(history);
    let mut online = Online::new();
    let mut skipped = 0u64;
    let mut result = Ok(());
    for group in groups(history) {
        let event = event_of(operations, &group, options, &versionless);
        let parts = event.reads.len() + event.writes.len();
        skipped += group.len().saturating_sub(parts) as u64;
        if parts != 0 && result.is_ok() {
            result = online.observe(event);
        }
        if CLOCK_CELLS_MAX < online.clock_cells {
            let why = format!(
                "{} sessions need more than {CLOCK_CELLS_MAX} clock counters; check a shorter \
                 history",
                online.sessions.len()
            );
            return Verdict::Undecided { why };
        }
    }
    match result.and_then(|()| online.finish()) {
        Ok(0) => Verdict::NothingToCheck { why: "no operation has a version".to_owned() },
        Ok(checked) if skipped == 0 => Verdict::Passed { checked, skipped, note: String::new() },
        Ok(checked) => {
            let note = "eventual or failed operations, and keys without versions".to_owned();
            Verdict::Passed { checked, skipped, note }
        }
        Err(proof) => {
            let mut violation = Violation::new(proof.pattern, proof.summary);
            for (label, why) in proof.steps {
                let place = usize::try_from(label).expect("labels here are places in the history");
                violation = violation.step(history, &operations[place], why);
            }
            violation.into()
        }
    }
}

/// The keys with an acknowledged write, or a read of a value, that has no version.
fn keys_without_versions(history: &History) -> rustc_hash::FxHashSet<Symbol> {
    let lacks = |operation: &&Operation| match operation.outcome {
        _ if operation.version.is_some() => false,
        Outcome::Ok => {
            operation.is_write() || operation.kind == Kind::Read && operation.value.is_some()
        }
        Outcome::Unknown => operation.is_computed(), // No value tells who has read it.
        Outcome::Fail => false,
    };
    history.operations().iter().filter(lacks).map(|operation| operation.key).collect()
}

/// Transactions, as places of operations: sessions in their own order, and nearly as recorded.
fn groups(history: &History) -> Vec<Vec<usize>> {
    let operations = history.operations();
    let mut places: Vec<usize> = (0..operations.len()).collect();
    places.sort_by_key(|&place| (operations[place].session, operations[place].seq));
    let together = |a: &usize, b: &usize| {
        let (a, b) = (&operations[*a], &operations[*b]);
        a.session == b.session && a.txn.is_some() && a.txn == b.txn
    };
    let mut latest = (None, 0);
    let mut groups: Vec<(usize, Vec<usize>)> = Vec::new();
    for group in places.chunk_by(together) {
        let session = operations[group[0]].session;
        let before = if latest.0 == Some(session) { latest.1 } else { 0 };
        latest = (Some(session), group.iter().fold(before, |most, &place| most.max(place)));
        groups.push((latest.1, group.to_vec()));
    }
    groups.sort_by_key(|&(latest, _)| latest); // Stable: sessions keep their order.
    groups.into_iter().map(|(_, group)| group).collect()
}

fn event_of(
    operations: &[Operation],
    group: &[usize],
    options: OrderOptions,
    versionless: &rustc_hash::FxHashSet<Symbol>,
) -> Event<Symbol, Symbol> {
    let of = || group.iter().map(|&place| &operations[place]);
    let is_eventual =
        !options.with_eventual && of().any(|operation| operation.level == Level::Eventual);
    let place = if is_eventual {
        Place::Apart
    } else if of().any(|operation| operation.outcome == Outcome::Unknown) {
        Place::AfterSession
    } else {
        Place::InSession
    };
    let mut event = Event {
        session: operations[group[0]].session,
        label: group[0] as u64,
        place,
        reads: Vec::new(),
        writes: Vec::new(),
    };
    for operation in of() {
        if operation.outcome == Outcome::Fail || versionless.contains(&operation.key) {
            continue;
        }
        let key = operation.key;
        let own = event.writes.iter().position(|write| write.key == key);
        let reads = operation.kind == Kind::Read && place == Place::InSession && own.is_none();
        if reads && let Some(value) = returned(operation) {
            event.reads.push(Read { key, value, version: operation.version });
        }
        if operation.is_write() {
            let value = if operation.is_computed() { Some(key) } else { operation.value };
            let write = Write { key, value, version: operation.version };
            match own {
                Some(own) => event.writes[own] = write,
                None => event.writes.push(write),
            }
        }
    }
    event
}
