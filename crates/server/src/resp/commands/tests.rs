//! Checks the table of commands, their parsing and the words of their errors.

use antecede_model::{
    consistency::Consistency,
    operation::{Action, Condition, ExpireCondition, Operation, SetReply, Ttl},
};
use antecede_protocol::session::command::Gather;

use super::*;
use crate::resp::reply::{Protocol, Reply};

const NOW: u64 = 1_000_000;

fn words(line: &str) -> Vec<&[u8]> {
    line.split(' ')
        .map(|word| if word == "''" { b"".as_slice() } else { word.as_bytes() })
        .collect()
}

fn error(line: &str) -> String {
    let error = parse(&words(line), NOW).expect_err(line);
    String::from_utf8(error.line()).unwrap()
}

fn action<'a>(words: &[&'a [u8]]) -> Action<'a> {
    match parse(words, NOW) {
        Ok(Parsed::Session(Command::One(Operation { action, .. }), _)) => action,
        other => panic!("no single operation: {other:?}"),
    }
}

fn set(condition: Condition, ttl: Ttl, reply: SetReply) -> Action<'static> {
    Action::Set { value: b"v", condition, ttl, reply }
}

#[test]
fn every_name_finds_its_row_in_either_case() {
    for row in table() {
        for name in [row.name.to_owned(), row.name.to_ascii_uppercase()] {
            let found = table::row_named(name.as_bytes()).map(|row| row.name);
            assert_eq!(found, Some(row.name));
        }
    }
    assert_eq!(table::row_named(b""), None);
    assert_eq!(table::row_named(b"getter"), None);
    assert_eq!(table::row_named(&[0xff; 3000]), None);
}

#[test]
fn every_row_is_complete() {
    let all = table().iter().flat_map(|row| std::iter::once(row).chain(row.subcommands));
    for row in all {
        assert!(!row.summary.is_empty() && !row.summary.ends_with('.'), "{}", row.name);
        assert!(row.arity != 0, "{}", row.name);
        assert_eq!(row.name, row.name.to_ascii_lowercase());
        let is_on_keys = row.flags.has(row::Flags::WRITE) || row.keys.is_some();
        assert!(!is_on_keys || row.keys.is_some(), "{} writes and has no keys", row.name);
        for subcommand in row.subcommands {
            let command = subcommand.name.split_once('|').map(|(command, _)| command);
            assert_eq!(command, Some(row.name));
        }
    }
}

#[test]
fn names_are_either_here_or_missing_and_never_twice() {
    let missing = unavailable::MISSING.iter().flat_map(|missing| missing.names);
    let mut names: Vec<_> = table().iter().map(|row| row.name).chain(missing.copied()).collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
    assert!(200 < count);
}

#[test]
fn set_takes_every_option() {
    let (always, absent, present) = (Condition::Always, Condition::IfAbsent, Condition::IfPresent);
    let (status, previous) = (SetReply::Status, SetReply::Previous);
    for (line, expected) in [
        ("SET k v", set(always, Ttl::Clear, status)),
        ("set k v nx", set(absent, Ttl::Clear, status)),
        ("SET k v XX GET", set(present, Ttl::Clear, previous)),
        ("SET k v GET NX KEEPTTL", set(absent, Ttl::Keep, previous)),
        ("SET k v EX 5", set(always, Ttl::Until(NOW + 5000), status)),
        ("SET k v px 5 XX", set(present, Ttl::Until(NOW + 5), status)),
        ("SET k v EXAT 7", set(always, Ttl::Until(7000), status)),
        ("SET k v PXAT 7", set(always, Ttl::Until(7), status)),
        ("SET k v EX 5 EX 6", set(always, Ttl::Until(NOW + 6000), status)),
        ("SETEX k 5 v", set(always, Ttl::Until(NOW + 5000), status)),
        ("PSETEX k 5 v", set(always, Ttl::Until(NOW + 5), status)),
        ("SETNX k v", set(absent, Ttl::Clear, SetReply::Flag)),
        ("GETSET k v", set(always, Ttl::Clear, previous)),
        ("GETEX k", Action::GetAndExpire { ttl: Ttl::Keep }),
        ("GETEX k PERSIST", Action::GetAndExpire { ttl: Ttl::Clear }),
        ("GETEX k EXAT 9", Action::GetAndExpire { ttl: Ttl::Until(9000) }),
    ] {
        assert_eq!(action(&words(line)), expected, "{line}");
    }
}

#[test]
fn deadlines_count_from_the_given_time() {
    let expire = |deadline, condition| Action::Expire { deadline, condition };
    for (line, expected) in [
        ("EXPIRE k 5", expire(NOW + 5000, ExpireCondition::Always)),
        ("PEXPIRE k 5 NX", expire(NOW + 5, ExpireCondition::IfNone)),
        ("EXPIREAT k 5 XX GT", expire(5000, ExpireCondition::IfSomeAndLater)),
        ("PEXPIREAT k 5 LT XX", expire(5, ExpireCondition::IfSomeAndEarlier)),
        ("PEXPIREAT k 5 GT", expire(5, ExpireCondition::IfLater)),
        ("PEXPIREAT k 5 LT LT", expire(5, ExpireCondition::IfEarlier)),
        ("EXPIRE k -5000", expire(0, ExpireCondition::Always)),
        ("EXPIRE k -5", expire(NOW - 5000, ExpireCondition::Always)),
    ] {
        assert_eq!(action(&words(line)), expected, "{line}");
    }
}

#[test]
fn errors_have_the_words_of_redis() {
    for (line, expected) in [
        ("GET", "ERR wrong number of arguments for 'get' command"),
        ("GET a b", "ERR wrong number of arguments for 'get' command"),
        ("MSET a b c", "ERR wrong number of arguments for 'mset' command"),
        ("CLIENT", "ERR wrong number of arguments for 'client' command"),
        ("client setname", "ERR wrong number of arguments for 'client|setname' command"),
        ("CLIENT foo", "ERR unknown subcommand 'foo'. Try CLIENT HELP."),
        (
            "CLIENT MAINT_NOTIFICATIONS ON",
            "ERR unknown subcommand 'MAINT_NOTIFICATIONS'. Try CLIENT HELP.",
        ),
        ("foo", "ERR unknown command 'foo', with args beginning with: "),
        ("foo a b", "ERR unknown command 'foo', with args beginning with: 'a' 'b' "),
        ("SET k v EX", "ERR syntax error"),
        ("SET k v EX 5 PX 5", "ERR syntax error"),
        ("SET k v EX 5 KEEPTTL", "ERR syntax error"),
        ("SET k v KEEPTTL EX 5", "ERR syntax error"),
        ("SET k v NX XX", "ERR syntax error"),
        ("SET k v EX x", "ERR value is not an integer or out of range"),
        ("SET k v EX 0", "ERR invalid expire time in 'set' command"),
        ("SET k v EX 9223372036854775807", "ERR invalid expire time in 'set' command"),
        ("SET k v PX 9223372036854775807", "ERR invalid expire time in 'set' command"),
        ("SETEX k -1 v", "ERR invalid expire time in 'setex' command"),
        ("GETEX k PERSIST EX 1", "ERR syntax error"),
        ("EXPIRE k 1 FOO", "ERR Unsupported option FOO"),
        ("EXPIRE k 1 NX GT", "ERR NX and XX, GT or LT options at the same time are not compatible"),
        ("EXPIRE k 1 GT LT", "ERR GT and LT options at the same time are not compatible"),
        ("EXPIRE k 9223372036854775807", "ERR invalid expire time in 'expire' command"),
        ("SETRANGE k -1 v", "ERR offset is out of range"),
        ("GETRANGE k a 1", "ERR value is not an integer or out of range"),
        ("SCAN x", "ERR invalid cursor"),
        ("SCAN 18446744073709551616", "ERR invalid cursor"),
        ("SCAN 0 COUNT 0", "ERR syntax error"),
        ("SCAN 0 MATCH", "ERR syntax error"),
        ("WAIT 1 x", "ERR timeout is not an integer or out of range"),
        ("WAIT 1 -1", "ERR timeout is negative"),
        ("SELECT 1", "ERR DB index is out of range"),
        ("HELLO 4", "NOPROTO unsupported protocol version"),
        ("HELLO x", "ERR Protocol version is not an integer or out of range"),
        ("HELLO 3 AUTH a", "ERR Syntax error in HELLO option 'AUTH'"),
        (
            "incr k",
            "ERR INCR is not available yet: counters that merge between datacenters come in a \
             later version; GET, SET and the other string commands work",
        ),
        (
            "CAUSAL.LEVEL bounded",
            "ERR level 'bounded' is not available: choose eventual or linearizable",
        ),
    ] {
        assert_eq!(error(line), expected, "{line}");
    }
}

#[test]
fn an_unknown_command_repeats_so_much_of_its_arguments() {
    let long = vec![b'x'; 200];
    let text = CommandError::unknown(&[&long, b"a", &long, b"b"]).line();
    let expected = format!(
        "ERR unknown command '{}', with args beginning with: 'a' '{}' ",
        "x".repeat(128),
        "x".repeat(124)
    );
    assert_eq!(String::from_utf8(text).unwrap(), expected);
}

#[test]
fn a_key_that_is_too_long_is_refused() {
    let key = vec![b'k'; 64 * 1024 + 1];
    for call in [&[b"GET".as_slice(), &key][..], &[b"DEL", b"a", &key], &[b"MSET", &key, b"v"]] {
        let line = parse(call, NOW).unwrap_err().line();
        assert_eq!(line, b"ERR a key of 65537 bytes is too long, the limit is 65536");
    }
}

#[test]
fn several_keys_become_several_operations() {
    let gathered = |line: &str| match parse(&words(line), NOW) {
        Ok(Parsed::Session(Command::Several { operations, gather }, _)) => {
            (operations.len(), gather)
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(gathered("MGET a"), (1, Gather::List));
    assert_eq!(gathered("MSET a b c d"), (2, Gather::Ok));
    assert_eq!(gathered("DEL a b c"), (3, Gather::Sum));
    assert_eq!(action(&words("DEL a")), Action::Delete);
    assert_eq!(action(&words("EXISTS a")), Action::Exists);
}

#[test]
fn a_scan_takes_its_options_and_other_types_have_no_keys() {
    let words_of_scan = words("SCAN -1 MATCH a* COUNT 5");
    let parsed = parse(&words_of_scan, NOW);
    let command = Command::Scan { cursor: u64::MAX, count: 5, pattern: Some(b"a*") };
    assert_eq!(parsed, Ok(Parsed::Session(command, Shape::Plain)));
    let all = Command::Scan { cursor: 0, count: 10, pattern: None };
    let parsed = parse(&words("SCAN '' MATCH * TYPE STRING"), NOW);
    assert_eq!(parsed, Ok(Parsed::Session(all, Shape::Plain)));
    let nothing = Parsed::Connection(ConnectionCommand::Fixed(FixedReply::NothingScanned));
    assert_eq!(parse(&words("SCAN 0 TYPE hash"), NOW), Ok(nothing));
}

#[test]
fn causal_commands_are_understood() {
    let level = Command::Level(Some(Consistency::Eventual));
    let parsed = parse(&words("CAUSAL.LEVEL Eventual"), NOW);
    assert_eq!(parsed, Ok(Parsed::Session(level, Shape::Plain)));
    let after = ConnectionCommand::After { token: b"ct1_x", timeout_millis: Some(50) };
    let parsed = parse(&words("CAUSAL.AFTER ct1_x TIMEOUT 50"), NOW);
    assert_eq!(parsed, Ok(Parsed::Connection(after)));
    assert_eq!(error("CAUSAL.AFTER ct1_x TIMEOUT"), "ERR syntax error");
}

#[test]
fn a_command_may_have_a_request_id() {
    let Ok(Parsed::Session(Command::Retried { id, words: sum, command }, Shape::Plain)) =
        parse(&words("causal.do id eu-west.app:1763767616000001 Append k v"), NOW)
    else {
        panic!("it is one");
    };
    let parsed = parse(&words("APPEND k v"), NOW);
    assert_eq!(parsed, Ok(Parsed::Session((*command).clone(), Shape::Plain)));
    assert_eq!((id.datacenter, id.client, id.number), ("eu-west", "app", 1_763_767_616_000_001));
    let call = words("append k v");
    assert_eq!(sum, antecede_model::retry::words_of(call.into_iter()));
    let parsed = parse(&words("CAUSAL.DO ID eu.app:1 EXEC"), NOW);
    let Ok(Parsed::Connection(ConnectionCommand::Exec(Some(id)))) = parsed else {
        panic!("it is one");
    };
    assert_eq!(id.number, 1);
    let several = "CAUSAL.DO ID eu.app:1 MSET a 1 b 2";
    assert!(parse(&words(several), NOW).is_ok());
}

#[test]
fn a_request_id_is_for_what_may_write() {
    let no_write = "ERR CAUSAL.DO ID takes a command that may write keys, or EXEC; send others \
                    again as they are";
    for line in [
        "CAUSAL.DO ID eu.app:1 GET k",
        "CAUSAL.DO ID eu.app:1 MGET k l",
        "CAUSAL.DO ID eu.app:1 PING",
        "CAUSAL.DO ID eu.app:1 DBSIZE",
        "CAUSAL.DO ID eu.app:1 CAUSAL.DO ID eu.app:1 SET k v",
        "CAUSAL.DO ID eu.app:1 MULTI",
    ] {
        assert_eq!(error(line), no_write, "{line}");
    }
    assert_eq!(error("CAUSAL.DO IT eu.app:1 SET k v"), "ERR syntax error");
    assert!(error("CAUSAL.DO ID app:1 SET k v").starts_with("ERR a request id is <datacenter>"));
    let arity = "ERR wrong number of arguments for 'set' command";
    assert_eq!(error("CAUSAL.DO ID eu.app:1 SET k"), arity);
}

fn described(line: &str) -> String {
    let words = words(line);
    let Ok(Parsed::Connection(ConnectionCommand::Describe(question))) = parse(&words, NOW) else {
        panic!("no question about the table: {line}");
    };
    let mut out = Vec::new();
    describe::answer(&question, &mut Reply::new(Protocol::Two, &mut out));
    String::from_utf8(out).unwrap()
}

#[test]
fn keys_of_a_call_are_told_from_the_table() {
    for (line, expected) in [
        ("COMMAND GETKEYS MSET a b c d", "*2\r\n$1\r\na\r\n$1\r\nc\r\n"),
        ("COMMAND GETKEYS OBJECT ENCODING k", "*1\r\n$1\r\nk\r\n"),
        ("COMMAND GETKEYS WATCH a b", "*2\r\n$1\r\na\r\n$1\r\nb\r\n"),
        ("COMMAND GETKEYS PING a", "-ERR The command has no key arguments\r\n"),
        ("COMMAND GETKEYS FOO a", "-ERR Invalid command specified\r\n"),
        ("COMMAND GETKEYS GET a b", "-ERR Invalid number of arguments specified for command\r\n"),
        ("COMMAND GETKEYSANDFLAGS SET k v", "*1\r\n*2\r\n$1\r\nk\r\n*2\r\n+OW\r\n+update\r\n"),
        (
            "COMMAND GETKEYSANDFLAGS SET k v get",
            "*1\r\n*2\r\n$1\r\nk\r\n*3\r\n+RW\r\n+access\r\n+update\r\n",
        ),
        ("COMMAND LIST FILTERBY MODULE m", "*0\r\n"),
        ("COMMAND DOCS nosuch", "*0\r\n"),
        ("COMMAND INFO nosuch", "*1\r\n$-1\r\n"),
        (
            "ACL CAT transaction",
            "*5\r\n$5\r\nmulti\r\n$4\r\nexec\r\n$7\r\ndiscard\r\n$5\r\nwatch\r\n$7\r\nunwatch\r\n",
        ),
        ("ACL CAT foo", "-ERR Unknown category 'foo'\r\n"),
    ] {
        assert_eq!(described(line), expected, "{line}");
    }
}

#[test]
fn command_info_has_the_form_of_redis() {
    let expected = "*1\r\n*10\r\n$3\r\nget\r\n:2\r\n*2\r\n+readonly\r\n+fast\r\n:1\r\n:1\r\n:1\r\n\
        *3\r\n+@read\r\n+@string\r\n+@fast\r\n*0\r\n*1\r\n*6\r\n$5\r\nflags\r\n*2\r\n+RO\r\n\
        +access\r\n$12\r\nbegin_search\r\n*4\r\n$4\r\ntype\r\n$5\r\nindex\r\n$4\r\nspec\r\n*2\r\n\
        $5\r\nindex\r\n:1\r\n$9\r\nfind_keys\r\n*4\r\n$4\r\ntype\r\n$5\r\nrange\r\n$4\r\nspec\r\n\
        *6\r\n$7\r\nlastkey\r\n:0\r\n$7\r\nkeystep\r\n:1\r\n$5\r\nlimit\r\n:0\r\n*0\r\n";
    assert_eq!(described("COMMAND INFO get"), expected);
    let count = format!(":{}\r\n", table().len());
    assert_eq!(described("COMMAND COUNT"), count);
    assert!(
        described("COMMAND INFO mset")
            .contains(":-3\r\n*2\r\n+write\r\n+denyoom\r\n:1\r\n:-1\r\n:2\r\n")
    );
    assert!(described("COMMAND LIST").contains("client|setinfo"));
    assert!(described("COMMAND DOCS client").contains("subcommands"));
}
