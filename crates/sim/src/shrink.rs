//! Takes faults, clients and commands away from a failing run for as long as it still fails, and
//! shows the smallest run that was found.
//!
//! Halves first, then single ones; a run counts as failing whatever property it breaks.

use std::process::ExitCode;

use crate::{
    Choice, say,
    work::{Extent, Failed, gather},
};

/// Shrinks the run of a seed.
pub(crate) fn shrink(choice: &Choice, seed: u64) -> anyhow::Result<ExitCode> {
    let mut smallest = choice.clone();
    let Some(failure) = fails(&smallest, seed)? else {
        say(&format!("seed {seed} does not fail"));
        return Ok(ExitCode::SUCCESS);
    };
    say(&format!("seed {seed} fails: {}", failure.why));
    let plan = choice.plan(seed)?;
    let full = choice.cutback();
    let total = plan.faults.len() + full.faults.len();
    let faults: Vec<usize> = (0..total).filter(|at| !full.faults.contains(at)).collect();
    shrink_list(&faults, &mut smallest, seed, |choice, gone| choice.without_faults.extend(gone))?;
    let clients = plan.clients.clone();
    shrink_list(&clients, &mut smallest, seed, |choice, gone| choice.without_clients.extend(gone))?;
    let mut most = plan.workload.operations;
    while 1 < most {
        let fewer = Choice { operations: Some(most / 2), ..smallest.clone() };
        if fails(&fewer, seed)?.is_none() {
            break;
        }
        smallest = fewer;
        most /= 2;
    }
    let plan = smallest.plan(seed)?;
    let why = fails(&smallest, seed)?.map_or_else(String::new, |failure| failure.why);
    say(&format!(
        "smallest: {} faults, {} clients, {most} commands each",
        plan.faults.len(),
        plan.clients.len()
    ));
    for fault in &plan.faults {
        say(&format!("  {} for {} ms: {:?}", fault.at, fault.lasts / 1_000_000, fault.kind));
    }
    say(&format!("it fails: {why}"));
    let rest = smallest.arguments().join(" ");
    say(&format!("replay it: cargo run --release -p sim -- replay {seed} {rest}"));
    Ok(ExitCode::FAILURE)
}

fn fails(choice: &Choice, seed: u64) -> anyhow::Result<Option<Failed>> {
    let extent = Extent { first: seed, count: 1, minutes: None, jobs: 1, keeps_going: false };
    Ok(gather(choice, &extent, |_| true)?.failed.pop())
}

/// Leaves out as many of the items as possible, in ever smaller runs.
fn shrink_list<T: Copy + PartialEq>(
    items: &[T],
    smallest: &mut Choice,
    seed: u64,
    leave_out: impl Fn(&mut Choice, &[T]),
) -> anyhow::Result<()> {
    let mut kept = items.to_vec();
    let mut size = kept.len();
    while 0 < size {
        let mut start = 0;
        while start < kept.len() {
            let gone = &kept[start..kept.len().min(start + size)];
            let mut candidate = smallest.clone();
            leave_out(&mut candidate, gone);
            if fails(&candidate, seed)?.is_some() {
                *smallest = candidate;
                kept.drain(start..kept.len().min(start + size));
                say(&format!("  {} left", kept.len()));
            } else {
                start += size;
            }
        }
        size /= 2;
    }
    Ok(())
}
