//! Parses the commands that ask the server about itself.

use antecede_model::key::slot_of;

use super::{
    ConnectionCommand, DescribeCommand, FixedReply, ListFilter, Parsed, error::CommandError,
    row::Call, strings::is_word,
};
use crate::resp::integer;

fn answered<'a>(command: ConnectionCommand<'a>) -> Result<Parsed<'a>, CommandError> {
    Ok(Parsed::Connection(command))
}

fn fixed<'a>(reply: FixedReply) -> Result<Parsed<'a>, CommandError> {
    answered(ConnectionCommand::Fixed(reply))
}

fn described<'a>(question: DescribeCommand<'a>) -> Result<Parsed<'a>, CommandError> {
    answered(ConnectionCommand::Describe(question))
}

/// A command that has subcommands, called without any; its arity ensures that there is one.
pub(super) fn container<'a>(call: &Call<'_, 'a>) -> Result<Parsed<'a>, CommandError> {
    Err(CommandError::WrongArity { name: call.row.name })
}

/// `HELP` of any command that has subcommands.
pub(super) fn help<'a>(call: &Call<'_, 'a>) -> Result<Parsed<'a>, CommandError> {
    let command = super::table::row_named(call.argument(0));
    answered(ConnectionCommand::Help(command.unwrap_or(call.row)))
}

pub(super) fn command<'a>(_: &Call<'_, 'a>) -> Result<Parsed<'a>, CommandError> {
    described(DescribeCommand::Info(None))
}

pub(super) fn command_info<'a>(call: &Call<'_, 'a>) -> Result<Parsed<'a>, CommandError> {
    let names = call.from(2);
    described(DescribeCommand::Info((!names.is_empty()).then(|| names.to_vec())))
}

pub(super) fn command_docs<'a>(call: &Call<'_, 'a>) -> Result<Parsed<'a>, CommandError> {
    let names = call.from(2);
    described(DescribeCommand::Docs((!names.is_empty()).then(|| names.to_vec())))
}

pub(super) fn command_count<'a>(_: &Call<'_, 'a>) -> Result<Parsed<'a>, CommandError> {
    described(DescribeCommand::Count)
}

pub(super) fn command_list<'a>(call: &Call<'_, 'a>) -> Result<Parsed<'a>, CommandError> {
    let filter = match call.from(2) {
        [] => ListFilter::All,
        [word, kind, value] if is_word(word, "FILTERBY") => {
            if is_word(kind, "MODULE") {
                ListFilter::Module
            } else if is_word(kind, "ACLCAT") {
                ListFilter::Category(value)
            } else if is_word(kind, "PATTERN") {
                ListFilter::Pattern(value)
            } else {
                return Err(CommandError::Syntax);
            }
        }
        _ => return Err(CommandError::Syntax),
    };
    described(DescribeCommand::List(filter))
}

pub(super) fn command_getkeys<'a>(call: &Call<'_, 'a>) -> Result<Parsed<'a>, CommandError> {
    described(DescribeCommand::Keys { call: call.from(2).to_vec(), with_access: false })
}

pub(super) fn command_getkeysandflags<'a>(call: &Call<'_, 'a>) -> Result<Parsed<'a>, CommandError> {
    described(DescribeCommand::Keys { call: call.from(2).to_vec(), with_access: true })
}

pub(super) fn acl_cat<'a>(call: &Call<'_, 'a>) -> Result<Parsed<'a>, CommandError> {
    match call.from(2) {
        [] => described(DescribeCommand::Categories(None)),
        [name] => described(DescribeCommand::Categories(Some(name))),
        _ => Err(CommandError::WrongArity { name: call.row.name }),
    }
}

pub(super) fn acl_whoami<'a>(_: &Call<'_, 'a>) -> Result<Parsed<'a>, CommandError> {
    fixed(FixedReply::Bulk("default"))
}

pub(super) fn acl_list<'a>(_: &Call<'_, 'a>) -> Result<Parsed<'a>, CommandError> {
    answered(ConnectionCommand::AclList)
}

pub(super) fn acl_users<'a>(_: &Call<'_, 'a>) -> Result<Parsed<'a>, CommandError> {
    fixed(FixedReply::Users)
}

pub(super) fn info<'a>(call: &Call<'_, 'a>) -> Result<Parsed<'a>, CommandError> {
    answered(ConnectionCommand::Info { sections: call.from(1).to_vec() })
}

pub(super) fn time<'a>(_: &Call<'_, 'a>) -> Result<Parsed<'a>, CommandError> {
    answered(ConnectionCommand::Time)
}

pub(super) fn config_get<'a>(call: &Call<'_, 'a>) -> Result<Parsed<'a>, CommandError> {
    answered(ConnectionCommand::ConfigGet { patterns: call.from(2).to_vec() })
}

pub(super) fn config_set<'a>(call: &Call<'_, 'a>) -> Result<Parsed<'a>, CommandError> {
    let pairs = call.from(2).chunks_exact(2);
    if !pairs.remainder().is_empty() {
        return Err(CommandError::WrongArity { name: call.row.name });
    }
    answered(ConnectionCommand::ConfigSet { pairs: pairs.map(|pair| (pair[0], pair[1])).collect() })
}

pub(super) fn config_resetstat<'a>(_: &Call<'_, 'a>) -> Result<Parsed<'a>, CommandError> {
    answered(ConnectionCommand::ConfigResetStatistics)
}

pub(super) fn config_rewrite<'a>(_: &Call<'_, 'a>) -> Result<Parsed<'a>, CommandError> {
    Err(CommandError::fixed(
        "ERR CONFIG REWRITE is not available yet: write the change into the configuration file",
    ))
}

pub(super) fn cluster_info<'a>(_: &Call<'_, 'a>) -> Result<Parsed<'a>, CommandError> {
    answered(ConnectionCommand::ClusterInfo)
}

pub(super) fn cluster_myid<'a>(_: &Call<'_, 'a>) -> Result<Parsed<'a>, CommandError> {
    answered(ConnectionCommand::ClusterMyId)
}

pub(super) fn cluster_keyslot<'a>(call: &Call<'_, 'a>) -> Result<Parsed<'a>, CommandError> {
    fixed(FixedReply::Integer(i64::from(slot_of(call.argument(2)))))
}

/// What only a cluster that tells its clients where to go can answer; here any node takes any key.
pub(super) fn cluster_disabled<'a>(_: &Call<'_, 'a>) -> Result<Parsed<'a>, CommandError> {
    Err(CommandError::fixed("ERR This instance has cluster support disabled"))
}

pub(super) fn empty_array<'a>(_: &Call<'_, 'a>) -> Result<Parsed<'a>, CommandError> {
    fixed(FixedReply::EmptyArray)
}

pub(super) fn empty_map<'a>(_: &Call<'_, 'a>) -> Result<Parsed<'a>, CommandError> {
    fixed(FixedReply::EmptyMap)
}

pub(super) fn zero<'a>(_: &Call<'_, 'a>) -> Result<Parsed<'a>, CommandError> {
    fixed(FixedReply::Integer(0))
}

pub(super) fn slowlog_get<'a>(call: &Call<'_, 'a>) -> Result<Parsed<'a>, CommandError> {
    match call.from(2) {
        [] => fixed(FixedReply::EmptyArray),
        [count] if integer::parse(count).is_some_and(|count| -1 <= count) => {
            fixed(FixedReply::EmptyArray)
        }
        [_] => Err(CommandError::fixed("ERR count should be greater than or equal to -1")),
        _ => Err(CommandError::WrongArity { name: call.row.name }),
    }
}

pub(super) fn object_idletime<'a>(call: &Call<'_, 'a>) -> Result<Parsed<'a>, CommandError> {
    Err(not_kept(call, "the time of a key's last use is not kept"))
}

pub(super) fn object_freq<'a>(call: &Call<'_, 'a>) -> Result<Parsed<'a>, CommandError> {
    Err(not_kept(call, "how often a key is used is not kept"))
}

pub(super) fn memory_other<'a>(call: &Call<'_, 'a>) -> Result<Parsed<'a>, CommandError> {
    Err(not_kept(call, "see INFO memory"))
}

pub(super) fn latency_other<'a>(call: &Call<'_, 'a>) -> Result<Parsed<'a>, CommandError> {
    Err(not_kept(call, "see the metrics of the admin port"))
}

pub(super) fn acl_other<'a>(call: &Call<'_, 'a>) -> Result<Parsed<'a>, CommandError> {
    Err(not_kept(call, "there is one user, default, with one password from the configuration"))
}

pub(super) fn module_other<'a>(call: &Call<'_, 'a>) -> Result<Parsed<'a>, CommandError> {
    Err(not_kept(call, "there are no modules"))
}

fn not_kept(call: &Call<'_, '_>, reason: &'static str) -> CommandError {
    let name = call.row.name.to_ascii_uppercase().replace('|', " ");
    CommandError::NotAvailable { name, reason }
}
