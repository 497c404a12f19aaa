//! Feeds a target with inputs until the time is up or something is wrong.
//!
//! Two processes: one tries the inputs and writes each to a file first; the other waits for it. So
//! whatever ends the first (a panic, a full stack, a refused allocation, a watchdog) leaves the
//! input behind, and the second makes it shorter, as long as a fresh process still fails on it.
//!
//! An input that caused something new is kept and changed further. What is tried follows from the
//! seed alone: with `--inputs N` instead of `--seconds` a run repeats.
//!
//! Limits: an input may make the process hold what its target allows, counted by `allocated`;
//! the whole process `RESIDENT_KIB_MAX`; an input may take `STUCK_AFTER` and
//! `STACK_BYTES` of stack.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

/// Counts what is held.
pub(crate) mod allocated;
/// Numbers from a seed.
pub(crate) mod random;

use random::Random;

/// The most inputs that are kept for their novelty.
const CORPUS_MAX: usize = 4096;
/// The most memory that the process may come to hold, in KiB: the kept inputs and one that is tried.
const RESIDENT_KIB_MAX: u64 = 256 * 1024;
/// An input that takes longer is taken for one that never ends.
const STUCK_AFTER: Duration = Duration::from_secs(10);
/// The stack on which inputs are tried: a quarter of what the server's threads have, so that a
/// decoder that goes as deep as the bytes say is noticed with short inputs.
const STACK_BYTES: usize = 512 * 1024;
/// How many processes are started to make an input shorter, at most.
const SHORTENING_TRIES: usize = 4000;
/// How long they may take.
const SHORTENING_TIME: Duration = Duration::from_secs(30);
/// Says to a process that it tries inputs, and in which file it writes them down.
const WORKER: &str = "--worker";
/// Says to a process that it tries the input of this file.
const TRY: &str = "--try";

/// Inputs tried by this process; the watchdog looks whether it moves.
static TRIED: AtomicU64 = AtomicU64::new(0);

/// What is fed.
pub(crate) trait Target {
    /// The inputs to begin with.
    fn corpus(&self) -> Vec<Vec<u8>>;

    /// A new input.
    fn mutated(&self, corpus: &[Vec<u8>], random: &mut Random) -> Vec<u8>;

    /// Tries an input; what is wrong, in words.
    ///
    /// # Errors
    /// When something is wrong.
    fn try_input(&self, input: &[u8]) -> Result<Tried, String>;

    /// How many units an input can be cut by.
    fn units(&self, input: &[u8]) -> usize {
        input.len()
    }

    /// The input without these units.
    fn without(&self, input: &[u8], from: usize, to: usize) -> Vec<u8> {
        input.iter().take(from).chain(input.iter().skip(to)).copied().collect()
    }
}

/// What came of an input.
#[derive(Debug)]
pub(crate) struct Tried {
    /// What kind of answers it caused; a new one makes the input be kept.
    pub(crate) kind: Vec<u8>,
    /// The most bytes that it made the process hold.
    pub(crate) held: usize,
    /// How many it may.
    pub(crate) held_max: usize,
}

#[derive(Debug)]
struct Options {
    seconds: u64,
    inputs: Option<u64>,
    seed: u64,
    worker: Option<String>,
    tried: Option<String>,
}

/// Runs the program.
#[expect(clippy::print_stdout, clippy::print_stderr, reason = "a program that says what it found")]
pub(crate) fn run(target: &(impl Target + Sync)) -> ExitCode {
    let Some(options) = read_options() else {
        eprintln!("use: [--seconds N | --inputs N] [--seed S]");
        return ExitCode::FAILURE;
    };
    let done = if let Some(path) = &options.tried {
        on_small_stack(|| try_file(target, Path::new(path)))
    } else if let Some(path) = &options.worker {
        on_small_stack(|| work(target, &options, Path::new(path)))
    } else {
        println!("seed {}", options.seed);
        supervise(target, &options)
    };
    match done {
        Ok(summary) => {
            println!("{summary}");
            ExitCode::SUCCESS
        }
        Err(found) => {
            eprintln!("{found}");
            ExitCode::FAILURE
        }
    }
}

fn on_small_stack(run: impl FnOnce() -> Result<String, String> + Send) -> Result<String, String> {
    let thread = std::thread::Builder::new().stack_size(STACK_BYTES);
    std::thread::scope(|scope| match thread.spawn_scoped(scope, run) {
        Ok(running) => running.join().unwrap_or_else(|_| Err("it panicked".to_owned())),
        Err(error) => Err(format!("cannot start a thread: {error}")),
    })
}

fn read_options() -> Option<Options> {
    let mut options = Options { seconds: 10, inputs: None, seed: 1, worker: None, tried: None };
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next()?;
        match name.as_str() {
            "--seconds" => options.seconds = value.parse().ok()?,
            "--inputs" => options.inputs = Some(value.parse().ok()?),
            "--seed" => options.seed = value.parse().ok()?,
            WORKER => options.worker = Some(value),
            TRY => options.tried = Some(value),
            _ => return None,
        }
    }
    Some(options)
}

/// Starts the process that tries inputs, and tells the input that ended it.
fn supervise(target: &impl Target, options: &Options) -> Result<String, String> {
    let folder = tempfile::tempdir().map_err(|error| format!("no temporary folder: {error}"))?;
    let path = folder.path().join("input");
    let amount = match options.inputs {
        Some(inputs) => ["--inputs".to_owned(), inputs.to_string()],
        None => ["--seconds".to_owned(), options.seconds.to_string()],
    };
    let mut worker = again()?;
    worker.args(amount).args(["--seed", &options.seed.to_string(), WORKER]).arg(&path);
    let status = worker.status().map_err(|error| format!("cannot start a process: {error}"))?;
    if status.success() {
        return Ok("nothing was wrong".to_owned());
    }
    let input = fs::read(&path).ok().and_then(|bytes| last_input(&bytes));
    let input = input.ok_or_else(|| format!("{status} before any input was tried"))?;
    if !does_fail(&input, &folder.path().join("tried")) {
        let seed = options.seed;
        return Err(format!(
            "{status}, seed {seed}; the last input alone is fine: {}",
            hex(&input)
        ));
    }
    let shortest = shortened(target, input.clone(), &folder.path().join("tried"));
    let (seed, before, after) = (options.seed, input.len(), shortest.len());
    Err(format!("{status}, seed {seed}; {before} bytes, made {after}: {}", hex(&shortest)))
}

/// This program once more.
fn again() -> Result<Command, String> {
    let program = std::env::current_exe().map_err(|error| format!("who am I: {error}"))?;
    let mut command = Command::new(program);
    command.stdin(Stdio::null());
    Ok(command)
}

/// The input in the file of inputs: its length, then its bytes.
fn last_input(bytes: &[u8]) -> Option<Vec<u8>> {
    let (length, rest) = bytes.split_first_chunk::<8>()?;
    rest.get(..usize::try_from(u64::from_le_bytes(*length)).ok()?).map(<[u8]>::to_vec)
}

/// Whether a fresh process fails on an input.
fn does_fail(input: &[u8], path: &Path) -> bool {
    let Ok(mut command) = again() else { return false };
    command.arg(TRY).arg(path).stdout(Stdio::null()).stderr(Stdio::null());
    fs::write(path, input).is_ok() && command.status().is_ok_and(|status| !status.success())
}

/// An input as short as one can be found on which the program still fails: cuts of half of it
/// first, then of ever less.
fn shortened(target: &impl Target, input: Vec<u8>, path: &Path) -> Vec<u8> {
    let started = now();
    let mut shortest = input;
    let mut tries = 0;
    let mut step = target.units(&shortest).div_ceil(2);
    while 0 < step {
        let mut from = 0;
        while from < target.units(&shortest) {
            tries += 1;
            if SHORTENING_TRIES < tries || SHORTENING_TIME < started.elapsed() {
                return shortest;
            }
            let shorter = target.without(&shortest, from, from + step);
            if shorter.len() < shortest.len() && does_fail(&shorter, path) {
                shortest = shorter;
            } else {
                from += step;
            }
        }
        step /= 2;
    }
    shortest
}

fn try_file(target: &impl Target, path: &Path) -> Result<String, String> {
    let input = fs::read(path).map_err(|error| format!("cannot read the input: {error}"))?;
    let _running = watchdog();
    judged(target, &input).map(|_| "nothing was wrong".to_owned())
}

fn judged(target: &impl Target, input: &[u8]) -> Result<Tried, String> {
    let tried = target.try_input(input)?;
    if tried.held_max < tried.held {
        let (held, length, limit) = (tried.held, input.len(), tried.held_max);
        return Err(format!("{held} bytes were held for {length} bytes, the limit is {limit}"));
    }
    Ok(tried)
}

/// Tries inputs until the time is up.
fn work(target: &impl Target, options: &Options, path: &Path) -> Result<String, String> {
    let file = File::create(path).map_err(|error| format!("cannot write inputs: {error}"))?;
    let _running = watchdog();
    let mut random = Random(options.seed);
    let mut corpus = target.corpus();
    let first_count = corpus.len();
    for input in &corpus {
        attempt(target, input, &file)?;
    }
    let (mut kinds, mut count, mut bytes) = (BTreeSet::new(), 0_u64, 0_u64);
    let (mut held_max, mut percent_max) = (0, 0);
    let started = now();
    let time = Duration::from_secs(options.seconds);
    while options.inputs.map_or_else(
        || !count.is_multiple_of(256) || started.elapsed() < time,
        |inputs| count < inputs,
    ) {
        let input = target.mutated(&corpus, &mut random);
        let tried = attempt(target, &input, &file)?;
        count += 1;
        bytes += input.len() as u64;
        held_max = tried.held.max(held_max);
        percent_max = (tried.held * 100 / tried.held_max).max(percent_max);
        if corpus.len() < CORPUS_MAX && kinds.insert(tried.kind) {
            corpus.push(input);
        }
        if count.is_multiple_of(65_536) {
            check_resident()?;
        }
    }
    let resident = check_resident()?;
    let seconds = started.elapsed().as_secs_f64();
    Ok(format!(
        "{count} inputs, {:.0} executions/s, {bytes} bytes, {} kinds of answers, {} inputs kept\n\
         memory: an input made it hold at most {held_max} bytes, and at most {percent_max} % of \
         what it may\nthe process held at most {resident} KiB, the limit is {RESIDENT_KIB_MAX}",
        count as f64 / seconds,
        kinds.len(),
        corpus.len() - first_count,
    ))
}

/// Writes an input down and tries it.
fn attempt(target: &impl Target, input: &[u8], file: &File) -> Result<Tried, String> {
    let mut bytes = Vec::with_capacity(8 + input.len());
    bytes.extend_from_slice(&(input.len() as u64).to_le_bytes());
    bytes.extend_from_slice(input);
    file.write_all_at(&bytes, 0).map_err(|error| format!("cannot write an input: {error}"))?;
    drop(bytes);
    let number = TRIED.fetch_add(1, Ordering::Relaxed);
    judged(target, input).map_err(|wrong| format!("input {number}: {wrong}"))
}

/// Ends the process when an input takes too long; until what it returns is dropped.
#[expect(clippy::print_stderr, reason = "nobody else can say it")]
fn watchdog() -> std::sync::mpsc::SyncSender<()> {
    let (running, ended): (_, Receiver<()>) = sync_channel(1);
    std::thread::spawn(move || {
        let mut before = None;
        while let Err(std::sync::mpsc::RecvTimeoutError::Timeout) = ended.recv_timeout(STUCK_AFTER)
        {
            let tried = Some(TRIED.load(Ordering::Relaxed));
            if before == tried {
                eprintln!("an input takes more than {} s", STUCK_AFTER.as_secs());
                std::process::abort();
            }
            before = tried;
        }
    });
    running
}

/// The most memory that the process has held, in KiB, as Linux tells it.
fn check_resident() -> Result<u64, String> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let held = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse().ok());
    let held: u64 = held.ok_or("/proc/self/status does not tell the memory of the process")?;
    if RESIDENT_KIB_MAX < held {
        return Err(format!(
            "the process came to hold {held} KiB, the limit is {RESIDENT_KIB_MAX}"
        ));
    }
    Ok(held)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[expect(clippy::disallowed_methods, reason = "how long it runs is asked in seconds")]
fn now() -> Instant {
    Instant::now()
}
