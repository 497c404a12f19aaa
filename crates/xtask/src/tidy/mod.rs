//! Checks the rules that no compiler knows and lists everything that breaks one.
//!
//! `CHECKS` is the table: a name, the rule as a sentence, the function that finds what breaks it.
//! All checks are pure functions of `Facts`: the files of the checkout and what cargo says about
//! its crates. They all run, and all findings are printed, so that one run shows all the work.
//!
//! Ensures: each check has a made-up checkout in `tests` that it rejects, and `tests` holds that
//! against the table; a check that cannot fail does not get in.

/// Rules about crates, their edges, features and licences.
mod crates;
/// Rules about documents, and about tables that name files.
mod documents;
/// Rules about Rust sources.
mod rust;
/// Rust sources with comments and texts blanked, so that braces and words can be trusted.
mod source;
#[cfg(test)]
mod tests;
/// Rules about every file.
mod text;
/// The files of a checkout.
mod tree;

use std::fmt;

use anyhow::bail;

use self::crates::{FeatureTree, Metadata};
use self::tree::Tree;
use crate::{ci, machine, say};

/// Everything that the checks look at.
#[derive(Debug)]
struct Facts {
    tree: Tree,
    metadata: Metadata,
    /// The features with which the shipped packages and the simulator are built.
    features: Vec<FeatureTree>,
    /// The commands of the gate.
    gate: Vec<&'static [&'static str]>,
}

/// One place that breaks a rule.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    file: String,
    /// Counted from one; `None` where the whole file is meant.
    line: Option<usize>,
    message: String,
}

impl Finding {
    fn at(file: &str, line: usize, message: impl Into<String>) -> Self {
        Self { file: file.to_owned(), line: Some(line), message: message.into() }
    }

    fn of(file: &str, message: impl Into<String>) -> Self {
        Self { file: file.to_owned(), line: None, message: message.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.file, self.message),
            None => write!(f, "{}: {}", self.file, self.message),
        }
    }
}

/// A rule and the function that finds what breaks it.
struct Check {
    name: &'static str,
    rule: &'static str,
    find: fn(&Facts) -> Vec<Finding>,
}

/// All checks. A new one is one row here and one made-up checkout in `tests`.
const CHECKS: &[Check] = &[
    Check {
        name: "crate-edges",
        rule: "a crate depends only on the crates that the table of edges gives it",
        find: crates::edges,
    },
    Check {
        name: "crate-settings",
        rule: "each crate takes the lints of the workspace and runs no doc tests",
        find: crates::settings,
    },
    Check {
        name: "licences",
        rule: "each dependency has a licence that deny.toml allows",
        find: crates::licences,
    },
    Check {
        name: "mutations-stay-out",
        rule: "the deliberate protocol bugs are never built into what is shipped",
        find: crates::mutations,
    },
    Check {
        name: "gate-is-whole",
        rule: "each part of the project that checks something has a step in the gate",
        find: crates::gate,
    },
    Check {
        name: "head-comment",
        rule: "each Rust source begins with a sentence on what it does",
        find: rust::heads,
    },
    Check {
        name: "file-length",
        rule: "a Rust source has at most 800 lines without its tests",
        find: rust::file_lengths,
    },
    Check {
        name: "function-length",
        rule: "a function has at most 70 lines, or an expectation with a reason",
        find: rust::function_lengths,
    },
    Check {
        name: "import-blocks",
        rule: "imports stand in three blocks: the standard library, other crates, this crate",
        find: rust::import_blocks,
    },
    Check {
        name: "outside-world",
        rule: "model and protocol know no clock, file, socket, thread, chance, lock or async",
        find: rust::outside_world,
    },
    Check {
        name: "source-names",
        rule: "a source is named by the noun that it defines",
        find: rust::source_names,
    },
    Check { name: "ascii", rule: "Rust sources are ASCII", find: rust::ascii },
    Check {
        name: "blanks",
        rule: "no tabs, no trailing blanks, one line end at the end of a file",
        find: text::blanks,
    },
    Check {
        name: "unfinished",
        rule: "work to do is an issue, not a word in a file",
        find: text::unfinished,
    },
    Check {
        name: "workplace",
        rule: "no file speaks of the machine on which it was written",
        find: text::workplace,
    },
    Check { name: "blob-size", rule: "no file is larger than 1 MiB", find: text::blob_sizes },
    Check {
        name: "scenario-comment",
        rule: "each scenario begins with a comment that says what it shows",
        find: text::scenario_comments,
    },
    Check {
        name: "links",
        rule: "links in Markdown lead to a file and a heading that exist",
        find: documents::links,
    },
    Check {
        name: "document-length",
        rule: "the documents that everybody reads stay short",
        find: documents::lengths,
    },
    Check {
        name: "sentence-lines",
        rule: "one sentence a line in Markdown, so that changes show sentences",
        find: documents::sentence_lines,
    },
    Check {
        name: "architecture-rows",
        rule: "each row of the ways in ARCHITECTURE.md names a file that exists, or says later",
        find: documents::architecture_rows,
    },
    Check {
        name: "property-table",
        rule: "each property of the simulator stands in the table of check/mod.rs",
        find: documents::property_table,
    },
    Check {
        name: "refusal-reference",
        rule: "each refusal has its line in docs/reference/refusals.md",
        find: documents::refusal_reference,
    },
];

/// Runs all checks over the checkout and prints all findings.
pub(crate) fn run() -> anyhow::Result<()> {
    let root = machine::workspace()?;
    let facts = Facts {
        tree: Tree::read(&root)?,
        metadata: Metadata::read(&root)?,
        features: FeatureTree::read_all(&root)?,
        gate: ci::commands(),
    };
    let mut broken = 0;
    let mut total = 0;
    for check in CHECKS {
        let mut findings = (check.find)(&facts);
        findings.sort();
        if findings.is_empty() {
            continue;
        }
        broken += 1;
        total += findings.len();
        say::line(&format!("{}: {}", check.name, check.rule));
        for finding in findings {
            say::line(&format!("  {finding}"));
        }
    }
    if 0 < total {
        bail!("{total} places break {broken} of {} rules", CHECKS.len());
    }
    say::line(&format!("tidy: {} rules hold in {} files", CHECKS.len(), facts.tree.len()));
    Ok(())
}
