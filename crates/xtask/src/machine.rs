//! Starts processes, finds free ports and reads the clock for all chores.
//!
//! A server that a chore starts is a `Running`: it is ended by its own process id when the value is
//! dropped, also when the chore fails half-way. Nothing here ends a process by its name.
//!
//! Ensures: no process that was started through `Running` outlives its value.

use std::fs;
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

/// How long a server may take until its port answers.
const READY_WITHIN: Duration = Duration::from_secs(20);

/// How long a server that was asked to stop may take before it is ended.
const STOPPED_WITHIN: Duration = Duration::from_secs(10);

/// The pause between two looks at something that tells nobody when it is ready.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(20);

/// Reads the steady clock.
#[expect(clippy::disallowed_methods, reason = "chores measure real time, and only here")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Waits until `is_so` holds; false if the time ran out before.
pub(crate) fn wait_until(within: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    let end = now() + within;
    loop {
        if is_so() {
            return true;
        }
        if end <= now() {
            return false;
        }
        // A port that opens wakes nobody, so it has to be tried again.
        std::thread::park_timeout(LOOK_AGAIN_AFTER);
    }
}

/// The root of the checkout in which this runs.
pub(crate) fn workspace() -> anyhow::Result<PathBuf> {
    let text = output_of(Command::new("git").args(["rev-parse", "--show-toplevel"]))
        .context("cannot find the root of the checkout; run this inside a git clone")?;
    Ok(PathBuf::from(text.trim_end()))
}

/// Takes out of a command's environment what `cargo run` told this process about itself.
///
/// Build scripts look at some of it, so a build from here would build again what was built from a
/// shell, and the other way round.
pub(crate) fn as_from_a_shell(command: &mut Command) -> &mut Command {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CARGO_PKG_")
            || name.to_string_lossy().starts_with("CARGO_MANIFEST_")
        {
            command.env_remove(name);
        }
    }
    command
}

/// Runs a command to its end and returns what it printed; a failure names the command and its
/// error output.
pub(crate) fn output_of(command: &mut Command) -> anyhow::Result<String> {
    let shown = shown(command);
    let output = as_from_a_shell(command)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start `{shown}`; is it installed?"))?;
    ensure!(
        output.status.success(),
        "`{shown}` ended with {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    String::from_utf8(output.stdout).with_context(|| format!("`{shown}` printed no UTF-8"))
}

/// Whether a command can be started and ends well; what it prints is thrown away.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// A command as a person would type it.
pub(crate) fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

/// A port of the loopback interface that nobody uses at this moment.
pub(crate) fn free_port() -> anyhow::Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("cannot bind a loopback port")?;
    Ok(listener.local_addr().context("cannot read the port of a listener")?.port())
}

/// A server process that this chore started.
#[derive(Debug)]
pub(crate) struct Running {
    name: String,
    child: Child,
    /// Where its output goes; shown when it does not come up.
    log: PathBuf,
}

impl Running {
    /// Starts a server and waits until its port takes connections.
    pub(crate) fn start(
        name: &str,
        command: &mut Command,
        port: u16,
        log: &Path,
    ) -> anyhow::Result<Self> {
        let shown = shown(command);
        let out = fs::File::create(log)
            .with_context(|| format!("cannot create the log at {}", log.display()))?;
        let errors = out.try_clone().context("cannot share the log of a server")?;
        let child = command
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(errors)
            .spawn()
            .with_context(|| format!("cannot start `{shown}`"))?;
        let mut running = Self { name: name.to_owned(), child, log: log.to_owned() };
        let mut is_gone = false;
        let is_up = wait_until(READY_WITHIN, || {
            is_gone = !matches!(running.child.try_wait(), Ok(None));
            is_gone || TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        if is_gone || !is_up {
            bail!("{name} did not open port {port} (`{shown}`): {}", running.log_end());
        }
        Ok(running)
    }

    /// The id of the process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Asks the process to stop, waits for it, and ends it if it does not.
    pub(crate) fn stop(mut self) -> anyhow::Result<()> {
        let id = self.child.id().to_string();
        output_of(Command::new("sh").args(["-c", "kill -TERM \"$0\"", &id]))
            .with_context(|| format!("cannot stop {}", self.name))?;
        let is_gone = wait_until(STOPPED_WITHIN, || !matches!(self.child.try_wait(), Ok(None)));
        ensure!(is_gone, "{} did not stop within {STOPPED_WITHIN:?} of being asked", self.name);
        Ok(())
    }

    fn log_end(&self) -> String {
        let mut text = String::new();
        let is_read = fs::File::open(&self.log).and_then(|mut file| file.read_to_string(&mut text));
        match is_read {
            Ok(_) => {
                let lines: Vec<&str> = text.lines().collect();
                lines[lines.len().saturating_sub(5)..].join(" | ")
            }
            Err(error) => format!("cannot read {}: {error}", self.log.display()),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Gone already is as good as ended; nobody is left to tell of another failure.
        if matches!(self.child.try_wait(), Ok(None)) {
            drop(self.child.kill());
            drop(self.child.wait());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn process_that_was_started_is_gone_when_its_value_is() {
        let port = free_port().expect("loopback has a free port");
        let log = std::env::temp_dir().join(format!("xtask-machine-{}.log", std::process::id()));
        let mut command = Command::new("python3");
        command.args(["-m", "http.server", "--bind", "127.0.0.1", &port.to_string()]);
        let running =
            Running::start("a server", &mut command, port, &log).expect("python3 is here");
        let path = PathBuf::from(format!("/proc/{}", running.id()));
        assert!(path.exists(), "it runs");

        drop(running);

        assert!(!path.exists(), "it was ended and waited for");
        fs::remove_file(log).expect("the log was written");
    }

    #[test]
    fn server_that_is_asked_to_stop_stops() {
        let port = free_port().expect("loopback has a free port");
        let log = std::env::temp_dir().join(format!("xtask-stop-{}.log", std::process::id()));
        let mut command = Command::new("python3");
        command.args(["-m", "http.server", "--bind", "127.0.0.1", &port.to_string()]);
        let running =
            Running::start("a server", &mut command, port, &log).expect("python3 is here");
        let path = PathBuf::from(format!("/proc/{}", running.id()));

        running.stop().expect("it listens to SIGTERM");

        assert!(!path.exists(), "it ended");
        fs::remove_file(log).expect("the log was written");
    }

    #[test]
    fn server_that_ends_at_once_is_told_with_its_last_words() {
        let log = std::env::temp_dir().join(format!("xtask-words-{}.log", std::process::id()));
        let mut command = Command::new("sh");
        command.args(["-c", "echo no such setting; exit 3"]);

        let error = Running::start("a server", &mut command, 1, &log).expect_err("it ended");

        assert!(error.to_string().contains("no such setting"), "{error}");
        fs::remove_file(log).expect("the log was written");
    }
}
