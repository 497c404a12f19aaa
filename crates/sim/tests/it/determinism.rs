//! The same seed gives the same trace, byte for byte; another seed gives another.

use sim::{plan::Plan, run::run, trace::Trace};

fn trace_of(seed: u64) -> String {
    let mut plan = Plan::of(seed);
    plan.workload.operations = 40; // The trace of all of them is long.
    run(plan, Trace::Kept(String::new())).trace
}

#[test]
fn same_seed_gives_the_same_trace() {
    for seed in [2, 3] {
        let (once, again) = (trace_of(seed), trace_of(seed));
        assert!(10_000 < once.len(), "seed {seed} did next to nothing");
        assert!(once == again, "seed {seed} ran differently the second time");
    }
}

#[test]
fn other_seeds_give_other_traces() {
    assert!(trace_of(1) != trace_of(2));
}

#[test]
fn an_empty_deployment_comes_to_rest() {
    let mut plan = Plan::of(4);
    plan.clients.clear();
    plan.faults.clear();
    let outcome = run(plan, Trace::Off);
    assert_eq!(outcome.failure, None);
    assert_eq!(outcome.tally.operations, 0);
    assert_eq!(outcome.tally.records, 0);
    assert!(0 < outcome.tally.messages);
}
