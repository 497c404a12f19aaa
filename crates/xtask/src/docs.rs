//! Writes the reference from the code: commands, metrics, settings, and an example of a
//! configuration; with `--check` it only tells which file is stale.
//!
//! The pages are made by an example program beside the command, which is started and whose output
//! is taken: so this crate need not link the server, which would make every chore wait for its
//! build, and the command that users get needs no subcommand that they never use. It is built as
//! the command is, so the gate, which has built that before, waits for this program alone.
//!
//! Ensures: a file is written only when it differs.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};
use clap::Args;

use crate::{machine, say};

/// Names of pages, and the files that hold them.
const PAGES: &[(&str, &str)] = &[
    ("commands", "docs/reference/commands.md"),
    ("metrics", "docs/reference/metrics.md"),
    ("config", "docs/reference/config.md"),
    ("example", "antecede.example.toml"),
];

#[derive(Args, Debug)]
pub(crate) struct DocsOptions {
    /// Write nothing; fail if a file is not as it would be written.
    #[arg(long)]
    check: bool,
}

/// Writes or checks all pages.
pub(crate) fn run(options: &DocsOptions) -> anyhow::Result<()> {
    let root = machine::workspace()?;
    let mut pages = Vec::new();
    for (name, path) in PAGES {
        pages.push((*path, page(name, &root)?));
    }
    if options.check {
        return check(&root, &pages);
    }
    for path in stale(&root, &pages) {
        let text = pages.iter().find(|(at, _)| *at == path).map(|(_, text)| text);
        fs::write(root.join(path), text.map_or("", String::as_str))
            .with_context(|| format!("cannot write {path}"))?;
        say::line(&format!("docs: wrote {path}"));
    }
    Ok(())
}

fn page(name: &str, root: &Path) -> anyhow::Result<String> {
    let words = [
        "run",
        "--locked",
        "--release",
        "--quiet",
        "-p",
        "antecede",
        "--example",
        "reference",
        "--",
        name,
    ];
    machine::output_of(Command::new("cargo").args(words).current_dir(root))
        .with_context(|| format!("cannot make the page `{name}`"))
}

fn check(root: &Path, pages: &[(&str, String)]) -> anyhow::Result<()> {
    let stale = stale(root, pages);
    if stale.is_empty() {
        say::line(&format!("docs: {} files are as the code says", pages.len()));
        return Ok(());
    }
    for path in &stale {
        let page = pages.iter().find(|(at, _)| at == path).map_or("", |(_, text)| text);
        let text = fs::read_to_string(root.join(path)).unwrap_or_default();
        say::line(&format!("docs: {path} is stale: {}", difference(&text, page)));
    }
    bail!(
        "{} of {} files are not as the code says; run `cargo xtask docs` and commit them",
        stale.len(),
        pages.len()
    );
}

/// The files that are not as they should be.
fn stale<'a>(root: &Path, pages: &[(&'a str, String)]) -> Vec<&'a str> {
    let is_stale = |path: &str, wanted: &str| {
        fs::read_to_string(root.join(path)).map_or(true, |found| found != wanted)
    };
    pages.iter().filter(|(path, text)| is_stale(path, text)).map(|(path, _)| *path).collect()
}

/// The first line in which a file differs from what it should be.
fn difference(found: &str, wanted: &str) -> String {
    let number = found.lines().zip(wanted.lines()).take_while(|(found, wanted)| found == wanted);
    let at = number.count();
    let line = |text: &str| text.lines().nth(at).unwrap_or("nothing").to_owned();
    format!("line {} is `{}`, it should be `{}`", at + 1, line(found), line(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stale_and_missing_files_are_told() {
        let root = machine::workspace().expect("tests run in a checkout");
        let license = fs::read_to_string(root.join("LICENSE")).expect("there is a license");
        let fresh = ("LICENSE", license.clone());
        assert!(check(&root, std::slice::from_ref(&fresh)).is_ok());
        let changed = ("LICENSE", license.replace("License", "Licence"));
        let missing = ("docs/reference/nowhere.md", "# Nowhere\n".to_owned());
        let pages = [fresh, changed, missing];
        assert_eq!(stale(&root, &pages), ["LICENSE", "docs/reference/nowhere.md"]);
        let error = check(&root, &pages).expect_err("two are stale").to_string();
        assert!(error.contains("2 of 3") && error.contains("cargo xtask docs"), "{error}");
    }

    #[test]
    fn first_line_that_differs_is_shown() {
        let told = difference("a\nb\nc\n", "a\nB\nc\n");
        assert_eq!(told, "line 2 is `b`, it should be `B`");
        assert_eq!(difference("a\n", "a\nb\n"), "line 2 is `nothing`, it should be `b`");
    }
}
