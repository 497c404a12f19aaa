//! Finds a cycle of causal order and conflicts, and tells the shortest that a person can follow.
//!
//! Transactions that nothing left comes after, and then those that nothing left comes before, are
//! taken away until none is left or only those on cycles and between them are. Only among these the
//! shortest proof is searched: a cycle with one conflict (a value was read that was written over in
//! the reader's past), else any.
//!
//! Limits: `VISITS_MAX` bounds the search for a shorter proof, not for a proof.

use rustc_hash::FxHashMap;

use crate::{
    explain::{Conflict, Conflicts, Link, Teller, chain, length},
    order::Order,
    verdict::{Pattern, Violation},
};

/// Conflicts that are tried for the shortest proof.
const TRIED_MAX: usize = 256;

/// Transactions that the search for a shorter proof may visit, about.
const VISITS_MAX: usize = 2_000_000;

/// Whether the causal order alone has a cycle.
pub(crate) fn is_cyclic(order: &Order<'_>) -> bool {
    !left_in_cycles(order, &Conflicts::default()).is_empty()
}

/// A cycle of causal order and conflicts, told as shortly as it can be.
pub(crate) fn find_cycle(order: &Order<'_>, conflicts: &Conflicts) -> Option<Violation> {
    if conflicts.is_empty() {
        return None; // The causal order alone has no cycle: the caller has seen to that.
    }
    let left = left_in_cycles(order, conflicts);
    let left_count = left.iter().filter(|&&left| left).count();
    if left_count == 0 {
        return None;
    }
    let is_left = |node: u32| left[node as usize];
    let mut tried: Vec<&Conflict> = (0u32..)
        .take(left.len())
        .filter(|&node| is_left(node))
        .filter_map(|node| conflicts.get(&node))
        .flatten()
        .filter(|conflict| is_left(conflict.before))
        .collect();
    tried.sort_unstable_by_key(|conflict| (conflict.reader, conflict.before));
    let tries_max = (VISITS_MAX / left_count).clamp(1, TRIED_MAX);
    let shortest = |through: Option<&Conflicts>| {
        let mut best: Option<(Conflict, Vec<Link>)> = None;
        for (place, conflict) in tried.iter().enumerate() {
            // With all conflicts some cycle must be found; with causal order alone there may be
            // none, and then it is not worth the time to be sure.
            let least = best.as_ref().map_or(u32::MAX, |(_, links)| length(links));
            if least <= 1 || tries_max <= place && (best.is_some() || through.is_none()) {
                break;
            }
            let (from, to) = (conflict.after, conflict.before);
            if let Some(links) = chain(order, from, to, through, &is_left, least - 1) {
                best = Some((**conflict, links));
            }
        }
        best
    };
    if let Some((conflict, links)) = shortest(None) {
        return Some(overwritten_read(order, &conflict, &links));
    }
    let summary = "no order of concurrent writes fits what was read";
    let Some((conflict, links)) = shortest(Some(conflicts)) else {
        return Some(Violation::new(Pattern::CyclicCF, summary));
    };
    let why =
        "had both in its past and returned the first: the first comes later, and before itself";
    let violation = Teller::new(order, Pattern::CyclicCF, summary)
        .show_write(conflict.after, conflict.key, "wrote the key")
        .follow(conflict.after, &links)
        .show_write(conflict.before, conflict.key, "comes after it")
        .show(order.event(conflict.reader), why);
    Some(violation.finish())
}

fn overwritten_read(order: &Order<'_>, conflict: &Conflict, links: &[Link]) -> Violation {
    let reader = order.event(conflict.reader);
    let node = order.node_of_event(conflict.reader);
    let rest = chain(order, conflict.before, node, None, &|_| true, u32::MAX).unwrap_or_default();
    let summary = "a read returned a value that was written over in its past";
    Teller::new(order, Pattern::WriteCORead, summary)
        .show_write(conflict.after, conflict.key, "wrote the key")
        .follow(conflict.after, links)
        .show_write(conflict.before, conflict.key, "wrote over it, knowing it")
        .follow(conflict.before, &rest)
        .show(reader, "has the later write in its past and returned the earlier one")
        .finish()
}

/// Marks the transactions that lie on a cycle or between two; marks none if there is no cycle.
fn left_in_cycles(order: &Order<'_>, conflicts: &Conflicts) -> Vec<bool> {
    let count = order.nodes.len();
    let mut outgoing = vec![0u32; count];
    for node in (0u32..).take(count) {
        for_each_before(order, conflicts, node, |before| outgoing[before as usize] += 1);
    }
    let mut left = vec![true; count];
    let mut free: Vec<u32> =
        (0u32..).zip(&outgoing).filter(|&(_, &count)| count == 0).map(|(node, _)| node).collect();
    let mut taken = 0;
    while let Some(node) = free.pop() {
        left[node as usize] = false;
        taken += 1;
        for_each_before(order, conflicts, node, |before| {
            outgoing[before as usize] -= 1;
            if outgoing[before as usize] == 0 {
                free.push(before);
            }
        });
    }
    if taken == count {
        return Vec::new();
    }
    without_beginnings(order, conflicts, &mut left);
    left
}

/// Takes away the transactions that nothing left comes before.
fn without_beginnings(order: &Order<'_>, conflicts: &Conflicts, left: &mut [bool]) {
    let mut after: FxHashMap<u32, Vec<u32>> = FxHashMap::default();
    let mut incoming = vec![0u32; left.len()];
    for node in (0u32..).take(left.len()).filter(|&node| left[node as usize]) {
        for_each_before(order, conflicts, node, |before| {
            after.entry(before).or_default().push(node);
            incoming[node as usize] += 1;
        });
    }
    let mut free: Vec<u32> = (0u32..)
        .zip(&incoming)
        .filter(|&(node, &count)| count == 0 && left[node as usize])
        .map(|(node, _)| node)
        .collect();
    while let Some(node) = free.pop() {
        left[node as usize] = false;
        for &next in after.get(&node).into_iter().flatten() {
            incoming[next as usize] -= 1;
            if incoming[next as usize] == 0 {
                free.push(next);
            }
        }
    }
}

fn for_each_before(
    order: &Order<'_>,
    conflicts: &Conflicts,
    node: u32,
    mut visit: impl FnMut(u32),
) {
    if let Some(before) = order.before(node) {
        visit(before);
    }
    for (source, _) in order.sources(node) {
        visit(source);
    }
    for conflict in conflicts.get(&node).into_iter().flatten() {
        visit(conflict.before);
    }
}
