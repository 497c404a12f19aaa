//! Finds the shortest chain of causes from one transaction to another, and tells it step by step.
//!
//! The search goes backwards and counts only the links that cross sessions: going on within a
//! session is free, so the chain has as few sessions as can be.
//!
//! Limits: nothing is searched unless a violation was found, so the time is spent once.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;

use crate::{
    history::Symbol,
    order::{Event, Order},
    verdict::{Pattern, Violation},
};

/// That one write must come before another, because a reader had both in its past.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Conflict {
    /// The write that must come first.
    pub(crate) before: u32,
    /// The write that must come second, since the reader returned it.
    pub(crate) after: u32,
    /// The key of both.
    pub(crate) key: Symbol,
    /// The event that returned `after`.
    pub(crate) reader: u32,
}

/// How one transaction follows another.
#[derive(Clone, Copy, Debug)]
pub(crate) enum How {
    /// It came later in the same session.
    Session,
    /// It returned what the other wrote.
    Read(Event),
    /// It must come later, by what somebody read.
    Conflict(Conflict),
}

/// One link of a chain: the transaction, and how it follows the one before.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Link {
    pub(crate) node: u32,
    pub(crate) how: How,
}

/// Conflicts by the write that comes second.
pub(crate) type Conflicts = FxHashMap<u32, Vec<Conflict>>;

/// Conflicts as they are found: of those between one later write and the writes of one session,
/// the last implies the others.
#[derive(Debug, Default)]
pub(crate) struct ConflictSet {
    /// By the write that comes second and the session of the first: the place of the last such
    /// first, and the event that read.
    lasts: FxHashMap<(u32, u32), (u32, u32)>,
}

impl ConflictSet {
    /// Adds that the write at this place of this session comes before `after`.
    pub(crate) fn add(&mut self, after: u32, (session, index): (u32, u32), reader: u32) {
        let last = self.lasts.entry((after, session)).or_insert((index, reader));
        if last.0 < index {
            *last = (index, reader);
        }
    }

    pub(crate) fn finish(&self, order: &Order<'_>) -> Conflicts {
        let mut conflicts = Conflicts::default();
        let mut found: Vec<_> = self.lasts.iter().collect();
        found.sort_unstable(); // So that equal histories give equal proofs.
        for (&(after, session), &(index, reader)) in found {
            let before = order.at(session, index);
            let key = order.event(reader).key;
            conflicts.entry(after).or_default().push(Conflict { before, after, key, reader });
        }
        conflicts
    }
}

/// The shortest chain from `from` to `to` over transactions that `may_visit`: the links after
/// `from`, the last of them `to`; none if it has more than `length_max` links between sessions.
pub(crate) fn chain(
    order: &Order<'_>,
    from: u32,
    to: u32,
    conflicts: Option<&Conflicts>,
    may_visit: &dyn Fn(u32) -> bool,
    length_max: u32,
) -> Option<Vec<Link>> {
    // From each transaction that leads to `to`, the link by which it does, and its cost.
    let mut next: FxHashMap<u32, (u32, Link)> = FxHashMap::default();
    let mut queue = VecDeque::from([(to, 0u32)]);
    while let Some((node, cost)) = queue.pop_front() {
        if node == from {
            break;
        }
        if next.get(&node).is_some_and(|&(best, _)| best < cost) {
            continue;
        }
        let session = order.before(node).map(|before| (before, 0, How::Session));
        let reads = order.sources(node).map(|(source, event)| (source, 1, How::Read(*event)));
        let forced = conflicts.and_then(|conflicts| conflicts.get(&node)).into_iter().flatten();
        let forced = forced.map(|conflict| (conflict.before, 1, How::Conflict(*conflict)));
        for (before, step, how) in session.into_iter().chain(reads).chain(forced) {
            let cost = cost + step;
            if length_max < cost {
                continue;
            }
            if before == to
                || !may_visit(before)
                || next.get(&before).is_some_and(|&(best, _)| best <= cost)
            {
                continue;
            }
            next.insert(before, (cost, Link { node, how }));
            if step == 0 {
                queue.push_front((before, cost));
            } else {
                queue.push_back((before, cost));
            }
        }
    }
    let mut links = Vec::new();
    let mut node = from;
    while node != to {
        let (_, link) = *next.get(&node)?;
        links.push(link);
        node = link.node;
    }
    Some(links)
}

/// How many links of a chain cross sessions: what a person has to follow.
pub(crate) fn length(links: &[Link]) -> u32 {
    links.iter().map(|link| u32::from(!matches!(link.how, How::Session))).sum()
}

/// Tells a proof operation by operation, none twice in a row.
pub(crate) struct Teller<'o, 'h> {
    order: &'o Order<'h>,
    violation: Violation,
    last: Option<u32>,
}

impl<'o, 'h> Teller<'o, 'h> {
    pub(crate) fn new(order: &'o Order<'h>, pattern: Pattern, summary: &str) -> Self {
        Self { order, violation: Violation::new(pattern, summary), last: None }
    }

    /// Adds one operation and its part in the proof.
    pub(crate) fn show(mut self, event: &Event, why: &str) -> Self {
        if self.last == Some(event.operation) {
            return self;
        }
        self.last = Some(event.operation);
        let operation = self.order.operation(event);
        self.violation = self.violation.step(self.order.history, operation, why);
        self
    }

    /// Adds the write of `key` in the transaction.
    pub(crate) fn show_write(self, node: u32, key: Symbol, why: &str) -> Self {
        match self.order.write_of(node, key) {
            Some(event) => self.show(event, why),
            None => self,
        }
    }

    /// Adds what lies on the chain, without its last operation where that is reached in a session.
    pub(crate) fn follow(mut self, from: u32, links: &[Link]) -> Self {
        let order = self.order;
        let mut node = from;
        for link in links {
            match link.how {
                How::Session => {}
                How::Read(event) => {
                    self = self
                        .show_write(node, event.key, "came later in the same session")
                        .show(&event, "returned that value");
                }
                How::Conflict(conflict) => {
                    let why = "had that write in its past and returned the next one, \
                               so the next one comes later";
                    self = self
                        .show_write(node, conflict.key, "came later in the same session")
                        .show(order.event(conflict.reader), why)
                        .show_write(conflict.after, conflict.key, "is that next one");
                }
            }
            node = link.node;
        }
        self
    }

    pub(crate) fn finish(self) -> Violation {
        self.violation
    }
}
