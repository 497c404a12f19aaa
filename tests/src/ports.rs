//! Finds free ports.
//!
//! Ports are tried by binding them and given back at once, so that processes of the test can take
//! them. Until the test ends no other test is given them: a range is a lock on a file for each of its
//! blocks, which ends with its process. Ranges lie below those from which the system gives ports to
//! clients, so hardly anybody else takes one in between; where the binary can take a port by itself
//! (`--port 0`), tests let it.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Mutex, PoisonError};

/// The folder of the files whose locks are blocks of ports.
const FOLDER: &str = "antecede-tests-ports";
/// Where ranges begin.
const FIRST: u16 = 10_000;
/// From one range to the next, and how many ports a block has.
const STEP: u16 = 20;
/// How many ranges are tried.
const TRIES: u16 = 900;

/// The locks of what this process was given.
static GIVEN: Mutex<Vec<File>> = Mutex::new(Vec::new());

/// A port from which on all of `offsets` are free, and stay so but for what this test does.
///
/// # Panics
/// If there is none.
#[must_use]
pub fn base_with_free(offsets: &[u16]) -> u16 {
    let found = bases().find_map(|base| Some((base, claim(base, offsets)?)));
    let (base, locks) = found.unwrap_or_else(|| panic!("no {} ports are free", offsets.len()));
    GIVEN.lock().unwrap_or_else(PoisonError::into_inner).extend(locks);
    base
}

/// Where ranges may begin, in an order that other processes hardly share.
fn bases() -> impl Iterator<Item = u16> {
    let start = u16::try_from(std::process::id() % u32::from(TRIES)).unwrap_or(0);
    (0..TRIES).map(move |step| FIRST + (start + step) % TRIES * STEP)
}

/// The locks of all blocks of a range; `None` if another test has one, or a port is taken.
fn claim(base: u16, offsets: &[u16]) -> Option<Vec<File>> {
    let blocks: BTreeSet<u16> = offsets.iter().map(|offset| (base + offset) / STEP).collect();
    let locks: Option<Vec<File>> = blocks.into_iter().map(lock).collect();
    locks.filter(|_| offsets.iter().all(|offset| is_free(base + offset)))
}

fn lock(block: u16) -> Option<File> {
    let folder = std::env::temp_dir().join(FOLDER);
    let path = folder.join(block.to_string());
    let opened = fs::create_dir_all(&folder)
        .and_then(|()| File::options().create(true).truncate(false).write(true).open(&path));
    let file = opened.unwrap_or_else(|error| panic!("cannot open {}: {error}", path.display()));
    file.try_lock().is_ok().then_some(file)
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_port_is_given_twice() {
        let offsets = [0, STEP, 5 * STEP];
        let ports = |base: u16| offsets.map(|offset| base + offset);
        let mut given = BTreeSet::new();
        for _ in 0..6 {
            let new = ports(base_with_free(&offsets));
            assert!(new.into_iter().all(|port| given.insert(port)), "{new:?} {given:?}");
        }
    }

    #[test]
    fn a_range_with_a_taken_port_is_not_given() {
        let base = bases().find(|base| claim(*base, &[0, 1]).is_some()).unwrap();
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, base + 1)).unwrap();
        assert!(claim(base, &[0, 1]).is_none());
        assert!(claim(base, &[0]).is_some());
        drop(taken);
        assert!(claim(base, &[0, 1]).is_some());
    }
}
