//! Keeps what a leader has heard of nodes, in memory, for as long as it leads.
//!
//! A term is one time of leading. With another term everything is forgotten, also since when the
//! leader listens: what an earlier leader heard in between is not known here.
//!
//! Assumes: whoever asks makes sure that the term was still held after a beat was heard, and after
//! beats were looked up.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use antecede_model::{
    clock::Steady,
    ids::{Boot, NodeId},
};

use crate::store::{Beat, Beats, NODES_MAX, Seen};

/// What a leader has heard in one term.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    term: u64,
    since: Steady,
    nodes: BTreeMap<NodeId, (Boot, Steady, Arc<[u8]>)>,
}

impl Heard {
    /// The last term that was entered.
    pub(crate) const fn term(&self) -> u64 {
        self.term
    }

    /// Forgets what was heard in another term.
    pub(crate) fn enter(&mut self, term: u64, now: Steady) {
        if self.term != term {
            *self = Self { term, since: now, nodes: BTreeMap::new() };
        }
    }

    /// Takes a beat that came at a moment; refused with the number of nodes if there are too many.
    ///
    /// One that came before the term began, and was taken in it, counts from when it began: nobody
    /// seems to have been silent for longer than the leader has listened.
    pub(crate) fn hear(&mut self, beat: Beat, at: Steady) -> Result<(), u64> {
        let at = at.max(self.since);
        let count = self.nodes.len();
        if NODES_MAX <= count && !self.nodes.contains_key(&beat.node) {
            return Err(count as u64 + 1);
        }
        let last =
            self.nodes.entry(beat.node).or_insert_with(|| (beat.boot, at, Arc::clone(&beat.facts)));
        if (last.0, last.1) <= (beat.boot, at) {
            *last = (beat.boot, at, beat.facts);
        }
        Ok(())
    }

    /// All of it, as it is at a moment.
    pub(crate) fn beats(&self, now: Steady) -> Beats {
        let ago = |then: Steady| -> Duration { now.0.saturating_sub(then.0) };
        let seen = |(node, (boot, at, facts)): (&NodeId, &(Boot, Steady, Arc<[u8]>))| {
            (*node, Seen { boot: *boot, ago: ago(*at), facts: Arc::clone(facts) })
        };
        Beats { since_leader: ago(self.since), nodes: self.nodes.iter().map(seen).collect() }
    }
}

#[cfg(test)]
mod tests {
    use antecede_model::ids::DatacenterId;

    use super::*;

    #[test]
    fn another_term_begins_with_nothing_heard() {
        let at = |millis| Steady(Duration::from_millis(millis));
        let node = NodeId { datacenter: DatacenterId(1), number: 1 };
        let beat = |boot| Beat { node, boot: Boot(boot), facts: Arc::from(*b"facts") };
        let mut heard = Heard::default();
        heard.enter(3, at(100));
        heard.hear(beat(2), at(150)).unwrap();
        heard.hear(beat(1), at(170)).unwrap();
        heard.enter(3, at(200));
        let beats = heard.beats(at(250));
        assert_eq!(beats.since_leader, Duration::from_millis(150));
        let ago = Duration::from_millis(100);
        assert_eq!(beats.nodes[&node], Seen { boot: Boot(2), ago, facts: Arc::from(*b"facts") });
        heard.enter(4, at(300));
        let beats = heard.beats(at(310));
        assert_eq!(beats.since_leader, Duration::from_millis(10));
        assert!(beats.nodes.is_empty());
        heard.hear(beat(2), at(290)).unwrap();
        assert_eq!(heard.beats(at(310)).nodes[&node].ago, Duration::from_millis(10));
    }
}
