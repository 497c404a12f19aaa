//! Recovery from a checkpoint and the rest of the log, against recovery from the whole log.

use antecede_model::operation::ExpireCondition;
use proptest::{collection::vec, prelude::*};

use super::*;
use crate::checkpointed::{
    CheckpointMeta, CheckpointStep, RecoveryError, StepLimits, ValueLostError,
};

/// What is done to a node of two datacenters.
#[derive(Clone, Copy, Debug)]
pub(super) enum Deed {
    Put {
        datacenter: u16,
        key: u8,
        value: u8,
    },
    Expire {
        key: u8,
        millis: u64,
    },
    Delete {
        key: u8,
    },
    /// Time passes, so that things become stable and are collected.
    Pass {
        millis: u64,
    },
    CutOff,
    Heal,
    Append {
        key: u8,
        value: u8,
    },
    Get {
        key: u8,
    },
    /// A step of a checkpoint is taken, and not on disk yet.
    Take,
    /// A step of a checkpoint is written.
    Step,
    /// Values are taken out of memory.
    Evict,
    /// The oldest load is answered.
    Load,
    /// The node stops, and comes back from its checkpoint and what its log still has.
    Restart,
}

fn any_deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        6 => (1_u16..3, 0_u8..5, any::<u8>())
            .prop_map(|(datacenter, key, value)| Deed::Put { datacenter, key, value }),
        2 => (0_u8..5, 1_u64..2000).prop_map(|(key, millis)| Deed::Expire { key, millis }),
        1 => (0_u8..5).prop_map(|key| Deed::Delete { key }),
        2 => (50_u64..900).prop_map(|millis| Deed::Pass { millis }),
        1 => Just(Deed::CutOff),
        1 => Just(Deed::Heal),
        2 => (0_u8..5, any::<u8>()).prop_map(|(key, value)| Deed::Append { key, value }),
        3 => (0_u8..5).prop_map(|key| Deed::Get { key }),
        2 => Just(Deed::Take),
        6 => Just(Deed::Step),
        4 => Just(Deed::Evict),
        3 => Just(Deed::Load),
        1 => Just(Deed::Restart),
    ]
}

/// What is on disk of one shard.
#[derive(Debug, Default)]
pub(super) struct Stored {
    pub(super) meta: Option<CheckpointMeta>,
    pub(super) records: BTreeMap<u64, Vec<u8>>,
    /// Records of the log before this one were cut off.
    log_from: LogIndex,
}

impl Stored {
    fn take(&mut self, mut step: CheckpointStep) {
        let stored = |hash| Ok::<_, ValueLostError>(self.records.get(&hash).cloned());
        step.complete(stored).unwrap();
        if step.is_reset {
            (self.meta, self.records) = (None, BTreeMap::new());
        }
        for (hash, records) in step.changes {
            match records {
                Some(records) => self.records.insert(hash, records),
                None => self.records.remove(&hash),
            };
        }
        if step.meta.is_some() {
            self.meta = step.meta;
        }
    }
}

pub(super) const SHARD: ShardId = ShardId(0);

pub(super) struct Run {
    pub(super) deployment: Deployment,
    pub(super) node: NodeId,
    pub(super) stored: Stored,
    /// Steps that are not on disk yet.
    taken: Vec<CheckpointStep>,
}

impl Run {
    pub(super) fn new() -> Self {
        Self::of(Deployment::of(2, 1, 1))
    }

    /// The first replica of a deployment takes checkpoints, and forgets values.
    pub(super) fn of(mut deployment: Deployment) -> Self {
        let node = deployment.replica(1, "k", 0);
        let replica = deployment.replica_mut(node);
        replica.options.has_checkpoints = true;
        replica.keys.remember_removed();
        replica.options.away_bytes_min = Some(8);
        replica.keys.allow_away(8);
        Self { deployment, node, stored: Stored::default(), taken: Vec::new() }
    }

    fn act(&mut self, datacenter: u16, key: u8, action: Action<'_>) {
        let key = format!("k{key}");
        let head = self.deployment.replica(datacenter, &key, 0);
        self.deployment.ask(head, &key, action, &Carried::default());
        self.deployment.settle();
    }

    pub(super) fn take(&mut self, deed: Deed) {
        match deed {
            Deed::Put { datacenter, key, value } => {
                self.act(datacenter, key, set(&format!("a value of {value}")));
            }
            Deed::Append { key, value } => {
                self.act(1, key, Action::Append { value: format!(", {value}").as_bytes() });
            }
            Deed::Get { key } => self.get(key),
            Deed::Evict => self.evict(),
            Deed::Load => self.load(),
            Deed::Expire { key, millis } => {
                let deadline = self.deployment.millis + millis;
                let condition = ExpireCondition::Always;
                self.act(1, key, Action::Expire { deadline, condition });
            }
            Deed::Delete { key } => self.act(1, key, Action::Delete),
            Deed::Pass { millis } => self.deployment.pass(millis),
            Deed::CutOff => self.deployment.cut_off(1, 2),
            Deed::Heal => self.deployment.cut.clear(),
            Deed::Take => self.take_step(),
            Deed::Step => {
                self.take_step();
                self.step();
            }
            Deed::Restart => {
                self.compare();
                self.restart();
            }
        }
    }

    /// Whoever waits for a value is answered with the newest one, so what is there when the request
    /// comes is the answer only while nobody writes: all loads are answered first.
    fn get(&mut self, key: u8) {
        while !self.deployment.loads.is_empty() {
            self.load();
        }
        let key = format!("k{key}");
        let mut whole = self.read_back(true);
        whole.commit_recovered(Position(u64::MAX));
        let look = whole.keys.committed(key.as_bytes());
        let wall = self.deployment.millis;
        let is_there = look.value().filter(|_| !look.is_expired(wall));
        let wanted = is_there.map(|value| value.bytes().unwrap().to_vec());
        let number = self.deployment.ask(self.node, &key, Action::Get, &Carried::default());
        while !self.deployment.loads.is_empty() {
            self.load();
        }
        self.deployment.settle();
        let wanted = wanted.map_or(Response::Nil, Response::Bytes);
        assert_eq!(self.deployment.replies[&number].response, wanted, "{key}");
    }

    pub(super) fn evict(&mut self) {
        let replica = self.deployment.replica_mut(self.node);
        for _ in 0..3 {
            replica.evict(StepLimits { looks: 3, bytes: 40 });
        }
        replica.keys.check_counters();
    }

    /// Answers the oldest load.
    pub(super) fn load(&mut self) {
        let Some((node, load)) = self.deployment.loads.pop_front() else { return };
        assert_eq!(node, self.node, "no other replica forgets values");
        let records = self.stored.records.get(&load.hash).cloned();
        let records = records.as_deref();
        let loaded = Loaded { hash: load.hash, number: load.number, records };
        self.deployment.tell(node, load.shard, Input::Loaded(loaded));
        self.deployment.settle();
        assert!(
            !self.deployment.events.iter().any(|event| matches!(event, Event::LoadFailed { .. }))
        );
    }

    /// Takes a step that is written later.
    fn take_step(&mut self) {
        let replica = self.deployment.replica_mut(self.node);
        let step = replica.take_checkpoint(StepLimits { looks: 2, bytes: 40 });
        self.taken.extend(step);
    }

    /// Writes all steps that were taken, and cuts the log where it may be.
    pub(super) fn step(&mut self) {
        let replica = self.deployment.replica_mut(self.node);
        if self.taken.is_empty() {
            return;
        }
        for step in self.taken.drain(..) {
            self.stored.take(step);
        }
        replica.checkpoint_is_durable();
        if let Some(from) = replica.needs_log_from() {
            self.stored.log_from = self.stored.log_from.max(from);
        }
    }

    /// A replica that was read back, by the whole log or by what is left of it and the checkpoint.
    fn read_back(&self, by_whole_log: bool) -> Shard {
        let node = &self.deployment.nodes[&self.node];
        let options = node.shards[&SHARD].options;
        let configuration = Arc::clone(&self.deployment.configuration);
        let mut replica = Shard::new(SHARD, self.node, configuration, options);
        if let Some(meta) = self.stored.meta.clone().filter(|_| !by_whole_log) {
            replica.recover_checkpoint(meta);
            for (hash, records) in &self.stored.records {
                let takes_values = hash % 4 == 0; // Some are left on disk.
                replica.recover_records(*hash, records, takes_values).unwrap();
            }
        }
        let records = (1..).map(LogIndex).zip(&node.disk.records);
        for (index, record) in records {
            if by_whole_log || self.stored.log_from <= index {
                replica.recover(index, Record::read(record).unwrap());
            }
        }
        let end = LogIndex(node.disk.records.len() as u64);
        assert_eq!(replica.end_recovery(end), Ok(()));
        replica
    }

    fn compare(&self) {
        let [mut found, mut wanted] = [false, true].map(|is_whole| self.read_back(is_whole));
        assert_eq!(found.end(), wanted.end());
        for replica in [&mut found, &mut wanted] {
            replica.commit_recovered(Position(u64::MAX));
        }
        let stored = &self.stored.records;
        let (of_found, of_wanted) = (visible(&mut found, stored), visible(&mut wanted, stored));
        assert_eq!(of_found, of_wanted, "keys");
        for (origin, line) in &wanted.lines {
            assert_eq!(found.lines[origin].received, line.received, "received of {origin}");
            assert_eq!(found.lines[origin].applied, line.applied, "applied of {origin}");
            assert_eq!(found.lines[origin].newest_write, line.newest_write, "of {origin}");
        }
        let running = &self.deployment.nodes[&self.node].shards[&SHARD];
        assert!(found.window.cut_to() <= running.window.cut_to(), "others may need what is held");
        let behind = running.window.cut_to();
        assert!(found.window.after(behind).eq(wanted.window.after(behind)), "the window");
        assert!(running.hlc.last() <= found.hlc.last().max(running.hlc.last()));
    }

    fn restart(&mut self) {
        self.taken.clear();
        self.deployment.loads.clear();
        let mut replica = self.read_back(false);
        let here = self.deployment.here(self.node);
        let mut out = Outputs::default();
        let state = self.deployment.nodes.get_mut(&self.node).unwrap();
        state.boot = Boot(state.boot.0 + 1);
        let here = Here { boot: state.boot, ..here };
        replica.start(&here, &mut state.disk, &mut out);
        state.shards.insert(SHARD, replica);
        self.deployment.take(self.node, out);
        self.deployment.settle();
    }
}

impl Deployment {
    pub(super) fn replica_mut(&mut self, node: NodeId) -> &mut Shard {
        self.nodes.get_mut(&node).unwrap().shards.get_mut(&SHARD).unwrap()
    }
}

/// The records of keys that are visible, byte for byte: tombstones may have been collected.
fn visible(replica: &mut Shard, stored: &BTreeMap<u64, Vec<u8>>) -> Vec<Box<[u8]>> {
    let keys = &mut replica.keys;
    keys.check_counters();
    if let Err(lacking) = keys.part(0, usize::MAX) {
        for hash in lacking.hashes {
            keys.put_back(hash, stored.get(&hash).map(Vec::as_slice), false).unwrap();
        }
    }
    assert_eq!((keys.away_count(), keys.away_bytes()), (0, 0));
    let records = keys.part(0, usize::MAX).unwrap().records.into_iter();
    records.filter(|record| keys.committed(crate::state::key_of(record)).is_visible()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn a_checkpoint_and_the_rest_of_the_log_say_what_the_whole_log_says(
        deeds in vec(any_deed(), 1..60),
    ) {
        let mut run = Run::new();
        for deed in deeds {
            run.take(deed);
        }
        run.compare();
    }
}

#[test]
fn what_a_checkpoint_contains_is_not_merged_again() {
    let mut run = Run::new();
    run.take(Deed::Put { datacenter: 1, key: 0, value: 1 });
    run.take(Deed::Put { datacenter: 1, key: 1, value: 1 });
    run.take(Deed::Step); // Notes the base.
    for millis in [5_000, 9_000] {
        for key in 0..2 {
            run.take(Deed::Expire { key, millis });
        }
    }
    run.take(Deed::Step);
    run.take(Deed::Step);
    let meta = run.stored.meta.as_ref().expect("the checkpoint is complete");
    assert!(meta.start.position() < meta.floors.highest(), "some keys are newer than the base");
    run.compare();
}

#[test]
fn a_log_that_does_not_belong_to_a_checkpoint_is_refused() {
    let mut run = Run::new();
    for value in 0..4 {
        run.take(Deed::Put { datacenter: 1, key: 0, value });
    }
    run.deployment.pass(2_000); // Stable, so that nobody needs the entries.
    for _ in 0..4 {
        run.take(Deed::Step);
    }
    for value in 0..4 {
        run.take(Deed::Put { datacenter: 1, key: 0, value });
    }
    let meta = run.stored.meta.clone().expect("there is a checkpoint");
    let configuration = Arc::clone(&run.deployment.configuration);
    let options = run.deployment.nodes[&run.node].shards[&SHARD].options;
    let new = || Shard::new(SHARD, run.node, Arc::clone(&configuration), options);
    let log = run.deployment.nodes[&run.node].disk.records.clone();
    let read = |replica: &mut Shard, places: std::ops::Range<usize>| {
        let end = LogIndex(places.end as u64);
        for place in places {
            let record = Record::read(&log[place]).unwrap();
            replica.recover(LogIndex(place as u64 + 1), record);
        }
        replica.end_recovery(end)
    };

    let mut without = new();
    let found = read(&mut without, 2..log.len());
    assert!(matches!(found, Err(RecoveryError::Gap { wanted: Position(1), .. })), "{found:?}");

    let mut trimmed = new();
    trimmed.recover(LogIndex(1), Record::Trimmed { shard: SHARD, to: Position(7) });
    let found = trimmed.end_recovery(LogIndex(1));
    let is_gap = matches!(found, Err(RecoveryError::Gap { found: Position(7), .. }));
    assert!(is_gap, "{found:?}");

    let mut hole = new();
    hole.recover_checkpoint(meta.clone());
    let found = read(&mut hole, log.len() - 1..log.len());
    assert!(matches!(found, Err(RecoveryError::Gap { .. })), "{found:?}");

    let mut floors = meta.floors.clone();
    floors.raise(0, None, Position(1_000));
    let mut short = new();
    short.recover_checkpoint(CheckpointMeta { floors, ..meta.clone() });
    let found = read(&mut short, 0..log.len());
    let is_short = matches!(found, Err(RecoveryError::Short { contained: Position(1_000), .. }));
    assert!(is_short, "{found:?}");

    let noted = meta.log_to;
    let mut behind = new();
    behind.recover_checkpoint(meta.clone());
    let found = read(&mut behind, 0..usize::try_from(noted.0).unwrap() - 1);
    let end = LogIndex(noted.0 - 1);
    assert_eq!(found, Err(RecoveryError::Behind { shard: SHARD, end, noted }));

    let mut start = meta.start.clone();
    start.last.as_mut().unwrap().checksum ^= 1;
    let mut other = new();
    let window_from = Position(0);
    other.recover_checkpoint(CheckpointMeta { start, window_from, ..meta });
    let found = read(&mut other, 0..log.len());
    assert!(matches!(found, Err(RecoveryError::Differs { .. })), "{found:?}");
}

#[test]
fn a_log_that_was_cut_within_copied_history_goes_on_behind_the_base() {
    let mut run = Run::new();
    for value in 0..4 {
        run.take(Deed::Put { datacenter: 1, key: 0, value });
    }
    run.deployment.pass(2_000);
    for _ in 0..4 {
        run.take(Deed::Step);
    }
    let meta = run.stored.meta.clone().expect("there is a checkpoint");
    assert!(Position(1) < meta.start.position());
    let configuration = Arc::clone(&run.deployment.configuration);
    let options = run.deployment.nodes[&run.node].shards[&SHARD].options;
    let log = run.deployment.nodes[&run.node].disk.records.clone();
    let oldest = log.iter().map(|bytes| Record::read(bytes).unwrap()).find_map(|record| {
        if let Record::Entry { entry, shard: SHARD, .. } = record { Some(entry) } else { None }
    });
    let entry = oldest.expect("the log has entries of the shard");
    assert_eq!(entry.identity.position, Position(1));

    let mut replica = Shard::new(SHARD, run.node, configuration, options);
    let base = meta.start.position();
    let end = meta.log_to;
    replica.recover_checkpoint(CheckpointMeta { window_from: Position(0), ..meta });
    replica.recover(LogIndex(1), Record::History { shard: SHARD, entry });
    assert_eq!(replica.end_recovery(end), Ok(()));
    assert_eq!(replica.end(), base);
}
