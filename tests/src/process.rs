//! Runs the binary beside the test.
//!
//! Ensures: the process is ended by its id and waited for when this goes out of scope, however the
//! test ends; what it printed is shown if the test failed.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::patience::{eventually, within};
use crate::{Stage, binary};

/// Of what a process printed, how much is shown after a failure.
const SHOWN_BYTES: usize = 6000;

/// What is started.
#[derive(Clone, Debug, Default)]
pub struct Start<'a> {
    /// Name of the process among those of a test; its output lies in files of this name.
    pub name: &'a str,
    /// Its arguments.
    pub words: &'a [&'a str],
    /// What is added to its environment.
    pub environment: &'a [(&'a str, &'a str)],
    /// The network namespace that it runs in, if it is not that of the test.
    pub space: Option<&'a str>,
}

/// A file to which processes of one name append, and where this one began.
#[derive(Debug)]
struct Output {
    path: PathBuf,
    start: u64,
}

impl Output {
    fn begin(path: PathBuf) -> (Self, File) {
        let file = File::options().create(true).append(true).open(&path);
        let file = file.unwrap_or_else(|error| panic!("cannot open {}: {error}", path.display()));
        let start = file.metadata().map_or(0, |metadata| metadata.len());
        (Self { path, start }, file)
    }

    fn size(&self) -> u64 {
        fs::metadata(&self.path).map_or(0, |metadata| metadata.len()).saturating_sub(self.start)
    }

    fn text(&self) -> String {
        let bytes = fs::read(&self.path).unwrap_or_default();
        let start = usize::try_from(self.start).unwrap_or(usize::MAX);
        String::from_utf8_lossy(bytes.get(start..).unwrap_or_default()).into_owned()
    }
}

/// A process of the binary.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    answer: Output,
    notes: Output,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts it; its output is added to that of earlier processes of this name.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn start(stage: &Stage, start: &Start<'_>) -> Self {
        let name = start.name.to_owned();
        let (answer, answer_file) = Output::begin(stage.path(&format!("{name}.out")));
        let (notes, notes_file) = Output::begin(stage.path(&format!("{name}.err")));
        let child = binary::command(start.space)
            .args(start.words)
            .envs(start.environment.iter().copied())
            .current_dir(stage.folder())
            .stdin(Stdio::piped())
            .stdout(answer_file)
            .stderr(notes_file)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        Self { name, child, answer, notes, ended: None }
    }

    /// Its number.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it printed on standard output.
    #[must_use]
    pub fn answer(&self) -> String {
        self.answer.text()
    }

    /// What it printed on standard error.
    #[must_use]
    pub fn notes(&self) -> String {
        self.notes.text()
    }

    /// Bytes that it printed.
    #[must_use]
    pub fn printed_bytes(&self) -> u64 {
        self.answer.size() + self.notes.size()
    }

    /// Types a line.
    ///
    /// # Panics
    /// If nobody reads it.
    pub fn type_line(&mut self, line: &str) {
        let input = self.child.stdin.as_mut().expect("standard input is a pipe");
        writeln!(input, "{line}").unwrap_or_else(|error| panic!("cannot type {line}: {error}"));
    }

    /// Lets it know that nothing more will be typed.
    pub fn close_input(&mut self) {
        drop(self.child.stdin.take());
    }

    /// Ends it as `kill -9` does, and waits for its end.
    pub fn kill(&mut self) {
        drop(self.child.kill()); // It may have ended by itself.
        self.ended = self.child.wait().ok();
    }

    /// Asks it to end, as `kill` does.
    ///
    /// # Panics
    /// If it has ended before.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Stops it where it is, as `kill -STOP` does: it neither answers nor ends.
    ///
    /// # Panics
    /// If it has ended before.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    ///
    /// # Panics
    /// If it has ended before.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.id()).ok().and_then(Pid::from_raw);
        let id = id.expect("a child has a number");
        kill_process(id, signal)
            .unwrap_or_else(|error| panic!("cannot send {signal:?} to {}: {error}", self.name));
    }

    /// How it ended, if it did.
    pub fn try_end(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().ok().flatten();
        }
        self.ended
    }

    /// How it ended, if it does within `span`.
    pub fn end_within(&mut self, span: Duration) -> Option<ExitStatus> {
        within(span, || self.try_end())
    }

    /// How it ended; it must within `patience`.
    ///
    /// # Panics
    /// If it does not.
    pub fn end(&mut self, patience: Duration) -> ExitStatus {
        let what = format!("{} ends", self.name);
        eventually(&what, patience, || self.try_end())
    }

    /// Waits for something that must come while it runs.
    ///
    /// # Panics
    /// If it ends before, or after `patience`.
    pub fn eventually<T>(
        &mut self,
        what: &str,
        patience: Duration,
        mut look: impl FnMut(&Self) -> Option<T>,
    ) -> T {
        eventually(what, patience, || {
            let found = look(self);
            if let Some(status) = self.try_end()
                && found.is_none()
            {
                panic!("{what}: {} ended before ({status}):\n{}", self.name, self.notes());
            }
            found
        })
    }

    /// Bytes of memory that it holds.
    ///
    /// # Panics
    /// If it has ended.
    #[must_use]
    pub fn resident_bytes(&self) -> u64 {
        let text = self.proc_file("status");
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().split(' ').next()?.parse::<u64>().ok());
        kib.unwrap_or_else(|| panic!("{} has no resident size:\n{text}", self.name)) * 1024
    }

    /// Time that it has had on all cores.
    ///
    /// # Panics
    /// If it has ended.
    #[must_use]
    pub fn used_time(&self) -> Duration {
        let text = self.proc_file("stat");
        // Behind the name, which may hold blanks: state, 10 numbers, then user and system ticks.
        let fields = text.rsplit_once(')').map_or("", |(_, rest)| rest);
        let ticks = fields.split_whitespace().skip(11).take(2).map(|word| word.parse::<u64>());
        let ticks: u64 = ticks.map(|tick| tick.expect("ticks are numbers")).sum();
        let per_second = rustix::param::clock_ticks_per_second().max(1);
        Duration::from_nanos(ticks * (1_000_000_000 / per_second))
    }

    /// How often each of its threads has gone to sleep, and so was woken.
    ///
    /// # Panics
    /// If it has ended.
    #[must_use]
    pub fn sleeps(&self) -> BTreeMap<OsString, u64> {
        let folder = format!("/proc/{}/task", self.id());
        let entries = fs::read_dir(&folder);
        let entries = entries.unwrap_or_else(|error| panic!("cannot list {folder}: {error}"));
        let of_thread = |entry: std::io::Result<fs::DirEntry>| {
            let entry = entry.ok()?;
            // A thread that has ended since says nothing.
            let text = fs::read_to_string(entry.path().join("status")).ok()?;
            let count = text.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
            Some((entry.file_name(), count?.trim().parse().ok()?))
        };
        entries.filter_map(of_thread).collect()
    }

    fn proc_file(&self, name: &str) -> String {
        let path = format!("/proc/{}/{name}", self.id());
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("cannot read {path}: {error}"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.try_end().is_none() {
            self.kill();
        }
        if std::thread::panicking() {
            let shown = |text: String| {
                let skipped = text.len().saturating_sub(SHOWN_BYTES);
                let start = (skipped..=text.len()).find(|place| text.is_char_boundary(*place));
                text[start.unwrap_or(0)..].to_owned()
            };
            let (answer, notes) = (shown(self.answer()), shown(self.notes()));
            let ended = self.ended.map_or_else(|| "?".to_owned(), |status| status.to_string());
            #[expect(clippy::print_stderr, reason = "whoever reads a failure needs it")]
            {
                eprintln!(
                    "--- {} ({ended}) printed:\n{answer}\n--- and noted:\n{notes}",
                    self.name
                );
            }
        }
    }
}
