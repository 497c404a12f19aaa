//! Finds what breaks the rules about every file, whatever its language.
//!
//! The words that must not stand in a file are put together from halves here, because this file is
//! checked as well.

use super::source::words;
use super::{Facts, Finding};

/// Bytes that a committed file may have.
const BLOB_BYTES_MAX: usize = 1 << 20;

/// Where the scenarios of the protocol live.
const SCENARIOS: &str = "crates/protocol/tests/scenarios/";

/// Words for work that is left over.
const UNFINISHED: &[&str] = &[concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];

/// Folders and hosts that exist only where the project is written.
const WORKPLACE: &[&str] = &[
    concat!("/wo", "rk/"),
    concat!("/ro", "ot/"),
    concat!("/tmp/", "target-"),
    concat!("/tmp/", "brief"),
    concat!("/opt/", "wheels"),
    concat!("registry.", "npmjs.org"),
    concat!("registry.", "npmjs.com"),
    concat!("registry.", "yarnpkg.com"),
    concat!("pypi", ".org"),
    concat!("files.python", "hosted.org"),
    concat!("static.", "crates.io"),
    concat!("index.", "crates.io"),
    concat!("deb.", "debian.org"),
];

/// Texts that others wrote or tools keep.
fn is_foreign(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    name == "LICENSE" || name == "Cargo.lock" || name == "package-lock.json"
}

pub(super) fn blanks(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in facts.tree.texts().filter(|(path, _)| !is_foreign(path)) {
        for (line, number) in text.split('\n').zip(1..) {
            if line.contains('\t') {
                findings.push(Finding::at(path, number, "holds a tab"));
            }
            if line.ends_with([' ', '\t', '\r']) {
                findings.push(Finding::at(path, number, "ends with a blank"));
            }
        }
        if !text.is_empty() && (!text.ends_with('\n') || text.ends_with("\n\n")) {
            findings.push(Finding::of(path, "does not end with exactly one line end"));
        }
    }
    findings
}

pub(super) fn unfinished(facts: &Facts) -> Vec<Finding> {
    find_words(facts, |line| {
        let word = UNFINISHED.iter().find(|word| words(line, word).next().is_some())?;
        Some(format!("says `{word}`: write it as an issue"))
    })
}

pub(super) fn workplace(facts: &Facts) -> Vec<Finding> {
    find_words(facts, |line| {
        let word = WORKPLACE.iter().find(|word| line.contains(**word))?;
        Some(format!("names `{word}`, which nobody else has"))
    })
}

fn find_words(facts: &Facts, find: impl Fn(&str) -> Option<String>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in facts.tree.texts().filter(|(path, _)| !path.ends_with("LICENSE")) {
        for (line, number) in text.lines().zip(1..) {
            if let Some(message) = find(line) {
                findings.push(Finding::at(path, number, message));
            }
        }
    }
    findings
}

pub(super) fn blob_sizes(facts: &Facts) -> Vec<Finding> {
    let large = facts.tree.blobs().filter(|(_, bytes)| BLOB_BYTES_MAX < bytes.len());
    let message =
        |bytes: &[u8]| format!("has {} bytes, the limit is {BLOB_BYTES_MAX}", bytes.len());
    large.map(|(path, bytes)| Finding::of(path, message(bytes))).collect()
}

pub(super) fn scenario_comments(facts: &Facts) -> Vec<Finding> {
    let scenarios = facts.tree.texts_ending(".txt").filter(|(path, _)| path.starts_with(SCENARIOS));
    let silent = scenarios.filter(|(_, text)| !text.starts_with("# "));
    let message = "begins without a comment (`# What it shows.`)";
    silent.map(|(path, _)| Finding::at(path, 1, message)).collect()
}
