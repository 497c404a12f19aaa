//! Makes histories with a correct causal store and a correct register, and breaks them.
//!
//! The store keeps a copy in each datacenter; writes travel in random order and wait for what they
//! depend on; the larger version wins. Everything that it answers must pass every model. Each break
//! is one rule left out of the store, or one answer changed afterwards, and must be found.

use std::collections::BTreeMap;

use antecede_check::{
    History, JudgeOptions, Kind, Level, LinearizableOptions, OrderOptions, Outcome, Pattern,
    Record, Report, Verdict, Version, causal,
    history::FinalRecord,
    judge, linearizable,
    models::MODELS,
    online,
    session::{self, Guarantee},
};

const DCS: usize = 3;
const KEYS: u64 = 6;

/// The rule that the store leaves out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Break {
    Nothing,
    /// Remote writes are applied as they come.
    Dependencies,
    /// What comes last wins, whatever its version.
    Winner,
    /// Sessions move without waiting for their past.
    Moving,
    /// Reads of several keys are not at one moment.
    Snapshot,
    /// A write is acknowledged and thrown away.
    Durability,
    /// The clock does not follow what was read.
    Clock,
}

/// Splitmix: a stream of numbers from one seed.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % limit
    }

    fn place(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).expect("it is below a length")
    }
}

/// How many writes of each datacenter are known.
type Known = [u64; DCS];

#[derive(Clone)]
struct Sent {
    from: usize,
    number: u64,
    needs: Known,
    writes: Vec<(u64, Option<String>)>,
    version: Version,
}

#[derive(Default)]
struct Datacenter {
    state: BTreeMap<u64, (Option<String>, Version)>,
    known: Known,
    clock: u64,
    inbox: Vec<Sent>,
}

#[derive(Clone, Default)]
struct Client {
    session: u64,
    seq: u64,
    dc: usize,
    past: Known,
    time: u64,
}

struct Store {
    broken: Break,
    chance: Chance,
    dcs: Vec<Datacenter>,
    history: History,
    clients: Vec<Client>,
    values: u64,
    now: u64,
    with_versions: bool,
    sessions: u64,
}

impl Store {
    fn run(seed: u64, broken: Break, steps: u64, with_versions: bool) -> History {
        let mut store = Self {
            broken,
            chance: Chance(seed),
            dcs: (0..DCS).map(|_| Datacenter::default()).collect(),
            history: History::new(),
            clients: Vec::new(),
            values: 0,
            now: 1,
            with_versions,
            sessions: 0,
        };
        for number in 0..5 {
            let client = store.new_client(number % DCS);
            store.clients.push(client);
        }
        for _ in 0..steps {
            store.step();
        }
        store.settle();
        store.history
    }

    fn new_client(&mut self, dc: usize) -> Client {
        self.sessions += 1;
        Client { session: self.sessions, dc, ..Client::default() }
    }

    fn step(&mut self) {
        self.now += 10;
        let client = self.chance.place(self.clients.len());
        match self.chance.below(20) {
            0..=5 => self.write(client, 1),
            6 => self.write(client, 2),
            7..=11 => self.read(client, 1),
            12 => self.read(client, 2),
            13 => self.move_client(client),
            _ => {
                let dc = self.chance.place(DCS);
                self.deliver(dc);
            }
        }
    }

    fn deliver(&mut self, dc: usize) {
        let datacenter = &mut self.dcs[dc];
        let may = |sent: &&Sent| {
            let known = &datacenter.known;
            self.broken == Break::Dependencies
                || sent.needs.iter().zip(known).all(|(needs, known)| needs <= known)
        };
        let ready: Vec<usize> =
            (0..datacenter.inbox.len()).filter(|&place| may(&&datacenter.inbox[place])).collect();
        if !ready.is_empty() {
            let place = ready[self.chance.place(ready.len())];
            let sent = self.dcs[dc].inbox.remove(place);
            self.apply(dc, &sent);
        }
    }

    fn apply(&mut self, dc: usize, sent: &Sent) {
        let datacenter = &mut self.dcs[dc];
        for (key, value) in &sent.writes {
            let is_newer =
                datacenter.state.get(key).is_none_or(|(_, version)| *version < sent.version);
            if is_newer || self.broken == Break::Winner {
                datacenter.state.insert(*key, (value.clone(), sent.version));
            }
        }
        let known = &mut datacenter.known[sent.from];
        *known = (*known).max(sent.number);
        if self.broken != Break::Clock {
            datacenter.clock = datacenter.clock.max(sent.version.0);
        }
    }

    fn keys(&mut self, count: usize) -> Vec<u64> {
        let mut keys: Vec<u64> = Vec::new();
        while keys.len() < count {
            let key = self.chance.below(KEYS);
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        keys
    }

    fn write(&mut self, client: usize, count: usize) {
        let Client { dc, past, time, .. } = self.clients[client];
        let is_unknown = self.chance.below(12) == 0;
        let is_done = !is_unknown || self.chance.below(2) == 0;
        let mut writes = Vec::new();
        for key in self.keys(count) {
            self.values += 1;
            let value = (self.chance.below(8) != 0).then(|| format!("v{}", self.values));
            writes.push((key, value));
        }
        let version = self.stamp(dc, time);
        let outcome = if is_unknown { Outcome::Unknown } else { Outcome::Ok };
        for (key, value) in &writes {
            let op = if value.is_some() { Kind::Write } else { Kind::Delete };
            let told = (!is_unknown).then_some(version);
            self.record(client, op, *key, value.clone(), told, outcome, count);
        }
        if is_unknown {
            // The client does not know, and begins a new session.
            let fresh = self.new_client(dc);
            self.clients[client] = fresh;
        }
        let is_lost = self.broken == Break::Durability && self.chance.below(10) == 0;
        if !is_done || is_lost {
            return;
        }
        let number = self.dcs[dc].known[dc] + 1;
        let mut needs: Known = past;
        needs[dc] = number - 1;
        let sent = Sent { from: dc, number, needs, writes, version };
        self.apply(dc, &sent);
        if !is_unknown {
            self.clients[client].past = self.dcs[dc].known.map(|_| 0);
            let past = &mut self.clients[client].past;
            for (mine, needed) in past.iter_mut().zip(sent.needs) {
                *mine = needed;
            }
            past[dc] = number;
            self.clients[client].time = version.0;
        }
        for other in (0..DCS).filter(|&other| other != dc) {
            self.dcs[other].inbox.push(sent.clone());
        }
    }

    fn stamp(&mut self, dc: usize, time: u64) -> Version {
        let follows = if self.broken == Break::Clock { 0 } else { time };
        let datacenter = &mut self.dcs[dc];
        datacenter.clock = datacenter.clock.max(follows) + 1 + self.chance.below(3);
        Version(datacenter.clock, u16::try_from(dc).expect("few"))
    }

    fn read(&mut self, client: usize, count: usize) {
        let dc = self.clients[client].dc;
        for key in self.keys(count) {
            if self.broken == Break::Snapshot {
                self.deliver(dc);
                self.deliver(dc);
            }
            let (value, version) = match self.dcs[dc].state.get(&key) {
                Some((value, version)) => (value.clone(), Some(*version)),
                None => (None, None),
            };
            // Whoever reads here may have seen all that is here: more dependencies than needed.
            let known = self.dcs[dc].known;
            let client_past = &mut self.clients[client].past;
            for (mine, known) in client_past.iter_mut().zip(known) {
                *mine = (*mine).max(known);
            }
            if let Some(version) = version {
                let time = &mut self.clients[client].time;
                *time = (*time).max(version.0);
            }
            self.record(client, Kind::Read, key, value, version, Outcome::Ok, count);
        }
    }

    fn move_client(&mut self, client: usize) {
        let dc = self.chance.place(DCS);
        let past = self.clients[client].past;
        let covered = past.iter().zip(&self.dcs[dc].known).all(|(past, known)| past <= known);
        if covered || self.broken == Break::Moving {
            self.clients[client].dc = dc;
        }
    }

    #[expect(clippy::too_many_arguments, reason = "one argument for each field that varies")]
    fn record(
        &mut self,
        client: usize,
        op: Kind,
        key: u64,
        value: Option<String>,
        version: Option<Version>,
        outcome: Outcome,
        count: usize,
    ) {
        let client = &mut self.clients[client];
        client.seq += 1;
        let mut record = Record::new(client.session, client.seq, op, &format!("k{key}"));
        record.value = value;
        record.version = version.filter(|_| self.with_versions);
        record.dc = u16::try_from(client.dc).expect("few");
        record.call_ns = self.now;
        record.ret_ns = (outcome == Outcome::Ok).then_some(self.now + 5);
        record.outcome = outcome;
        record.level = Level::Causal;
        if count != 1 {
            record.txn = Some(u32::try_from(self.now).expect("small"));
        }
        self.history.push(&record);
    }

    /// Delivers all that is under way, and records what each datacenter holds.
    fn settle(&mut self) {
        for dc in 0..DCS {
            while !self.dcs[dc].inbox.is_empty() {
                self.deliver(dc);
            }
            for key in 0..KEYS {
                let state = self.dcs[dc].state.get(&key);
                self.history.push_final(&FinalRecord {
                    dc: u16::try_from(dc).expect("few"),
                    node: format!("n{dc}"),
                    key: format!("k{key}"),
                    value: state.and_then(|(value, _)| value.clone()),
                    version: state.map(|(_, version)| *version).filter(|_| self.with_versions),
                });
            }
        }
    }
}

fn report(seed: u64, broken: Break, with_versions: bool) -> Report {
    judge(&Store::run(seed, broken, 300, with_versions), &JudgeOptions::default())
}

#[test]
fn a_correct_store_passes_every_model() {
    let mut passed: BTreeMap<&str, u32> = BTreeMap::new();
    for seed in 0..300 {
        let report = report(seed, Break::Nothing, seed % 2 == 0);
        assert!(report.is_clean(), "seed {seed}: {report}");
        for model in report.models.iter().filter(|model| model.verdict.is_passed()) {
            *passed.entry(model.model).or_default() += 1;
        }
    }
    for model in MODELS.iter().filter(|model| model.name != "linearizable") {
        let count = passed.get(model.name).copied().unwrap_or_default();
        assert!(100 < count, "{} had something to check only {count} times", model.name);
    }
}

/// In how many of 100 seeds each model finds the break.
fn found(broken: Break, with_versions: bool) -> BTreeMap<&'static str, u32> {
    let mut found: BTreeMap<&str, u32> = BTreeMap::new();
    for seed in 0..100 {
        for model in report(seed, broken, with_versions).violated() {
            *found.entry(model.model).or_default() += 1;
        }
    }
    found
}

fn check_found(broken: Break, with_versions: bool, models: &[&str]) {
    let found = found(broken, with_versions);
    for model in models {
        let count = found.get(model).copied().unwrap_or_default();
        assert!(8 <= count, "{broken:?} is found by {model} in {count} of 100 runs: {found:?}");
    }
}

#[test]
fn a_store_that_skips_dependencies_is_found() {
    check_found(Break::Dependencies, false, &["causal+", "monotonic writes"]);
    check_found(Break::Dependencies, true, &["causal+", "causal+ by versions"]);
}

#[test]
fn a_store_where_the_last_to_come_wins_is_found() {
    check_found(Break::Winner, false, &["converged"]);
    check_found(Break::Winner, true, &["converged", "causal+ by versions", "durable"]);
}

#[test]
fn sessions_that_move_without_their_past_are_found() {
    check_found(Break::Moving, false, &["causal+", "read your writes", "monotonic reads"]);
    check_found(Break::Moving, true, &["causal+ by versions", "read your writes"]);
}

#[test]
fn reads_of_several_moments_are_found() {
    let torn = |seed| {
        let history = Store::run(seed, Break::Snapshot, 800, true);
        causal::check(&history, OrderOptions::default()).violation().is_some()
            || online::check(&history, OrderOptions::default()).violation().is_some()
    };
    let count = (0..100).filter(|&seed| torn(seed)).count();
    assert!(10 <= count, "found in {count} of 100 runs");
}

#[test]
fn acknowledged_writes_that_are_thrown_away_are_found() {
    check_found(Break::Durability, true, &["durable", "converged"]);
}

#[test]
fn a_clock_that_does_not_follow_reads_is_found() {
    check_found(Break::Clock, true, &["causal+ by versions"]);
}

/// All but reads of nothing, which the online checker excuses by a removal of any time.
#[test]
fn the_offline_checker_finds_nothing_that_versions_excuse() {
    for seed in 0..200 {
        let broken = match seed % 3 {
            0 => Break::Nothing,
            1 => Break::Dependencies,
            _ => Break::Moving,
        };
        let history = Store::run(seed, broken, 120, true);
        let by_versions = online::check(&history, OrderOptions::default());
        let by_patterns = causal::check(&history, OrderOptions::default());
        if by_versions.violation().is_none() {
            let pattern = by_patterns.violation().map(|violation| violation.pattern);
            let is_excused = pattern.is_none() || pattern == Some(Pattern::WriteCOInitRead);
            assert!(is_excused, "seed {seed}: {by_patterns}");
        }
    }
}

/// A correct register used by several clients at once, and the values in the order of its writes.
fn register(seed: u64, clients: u64, count: u64) -> (Vec<Record>, Vec<String>) {
    let mut chance = Chance(seed);
    let mut records = Vec::new();
    let mut state: Option<String> = None;
    let mut values = Vec::new();
    let mut free = vec![0u64; usize::try_from(clients).expect("few")];
    for moment in 0..count {
        // Each operation takes effect at its moment, somewhere between its call and its return.
        let now = (moment + 1) * 100;
        let Some(client) = free.iter().position(|&until| until < now) else { continue };
        let call = free[client].max(now.saturating_sub(chance.below(300)));
        let ret = now + chance.below(300);
        free[client] = ret + 1;
        let session = client as u64;
        let mut record = Record::new(session, moment, Kind::Read, "k").at(0, call, Some(ret));
        match chance.below(4) {
            0 | 1 => record.value.clone_from(&state),
            2 => {
                record.op = Kind::Write;
                record.value = Some(format!("v{moment}"));
                if chance.below(10) == 0 {
                    record.outcome = Outcome::Unknown;
                    record.ret_ns = None;
                }
                state.clone_from(&record.value);
                values.extend(state.clone());
            }
            _ => {
                record.op = Kind::Exchange;
                record.previous.clone_from(&state);
                record.value = Some(format!("v{moment}"));
                state.clone_from(&record.value);
                values.extend(state.clone());
            }
        }
        records.push(record);
    }
    (records, values)
}

fn judged(records: &[Record]) -> Verdict {
    let mut history = History::new();
    for record in records {
        history.push(record);
    }
    linearizable::check(&history, LinearizableOptions::default())
}

#[test]
fn a_correct_register_is_linearizable() {
    for seed in 0..200 {
        let (mut records, _) = register(seed, 6, 200);
        assert!(judged(&records).is_passed(), "seed {seed}: {}", judged(&records));
        records.retain(|record| record.op != Kind::Exchange);
        let written: Vec<Option<String>> = records
            .iter()
            .filter(|record| record.op == Kind::Write)
            .map(|record| record.value.clone())
            .collect();
        records.retain(|record| record.value.is_none() || written.contains(&record.value));
        assert!(judged(&records).is_passed(), "seed {seed}: {}", judged(&records));
    }
}

#[test]
fn a_stale_read_is_found_and_shown_with_few_operations() {
    let mut longest = 0;
    for seed in 0..200 {
        let (mut records, values) = register(seed, 4, 120);
        let ended = |records: &[Record], value: &String, call: u64| {
            records.iter().any(|record| {
                record.op != Kind::Read
                    && record.value.as_ref() == Some(value)
                    && record.ret_ns.is_some_and(|ret| ret < call)
            })
        };
        let reads: Vec<usize> = (0..records.len())
            .filter(|&place| records[place].op == Kind::Read && records[place].value.is_some())
            .collect();
        let Some(&place) = reads.last() else { continue };
        let call = records[place].call_ns;
        // The last value whose write had certainly ended before the read began, and the one before.
        let Some(newest) = values.iter().rposition(|value| ended(&records, value, call)) else {
            continue;
        };
        let Some(older) = newest.checked_sub(2) else { continue };
        let began = records.iter().find(|record| record.value.as_ref() == Some(&values[newest]));
        let stale = values[older].clone();
        let is_over = records.iter().any(|record| {
            record.op != Kind::Read
                && record.value.as_ref() == Some(&stale)
                && record.ret_ns.is_some_and(|ret| began.is_some_and(|it| ret < it.call_ns))
        });
        if !is_over {
            continue;
        }
        records[place].value = Some(stale);
        let verdict = judged(&records);
        let violation = verdict.violation().unwrap_or_else(|| panic!("seed {seed}: {verdict}"));
        assert_eq!(violation.pattern, Pattern::NotLinearizable);
        longest = longest.max(violation.steps.len());
    }
    assert!((1..=16).contains(&longest), "the longest proof has {longest} operations");
}

#[test]
fn counters_and_lists_reveal_lost_updates() {
    let operation = |session, op, value: &str, result, call, ret| {
        let mut record = Record::new(session, call, op, "k").with_value(Some(value));
        record.result = Some(result);
        record.at(0, call, Some(ret))
    };
    let increments = [
        operation(1, Kind::Increment, "5", 5, 0, 10),
        operation(2, Kind::Increment, "-2", 3, 5, 20),
        operation(3, Kind::Increment, "1", 4, 15, 30),
    ];
    assert!(judged(&increments).is_passed());
    let mut lost = increments;
    lost[2].result = Some(6);
    assert_eq!(judged(&lost).violation().map(|it| it.pattern), Some(Pattern::NotLinearizable));

    let mut appends = vec![
        operation(1, Kind::Append, "ab", 2, 0, 10),
        operation(2, Kind::Append, "cd", 4, 20, 30),
        Record::new(3, 40, Kind::Read, "k").with_value(Some("abcd")).at(0, 40, Some(50)),
    ];
    assert!(judged(&appends).is_passed());
    appends[2].value = Some("cdab".to_owned());
    assert!(judged(&appends).violation().is_some());
    appends[2].value = Some("cd".to_owned());
    assert!(judged(&appends).violation().is_some());
}

#[test]
fn too_much_at_once_is_undecided_and_never_passed() {
    let mut records = Vec::new();
    for session in 0..40 {
        let mut record = Record::new(session, 0, Kind::Append, "k");
        record.value = Some(format!("{session},"));
        records.push(record.at(0, 0, Some(1000)));
    }
    records.push(Record::new(99, 0, Kind::Read, "k").with_value(Some("x")).at(0, 500, Some(900)));
    let mut history = History::new();
    records.iter().for_each(|record| history.push(record));
    let options = LinearizableOptions { with_remote_writes: false, work_max: 20_000 };
    let verdict = linearizable::check(&history, options);
    assert!(matches!(verdict, Verdict::Undecided { .. }), "{verdict}");
}

/// Of two ways to one state the one with fewer unknown outcomes that took effect is followed alone.
#[test]
fn many_unknown_outcomes_leave_a_register_decided() {
    let with_answer = |answer: i64| {
        let mut history = History::new();
        for session in 0..60 {
            let mut record = Record::new(session, 0, Kind::WriteIfAbsent, "k");
            (record.value, record.outcome) = (Some(format!("{}", session % 5)), Outcome::Unknown);
            history.push(&record.at(0, session * 10, None));
            let mut record = Record::new(session + 100, 0, Kind::Delete, "k");
            record.outcome = Outcome::Unknown;
            history.push(&record.at(0, session * 10 + 1, None));
            let read = Record::new(200, session, Kind::Read, "k").with_value(Some("0"));
            history.push(&read.at(0, session * 10 + 2, Some(session * 10 + 3)));
        }
        let mut last = Record::new(201, 0, Kind::WriteIfAbsent, "k");
        (last.value, last.result) = (Some("6".to_owned()), Some(1));
        history.push(&last.at(0, 1_000, Some(1_001)));
        let mut last = Record::new(201, 1, Kind::WriteIfAbsent, "k");
        (last.value, last.result) = (Some("7".to_owned()), Some(answer));
        history.push(&last.at(0, 1_002, Some(1_003)));
        let read = Record::new(202, 0, Kind::Read, "k").with_value(Some("6"));
        history.push(&read.at(0, 1_004, Some(1_005)));
        linearizable::check(&history, LinearizableOptions::default())
    };
    let fits = with_answer(0);
    assert!(matches!(fits, Verdict::Passed { .. }), "{fits}");
    let wrong = with_answer(1);
    assert!(wrong.violation().is_some(), "{wrong}");
}

#[test]
fn exact_session_guarantees_are_kept_by_the_correct_store() {
    for seed in 300..400 {
        let history = Store::run(seed, Break::Nothing, 150, true);
        for guarantee in [Guarantee::MonotonicWrites, Guarantee::WritesFollowReads] {
            let verdict = session::check(&history, guarantee, OrderOptions::default());
            assert!(verdict.violation().is_none(), "seed {seed}: {verdict}");
        }
    }
}
