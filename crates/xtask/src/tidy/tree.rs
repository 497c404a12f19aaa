//! Holds the files of a checkout in memory, by path.
//!
//! What counts is what git would commit: tracked files and new ones that are not ignored. Tests
//! make a tree from a few texts instead.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Context;

use crate::machine;

/// The files of a checkout, by path from its root, with `/` between the parts.
#[derive(Debug, Default)]
pub(super) struct Tree {
    files: BTreeMap<String, Vec<u8>>,
}

impl Tree {
    /// Reads every file that git tracks or would add.
    pub(super) fn read(root: &Path) -> anyhow::Result<Self> {
        let mut command = Command::new("git");
        command.current_dir(root);
        command.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
        let mut files = BTreeMap::new();
        for path in machine::output_of(&mut command)?.split('\0').filter(|path| !path.is_empty()) {
            let full = root.join(path);
            if full.is_file() {
                let bytes = fs::read(&full)
                    .with_context(|| format!("cannot read the file at {}", full.display()))?;
                files.insert(path.to_owned(), bytes);
            }
        }
        Ok(Self { files })
    }

    /// How many files there are.
    pub(super) fn len(&self) -> usize {
        self.files.len()
    }

    /// All files as bytes.
    pub(super) fn blobs(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.files.iter().map(|(path, bytes)| (path.as_str(), bytes.as_slice()))
    }

    /// All files that hold text.
    pub(super) fn texts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.blobs().filter_map(|(path, bytes)| Some((path, as_text(bytes)?)))
    }

    /// All text files whose name ends so.
    pub(super) fn texts_ending(&self, end: &str) -> impl Iterator<Item = (&str, &str)> {
        self.texts().filter(move |(path, _)| path.ends_with(end))
    }

    /// The text of one file.
    pub(super) fn text(&self, path: &str) -> Option<&str> {
        self.files.get(path).and_then(|bytes| as_text(bytes))
    }

    /// Whether a file or a folder stands at this path.
    pub(super) fn has(&self, path: &str) -> bool {
        let path = path.trim_end_matches('/');
        let inside = format!("{path}/");
        path.is_empty()
            || self.files.contains_key(path)
            || self
                .files
                .range(inside.clone()..)
                .next()
                .is_some_and(|(at, _)| at.starts_with(&inside))
    }

    #[cfg(test)]
    pub(super) fn of(files: &[(&str, &str)]) -> Self {
        let files = files.iter().map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec()));
        Self { files: files.collect() }
    }
}

fn as_text(bytes: &[u8]) -> Option<&str> {
    if bytes.contains(&0) { None } else { std::str::from_utf8(bytes).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folder_is_there_when_a_file_lies_in_it() {
        let tree = Tree::of(&[("docs/guide/start.md", "")]);
        assert!(tree.has("docs/guide") && tree.has("docs/guide/") && tree.has(""));
        assert!(!tree.has("docs/gui") && !tree.has("docs/guide/start"));
    }

    #[test]
    fn file_with_a_zero_byte_is_no_text() {
        assert_eq!(as_text(b"a\0b"), None);
        assert_eq!(as_text(b"ab"), Some("ab"));
    }
}
