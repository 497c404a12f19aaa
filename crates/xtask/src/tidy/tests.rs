//! Holds each check against a made-up checkout that it must reject.
//!
//! A checkout that breaks no rule comes first; every example changes it in one place, so that a
//! check rejects it for its own rule and for nothing else.

use super::crates::{FeatureTree, Metadata};
use super::tree::Tree;
use super::{CHECKS, Facts, Finding};

const RUST: &str = "//! Keeps the words of the system.\n\nuse std::fmt;\n\nuse bytes::Bytes;\n\n\
                    use crate::key::Key;\n\nfn name() -> u8 {\n    1\n}\n";

const ARCHITECTURE: &str = "# Architecture\n\n## The way of a write\n\n| # | step | where |\n\
                            |---|---|---|\n| 1 | it comes | `crates/model/src/lib.rs` |\n\n\
                            ## The way of a read\n\n| step | where |\n|---|---|\n\
                            | it is read | `crates/model/` |\n\n## The way of a failure\n\n\
                            | step | where |\n|---|---|\n| it fails | `control/`, later |\n";

const MANIFEST: &str = "[package]\nname = \"antecede-model\"\n\n[lib]\ndoctest = false\n\n[lints]\n\
                        workspace = true\n";

const REFUSALS: &str = "//! Says why a request is not served.\n\npub enum Refusal {\n    Busy,\n}\n\
                        fn word() {\n    match self {\n        Self::Busy => \"busy\",\n    }\n}\n";

const METADATA: &str = r#"{ "packages": [
    { "name": "antecede-model", "version": "0.0.0", "license": "Apache-2.0", "source": null,
      "dependencies": [ { "name": "bytes", "path": null } ] },
    { "name": "bytes", "version": "1.0.0", "license": "MIT", "source": "a registry",
      "dependencies": [] } ] }"#;

/// The files of the checkout that breaks no rule.
fn clean_files() -> Vec<(&'static str, &'static str)> {
    vec![
        ("ARCHITECTURE.md", ARCHITECTURE),
        ("CONTRIBUTING.md", "# Contributing\n\nRead [the map](ARCHITECTURE.md#architecture).\n"),
        ("deny.toml", "[licenses]\nallow = [\"Apache-2.0\", \"MIT\"]\n"),
        (
            "docs/reference/refusals.md",
            "# Refusals\n\n| refusal | meaning |\n|---|---|\n| `Busy` | `busy` |\n",
        ),
        ("crates/model/Cargo.toml", MANIFEST),
        ("crates/model/src/lib.rs", RUST),
        ("crates/model/src/refusal.rs", REFUSALS),
        ("crates/protocol/tests/scenarios/write.txt", "# A write is read.\n\nput k = v\n"),
        (
            "crates/sim/src/check/mod.rs",
            "//! Holds the properties, one in a file.\n//!\n//! | it holds | `causal.rs` |\n",
        ),
        ("crates/sim/src/check/causal.rs", "//! Checks that causes come first.\n"),
    ]
}

fn facts_of(files: &[(&str, &str)], metadata: &str, features: &str) -> Facts {
    let trees = features.split("---\n").zip(["antecede", "sim"]);
    let trees = trees.map(|(text, package)| FeatureTree { package, text: text.to_owned() });
    let (tree, metadata) = (Tree::of(files), Metadata::of(metadata));
    Facts { tree, metadata, features: trees.collect(), gate: vec![&["fuzz"]] }
}

/// What cargo says of the command, and after the line of the simulator.
const FEATURES: &str = "antecede v0.0.0 (/x/cli) []\nantecede-protocol v0.0.0 (/x/protocol) []\n---\n\
                        sim v0.0.0 (/x/sim) [mutations]\n\
                        antecede-protocol v0.0.0 (/x/protocol) [mutations] (*)\n";

fn clean() -> Facts {
    facts_of(&clean_files(), METADATA, FEATURES)
}

/// The clean checkout with one file added or replaced.
fn with(path: &str, text: &str) -> Facts {
    let mut files = clean_files();
    files.retain(|(at, _)| *at != path);
    files.push((path, text));
    facts_of(&files, METADATA, FEATURES)
}

/// The clean checkout with another source of `model`.
fn with_rust(text: &str) -> Facts {
    with("crates/model/src/other.rs", text)
}

fn findings(name: &str, facts: &Facts) -> Vec<Finding> {
    let check = CHECKS.iter().find(|check| check.name == name).expect("the check is in the table");
    (check.find)(facts)
}

/// For each check the checkouts that it must reject.
fn rejected() -> Vec<(&'static str, Facts)> {
    let head = "//! Keeps the words of the system.\n";
    let long_function = format!("{head}\nfn long() {{\n{}}}\n", "    step();\n".repeat(71));
    let long_file = format!("{head}{}", "const A: u8 = 1;\n".repeat(800));
    let left_over = format!("{head}// {}: later.\n", concat!("TO", "DO"));
    let workplace = format!("Look in {}main.\n", concat!("/wo", "rk/"));
    let long_document = format!("# Contributing\n{}", "\nA line.\n".repeat(100));
    let edge =
        METADATA.replace("\"bytes\", \"path\": null", "\"antecede-server\", \"path\": \"p\"");
    let stranger = METADATA.replace("antecede-model", "antecede-stranger");
    let mutated = FEATURES.replacen("/x/protocol) []", "/x/protocol) [default,mutations]", 1);
    let blind = FEATURES.replace("protocol) [mutations]", "protocol) []");
    let elsewhere = FEATURES.replace("antecede-protocol", "antecede-protocols");
    let all = clean_files();
    vec![
        ("crate-edges", facts_of(&all, &edge, FEATURES)),
        ("crate-edges", facts_of(&all, &stranger, FEATURES)),
        ("crate-settings", with("crates/model/Cargo.toml", "[lib]\ndoctest = false\n")),
        ("crate-settings", with("crates/model/Cargo.toml", "[lints]\nworkspace = true\n")),
        ("licences", facts_of(&all, &METADATA.replace("MIT", "GPL-3.0"), FEATURES)),
        ("licences", facts_of(&all, &METADATA.replace("\"MIT\"", "null"), FEATURES)),
        ("mutations-stay-out", facts_of(&all, METADATA, &mutated)),
        ("mutations-stay-out", facts_of(&all, METADATA, &blind)),
        ("mutations-stay-out", facts_of(&all, METADATA, &elsewhere)),
        ("gate-is-whole", with("tests/redis/run.py", "pass\n")),
        ("head-comment", with_rust("use std::fmt;\n")),
        ("head-comment", with_rust("//! Under construction.\n")),
        ("file-length", with_rust(&long_file)),
        ("function-length", with_rust(&long_function)),
        ("import-blocks", with_rust(&format!("{head}use bytes::Bytes;\n\nuse std::fmt;\n"))),
        ("import-blocks", with_rust(&format!("{head}use std::fmt;\nuse bytes::Bytes;\n"))),
        ("import-blocks", with_rust(&format!("{head}use std::fmt;\n\nuse std::io;\n"))),
        ("outside-world", with_rust(&format!("{head}fn f() {{ Instant::now(); }}\n"))),
        ("outside-world", with_rust(&format!("{head}use std::{{fmt, fs}};\n"))),
        ("outside-world", with_rust(&format!("{head}use std::collections::HashMap;\n"))),
        ("source-names", with("crates/model/src/utils.rs", head)),
        ("source-names", with("crates/model/src/common/mod.rs", head)),
        ("ascii", with_rust("//! Keeps the words \u{2014} all of them.\n")),
        ("blanks", with_rust(&format!("{head}\tfn f() {{}}\n"))),
        ("blanks", with_rust(&format!("{head} \n"))),
        ("blanks", with_rust("//! Keeps the words of the system.")),
        ("unfinished", with_rust(&left_over)),
        ("workplace", with("docs/a.md", &workplace)),
        ("blob-size", with("docs/a.svg", &"a\n".repeat(1 << 20))),
        ("scenario-comment", with("crates/protocol/tests/scenarios/write.txt", "put k = v\n")),
        ("links", with("docs/a.md", "Read [more](b.md).\n")),
        ("links", with("docs/a.md", "Read [more](../ARCHITECTURE.md#nowhere).\n")),
        ("document-length", with("CONTRIBUTING.md", &long_document)),
        ("sentence-lines", with("docs/a.md", "It runs. It ends.\n")),
        ("architecture-rows", with("ARCHITECTURE.md", &ARCHITECTURE.replace("lib.rs", "gone.rs"))),
        ("architecture-rows", with("ARCHITECTURE.md", &ARCHITECTURE.replace(", later", ""))),
        ("architecture-rows", with("ARCHITECTURE.md", &ARCHITECTURE.replace("of a read", "in"))),
        (
            "property-table",
            with("crates/sim/src/check/session.rs", "//! Checks the sessions here.\n"),
        ),
        (
            "property-table",
            with(
                "crates/sim/src/check/mod.rs",
                "//! Holds the properties of a run.\n//!\n//! | it holds | `causal.rs`, `gone.rs` |\n",
            ),
        ),
        ("refusal-reference", with("docs/reference/refusals.md", "# Refusals\n")),
        (
            "refusal-reference",
            with("docs/reference/refusals.md", "# Refusals\n\n| `Busy` | wait |\n"),
        ),
        ("refusal-reference", with("crates/model/src/refusal.rs", "//! Has no refusals in it.\n")),
    ]
}

#[test]
fn clean_checkout_breaks_no_rule() {
    for check in CHECKS {
        assert_eq!((check.find)(&clean()), [], "{}", check.name);
    }
}

#[test]
fn each_rejected_checkout_breaks_its_rule_and_no_other() {
    for (name, facts) in rejected() {
        assert_ne!(findings(name, &facts), [], "{name} accepts what it must reject");
        for other in CHECKS.iter().filter(|check| check.name != name) {
            assert_eq!((other.find)(&facts), [], "{} rejects an example of {name}", other.name);
        }
    }
}

#[test]
fn every_check_has_a_checkout_that_it_rejects() {
    let examples = rejected();
    for check in CHECKS {
        assert!(examples.iter().any(|(name, _)| *name == check.name), "{}", check.name);
    }
}

#[test]
fn finding_names_file_and_line() {
    let facts = with_rust("//! Keeps the words of the system.\nfn f() { Instant::now(); }\n");
    let told: Vec<_> = findings("outside-world", &facts).iter().map(ToString::to_string).collect();
    assert_eq!(told, ["crates/model/src/other.rs:2: names `Instant::now`: time is an argument"]);
}

#[test]
fn part_that_a_step_runs_is_accepted() {
    assert_eq!(findings("gate-is-whole", &with("fuzz/Cargo.toml", MANIFEST)), []);
}

#[test]
fn tests_of_a_pure_crate_may_read_golden_files() {
    let text =
        "//! Keeps the words of the system.\n#[cfg(test)]\nmod tests {\n    use std::fs;\n}\n";
    assert_eq!(findings("outside-world", &with_rust(text)), []);
}

#[test]
fn long_function_with_a_reason_is_accepted() {
    let text = format!(
        "//! Keeps the words of the system.\n#[expect(clippy::too_many_lines, reason = \"a table\")]\n\
         fn long() {{\n{}}}\n",
        "    step();\n".repeat(71)
    );
    assert_eq!(findings("function-length", &with_rust(&text)), []);
}
