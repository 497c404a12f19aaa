//! Runs a plan to its end and says what came of it.

use crate::{
    check::Failure,
    plan::Plan,
    trace::Trace,
    world::{Tally, World},
};

/// What came of a run.
#[derive(Debug)]
pub struct Outcome {
    /// The first property that did not hold.
    pub failure: Option<Failure>,
    /// What was done.
    pub tally: Tally,
    /// What was kept of the trace.
    pub trace: String,
}

/// Runs a plan. A broken assertion of a machine is not caught here.
#[must_use]
pub fn run(plan: Plan, trace: Trace) -> Outcome {
    let mut world = World::new(plan, trace);
    let failure = world.run().err();
    let (tally, trace) = (world.tally(), world.trace().text().to_owned());
    Outcome { failure, tally, trace }
}
