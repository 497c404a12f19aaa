//! A network of its own for the nodes of a test: a network namespace for each, joined by a bridge
//! to which the test itself is connected as well.
//!
//! A way from one node to another is cut where it ends: the namespace of the receiver drops what
//! comes from the sender, by a routing rule. Nobody is told: connections stay open and silent, new
//! ones are tried until their time is over, as on a broken line. Ways are cut one by one, so the
//! other direction may stand. The test reaches every node all the time.
//!
//! Ensures: all of it is removed when this goes out of scope; what a test has left behind that was
//! killed is removed when the next network is made.
//! Limits: needs to be root, and `ip`; who has not is told so, and the test is left out. Ways can
//! be cut, not delayed or made lossy.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use crate::tell;

/// What the names of bridges and namespaces begin with; the number of the process follows.
const PREFIX: &str = "antt";

/// Beyond the places of all nodes: where the test is in the network.
const OWN_PLACE: usize = 254;

/// How many different networks there are.
const NETWORKS: u32 = 250;

/// Where ways are cut, and where addresses of this machine are found after that; lower is earlier.
const CUT_RULE: u32 = 10;
const LOCAL_RULE: u32 = 100;

/// A way from one place to another; what the first sends does not reach the second while it is cut.
pub type OneWay = (usize, usize);

/// Namespaces on a bridge.
#[derive(Debug)]
pub struct Network {
    name: String,
    subnet: u32,
    size: usize,
    cuts: Mutex<BTreeSet<OneWay>>,
}

impl Network {
    /// Makes one for so many nodes; `None`, with the reason printed, where this machine does not let it.
    #[must_use]
    pub fn make(size: usize) -> Option<Self> {
        assert!(size < OWN_PLACE, "{size} nodes have no addresses");
        remove_abandoned();
        let process = std::process::id();
        let name = format!("{PREFIX}{process}");
        let network = Self { name, subnet: process % NETWORKS, size, cuts: Mutex::default() };
        match network.build() {
            Ok(()) => Some(network),
            Err(said) => {
                tell(&format!(
                    "left out: cannot make network namespaces (this needs root): {said}"
                ));
                None
            }
        }
    }

    fn build(&self) -> Result<(), String> {
        let bridge = &self.name;
        let mut lines = vec![
            format!("link add {bridge} type bridge"),
            format!("addr add {}/24 dev {bridge}", self.address(OWN_PLACE)),
            format!("link set {bridge} up"),
        ];
        for place in 0..self.size {
            let (space, end) = (self.space(place), format!("{bridge}n{place}"));
            ip(&["netns", "add", &space], "")?;
            lines.push(format!("link add {end} type veth peer name eth0 netns {space}"));
            lines.push(format!("link set {end} master {bridge}"));
            lines.push(format!("link set {end} up"));
        }
        ip(&["-batch", "-"], &lines.join("\n"))?;
        for place in 0..self.size {
            let lines = [
                format!("addr add {}/24 dev eth0", self.address(place)),
                "link set lo up".to_owned(),
                "link set eth0 up".to_owned(),
                // So that a rule can come before it: what is dropped was on its way to this place.
                format!("rule add pref {LOCAL_RULE} lookup local"),
                "rule del pref 0".to_owned(),
            ];
            ip(&["-n", &self.space(place), "-batch", "-"], &lines.join("\n"))?;
        }
        Ok(())
    }

    /// The namespace at a place.
    #[must_use]
    pub fn space(&self, place: usize) -> String {
        format!("{}s{place}", self.name)
    }

    /// The address of a place, without a port.
    #[must_use]
    pub fn address(&self, place: usize) -> String {
        let number = if place == OWN_PLACE { place } else { place + 1 };
        format!("10.213.{}.{number}", self.subnet)
    }

    /// Cuts ways; those that are cut stay so.
    ///
    /// # Panics
    /// If the system refuses.
    pub fn cut(&self, ways: &[OneWay]) {
        let mut cuts = self.cuts.lock().unwrap_or_else(PoisonError::into_inner);
        let new: Vec<OneWay> = ways.iter().copied().filter(|way| cuts.insert(*way)).collect();
        self.apply("add", &new);
    }

    /// Joins ways again.
    ///
    /// # Panics
    /// If the system refuses.
    pub fn heal(&self, ways: &[OneWay]) {
        let mut cuts = self.cuts.lock().unwrap_or_else(PoisonError::into_inner);
        let old: Vec<OneWay> = ways.iter().copied().filter(|way| cuts.remove(way)).collect();
        self.apply("del", &old);
    }

    /// Joins all ways again.
    ///
    /// # Panics
    /// If the system refuses.
    pub fn heal_all(&self) {
        let cuts = self.cuts.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.heal(&cuts.into_iter().collect::<Vec<_>>());
    }

    fn apply(&self, verb: &str, ways: &[OneWay]) {
        let mut lines: BTreeMap<usize, String> = BTreeMap::new();
        for (from, to) in ways {
            let from = self.address(*from);
            let line = format!("rule {verb} pref {CUT_RULE} from {from} blackhole\n");
            lines.entry(*to).or_default().push_str(&line);
        }
        for (to, lines) in lines {
            let done = ip(&["-n", &self.space(to), "-batch", "-"], &lines);
            done.unwrap_or_else(|said| panic!("cannot {verb} {ways:?}: {said}"));
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        remove(&self.name);
    }
}

/// Both ways between each of these places and each of those.
#[must_use]
pub fn between(these: &[usize], those: &[usize]) -> Vec<OneWay> {
    let pairs = these.iter().flat_map(|one| those.iter().map(|other| (*one, *other)));
    pairs.flat_map(|(one, other)| [(one, other), (other, one)]).collect()
}

/// Removes networks whose test has ended without doing so itself.
fn remove_abandoned() {
    let Ok(listed) = ip(&["-o", "link", "show", "type", "bridge"], "") else { return };
    for line in listed.lines() {
        let name = line.split(": ").nth(1).unwrap_or_default();
        let Some(process) = name.strip_prefix(PREFIX) else { continue };
        let is_number = process.bytes().all(|byte| byte.is_ascii_digit());
        if is_number && !Path::new("/proc").join(process).exists() {
            remove(name);
        }
    }
}

/// Removes the network with this name; what is not there need not be removed.
fn remove(name: &str) {
    let spaces = ip(&["netns", "list"], "").unwrap_or_default();
    let of_this = format!("{name}s");
    for space in spaces.lines().filter_map(|line| line.split(' ').next()) {
        if space.starts_with(&of_this) {
            // With it goes its end of the way to the bridge, and so the other one.
            drop(ip(&["netns", "del", space], ""));
        }
    }
    let links = ip(&["-o", "link", "show"], "").unwrap_or_default();
    let ends = links.lines().filter_map(|line| line.split(": ").nth(1));
    let ends = ends.filter_map(|end| end.split('@').next());
    for end in ends.filter(|end| *end == name || end.starts_with(&format!("{name}n"))) {
        drop(ip(&["link", "del", end], ""));
    }
}

/// Runs `ip` with these words and lines to read; what it printed.
fn ip(words: &[&str], lines: &str) -> Result<String, String> {
    let child = Command::new("ip")
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.map_err(|error| format!("cannot start ip: {error}"))?;
    if let Some(mut input) = child.stdin.take() {
        // It may have ended before it read all: its status tells.
        drop(input.write_all(lines.as_bytes()));
    }
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!("ip {}: {}", words.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_between_two_sides_are_all_that_cross() {
        let ways = between(&[0, 1], &[2]);
        assert_eq!(ways, [(0, 2), (2, 0), (1, 2), (2, 1)]);
    }
}
