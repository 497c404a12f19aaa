//! Prints a page of the reference, made from the tables of commands, metrics and settings:
//! `cargo run --release -p antecede --example reference -- commands|metrics|config|example`.
//!
//! `cargo xtask docs` writes what it prints to files, and tells when they are stale.

use std::process::ExitCode;

use antecede_server::{
    config::keys::{KEYS, Key, example},
    metrics::METRICS,
    resp::{
        commands::{
            across,
            row::{Flags, Group, Row},
            table,
        },
        connection::{is_queued, reason_not_to_queue},
    },
};

const MADE: &str = "This page is made from code by `cargo xtask docs`; change it there.\n";

/// The groups of commands, in the order of the page.
const GROUPS: [(Group, &str); 7] = [
    (Group::String, "Strings"),
    (Group::Generic, "Keys"),
    (Group::Causal, "Sessions and causality"),
    (Group::Transactions, "Transactions"),
    (Group::Connection, "Connection"),
    (Group::Server, "Server"),
    (Group::Cluster, "Cluster"),
];

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "a program that prints a page")]
fn main() -> ExitCode {
    let page = match std::env::args().nth(1).as_deref() {
        Some("commands") => commands(),
        Some("metrics") => metrics(),
        Some("config") => config(),
        Some("example") => example(),
        Some(_) | None => {
            eprintln!("use: reference commands|metrics|config|example");
            return ExitCode::FAILURE;
        }
    };
    print!("{page}");
    ExitCode::SUCCESS
}

fn commands() -> String {
    let mut page = format!(
        "# Commands\n\n{MADE}\n\
         Arity counts the name; a negative number means that at least so many are needed.\n\
         `no_multi` aside, flags are Redis's; *since* is the version of Redis that brought the \
         command, or of Antecede for its own.\n\
         *In MULTI*: queued until `EXEC`; at once, which ends or concerns the transaction itself; \
         or refused, which spoils the transaction.\n\
         A command that is not here is refused with an error that says why.\n"
    );
    for (group, title) in GROUPS {
        page.push_str(&format!(
            "\n## {title}\n\n| command | arity | flags | in MULTI | since | cost | what it does |\n\
             |---|---|---|---|---|---|---|\n"
        ));
        for row in table().iter().filter(|row| row.group == group) {
            // A command that only holds subcommands is shown by these.
            if row.subcommands.is_empty() || row.arity == -1 {
                page.push_str(&command(row));
            }
            for subcommand in row.subcommands {
                page.push_str(&command(subcommand));
            }
        }
    }
    page.push_str(
        "\n## Where there are several datacenters\n\n\
         Commands that are not in this table mean the same as in Redis, or concern one connection \
         or node only.\n\
         `SETEX` and `PSETEX` are writes as `SET` is: the last writer wins.\n\n\
         | command | what it means |\n|---|---|\n",
    );
    for row in table() {
        if let Some(note) = across::note(row.name) {
            page.push_str(&format!("| `{}` | {note} |\n", row.name.to_ascii_uppercase()));
        }
    }
    page
}

/// The row of a command or a subcommand.
fn command(row: &Row) -> String {
    let name = row.name.to_ascii_uppercase().replace('|', " ");
    let call = format!("{name} {}", row.syntax);
    let flags: Vec<_> = row.flags.names().collect();
    let in_multi = match (is_queued(row), reason_not_to_queue(row)) {
        (false, _) => "at once",
        (true, None) => "queued",
        (true, Some(_)) => "refused",
    };
    debug_assert!(!row.flags.has(Flags::NO_MULTI) || in_multi == "refused");
    format!(
        "| `{}` | {} | {} | {in_multi} | {} | {} | {} |\n",
        cell(call.trim_end()),
        row.arity,
        flags.join(" "),
        row.since,
        row.complexity,
        cell(row.summary),
    )
}

fn metrics() -> String {
    let mut page = format!(
        "# Metrics\n\n{MADE}\n\
         `/metrics` on the admin port tells them in the Prometheus format.\n\
         Each node tells its own; sums over nodes are the reader's.\n\
         A `peer` is a node as `DATACENTER.NODE` with their numbers; `origin` and `from` are names of \
         datacenters.\n\n\
         | metric | type | labels | unit | what it tells |\n|---|---|---|---|---|\n"
    );
    for metric in METRICS {
        let labels: Vec<_> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        page.push_str(&format!(
            "| `{}` | {} | {} | {} | {} |\n",
            metric.name,
            metric.kind.name(),
            labels.join(" "),
            metric.unit,
            cell(metric.meaning),
        ));
    }
    page
}

fn config() -> String {
    let mut page = format!(
        "# Configuration\n\n{MADE}\n\
         A setting comes from its default, then the file, then the environment, then flags; the \
         last one that says something counts.\n\
         In the environment `ANTECEDE_LIMITS_MAXMEMORY` stands for `limits.maxmemory`; as a flag it \
         is `--set limits.maxmemory=1GiB`.\n\
         `antecede config check FILE` says what is wrong in a file, `antecede config show` what \
         counts and where it comes from.\n\
         [antecede.example.toml](../../antecede.example.toml) is a file with all of them.\n"
    );
    let mut table = None;
    for key in KEYS {
        let (parent, _) = key.path.rsplit_once('.').unwrap_or(("", key.path));
        if table != Some(parent) {
            table = Some(parent);
            let title = parent.replace("[]", "");
            page.push_str(&format!(
                "\n## {title}\n\n| setting | type | default | bounds | what it does |\n\
                 |---|---|---|---|---|\n"
            ));
        }
        page.push_str(&setting(key));
    }
    page
}

fn setting(key: &Key) -> String {
    let default = key.default.map_or_else(|| "none".to_owned(), |value| format!("`{value}`"));
    format!(
        "| `{}` | {} | {default} | {} | {} |\n",
        key.path,
        key.kind.name(),
        key.bounds,
        cell(&key.doc.replace('\n', " ")),
    )
}

/// A text that stays in its cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}
