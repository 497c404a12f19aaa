//! Reads what the environment says about tests: the one place that does.
//!
//! | variable | what it says |
//! |---|---|
//! | `ANTECEDE_BINARY` | the binary that is tested |
//! | `CARGO_TARGET_DIR` | where cargo builds, if not in `target` |
//! | `ANTECEDE_TEST_SECONDS` | how long loads with faults last; the gate's is short |
//! | `ANTECEDE_TEST_KEYS` | how many keys are loaded before all nodes are killed at once |
//! | `ANTECEDE_TEST_KILLS` | how many nodes are killed at least, in as many loads as that takes |
//! | `ANTECEDE_TEST_NODES` | how many nodes each datacenter has that is cut off from others |
//! | `ANTECEDE_TEST_DATACENTERS` | how many datacenters are cut off from each other: 2 or 3 |

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long loads with faults last in the gate.
const LOAD_SECONDS: u64 = 15;

/// What the names of settings begin with, the binary's too.
const PREFIX: &str = "ANTECEDE_";

fn variable(name: &str) -> Option<String> {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
    let value = std::env::var(name);
    value.ok().filter(|value| !value.is_empty())
}

/// Variables that the binary would take for its own settings, those of tests among them.
#[must_use]
pub fn inherited() -> Vec<OsString> {
    let names = std::env::vars_os().map(|(name, _)| name);
    names.filter(|name| name.to_string_lossy().starts_with(PREFIX)).collect()
}

/// The binary that is tested; it need not exist.
#[must_use]
pub fn binary() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    if let Some(binary) = variable("ANTECEDE_BINARY") {
        return root.join(binary);
    }
    let target = variable("CARGO_TARGET_DIR").unwrap_or_else(|| "target".to_owned());
    root.join(target).join("release").join("antecede")
}

/// How long loads with faults last.
///
/// # Panics
/// If the environment says something that is no number.
#[must_use]
pub fn load_duration() -> Duration {
    let seconds = variable("ANTECEDE_TEST_SECONDS").map_or(LOAD_SECONDS, |text| {
        text.parse().unwrap_or_else(|_| panic!("ANTECEDE_TEST_SECONDS={text} is no number"))
    });
    Duration::from_secs(seconds)
}

/// How many keys are loaded in the gate before all nodes are killed at once.
const LOADED_KEYS: usize = 9_000;

/// How many keys are loaded before all nodes are killed at once.
///
/// # Panics
/// If the environment says something that is no number.
#[must_use]
pub fn loaded_keys() -> usize {
    variable("ANTECEDE_TEST_KEYS").map_or(LOADED_KEYS, |text| {
        text.parse().unwrap_or_else(|_| panic!("ANTECEDE_TEST_KEYS={text} is no number"))
    })
}

/// How many nodes a test that measures pauses kills at least.
///
/// # Panics
/// If the environment says something that is no number.
#[must_use]
pub fn kills() -> usize {
    variable("ANTECEDE_TEST_KILLS").map_or(1, |text| {
        text.parse().unwrap_or_else(|_| panic!("ANTECEDE_TEST_KILLS={text} is no number"))
    })
}

/// How many nodes each datacenter has in the gate that is cut off from others.
const NODES: u16 = 3;

/// How many nodes each datacenter has that is cut off from others.
///
/// # Panics
/// If the environment says something that is no number.
#[must_use]
pub fn nodes_of_each() -> u16 {
    variable("ANTECEDE_TEST_NODES").map_or(NODES, |text| {
        text.parse().unwrap_or_else(|_| panic!("ANTECEDE_TEST_NODES={text} is no number"))
    })
}

/// How many datacenters the gate cuts off from each other.
const DATACENTERS: usize = 3;

/// How many datacenters are cut off from each other.
///
/// # Panics
/// If the environment says something other than 2 or 3.
#[must_use]
pub fn datacenters() -> usize {
    variable("ANTECEDE_TEST_DATACENTERS").map_or(DATACENTERS, |text| {
        let count = text.parse().ok().filter(|count| (2..=DATACENTERS).contains(count));
        count.unwrap_or_else(|| panic!("ANTECEDE_TEST_DATACENTERS={text} is neither 2 nor 3"))
    })
}
