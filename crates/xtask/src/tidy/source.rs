//! Reads Rust sources just well enough to check rules about them.
//!
//! `Source` keeps a text twice: as it is, and as code alone, with comments and literals blanked, so
//! that a brace or a word in the code is really one. Lines are the same in both. It is no parser:
//! it knows comments, literals and braces, which is all that the rules need.
//!
//! Assumes: the source compiles; what does not is the compiler's to tell.

/// A Rust source and its code without comments, texts and characters.
#[derive(Debug)]
pub(super) struct Source<'a> {
    text: &'a str,
    code: String,
}

/// A function with a body.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Function {
    pub(super) name: String,
    /// The line of `fn`, counted from one.
    pub(super) line: usize,
    /// Lines of code between its braces, without comments and empty lines.
    pub(super) length: usize,
}

/// One import, spread out: `use a::{b, c};` gives two.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Import {
    pub(super) path: String,
    pub(super) line: usize,
}

impl<'a> Source<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, code: blanked(text) }
    }

    /// The lines as written.
    pub(super) fn lines(&self) -> Vec<&'a str> {
        self.text.lines().collect()
    }

    /// The lines of code, with everything else blanked.
    pub(super) fn code_lines(&self) -> Vec<&str> {
        self.code.lines().collect()
    }

    /// For each line, whether it belongs to a `#[cfg(test)]` module.
    pub(super) fn test_lines(&self) -> Vec<bool> {
        let mut is_test = vec![false; self.code.lines().count()];
        let mut from = 0;
        while let Some(found) = self.code[from..].find("#[cfg(test)]") {
            let start = from + found;
            from = start + 1;
            let after = self.code[start + "#[cfg(test)]".len()..].trim_start();
            let Some(open) = self.body_after(start) else { continue };
            if !after.starts_with("mod ") && !after.starts_with("pub") {
                continue;
            }
            let end = close_of(&self.code, open);
            for line in is_test.iter_mut().take(self.line_at(end)).skip(self.line_at(start) - 1) {
                *line = true;
            }
        }
        is_test
    }

    /// All functions with a body.
    pub(super) fn functions(&self) -> Vec<Function> {
        let mut functions = Vec::new();
        for start in words(&self.code, "fn") {
            let rest = self.code[start + 2..].trim_start();
            let name: String = rest.chars().take_while(|c| is_word(*c)).collect();
            let Some(open) = self.body_after(start) else { continue };
            if name.is_empty() {
                continue; // The type of a function pointer.
            }
            let body = &self.code[open + 1..close_of(&self.code, open)];
            let length = body.lines().filter(|line| !line.trim().is_empty()).count();
            functions.push(Function { name, line: self.line_at(start), length });
        }
        functions
    }

    /// All imports, also those inside functions and modules.
    pub(super) fn imports(&self) -> Vec<Import> {
        let mut imports = Vec::new();
        for start in words(&self.code, "use") {
            let Some(end) = self.code[start..].find(';') else { continue };
            let tree: String = self.code[start + 3..start + end].split_whitespace().collect();
            let line = self.line_at(start);
            spread("", &tree, &mut |path| imports.push(Import { path, line }));
        }
        imports
    }

    /// The names of the variants of an enum; empty if there is no such enum.
    pub(super) fn variants_of(&self, name: &str) -> Vec<String> {
        let head = format!("enum {name} ");
        let Some(start) = self.code.find(&head) else { return Vec::new() };
        let Some(open) = self.body_after(start) else { return Vec::new() };
        let mut variants = Vec::new();
        let mut depth = 0_usize;
        let mut is_next = true;
        let body = &self.code[open + 1..close_of(&self.code, open)];
        for (at, c) in body.char_indices() {
            match c {
                '{' | '(' | '[' => depth += 1,
                '}' | ')' | ']' => depth -= 1,
                ',' if depth == 0 => is_next = true,
                _ if depth == 0 && is_next && c.is_uppercase() => {
                    variants.push(body[at..].chars().take_while(|c| is_word(*c)).collect());
                    is_next = false;
                }
                _ => {}
            }
        }
        variants
    }

    /// The brace that opens the body of the item that starts at `start`; `None` if it has none.
    fn body_after(&self, start: usize) -> Option<usize> {
        let mut depth = 0_usize;
        for (at, byte) in self.code.bytes().enumerate().skip(start) {
            match byte {
                b'(' | b'[' => depth += 1,
                b')' | b']' => depth = depth.checked_sub(1)?,
                b'{' if depth == 0 => return Some(at),
                b';' | b'}' if depth == 0 => return None,
                _ => {}
            }
        }
        None
    }

    fn line_at(&self, at: usize) -> usize {
        self.code[..at].matches('\n').count() + 1
    }
}

/// Whether a character may stand in a word of Rust.
pub(super) fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Where `word` stands in `text` by itself, not as a part of a longer word.
pub(super) fn words<'t>(text: &'t str, word: &'t str) -> impl Iterator<Item = usize> + 't {
    text.match_indices(word).map(|(at, _)| at).filter(move |at| {
        let before = text[..*at].chars().next_back();
        let after = text[at + word.len()..].chars().next();
        !before.is_some_and(is_word) && !after.is_some_and(is_word)
    })
}

/// The brace that closes the one at `open`, or the end of a text that ends too early.
fn close_of(code: &str, open: usize) -> usize {
    let mut depth = 0_usize;
    for (at, byte) in code.bytes().enumerate().skip(open) {
        match byte {
            b'{' => depth += 1,
            b'}' => {
                depth -= 1;
                if depth == 0 {
                    return at;
                }
            }
            _ => {}
        }
    }
    code.len()
}

/// Spreads a tree of imports, without blanks, into its paths.
fn spread(before: &str, tree: &str, give: &mut impl FnMut(String)) {
    let Some(open) = tree.find('{') else {
        give(format!("{before}{tree}"));
        return;
    };
    let before = format!("{before}{}", &tree[..open]);
    let inside = &tree[open + 1..close_of(tree, open)];
    let mut depth = 0_usize;
    let mut start = 0;
    for (at, byte) in inside.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            b',' if depth == 0 => {
                spread(&before, &inside[start..at], give);
                start = at + 1;
            }
            _ => {}
        }
    }
    if start < inside.len() {
        spread(&before, &inside[start..], give);
    }
}

/// The text with every comment, string and character made of blanks; line ends stay.
fn blanked(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let before = at.checked_sub(1).map(|before| bytes[before]);
        let length = opaque_length(&bytes[at..], before).min(bytes.len() - at);
        if length == 0 {
            code.push(bytes[at]);
            at += 1;
        }
        for byte in &bytes[at..at + length] {
            code.push(if *byte == b'\n' { b'\n' } else { b' ' });
        }
        at += length;
    }
    String::from_utf8_lossy(&code).into_owned()
}

/// How many bytes at the start of `rest` are a comment or a literal; zero if they are code.
fn opaque_length(rest: &[u8], before: Option<u8>) -> usize {
    let is_in_word = before.is_some_and(|byte| is_word(char::from(byte)));
    match rest {
        [b'/', b'/', ..] => line_length(rest),
        [b'/', b'*', ..] => block_comment_length(rest),
        [b'"', ..] => string_length(rest),
        [b'\'', ..] => character_length(rest),
        [b'r', b'"' | b'#', ..] if !is_in_word => raw_string_length(rest, 1),
        [b'b' | b'c', b'r', b'"' | b'#', ..] if !is_in_word => raw_string_length(rest, 2),
        _ => 0,
    }
}

fn line_length(rest: &[u8]) -> usize {
    rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len())
}

fn block_comment_length(rest: &[u8]) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < rest.len() {
        if rest[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    rest.len()
}

fn string_length(rest: &[u8]) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// The length of a character; a lifetime begins the same way and is code.
fn character_length(rest: &[u8]) -> usize {
    let closes = |from: usize| rest.iter().skip(from).position(|byte| *byte == b'\'');
    match rest {
        [_, b'\\', ..] => closes(3).map_or(0, |found| found + 4),
        _ => match closes(1) {
            Some(length @ 1..=4) if std::str::from_utf8(&rest[1..=length]).is_ok_and(is_one) => {
                length + 2
            }
            Some(_) | None => 0,
        },
    }
}

fn is_one(text: &str) -> bool {
    text.chars().count() == 1
}

/// The length of a raw string whose hashes begin after `prefix` bytes; zero for a raw name.
fn raw_string_length(rest: &[u8], prefix: usize) -> usize {
    let hashes = rest.iter().skip(prefix).take_while(|byte| **byte == b'#').count();
    if rest.get(prefix + hashes) != Some(&b'"') {
        return 0;
    }
    let mut end = vec![b'"'];
    end.resize(1 + hashes, b'#');
    let body = prefix + hashes + 1;
    let closes = rest[body..].windows(end.len()).position(|window| window == end);
    closes.map_or(rest.len(), |found| body + found + end.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_blanked_and_lines_stay() {
        let text = "a // }\n/* { /* } */\n*/ b \"}\\\"\" 'x' '\\'' r#\"\"}\"# 'life c\n";
        let code = blanked(text);
        assert_eq!(code.split_whitespace().collect::<String>(), "ab'lifec");
        assert_eq!(code.lines().count(), text.lines().count());
        assert_eq!(code.len(), text.len());
    }

    #[test]
    fn function_length_counts_code_between_its_braces() {
        let text = "fn a(x: [u8; 2]) -> u8 {\n    // Why.\n\n    x[0]\n}\nfn b();\nf: fn(u8),\n";
        let functions = Source::new(text).functions();
        assert_eq!(functions, [Function { name: "a".to_owned(), line: 1, length: 1 }]);
    }

    #[test]
    fn imports_are_spread() {
        let text = "use std::{fs, sync::{Mutex, Arc}};\nfn f() {\n    use a::b as c;\n}\n";
        let found: Vec<_> = Source::new(text).imports();
        let paths: Vec<_> =
            found.iter().map(|import| (import.path.as_str(), import.line)).collect();
        let expected =
            [("std::fs", 1), ("std::sync::Mutex", 1), ("std::sync::Arc", 1), ("a::basc", 3)];
        assert_eq!(paths, expected);
    }

    #[test]
    fn variants_are_found_past_their_attributes_and_fields() {
        let text = "enum Refusal {\n    #[error(\"A {a}\")]\n    Busy { a: Shard, b: u8 },\n    Gone(X),\n    Last,\n}\n";
        assert_eq!(Source::new(text).variants_of("Refusal"), ["Busy", "Gone", "Last"]);
    }

    #[test]
    fn module_of_tests_is_known_by_its_lines() {
        let text = "fn a() {}\n#[cfg(test)]\nmod tests {\n    fn b() {}\n}\nfn c() {}\n";
        assert_eq!(Source::new(text).test_lines(), [false, true, true, true, true, false]);
        let elsewhere = "#[cfg(test)]\nmod tests;\nfn a() {\n}\n";
        assert!(!Source::new(elsewhere).test_lines().contains(&true));
    }
}
