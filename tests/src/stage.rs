//! Gives a test a folder and its turn on this machine.
//!
//! Test runners start tests side by side, also as processes of their own. Most tests bear that;
//! those that run nine nodes or measure do not, and wait for a moment when they are alone. A lock
//! on a file keeps the order; it ends with its process, so nothing is left after a crash.

use std::fs::File;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// The file whose lock is the turn.
const TURN_FILE: &str = "antecede-tests.lock";

/// A folder for one test, removed at its end.
#[derive(Debug)]
pub struct Stage {
    folder: TempDir,
    _turn: File,
}

impl Stage {
    /// For a test that others may run beside.
    ///
    /// # Panics
    /// If there is no folder to be had.
    #[must_use]
    pub fn shared() -> Self {
        let turn = turn_file();
        turn.lock_shared().expect("the file of turns can be locked");
        Self::with(turn)
    }

    /// For a test that must be alone: it measures, or runs many processes.
    ///
    /// # Panics
    /// If there is no folder to be had.
    #[must_use]
    pub fn alone() -> Self {
        let turn = turn_file();
        turn.lock().expect("the file of turns can be locked");
        Self::with(turn)
    }

    fn with(turn: File) -> Self {
        let folder = tempfile::Builder::new().prefix("antecede-test-").tempdir();
        Self { folder: folder.expect("a temporary folder can be made"), _turn: turn }
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A path in the folder.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

fn turn_file() -> File {
    let path = std::env::temp_dir().join(TURN_FILE);
    File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .unwrap_or_else(|error| panic!("cannot open {}: {error}", path.display()))
}
