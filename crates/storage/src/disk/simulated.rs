//! Keeps files in memory and loses, tears and damages them as a seed says.
//!
//! Each file has what a reader sees now, what is durable, and for each sector written since the
//! last sync every version of it. A crash keeps, for each such sector by itself, the durable
//! version or any later one; for each change of the folder since its last sync, whether it
//! happened; for a size that was not synced, the old or the new one. That covers torn writes, lost
//! sectors and any reordering.
//!
//! Nothing here depends on time or on the machine: the same calls and seeds give the same disk.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::Disk;

/// What is written whole or not at all.
pub const SECTOR_BYTES: u64 = 512;

const SECTOR: usize = 512;

/// Unsynced versions of one sector that are remembered; past it the oldest are forgotten.
const VERSIONS_MAX: usize = 8;

type Sector = [u8; SECTOR];
type FileNumber = u64;

/// A folder in memory. Clones are the same folder.
#[derive(Clone, Debug, Default)]
pub struct SimulatedDisk {
    state: Arc<Mutex<State>>,
}

/// An open file of a [`SimulatedDisk`].
#[derive(Debug)]
pub struct SimulatedFile {
    number: FileNumber,
}

/// Keeps others out of a [`SimulatedDisk`].
#[derive(Debug)]
pub struct SimulatedLock {
    state: Arc<Mutex<State>>,
}

impl Drop for SimulatedLock {
    fn drop(&mut self) {
        self.state.lock().locked = false;
    }
}

#[derive(Clone, Debug, Default)]
struct State {
    files: BTreeMap<FileNumber, Content>,
    next_file: FileNumber,
    names: BTreeMap<String, FileNumber>,
    names_durable: BTreeMap<String, FileNumber>,
    /// Changes of the folder since it was last synced.
    changes: Vec<Change>,
    locked: bool,
    /// Bytes that all files together may have; `None`: no limit.
    capacity: Option<u64>,
    /// Changing operations until the power goes; `None`: it stays.
    power_for: Option<u64>,
    /// Syncs that still work until they fail; `None`: they always work.
    syncs_until_failure: Option<u64>,
    write_delay: Duration,
    sync_delay: Duration,
    delay: Duration,
    operations: u64,
    syncs: u64,
}

/// One file; sectors that are missing read as zeros.
#[derive(Clone, Debug, Default)]
struct Content {
    size: u64,
    size_durable: u64,
    sectors: BTreeMap<u64, Sector>,
    sectors_durable: BTreeMap<u64, Sector>,
    /// Versions since the last sync, the newest last.
    unsynced: BTreeMap<u64, Vec<Sector>>,
}

#[derive(Clone, Debug)]
enum Change {
    /// A name was given to a new file.
    Created(String, FileNumber),
    /// A file lost its first name and got the second.
    Renamed(String, String, FileNumber),
    /// A name was removed.
    Removed(String),
}

impl Change {
    fn apply(&self, names: &mut BTreeMap<String, FileNumber>) {
        match self {
            Self::Created(name, number) => {
                names.insert(name.clone(), *number);
            }
            Self::Renamed(source, target, number) => {
                names.remove(source);
                names.insert(target.clone(), *number);
            }
            Self::Removed(name) => {
                names.remove(name);
            }
        }
    }
}

/// Draws numbers from a seed (the splitmix64 generator).
#[derive(Debug)]
struct Draw(u64);

impl Draw {
    const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    const fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// True in `quarters` of four cases.
    const fn chance(&mut self, quarters: u64) -> bool {
        self.below(4) < quarters
    }
}

impl Content {
    fn sector(&self, number: u64) -> Sector {
        self.sectors.get(&number).copied().unwrap_or([0; SECTOR])
    }

    fn put(&mut self, number: u64, sector: Sector) {
        self.sectors.insert(number, sector);
        let versions = self.unsynced.entry(number).or_default();
        if versions.len() == VERSIONS_MAX {
            versions.remove(0);
        }
        versions.push(sector);
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) {
        let mut at = offset;
        let mut rest = bytes;
        while !rest.is_empty() {
            let number = at / SECTOR_BYTES;
            let begin = index(at % SECTOR_BYTES);
            let (now, later) = rest.split_at(rest.len().min(SECTOR - begin));
            let mut sector = self.sector(number);
            sector[begin..begin + now.len()].copy_from_slice(now);
            self.put(number, sector);
            at += length(now);
            rest = later;
        }
        self.size = self.size.max(at);
    }

    fn truncate(&mut self, size: u64) {
        let last = size / SECTOR_BYTES;
        let begin = index(size % SECTOR_BYTES);
        let beyond: Vec<u64> = self.sectors.range(last..).map(|(number, _)| *number).collect();
        for number in beyond {
            let mut sector = self.sector(number);
            let kept = if number == last { begin } else { 0 };
            sector[kept..].fill(0);
            self.put(number, sector);
        }
        self.size = size;
    }

    fn sync(&mut self) {
        for (number, versions) in std::mem::take(&mut self.unsynced) {
            if let Some(sector) = versions.last() {
                self.sectors_durable.insert(number, *sector);
            }
        }
        self.size_durable = self.size;
    }

    /// What is left of the file after a power loss.
    fn after_crash(&self, draw: &mut Draw) -> Self {
        let kept_quarters = draw.below(5);
        let mut sectors = self.sectors_durable.clone();
        for (number, versions) in &self.unsynced {
            if draw.chance(kept_quarters) {
                // Mostly the newest version, at times an older one.
                let older = if draw.chance(1) { draw.below(length(versions)) } else { 0 };
                let version = versions.len() - 1 - index(older);
                sectors.insert(*number, versions[version]);
            }
        }
        let size = if draw.chance(2) { self.size } else { self.size_durable };
        let end = size.div_ceil(SECTOR_BYTES);
        sectors.retain(|number, _| *number < end);
        if let Some(sector) = sectors.get_mut(&(size / SECTOR_BYTES)) {
            sector[index(size % SECTOR_BYTES)..].fill(0);
        }
        Self {
            size,
            size_durable: size,
            sectors: sectors.clone(),
            sectors_durable: sectors,
            unsynced: BTreeMap::new(),
        }
    }
}

fn index(number: u64) -> usize {
    usize::try_from(number).expect("a simulated file is in memory")
}

fn length<T>(items: &[T]) -> u64 {
    u64::try_from(items.len()).expect("a length fits u64")
}

impl State {
    /// Counts an operation that changes something; fails once the power is gone.
    fn change(&mut self) -> io::Result<()> {
        self.operations += 1;
        match &mut self.power_for {
            None => Ok(()),
            Some(0) => Err(io::Error::other("the power is gone")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
        }
    }

    fn content(&mut self, file: &SimulatedFile) -> io::Result<&mut Content> {
        self.files.get_mut(&file.number).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn number(&self, name: &str) -> io::Result<FileNumber> {
        self.names.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn change_names(&mut self, change: Change) {
        change.apply(&mut self.names);
        self.changes.push(change);
        self.forget_unreachable();
    }

    fn forget_unreachable(&mut self) {
        let Self { files, names, names_durable, changes, .. } = self;
        let reachable = |number: &FileNumber| {
            names.values().any(|n| n == number)
                || names_durable.values().any(|n| n == number)
                || changes.iter().any(|change| match change {
                    Change::Created(_, n) | Change::Renamed(_, _, n) => n == number,
                    Change::Removed(_) => false,
                })
        };
        files.retain(|number, _| reachable(number));
    }

    /// Fails if the visible files would have more than `capacity` once `file` has `size`.
    fn check_room(&mut self, file: &SimulatedFile, size: u64) -> io::Result<()> {
        let old = self.content(file)?.size;
        let Some(capacity) = self.capacity else {
            return Ok(());
        };
        let used: u64 = self.names.values().filter_map(|n| self.files.get(n)).map(|f| f.size).sum();
        if size <= old || used - old + size <= capacity {
            return Ok(());
        }
        Err(io::ErrorKind::StorageFull.into())
    }

    fn sync_fault(&mut self) -> bool {
        match &mut self.syncs_until_failure {
            None => false,
            Some(0) => true,
            Some(left) => {
                *left -= 1;
                false
            }
        }
    }
}

/// What the simulator does to the disk, and asks of it.
impl SimulatedDisk {
    /// An empty folder.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn from_state(state: State) -> Self {
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// The disk as it is found after a power loss at this moment; this one is left as it is.
    #[must_use]
    pub fn crash(&self, seed: u64) -> Self {
        let state = self.state.lock();
        let mut draw = Draw(seed);
        let kept_quarters = draw.below(5);
        let mut names = state.names_durable.clone();
        for change in &state.changes {
            if draw.chance(kept_quarters) {
                change.apply(&mut names);
            }
        }
        let files: BTreeMap<_, _> =
            state.files.iter().map(|(n, content)| (*n, content.after_crash(&mut draw))).collect();
        let mut after = State {
            files,
            next_file: state.next_file,
            names_durable: names.clone(),
            names,
            capacity: state.capacity,
            write_delay: state.write_delay,
            sync_delay: state.sync_delay,
            ..State::default()
        };
        after.forget_unreachable();
        Self::from_state(after)
    }

    /// The disk as it is found after only the process has ended: everything written is there, but
    /// what was not synced still is not.
    #[must_use]
    pub fn reopen(&self) -> Self {
        let mut state = self.state.lock().clone();
        state.locked = false;
        state.power_for = None;
        state.syncs_until_failure = None;
        Self::from_state(state)
    }

    /// Lets the power go after so many more changing operations: all later ones fail. The last
    /// one that works, if it is a write, is torn as any other that is not synced.
    pub fn cut_power_after(&self, operations: u64) {
        self.state.lock().power_for = Some(operations);
    }

    /// Lets syncs fail after so many more that work. A failed sync drops what it should have made
    /// durable from the cache, as kernels do: it is still read, and a later sync does not help.
    pub fn fail_syncs_after(&self, syncs: u64) {
        self.state.lock().syncs_until_failure = Some(syncs);
    }

    /// Limits the bytes that all files together may have.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state.lock().capacity = bytes;
    }

    /// Says how long a write and a sync take; only added up, see [`SimulatedDisk::take_delay`].
    pub fn set_delays(&self, write: Duration, sync: Duration) {
        let mut state = self.state.lock();
        state.write_delay = write;
        state.sync_delay = sync;
    }

    /// How long the operations since the last call have taken.
    #[must_use]
    pub fn take_delay(&self) -> Duration {
        std::mem::take(&mut self.state.lock().delay)
    }

    /// Changes one bit of a file, durably.
    pub fn flip_bit(&self, name: &str, offset: u64, bit: u8) -> io::Result<()> {
        let mut state = self.state.lock();
        let number = state.number(name)?;
        let content = state.content(&SimulatedFile { number })?;
        let (sector, at) = (offset / SECTOR_BYTES, index(offset % SECTOR_BYTES));
        for sectors in [&mut content.sectors, &mut content.sectors_durable] {
            sectors.entry(sector).or_insert([0; SECTOR])[at] ^= 1 << (bit % 8);
        }
        for version in content.unsynced.get_mut(&sector).into_iter().flatten() {
            version[at] ^= 1 << (bit % 8); // Else the next sync would change it back.
        }
        Ok(())
    }

    /// Changing operations so far.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.state.lock().operations
    }

    /// Syncs of files and of the folder so far.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.state.lock().syncs
    }
}

impl Disk for SimulatedDisk {
    type File = SimulatedFile;
    type Lock = SimulatedLock;

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from("/simulated").join(name)
    }

    fn lock(&self) -> io::Result<SimulatedLock> {
        let mut state = self.state.lock();
        if state.locked {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        state.locked = true;
        Ok(SimulatedLock { state: Arc::clone(&self.state) })
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.state.lock().names.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<SimulatedFile> {
        let mut state = self.state.lock();
        state.change()?;
        if let Ok(number) = state.number(name) {
            let file = SimulatedFile { number };
            state.content(&file)?.truncate(0);
            return Ok(file);
        }
        let number = state.next_file;
        state.next_file += 1;
        state.files.insert(number, Content::default());
        state.change_names(Change::Created(name.to_owned(), number));
        Ok(SimulatedFile { number })
    }

    fn open(&self, name: &str) -> io::Result<SimulatedFile> {
        Ok(SimulatedFile { number: self.state.lock().number(name)? })
    }

    fn size(&self, file: &SimulatedFile) -> io::Result<u64> {
        Ok(self.state.lock().content(file)?.size)
    }

    fn preallocate(&self, file: &SimulatedFile, size: u64) -> io::Result<()> {
        let mut state = self.state.lock();
        state.change()?;
        state.check_room(file, size)?;
        let content = state.content(file)?;
        content.size = content.size.max(size);
        Ok(())
    }

    fn truncate(&self, file: &SimulatedFile, size: u64) -> io::Result<()> {
        let mut state = self.state.lock();
        state.change()?;
        state.check_room(file, size)?;
        state.content(file)?.truncate(size);
        Ok(())
    }

    fn read_at(&self, file: &SimulatedFile, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut state = self.state.lock();
        let content = state.content(file)?;
        let bytes = content.size.saturating_sub(offset).min(length(buffer));
        let (mut at, mut rest) = (offset, &mut buffer[..index(bytes)]);
        while !rest.is_empty() {
            let begin = index(at % SECTOR_BYTES);
            let (now, later) = rest.split_at_mut(rest.len().min(SECTOR - begin));
            now.copy_from_slice(&content.sector(at / SECTOR_BYTES)[begin..begin + now.len()]);
            at += length(now);
            rest = later;
        }
        Ok(index(bytes))
    }

    fn write_at(&self, file: &SimulatedFile, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state.lock();
        state.change()?;
        let delay = state.write_delay;
        state.delay += delay;
        state.check_room(file, offset + length(bytes))?;
        state.content(file)?.write(offset, bytes);
        Ok(())
    }

    fn sync(&self, file: &SimulatedFile) -> io::Result<()> {
        let mut state = self.state.lock();
        state.change()?;
        let delay = state.sync_delay;
        state.delay += delay;
        if state.sync_fault() {
            state.content(file)?.unsynced.clear();
            return Err(io::Error::other("the device failed"));
        }
        state.syncs += 1;
        state.content(file)?.sync();
        Ok(())
    }

    fn rename(&self, source: &str, target: &str) -> io::Result<()> {
        let mut state = self.state.lock();
        state.change()?;
        let number = state.number(source)?;
        state.change_names(Change::Renamed(source.to_owned(), target.to_owned(), number));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state.lock();
        state.change()?;
        state.number(name)?;
        state.change_names(Change::Removed(name.to_owned()));
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut state = self.state.lock();
        state.change()?;
        let delay = state.sync_delay;
        state.delay += delay;
        if state.sync_fault() {
            state.changes.clear();
            return Err(io::Error::other("the device failed"));
        }
        state.syncs += 1;
        state.names_durable = state.names.clone();
        state.changes.clear();
        state.forget_unreachable();
        Ok(())
    }
}
