//! Makes the syncs of a running process fail, as a disk does that is about to die.
//!
//! A tracer attaches to the process and answers its syncs of one file itself.
//!
//! Ensures: the tracer is ended by its id and waited for when this goes out of scope.
//! Limits: needs `strace` and the right to trace; who has not is told so, and the test is left out.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::demo::path_text;
use crate::patience::within;
use crate::{Process, tell};

/// How long attaching may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Syncs that fail.
#[derive(Debug)]
pub struct FailingSync(Child);

impl FailingSync {
    /// From now on syncs of a file by a process fail, or of all files; `None`, with the reason printed, where this
    /// machine does not let it.
    #[must_use]
    pub fn of(process: &Process, file: Option<&Path>) -> Option<Self> {
        let id = process.id().to_string();
        let mut words = vec!["-f", "-qq", "-p", &id];
        words.extend(file.into_iter().flat_map(|file| ["-P", path_text(file)]));
        let injection = "inject=fdatasync,fsync:error=EIO";
        let tracer = Command::new("strace")
            .args(["-o", "/dev/null", "-e", "trace=fdatasync,fsync", "-e", injection])
            .args(words)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let mut tracer = match tracer {
            Ok(tracer) => Self(tracer),
            Err(error) => {
                tell(&format!("left out: cannot start strace: {error}"));
                return None;
            }
        };
        let is_attached = within(PATIENCE, || {
            let has_ended = !matches!(tracer.0.try_wait(), Ok(None));
            (has_ended || is_traced(process.id())).then_some(!has_ended)
        });
        if is_attached == Some(true) {
            return Some(tracer);
        }
        tell("left out: strace may not attach to a process here");
        None
    }
}

impl Drop for FailingSync {
    fn drop(&mut self) {
        drop(self.0.kill()); // It may have ended with the process.
        drop(self.0.wait());
    }
}

/// Whether all threads of a process are traced.
fn is_traced(process: u32) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{process}/task")) else { return false };
    threads.flatten().all(|thread| {
        let status = fs::read_to_string(thread.path().join("status")).unwrap_or_default();
        let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:"));
        tracer.is_some_and(|tracer| tracer.trim() != "0")
    })
}
