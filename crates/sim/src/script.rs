//! Crashes one node at each of its outputs in a short script of writes: a record that did not get to
//! the disk, a message that did not leave, a reply that was not given.
//!
//! Every point is a run of its own; the script, the weather and what clients ask are the same.

use antecede_model::ids::{DatacenterId, NodeId};

use crate::{
    check::Failure,
    moment::{MICRO, MILLI, Moment, SECOND},
    plan::{Control, Members, Plan},
    profiles::Profile,
    trace::Trace,
    world::{CrashPoint, World},
};

/// How long the script takes: some seconds, so that a node is given up and comes back in it.
const LASTS: Moment = Moment(4 * SECOND);

/// The script: few clients, two datacenters of three nodes, nothing else goes wrong.
#[must_use]
pub fn plan(seed: u64) -> Plan {
    let mut plan = Plan::drawn(seed, Profile::TailDeath, Control::Managed);
    plan.shape.datacenters = 2;
    plan.shape.nodes = 3;
    plan.shape.chain = 3;
    plan.shape.shards = 2;
    plan.weather.wide_delays = vec![vec![10 * MILLI; 2]; 2];
    plan.weather.local_delay = 200 * MICRO;
    plan.weather.disk_delay = 500 * MICRO;
    plan.workload.clients = 4;
    plan.workload.operations = 20;
    plan.workload.think = 100 * MILLI;
    plan.workload.groups = 3;
    plan.workload.read_per_mille = 300;
    plan.workload.id_per_mille = 600;
    plan.faults.clear();
    plan.drains.clear();
    plan.draw_members(Members::Off);
    plan.clients = (0..plan.workload.clients).collect();
    plan
}

/// How much each node of the first datacenter puts out when nothing goes wrong.
///
/// # Errors
/// A property that does not hold even then.
pub fn outputs(seed: u64) -> Result<Vec<(NodeId, u64)>, Failure> {
    let mut world = World::new(plan(seed), Trace::Off);
    world.run_to(LASTS)?;
    let nodes = (1..=3).map(|number| NodeId { datacenter: DatacenterId(1), number });
    Ok(nodes.map(|node| (node, world.outputs_of(node))).collect())
}

/// Runs the script with a crash at one output of a node.
///
/// # Errors
/// The first property that does not hold.
pub fn crash_at(seed: u64, node: NodeId, output: u64) -> Result<(), Failure> {
    let is_power_loss = !output.is_multiple_of(3);
    let lasts = if output.is_multiple_of(2) { 200 * MILLI } else { 1800 * MILLI };
    let crash = CrashPoint { node, output, is_power_loss, lasts };
    World::new(plan(seed), Trace::Off).run_script(LASTS, Some(crash))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 1758103887 drew a datacenter that lapses: its successor had no place in the script's weather.
    #[test]
    fn nothing_but_the_crash_happens_in_a_script() {
        for seed in (0..200).chain([1_758_103_887]) {
            let plan = plan(seed);
            assert!(plan.members.is_empty() && plan.drains.is_empty() && plan.faults.is_empty());
            let places: Vec<usize> = plan.weather.wide_delays.iter().map(Vec::len).collect();
            assert_eq!((plan.shape.successors, places), (0, vec![2; 2]), "seed {seed}");
        }
    }
}
