//! What is left of shards that have lost their data, and with which replica each begins again.
//!
//! A replica that was away when the others lost their folders may still have all but what was written
//! meanwhile. It is the better start the further its log goes; one in the middle of a copy lacks keys.

use std::collections::{BTreeMap, BTreeSet};

use crate::doctor::told::{Heard, Remains};

/// What a replica holds; more is larger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Held {
    /// Nothing.
    Nothing,
    /// What it had copied: some keys are missing.
    Half { epoch: u64, position: u64 },
    /// Everything up to a position.
    Whole { epoch: u64, position: u64 },
}

impl Held {
    const fn of(remains: &Remains) -> Self {
        let Remains { shard: _, epoch, position, is_whole } = *remains;
        match (position, is_whole) {
            (0, _) => Self::Nothing,
            (_, false) => Self::Half { epoch, position },
            (_, true) => Self::Whole { epoch, position },
        }
    }
}

/// The shards of a datacenter that have lost their data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LeftOver {
    /// Of each, the replica that holds most of those that answer.
    best: BTreeMap<u16, (Held, String)>,
    /// Nodes with a replica of one that do not answer.
    silent: BTreeSet<String>,
    /// Nodes with a replica of one that have not heard yet that it is lost: what they tell of it may
    /// be old.
    late: BTreeSet<String>,
}

impl LeftOver {
    /// What the nodes that answered hold of the lost shards of a datacenter.
    pub(crate) fn of(heard: &Heard, datacenter: &str) -> Self {
        let newest = heard.newest();
        let Some(told) = newest.get(datacenter) else { return Self::default() };
        let mut left = Self::default();
        for chain in told.chains.iter().filter(|chain| chain.is_lost()) {
            for node in chain.waiting() {
                let Some(asked) = heard.node(node) else {
                    left.silent.insert(node.clone());
                    continue;
                };
                if asked.epoch != told.epoch {
                    left.late.insert(node.clone());
                    continue;
                }
                let remains = asked.remains.iter().find(|remains| remains.shard == chain.shard);
                let held = remains.map_or(Held::Nothing, Held::of);
                let best = left.best.entry(chain.shard).or_insert_with(|| (held, node.clone()));
                if best.0 < held {
                    *best = (held, node.clone());
                }
            }
        }
        left
    }

    /// Whether no shard can begin again.
    pub(crate) fn is_nothing(&self) -> bool {
        self.best.is_empty()
    }

    /// The shards that begin again with each node.
    pub(crate) fn by_node(&self) -> BTreeMap<&str, Vec<u16>> {
        let mut by_node: BTreeMap<&str, Vec<u16>> = BTreeMap::new();
        for (shard, (_, node)) in &self.best {
            by_node.entry(node).or_default().push(*shard);
        }
        by_node
    }

    /// The nodes that do not answer, without these.
    pub(crate) fn silent_without(&self, without: &[String]) -> Vec<&str> {
        let silent = self.silent.iter().filter(|node| !without.contains(node));
        silent.map(String::as_str).collect()
    }

    /// The nodes that have not heard of it yet, without these.
    pub(crate) fn late_without(&self, without: &[String]) -> Vec<&str> {
        let late = self.late.iter().filter(|node| !without.contains(node));
        late.map(String::as_str).collect()
    }

    /// Who should be started or waited for first, if anybody.
    pub(crate) fn missing_words(&self) -> Option<String> {
        let silent = self.silent_without(&[]).join(", ");
        let silent = (!silent.is_empty())
            .then(|| format!("start {silent} first, which may hold more of them"));
        let late = self.late_without(&[]).join(", ");
        let late = (!late.is_empty()).then(|| format!("ask again until {late} has heard of it"));
        let words: Vec<String> = silent.into_iter().chain(late).collect();
        (!words.is_empty()).then(|| words.join("; "))
    }

    /// What is left, in words.
    pub(crate) fn words(&self) -> String {
        let mut whole: BTreeMap<&str, usize> = BTreeMap::new();
        let mut half: BTreeMap<&str, usize> = BTreeMap::new();
        let mut nothing = 0_usize;
        for (held, node) in self.best.values() {
            match held {
                Held::Whole { .. } => *whole.entry(node).or_default() += 1,
                Held::Half { .. } => *half.entry(node).or_default() += 1,
                Held::Nothing => nothing += 1,
            }
        }
        let whole = whole.into_iter().map(|(node, count)| {
            format!(
                "{} with what {node} has, without what was written while it was away",
                shards(count)
            )
        });
        let half = half.into_iter().map(|(node, count)| {
            format!("{} with what {node} had copied, without the other keys", shards(count))
        });
        let nothing = (0 < nothing).then(|| format!("{} with nothing", shards(nothing)));
        whole.chain(half).chain(nothing).collect::<Vec<_>>().join("; ")
    }
}

fn shards(count: usize) -> String {
    if count == 1 { "1 shard".to_owned() } else { format!("{count} shards") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::told::{Chain, Told};

    fn remains(shard: u16, epoch: u64, position: u64, is_whole: bool) -> Remains {
        Remains { shard, epoch, position, is_whole }
    }

    /// Four shards of three nodes, of which the last one serves the last shard.
    fn heard(held: [Option<Vec<Remains>>; 3]) -> Heard {
        let names = ["1.1", "1.2", "1.3"].map(str::to_owned);
        let lost = |shard| Chain { shard, offline: names.to_vec(), ..Chain::default() };
        let served = Chain { shard: 3, serving: vec![names[2].clone()], ..Chain::default() };
        let chains = vec![lost(0), lost(1), lost(2), served];
        let one = |(node, held): (&String, Option<Vec<Remains>>)| {
            let told = held.map(|remains| Told {
                datacenter: "eu".to_owned(),
                node: node.clone(),
                chains: chains.clone(),
                remains,
                epoch: 7,
                ..Told::default()
            });
            (format!("port of {node}"), told)
        };
        Heard { by_admin: names.iter().zip(held).map(one).collect() }
    }

    #[test]
    fn each_shard_begins_with_the_replica_that_holds_most() {
        let first = vec![remains(0, 0, 0, true), remains(1, 2, 90, true), remains(2, 0, 0, true)];
        let second =
            vec![remains(0, 3, 10, true), remains(1, 3, 50, true), remains(2, 0, 0, false)];
        let third = vec![remains(0, 9, 999, false), remains(1, 3, 49, true)];
        let left = LeftOver::of(&heard([Some(first), Some(second), Some(third)]), "eu");
        let expected = BTreeMap::from([("1.1", vec![2]), ("1.2", vec![0, 1])]);
        assert_eq!(left.by_node(), expected);
        assert_eq!(
            left.words(),
            "2 shards with what 1.2 has, without what was written while it was away; 1 shard with \
             nothing"
        );
        assert_eq!(left.missing_words(), None);
        assert!(LeftOver::of(&Heard::default(), "eu").is_nothing());
    }

    #[test]
    fn who_does_not_answer_or_has_not_heard_of_it_may_hold_more() {
        let half = vec![remains(0, 9, 999, false)];
        let mut heard = heard([Some(half), None, Some(Vec::new())]);
        let late = heard.by_admin.values_mut().flatten().last().unwrap();
        late.epoch = 6;
        let left = LeftOver::of(&heard, "eu");
        assert_eq!(left.silent_without(&["1.3".to_owned()]), ["1.2"]);
        assert_eq!(left.late_without(&["1.2".to_owned()]), ["1.3"]);
        assert!(left.silent_without(&["1.2".to_owned()]).is_empty());
        assert!(left.late_without(&["1.3".to_owned()]).is_empty());
        assert_eq!(
            left.missing_words().unwrap(),
            "start 1.2 first, which may hold more of them; ask again until 1.3 has heard of it"
        );
        assert_eq!(
            left.words(),
            "1 shard with what 1.1 had copied, without the other keys; 2 shards with nothing"
        );
    }
}
