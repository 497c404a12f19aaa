//! Merges effects into the state of a key, so that their order does not matter.
//!
//! Of all values and tombstones the one with the largest version counts (the last writer wins). A
//! time to live belongs to one value: each write to it removes those that it has seen; of the
//! concurrent ones that are left, the longest counts. A hiding, the weak delete after expiry,
//! removes the writes to the time to live that it has seen; the value is hidden if none is left.
//! So a concurrent longer time to live brings the value back, whichever comes first.
//!
//! Assumes: an effect comes after everything in its `seen`, whose first version is the value or
//! tombstone that was found, and its version is larger than all of them.
//! Ensures: the state is a pure function of the set of effects (a test tries all orders against a
//! rule that is written down apart).

use antecede_model::{clock::Timestamp, version::Version};
use smallvec::SmallVec;

use super::look::{Look, NEVER, Stored, TtlWrite, Ttls};
use crate::entry::Change;

/// The state of one key; `V` tells where its value is found.
#[derive(Clone, Debug)]
pub(super) struct KeyState<V> {
    /// Of the value or tombstone; `None` if the key never had one.
    pub(super) version: Option<Version>,
    /// The value, also if it is hidden; `None` for a tombstone.
    pub(super) value: Option<V>,
    /// The largest hiding of that value.
    pub(super) hidden: Option<Version>,
    /// Writes to its time to live that were not superseded, smallest version first.
    pub(super) ttls: SmallVec<[TtlWrite; 1]>,
    /// The largest visible-at of the effects that make it up.
    pub(super) visible_at: Timestamp,
}

/// An effect, as far as it concerns the state of its key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Applying<'a> {
    /// Of the entry.
    pub(super) version: Version,
    /// Of the entry.
    pub(super) visible_at: Timestamp,
    /// What it found there.
    pub(super) seen: &'a [Version],
    /// What it does.
    pub(super) change: Change<'a>,
}

/// What became of an effect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Merged {
    /// Whether the state is another one now.
    pub(super) is_changed: bool,
    /// A value that was dropped although its counterpart had not seen it: loser, then winner.
    pub(super) dropped: Option<(Version, Version)>,
}

impl<V> KeyState<V> {
    /// Takes over a state, with `value` for the place of its value.
    pub(super) fn of(look: &Look<'_>, value: V) -> Self {
        Self {
            version: look.version,
            value: look.held.map(|_| value),
            hidden: look.hidden,
            ttls: look.ttls.iter().collect(),
            visible_at: look.visible_at,
        }
    }

    /// The state with its value at hand.
    pub(super) fn look<'a>(&'a self, held: Option<Stored<'a>>) -> Look<'a> {
        Look {
            version: self.version,
            held,
            hidden: self.hidden,
            ttls: Ttls { packed: &[], list: &self.ttls },
            visible_at: self.visible_at,
        }
    }

    /// Merges an effect; `place` is where its value is found, if it sets one.
    pub(super) fn merge(&mut self, effect: &Applying<'_>, place: impl FnOnce() -> V) -> Merged {
        match effect.change {
            Change::Set { deadline, .. } => {
                let merged = self.replace(effect, true);
                if merged.is_changed {
                    self.value = Some(place());
                    self.ttls.extend(
                        deadline.map(|deadline| TtlWrite { version: effect.version, deadline }),
                    );
                }
                merged
            }
            Change::Delete => self.replace(effect, false),
            Change::Ttl { deadline } => {
                let is_target = self.supersede_seen(effect);
                if is_target {
                    let deadline = deadline.unwrap_or(NEVER);
                    let place = self.ttls.partition_point(|ttl| ttl.version < effect.version);
                    self.ttls.insert(place, TtlWrite { version: effect.version, deadline });
                }
                Merged { is_changed: is_target, dropped: None }
            }
            Change::Hide => {
                let is_target = self.supersede_seen(effect);
                if is_target {
                    self.hidden = self.hidden.max(Some(effect.version));
                }
                Merged { is_changed: is_target, dropped: None }
            }
        }
    }

    /// Puts a value or tombstone in the place of a smaller one; the caller fills in the value.
    fn replace(&mut self, effect: &Applying<'_>, has_value: bool) -> Merged {
        let winner = effect.version;
        let has_seen = effect.seen.first().copied() == self.version;
        match self.version {
            Some(found) if found == winner => Merged::default(),
            Some(found) if winner < found => {
                Merged { is_changed: false, dropped: has_value.then_some((winner, found)) }
            }
            found => {
                let is_visible =
                    self.look(self.value.as_ref().map(|_| Stored::Here(&[]))).is_visible();
                let loser = found.filter(|_| !has_seen && is_visible);
                self.version = Some(winner);
                self.value = None;
                self.hidden = None;
                self.ttls.clear();
                self.visible_at = effect.visible_at;
                Merged { is_changed: true, dropped: loser.map(|loser| (loser, winner)) }
            }
        }
    }

    /// Removes the writes to the time to live that an effect on it has seen. The one that came
    /// with the value is seen by everyone who has seen the value. False if the value that the
    /// effect is about is no longer there.
    fn supersede_seen(&mut self, effect: &Applying<'_>) -> bool {
        let target = effect.seen.first().copied();
        if self.value.is_none() || target != self.version {
            return false;
        }
        self.ttls.retain(|ttl| !effect.seen.contains(&ttl.version));
        self.visible_at = self.visible_at.max(effect.visible_at);
        true
    }
}

impl<V> Default for KeyState<V> {
    fn default() -> Self {
        Self {
            version: None,
            value: None,
            hidden: None,
            ttls: SmallVec::new(),
            visible_at: Timestamp::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::{collection::vec, prelude::*};

    use super::{
        super::{
            Keys, record,
            testing::{entry, set, version},
        },
        *,
    };
    use crate::entry::{Effect, Seen};

    const KEY: &[u8] = b"key";

    /// An effect of the world that a test makes up.
    #[derive(Clone, Debug)]
    struct Made {
        version: Version,
        seen: Seen,
        kind: Kind,
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Kind {
        Set(Option<u64>),
        Delete,
        Ttl(Option<u64>),
        Hide,
    }

    impl Made {
        fn value(&self) -> [u8; 8] {
            self.version.timestamp.0.to_be_bytes()
        }

        fn is_about(&self, target: Version) -> bool {
            matches!(self.kind, Kind::Ttl(_) | Kind::Hide) && self.seen.first() == Some(&target)
        }
    }

    /// The rule, written down for a whole set of effects at once.
    fn state_of(effects: &[&Made]) -> KeyState<()> {
        let registers =
            effects.iter().filter(|made| matches!(made.kind, Kind::Set(_) | Kind::Delete));
        let Some(winner) = registers.max_by_key(|made| made.version) else {
            return KeyState::default();
        };
        let about: Vec<_> = effects.iter().filter(|made| made.is_about(winner.version)).collect();
        let mut state = KeyState {
            version: Some(winner.version),
            visible_at: about.iter().map(|made| made.version.timestamp).max().unwrap_or_default(),
            ..KeyState::default()
        };
        state.visible_at = state.visible_at.max(winner.version.timestamp);
        let Kind::Set(deadline) = winner.kind else { return state };
        state.value = Some(());
        state.hidden =
            about.iter().filter(|made| made.kind == Kind::Hide).map(|made| made.version).max();
        if about.is_empty() {
            state
                .ttls
                .extend(deadline.map(|deadline| TtlWrite { version: winner.version, deadline }));
        }
        let is_superseded =
            |version: &Version| about.iter().any(|other| other.seen[1..].contains(version));
        let mut left: Vec<_> = about
            .iter()
            .filter(|made| !is_superseded(&made.version))
            .filter_map(|made| match made.kind {
                Kind::Ttl(deadline) => Some((made.version, deadline.unwrap_or(NEVER))),
                Kind::Hide | Kind::Set(_) | Kind::Delete => None,
            })
            .collect();
        left.sort_unstable();
        state
            .ttls
            .extend(left.into_iter().map(|(version, deadline)| TtlWrite { version, deadline }));
        state
    }

    /// What an origin is told to do: whom to hear before, what to make, with which deadline.
    type Step = (usize, Option<usize>, u8, u64);

    /// Lets up to three origins write, each on what it has heard of.
    fn world(steps: &[Step]) -> Vec<Made> {
        let mut all: Vec<Made> = Vec::new();
        let mut known = vec![BTreeSet::new(); 3];
        for &(origin, heard, kind, deadline) in steps {
            if let Some(heard) = heard {
                let news = known[heard].clone();
                known[origin].extend(news);
            }
            let here: Vec<_> = known[origin].iter().map(|at: &usize| &all[*at]).collect();
            let state = state_of(&here);
            let look = state.look(state.value.map(|()| Stored::Here(b"")));
            let kind = match kind {
                0 => Kind::Set(None),
                1 => Kind::Set(Some(deadline)),
                2 if look.is_visible() => Kind::Delete,
                3 if look.is_visible() => Kind::Ttl(None),
                4 | 5 if look.is_visible() => Kind::Ttl(Some(deadline)),
                6 | 7 if look.deadline().is_some() && look.is_visible() => Kind::Hide,
                _ => continue,
            };
            let newest = here.iter().map(|made| made.version.timestamp.0).max().unwrap_or(0);
            let made = Made {
                version: version(newest + 1, u16::try_from(origin).unwrap()),
                seen: look.seen(),
                kind,
            };
            known[origin].insert(all.len());
            all.push(made);
        }
        all
    }

    /// Applies effects in an order; the packed record at the end.
    fn applied(order: &[&Made]) -> Option<Box<[u8]>> {
        let mut keys = Keys::new(1);
        let mut conflicts = Vec::new();
        for (position, made) in (1..).zip(order) {
            let value = made.value();
            let change = match made.kind {
                Kind::Set(deadline) => set(&value, deadline),
                Kind::Delete => Change::Delete,
                Kind::Ttl(deadline) => Change::Ttl { deadline },
                Kind::Hide => Change::Hide,
            };
            let effect = Effect { key: KEY, seen: made.seen.clone(), change };
            keys.commit(&entry(position, made.version, &[effect]), &mut conflicts);
        }
        keys.record_of(KEY).map(Box::from)
    }

    fn expected(effects: &[&Made]) -> Option<Box<[u8]>> {
        let state = state_of(effects);
        let winner = effects.iter().find(|made| Some(made.version) == state.version)?;
        let value = winner.value();
        let value = state.value.map(|()| Stored::Here(&value));
        Some(record::write(Vec::new(), KEY, &state, value))
    }

    /// Calls `each` with every order that respects `seen`, until `left` is used up.
    fn all_orders<'a>(
        order: &mut Vec<&'a Made>,
        rest: &[&'a Made],
        left: &mut u32,
        each: &mut impl FnMut(&[&'a Made]),
    ) {
        if rest.is_empty() {
            *left = left.saturating_sub(1);
            each(order);
        }
        for (at, made) in rest.iter().enumerate() {
            let has = |version: &Version| order.iter().any(|done| done.version == *version);
            if *left == 0 || !made.seen.iter().all(has) {
                continue;
            }
            let others: Vec<_> = [&rest[..at], &rest[at + 1..]].concat();
            order.push(made);
            all_orders(order, &others, left, each);
            order.pop();
        }
    }

    fn any_step() -> impl Strategy<Value = Step> {
        (0_usize..3, proptest::option::of(0_usize..3), 0_u8..8, 1_u64..5)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        #[test]
        fn all_orders_of_a_few_effects_give_the_same_record(steps in vec(any_step(), 1..9)) {
            let all = world(&steps);
            let all: Vec<_> = all.iter().take(6).collect();
            let expected = expected(&all);
            all_orders(&mut vec![], &all, &mut 720, &mut |order| {
                assert_eq!(applied(order), expected, "in the order {order:#?}");
            });
        }

        #[test]
        fn drawn_orders_of_many_effects_give_the_same_record(
            steps in vec(any_step(), 1..40),
            draws in vec(any::<usize>(), 40),
        ) {
            let all = world(&steps);
            let mut rest: Vec<_> = all.iter().collect();
            let mut order: Vec<&Made> = vec![];
            for draw in draws {
                let ready: Vec<_> = (0..rest.len())
                    .filter(|at| {
                        let seen = &rest[*at].seen;
                        seen.iter().all(|seen| order.iter().any(|done| done.version == *seen))
                    })
                    .collect();
                if !ready.is_empty() {
                    order.push(rest.remove(ready[draw % ready.len()]));
                }
            }
            prop_assert_eq!(order.len(), all.len());
            prop_assert_eq!(applied(&order), expected(&order));
        }
    }

    fn apply(
        state: &mut KeyState<()>,
        of: Version,
        seen: &[Version],
        change: Change<'_>,
    ) -> Merged {
        let visible_at = of.timestamp;
        state.merge(&Applying { version: of, visible_at, seen, change }, || ())
    }

    #[test]
    fn a_successor_is_no_conflict_and_a_stranger_is() {
        let (first, second, third) = (version(1, 1), version(2, 1), version(3, 2));
        let mut state = KeyState::default();
        assert_eq!(apply(&mut state, first, &[], set(b"a", None)).dropped, None);
        assert_eq!(apply(&mut state, second, &[first], set(b"b", None)).dropped, None);
        let merged = apply(&mut state, third, &[first], set(b"c", None));
        assert_eq!(merged.dropped, Some((second, third)));
        let late = version(2, 3);
        let merged = apply(&mut state, late, &[], set(b"d", None));
        assert_eq!(merged, Merged { is_changed: false, dropped: Some((late, third)) });
    }

    #[test]
    fn a_tombstone_loses_nothing() {
        let mut state = KeyState::default();
        apply(&mut state, version(5, 1), &[], Change::Delete);
        let merged = apply(&mut state, version(6, 2), &[], set(b"a", None));
        assert_eq!(merged, Merged { is_changed: true, dropped: None });
        let merged = apply(&mut state, version(4, 2), &[], Change::Delete);
        assert_eq!(merged, Merged { is_changed: false, dropped: None });
        let merged = apply(&mut state, version(7, 1), &[version(5, 1)], Change::Delete);
        assert_eq!(merged.dropped, Some((version(6, 2), version(7, 1))));
    }

    #[test]
    fn a_hidden_value_loses_nothing() {
        let mut state = KeyState::default();
        let value = version(1, 1);
        apply(&mut state, value, &[], set(b"a", Some(10)));
        apply(&mut state, version(2, 1), &[value], Change::Hide);
        let merged = apply(&mut state, version(2, 2), &[], set(b"b", None));
        assert_eq!(merged, Merged { is_changed: true, dropped: None });
    }

    #[test]
    fn a_longer_time_to_live_that_the_hiding_has_not_seen_brings_the_value_back() {
        let (value, hiding, longer) = (version(1, 1), version(3, 1), version(2, 2));
        let ttl = Change::Ttl { deadline: Some(90) };
        for order in [[hiding, longer], [longer, hiding]] {
            let mut state = KeyState::default();
            apply(&mut state, value, &[], set(b"a", Some(10)));
            for next in order {
                let change = if next == hiding { Change::Hide } else { ttl };
                apply(&mut state, next, &[value], change);
            }
            let look = state.look(Some(Stored::Here(b"a")));
            assert_eq!((look.value(), look.deadline()), (Some(Stored::Here(b"a")), Some(90)));
            assert_eq!(look.seen().as_slice(), [value, longer, hiding]);
        }
    }

    #[test]
    fn a_version_listed_twice_in_seen_changes_nothing() {
        let value = version(1, 1);
        let mut states = [KeyState::default(), KeyState::default()];
        for (state, seen) in states.iter_mut().zip([&[value][..], &[value, value][..]]) {
            apply(state, value, &[], set(b"a", Some(10)));
            apply(state, version(2, 1), seen, Change::Hide);
            assert!(!state.look(Some(Stored::Here(b"a"))).is_visible());
        }
    }

    #[test]
    fn a_time_to_live_of_a_value_that_is_gone_has_no_effect() {
        let (first, second) = (version(1, 1), version(3, 2));
        let mut state = KeyState::default();
        apply(&mut state, first, &[], set(b"a", None));
        apply(&mut state, second, &[first], set(b"b", None));
        let ttl = Change::Ttl { deadline: Some(10) };
        assert!(!apply(&mut state, version(4, 1), &[first], ttl).is_changed);
        assert!(!apply(&mut state, version(5, 1), &[first], Change::Hide).is_changed);
        let look = state.look(Some(Stored::Here(b"b")));
        assert!(look.is_visible());
        assert_eq!((look.deadline(), look.visible_at()), (None, second.timestamp));
    }
}
