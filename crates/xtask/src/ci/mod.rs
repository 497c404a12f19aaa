//! Runs the gate: everything that must hold before a change lands, cheapest first.
//!
//! `STEPS` is the table; a new step is one row. Each step is one command that prints as it goes.
//! What a step needs from the machine is looked up before it runs: a missing tool fails the step
//! with the line that installs it, and never skips it. The first failure ends the gate, unless
//! `--keep-going` was said.
//!
//! Steps run one after the other, but for those that leave processors idle (`SIDE_BY_SIDE`).
//!
//! Ensures: the last line is `N passed, N failed`, with `, N skipped` behind it for the steps that
//! an earlier failure kept from running; the exit is bad unless all of them passed.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::ScopedJoinHandle;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::Args;

use crate::setup::{self, Need};
use crate::{machine, say};

#[derive(Args, Debug)]
pub(crate) struct CiOptions {
    /// Run only what takes seconds: format, tidy, clippy, tests, docs.
    #[arg(long)]
    fast: bool,
    /// Go on after a step that failed.
    #[arg(long)]
    keep_going: bool,
    /// Run only the steps of this name; may be given several times.
    #[arg(long = "step", value_name = "NAME")]
    steps: Vec<String>,
    /// The seed for the steps that draw one, to repeat a run of the gate.
    #[arg(long)]
    seed: Option<u64>,
}

/// One command of the gate.
#[derive(Debug)]
struct Step {
    name: &'static str,
    /// Whether it runs with `--fast`.
    is_fast: bool,
    needs: &'static [&'static Need],
    environment: &'static [(&'static str, &'static str)],
    /// The program and its arguments, with `{seed}` for the seed of the run.
    command: &'static [&'static str],
}

/// The gate.
const STEPS: &[Step] = &[
    Step {
        name: "format",
        is_fast: true,
        needs: &[&setup::RUSTFMT],
        environment: &[],
        command: &["cargo", "fmt", "--all", "--check"],
    },
    Step {
        name: "tidy",
        is_fast: true,
        needs: &[],
        environment: &[],
        command: &["cargo", "xtask", "tidy"],
    },
    Step {
        name: "clippy",
        is_fast: true,
        needs: &[&setup::CLIPPY],
        environment: &[],
        command: &[
            "cargo",
            "clippy",
            "--locked",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ],
    },
    Step {
        name: "tests",
        is_fast: true,
        needs: &[&setup::NEXTEST, &setup::ETCD],
        environment: &[],
        // All packages, here and wherever else it can be: with fewer, what they are made of would
        // be built once more, with fewer features.
        command: &[
            "cargo",
            "nextest",
            "run",
            "--locked",
            "--workspace",
            "-E",
            "not package(tests)",
            "--test-threads",
            "4", // Many wait for elections.
        ],
    },
    // Fuzzers and simulator with it, so that what all are made of is built once.
    Step {
        name: "build",
        is_fast: false,
        needs: &[],
        environment: &[],
        command: &[
            "cargo",
            "build",
            "--locked",
            "--release",
            "-p",
            "antecede",
            "-p",
            "antecede-server",
            "-p",
            "sim",
            "--bins",
            "--example",
            "fuzz_resp",
            "--example",
            "fuzz_peer",
        ],
    },
    Step {
        name: "reference",
        is_fast: false,
        needs: &[],
        environment: &[],
        command: &["cargo", "xtask", "docs", "--check"],
    },
    Step {
        name: "acceptance",
        is_fast: false,
        needs: &[&setup::NEXTEST, &setup::REDIS, &setup::ETCD],
        environment: &[],
        command: &["cargo", "nextest", "run", "--locked", "--workspace", "-E", "package(tests)"],
    },
    Step {
        name: "redis clients",
        is_fast: false,
        needs: &[&setup::REDIS, &setup::REDIS_CLIENT_OF_PYTHON, &setup::REDIS_CLIENTS_OF_NODE],
        environment: &[],
        command: &[setup::PYTHON, "tests/redis/run.py", "--antecede", "target/release/antecede"],
    },
    Step {
        name: "twice",
        is_fast: false,
        needs: &[],
        environment: &[],
        command: &["target/release/sim", "twice", "{seed}", "1", "2"],
    },
    Step {
        name: "known seeds",
        is_fast: false,
        needs: &[],
        environment: &[],
        command: &["target/release/sim", "seeds"],
    },
    Step {
        name: "crash points",
        is_fast: false,
        needs: &[],
        environment: &[],
        command: &["target/release/sim", "crashes", "{seed}"],
    },
    Step {
        name: "fresh seeds",
        is_fast: false,
        needs: &[],
        environment: &[],
        command: &["target/release/sim", "--seed", "{seed}", "--seeds", "2000", "--jobs", "2"],
    },
    // With the packages of `build`, so that of what all are made of nothing is built once more.
    Step {
        name: "build of mutations",
        is_fast: false,
        needs: &[],
        environment: &[],
        command: &[
            "cargo",
            "build",
            "--locked",
            "--release",
            "-p",
            "antecede",
            "-p",
            "antecede-server",
            "-p",
            "sim",
            "--features",
            "sim/mutations",
            "--bin",
            "sim",
        ],
    },
    Step {
        name: "mutations",
        is_fast: false,
        needs: &[],
        environment: &[],
        command: &["target/release/sim", "mutations"],
    },
    Step {
        name: "docs",
        is_fast: true,
        needs: &[],
        environment: &[("RUSTDOCFLAGS", "-D warnings")],
        command: &[
            "cargo",
            "doc",
            "--locked",
            "--workspace",
            "--no-deps",
            "--document-private-items",
        ],
    },
    Step {
        name: "clippy of mutations",
        is_fast: false,
        needs: &[&setup::CLIPPY],
        environment: &[],
        command: &[
            "cargo",
            "clippy",
            "--locked",
            "--workspace",
            "--features",
            "sim/mutations",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ],
    },
    Step {
        name: "stories of mutations",
        is_fast: false,
        needs: &[&setup::NEXTEST],
        environment: &[],
        command: &[
            "cargo",
            "nextest",
            "run",
            "--locked",
            "-p",
            "antecede-protocol",
            "--features",
            "mutations",
            "--test",
            "it",
        ],
    },
    Step {
        name: "clippy without etcd",
        is_fast: false,
        needs: &[&setup::CLIPPY],
        environment: &[],
        command: &[
            "cargo",
            "clippy",
            "--locked",
            "-p",
            "antecede",
            "--no-default-features",
            "--",
            "-D",
            "warnings",
        ],
    },
    Step {
        name: "fuzz of requests",
        is_fast: false,
        needs: &[],
        environment: &[],
        command: &["target/release/examples/fuzz_resp", "--seconds", "60", "--seed", "{seed}"],
    },
    Step {
        name: "fuzz of peers",
        is_fast: false,
        needs: &[],
        environment: &[],
        command: &["target/release/examples/fuzz_peer", "--seconds", "60", "--seed", "{seed}"],
    },
];

/// Steps that run one after the other, beside other lanes.
#[derive(Debug)]
struct Lane {
    steps: &'static [&'static str],
    /// Whether it takes only what the others leave of the processors.
    is_patient: bool,
}

/// Lanes that run side by side. Tests often wait, for elections, for leases to end and nodes to come
/// back, while the simulator and the compiler need nothing but processors; and a fuzzer keeps one of
/// two busy.
const SIDE_BY_SIDE: &[&[Lane]] = &[
    &[
        Lane { steps: &["clippy", "tests"], is_patient: false },
        Lane { steps: &["build"], is_patient: true },
    ],
    &[
        Lane { steps: &["acceptance", "redis clients"], is_patient: false },
        Lane {
            steps: &[
                "twice",
                "known seeds",
                "crash points",
                "fresh seeds",
                "build of mutations",
                "mutations",
                "docs",
                "clippy of mutations",
                "stories of mutations",
                "clippy without etcd",
            ],
            is_patient: true,
        },
    ],
    &[
        Lane { steps: &["fuzz of requests"], is_patient: false },
        Lane { steps: &["fuzz of peers"], is_patient: false },
    ],
];

/// Runs a command only while nothing else wants the processor.
const PATIENTLY: &[&str] = &["chrt", "--idle", "0"];

/// A part of the project and the words that some step must hold once it exists, so that no check
/// is written and then never run.
const PARTS: &[(&[&str], &[&str])] = &[
    (&["tests/it"], &["nextest", "package(tests)"]),
    (&["tests/redis/run.py"], &["tests/redis/run.py"]),
    (SIMULATOR, &["target/release/sim", "twice"]),
    (SIMULATOR, &["target/release/sim", "--seeds"]),
    (SIMULATOR, &["target/release/sim", "mutations"]),
    (&["crates/sim/seeds.txt"], &["target/release/sim", "seeds"]),
    (&["crates/sim/src/script.rs"], &["target/release/sim", "crashes"]),
    (&["crates/server/examples/fuzz_resp.rs"], &["target/release/examples/fuzz_resp"]),
    (&["crates/server/examples/fuzz_peer"], &["target/release/examples/fuzz_peer"]),
    (&["fuzz", "crates/fuzz", "tests/fuzz"], &["fuzz"]),
];

/// Where the simulator is, once it is more than a name.
const SIMULATOR: &[&str] = &["crates/sim/src/world.rs", "crates/sim/tests"];

/// The commands of the gate.
pub(crate) fn commands() -> Vec<&'static [&'static str]> {
    STEPS.iter().map(|step| step.command).collect()
}

/// The parts that exist although none of the commands runs them.
pub(crate) fn parts_without_step(commands: &[&[&str]], has: impl Fn(&str) -> bool) -> Vec<String> {
    let is_run = |words: &[&str]| {
        commands.iter().any(|command| words.iter().all(|word| command.contains(word)))
    };
    let forgotten = PARTS.iter().filter(|(paths, words)| {
        let exists = paths.iter().any(|path| has(path));
        exists && !is_run(words)
    });
    let told = |(paths, words): &(&[&str], &[&str])| {
        format!("no step runs `{}`: a command with {}", paths.join("` or `"), words.join(" "))
    };
    forgotten.map(told).collect()
}

/// How a step ended.
#[derive(Debug)]
enum Outcome {
    Passed,
    Failed(String),
    /// An earlier step failed.
    Skipped,
}

/// A step, how it ended, what it took.
type Done = (&'static Step, Outcome, Duration);

/// Runs the gate and prints what each step took.
pub(crate) fn run(options: &CiOptions) -> anyhow::Result<()> {
    let root = machine::workspace()?;
    let steps = chosen(options)?;
    let seed = match options.seed {
        Some(seed) => seed,
        None => fresh_seed()?,
    };
    say::line(&format!("gate: seed {seed}; repeat with `cargo xtask ci --seed {seed}`"));
    let began = machine::now();
    let mut done: Vec<Done> = Vec::new();
    let place = |step: &Step| lanes_of(step).first().map(|lane| lane.steps);
    for together in steps.chunk_by(|one, other| place(one).is_some() && place(one) == place(other))
    {
        let lanes = together.first().map(|step| lanes_of(step)).unwrap_or_default();
        let has_failed = done.iter().any(|(_, outcome, _)| matches!(outcome, Outcome::Failed(_)));
        let goes_on = AtomicBool::new(!has_failed || options.keep_going);
        let one = |step, is_patient| {
            if !goes_on.load(Ordering::Relaxed) {
                return (step, Outcome::Skipped, Duration::ZERO);
            }
            let done = time_step(step, is_patient, seed, &root);
            if matches!(done.1, Outcome::Failed(_)) && !options.keep_going {
                goes_on.store(false, Ordering::Relaxed);
            }
            done
        };
        done.extend(side_by_side(together, lanes, &one));
    }
    tell(&done, began.elapsed())
}

/// The lanes one of which a step belongs to.
fn lanes_of(step: &Step) -> &'static [Lane] {
    let has = |lanes: &&&[Lane]| lanes.iter().any(|lane| lane.steps.contains(&step.name));
    SIDE_BY_SIDE.iter().find(has).copied().unwrap_or_default()
}

/// Runs steps, those of each lane one after the other and the lanes at the same time, and tells how
/// each ended and what it took.
fn side_by_side(
    steps: &[&'static Step],
    lanes: &[Lane],
    one: &(dyn Fn(&'static Step, bool) -> Done + Sync),
) -> Vec<Done> {
    let of_lane = |lane: &Lane| -> (Vec<&'static Step>, bool) {
        let of = steps.iter().copied().filter(|step| lane.steps.contains(&step.name));
        (of.collect(), lane.is_patient)
    };
    let by_lane: Vec<_> = lanes.iter().map(of_lane).filter(|(of, _)| !of.is_empty()).collect();
    if by_lane.len() < 2 {
        return steps.iter().map(|step| one(step, false)).collect();
    }
    std::thread::scope(|scope| {
        let run = |(steps, is_patient): (Vec<&'static Step>, bool)| {
            let all = steps.clone();
            let run = move || all.into_iter().map(|step| one(step, is_patient)).collect();
            (steps, scope.spawn(run))
        };
        let running: Vec<(_, ScopedJoinHandle<'_, Vec<Done>>)> =
            by_lane.into_iter().map(run).collect();
        let died = |step| (step, Outcome::Failed("it died".to_owned()), Duration::ZERO);
        let end = |(steps, running): (Vec<&'static Step>, ScopedJoinHandle<'_, Vec<Done>>)| {
            running.join().unwrap_or_else(|_| steps.into_iter().map(died).collect())
        };
        running.into_iter().flat_map(end).collect()
    })
}

/// Runs a step, and tells how it ended and what it took.
fn time_step(step: &'static Step, is_patient: bool, seed: u64, root: &Path) -> Done {
    say::line(&format!("gate: {}", step.name));
    let start = machine::now();
    let outcome = match run_step(step, is_patient, seed, root) {
        Ok(()) => Outcome::Passed,
        Err(error) => Outcome::Failed(format!("{error:#}")),
    };
    let took = start.elapsed();
    if let Outcome::Failed(why) = &outcome {
        say::line(&format!("gate: {} failed: {why}", step.name));
    }
    say::line(&format!("gate: {} took {:.1} s", step.name, took.as_secs_f64()));
    (step, outcome, took)
}

/// The steps that the options name.
fn chosen(options: &CiOptions) -> anyhow::Result<Vec<&'static Step>> {
    for name in &options.steps {
        let names: Vec<_> = STEPS.iter().map(|step| step.name).collect();
        ensure!(names.contains(&name.as_str()), "no step `{name}`; there are {}", names.join(", "));
    }
    let is_named = |step: &&Step| {
        options.steps.is_empty() || options.steps.iter().any(|name| name == step.name)
    };
    Ok(STEPS.iter().filter(is_named).filter(|step| step.is_fast || !options.fast).collect())
}

/// Prints the table and the closing line.
fn tell(done: &[(&Step, Outcome, Duration)], total: Duration) -> anyhow::Result<()> {
    let mut passed = 0;
    let mut failed = 0;
    let mut skipped = 0;
    for (step, outcome, took) in done {
        let word = match outcome {
            Outcome::Passed => {
                passed += 1;
                "passed"
            }
            Outcome::Failed(_) => {
                failed += 1;
                "FAILED"
            }
            Outcome::Skipped => {
                skipped += 1;
                "not run"
            }
        };
        say::line(&format!("{:<16} {word:<8} {:>8.1} s", step.name, took.as_secs_f64()));
    }
    say::line(&format!("{:<16} {:<8} {:>8.1} s", "all", "", total.as_secs_f64()));
    let rest = if skipped == 0 { String::new() } else { format!(", {skipped} skipped") };
    say::line(&format!("{passed} passed, {failed} failed{rest}"));
    if failed != 0 {
        bail!("the gate is closed");
    }
    Ok(())
}

fn run_step(step: &Step, is_patient: bool, seed: u64, root: &Path) -> anyhow::Result<()> {
    let needs_of_lane: &[&Need] = if is_patient { &[&setup::CHRT] } else { &[] };
    for need in step.needs.iter().chain(needs_of_lane) {
        ensure!(need.is_met(root), "{}", need.advice());
    }
    let words = if is_patient { [PATIENTLY, step.command].concat() } else { step.command.to_vec() };
    let (program, arguments) = words.split_first().context("the step has no command")?;
    let mut command = Command::new(program);
    command.args(with_seed(arguments, seed)).envs(step.environment.iter().copied());
    machine::as_from_a_shell(&mut command).current_dir(root).stdin(Stdio::null());
    let shown = machine::shown(&command);
    say::line(&format!("$ {shown}"));
    let status = command.status().with_context(|| format!("cannot start `{shown}`"))?;
    ensure!(status.success(), "`{shown}` ended with {status}");
    Ok(())
}

/// Puts the seed of this run of the gate where a command says `{seed}`.
fn with_seed<'a>(words: &'a [&str], seed: u64) -> impl Iterator<Item = String> + 'a {
    words.iter().map(move |word| word.replace("{seed}", &seed.to_string()))
}

/// A seed that nobody chose.
fn fresh_seed() -> anyhow::Result<u64> {
    let mut bytes = [0; 4];
    let mut source = std::fs::File::open("/dev/urandom").context("cannot open /dev/urandom")?;
    std::io::Read::read_exact(&mut source, &mut bytes).context("cannot read /dev/urandom")?;
    Ok(u64::from(u32::from_le_bytes(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: Step =
        Step { name: "good", is_fast: true, needs: &[], environment: &[], command: &["true"] };

    #[test]
    fn step_fails_when_its_command_does() {
        let bad = Step { command: &["false"], ..GOOD };
        let here = Path::new(".");
        for is_patient in [false, true] {
            assert!(run_step(&GOOD, is_patient, 1, here).is_ok());
            assert!(run_step(&bad, is_patient, 1, here).is_err());
        }
    }

    #[test]
    fn seed_is_put_into_the_command() {
        let words: Vec<String> = with_seed(&["sim", "--seed", "{seed}"], 7).collect();
        assert_eq!(words, ["sim", "--seed", "7"]);
    }

    #[test]
    fn step_without_its_tool_fails_with_the_line_that_installs_it() {
        let step = Step { needs: &[&setup::REDIS_CLIENT_OF_PYTHON], ..GOOD };
        let elsewhere = Path::new("/proc");
        let error = run_step(&step, false, 1, elsewhere).expect_err("there is no Python in /proc");
        assert!(error.to_string().contains("pip install"), "{error}");
    }

    #[test]
    fn gate_with_a_failed_step_is_closed() {
        let failed = [
            (&GOOD, Outcome::Passed, Duration::ZERO),
            (&GOOD, Outcome::Failed("x".to_owned()), Duration::ZERO),
            (&GOOD, Outcome::Skipped, Duration::ZERO),
        ];
        assert!(tell(&failed, Duration::ZERO).is_err());
        assert!(tell(&failed[..1], Duration::ZERO).is_ok());
    }

    /// Lanes of `good` and `bad`, then `slow`.
    const LANES: &[Lane] = &[
        Lane { steps: &["good"], is_patient: false },
        Lane { steps: &["bad", "slow"], is_patient: true },
    ];
    static BAD: Step = Step { name: "bad", command: &["false"], ..GOOD };
    static SLOW: Step = Step { name: "slow", ..GOOD };

    #[test]
    fn lanes_run_at_the_same_time_and_the_steps_of_one_in_order() {
        let begun = [AtomicBool::new(false), AtomicBool::new(false)];
        let has_ended = AtomicBool::new(false);
        let one = |step: &'static Step, is_patient: bool| {
            if step.name == "slow" {
                assert!(
                    has_ended.load(Ordering::SeqCst),
                    "it began before the one before it ended"
                );
                return (step, Outcome::Passed, Duration::ZERO);
            }
            begun[usize::from(is_patient)].store(true, Ordering::SeqCst);
            let other = &begun[usize::from(!is_patient)];
            let within = Duration::from_secs(10);
            assert!(machine::wait_until(within, || other.load(Ordering::SeqCst)), "it runs alone");
            has_ended.fetch_or(is_patient, Ordering::SeqCst);
            (step, Outcome::Passed, Duration::ZERO)
        };
        let ended = side_by_side(&[&GOOD, &BAD, &SLOW], LANES, &one);
        let names: Vec<_> = ended.iter().map(|(step, ..)| step.name).collect();
        assert_eq!(names, ["good", "bad", "slow"]);
        assert!(
            ended.iter().all(|(_, outcome, _)| matches!(outcome, Outcome::Passed)),
            "{ended:?}"
        );
    }

    #[test]
    fn steps_side_by_side_end_each_for_itself() {
        let one = |step, is_patient| time_step(step, is_patient, 1, Path::new("."));
        let ended = side_by_side(&[&GOOD, &BAD], LANES, &one);
        let [(good, Outcome::Passed, _), (bad, Outcome::Failed(_), _)] = &ended[..] else {
            panic!("{ended:?}");
        };
        assert_eq!([good.name, bad.name], ["good", "bad"]);
    }

    #[test]
    fn lane_that_runs_alone_has_all_processors() {
        let one = |step, is_patient: bool| {
            assert!(!is_patient);
            (step, Outcome::Passed, Duration::ZERO)
        };
        assert_eq!(side_by_side(&[&BAD, &SLOW], LANES, &one).len(), 2);
        assert_eq!(side_by_side(&[&GOOD], &[], &one).len(), 1);
    }

    #[test]
    fn steps_of_lanes_stand_together_in_the_table() {
        for lanes in SIDE_BY_SIDE {
            let names: Vec<_> = lanes.iter().flat_map(|lane| lane.steps.iter().copied()).collect();
            let first = STEPS.iter().position(|step| names.contains(&step.name));
            let found = STEPS.iter().skip(first.expect("they are in the table"));
            let found: Vec<_> = found.take(names.len()).map(|step| step.name).collect();
            assert_eq!(found, names, "in the order of the table");
        }
    }

    #[test]
    fn fast_gate_has_only_fast_steps_and_unknown_steps_are_refused() {
        let all = CiOptions { fast: false, keep_going: false, steps: Vec::new(), seed: None };
        let fast = CiOptions { fast: true, steps: Vec::new(), ..all };
        let names: Vec<_> =
            chosen(&fast).expect("no step is named").iter().map(|step| step.name).collect();
        assert_eq!(names, ["format", "tidy", "clippy", "tests", "docs"]);
        let unknown = CiOptions { steps: vec!["tides".to_owned()], ..fast };
        assert!(chosen(&unknown).is_err());
    }
}
