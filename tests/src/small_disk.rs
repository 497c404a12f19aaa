//! A small file system in memory, which can be filled.
//!
//! Ensures: it is unmounted when this goes out of scope, however the test ends.
//! Limits: mounting needs to be root; who may not is told so, and the test is left out.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::demo::path_text;
use crate::tell;

/// A small disk.
#[derive(Debug)]
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts one of so many MiB at a folder, which is made if it is missing; `None`, with the
    /// reason printed, where this machine does not let it.
    ///
    /// # Panics
    /// If the folder cannot be made.
    #[must_use]
    pub fn mount(folder: PathBuf, size_mib: u32) -> Option<Self> {
        std::fs::create_dir_all(&folder).expect("a folder can be made");
        let size = format!("size={size_mib}m");
        let words = ["-t", "tmpfs", "-o", &size, "antecede-test", path_text(&folder)];
        let said = match Command::new("mount").args(words).output() {
            Ok(output) if output.status.success() => return Some(Self(folder)),
            Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
            Err(error) => error.to_string(),
        };
        tell(&format!("left out: cannot mount a small disk (this needs root): {said}"));
        None
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Takes all the room that is left but so many bytes; remove the file to give it back.
    ///
    /// # Panics
    /// If there is no room for a name.
    #[must_use]
    pub fn fill_but(&self, left_bytes: u64) -> PathBuf {
        let path = self.0.join("ballast");
        let mut file = File::create(&path).expect("there is room for a name");
        for size in [64 * 1024, 4096] {
            let piece = vec![1; size];
            while left_bytes + size as u64 <= self.free_bytes() && file.write_all(&piece).is_ok() {}
        }
        path
    }

    /// Bytes that are free.
    ///
    /// # Panics
    /// If the system does not tell.
    #[must_use]
    pub fn free_bytes(&self) -> u64 {
        let found = rustix::fs::statvfs(&self.0).expect("a mounted disk tells");
        found.f_bavail * found.f_frsize
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Nobody else can have anything open in it; what is left goes with the machine.
        drop(Command::new("umount").arg("--lazy").arg(&self.0).status());
    }
}
