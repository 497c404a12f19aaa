//! Finds what breaks the rules about documents, and about tables that name files.
//!
//! Markdown is read line by line: fences and code in backticks are left out, links are what stands
//! in `](...)`, tables are lines that begin with a bar. That is the Markdown that we write.

use super::source::{Source, is_word};
use super::tree::Tree;
use super::{Facts, Finding};

/// The documents that everybody reads, and the lines that they may have.
const LENGTHS: &[(&str, usize)] = &[("ARCHITECTURE.md", 300), ("CONTRIBUTING.md", 200)];

/// The document that names a file for each step.
const ARCHITECTURE: &str = "ARCHITECTURE.md";

/// The headings of `ARCHITECTURE` below which each table row names a file.
const WAYS: &[&str] = &["The way of a write", "The way of a read", "The way of a failure"];

/// What a row says whose part is not built yet.
const LATER: &str = "later";

/// The properties of the simulator, one in a file.
const PROPERTIES: &str = "crates/sim/src/check/";

/// Where refusals are defined, and where each has its line.
const REFUSALS: &str = "crates/model/src/refusal.rs";
const REFUSAL_REFERENCE: &str = "docs/reference/refusals.md";

/// A line of Markdown that is not inside a fence, without its code in backticks.
struct Prose {
    text: String,
    number: usize,
}

fn prose(text: &str) -> Vec<Prose> {
    let mut is_fenced = false;
    let mut lines = Vec::new();
    for (line, number) in text.lines().zip(1..) {
        if line.trim_start().starts_with("```") {
            is_fenced = !is_fenced;
        } else if !is_fenced {
            let parts = line.split('`').enumerate();
            let text = parts.map(|(at, part)| if at % 2 == 0 { part } else { "code" }).collect();
            lines.push(Prose { text, number });
        }
    }
    lines
}

/// The text in backticks of a line.
fn code_in(line: &str) -> Vec<&str> {
    line.split('`').skip(1).step_by(2).collect()
}

pub(super) fn links(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in facts.tree.texts_ending(".md") {
        for line in prose(text) {
            for target in targets(&line.text) {
                if let Err(message) = follow(&facts.tree, path, target) {
                    findings.push(Finding::at(path, line.number, message));
                }
            }
        }
    }
    findings
}

/// Where the links of a line lead: `[text](target)` and `[name]: target`.
fn targets(line: &str) -> Vec<&str> {
    let inline = line.match_indices("](").filter_map(|(at, _)| {
        let rest = &line[at + 2..];
        rest.find(')').map(|end| &rest[..end])
    });
    let named = line.strip_prefix('[').and_then(|rest| rest.split_once("]: "));
    inline.chain(named.map(|(_, target)| target.trim())).collect()
}

fn follow(tree: &Tree, from: &str, target: &str) -> Result<(), String> {
    if target.contains("://") || target.starts_with("mailto:") {
        return Ok(());
    }
    let (file, heading) = target.split_once('#').unwrap_or((target, ""));
    let path = if file.is_empty() { from.to_owned() } else { joined(from, file) };
    if !tree.has(&path) {
        return Err(format!("links to `{target}`, but there is no `{path}`"));
    }
    let has_heading = || {
        let text = tree.text(&path).unwrap_or_default();
        let headings = prose_headings(text);
        headings.iter().any(|found| found == heading)
    };
    if !heading.is_empty() && !has_heading() {
        return Err(format!("links to `{target}`, but `{path}` has no heading `#{heading}`"));
    }
    Ok(())
}

/// A path as seen from the file `from`.
fn joined(from: &str, path: &str) -> String {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in path.split('/') {
        match part {
            "." | "" => {}
            ".." => drop(parts.pop()),
            name => parts.push(name),
        }
    }
    parts.join("/")
}

/// The names by which headings are linked.
fn prose_headings(text: &str) -> Vec<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let name = |line: &str| {
        let words = line.trim_start_matches('#').trim().to_lowercase();
        let kept = words.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    headings.map(name).collect()
}

pub(super) fn lengths(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, limit) in LENGTHS {
        match facts.tree.text(path).map(|text| text.lines().count()) {
            Some(count) if count <= *limit => {}
            Some(count) => {
                let message = format!("has {count} lines, the limit is {limit}");
                findings.push(Finding::of(path, message));
            }
            None => findings.push(Finding::of(path, "is missing")),
        }
    }
    findings
}

pub(super) fn sentence_lines(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in facts.tree.texts_ending(".md") {
        for line in prose(text).iter().filter(|line| !line.text.trim_start().starts_with('|')) {
            if let Some(end) = second_sentence(&line.text) {
                let message = format!("goes on after the end of a sentence: `{end}`");
                findings.push(Finding::at(path, line.number, message));
            }
        }
    }
    findings
}

/// The place where a second sentence begins in a line, as the words around it.
fn second_sentence(line: &str) -> Option<String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let begins = |word: &str| word.starts_with(|c: char| c.is_uppercase());
    let ends = |word: &str| {
        let name = word.trim_end_matches(['.', '?', '!']);
        let is_marker = name.chars().all(|c| c.is_numeric());
        name != word && !is_marker && !matches!(word, "e.g." | "i.e." | "al." | "etc." | "vs.")
    };
    let found = words.windows(2).find(|pair| ends(pair[0]) && begins(pair[1]))?;
    Some(found.join(" "))
}

pub(super) fn architecture_rows(facts: &Facts) -> Vec<Finding> {
    let Some(text) = facts.tree.text(ARCHITECTURE) else {
        return vec![Finding::of(ARCHITECTURE, "is missing")];
    };
    let mut findings = Vec::new();
    for way in WAYS {
        let rows = rows_below(text, way);
        if rows.is_empty() {
            findings.push(Finding::of(ARCHITECTURE, format!("has no table below `{way}`")));
        }
        for (row, number) in rows {
            let place = row.trim_end().trim_end_matches('|').rsplit('|').next().unwrap_or(row);
            if place.contains(LATER) {
                continue;
            }
            let paths = code_in(place);
            if paths.is_empty() {
                let message = format!("the row names no file and does not say `{LATER}`");
                findings.push(Finding::at(ARCHITECTURE, number, message));
            }
            for path in paths.into_iter().filter(|path| !facts.tree.has(path)) {
                let message = format!("the row names `{path}`, which does not exist");
                findings.push(Finding::at(ARCHITECTURE, number, message));
            }
        }
    }
    findings
}

/// The rows of the tables below a heading, without their own headings, with line numbers.
fn rows_below<'t>(text: &'t str, heading: &str) -> Vec<(&'t str, usize)> {
    let is_heading = |line: &str| line.starts_with('#') && line.contains(heading);
    let lines = text.lines().zip(1..).skip_while(|(line, _)| !is_heading(line)).skip(1);
    let below = lines.take_while(|(line, _)| !line.starts_with('#'));
    let table: Vec<_> = below.filter(|(line, _)| line.starts_with('|')).collect();
    let rule =
        table.iter().position(|(line, _)| line.starts_with("|--") || line.starts_with("| --"));
    rule.map_or_else(Vec::new, |at| table[at + 1..].to_vec())
}

pub(super) fn property_table(facts: &Facts) -> Vec<Finding> {
    let table_file = format!("{PROPERTIES}mod.rs");
    let table = facts.tree.text(&table_file).unwrap_or_default();
    let rows: Vec<&str> = table.lines().filter(|line| line.starts_with("//! |")).collect();
    let mut findings = Vec::new();
    for (path, _) in facts.tree.texts_ending(".rs") {
        let Some(name) = path.strip_prefix(PROPERTIES) else { continue };
        let is_property = !name.contains('/') && name != "mod.rs" && name != "tests.rs";
        if is_property && !rows.iter().any(|row| code_in(row).contains(&name)) {
            let message = format!("has no row in the table at the head of {table_file}");
            findings.push(Finding::of(path, message));
        }
    }
    for row in rows {
        for name in code_in(row).into_iter().filter(|name| name.ends_with(".rs")) {
            if !facts.tree.has(&format!("{PROPERTIES}{name}")) {
                let message = format!("the table names `{name}`, which does not exist");
                findings.push(Finding::of(&table_file, message));
            }
        }
    }
    findings
}

pub(super) fn refusal_reference(facts: &Facts) -> Vec<Finding> {
    let Some(text) = facts.tree.text(REFUSALS) else {
        return Vec::new(); // A made-up checkout of another check; `edges` wants the real crate.
    };
    let reference = facts.tree.text(REFUSAL_REFERENCE).unwrap_or_default();
    let rows: Vec<&str> = reference.lines().filter(|line| line.starts_with('|')).collect();
    let variants = Source::new(text).variants_of("Refusal");
    if variants.is_empty() {
        return vec![Finding::of(REFUSALS, "holds no `enum Refusal`")];
    }
    let mut findings = Vec::new();
    let words = refusal_words(text);
    for name in variants {
        let Some(row) = rows.iter().find(|row| code_in(row).first() == Some(&name.as_str())) else {
            let message = format!("`Refusal::{name}` has no row that begins with its name");
            findings.push(Finding::of(REFUSAL_REFERENCE, message));
            continue;
        };
        for (_, word) in words.iter().filter(|(variant, _)| *variant == name) {
            if !code_in(row).contains(word) {
                let message = format!("the row of `{name}` lacks its word `{word}`");
                findings.push(Finding::of(REFUSAL_REFERENCE, message));
            }
        }
    }
    findings
}

/// The words that the source gives to variants, as in `Self::Busy { .. } => "busy"`.
fn refusal_words(text: &str) -> Vec<(&str, &str)> {
    let mut words = Vec::new();
    for (at, _) in text.match_indices("=> \"") {
        let start = text[..at].rfind([',', ';', '"']).map_or(0, |found| found + 1);
        let word = text[at + 4..].split('"').next().unwrap_or_default();
        for part in text[start..at].split("Self::").skip(1) {
            let end = part.find(|c: char| !is_word(c)).unwrap_or(part.len());
            words.push((&part[..end], word));
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heading_is_linked_by_its_words() {
        assert_eq!(prose_headings("## 4 Code map: `x`\n"), ["4-code-map-x"]);
    }

    #[test]
    fn words_of_refusals_are_found_for_each_of_several_variants() {
        let text = "match self {\n Self::A { .. } | Self::B => \"x\",\n Self::C(_) => \"y\",\n}";
        assert_eq!(refusal_words(text), [("A", "x"), ("B", "x"), ("C", "y")]);
    }

    #[test]
    fn path_is_seen_from_its_file() {
        assert_eq!(joined("docs/guide/start.md", "../glossary.md"), "docs/glossary.md");
        assert_eq!(joined("README.md", "./docs/"), "docs");
    }

    #[test]
    fn abbreviation_and_list_marker_end_no_sentence() {
        assert_eq!(second_sentence("1. Start the demo, e.g. Paris."), None);
        assert_eq!(second_sentence("It runs. It ends."), Some("runs. It".to_owned()));
    }
}
