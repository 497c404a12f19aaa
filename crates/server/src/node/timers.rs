//! When replicas want to be woken.
//!
//! Invariant: every shard has at most one place here, the earliest that it asked for.

use std::collections::BTreeSet;

use antecede_model::{clock::Steady, ids::ShardId};
use parking_lot::Mutex;
use tokio::sync::Notify;

/// The wake-ups of a node's replicas.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    queue: Mutex<BTreeSet<(Steady, ShardId)>>,
    earlier: Notify,
}

impl Timers {
    /// Wakes `shard` at `at` instead of `before`.
    pub(crate) fn set(&self, shard: ShardId, before: Option<Steady>, at: Steady) {
        let is_first = {
            let mut queue = self.queue.lock();
            if let Some(before) = before {
                queue.remove(&(before, shard));
            }
            let is_first = queue.first().is_none_or(|(first, _)| at < *first);
            queue.insert((at, shard));
            is_first
        };
        if is_first {
            self.earlier.notify_one();
        }
    }

    /// When the next one is due.
    pub(crate) fn next(&self) -> Option<Steady> {
        self.queue.lock().first().map(|(at, _)| *at)
    }

    /// Takes the shards that are due.
    pub(crate) fn take_due(&self, now: Steady, into: &mut Vec<ShardId>) {
        let mut queue = self.queue.lock();
        while let Some((at, shard)) = queue.pop_first() {
            if now < at {
                queue.insert((at, shard));
                break;
            }
            into.push(shard);
        }
    }

    /// Waits until an earlier wake-up than all others was set.
    pub(crate) async fn earlier(&self) {
        self.earlier.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(millis: u64) -> Steady {
        Steady(Duration::from_millis(millis))
    }

    #[test]
    fn a_shard_is_woken_once_at_the_earliest_time_it_asked_for() {
        let timers = Timers::default();
        timers.set(ShardId(1), None, at(50));
        timers.set(ShardId(2), None, at(30));
        timers.set(ShardId(1), Some(at(50)), at(10));
        assert_eq!(timers.next(), Some(at(10)));
        let mut due = Vec::new();
        timers.take_due(at(20), &mut due);
        assert_eq!(due, vec![ShardId(1)]);
        timers.take_due(at(60), &mut due);
        assert_eq!(due, vec![ShardId(1), ShardId(2)]);
        assert_eq!(timers.next(), None);
    }
}
