//! Tries every order on tiny histories, and compares the answer with the checkers'.
//!
//! The oracles follow the definitions, not the bad patterns: causal+ holds if there is a total
//! order of the transactions that extends the causal order, in which each read returns the last
//! write of its key among those in its own causal past; a register is linearizable if there is an
//! order of its operations that keeps real time and explains every answer.

use antecede_check::{
    History, Kind, LinearizableOptions, OrderOptions, Outcome, Record, Verdict, Version, causal,
    linearizable, online,
    session::{self, GUARANTEES},
};
use proptest::prelude::*;

/// A read (returning the value, 0 is absent) or a write, of a key, by a session.
#[derive(Clone, Copy, Debug)]
struct Act {
    session: usize,
    transaction: usize,
    key: u8,
    value: u32,
    is_write: bool,
}

fn history_of(acts: &[Act]) -> History {
    let mut history = History::new();
    for (seq, act) in (0u64..).zip(acts) {
        let op = if act.is_write { Kind::Write } else { Kind::Read };
        let value = (act.value != 0).then(|| act.value.to_string());
        let mut record = Record::new(act.session as u64, seq, op, &act.key.to_string())
            .with_value(value.as_deref())
            .at(0, 0, Some(1));
        record.txn = Some(u32::try_from(act.transaction).expect("few"));
        history.push(&record);
    }
    history
}

/// Transactions of the acts: for each its session and its acts.
fn transactions(acts: &[Act]) -> Vec<(usize, Vec<Act>)> {
    let mut found: Vec<(usize, Vec<Act>)> = Vec::new();
    let mut names = Vec::new();
    for act in acts {
        match names.iter().position(|&name| name == (act.session, act.transaction)) {
            Some(place) => found[place].1.push(*act),
            None => {
                names.push((act.session, act.transaction));
                found.push((act.session, vec![*act]));
            }
        }
    }
    found
}

fn writer(all: &[(usize, Vec<Act>)], key: u8, value: u32) -> Option<usize> {
    all.iter().position(|(_, acts)| {
        acts.iter().any(|act| act.is_write && act.key == key && act.value == value)
    })
}

/// The transitive closure of session order and reads-from; `None` for a read from thin air.
fn causal_order(all: &[(usize, Vec<Act>)]) -> Option<Vec<Vec<bool>>> {
    let count = all.len();
    let mut before = vec![vec![false; count]; count];
    for later in 0..count {
        for earlier in 0..later {
            before[earlier][later] |= all[earlier].0 == all[later].0;
        }
        for read in all[later].1.iter().filter(|act| !act.is_write && act.value != 0) {
            let from = writer(all, read.key, read.value)?;
            before[from][later] = true;
        }
    }
    for middle in 0..count {
        for a in 0..count {
            for b in 0..count {
                before[a][b] |= before[a][middle] && before[middle][b];
            }
        }
    }
    Some(before)
}

fn is_causal(acts: &[Act]) -> bool {
    let all = transactions(acts);
    let Some(before) = causal_order(&all) else { return false };
    if (0..all.len()).any(|node| before[node][node]) {
        return false;
    }
    let mut order = Vec::new();
    some_order(&all, &before, &mut order)
}

/// Whether the order can be completed so that every read returns the last write in its past.
fn some_order(all: &[(usize, Vec<Act>)], before: &[Vec<bool>], order: &mut Vec<usize>) -> bool {
    if order.len() == all.len() {
        return (0..all.len()).all(|node| explains(all, before, order, node));
    }
    for next in 0..all.len() {
        let is_free = !order.contains(&next)
            && (0..all.len()).all(|other| !before[other][next] || order.contains(&other));
        if is_free {
            order.push(next);
            if some_order(all, before, order) {
                return true;
            }
            order.pop();
        }
    }
    false
}

fn explains(all: &[(usize, Vec<Act>)], before: &[Vec<bool>], order: &[usize], node: usize) -> bool {
    all[node].1.iter().filter(|act| !act.is_write).all(|read| {
        let past = order.iter().rev().filter(|&&other| before[other][node]);
        let mut writes = past.flat_map(|&other| all[other].1.iter().rev());
        let last = writes.find(|act| act.is_write && act.key == read.key);
        last.map_or(0, |act| act.value) == read.value
    })
}

/// Up to six acts of three sessions on two keys; each transaction writes or reads.
fn some_acts() -> impl Strategy<Value = Vec<Act>> {
    let act = (0..3usize, any::<bool>(), 0..2u8, 0..5u32, any::<bool>());
    proptest::collection::vec(act, 1..=6).prop_map(|drawn| {
        let mut acts: Vec<Act> = Vec::new();
        let mut value = 0;
        for (place, (session, is_write, key, read, joins)) in drawn.into_iter().enumerate() {
            let previous = acts.iter().rev().find(|act| act.session == session).copied();
            let same = previous.filter(|previous| {
                let twice = |act: &&Act| {
                    act.transaction == previous.transaction
                        && act.session == session
                        && act.key == key
                };
                joins && previous.is_write == is_write && !acts.iter().any(|act| twice(&act))
            });
            let transaction = same.map_or(place, |previous| previous.transaction);
            value += u32::from(is_write);
            let value = if is_write { value } else { read };
            acts.push(Act { session, transaction, key, value, is_write });
        }
        // A read returns something that was written to its key, nearly always.
        let written: Vec<Act> = acts.iter().filter(|act| act.is_write).copied().collect();
        for act in acts.iter_mut().filter(|act| !act.is_write) {
            let fits: Vec<u32> =
                written.iter().filter(|write| write.key == act.key).map(|act| act.value).collect();
            let choice = act.value as usize;
            act.value = if choice == 4 && fits.len() < 4 {
                if fits.is_empty() { 0 } else { fits[choice % fits.len()] }
            } else {
                fits.get(choice).copied().unwrap_or(0)
            };
        }
        acts
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn causal_agrees_with_every_order_tried(acts in some_acts()) {
        let verdict = causal::check(&history_of(&acts), OrderOptions::default());
        prop_assert_eq!(verdict.violation().is_none(), is_causal(&acts), "{}", verdict);
    }

    #[test]
    fn what_is_causal_keeps_the_session_guarantees(acts in some_acts()) {
        if is_causal(&acts) {
            let history = history_of(&acts);
            for guarantee in GUARANTEES {
                let verdict = session::check(&history, guarantee, OrderOptions::default());
                prop_assert!(verdict.violation().is_none(), "{}", verdict);
            }
        }
    }

    #[test]
    fn a_broken_session_guarantee_breaks_causal(acts in some_acts()) {
        let history = history_of(&acts);
        let is_broken = GUARANTEES.into_iter().any(|guarantee| {
            session::check(&history, guarantee, OrderOptions::default()).violation().is_some()
        });
        if is_broken {
            prop_assert!(!is_causal(&acts));
        }
    }

    #[test]
    fn versions_agree_with_the_order_that_they_name(
        acts in some_acts(), keys in proptest::collection::vec(any::<u8>(), 8),
    ) {
        let all = transactions(&acts);
        prop_assume!(causal_order(&all).is_some());
        let version = |node: usize| Version(u64::from(keys[node]), u16::try_from(node).unwrap());
        let verdict = online::check(&with_versions(&acts, &all, &version), OrderOptions::default());
        prop_assert_eq!(
            verdict.violation().is_none(),
            fits_versions(&all, &version),
            "{}", verdict
        );
    }
}

fn with_versions(
    acts: &[Act],
    all: &[(usize, Vec<Act>)],
    version: &dyn Fn(usize) -> Version,
) -> History {
    let plain = history_of(acts);
    let mut history = History::new();
    for (operation, act) in plain.operations().iter().zip(acts) {
        let mut record = plain.record(operation);
        record.version = writer(all, act.key, act.value).filter(|_| act.value != 0).map(version);
        history.push(&record);
    }
    history
}

/// The definition of causal+ for one given order of the writes of each key.
fn fits_versions(all: &[(usize, Vec<Act>)], version: &dyn Fn(usize) -> Version) -> bool {
    let before = causal_order(all).expect("checked by the caller");
    let writes =
        |node: usize, key: u8| all[node].1.iter().any(|act| act.is_write && act.key == key);
    (0..all.len()).all(|node| {
        let past = || (0..all.len()).filter(|&other| before[other][node]);
        let acts = &all[node].1;
        !before[node][node]
            && acts.iter().all(|act| {
                let newest = past().filter(|&other| writes(other, act.key)).map(version).max();
                if act.is_write {
                    newest < Some(version(node))
                } else {
                    let returned = writer(all, act.key, act.value).filter(|_| act.value != 0);
                    newest <= returned.map(version)
                }
            })
    })
}

/// An operation on one register, with times.
#[derive(Clone, Debug)]
struct Timed {
    kind: Kind,
    value: Option<u32>,
    previous: Option<u32>,
    result: Option<i64>,
    call: u64,
    ret: u64,
    is_unknown: bool,
}

impl Timed {
    fn end(&self) -> u64 {
        if self.is_unknown { u64::MAX } else { self.ret }
    }

    /// The state after it, if its answer fits the state before.
    fn step(&self, state: Option<u32>) -> Option<Option<u32>> {
        let told = |fits: bool, next| (self.is_unknown || fits).then_some(next);
        let was = i64::from(state.is_some());
        match self.kind {
            Kind::Read => told(state == self.value, state),
            Kind::Write => Some(self.value),
            Kind::Delete => told(self.result.is_none_or(|result| result == was), None),
            Kind::WriteIfAbsent => {
                told(self.result == Some(1 - was), if was == 0 { self.value } else { state })
            }
            Kind::Exchange => told(self.previous == state, self.value),
            Kind::Append | Kind::Increment => unreachable!("not drawn"),
        }
    }
}

fn is_linearizable(all: &[Timed]) -> bool {
    fn go(all: &[Timed], done: u32, state: Option<u32>) -> bool {
        let left = || (0..all.len()).filter(|&place| done & (1 << place) == 0);
        if left().all(|place| all[place].is_unknown) {
            return true;
        }
        left().any(|next| {
            let is_first = left().all(|other| all[other].end() >= all[next].call);
            is_first && all[next].step(state).is_some_and(|state| go(all, done | 1 << next, state))
        })
    }
    go(all, 0, None)
}

fn register_of(all: &[Timed]) -> History {
    let mut history = History::new();
    let text = |value: Option<u32>| value.map(|value| value.to_string());
    for (session, timed) in (0u64..).zip(all) {
        let mut record = Record::new(session, 0, timed.kind, "k");
        record.value = text(timed.value);
        record.previous = text(timed.previous);
        record.result = timed.result;
        record.call_ns = timed.call;
        record.ret_ns = (!timed.is_unknown).then_some(timed.ret);
        record.outcome = if timed.is_unknown { Outcome::Unknown } else { Outcome::Ok };
        history.push(&record);
    }
    history
}

/// At most six operations; of eight that change something `unknown` have an unknown outcome.
fn some_register(kinds: &'static [Kind], unknown: u8) -> impl Strategy<Value = Vec<Timed>> {
    let timed = (0..kinds.len(), 0..4u32, 0..4u32, any::<bool>(), 0..12u64, 0..6u64, 0..8u8);
    proptest::collection::vec(timed, 1..=6).prop_map(move |drawn| {
        let mut written = 0;
        let draw = |value: u32| (value != 0).then_some(value);
        let mut all = Vec::new();
        for (kind, value, previous, result, call, length, fate) in drawn {
            let kind = kinds[kind];
            let is_removal = kind == Kind::Delete || kind == Kind::Exchange && result;
            let value = if kind == Kind::Read {
                draw(value)
            } else if is_removal {
                None
            } else {
                written += 1;
                Some(written)
            };
            let has_result = kind == Kind::Delete || kind == Kind::WriteIfAbsent;
            let is_unknown = fate < unknown && kind != Kind::Read;
            all.push(Timed {
                kind,
                value,
                previous: if kind == Kind::Exchange { draw(previous) } else { None },
                result: (has_result && !is_unknown).then_some(i64::from(result)),
                call,
                ret: call + length,
                is_unknown,
            });
        }
        all
    })
}

fn judged(all: &[Timed]) -> Verdict {
    linearizable::check(&register_of(all), LinearizableOptions::default())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn a_plain_register_agrees_with_every_order_tried(
        all in some_register(&[Kind::Read, Kind::Read, Kind::Write], 1),
    ) {
        let verdict = judged(&all);
        prop_assert_eq!(verdict.violation().is_none(), is_linearizable(&all), "{}", verdict);
    }

    #[test]
    fn a_register_with_conditions_agrees_with_every_order_tried(
        all in some_register(
            &[Kind::Read, Kind::Write, Kind::Delete, Kind::WriteIfAbsent, Kind::Exchange],
            1,
        ),
    ) {
        let verdict = judged(&all);
        let is_undecided = matches!(verdict, Verdict::Undecided { .. });
        prop_assert!(!is_undecided, "{}", verdict);
        prop_assert_eq!(verdict.violation().is_none(), is_linearizable(&all), "{}", verdict);
    }

    #[test]
    fn a_register_with_many_unknown_outcomes_agrees_with_every_order_tried(
        all in some_register(
            &[Kind::Read, Kind::Read, Kind::Write, Kind::Delete, Kind::WriteIfAbsent, Kind::Exchange],
            5,
        ),
    ) {
        let verdict = judged(&all);
        let is_undecided = matches!(verdict, Verdict::Undecided { .. });
        prop_assert!(!is_undecided, "{}", verdict);
        prop_assert_eq!(verdict.violation().is_none(), is_linearizable(&all), "{}", verdict);
    }
}
