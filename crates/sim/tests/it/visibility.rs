//! A shard that is stalled for long does not delay writes that do not depend on it.

use antecede_model::ids::{DatacenterId, NodeId};
use sim::{
    check::visibility::{self, Delays},
    faults::{Fault, FaultKind, Trigger},
    moment::{MILLI, Moment, SECOND},
    plan::{Control, Durability, Plan, Shape},
    profiles::Profile,
    trace::Trace,
    world::World,
};

/// The node that is down for half of the run.
const STALLED: NodeId = NodeId { datacenter: DatacenterId(2), number: 1 };

fn plan() -> Plan {
    let mut plan = Plan::drawn(3, Profile::Mixed, Control::Fixed);
    plan.shape = Shape {
        datacenters: 2,
        successors: 0,
        nodes: 3,
        chain: 1,
        shards: 8,
        durability: Durability::Always,
        is_managed: false,
        kept_bytes_max: 0,
        trimmed_bytes_min: usize::MAX,
        outbox_bytes_max: 0,
        part_pause_millis: 0,
        retries_max: antecede_protocol::retries::KEPT_MAX,
        checkpoint_every: 0,
        forget_every: 0,
        load_time: 0,
    };
    plan.weather.late_per_mille = 0;
    plan.weather.lost_per_mille = 0;
    plan.weather.overtaken_per_mille = 0;
    plan.weather.repeated_per_mille = 0;
    plan.weather.skew_millis = 0;
    plan.weather.drift_ppm = 0;
    plan.weather.wide_delays = vec![vec![40 * MILLI; 2]; 2];
    plan.workload.groups = 6;
    plan.workload.one_group_each = true;
    plan.workload.move_per_mille = 0;
    plan.workload.pipeline_per_mille = 0;
    plan.workload.mortal_per_mille = 0;
    plan.workload.home_per_mille = 0;
    plan.faults.clear();
    plan
}

/// Delays of the shards that the stalled node does not hold.
fn delays_of(plan: Plan) -> Delays {
    let configuration = plan.configuration();
    let unrelated = configuration
        .shard_count
        .shards()
        .filter(|shard| !configuration.chain(STALLED.datacenter, *shard).contains(&STALLED));
    let mut world = World::new(plan, Trace::Off);
    world.measure(unrelated);
    assert_eq!(world.run(), Ok(()));
    world.delays().clone()
}

#[test]
fn stalled_shard_does_not_delay_unrelated_writes() {
    let without = delays_of(plan());
    let mut stalled = plan();
    let kind = FaultKind::Crash { node: STALLED, is_power_loss: true, trigger: Trigger::Now };
    stalled.faults.push(Fault { at: Moment(5 * SECOND), lasts: 15 * SECOND, kind });
    let with = delays_of(stalled);
    assert!(100 < without.count() && 100 < with.count(), "too few delays were measured");
    assert!(40_000 <= without.percentile(50), "the network's delay is part of it");
    assert_eq!(visibility::check(&without, &with), Ok(()));
}
