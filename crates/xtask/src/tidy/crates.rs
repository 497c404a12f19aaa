//! Finds what breaks the rules about crates: their edges, settings, features and licences.
//!
//! What cargo says about the crates is read once, by `cargo metadata` and `cargo tree`; the checks
//! are functions of that. `Cargo.lock` must be up to date, or cargo itself refuses.

use std::path::Path;
use std::process::Command;

use anyhow::Context;
use serde::Deserialize;

use super::{Facts, Finding};
use crate::{ci, machine};

/// Which crates of the workspace a crate may name. A crate without a row may not exist.
///
/// `client` comes with its part; its row stands here so that the table is whole.
const EDGES: &[(&str, &[&str])] = &[
    ("antecede-model", &[]),
    ("antecede-protocol", &["antecede-model"]),
    ("antecede-storage", &["antecede-model"]),
    ("antecede-control", &["antecede-protocol", "antecede-model"]),
    (
        "antecede-server",
        &["antecede-storage", "antecede-control", "antecede-protocol", "antecede-model"],
    ),
    ("antecede-client", &["antecede-model"]),
    ("antecede-check", &["antecede-model"]),
    ("antecede", &["antecede-server", "antecede-check", "antecede-model"]),
    ("sim", &["antecede-storage", "antecede-check", "antecede-protocol", "antecede-model"]),
    ("xtask", &[]),
    ("tests", &["antecede-client", "antecede-check", "antecede-model"]),
];

/// The packages that are shipped.
const SHIPPED: &[&str] = &["antecede", "antecede-server"];

/// The package that is built with the mutations on request: where they have to be seen, so that
/// this check is known to see them.
const SIMULATOR: &str = "sim";

/// The crate and the feature that hold the deliberate protocol bugs.
const PROTOCOL: &str = "antecede-protocol";
const MUTATIONS: &str = "mutations";

/// The one list of licences.
const LICENCE_LIST: &str = "deny.toml";

/// What `cargo metadata` says.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Metadata {
    packages: Vec<Package>,
}

#[derive(Debug, Deserialize)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
    /// Where it comes from; `None` for a crate of the workspace.
    source: Option<String>,
    dependencies: Vec<Dependency>,
}

#[derive(Debug, Deserialize)]
struct Dependency {
    name: String,
    /// Where it lies, for a crate of the workspace.
    path: Option<String>,
}

impl Metadata {
    pub(super) fn read(root: &Path) -> anyhow::Result<Self> {
        let mut command = Command::new("cargo");
        command.current_dir(root).args(["metadata", "--format-version", "1", "--locked"]);
        let text = machine::output_of(&mut command)?;
        serde_json::from_str(&text).context("cannot read what `cargo metadata` printed")
    }

    #[cfg(test)]
    pub(super) fn of(text: &str) -> Self {
        serde_json::from_str(text).expect("a made-up answer of cargo is JSON")
    }

    fn ours(&self) -> impl Iterator<Item = &Package> {
        self.packages.iter().filter(|package| package.source.is_none())
    }
}

/// The features with which a shipped package is built, as `cargo tree` prints them.
#[derive(Debug)]
pub(super) struct FeatureTree {
    pub(super) package: &'static str,
    pub(super) text: String,
}

impl FeatureTree {
    /// Reads the features of all shipped packages and of the simulator, with every feature of their
    /// own switched on: a feature that merely passes on to the mutations is found as well.
    pub(super) fn read_all(root: &Path) -> anyhow::Result<Vec<Self>> {
        let read = |package: &&'static str| {
            let mut command = Command::new("cargo");
            command.current_dir(root).args(["tree", "--locked", "--all-features"]);
            command.args(["--prefix", "none", "--edges", "normal,build", "--format", "{p} [{f}]"]);
            command.args(["--package", package]);
            Ok(Self { package, text: machine::output_of(&mut command)? })
        };
        SHIPPED.iter().chain(&[SIMULATOR]).map(read).collect()
    }

    /// Whether the protocol is built with the mutations; `None` if it is not built at all.
    fn has_mutations(&self) -> Option<bool> {
        let is_protocol = |line: &&str| line.split(' ').next() == Some(PROTOCOL);
        let line = self.text.lines().find(is_protocol)?;
        let (_, features) = line.rsplit_once('[')?;
        let features = features.split(']').next()?;
        Some(features.split(',').any(|feature| feature == MUTATIONS))
    }
}

/// The manifest of a crate of the workspace.
fn manifest_of(package: &str) -> String {
    match package {
        "tests" => "tests/Cargo.toml".to_owned(),
        "antecede" => "crates/cli/Cargo.toml".to_owned(),
        name => format!("crates/{}/Cargo.toml", name.trim_start_matches("antecede-")),
    }
}

pub(super) fn edges(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for package in facts.metadata.ours() {
        let manifest = manifest_of(&package.name);
        let Some((_, allowed)) = EDGES.iter().find(|(name, _)| *name == package.name) else {
            let message = format!("the crate `{}` has no row in the table of edges", package.name);
            findings.push(Finding::of(&manifest, message));
            continue;
        };
        let named = package.dependencies.iter().filter(|edge| edge.path.is_some());
        for edge in named.filter(|edge| !allowed.contains(&edge.name.as_str())) {
            let message = format!(
                "`{}` names `{}`; it may name {}",
                package.name,
                edge.name,
                if allowed.is_empty() { "no crate of ours".to_owned() } else { allowed.join(", ") }
            );
            findings.push(Finding::of(&manifest, message));
        }
    }
    findings
}

pub(super) fn settings(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in facts.tree.texts_ending("/Cargo.toml") {
        let manifest: toml::Table = match toml::from_str(text) {
            Ok(manifest) => manifest,
            Err(error) => {
                findings.push(Finding::of(path, format!("is no TOML: {}", error.message())));
                continue;
            }
        };
        let is_true = |table: &str, key: &str, wanted: bool| {
            let value = manifest.get(table).and_then(|table| table.get(key));
            value.and_then(toml::Value::as_bool) == Some(wanted)
        };
        if !is_true("lints", "workspace", true) {
            findings.push(Finding::of(path, "does not say `[lints] workspace = true`"));
        }
        let has_library = facts.tree.has(&path.replace("Cargo.toml", "src/lib.rs"));
        if has_library && !is_true("lib", "doctest", false) {
            findings.push(Finding::of(path, "does not say `[lib] doctest = false`"));
        }
    }
    findings
}

pub(super) fn mutations(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for tree in &facts.features {
        let is_wanted = tree.package == SIMULATOR;
        let message = match tree.has_mutations() {
            Some(has) if has == is_wanted => continue,
            Some(true) => format!("`{}` can be built with the mutations", tree.package),
            Some(false) => format!("`{}` cannot be built with the mutations", tree.package),
            None => format!(
                "`{}` is built without {PROTOCOL}, or cargo tells it otherwise",
                tree.package
            ),
        };
        findings.push(Finding::of(&manifest_of(tree.package), message));
    }
    findings
}

pub(super) fn gate(facts: &Facts) -> Vec<Finding> {
    let forgotten = ci::parts_without_step(&facts.gate, |path| facts.tree.has(path));
    forgotten
        .into_iter()
        .map(|message| Finding::of("crates/xtask/src/ci/mod.rs", message))
        .collect()
}

#[derive(Deserialize)]
struct LicenceFile {
    licenses: Licences,
}

#[derive(Deserialize)]
struct Licences {
    allow: Vec<String>,
}

pub(super) fn licences(facts: &Facts) -> Vec<Finding> {
    let Some(text) = facts.tree.text(LICENCE_LIST) else {
        return vec![Finding::of(LICENCE_LIST, "is missing")];
    };
    let allowed = match toml::from_str::<LicenceFile>(text) {
        Ok(file) => file.licenses.allow,
        Err(error) => {
            let message = format!("cannot be read: {}", error.message());
            return vec![Finding::of(LICENCE_LIST, message)];
        }
    };
    let mut findings = Vec::new();
    for package in &facts.metadata.packages {
        let name = format!("{} {}", package.name, package.version);
        match &package.license {
            None => findings.push(Finding::of("Cargo.lock", format!("{name} names no licence"))),
            Some(expression) if !may_use(expression, &allowed) => {
                let message = format!("{name} has the licence `{expression}`, not allowed there");
                findings.push(Finding::of(LICENCE_LIST, message));
            }
            Some(_) => {}
        }
    }
    findings
}

/// Whether a licence expression can be met with the allowed licences: `AND` needs both sides,
/// `OR` (older crates write `/`) one of them.
fn may_use(expression: &str, allowed: &[String]) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = words.as_slice();
    let is_met = either(&mut rest, allowed);
    is_met && rest.is_empty()
}

fn either(rest: &mut &[&str], allowed: &[String]) -> bool {
    let mut is_met = both(rest, allowed);
    while let ["OR", after @ ..] = *rest {
        *rest = after;
        is_met |= both(rest, allowed);
    }
    is_met
}

fn both(rest: &mut &[&str], allowed: &[String]) -> bool {
    let mut is_met = one(rest, allowed);
    while let ["AND", after @ ..] = *rest {
        *rest = after;
        is_met &= one(rest, allowed);
    }
    is_met
}

fn one(rest: &mut &[&str], allowed: &[String]) -> bool {
    match *rest {
        ["(", after @ ..] => {
            *rest = after;
            let is_met = either(rest, allowed);
            match *rest {
                [")", after @ ..] => *rest = after,
                _ => return false,
            }
            is_met
        }
        [name, "WITH", exception, after @ ..] => {
            *rest = after;
            let whole = format!("{name} WITH {exception}");
            allowed.iter().any(|licence| *licence == whole || licence == name)
        }
        [name, after @ ..] => {
            *rest = after;
            allowed.iter().any(|licence| licence == name)
        }
        [] => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn licence_expression_is_met_as_its_words_say() {
        let allowed = ["MIT".to_owned(), "Apache-2.0".to_owned()];
        for met in ["MIT", "GPL-3.0 OR MIT", "MIT/GPL-3.0", "(MIT OR GPL-3.0) AND Apache-2.0"] {
            assert!(may_use(met, &allowed), "{met}");
        }
        for unmet in ["GPL-3.0", "MIT AND GPL-3.0", "", "(MIT", "MIT MIT", "GPL-3.0 WITH x"] {
            assert!(!may_use(unmet, &allowed), "{unmet}");
        }
    }
}
