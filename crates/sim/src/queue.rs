//! Orders what is to happen by virtual time, and what happens at one moment by when it was added.
//!
//! Ensures: the same additions come out in the same order.
//!
//! What is to happen lies in slots that are used again, so that the heap moves only small keys.

use std::{cmp::Reverse, collections::BinaryHeap};

use crate::moment::Moment;

/// What is to happen, earliest first.
#[derive(Debug)]
pub struct Queue<T> {
    order: BinaryHeap<Reverse<(Moment, u64, u32)>>,
    slots: Vec<Option<T>>,
    free: Vec<u32>,
    added: u64,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self { order: BinaryHeap::new(), slots: Vec::new(), free: Vec::new(), added: 0 }
    }
}

impl<T> Queue<T> {
    /// Adds something that happens at a moment.
    pub fn add(&mut self, at: Moment, what: T) {
        let slot = if let Some(slot) = self.free.pop() {
            self.slots[slot as usize] = Some(what);
            slot
        } else {
            self.slots.push(Some(what));
            u32::try_from(self.slots.len() - 1).expect("fewer than 2^32 things wait at once")
        };
        self.order.push(Reverse((at, self.added, slot)));
        self.added += 1;
    }

    /// Takes what happens next.
    pub fn take(&mut self) -> Option<(Moment, T)> {
        let Reverse((at, _, slot)) = self.order.pop()?;
        self.free.push(slot);
        let what = self.slots[slot as usize].take().expect("a slot in the order is filled");
        Some((at, what))
    }

    /// When the next thing happens.
    #[must_use]
    pub fn next_at(&self) -> Option<Moment> {
        self.order.peek().map(|Reverse((at, _, _))| *at)
    }

    /// How many things were ever added.
    #[must_use]
    pub const fn added(&self) -> u64 {
        self.added
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn things_of_one_moment_happen_in_the_order_of_adding() {
        let mut queue = Queue::default();
        queue.add(Moment(5), "late");
        queue.add(Moment(1), "first");
        queue.add(Moment(5), "later");
        assert_eq!(queue.next_at(), Some(Moment(1)));
        assert_eq!(queue.take(), Some((Moment(1), "first")));
        queue.add(Moment(5), "latest");
        queue.add(Moment(2), "second");
        let rest: Vec<_> = std::iter::from_fn(|| queue.take()).map(|(_, what)| what).collect();
        assert_eq!(rest, ["second", "late", "later", "latest"]);
    }
}
