//! Answers `COMMAND`, its subcommands and `ACL CAT` from the table of commands.
//!
//! Only commands that exist here are told of, so that a client that looks for a command finds the
//! truth.

use super::{
    DescribeCommand, ListFilter, find,
    row::{Access, Category, KeySpec, Row},
    subcommand, table,
    table::row_named,
};
use crate::resp::{glob, reply::Reply};

/// Answers a question about the table.
pub fn answer(question: &DescribeCommand<'_>, reply: &mut Reply<'_>) {
    match question {
        DescribeCommand::Info(None) => {
            reply.array(table().len());
            for row in table() {
                write_info(row, reply);
            }
        }
        DescribeCommand::Info(Some(names)) => {
            reply.array(names.len());
            for name in names {
                match row_or_subcommand(name) {
                    Some(row) => write_info(row, reply),
                    None => reply.nil(),
                }
            }
        }
        DescribeCommand::Count => reply.integer(i64::try_from(table().len()).unwrap_or(i64::MAX)),
        DescribeCommand::Docs(None) => write_all_docs(&table().iter().collect::<Vec<_>>(), reply),
        DescribeCommand::Docs(Some(names)) => {
            let rows: Vec<_> = names.iter().filter_map(|name| row_or_subcommand(name)).collect();
            write_all_docs(&rows, reply);
        }
        DescribeCommand::List(filter) => write_list(*filter, reply),
        DescribeCommand::Keys { call, with_access } => write_keys(call, *with_access, reply),
        DescribeCommand::Categories(None) => {
            reply.array(Category::ALL.len());
            for (_, name) in Category::ALL {
                reply.bulk(name.as_bytes());
            }
        }
        DescribeCommand::Categories(Some(name)) => write_category(name, reply),
    }
}

/// Lists the subcommands of a command, as `HELP` shows them.
pub fn write_help(command: &Row, reply: &mut Reply<'_>) {
    let name = command.name.to_ascii_uppercase();
    reply.array(1 + 2 * command.subcommands.len());
    reply.status(&format!("{name} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:"));
    for row in command.subcommands {
        let short = row.short_name().to_ascii_uppercase();
        let with_syntax = format!("{short} {}", row.syntax);
        reply.status(with_syntax.trim_end());
        reply.status(&format!("    {}.", row.summary));
    }
}

/// The row of `get` or of `client|id`.
fn row_or_subcommand(name: &[u8]) -> Option<&'static Row> {
    let Some(bar) = name.iter().position(|byte| *byte == b'|') else { return row_named(name) };
    subcommand(row_named(&name[..bar])?, &name[bar + 1..])
}

fn write_info(row: &Row, reply: &mut Reply<'_>) {
    reply.array(10);
    reply.bulk(row.name.as_bytes());
    reply.integer(i64::from(row.arity));
    write_statuses(row.flags.names(), reply);
    let (first, last, step) = row.keys.map_or((0, 0, 0), |spec| {
        (signed(spec.first), spec.last.map_or(-1, signed), signed(spec.step))
    });
    reply.integer(first);
    reply.integer(last);
    reply.integer(step);
    let categories: Vec<_> = row.all_categories().map(|name| format!("@{name}")).collect();
    write_statuses(categories.iter().map(String::as_str), reply);
    reply.set(0); // Tips.
    match row.keys {
        Some(spec) => {
            reply.set(1);
            write_key_spec(spec, reply);
        }
        None => reply.set(0),
    }
    reply.array(row.subcommands.len());
    for subcommand in row.subcommands {
        write_info(subcommand, reply);
    }
}

fn signed(place: usize) -> i64 {
    i64::try_from(place).unwrap_or(i64::MAX)
}

fn write_statuses<'n>(names: impl Iterator<Item = &'n str>, reply: &mut Reply<'_>) {
    let names: Vec<_> = names.collect();
    reply.set(names.len());
    for name in names {
        reply.status(name);
    }
}

fn write_key_spec(spec: KeySpec, reply: &mut Reply<'_>) {
    reply.map(3);
    reply.bulk(b"flags");
    write_statuses(spec.access.0.iter().copied(), reply);
    reply.bulk(b"begin_search");
    reply.map(2);
    reply.bulk(b"type");
    reply.bulk(b"index");
    reply.bulk(b"spec");
    reply.map(1);
    reply.bulk(b"index");
    reply.integer(signed(spec.first));
    reply.bulk(b"find_keys");
    reply.map(2);
    reply.bulk(b"type");
    reply.bulk(b"range");
    reply.bulk(b"spec");
    reply.map(3);
    reply.bulk(b"lastkey");
    // Redis counts the last key from the first one, and -1 from the end.
    reply.integer(spec.last.map_or(-1, |last| signed(last - spec.first)));
    reply.bulk(b"keystep");
    reply.integer(signed(spec.step));
    reply.bulk(b"limit");
    reply.integer(0);
}

fn write_all_docs(rows: &[&Row], reply: &mut Reply<'_>) {
    reply.map(rows.len());
    for row in rows {
        write_docs(row, reply);
    }
}

fn write_docs(row: &Row, reply: &mut Reply<'_>) {
    reply.bulk(row.name.as_bytes());
    let has_subcommands = !row.subcommands.is_empty();
    reply.map(4 + usize::from(has_subcommands));
    let group = row.group.name();
    let fields = [
        ("summary", row.summary),
        ("since", row.since),
        ("group", group),
        ("complexity", row.complexity),
    ];
    for (name, text) in fields {
        reply.bulk(name.as_bytes());
        reply.bulk(text.as_bytes());
    }
    if has_subcommands {
        reply.bulk(b"subcommands");
        reply.map(row.subcommands.len());
        for subcommand in row.subcommands {
            write_docs(subcommand, reply);
        }
    }
}

fn write_list(filter: ListFilter<'_>, reply: &mut Reply<'_>) {
    let is_wanted = |row: &Row| match filter {
        ListFilter::All => true,
        ListFilter::Module => false,
        ListFilter::Category(name) => has_category(row, name),
        ListFilter::Pattern(pattern) => glob::matches_any_case(pattern, row.name.as_bytes()),
    };
    write_names(is_wanted, reply);
}

fn has_category(row: &Row, name: &[u8]) -> bool {
    row.all_categories().any(|category| category.as_bytes().eq_ignore_ascii_case(name))
}

fn write_names(is_wanted: impl Fn(&Row) -> bool, reply: &mut Reply<'_>) {
    let all = table().iter().flat_map(|row| std::iter::once(row).chain(row.subcommands));
    let names: Vec<_> = all.filter(|row| is_wanted(row)).map(|row| row.name).collect();
    reply.array(names.len());
    for name in names {
        reply.bulk(name.as_bytes());
    }
}

fn write_category(name: &[u8], reply: &mut Reply<'_>) {
    if Category::of_name(name).is_none() {
        let line = [b"ERR Unknown category '".as_slice(), name, b"'"].concat();
        return reply.error(&line);
    }
    write_names(|row| has_category(row, name), reply);
}

fn write_keys(call: &[&[u8]], with_access: bool, reply: &mut Reply<'_>) {
    let name = call.first().copied().unwrap_or_default();
    let Some(command) = row_named(name) else {
        return reply.error(b"ERR Invalid command specified");
    };
    let named = call.get(1).and_then(|given| subcommand(command, given)).unwrap_or(command);
    let Some(spec) = named.keys else {
        return reply.error(b"ERR The command has no key arguments");
    };
    let Ok(row) = find(call) else {
        return reply.error(b"ERR Invalid number of arguments specified for command");
    };
    let access = access_of(spec, call);
    let keys: Vec<_> = row.keys_of(call).collect();
    reply.array(keys.len());
    for key in keys {
        if with_access {
            reply.array(2);
            reply.bulk(key);
            write_statuses(access.0.iter().copied(), reply);
        } else {
            reply.bulk(key);
        }
    }
}

/// What a call does with its keys, where that depends on its options: `SET` reads with `GET` only.
fn access_of(spec: KeySpec, call: &[&[u8]]) -> Access {
    if !spec.access.0.contains(&"variable_flags") {
        return spec.access;
    }
    let mut options = call.iter().skip(3);
    if options.any(|option| option.eq_ignore_ascii_case(b"GET")) {
        return Access(&["RW", "access", "update"]);
    }
    Access(&["OW", "update"])
}
