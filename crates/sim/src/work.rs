//! Runs many seeds in processes of their own and gathers what came of them.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, ExitCode, Stdio},
    sync::{
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    time::Duration,
};

use antecede_storage::{Clock, MachineClock};
use anyhow::Context;
use sim::{run, trace::Trace};

use crate::{Choice, say};

/// Lines that the processes may be ahead of their reader.
const LINES_MAX: usize = 64;

/// Which seeds to run.
#[derive(Clone, Debug)]
pub(crate) struct Extent {
    /// The first.
    pub(crate) first: u64,
    /// How many.
    pub(crate) count: u64,
    /// For how long.
    pub(crate) minutes: Option<u64>,
    /// In how many processes.
    pub(crate) jobs: u64,
    /// Whether to go on after a failure.
    pub(crate) keeps_going: bool,
}

/// The seed that runs now, for the line that a broken assertion leaves.
static SEED: AtomicU64 = AtomicU64::new(0);

/// Runs seeds one after the other; a line for each.
pub(crate) fn work(
    choice: &Choice,
    first: u64,
    every: u64,
    count: u64,
) -> anyhow::Result<ExitCode> {
    std::panic::set_hook(Box::new(|panic| {
        let what = panic.to_string().replace('\n', " ");
        say(&format!("failed {} {what}", SEED.load(Ordering::Relaxed)));
    }));
    for turn in 0..count {
        let Some(seed) = every.checked_mul(turn).and_then(|far| first.checked_add(far)) else {
            break;
        };
        SEED.store(seed, Ordering::Relaxed);
        let outcome = run::run(choice.plan(seed)?, Trace::Off);
        if let Some(failure) = &outcome.failure {
            let what = failure.to_string().replace('\n', " | ");
            say(&format!("failed {seed} {what}"));
            return Ok(ExitCode::FAILURE);
        }
        say(&format!("passed {seed} {}", outcome.tally.undecided));
    }
    Ok(ExitCode::SUCCESS)
}

/// A process that runs seeds.
struct Worker {
    child: Child,
    /// The next seed that it has not told of.
    next: u64,
}

fn spawn(
    choice: &Choice,
    (first, every, count): (u64, u64, u64),
    place: usize,
    lines: &mpsc::SyncSender<(usize, Option<String>)>,
) -> anyhow::Result<Worker> {
    let program = std::env::current_exe().context("cannot find the simulator's own program")?;
    let mut child = Command::new(program)
        .arg("work")
        .args([format!("--first={first}"), format!("--every={every}"), format!("--count={count}")])
        .args(choice.arguments())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot start a process for seeds")?;
    let output = child.stdout.take().context("the process has no output")?;
    let lines = lines.clone();
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if lines.send((place, Some(line))).is_err() {
                return;
            }
        }
        // The reader may have gone; then nobody waits for the end.
        drop(lines.send((place, None)));
    });
    Ok(Worker { child, next: first })
}

/// A seed that failed, and why.
#[derive(Clone, Debug)]
pub(crate) struct Failed {
    pub(crate) seed: u64,
    pub(crate) why: String,
}

/// Runs fresh seeds, and tells of those that fail how to see them again.
pub(crate) fn fresh(choice: &Choice, extent: &Extent) -> anyhow::Result<ExitCode> {
    let clock = MachineClock::start();
    let end = extent.minutes.map(|minutes| Duration::from_secs(60 * minutes));
    let count = if end.is_some() { "seeds".to_owned() } else { format!("{} seeds", extent.count) };
    say(&format!("{count} from {} on, in {} processes", extent.first, extent.jobs));
    let mut told = 0;
    let Gathered { passed, undecided, failed } = gather(choice, extent, |passed| {
        if told + 500 <= passed {
            told = passed;
            say(&format!("{passed} seeds passed in {} s", clock.now().as_secs()));
        }
        end.is_none_or(|end| clock.now() < end)
    })?;
    let millis = clock.now().as_millis();
    for failure in &failed {
        say(&format!("seed {} FAILED {}", failure.seed, failure.why));
        let rest = choice.arguments().join(" ");
        say(&format!("  replay it: cargo run --release -p sim -- replay {} {rest}", failure.seed));
        say(&format!("  shrink it: cargo run --release -p sim -- shrink {} {rest}", failure.seed));
    }
    let each = millis * u128::from(extent.jobs) / u128::from(passed.max(1));
    say(&format!(
        "{passed} passed ({undecided} with registers that were too busy to decide), {} failed, \
         {millis} ms ({each} ms each)",
        failed.len()
    ));
    Ok(if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What came of many seeds.
#[derive(Debug)]
pub(crate) struct Gathered {
    /// How many passed.
    pub(crate) passed: u64,
    /// In how many of these some register could not be decided.
    pub(crate) undecided: u64,
    /// Those that failed.
    pub(crate) failed: Vec<Failed>,
}

/// Runs seeds until they are through, `goes_on` says no, or one fails.
pub(crate) fn gather(
    choice: &Choice,
    extent: &Extent,
    mut goes_on: impl FnMut(u64) -> bool,
) -> anyhow::Result<Gathered> {
    let jobs = extent.jobs.min(extent.count);
    let (sender, receiver) = mpsc::sync_channel(LINES_MAX);
    let last = extent.first.saturating_add(extent.count);
    let count_from = |first: u64| last.saturating_sub(first).div_ceil(jobs);
    let mut workers = Vec::new();
    for place in 0..jobs {
        let first = extent.first.saturating_add(place);
        let slot = usize::try_from(place)?;
        workers.push(spawn(choice, (first, jobs, count_from(first)), slot, &sender)?);
    }
    let (mut passed, mut undecided) = (0_u64, 0_u64);
    let (mut failed, mut running) = (Vec::<Failed>::new(), workers.len());
    while 0 < running {
        let (place, line) = receiver.recv()?;
        let Some(line) = line else {
            running -= 1;
            let worker = &mut workers[place];
            let status = worker.child.wait()?;
            let is_told = failed.iter().any(|known| known.seed == worker.next);
            let is_stopped = !extent.keeps_going && !failed.is_empty();
            if !status.success() && !is_told && !is_stopped && goes_on(passed) {
                failed.push(Failed { seed: worker.next, why: format!("ended with {status}") });
            }
            let next = worker.next.saturating_add(jobs);
            if is_told && extent.keeps_going && 0 < count_from(next) && goes_on(passed) {
                workers[place] = spawn(choice, (next, jobs, count_from(next)), place, &sender)?;
                running += 1;
            }
            continue;
        };
        match line.split_once(' ') {
            Some(("passed", rest)) => {
                passed += 1;
                undecided += u64::from(rest.ends_with(" 1"));
                workers[place].next = workers[place].next.saturating_add(jobs);
            }
            Some(("failed", rest)) => {
                let (seed, why) = rest.split_once(' ').unwrap_or((rest, ""));
                let seed = seed.parse().unwrap_or(workers[place].next);
                workers[place].next = seed;
                failed.push(Failed { seed, why: why.to_owned() });
            }
            Some(_) | None => {}
        }
        if !goes_on(passed) || (!failed.is_empty() && !extent.keeps_going) {
            for worker in &mut workers {
                // One that has ended already needs no end.
                drop(worker.child.kill());
            }
        }
    }
    Ok(Gathered { passed, undecided, failed })
}

/// The first seed at which the scenario of a deliberate bug fails, and why it fails without the bug
/// if it does.
#[cfg(feature = "mutations")]
pub(crate) fn first_failure(
    row: &sim::mutations::Row,
) -> anyhow::Result<Option<(Failed, Option<Failed>)>> {
    let mut choice = Choice {
        profile: Some(row.profile.name().to_owned()),
        mutation: Some(row.name.to_owned()),
        control: row.control.to_owned(),
        checkpoints: row.checkpoints.to_owned(),
        members: row.members.to_owned(),
        memory: row.memory.to_owned(),
        ..Choice::default()
    };
    let mut extent =
        Extent { first: row.first, count: row.seeds, minutes: None, jobs: 1, keeps_going: false };
    let failed = gather(&choice, &extent, |_| true)?.failed;
    let Some(caught) = failed.first().cloned() else { return Ok(None) };
    choice.mutation = None;
    (extent.first, extent.count) = (caught.seed, 1);
    let failed = gather(&choice, &extent, |_| true)?.failed;
    Ok(Some((caught, failed.first().cloned())))
}
