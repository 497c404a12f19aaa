//! Finds what breaks the rules about Rust sources.
//!
//! Tests are measured less strictly where a rule says so: a file of tests may be long, and a test
//! in `model` may read a golden file.

use super::source::{Source, words};
use super::tree::Tree;
use super::{Facts, Finding};

/// Lines that a source may have without its tests.
const FILE_LINES_MAX: usize = 800;

/// Lines of code that a function may have.
const FUNCTION_LINES_MAX: usize = 70;

/// Names that say nothing about what a source holds.
const EMPTY_NAMES: &[&str] = &["utils", "util", "common", "helpers", "helper", "misc", "types"];

/// Where the outside world must not be known.
const PURE_FOLDERS: &[&str] = &["crates/model/src/", "crates/protocol/src/"];

/// What the pure crates must not name, and what they use instead.
const OUTSIDE: &[(&str, &str)] = &[
    ("Instant::now", "time is an argument"),
    ("SystemTime::now", "time is an argument"),
    ("std::fs", "bytes reach the disk through `Storage`"),
    ("std::net", "messages leave through `Outputs`"),
    ("std::thread", "the shell owns the threads"),
    ("std::env", "settings are arguments"),
    ("std::process", "a machine runs nothing"),
    ("tokio", "the shell owns the runtime"),
    ("rand::random", "chance is an argument"),
    ("thread_rng", "chance is an argument"),
    ("getrandom", "chance is an argument"),
    ("parking_lot", "a machine has one owner and no lock"),
    ("std::sync::Mutex", "a machine has one owner and no lock"),
    ("std::sync::RwLock", "a machine has one owner and no lock"),
    ("HashMap", "its order is random: BTreeMap, or FxHashMap where no order is seen"),
    ("HashSet", "its order is random: BTreeSet, or FxHashSet where no order is seen"),
    ("async fn", "a machine never waits"),
];

fn sources(tree: &Tree) -> impl Iterator<Item = (&str, &str)> {
    tree.texts_ending(".rs")
}

fn is_of_tests(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.split('/').any(|part| part == "tests")
}

pub(super) fn heads(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in sources(&facts.tree) {
        let Some(first) = text.lines().next().and_then(|line| line.strip_prefix("//! ")) else {
            findings.push(Finding::at(path, 1, "begins without a head comment (`//! Does ...`)"));
            continue;
        };
        let head = text.lines().map_while(|line| line.strip_prefix("//!"));
        let sentence: Vec<_> = head.map(str::trim).take_while(|line| !line.is_empty()).collect();
        if first.split_whitespace().count() < 3 || !sentence.join(" ").ends_with(['.', ':']) {
            let message = "the head comment is no sentence that says what the source does";
            findings.push(Finding::at(path, 1, message));
        }
    }
    findings
}

pub(super) fn file_lengths(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in sources(&facts.tree).filter(|(path, _)| !is_of_tests(path)) {
        let count = Source::new(text).test_lines().iter().filter(|is_test| !**is_test).count();
        if FILE_LINES_MAX < count {
            let message = format!("has {count} lines without tests, the limit is {FILE_LINES_MAX}");
            findings.push(Finding::of(path, message));
        }
    }
    findings
}

pub(super) fn function_lengths(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in sources(&facts.tree) {
        let source = Source::new(text);
        let lines = source.lines();
        for function in source.functions() {
            let above = &lines[function.line.saturating_sub(7)..function.line - 1];
            let is_expected = above.iter().any(|line| line.contains("clippy::too_many_lines"));
            if FUNCTION_LINES_MAX < function.length && !is_expected {
                let message = format!(
                    "`{}` has {} lines, the limit is {FUNCTION_LINES_MAX}",
                    function.name, function.length
                );
                findings.push(Finding::at(path, function.line, message));
            }
        }
    }
    findings
}

/// The three blocks, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Block {
    /// The standard library.
    Standard,
    /// Other crates, also those of this workspace.
    Others,
    /// This crate.
    Ours,
}

fn block_of(path: &str, modules: &[&str]) -> Block {
    match path.trim_start_matches("::").split("::").next().unwrap_or(path) {
        "std" | "core" | "alloc" => Block::Standard,
        "crate" | "self" | "super" => Block::Ours,
        first if modules.contains(&first) => Block::Ours,
        _ => Block::Others,
    }
}

/// Imports at the left edge; those inside a module of tests are few and free.
pub(super) fn import_blocks(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in sources(&facts.tree) {
        let source = Source::new(text);
        let lines = source.code_lines();
        let modules: Vec<&str> = lines
            .iter()
            .filter_map(|line| line.trim_start_matches("pub ").strip_prefix("mod "))
            .filter_map(|rest| rest.strip_suffix(';'))
            .collect();
        let mut last: Option<(Block, usize)> = None;
        for import in source.imports() {
            if !lines[import.line - 1].starts_with("use ") {
                continue;
            }
            let block = block_of(&import.path, &modules);
            if let Some((before, line)) = last.filter(|(_, line)| *line < import.line) {
                let is_apart = lines[line..import.line - 1].iter().any(|line| line.is_empty());
                let message = if block < before {
                    Some("stands below a later block: standard library, other crates, this crate")
                } else if block == before && is_apart {
                    Some("is parted by an empty line from imports of its own block")
                } else if block != before && !is_apart {
                    Some("begins a new block without an empty line before it")
                } else {
                    None
                };
                if let Some(message) = message {
                    let message = format!("the import of `{}` {message}", import.path);
                    findings.push(Finding::at(path, import.line, message));
                }
            }
            last = Some((block, import.line));
        }
    }
    findings
}

pub(super) fn outside_world(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in sources(&facts.tree) {
        let is_pure = PURE_FOLDERS.iter().any(|folder| path.starts_with(folder));
        if !is_pure || is_of_tests(path) {
            continue;
        }
        let source = Source::new(text);
        let is_test = source.test_lines();
        let code = source.code_lines().into_iter().map(str::to_owned).zip(1..);
        let imports = source.imports().into_iter().map(|import| (import.path, import.line));
        let mut seen = Vec::new();
        for (code, line) in code.chain(imports).filter(|(_, line)| !is_test[line - 1]) {
            for (word, instead) in OUTSIDE {
                if words(&code, word).next().is_some() && !seen.contains(&(line, word)) {
                    seen.push((line, word));
                    findings.push(Finding::at(path, line, format!("names `{word}`: {instead}")));
                }
            }
        }
    }
    findings
}

pub(super) fn source_names(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, _) in sources(&facts.tree) {
        let parts = path.trim_end_matches(".rs").split('/');
        for name in parts.filter(|part| EMPTY_NAMES.contains(part)) {
            let message = format!("`{name}` says nothing: name it by the noun that it defines");
            findings.push(Finding::of(path, message));
        }
    }
    findings
}

pub(super) fn ascii(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in sources(&facts.tree) {
        for (line, number) in text.lines().zip(1..) {
            if let Some(found) = line.chars().find(|c| !c.is_ascii()) {
                let message =
                    format!("holds `{found}` ({}), which is not ASCII", found.escape_unicode());
                findings.push(Finding::at(path, number, message));
            }
        }
    }
    findings
}
