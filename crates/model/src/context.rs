//! Keeps a session's causal past as nearest dependencies.
//!
//! A read adds what it returned; a write takes the context as its dependencies, and afterwards the
//! context is that one write (COPS section 4.2). Writes that are stable are left out at once. Beyond
//! `EXACT_MAX` exact dependencies they collapse into a floor: everything of an origin up to a
//! stamp.
//!
//! The context also keeps the largest HLC that the session met, and for each datacenter that
//! contributed to it that datacenter's logical time: what a datacenter has shown itself is
//! covered there by construction (DESIGN section 4 "Bounds").
//!
//! Invariant: `exact` is sorted and free of repeats, and holds at most `EXACT_MAX`.

use crate::{clock::Timestamp, cut::Cut, dependency::Dependency, ids::DatacenterId};

/// Exact dependencies that a context holds; beyond, they collapse into the floor.
pub const EXACT_MAX: usize = 64;

/// What a write must wait for in another datacenter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dependencies {
    /// Writes by name, sorted.
    pub exact: Vec<Dependency>,
    /// Everything of an origin up to a stamp, sorted by origin; usually empty.
    pub floor: Vec<(DatacenterId, Timestamp)>,
}

impl Dependencies {
    /// The largest stamp that is named, which the write's own stamp must exceed.
    #[must_use]
    pub fn newest(&self) -> Timestamp {
        let exact = self.exact.iter().map(|dependency| dependency.stamp);
        let floor = self.floor.iter().map(|(_, stamp)| *stamp);
        exact.chain(floor).max().unwrap_or_default()
    }
}

/// A session's causal past.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Context {
    dependencies: Dependencies,
    /// The largest HLC that the session met.
    time: Timestamp,
    /// The logical time of each datacenter that contributed, sorted.
    contributed: Vec<(DatacenterId, Timestamp)>,
}

impl Context {
    /// A context put together from its parts, as a token carries them.
    #[must_use]
    pub fn from_parts(
        mut dependencies: Dependencies,
        time: Timestamp,
        contributed: impl IntoIterator<Item = (DatacenterId, Timestamp)>,
    ) -> Self {
        dependencies.exact.sort_unstable();
        dependencies.exact.dedup();
        let floor = std::mem::take(&mut dependencies.floor);
        let mut context = Self { dependencies, time, contributed: Vec::new() };
        for (origin, stamp) in floor {
            raise(&mut context.dependencies.floor, origin, stamp);
        }
        for (datacenter, at) in contributed {
            raise(&mut context.contributed, datacenter, at);
        }
        context.collapse_if_long();
        context
    }

    /// What a write of this session depends on.
    #[must_use]
    pub const fn dependencies(&self) -> &Dependencies {
        &self.dependencies
    }

    /// The largest HLC that the session met.
    #[must_use]
    pub const fn time(&self) -> Timestamp {
        self.time
    }

    /// The logical time of each datacenter that contributed.
    #[must_use]
    pub fn contributed(&self) -> &[(DatacenterId, Timestamp)] {
        &self.contributed
    }

    /// Whether all of it was shown by one datacenter, which then covers it by construction.
    #[must_use]
    pub fn is_covered_at(&self, here: DatacenterId) -> bool {
        let has_nothing = self.dependencies.exact.is_empty() && self.dependencies.floor.is_empty();
        has_nothing || self.contributed.iter().all(|(datacenter, _)| *datacenter == here)
    }

    /// Adds a write that a read at `here` returned, unless it is stable.
    pub fn read(
        &mut self,
        here: DatacenterId,
        dependency: Dependency,
        visible_at: Timestamp,
        stable: &Cut,
    ) {
        self.advance(here, visible_at.max(dependency.stamp));
        if stable.covers(dependency.origin, dependency.stamp) {
            return;
        }
        if let Err(place) = self.dependencies.exact.binary_search(&dependency) {
            self.dependencies.exact.insert(place, dependency);
            if EXACT_MAX < self.dependencies.exact.len() {
                self.forget_stable(stable);
                self.collapse_if_long();
            }
        }
    }

    /// Becomes the one write that carried all of this context, made at `here`.
    pub fn become_write(&mut self, here: DatacenterId, dependency: Dependency, stable: &Cut) {
        self.dependencies.exact.clear();
        self.dependencies.floor.clear();
        self.contributed.retain(|(datacenter, _)| *datacenter == here);
        self.read(here, dependency, dependency.stamp, stable);
    }

    /// Takes note of a logical time of the datacenter `here`.
    pub fn advance(&mut self, here: DatacenterId, time: Timestamp) {
        self.time = self.time.max(time);
        raise(&mut self.contributed, here, time);
    }

    /// Drops what has become stable.
    pub fn forget_stable(&mut self, stable: &Cut) {
        self.dependencies
            .exact
            .retain(|dependency| !stable.covers(dependency.origin, dependency.stamp));
        self.dependencies.floor.retain(|(origin, stamp)| !stable.covers(*origin, *stamp));
    }

    /// Adds all of another context: the larger of both everywhere.
    pub fn merge(&mut self, other: &Self, stable: &Cut) {
        self.time = self.time.max(other.time);
        for (datacenter, at) in &other.contributed {
            raise(&mut self.contributed, *datacenter, *at);
        }
        for (origin, stamp) in &other.dependencies.floor {
            raise(&mut self.dependencies.floor, *origin, *stamp);
        }
        self.dependencies.exact.extend_from_slice(&other.dependencies.exact);
        self.dependencies.exact.sort_unstable();
        self.dependencies.exact.dedup();
        self.forget_stable(stable);
        self.collapse_if_long();
    }

    /// Collapses exact dependencies into the floor until at most `exact_max` are left.
    ///
    /// The newest stay exact: the floor then reaches less far.
    pub fn collapse_to(&mut self, exact_max: usize) {
        if self.dependencies.exact.len() <= exact_max {
            return;
        }
        let mut exact = std::mem::take(&mut self.dependencies.exact);
        exact.sort_unstable_by_key(|dependency| dependency.stamp);
        let kept = exact.split_off(exact.len() - exact_max);
        for dependency in exact {
            raise(&mut self.dependencies.floor, dependency.origin, dependency.stamp);
        }
        self.dependencies.exact = kept;
        let floor = &self.dependencies.floor;
        self.dependencies.exact.retain(|dependency| {
            !floor
                .iter()
                .any(|(origin, to)| *origin == dependency.origin && dependency.stamp <= *to)
        });
        self.dependencies.exact.sort_unstable();
    }

    fn collapse_if_long(&mut self) {
        if EXACT_MAX < self.dependencies.exact.len() {
            self.collapse_to(0);
        }
    }
}

/// Raises the entry of a datacenter in a sorted list, or adds it.
fn raise(list: &mut Vec<(DatacenterId, Timestamp)>, datacenter: DatacenterId, to: Timestamp) {
    match list.binary_search_by_key(&datacenter, |(found, _)| *found) {
        Ok(place) => list[place].1 = list[place].1.max(to),
        Err(place) => list.insert(place, (datacenter, to)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ShardId;

    const A: DatacenterId = DatacenterId(1);
    const B: DatacenterId = DatacenterId(2);

    fn write(origin: DatacenterId, shard: u16, stamp: u64) -> Dependency {
        Dependency { origin, shard: ShardId(shard), stamp: Timestamp(stamp) }
    }

    #[test]
    fn after_a_write_the_context_is_that_one_write() {
        let mut context = Context::default();
        let nothing = Cut::default();
        context.read(A, write(B, 1, 5), Timestamp(9), &nothing);
        context.read(A, write(A, 2, 7), Timestamp(7), &nothing);
        context.become_write(A, write(A, 3, 12), &nothing);
        assert_eq!(context.dependencies().exact, vec![write(A, 3, 12)]);
        assert_eq!(context.time(), Timestamp(12));
    }

    #[test]
    fn two_reads_of_one_shard_and_origin_are_both_kept() {
        let mut context = Context::default();
        context.read(A, write(B, 1, 5), Timestamp(9), &Cut::default());
        context.read(A, write(B, 1, 6), Timestamp(9), &Cut::default());
        assert_eq!(context.dependencies().exact.len(), 2);
    }

    #[test]
    fn a_stable_write_is_left_out_but_its_time_counts() {
        let stable = Cut::of([(B, Timestamp(5))]);
        let mut context = Context::default();
        context.read(A, write(B, 1, 5), Timestamp(9), &stable);
        context.read(A, write(B, 1, 6), Timestamp(8), &stable);
        assert_eq!(context.dependencies().exact, vec![write(B, 1, 6)]);
        assert_eq!(context.time(), Timestamp(9));
    }

    #[test]
    fn too_many_dependencies_collapse_into_a_floor_per_origin() {
        let mut context = Context::default();
        for shard in 0..=EXACT_MAX {
            let shard = u16::try_from(shard).unwrap();
            let origin = if shard % 2 == 0 { A } else { B };
            context.read(
                A,
                write(origin, shard, 100 + u64::from(shard)),
                Timestamp(1),
                &Cut::default(),
            );
        }
        assert!(context.dependencies().exact.is_empty());
        assert_eq!(context.dependencies().floor, vec![(A, Timestamp(164)), (B, Timestamp(163))]);
        assert_eq!(context.dependencies().newest(), Timestamp(164));
    }

    #[test]
    fn what_one_datacenter_showed_is_covered_there_and_nowhere_else() {
        let mut context = Context::default();
        context.read(A, write(B, 1, 5), Timestamp(9), &Cut::default());
        assert!(context.is_covered_at(A));
        assert!(!context.is_covered_at(B));
        let mut other = Context::default();
        other.read(B, write(B, 2, 6), Timestamp(9), &Cut::default());
        context.merge(&other, &Cut::default());
        assert!(!context.is_covered_at(A));
    }

    #[test]
    fn merging_twice_changes_nothing() {
        let mut left = Context::default();
        left.read(A, write(B, 1, 5), Timestamp(9), &Cut::default());
        let mut right = Context::default();
        right.read(B, write(A, 2, 7), Timestamp(3), &Cut::default());
        left.merge(&right, &Cut::default());
        let once = left.clone();
        left.merge(&right, &Cut::default());
        assert_eq!(left, once);
    }
}
