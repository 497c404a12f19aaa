//! Plays the protocol's stories: text files that show every message, and assert their point.
//!
//! A file holds blocks of commands (`story` knows them), each followed by what passed: messages,
//! disks, commits, answers. `UPDATE=1` writes that part anew; the `expect` lines among the commands
//! are not touched by it and must hold all the same, and so must what `deployment` checks after
//! every input.
//!
//! Assumes: only the public parts of the crate.

/// Commands of sessions, in the words of Redis.
mod asking;
/// Those who ask.
mod client;
/// All machines in virtual time.
mod deployment;
/// A node's log.
mod disk;
/// What must hold.
mod expectation;
/// Links between nodes.
mod network;
/// Files of commands and lines.
mod script;
/// The commands of a story.
mod story;
/// Readable words for messages and events.
mod telling;

use std::{fs, path::PathBuf};

use antecede_protocol::mutation::Mutations;

use self::{script::Block, story::Story};

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios").join(format!("{name}.txt"))
}

/// Plays one story and compares; `UPDATE=1` writes down what passed.
pub(crate) fn play(name: &str) {
    let path = path(name);
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.starts_with("# "), "{name} begins without saying what it shows");
    assert!(text.contains("\nexpect "), "{name} asserts nothing");
    let blocks = script::blocks(&text);
    let passed = run(&blocks, Mutations::NONE).unwrap_or_else(|found| panic!("{name}.txt {found}"));
    if is_update() {
        fs::write(&path, script::with_expected(&blocks, &passed)).unwrap();
        return;
    }
    for (block, lines) in blocks.iter().zip(&passed) {
        assert!(
            block.expected == *lines,
            "{name}.txt, block at line {}: expected\n{}\n\nbut what passed is\n{}\n\nIf that is \
             right, run the test with UPDATE=1.",
            block.number,
            block.expected.join("\n"),
            lines.join("\n"),
        );
    }
}

/// Plays commands; tells for each block what passed, or the first expectation that does not hold.
fn run(blocks: &[Block], mutations: Mutations) -> Result<Vec<Vec<String>>, String> {
    let mut story = Story::with(mutations);
    let mut passed = Vec::new();
    for block in blocks {
        for line in &block.commands {
            let said = story.command(&line.text);
            said.map_err(|found| format!("line {}: {found}", line.number))?;
        }
        passed.push(story.end_block());
    }
    Ok(passed)
}

/// Whether a story given as text holds what it expects; what passed, or what does not hold.
pub(crate) fn holds(text: &str) -> Result<Vec<Vec<String>>, String> {
    run(&script::blocks(text), Mutations::NONE)
}

/// Whether a story file's expectations hold with a deliberate bug; a machine that stops counts as
/// one that does not.
#[cfg(feature = "mutations")]
pub(crate) fn holds_with(name: &str, mutation: antecede_protocol::mutation::Mutation) -> bool {
    let blocks = script::blocks(&fs::read_to_string(path(name)).unwrap());
    let played = std::panic::catch_unwind(|| run(&blocks, Mutations::only(mutation)));
    played.is_ok_and(|said| said.is_ok())
}

/// Names of all story files, without their ending.
pub(crate) fn all() -> Vec<String> {
    let mut names = Vec::new();
    for folder in ["chain", "geo", "session"] {
        let folder_path = path("").with_file_name(folder);
        for file in fs::read_dir(folder_path).unwrap() {
            let stem = file.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned();
            names.push(format!("{folder}/{stem}"));
        }
    }
    names.sort();
    names
}

#[expect(clippy::disallowed_methods, reason = "the switch of a test run, not a setting")]
fn is_update() -> bool {
    std::env::var("UPDATE").is_ok_and(|value| value == "1")
}
