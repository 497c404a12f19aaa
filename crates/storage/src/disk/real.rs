//! Reads and writes files of the operating system, in one folder.
//!
//! Files can be read and written by their owner only. Space is reserved with `fallocate`; where a
//! file system cannot, the file only gets its size, and a full disk is seen when writing.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, FlockOperation};
use rustix::io::{Errno, retry_on_intr};

use super::Disk;

const LOCK_NAME: &str = "lock";

/// A folder of the operating system.
#[derive(Debug)]
pub struct RealDisk {
    folder: PathBuf,
    directory: File,
    is_written: bool,
}

impl RealDisk {
    /// Opens a folder, which is made if it is missing.
    pub fn open(folder: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        Ok(Self { folder: folder.to_path_buf(), directory: File::open(folder)?, is_written: true })
    }

    /// Opens a folder that is there, so that nothing in it can be changed.
    pub fn open_to_read(folder: &Path) -> io::Result<Self> {
        let directory = File::open(folder)?;
        Ok(Self { folder: folder.to_path_buf(), directory, is_written: false })
    }
}

impl Disk for RealDisk {
    type File = File;
    type Lock = File;

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn lock(&self) -> io::Result<File> {
        if !self.is_written {
            let found = File::open(self.path(LOCK_NAME));
            let is_missing = found.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::NotFound);
            let file = if is_missing { self.directory.try_clone()? } else { found? };
            rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
            return Ok(file);
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(self.path(LOCK_NAME))?;
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(file)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.folder)? {
            // A name that is not UTF-8 is none of ours.
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn create(&self, name: &str) -> io::Result<File> {
        OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(self.path(name))
    }

    fn open(&self, name: &str) -> io::Result<File> {
        OpenOptions::new().read(true).write(self.is_written).open(self.path(name))
    }

    fn size(&self, file: &File) -> io::Result<u64> {
        Ok(file.metadata()?.len())
    }

    fn preallocate(&self, file: &File, size: u64) -> io::Result<()> {
        match retry_on_intr(|| rustix::fs::fallocate(file, FallocateFlags::empty(), 0, size)) {
            Ok(()) => Ok(()),
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => file.set_len(size),
            Err(error) => Err(error.into()),
        }
    }

    fn truncate(&self, file: &File, size: u64) -> io::Result<()> {
        file.set_len(size)
    }

    fn read_at(&self, file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            let place = buffer.get_mut(done..).unwrap_or_default();
            match file.read_at(place, offset + u64::try_from(done).expect("a size fits u64")) {
                Ok(0) => break,
                Ok(bytes) => done += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn write_at(&self, file: &File, offset: u64, bytes: &[u8]) -> io::Result<()> {
        file.write_all_at(bytes, offset)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    fn rename(&self, source: &str, target: &str) -> io::Result<()> {
        std::fs::rename(self.path(source), self.path(target))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.path(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.directory.sync_all()
    }
}
