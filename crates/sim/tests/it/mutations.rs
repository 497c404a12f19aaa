//! Each deliberate bug is caught within its seeds, and the seed that catches it passes without it.

use std::panic::{AssertUnwindSafe, catch_unwind};

use sim::{
    mutations::{TABLE, named, with},
    plan::Plan,
    run::run,
    trace::Trace,
};

/// Whether a plan's run breaks a property or an assertion.
fn fails(plan: Plan) -> bool {
    catch_unwind(AssertUnwindSafe(|| run(plan, Trace::Off).failure.is_some())).unwrap_or(true)
}

fn check(name: &str) {
    let row = named(name).expect("the row is in the table");
    let caught = (1..=row.seeds).find(|seed| {
        let plan = Plan::with_profile(*seed, row.profile);
        with(plan, row.name).is_some_and(fails)
    });
    let Some(seed) = caught else { panic!("{name} is not caught in {} seeds", row.seeds) };
    let plan = Plan::with_profile(seed, row.profile);
    assert!(!fails(plan), "seed {seed} of {} fails without {name}", row.profile.name());
}

macro_rules! caught {
    ($($test:ident: $name:literal,)*) => {
        const NAMES: &[&str] = &[$($name),*];

        $(
            #[test]
            fn $test() {
                check($name);
            }
        )*
    };
}

caught! {
    skipped_dependency_checks_are_caught: "skip-dependency-checks",
    newer_version_in_place_of_a_dependency_is_caught: "newer-version-satisfies",
    dirty_reads_at_the_middle_are_caught: "dirty-reads-at-the-middle",
    tail_that_commits_on_its_own_sync_is_caught: "tail-commits-on-its-own-sync",
    acknowledging_before_persisting_is_caught: "acknowledge-before-persisting",
    reply_from_dirty_state_is_caught: "reply-from-dirty-state",
    restart_without_settling_is_caught: "restart-without-settling",
    dependencies_lost_on_resend_are_caught: "lose-dependencies-on-resend",
    ignored_previous_is_caught: "ignore-previous",
    tail_clock_as_tick_is_caught: "tail-clock-as-tick",
    new_head_that_ignores_ticks_is_caught: "new-head-ignores-ticks",
    minima_without_shards_are_caught: "minima-without-shards",
    collecting_at_first_stability_is_caught: "collect-at-first-stability",
    exceptions_forgotten_on_restart_are_caught: "forget-exceptions-on-restart",
    token_that_misses_the_last_write_is_caught: "token-misses-last-write",
    token_without_hlc_is_caught: "token-without-hlc",
    ignored_logical_time_is_caught: "ignore-logical-time",
    pipeline_without_waiting_is_caught: "no-wait-in-pipelines",
    stopped_reading_is_caught: "stop-reading-when-blocked",
}

#[test]
fn every_row_has_its_test() {
    let rows: Vec<&str> = TABLE.iter().map(|row| row.name).collect();
    assert_eq!(rows, NAMES);
}
