//! Names the kinds of trouble that a run can seek, and bends a plan towards each.
//!
//! Most are after executions that break simpler rules: a race between deletes and late writes,
//! promises of idle shards, a tail that dies before the others have synced, and so on.

use antecede_model::ids::{DatacenterId, NodeId};

use crate::{
    chance::Chance,
    faults::{Fault, FaultKind, Trigger},
    moment::{MICRO, MILLI, Moment, SECOND},
    plan::{ACTIVE, Durability, Plan},
};

/// A kind of trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Profile {
    /// A bit of everything.
    Mixed,
    /// Deletes everywhere while single links are far slower than the rest.
    GcRace,
    /// Shards that are mostly idle, clocks that are off, heads that die.
    Ticks,
    /// Tails that die while the rest of their chains has not synced.
    TailDeath,
    /// Nodes that are back before anybody has noticed.
    FastRestart,
    /// Conditional writes against heads that die before they have forwarded.
    DirtyReplies,
    /// Many commands at once over several shards whose chains are unevenly slow.
    Pipelines,
    /// Writes that are blocked by a third datacenter while later ones pass.
    OutOfOrder,
    /// Chains that lose nodes for ever while a datacenter lags.
    ChainReplaced,
    /// Sessions that move between nodes and datacenters with tokens.
    Sessions,
    /// Sessions that hurry from a fast clock to a slow one.
    LogicalTime,
    /// Nodes that restart while single writes are applied above a gap.
    Gaps,
    /// Far more blocked writes than a datacenter may hold.
    BackPressure,
    /// Nodes that lose what they had written and not synced while others still write it.
    WeakerFsync,
    /// Clients that send again, under request ids, what they have no answer to.
    Retries,
    /// Disks on which bits change.
    Rot,
}

/// Which faults are drawn how often.
#[derive(Clone, Copy, Debug)]
pub struct Bias {
    /// Faults at most.
    pub faults_max: u64,
    /// Weight of crashes.
    pub crash: u64,
    /// Weight of cut links.
    pub cut: u64,
    /// Weight of slowness.
    pub slow: u64,
    /// Weight of clocks that jump.
    pub clock: u64,
    /// When nodes crash.
    pub triggers: &'static [Trigger],
    /// Of a thousand crashes, how many take the whole datacenter.
    pub blackout_per_mille: u64,
    /// Whether nodes come back at once.
    pub restarts_fast: bool,
}

const ANY_TRIGGER: &[Trigger] =
    &[Trigger::Now, Trigger::Append, Trigger::Append, Trigger::Written, Trigger::Synced];

impl Profile {
    /// All of them.
    pub const ALL: &'static [Self] = &[
        Self::Mixed,
        Self::GcRace,
        Self::Ticks,
        Self::TailDeath,
        Self::FastRestart,
        Self::DirtyReplies,
        Self::Pipelines,
        Self::OutOfOrder,
        Self::ChainReplaced,
        Self::Sessions,
        Self::LogicalTime,
        Self::Gaps,
        Self::BackPressure,
        Self::WeakerFsync,
        Self::Retries,
        Self::Rot,
    ];

    /// How it is called on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mixed => "mixed",
            Self::GcRace => "gc-race",
            Self::Ticks => "ticks",
            Self::TailDeath => "tail-death",
            Self::FastRestart => "fast-restart",
            Self::DirtyReplies => "dirty-replies",
            Self::Pipelines => "pipelines",
            Self::OutOfOrder => "out-of-order",
            Self::ChainReplaced => "chain-replaced",
            Self::Sessions => "sessions",
            Self::LogicalTime => "logical-time",
            Self::Gaps => "gaps",
            Self::BackPressure => "back-pressure",
            Self::WeakerFsync => "weaker-fsync",
            Self::Retries => "retries",
            Self::Rot => "rot",
        }
    }

    /// The profile of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|profile| profile.name() == name)
    }

    /// Half of the seeds draw from everything, the others seek one kind of trouble.
    pub fn draw(chance: &mut Chance) -> Self {
        if chance.per_mille(500) {
            return Self::Mixed;
        }
        let [others @ .., weaker_fsync, retries, rot] = Self::ALL else { return Self::Mixed };
        let drawn = chance.pick(others);
        // Drawn apart: so most seeds go on meaning what they meant before there were these.
        if chance.per_mille(100) {
            *weaker_fsync
        } else if chance.per_mille(100) {
            *retries
        } else if chance.per_mille(60) {
            *rot
        } else {
            drawn
        }
    }

    /// Which faults it draws how often.
    #[must_use]
    pub const fn bias(self) -> Bias {
        let usual = Bias {
            faults_max: 20,
            crash: 4,
            cut: 4,
            slow: 3,
            clock: 1,
            triggers: ANY_TRIGGER,
            blackout_per_mille: 60,
            restarts_fast: false,
        };
        match self {
            Self::Mixed => usual,
            Self::Rot => Bias { crash: 6, cut: 2, slow: 2, ..usual },
            Self::GcRace => Bias { crash: 1, cut: 1, slow: 4, ..usual },
            Self::Ticks => Bias { crash: 6, cut: 1, slow: 2, clock: 3, ..usual },
            Self::TailDeath => Bias {
                faults_max: 30,
                crash: 8,
                cut: 1,
                slow: 3,
                triggers: &[Trigger::Append, Trigger::Written, Trigger::Synced],
                ..usual
            },
            Self::FastRestart => {
                Bias { faults_max: 40, crash: 10, cut: 1, slow: 1, restarts_fast: true, ..usual }
            }
            Self::DirtyReplies | Self::Retries => Bias {
                faults_max: 40,
                crash: 10,
                cut: 1,
                slow: 2,
                triggers: &[Trigger::Append, Trigger::Append, Trigger::Written],
                ..usual
            },
            Self::Pipelines => Bias { crash: 3, cut: 1, slow: 8, ..usual },
            Self::OutOfOrder => Bias { faults_max: 30, crash: 1, cut: 6, slow: 4, ..usual },
            Self::Gaps => Bias { faults_max: 30, crash: 8, cut: 2, slow: 2, ..usual },
            Self::ChainReplaced => Bias { faults_max: 14, crash: 1, cut: 3, slow: 3, ..usual },
            Self::Sessions | Self::LogicalTime => {
                Bias { crash: 2, cut: 4, slow: 4, clock: 2, ..usual }
            }
            Self::BackPressure => Bias { faults_max: 10, crash: 0, cut: 4, slow: 1, ..usual },
            Self::WeakerFsync => {
                Bias { faults_max: 60, crash: 8, cut: 1, slow: 6, restarts_fast: true, ..usual }
            }
        }
    }

    /// Changes what was drawn so that the trouble becomes likely.
    pub(crate) fn bend(self, plan: &mut Plan, chance: &mut Chance) {
        if self != Self::Mixed {
            plan.shape.durability = Durability::Always;
        }
        match self {
            Self::Mixed => {}
            Self::GcRace => seek_gc_race(plan, chance),
            Self::Ticks => seek_ticks(plan),
            Self::TailDeath | Self::FastRestart => {
                long_chains(plan);
                plan.weather.disk_delay = chance.pick(&[500, 2000, 8000]) * MICRO;
                plan.workload.home_per_mille = 600;
            }
            Self::DirtyReplies => seek_dirty_replies(plan),
            Self::Retries => {
                seek_dirty_replies(plan);
                plan.workload.delete_per_mille = 100;
                plan.workload.batch_per_mille = 60;
            }
            Self::Pipelines => seek_pipelines(plan),
            Self::Rot => {
                long_chains(plan);
                plan.workload.delete_per_mille = 100;
            }
            Self::OutOfOrder => {
                at_least_three_datacenters(plan);
                workload_of_hot_keys(plan);
                short_delays(plan, chance);
            }
            Self::Gaps => {
                at_least_three_datacenters(plan);
                workload_of_hot_keys(plan);
                short_delays(plan, chance);
                plan.shape.chain = 1;
                plan.shape.nodes = 2;
                plan.shape.shards = 4;
            }
            Self::LogicalTime => seek_logical_time(plan),
            Self::ChainReplaced => {
                at_least_three_datacenters(plan);
                long_chains(plan);
                plan.workload.delete_per_mille = 100;
            }
            Self::Sessions => {
                plan.workload.move_per_mille = 250;
                plan.workload.eventual_per_mille = 0;
                plan.workload.pipeline_per_mille = 0;
                plan.weather.skew_millis = 200;
            }
            Self::BackPressure => seek_back_pressure(plan),
            Self::WeakerFsync => {
                plan.shape.durability = Durability::Interval;
                long_chains(plan);
                plan.weather.disk_delay = chance.pick(&[500, 2000, 8000]) * MICRO;
                plan.workload.home_per_mille = 600;
            }
        }
    }

    /// Faults that belong to it in every run.
    pub(crate) fn fixed_faults(self, chance: &mut Chance, plan: &Plan) -> Vec<Fault> {
        match self {
            Self::GcRace | Self::OutOfOrder => slow_pairs(chance, plan, 12),
            Self::Gaps => slow_pairs(chance, plan, 30),
            Self::Ticks | Self::TailDeath | Self::ChainReplaced => removals(chance, plan),
            Self::BackPressure => blocked_third(chance, plan),
            Self::Mixed
            | Self::FastRestart
            | Self::DirtyReplies
            | Self::Retries
            | Self::Rot
            | Self::Pipelines
            | Self::Sessions
            | Self::LogicalTime
            | Self::WeakerFsync => Vec::new(),
        }
    }
}

fn seek_gc_race(plan: &mut Plan, chance: &mut Chance) {
    at_least_three_datacenters(plan);
    plan.workload.delete_per_mille = 450;
    plan.workload.groups = 2;
    plan.workload.home_per_mille = 0;
    short_delays(plan, chance);
}

fn seek_ticks(plan: &mut Plan) {
    long_chains(plan);
    plan.shape.shards = 8;
    plan.workload.groups = 6;
    plan.workload.operations /= 2;
    plan.workload.think *= 2;
    plan.weather.skew_millis = 200;
    plan.weather.local_delay = MILLI;
}

fn seek_dirty_replies(plan: &mut Plan) {
    long_chains(plan);
    plan.workload.home_per_mille = 700;
    plan.workload.conditional_per_mille = 600;
    plan.workload.delete_per_mille = 300;
    plan.workload.read_per_mille = 300;
    plan.workload.think /= 2;
    plan.workload.groups = 2;
    plan.weather.disk_delay = 4 * MILLI;
}

fn seek_pipelines(plan: &mut Plan) {
    long_chains(plan);
    plan.workload.pipeline_per_mille = 700;
    plan.workload.pipeline_max = 6;
    plan.workload.home_per_mille = 100;
    plan.shape.shards = 8;
    plan.weather.disk_delay = 2 * MILLI;
}

fn seek_logical_time(plan: &mut Plan) {
    plan.shape.chain = 1;
    plan.shape.nodes = 3;
    plan.shape.shards = 8;
    plan.workload.clients = 6;
    plan.workload.operations = 300;
    plan.workload.think = 40 * MILLI;
    plan.workload.groups = 6;
    plan.workload.home_per_mille = 100;
    plan.workload.move_per_mille = 300;
    plan.workload.pipeline_per_mille = 0;
    plan.workload.eventual_per_mille = 0;
    plan.weather.skew_millis = 200;
}

fn seek_back_pressure(plan: &mut Plan) {
    at_least_three_datacenters(plan);
    workload_of_hot_keys(plan);
    plan.workload.operations *= 2;
    plan.workload.think /= 3;
    plan.workload.read_per_mille = 200;
    plan.workload.pipeline_per_mille = 300;
    plan.shape.shards = 4;
}

fn at_least_three_datacenters(plan: &mut Plan) {
    let before = usize::from(plan.shape.datacenters);
    plan.shape.datacenters = plan.shape.datacenters.max(3);
    for _ in before..usize::from(plan.shape.datacenters) {
        let delays = &mut plan.weather.wide_delays;
        let mut row = delays[0].clone();
        row.rotate_left(1);
        delays.push(row);
        for row in delays {
            row.push(10 * MILLI);
        }
    }
}

fn long_chains(plan: &mut Plan) {
    plan.shape.chain = plan.shape.chain.max(2);
    plan.shape.nodes = plan.shape.nodes.max(plan.shape.chain);
}

fn short_delays(plan: &mut Plan, chance: &mut Chance) {
    for row in &mut plan.weather.wide_delays {
        for delay in row {
            *delay = chance.between(2, 8) * MILLI;
        }
    }
}

fn workload_of_hot_keys(plan: &mut Plan) {
    plan.workload.home_per_mille = 0;
    plan.workload.groups = 4;
    plan.workload.hot_keys = 2;
    plan.workload.eventual_per_mille = 0;
}

/// Single links between nodes of different datacenters that are slow for some seconds.
fn slow_pairs(chance: &mut Chance, plan: &Plan, count: u64) -> Vec<Fault> {
    let nodes: Vec<NodeId> = plan.shape.all_nodes().collect();
    (0..count)
        .filter_map(|_| {
            let (from, to) = (chance.pick(&nodes), chance.pick(&nodes));
            let at = Moment(chance.between(SECOND / 2, ACTIVE.0 - 8 * SECOND));
            let lasts = chance.between(1, 6) * SECOND;
            let extra = chance.pick(&[300, 1000, 3000]) * MILLI;
            let kind = FaultKind::SlowPair { from, to, extra };
            (from.datacenter != to.datacenter).then_some(Fault { at, lasts, kind })
        })
        .collect()
}

/// One node of one datacenter, perhaps another of a second, is gone for ever.
fn removals(chance: &mut Chance, plan: &Plan) -> Vec<Fault> {
    let count = chance.between(1, 2).min(u64::from(plan.shape.datacenters));
    let first = chance.below(u64::from(plan.shape.datacenters));
    let mut faults = Vec::new();
    for turn in 0..count {
        let place = (first + turn) % u64::from(plan.shape.datacenters) + 1;
        let datacenter = DatacenterId(u16::try_from(place).expect("few datacenters"));
        let number = chance.between(1, u64::from(plan.shape.nodes));
        let node = NodeId { datacenter, number: u16::try_from(number).expect("few nodes") };
        let at = Moment(chance.between(4 * SECOND, 20 * SECOND));
        faults.push(Fault { at, lasts: 0, kind: FaultKind::Remove { node } });
    }
    faults
}

/// Two datacenters talk while the third hears only one of them, for long.
fn blocked_third(chance: &mut Chance, plan: &Plan) -> Vec<Fault> {
    let id = |number: u64| DatacenterId(u16::try_from(number + 1).expect("few datacenters"));
    let count = u64::from(plan.shape.datacenters);
    let first = chance.below(count);
    let (from, to) = (id(first), id((first + 1) % count));
    let kind = FaultKind::CutDatacenters { from, to, is_one_way: false };
    vec![Fault { at: Moment(3 * SECOND), lasts: 20 * SECOND, kind }]
}
