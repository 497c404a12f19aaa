//! Reads scenario files: blocks of commands, each with the lines that are expected of it.
//!
//! A block is a run of commands and comments, then `----`, then the expected lines up to a blank
//! one. Writing a file anew keeps all but the expected lines.

use std::fmt::Write;

/// What stands between commands and what is expected of them.
const DIVIDER: &str = "----";

/// A command with its place in the file.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) number: usize,
    pub(super) text: String,
}

/// Commands, and what is expected of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Block {
    /// Everything above the divider as it stands in the file.
    above: Vec<String>,
    pub(super) commands: Vec<Line>,
    pub(super) expected: Vec<String>,
    /// The line of the divider.
    pub(super) number: usize,
}

/// Takes a file apart.
pub(super) fn blocks(text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut block = Block::default();
    let mut lines = (1..).zip(text.lines());
    while let Some((number, line)) = lines.next() {
        if line.trim() != DIVIDER {
            block.above.push(line.to_owned());
            let command = line.trim();
            if !command.is_empty() && !command.starts_with('#') {
                block.commands.push(Line { number, text: command.to_owned() });
            }
            continue;
        }
        block.number = number;
        let expected = lines.by_ref().map(|(_, line)| line).take_while(|line| !line.is_empty());
        block.expected = expected.map(str::to_owned).collect();
        assert!(!block.commands.is_empty(), "line {number}: nothing is asked above the divider");
        blocks.push(std::mem::take(&mut block));
    }
    assert!(block.commands.is_empty(), "the last commands have no divider below them");
    blocks
}

/// Puts a file together again, with other lines expected.
pub(super) fn with_expected(blocks: &[Block], expected: &[Vec<String>]) -> String {
    let mut text = String::new();
    for (block, lines) in blocks.iter().zip(expected) {
        if !text.is_empty() {
            text.push('\n');
        }
        for line in block.above.iter().map(String::as_str).chain([DIVIDER]) {
            writeln!(text, "{line}").unwrap();
        }
        for line in lines {
            writeln!(text, "{line}").unwrap();
        }
    }
    text
}
