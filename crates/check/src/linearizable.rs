//! Checks that each key is a linearizable register inside each datacenter.
//!
//! Keys are independent (linearizability is local; Herlihy and Wing), so each key of each datacenter
//! is judged alone. Where only unique values are read and written, `zones` decides in one sweep.
//! Else the search goes forward in time and keeps every state that the key can be in, together with
//! which of the open operations have already taken effect; an operation takes effect only when an
//! answer forces it (Lowe, "Testing for linearizability", 2017). An operation with an unknown
//! outcome stays open for ever. It may take effect later or never, so of two ways to one state in
//! which the same others have taken effect the one with fewer such effects can do all that the
//! other one can, and the other one is not followed. Those that do the same take effect in the order
//! of their calls, since one is as good as another.
//!
//! By default only the keys whose writes all began in one datacenter are judged, and there only:
//! elsewhere a key changes without a local operation. On request writes of other datacenters take
//! part as operations with an unknown outcome.
//!
//! Reads at levels below linearizable are left out; writes of all levels pass through the chain.
//!
//! Limits: `work_max` configurations a key and `OPEN_MAX` operations open at once; beyond, the
//! answer is `Undecided`, with the key.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use rustc_hash::{FxHashMap, FxHashSet};

use crate::{
    history::{History, Kind, Operation, Outcome, Symbol},
    verdict::{Pattern, Verdict, Violation},
    zones::{self, Span},
};

/// Operations of one key that may be open at once.
const OPEN_MAX: usize = 128;

/// Comparisons that take about as long as a configuration otherwise does.
const COMPARED_AT_ONCE: u64 = 64;

/// Of a proof, how many operations are shown that had ended, and that were under way.
const ENDED_SHOWN: usize = 3;
const UNDER_WAY_SHOWN: usize = 12;

/// States of the key that a proof names.
const STATES_SHOWN: usize = 4;

/// What is judged, and how long.
#[derive(Clone, Copy, Debug)]
pub struct LinearizableOptions {
    /// Whether keys that several datacenters write are judged too, with the writes of the others
    /// as operations of unknown outcome.
    pub with_remote_writes: bool,
    /// Configurations that may be visited for one key.
    pub work_max: u64,
}

impl Default for LinearizableOptions {
    fn default() -> Self {
        Self { with_remote_writes: false, work_max: 2_000_000 }
    }
}

/// Judges whether each key is a linearizable register inside its datacenter.
pub fn check(history: &History, options: LinearizableOptions) -> Verdict {
    let mut checked = 0;
    let mut undecided: Option<String> = None;
    let mut undecided_count = 0;
    let registers = registers(history, options);
    for register in registers.values() {
        match check_register(history, register, options) {
            Ok(()) => checked += register.len() as u64,
            Err(Stop::Violated(violation)) => return violation.into(),
            Err(Stop::Undecided(why)) => {
                undecided_count += 1;
                undecided.get_or_insert(why);
            }
        }
    }
    if let Some(why) = undecided {
        let why = format!(
            "{undecided_count} of {} keys could not be decided; the first: {why}",
            registers.len()
        );
        return Verdict::Undecided { why };
    }
    let skipped = (history.operations().len() as u64).saturating_sub(checked);
    match checked {
        0 => Verdict::NothingToCheck {
            why: "no key with linearizable reads or conditional writes is written in one \
                  datacenter only"
                .to_owned(),
        },
        _ if skipped == 0 => Verdict::passed(checked, ""),
        _ => {
            let note = "keys that several datacenters write, reads below linearizable, failed \
                        operations, operations in other datacenters than the key's"
                .to_owned();
            Verdict::Passed { checked, skipped, note }
        }
    }
}

enum Stop {
    Violated(Violation),
    Undecided(String),
}

/// One operation on a register; of another datacenter, if it is only replicated here.
#[derive(Clone, Copy)]
struct Act<'h> {
    operation: &'h Operation,
    is_remote: bool,
}

impl Act<'_> {
    fn is(&self, operation: &Operation) -> bool {
        std::ptr::eq(self.operation, operation)
    }

    fn is_open(&self) -> bool {
        self.is_remote || self.operation.outcome == Outcome::Unknown
    }

    fn ret(&self) -> u64 {
        if self.is_open() { u64::MAX } else { self.operation.ret_ns.unwrap_or(u64::MAX) }
    }
}

type Registers<'h> = BTreeMap<(u16, Symbol), Vec<Act<'h>>>;

/// The operations that count, by datacenter and key; only registers that can be wrong.
fn registers(history: &History, options: LinearizableOptions) -> Registers<'_> {
    let mut homes: FxHashMap<Symbol, Vec<u16>> = FxHashMap::default();
    for operation in history.operations() {
        if operation.is_write() && operation.outcome != Outcome::Fail {
            let homes = homes.entry(operation.key).or_default();
            if !homes.contains(&operation.dc) {
                homes.push(operation.dc);
            }
        }
    }
    let mut registers = Registers::new();
    for operation in history.operations() {
        let homes = homes.get(&operation.key).map_or(&[][..], Vec::as_slice);
        let is_home = match homes {
            [] => true,
            [home] => *home == operation.dc,
            _ => false,
        };
        let counts = operation.is_write() || operation.level.is_linearizable();
        let is_lost_read = !operation.is_write() && operation.outcome == Outcome::Unknown;
        let is_judged = is_home || options.with_remote_writes;
        if operation.outcome == Outcome::Fail || !counts || is_lost_read || !is_judged {
            continue;
        }
        let register = registers.entry((operation.dc, operation.key)).or_default();
        register.push(Act { operation, is_remote: false });
    }
    if options.with_remote_writes {
        add_remote_writes(history, &mut registers);
    }
    registers.retain(|_, register| register.iter().any(tells_something));
    registers
}

/// Whether the answer of an operation depends on the state.
fn tells_something(act: &Act<'_>) -> bool {
    let operation = act.operation;
    operation.outcome == Outcome::Ok
        && !act.is_remote
        && match operation.kind {
            Kind::Read | Kind::Exchange => true,
            Kind::Delete | Kind::WriteIfAbsent | Kind::Append | Kind::Increment => {
                operation.result.is_some()
            }
            Kind::Write => false,
        }
}

fn add_remote_writes<'h>(history: &'h History, registers: &mut Registers<'h>) {
    let dcs: Vec<u16> = {
        let mut dcs: Vec<u16> = registers.keys().map(|&(dc, _)| dc).collect();
        dcs.sort_unstable();
        dcs.dedup();
        dcs
    };
    for operation in history.operations() {
        if !operation.is_write() || operation.outcome == Outcome::Fail {
            continue;
        }
        for &dc in dcs.iter().filter(|&&dc| dc != operation.dc) {
            if let Some(register) = registers.get_mut(&(dc, operation.key)) {
                register.push(Act { operation, is_remote: true });
            }
        }
    }
}

fn check_register(
    history: &History,
    register: &[Act<'_>],
    options: LinearizableOptions,
) -> Result<(), Stop> {
    let acts = without_idle_writes(register);
    if let Some(spans) = spans(history, &acts)? {
        return match zones::clash(&spans) {
            None => Ok(()),
            Some(clash) => {
                let summary = "no order of these operations in real time explains their answers";
                let mut violation = Violation::new(Pattern::NotLinearizable, summary);
                for (place, why) in clash {
                    violation = violation.step(history, acts[place].operation, why);
                }
                Err(Stop::Violated(violation))
            }
        };
    }
    search(history, &acts, options.work_max)
}

/// Leaves out open writes that nobody observed. Without them, what remains fits exactly if it did
/// with them, unless an answer depends on mere presence or on the length of the value.
fn without_idle_writes<'h>(register: &[Act<'h>]) -> Vec<Act<'h>> {
    let observed: FxHashSet<Option<Symbol>> = register
        .iter()
        .filter(|act| act.operation.outcome == Outcome::Ok && !act.is_remote)
        .filter_map(|act| match act.operation.kind {
            Kind::Read => Some(act.operation.value),
            Kind::Exchange => Some(act.operation.previous),
            Kind::Write | Kind::Delete | Kind::WriteIfAbsent | Kind::Append | Kind::Increment => {
                None
            }
        })
        .collect();
    let is_plain = register.iter().all(|act| match act.operation.kind {
        Kind::Read | Kind::Write | Kind::Exchange => true,
        Kind::Delete | Kind::WriteIfAbsent | Kind::Append | Kind::Increment => false,
    });
    let is_idle = |act: &Act<'_>| {
        is_plain
            && act.is_open()
            && match act.operation.kind {
                Kind::Write | Kind::Exchange => !observed.contains(&act.operation.value),
                Kind::Read
                | Kind::Delete
                | Kind::WriteIfAbsent
                | Kind::Append
                | Kind::Increment => false,
            }
    };
    register.iter().filter(|act| !is_idle(act)).copied().collect()
}

/// The register as clusters of unique values, if it is nothing but plain reads and writes.
fn spans(history: &History, acts: &[Act<'_>]) -> Result<Option<Vec<Span>>, Stop> {
    let mut clusters: FxHashMap<Symbol, usize> = FxHashMap::default();
    for act in acts {
        match (act.operation.kind, act.operation.value) {
            (Kind::Read, _) => {}
            (Kind::Write, Some(value)) => {
                let cluster = clusters.len() + 1;
                if clusters.insert(value, cluster).is_some() {
                    return Ok(None); // A repeated value; the search can do without uniqueness.
                }
            }
            (
                Kind::Write
                | Kind::Delete
                | Kind::WriteIfAbsent
                | Kind::Exchange
                | Kind::Append
                | Kind::Increment,
                _,
            ) => return Ok(None),
        }
    }
    let mut spans = Vec::with_capacity(acts.len());
    for (place, act) in acts.iter().enumerate() {
        let operation = act.operation;
        let cluster = match operation.value {
            None => 0,
            Some(value) => match clusters.get(&value) {
                Some(&cluster) => cluster,
                None => {
                    let summary = "the value was never written to this key";
                    let violation = Violation::new(Pattern::ThinAirRead, summary);
                    return Err(Stop::Violated(violation.step(history, operation, "returned it")));
                }
            },
        };
        let is_write = operation.is_write();
        spans.push(Span { place, cluster, is_write, call: operation.call_ns, ret: act.ret() });
    }
    Ok(Some(spans))
}

fn search(history: &History, acts: &[Act<'_>], work_max: u64) -> Result<(), Stop> {
    let stuck = match Search::new(history, acts, work_max).run(u64::MAX) {
        Found::Fits => return Ok(()),
        Found::GaveUp(why) => {
            let key = acts.first().map_or("", |act| history.name(act.operation.key));
            return Err(Stop::Undecided(format!("key {key}: {why}")));
        }
        Found::Stuck(stuck) => stuck,
    };
    let last = acts[stuck].operation;
    let mut again = Search::new(history, acts, work_max);
    // Up to its call everything fitted, so this run ends there.
    let _fits = again.run(last.call_ns);
    Err(Stop::Violated(proof(history, acts, last, &again.states())))
}

/// The proof that `last` fits none of the states that the key could be in when it was called: what
/// was under way since then, and the few operations that had ended last.
fn proof(history: &History, acts: &[Act<'_>], last: &Operation, states: &[String]) -> Violation {
    let call = last.call_ns;
    let end = last.ret_ns.unwrap_or(u64::MAX);
    let mut ended: Vec<&Act<'_>> = acts.iter().filter(|act| act.ret() < call).collect();
    ended.sort_by_key(|act| (act.ret(), act.operation.call_ns));
    let ended = ended.split_off(ended.len().saturating_sub(ENDED_SHOWN));
    let is_under_way =
        |act: &&Act<'_>| call <= act.ret() && act.operation.call_ns <= end && !act.is(last);
    let mut under_way: Vec<&Act<'_>> = acts.iter().filter(is_under_way).collect();
    under_way.sort_by_key(|act| (act.operation.call_ns, act.ret()));

    let hidden = under_way.len().saturating_sub(UNDER_WAY_SHOWN);
    let mut summary = format!(
        "the answer fits no order in real time; when it was asked for, the key could only be {}",
        states[..states.len().min(STATES_SHOWN)].join(" or ")
    );
    if STATES_SHOWN < states.len() {
        summary += &format!(" or {} more", states.len() - STATES_SHOWN);
    }
    if hidden != 0 {
        summary += &format!("; {hidden} operations under way are not shown");
    }
    let mut violation = Violation::new(Pattern::NotLinearizable, summary);
    for act in ended {
        violation = violation.step(history, act.operation, "had ended before");
    }
    for act in under_way.into_iter().skip(hidden) {
        let why = if act.is_remote {
            "may have arrived from the other datacenter at any time"
        } else {
            "was under way, and may come before or after"
        };
        violation = violation.step(history, act.operation, why);
    }
    violation.step(history, last, "gave an answer that does not fit")
}

/// A state of a key: absent, or the number of a text.
type State = Option<u32>;

/// What stands for a string: its length and a polynomial hash, so that a long list of appends
/// needs no copy of the value for each state.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Text {
    length: u64,
    hash: u64,
}

impl Text {
    /// A prime, so that different texts of one length have one hash once in 2^61 pairs.
    const MODULUS: u128 = (1 << 61) - 1;
    const BASE: u128 = 0x0ACE_55ED_1234_5677;

    fn of(text: &str) -> Self {
        let empty = Self { length: 0, hash: 0 };
        text.bytes()
            .fold(empty, |text, byte| text.with(Self { length: 1, hash: u64::from(byte) + 1 }))
    }

    /// This text with another at its end.
    fn with(self, part: Self) -> Self {
        let mut shift = 1;
        let mut power = Self::BASE;
        let mut exponent = part.length;
        while 0 < exponent {
            if exponent & 1 == 1 {
                shift = shift * power % Self::MODULUS;
            }
            power = power * power % Self::MODULUS;
            exponent >>= 1;
        }
        let hash = (u128::from(self.hash) * shift + u128::from(part.hash)) % Self::MODULUS;
        let hash = u64::try_from(hash).expect("the modulus is below 2^61");
        Self { length: self.length.saturating_add(part.length), hash }
    }
}

/// A text that states refer to.
struct Known {
    text: Text,
    /// What it is as a number, if it is one.
    integer: Option<i64>,
    /// What it is; `None` if only an append made it.
    shown: Option<String>,
}

/// Where the key may be: its state, and which of the open operations have taken effect.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Configuration {
    state: State,
    effects: u128,
}

enum Found {
    Fits,
    /// No configuration is left when this operation returns.
    Stuck(usize),
    GaveUp(String),
}

struct Search<'a, 'h> {
    acts: &'a [Act<'h>],
    /// Values of the history, and those that appends and increments make.
    known: Vec<Known>,
    numbers: FxHashMap<Text, u32>,
    /// The numbers of the values of each operation.
    values: Vec<State>,
    previous: Vec<State>,
    configurations: Vec<Configuration>,
    /// Which operation stands at which bit of `effects`.
    slots: Vec<Option<usize>>,
    /// The bits of operations that stay open for ever.
    endless: u128,
    /// For each slot of such an operation, the bits of those that do the same and were called before.
    twins: Vec<u128>,
    work_left: u64,
}

/// Configurations that were found, without those that can do no more than another one.
#[derive(Default)]
struct Front {
    /// The sets of endless operations that have taken effect, for each state and set of the others.
    found: FxHashMap<Configuration, Vec<u128>>,
    /// How many of them were compared.
    compared: u64,
}

impl Front {
    /// Whether it leads to more than what was added before.
    fn add(&mut self, configuration: Configuration, endless: u128) -> bool {
        let effects = configuration.effects & endless;
        let rest = Configuration { effects: configuration.effects & !endless, ..configuration };
        let found = self.found.entry(rest).or_default();
        self.compared += found.len() as u64;
        if found.iter().any(|fewer| fewer & effects == *fewer) {
            return false;
        }
        found.retain(|more| more & effects != effects);
        found.push(effects);
        true
    }

    /// What is left.
    fn into_configurations(self) -> Vec<Configuration> {
        let found = self.found.into_iter().flat_map(|(rest, found)| {
            let with = move |effects| Configuration { effects: rest.effects | effects, ..rest };
            found.into_iter().map(with)
        });
        let mut found: Vec<Configuration> = found.collect();
        found.sort_unstable_by_key(|it| (it.effects.count_ones(), it.effects, it.state));
        found
    }
}

impl<'a, 'h> Search<'a, 'h> {
    fn new(history: &History, acts: &'a [Act<'h>], work_max: u64) -> Self {
        let mut search = Self {
            acts,
            known: Vec::new(),
            numbers: FxHashMap::default(),
            values: Vec::new(),
            previous: Vec::new(),
            configurations: vec![Configuration { state: None, effects: 0 }],
            slots: Vec::new(),
            endless: 0,
            twins: Vec::new(),
            work_left: work_max,
        };
        for act in acts {
            let value = act.operation.value.map(|value| search.value(history.name(value)));
            search.values.push(value);
            let previous = act.operation.previous.map(|value| search.value(history.name(value)));
            search.previous.push(previous);
        }
        search
    }

    fn value(&mut self, shown: &str) -> u32 {
        let integer = shown.parse().ok();
        self.number(Known { text: Text::of(shown), integer, shown: Some(shown.to_owned()) })
    }

    fn number(&mut self, known: Known) -> u32 {
        if let Some(&number) = self.numbers.get(&known.text) {
            return number;
        }
        let number = u32::try_from(self.known.len()).expect("bounded by the work");
        self.numbers.insert(known.text, number);
        self.known.push(known);
        number
    }

    /// Goes on to the end, or to the first return at or after `until`.
    fn run(&mut self, until: u64) -> Found {
        // Calls come before returns of the same moment: operations that touch overlap.
        let mut moments: Vec<(u64, bool, usize)> = Vec::with_capacity(self.acts.len() * 2);
        for (place, act) in self.acts.iter().enumerate() {
            moments.push((act.operation.call_ns, false, place));
            if !act.is_open() {
                moments.push((act.ret(), true, place));
            }
        }
        moments.sort_unstable();
        for (moment, is_return, place) in moments {
            if !is_return {
                if let Err(why) = self.open(place) {
                    return Found::GaveUp(why);
                }
                continue;
            }
            if until <= moment {
                return Found::Fits;
            }
            match self.settle(place) {
                None => {
                    let why = "too many operations overlap; use more keys or fewer clients";
                    return Found::GaveUp(why.to_owned());
                }
                Some(next) if next.is_empty() => return Found::Stuck(place),
                Some(next) => self.configurations = next,
            }
        }
        Found::Fits
    }

    /// What the key may be now, each state once.
    fn states(&self) -> Vec<String> {
        let told = |state: State| match state.map(|state| &self.known[state as usize]) {
            None => "(absent)".to_owned(),
            Some(Known { shown: Some(shown), .. }) => shown.clone(),
            Some(Known { text, .. }) => format!("a value of {} bytes", text.length),
        };
        let states = self.configurations.iter().map(|configuration| configuration.state);
        let states: BTreeSet<String> = states.map(told).collect();
        states.into_iter().collect()
    }

    fn open(&mut self, place: usize) -> Result<(), String> {
        let free = self.slots.iter().position(Option::is_none);
        let slot = free.unwrap_or(self.slots.len());
        if slot == OPEN_MAX {
            return Err(format!(
                "more than {OPEN_MAX} operations are open at once; use more keys, or end a run \
                 with fewer unknown outcomes"
            ));
        }
        let slots = self.slots.len().max(slot + 1);
        self.slots.resize(slots, None);
        self.twins.resize(slots, 0);
        self.slots[slot] = Some(place);
        self.twins[slot] = 0;
        if self.acts[place].is_open() {
            let kind = |place: usize| (self.acts[place].operation.kind, self.values[place]);
            let is_twin = |other: usize| {
                let is_endless = self.endless & 1 << other != 0;
                is_endless && self.slots[other].is_some_and(|other| kind(other) == kind(place))
            };
            self.twins[slot] =
                (0..slots).filter(|other| is_twin(*other)).map(|other| 1 << other).sum();
            self.endless |= 1 << slot;
        }
        Ok(())
    }

    /// All configurations in which `place` has taken effect, with its slot free again.
    fn settle(&mut self, place: usize) -> Option<Vec<Configuration>> {
        let slot = self.slots.iter().position(|slot| *slot == Some(place)).expect("it was called");
        let bit = 1u128 << slot;
        let (mut seen, mut settled) = (Front::default(), Front::default());
        // In the order of how much has taken effect, so that little is followed in vain.
        let mut todo = VecDeque::with_capacity(self.configurations.len());
        for configuration in std::mem::take(&mut self.configurations) {
            let configuration = self.with_reads(configuration);
            if seen.add(configuration, self.endless) {
                todo.push_back(configuration);
            }
        }
        while let Some(configuration) = todo.pop_front() {
            self.work_left = self.work_left.checked_sub(1)?;
            if self.work_left < seen.compared / COMPARED_AT_ONCE {
                return None;
            }
            if configuration.effects & bit != 0 {
                let done = Configuration { effects: configuration.effects & !bit, ..configuration };
                settled.add(done, self.endless);
                continue;
            }
            for open in 0..self.slots.len() {
                let Some(other) = self.slots[open] else { continue };
                let effect = 1u128 << open;
                let is_before = self.twins[open] & !configuration.effects == 0;
                if configuration.effects & effect != 0 || !is_before {
                    continue;
                }
                let Some(state) = self.step(configuration.state, other) else { continue };
                let effects = configuration.effects | effect;
                let next = self.with_reads(Configuration { state, effects });
                if seen.add(next, self.endless) {
                    todo.push_back(next);
                }
            }
        }
        self.slots[slot] = None;
        self.work_left = self.work_left.saturating_sub(seen.compared / COMPARED_AT_ONCE);
        Some(settled.into_configurations())
    }

    /// The same with every open operation done that fits and has no effect: to do it at once never
    /// makes anything else harder.
    fn with_reads(&mut self, mut configuration: Configuration) -> Configuration {
        for open in 0..self.slots.len() {
            let effect = 1u128 << open;
            if let Some(place) = self.slots[open]
                && configuration.effects & effect == 0
                && !self.acts[place].operation.is_write()
                && self.step(configuration.state, place).is_some()
            {
                configuration.effects |= effect;
            }
        }
        configuration
    }

    /// The state after an operation; `None` if its answer does not fit the state before.
    fn step(&mut self, state: State, place: usize) -> Option<State> {
        let act = self.acts[place];
        let operation = act.operation;
        let is_told = !act.is_open();
        let value = self.values[place];
        let fits = |fits: bool, next: State| (!is_told || fits).then_some(next);
        match operation.kind {
            Kind::Read => fits(state == value, state),
            Kind::Write => Some(value),
            Kind::Delete => match operation.result {
                Some(result) => fits(state.is_some() == (result != 0), None),
                None => Some(None),
            },
            Kind::WriteIfAbsent if state.is_none() => fits(operation.result != Some(0), value),
            Kind::WriteIfAbsent => fits(operation.result != Some(1), state),
            Kind::Exchange => fits(state == self.previous[place], value),
            Kind::Append => {
                let part = self.known[value? as usize].text;
                let text = state.map_or(part, |state| self.known[state as usize].text.with(part));
                let length = i64::try_from(text.length).unwrap_or(i64::MAX);
                let next = self.number(Known { text, integer: None, shown: None });
                fits(operation.result.is_none_or(|result| result == length), Some(next))
            }
            Kind::Increment => {
                let before = state.map_or(Some(0), |state| self.known[state as usize].integer)?;
                let sum = before.checked_add(self.known[value? as usize].integer?)?;
                let next = self.value(&sum.to_string());
                fits(operation.result.is_none_or(|result| result == sum), Some(next))
            }
        }
    }
}
