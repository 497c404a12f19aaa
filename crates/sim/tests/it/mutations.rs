//! Each deliberate bug is caught within its seeds, and the same seeds pass without it.

use std::panic::{AssertUnwindSafe, catch_unwind};

use sim::{
    mutations::{Row, TABLE, with},
    plan::Plan,
    run::run,
    trace::Trace,
};

/// Whether a plan's run breaks a property or an assertion.
fn fails(plan: Plan) -> bool {
    catch_unwind(AssertUnwindSafe(|| run(plan, Trace::Off).failure.is_some())).unwrap_or(true)
}

fn first_caught(row: &Row) -> Option<u64> {
    (1..=row.seeds).find(|seed| {
        let plan = Plan::with_profile(*seed, row.profile);
        with(plan, row.name).is_some_and(fails)
    })
}

#[test]
fn every_deliberate_bug_is_caught_by_its_scenario() {
    let mut escaped = Vec::new();
    for row in TABLE {
        match first_caught(row) {
            Some(seed) => {
                let plan = Plan::with_profile(seed, row.profile);
                assert!(
                    !fails(plan),
                    "seed {seed} of {:?} fails without {}",
                    row.profile,
                    row.name
                );
            }
            None => escaped.push(row.name),
        }
    }
    assert_eq!(escaped, Vec::<&str>::new(), "not caught");
}
