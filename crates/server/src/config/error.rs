//! Says what is wrong with a configuration: where, what was expected, and what was probably meant.

use std::fmt;
use std::path::PathBuf;

/// Where a value comes from; a later one overrides an earlier one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Nobody said anything.
    Default,
    /// A file.
    File {
        /// Which.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Column in characters, from 1.
        column: usize,
    },
    /// An environment variable.
    Environment(String),
    /// A flag of the command line.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line, column } => write!(f, "{}:{line}:{column}", path.display()),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// The line of a file that an error is about, with the place in it marked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Excerpt {
    /// The line.
    pub line: String,
    /// First column to mark, from 1.
    pub column: usize,
    /// How many characters to mark.
    pub width: usize,
}

/// Why a configuration cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// Where the value comes from; `None`: something is missing or does not fit together.
    pub origin: Option<Origin>,
    /// What could not be done, and what to do.
    pub message: String,
    /// The place in the file.
    pub excerpt: Option<Box<Excerpt>>,
    /// A key that was probably meant.
    pub suggestion: Option<String>,
}

impl ConfigError {
    pub(crate) fn new(origin: Option<Origin>, message: impl Into<String>) -> Self {
        Self { origin, message: message.into(), excerpt: None, suggestion: None }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(origin) = &self.origin {
            write!(f, "{origin}: ")?;
        }
        f.write_str(&self.message)?;
        if let Some(suggestion) = &self.suggestion {
            write!(f, "; did you mean {suggestion}?")?;
        }
        if let Some(excerpt) = &self.excerpt {
            let blank = " ".repeat(excerpt.column.saturating_sub(1));
            let marks = "^".repeat(excerpt.width.max(1));
            write!(f, "\n  | {}\n  | {blank}{marks}", excerpt.line)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// The candidate that is nearest to a word, if one is near enough to have been meant.
pub(crate) fn nearest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let reach = (word.chars().count() / 3).max(2);
    candidates
        .into_iter()
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= reach)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Edits from one word to the other (Levenshtein).
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (above, from) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = above + 1;
        for (column, to) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_fingers_finds_the_key_and_another_word_finds_none() {
        let keys = ["maxmemory", "connections", "bulk"];
        assert_eq!(nearest("maxmemroy", keys), Some("maxmemory"));
        assert_eq!(nearest("connection", keys), Some("connections"));
        assert_eq!(nearest("telemetry", keys), None);
    }
}
