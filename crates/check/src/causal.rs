//! Checks causal+ after the fact: no read shows a write before what it depends on, and one order
//! of concurrent writes fits what everybody read.
//!
//! The causal order is what sessions did one after the other, and what they read. A history is
//! causal+ (causal convergence, CCv) exactly if it has none of five bad patterns (Bouajjani et al.,
//! POPL 2017): ThinAirRead, CyclicCO, WriteCOInitRead, WriteCORead, CyclicCF. Transactions are taken
//! in causal order, each with a vector clock that counts the transactions of each session in its
//! past. For a read of `w1` and for each session, only the last write `w2` of the key inside the
//! reader's clock matters: `w2` must be arbitrated before `w1`. These conflicts and the causal order
//! together must have no cycle; that is one pass at the end. Conflicts never feed the causal order.
//!
//! Ensures: without reads of absence on removed keys, the verdict is exact. Such a read is judged
//! against each removal that it may have returned, and rejected only if none can be meant.
//!
//! Time grows with operations times sessions. Memory: a clock is kept only while a read still needs
//! it; above `CLOCK_CELLS_MAX` counters at once the answer is `Undecided`.

use std::{cmp::Reverse, collections::BinaryHeap, sync::Arc};

use rustc_hash::FxHashMap;

use crate::{
    cycle::find_cycle,
    explain::{ConflictSet, Link, Teller, chain, length},
    history::{History, Symbol},
    order::{Event, Order, OrderOptions, Source, What},
    verdict::{Pattern, Verdict, Violation},
};

/// Counters that may be held at once, four bytes each.
const CLOCK_CELLS_MAX: usize = 1 << 29;

/// Sessions that are tried for the shortest proof of a causal cycle.
const TRIED_MAX: usize = 256;

/// For each session, how many of its transactions are in the past.
type Clock = Arc<Vec<u32>>;

/// Judges whether `history` is causal+.
pub fn check(history: &History, options: OrderOptions) -> Verdict {
    Order::new(history, options).map_or_else(|verdict| verdict, |order| check_order(&order))
}

/// The same, laid out already.
pub(crate) fn check_order(order: &Order<'_>) -> Verdict {
    judge_order(order).map_or_else(|verdict| verdict, |()| order.verdict_without_violation())
}

fn judge_order(order: &Order<'_>) -> Result<(), Verdict> {
    let mut sweep = Sweep::new(order);
    sweep.run()?;
    let conflicts = sweep.conflicts.finish(order);
    find_cycle(order, &conflicts).map_or(Ok(()), |violation| Err(violation.into()))
}

/// The writes of one key by one session, as places in the session, growing.
struct Writes {
    session: u32,
    indexes: Vec<u32>,
}

/// A removal, and for a write the removals that were in its past, by session.
type KnownRemovals = Vec<(u32, u32)>;

struct Sweep<'o, 'h> {
    order: &'o Order<'h>,
    /// How many transactions of each session are done, and the clock after them.
    done: Vec<u32>,
    clocks: Vec<Clock>,
    /// The clocks of transactions that will still be read from, and by how many parts.
    kept: FxHashMap<u32, Clock>,
    readers: Vec<u32>,
    kept_cells: usize,
    ready: BinaryHeap<Reverse<(u32, u32)>>,
    /// Sessions that wait for a transaction.
    waiting: FxHashMap<u32, Vec<u32>>,
    writes: FxHashMap<Symbol, Vec<Writes>>,
    /// For the keys with unclear reads: what each write knew of the key's removals.
    unclear_keys: FxHashMap<Symbol, FxHashMap<u32, KnownRemovals>>,
    conflicts: ConflictSet,
}

impl<'o, 'h> Sweep<'o, 'h> {
    fn new(order: &'o Order<'h>) -> Self {
        let mut readers = vec![0; order.nodes.len()];
        let mut unclear_keys = FxHashMap::default();
        for (node, place) in (0u32..).zip(&order.nodes) {
            for (source, _) in order.sources(node) {
                readers[source as usize] += 1;
            }
            if let Some(parent) = place.parent {
                readers[parent as usize] += 1;
            }
            for event in order.events(node) {
                if event.what == What::Read(Source::Unclear) {
                    unclear_keys.entry(event.key).or_insert_with(FxHashMap::default);
                }
            }
        }
        let sessions = order.sessions.len();
        Self {
            order,
            done: vec![0; sessions],
            clocks: vec![Arc::default(); sessions],
            kept: FxHashMap::default(),
            readers,
            kept_cells: 0,
            ready: BinaryHeap::new(),
            waiting: FxHashMap::default(),
            writes: FxHashMap::default(),
            unclear_keys,
            conflicts: ConflictSet::default(),
        }
    }

    /// Takes all transactions in causal order, the earliest recorded first.
    fn run(&mut self) -> Result<(), Verdict> {
        for session in 0..self.order.sessions.len() {
            self.make_ready(u32::try_from(session).expect("sessions are fewer than operations"));
        }
        let mut count = 0;
        while let Some(Reverse((_, session))) = self.ready.pop() {
            let node = self.order.at(session, self.done[session as usize] + 1);
            if let Some(missing) = self.missing(node) {
                self.waiting.entry(missing).or_default().push(session);
                continue;
            }
            count += 1;
            self.take(node)?;
            for woken in self.waiting.remove(&node).into_iter().flatten() {
                self.make_ready(woken);
            }
            self.make_ready(session);
        }
        if count == self.order.nodes.len() { Ok(()) } else { Err(self.causal_cycle().into()) }
    }

    fn make_ready(&mut self, session: u32) {
        let members = &self.order.sessions[session as usize];
        if let Some(&node) = members.get(self.done[session as usize] as usize) {
            let event = self.order.event(self.order.first_event(node));
            self.ready.push(Reverse((event.operation, session)));
        }
    }

    fn is_done(&self, node: u32) -> bool {
        let place = &self.order.nodes[node as usize];
        place.index <= self.done[place.session as usize]
    }

    /// A transaction that must come before `node` and is not done.
    fn missing(&self, node: u32) -> Option<u32> {
        let parent = self.order.nodes[node as usize].parent;
        let sources = self.order.sources(node).map(|(source, _)| source);
        parent.into_iter().chain(sources).find(|&before| !self.is_done(before))
    }

    fn take(&mut self, node: u32) -> Result<(), Verdict> {
        let place = &self.order.nodes[node as usize];
        let session = place.session as usize;
        let mut clock = std::mem::take(&mut self.clocks[session]);
        let sources = self.order.sources(node).map(|(source, _)| source);
        for before in place.parent.into_iter().chain(sources) {
            join(&mut clock, &self.kept[&before]);
        }
        for event in self.order.events(node) {
            if let What::Read(source) = event.what {
                self.check_read(node, event, source, &clock)?;
            }
        }
        let own = Arc::make_mut(&mut clock);
        if own.len() <= session {
            own.resize(session + 1, 0);
        }
        own[session] = place.index;
        self.done[session] = place.index;
        for event in self.order.events(node) {
            if let What::Write { .. } = event.what {
                self.add_write(node, event, &clock);
            }
        }
        let sources = self.order.sources(node).map(|(source, _)| source);
        for before in place.parent.into_iter().chain(sources) {
            self.release(before);
        }
        if self.readers[node as usize] != 0 {
            self.kept_cells += clock.len();
            self.kept.insert(node, Arc::clone(&clock));
            if CLOCK_CELLS_MAX < self.kept_cells {
                let why = format!(
                    "{} sessions need more than {CLOCK_CELLS_MAX} clock counters at once; check a \
                     shorter history or one with fewer sessions",
                    self.order.sessions.len()
                );
                return Err(Verdict::Undecided { why });
            }
        }
        self.clocks[session] = clock;
        Ok(())
    }

    fn release(&mut self, before: u32) {
        let left = &mut self.readers[before as usize];
        *left -= 1;
        if *left == 0
            && let Some(clock) = self.kept.remove(&before)
        {
            self.kept_cells -= clock.len();
        }
    }

    fn add_write(&mut self, node: u32, event: &Event, clock: &Clock) {
        let place = &self.order.nodes[node as usize];
        let sessions = self.writes.entry(event.key).or_default();
        if let Some(known) = self.unclear_keys.get_mut(&event.key) {
            let past = sessions.iter().map(|writes| (writes.session, count(clock, writes.session)));
            known.insert(node, past.collect());
        }
        match sessions.iter_mut().find(|writes| writes.session == place.session) {
            Some(writes) => writes.indexes.push(place.index),
            None => {
                sessions.push(Writes { session: place.session, indexes: vec![place.index] });
            }
        }
    }

    /// Each session's last write of the key in the past of a read at `node`.
    fn lasts(&self, node: u32, key: Symbol, clock: &Clock) -> impl Iterator<Item = (u32, u32)> {
        let reader = &self.order.nodes[node as usize];
        let (own_session, before_own) = (reader.session, reader.index - 1);
        let sessions = self.writes.get(&key).map_or(&[][..], Vec::as_slice);
        sessions.iter().filter_map(move |writes| {
            let known = match writes.session {
                session if session == own_session => before_own,
                session => count(clock, session),
            };
            Some((writes.session, last_up_to(&writes.indexes, known)?))
        })
    }

    fn check_read(
        &mut self,
        node: u32,
        event: &Event,
        source: Source,
        clock: &Clock,
    ) -> Result<(), Violation> {
        match source {
            Source::Initial => match self.lasts(node, event.key, clock).next() {
                None => Ok(()),
                Some((session, index)) => Err(self.missed_write(node, event, (session, index))),
            },
            Source::Unclear => self.check_unclear(node, event, clock),
            Source::Node(returned) => {
                let known = &self.kept[&returned];
                let place = self.order.first_event(node);
                let reader = place + position(self.order.events(node), event);
                let newer: Vec<(u32, u32)> = self
                    .lasts(node, event.key, clock)
                    .filter(|&(session, index)| count(known, session) < index)
                    .collect();
                for last in newer {
                    self.conflicts.add(returned, last, reader);
                }
                Ok(())
            }
        }
    }

    /// A read of nothing: some removal, or the initial state, must be able to explain it.
    fn check_unclear(&self, node: u32, event: &Event, clock: &Clock) -> Result<(), Violation> {
        let lasts: Vec<(u32, u32)> = self.lasts(node, event.key, clock).collect();
        let is_removal = |&(session, index): &(u32, u32)| {
            let write = self.order.write_of(self.order.at(session, index), event.key);
            write.is_some_and(|write| write.what == What::Write { removal: true })
        };
        let values: Vec<(u32, u32)> =
            lasts.iter().filter(|last| !is_removal(last)).copied().collect();
        // A removal in the past explains it unless a value in the past was written in its sight.
        let known = &self.unclear_keys[&event.key];
        let is_hidden = |&(session, index): &(u32, u32)| {
            values.iter().any(|&(other, last)| {
                let seen = known.get(&self.order.at(other, last));
                seen.is_some_and(|seen| {
                    seen.iter().any(|&(from, count)| from == session && index <= count)
                })
            })
        };
        let explained = lasts.is_empty()
            || lasts.iter().filter(|last| is_removal(last)).any(|last| !is_hidden(last))
            || self.has_removal_outside(node, event, clock);
        match values.first() {
            Some(&value) if !explained => Err(self.missed_write(node, event, value)),
            Some(_) | None => Ok(()),
        }
    }

    /// Whether a removal that is not in the past of the read may have been what it returned.
    fn has_removal_outside(&self, node: u32, event: &Event, clock: &Clock) -> bool {
        let ret_ns = self.order.operation(event).ret_ns.unwrap_or(u64::MAX);
        let own = self.order.nodes[node as usize].session;
        self.order.removals(event.key).iter().any(|&(removal, operation)| {
            let place = &self.order.nodes[removal as usize];
            let call_ns = self.order.history.operations()[operation as usize].call_ns;
            place.session != own && count(clock, place.session) < place.index && call_ns <= ret_ns
        })
    }

    fn missed_write(&self, node: u32, event: &Event, last: (u32, u32)) -> Violation {
        let write = self.order.at(last.0, last.1);
        let links = chain(self.order, write, node, None, &|_| true, u32::MAX).unwrap_or_default();
        let summary = "a read found nothing although a write of the key is in its past";
        Teller::new(self.order, Pattern::WriteCOInitRead, summary)
            .show_write(write, event.key, "wrote the key")
            .follow(write, &links)
            .show(event, "has that write in its past and found nothing")
            .finish()
    }

    /// What is left when no session can go on: some read returned what comes after it.
    fn causal_cycle(&self) -> Violation {
        let mut best: Option<(u32, Event, u32, Vec<Link>)> = None;
        let heads = (0..self.order.sessions.len()).filter_map(|session| {
            self.order.sessions[session].get(self.done[session] as usize).copied()
        });
        for node in heads.take(TRIED_MAX) {
            for (source, event) in self.order.sources(node) {
                if self.is_done(source) {
                    continue;
                }
                let is_left = |node| !self.is_done(node);
                let least = best.as_ref().map_or(u32::MAX, |(.., links)| length(links));
                let links = chain(self.order, node, source, None, &is_left, least);
                let Some(links) = links else { continue };
                if best.as_ref().is_none_or(|(.., least)| length(&links) < length(least)) {
                    best = Some((node, *event, source, links));
                }
            }
        }
        let summary = "an operation comes before itself";
        let Some((node, event, source, links)) = best else {
            return Violation::new(Pattern::CyclicCO, summary);
        };
        Teller::new(self.order, Pattern::CyclicCO, summary)
            .show(&event, "returned what was written only after it")
            .follow(node, &links)
            .show_write(source, event.key, "wrote what the first operation had returned")
            .finish()
    }
}

fn position(events: &[Event], event: &Event) -> u32 {
    let place = events.iter().position(|other| std::ptr::eq(other, event));
    u32::try_from(place.unwrap_or_default()).expect("a transaction has fewer than 2^32 events")
}

fn count(clock: &[u32], session: u32) -> u32 {
    clock.get(session as usize).copied().unwrap_or_default()
}

fn join(clock: &mut Clock, other: &Clock) {
    let is_covered =
        other.len() <= clock.len() && other.iter().zip(clock.iter()).all(|(b, a)| b <= a);
    if is_covered {
        return;
    }
    let own = Arc::make_mut(clock);
    if own.len() < other.len() {
        own.resize(other.len(), 0);
    }
    for (mine, theirs) in own.iter_mut().zip(other.iter()) {
        *mine = (*mine).max(*theirs);
    }
}

/// The largest index that is not above `known`.
fn last_up_to(indexes: &[u32], known: u32) -> Option<u32> {
    match indexes.last() {
        Some(&last) if last <= known => Some(last),
        Some(_) | None => {
            let count = indexes.partition_point(|&index| index <= known);
            count.checked_sub(1).map(|place| indexes[place])
        }
    }
}
