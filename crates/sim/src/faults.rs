//! Draws what goes wrong: at least `FAULTS_MIN` faults a run, spread over its active time.
//!
//! Under `fsync = always` every node may lose its power at any moment, also all at once. With
//! weaker settings what a run may lose is the setting's business, not the protocol's; there a
//! node crashes only while its datacenter is whole, and in memory none does.

use std::collections::BTreeMap;

use antecede_model::ids::{DatacenterId, NodeId};
use antecede_protocol::machine::Room;

use crate::{
    chance::Chance,
    moment::{MILLI, Moment, SECOND},
    plan::{ACTIVE, Durability, Plan},
    profiles::Bias,
};

/// Faults in a run, at least.
pub const FAULTS_MIN: u64 = 10;

/// Something that goes wrong for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// When it begins.
    pub at: Moment,
    /// For how long, in nanoseconds.
    pub lasts: u64,
    /// What.
    pub kind: FaultKind,
}

/// When exactly a node crashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// At once.
    Now,
    /// After the next append to its log, before anything is written; its early messages have left.
    Append,
    /// After the log was written, before it is synced.
    Written,
    /// After the log was synced, before the durable messages leave.
    Synced,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// A node loses what is in memory and, if the power goes, what was not synced; it comes back.
    Crash {
        /// The node.
        node: NodeId,
        /// Whether the power goes, not only the process.
        is_power_loss: bool,
        /// When exactly.
        trigger: Trigger,
    },
    /// All nodes of a datacenter lose their power.
    Blackout {
        /// The datacenter.
        datacenter: DatacenterId,
    },
    /// Nothing passes between two nodes.
    CutNodes {
        /// One.
        from: NodeId,
        /// The other.
        to: NodeId,
        /// Whether only this direction is cut.
        is_one_way: bool,
    },
    /// Nothing passes between two datacenters.
    CutDatacenters {
        /// One.
        from: DatacenterId,
        /// The other.
        to: DatacenterId,
        /// Whether only this direction is cut.
        is_one_way: bool,
    },
    /// All links between two nodes break: what is under way is lost, then they are made anew.
    Reset {
        /// One.
        from: NodeId,
        /// The other.
        to: NodeId,
    },
    /// A node takes long for everything.
    Slow {
        /// The node.
        node: NodeId,
        /// Nanoseconds for each message.
        cost: u64,
    },
    /// A node's disk takes long.
    SlowDisk {
        /// The node.
        node: NodeId,
        /// How many times as long.
        factor: u64,
    },
    /// A node's disk takes no new writes.
    NoRoom {
        /// The node.
        node: NodeId,
        /// What it still takes.
        room: Room,
    },
    /// One direction between two datacenters becomes slow.
    SlowLink {
        /// From here.
        from: DatacenterId,
        /// To there.
        to: DatacenterId,
        /// Nanoseconds on top.
        extra: u64,
    },
    /// One direction between two nodes becomes slow.
    SlowPair {
        /// From here.
        from: NodeId,
        /// To there.
        to: NodeId,
        /// Nanoseconds on top.
        extra: u64,
    },
    /// A wall clock jumps, and stays where it is afterwards.
    ClockJump {
        /// The node.
        node: NodeId,
        /// Where to, in milliseconds off the true time.
        to_millis: i64,
    },
    /// Nothing passes between a node and those that decide who serves.
    CutControl {
        /// The node.
        node: NodeId,
    },
    /// Those that decide cannot be reached, and decide nothing.
    ControlDown {
        /// Where.
        datacenter: DatacenterId,
    },
    /// Another manager takes over, who has heard of nobody.
    NewManager {
        /// Where.
        datacenter: DatacenterId,
    },
    /// A process stands still and goes on later; what was sent to it waits.
    Pause {
        /// Of which node.
        node: NodeId,
    },
    /// A node crashes, and a bit of what it keeps on its disk changes while it is down, if others
    /// have all of that as well.
    Rot {
        /// The node.
        node: NodeId,
        /// Whether the power goes, not only the process.
        is_power_loss: bool,
    },
    /// A node is asked to stop: it leaves its chains, ends, and starts again later.
    Leave {
        /// The node.
        node: NodeId,
    },
    /// A node dies for ever, and a new epoch of its datacenter goes on without it.
    Remove {
        /// The node.
        node: NodeId,
    },
}

impl FaultKind {
    /// Whether something goes wrong with nodes of a datacenter, or with what is between them.
    #[must_use]
    pub const fn concerns(&self, datacenter: DatacenterId) -> bool {
        match self {
            Self::Crash { node, .. }
            | Self::Slow { node, .. }
            | Self::SlowDisk { node, .. }
            | Self::NoRoom { node, .. }
            | Self::ClockJump { node, .. }
            | Self::CutControl { node }
            | Self::Pause { node }
            | Self::Rot { node, .. }
            | Self::Leave { node }
            | Self::Remove { node } => node.datacenter.0 == datacenter.0,
            Self::CutNodes { from, to, .. }
            | Self::Reset { from, to }
            | Self::SlowPair { from, to, .. } => {
                from.datacenter.0 == datacenter.0 && to.datacenter.0 == datacenter.0
            }
            Self::Blackout { datacenter: of }
            | Self::ControlDown { datacenter: of }
            | Self::NewManager { datacenter: of } => of.0 == datacenter.0,
            Self::CutDatacenters { .. } | Self::SlowLink { .. } => false,
        }
    }
}

/// Draws the faults of a run.
#[must_use]
pub fn draw(chance: &mut Chance, plan: &Plan) -> Vec<Fault> {
    let bias = plan.profile.bias();
    let count = chance.between(FAULTS_MIN, bias.faults_max.max(FAULTS_MIN));
    let mut faults: Vec<Fault> = (0..count).map(|_| draw_one(chance, plan, &bias)).collect();
    faults.extend(plan.profile.fixed_faults(chance, plan));
    faults.sort_by_key(|fault| fault.at);
    match plan.shape.durability {
        Durability::Always => {}
        Durability::Interval => spare(&mut faults, true),
        Durability::Memory => spare(&mut faults, false),
    }
    faults
}

/// Draws what goes wrong with those that decide who serves, and with nodes by their doing.
#[must_use]
pub fn draw_control(chance: &mut Chance, plan: &Plan) -> Vec<Fault> {
    let nodes: Vec<NodeId> = plan.shape.all_nodes().collect();
    let one = |chance: &mut Chance| {
        let at = Moment(chance.between(2 * SECOND, ACTIVE.0 - 4 * SECOND));
        let lasts = chance.between(100, 4000) * MILLI;
        let node = chance.pick(&nodes);
        let datacenter = node.datacenter;
        let (kind, lasts) = match chance.below(10) {
            0..3 => (FaultKind::CutControl { node }, lasts),
            3 => (FaultKind::ControlDown { datacenter }, lasts),
            4 => (FaultKind::NewManager { datacenter }, 0),
            _ => (FaultKind::Pause { node }, lasts),
        };
        Fault { at, lasts, kind }
    };
    let mut faults: Vec<Fault> = (0..chance.between(3, 10)).map(|_| one(chance)).collect();
    for _ in 0..chance.below(4) {
        faults.extend(changing_hands(chance, &nodes));
    }
    for _ in 0..chance.below(4) {
        faults.extend(leaving(chance, &nodes));
    }
    faults
}

/// One node is asked to stop, or all of a datacenter are, one soon after the other; it may hear
/// nothing of those that decide soon after it was asked.
fn leaving(chance: &mut Chance, nodes: &[NodeId]) -> Vec<Fault> {
    let at = Moment(chance.between(2 * SECOND, ACTIVE.0 - 4 * SECOND));
    let first = chance.pick(nodes);
    let are_all = chance.per_mille(150);
    let asked = nodes
        .iter()
        .filter(|node| **node == first || are_all && node.datacenter == first.datacenter);
    let fault = |node: &NodeId| Fault {
        at: at.after(chance.below(400) * MILLI),
        lasts: chance.between(1, 2000) * MILLI,
        kind: FaultKind::Leave { node: *node },
    };
    let mut faults: Vec<Fault> = asked.map(fault).collect();
    if chance.per_mille(500) {
        let at = at.after(chance.below(400) * MILLI);
        faults.push(Fault { at, lasts: SECOND, kind: FaultKind::CutControl { node: first } });
    }
    faults
}

/// Draws disks without room, some of whose nodes cannot be reached by a manager soon after.
#[must_use]
pub fn draw_disks(chance: &mut Chance, plan: &Plan) -> Vec<Fault> {
    let nodes: Vec<NodeId> = plan.shape.all_nodes().collect();
    let mut faults = Vec::new();
    for _ in 0..chance.between(2, 12) {
        let at = Moment(chance.between(2 * SECOND, ACTIVE.0 - 4 * SECOND));
        let node = chance.pick(&nodes);
        let room = chance.pick(&[Room::Low, Room::Low, Room::None]);
        let lasts = chance.between(300, 4000) * MILLI;
        faults.push(Fault { at, lasts, kind: FaultKind::NoRoom { node, room } });
        if chance.per_mille(400) {
            let at = at.after(chance.between(50, 700) * MILLI);
            let lasts = chance.between(200, 900) * MILLI;
            faults.push(Fault { at, lasts, kind: FaultKind::CutControl { node } });
        }
    }
    faults
}

/// Draws nodes on whose disks a bit changes.
#[must_use]
pub fn draw_rot(chance: &mut Chance, plan: &Plan, count: u64) -> Vec<Fault> {
    let nodes: Vec<NodeId> = plan.shape.all_nodes().collect();
    let one = |_| {
        let at = Moment(chance.between(3 * SECOND, ACTIVE.0 - 2 * SECOND));
        let lasts = chance.pick(&[1, 1, 20, 300, 2000]) * chance.between(1, 2) * MILLI;
        let (node, is_power_loss) = (chance.pick(&nodes), chance.per_mille(600));
        Fault { at, lasts, kind: FaultKind::Rot { node, is_power_loss } }
    };
    (0..count).map(one).collect()
}

/// Draws lines between nodes of one datacenter that are cut for longer than it takes to notice.
#[must_use]
pub fn draw_lines(chance: &mut Chance, plan: &Plan) -> Vec<Fault> {
    let nodes: Vec<NodeId> = plan.shape.all_nodes().collect();
    let mut faults = Vec::new();
    for _ in 0..chance.between(1, 4) {
        let at = Moment(chance.between(SECOND, ACTIVE.0 - 8 * SECOND));
        let lasts = chance.between(2000, 7000) * MILLI;
        let from = chance.pick(&nodes);
        let near: Vec<NodeId> = nodes
            .iter()
            .filter(|node| node.datacenter == from.datacenter && **node != from)
            .copied()
            .collect();
        if !near.is_empty() {
            let (to, is_one_way) = (chance.pick(&near), chance.per_mille(500));
            let kind = FaultKind::CutNodes { from, to, is_one_way };
            faults.push(Fault { at, lasts, kind });
        }
    }
    faults
}

/// Draws a datacenter that hears nothing of the others for long, and perhaps another link as well.
#[must_use]
pub fn draw_long_cuts(chance: &mut Chance, plan: &Plan) -> Vec<Fault> {
    let (alone, _) = two_datacenters(chance, plan);
    let at = Moment(chance.between(2, 8) * SECOND);
    let lasts = chance.between(8, 20) * SECOND;
    let ids = (1..=plan.shape.datacenters).map(DatacenterId);
    let mut faults: Vec<Fault> = ids
        .filter(|to| *to != alone)
        .map(|to| {
            let kind = FaultKind::CutDatacenters { from: alone, to, is_one_way: false };
            Fault { at, lasts, kind }
        })
        .collect();
    if chance.per_mille(300) {
        let (from, to) = two_datacenters(chance, plan);
        let kind = FaultKind::CutDatacenters { from, to, is_one_way: chance.per_mille(500) };
        faults.push(Fault { at: at.after(SECOND), lasts: 6 * SECOND, kind });
    }
    faults
}

/// Draws nodes that fall silent, alone or while another manager takes over.
#[must_use]
pub fn draw_silences(chance: &mut Chance, plan: &Plan) -> Vec<Fault> {
    let nodes: Vec<NodeId> = plan.shape.all_nodes().collect();
    let mut faults = Vec::new();
    for _ in 0..chance.between(20, 40) {
        let at = Moment(chance.between(2 * SECOND, ACTIVE.0 - 4 * SECOND));
        let node = chance.pick(&nodes);
        let lasts = chance.between(700, 1800) * MILLI;
        let kind = FaultKind::CutControl { node };
        match chance.below(5) {
            0 => faults.extend(changing_hands(chance, &nodes)),
            1 => faults.push(Fault { at, lasts, kind: FaultKind::Pause { node } }),
            2 => faults.push(Fault { at, lasts, kind }),
            _ => {
                // It is heard once, about when it is given up, and then not again for long.
                let lasts = chance.between(950, 1400) * MILLI;
                faults.push(Fault { at, lasts, kind });
                let again = at.after(lasts + chance.between(60, 160) * MILLI);
                faults.push(Fault { at: again, lasts: SECOND, kind });
            }
        }
    }
    for _ in 0..chance.between(4, 8) {
        faults.extend(leaving(chance, &nodes));
    }
    faults
}

/// Another manager takes over just when a node cannot be heard.
fn changing_hands(chance: &mut Chance, nodes: &[NodeId]) -> [Fault; 2] {
    let at = Moment(chance.between(2 * SECOND, ACTIVE.0 - 4 * SECOND));
    let node = chance.pick(nodes);
    let lasts = chance.between(300, 2000) * MILLI;
    let later = at.after(chance.between(10, 200) * MILLI);
    [
        Fault { at, lasts, kind: FaultKind::CutControl { node } },
        Fault { at: later, lasts: 0, kind: FaultKind::NewManager { datacenter: node.datacenter } },
    ]
}

fn draw_one(chance: &mut Chance, plan: &Plan, bias: &Bias) -> Fault {
    let nodes: Vec<NodeId> = plan.shape.all_nodes().collect();
    let at = Moment(chance.between(SECOND / 2, ACTIVE.0 - 3 * SECOND));
    let lasts = match chance.below(3) {
        0 => chance.between(1, 300) * MILLI,
        1 => chance.between(300, 2000) * MILLI,
        _ => chance.between(2000, 6000) * MILLI,
    };
    let kind = match chance.below(bias.crash + bias.cut + bias.slow + bias.clock) {
        draw if draw < bias.crash => draw_crash(chance, plan, &nodes, bias),
        draw if draw < bias.crash + bias.cut => draw_cut(chance, plan, &nodes),
        draw if draw < bias.crash + bias.cut + bias.slow => draw_slow(chance, plan, &nodes),
        _ => draw_jump(chance, plan, &nodes),
    };
    let lasts = if bias.restarts_fast && matches!(kind, FaultKind::Crash { .. }) {
        chance.between(1, 400) * MILLI
    } else {
        lasts
    };
    let lasts = lasts.min(ACTIVE.since(at));
    Fault { at, lasts, kind }
}

fn draw_crash(chance: &mut Chance, plan: &Plan, nodes: &[NodeId], bias: &Bias) -> FaultKind {
    let is_always = plan.shape.durability == Durability::Always;
    if is_always && chance.per_mille(bias.blackout_per_mille) {
        let datacenter = chance.pick(nodes).datacenter;
        return FaultKind::Blackout { datacenter };
    }
    let trigger = chance.pick(bias.triggers);
    FaultKind::Crash { node: chance.pick(nodes), is_power_loss: chance.per_mille(600), trigger }
}

fn draw_cut(chance: &mut Chance, plan: &Plan, nodes: &[NodeId]) -> FaultKind {
    let is_one_way = chance.per_mille(400);
    let (from, to) = (chance.pick(nodes), chance.pick(nodes));
    if from == to {
        let (from, to) = two_datacenters(chance, plan);
        return FaultKind::CutDatacenters { from, to, is_one_way };
    }
    match chance.below(6) {
        0 | 1 if from.datacenter != to.datacenter => {
            let (from, to) = (from.datacenter, to.datacenter);
            FaultKind::CutDatacenters { from, to, is_one_way }
        }
        2 => FaultKind::Reset { from, to },
        _ => FaultKind::CutNodes { from, to, is_one_way },
    }
}

fn two_datacenters(chance: &mut Chance, plan: &Plan) -> (DatacenterId, DatacenterId) {
    let count = u64::from(plan.shape.datacenters);
    let from = chance.below(count);
    let to = (from + 1 + chance.below(count - 1)) % count;
    let id = |number: u64| DatacenterId(u16::try_from(number + 1).expect("few datacenters"));
    (id(from), id(to))
}

fn draw_slow(chance: &mut Chance, plan: &Plan, nodes: &[NodeId]) -> FaultKind {
    let node = chance.pick(nodes);
    match chance.below(3) {
        0 => FaultKind::Slow { node, cost: chance.pick(&[1, 5, 20]) * MILLI },
        1 => FaultKind::SlowDisk { node, factor: chance.pick(&[10, 50, 200]) },
        _ => {
            let (from, to) = two_datacenters(chance, plan);
            FaultKind::SlowLink { from, to, extra: chance.pick(&[50, 300, 1000]) * MILLI }
        }
    }
}

fn draw_jump(chance: &mut Chance, plan: &Plan, nodes: &[NodeId]) -> FaultKind {
    let most = plan.weather.skew_millis;
    let to_millis = i64::try_from(chance.below(2 * most + 1)).expect("milliseconds are few")
        - i64::try_from(most).expect("milliseconds are few");
    FaultKind::ClockJump { node: chance.pick(nodes), to_millis }
}

/// Time that a restarted node gets to take back what it lost, before the next one may crash.
const RECOVERY: u64 = 4 * SECOND;

/// Turns crashes into resets where a node of the same datacenter may still be recovering, or where
/// nothing may crash.
fn spare(faults: &mut [Fault], may_crash: bool) {
    let mut busy_to: BTreeMap<DatacenterId, Moment> = BTreeMap::new();
    for fault in faults {
        let FaultKind::Crash { node, is_power_loss: _, trigger: _ } = fault.kind else { continue };
        let free_at = busy_to.entry(node.datacenter).or_default();
        if !may_crash || fault.at < *free_at {
            let number = if node.number == 1 { 2 } else { 1 };
            let to = NodeId { number, ..node };
            fault.kind = FaultKind::Reset { from: node, to };
            continue;
        }
        // At once, so that the crash does not slip behind the next one.
        fault.kind = FaultKind::Crash { node, is_power_loss: true, trigger: Trigger::Now };
        *free_at = fault.at.after(fault.lasts + RECOVERY);
    }
}
