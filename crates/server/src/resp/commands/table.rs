//! Lists all commands, one row each: the one source for what is known about them.
//!
//! A row says how a call is parsed, what `COMMAND` tells of it, which arguments are its keys and
//! what the documents say. The index that finds a row by its name is made at compile time.
//!
//! Ensures: every name finds its row, in either case (a test goes through all).

use super::{
    causal, connection, containers, keys,
    row::{Access, Category, Flags, Group, Row},
    server, strings,
};

/// Looks whether a key is there.
const LOOK: Access = Access(&["RO"]);
/// Reads the value.
const READ: Access = Access(&["RO", "access"]);
/// Writes the value, and may read it.
const SET: Access = Access(&["RW", "access", "update", "variable_flags"]);
/// Writes the value whatever it was.
const OVERWRITE: Access = Access(&["OW", "update"]);
/// Writes the value where there was none.
const INSERT_NEW: Access = Access(&["OW", "insert"]);
/// Removes the key.
const REMOVE: Access = Access(&["RM", "delete"]);
/// Changes the key.
const CHANGE: Access = Access(&["RW", "update"]);
/// Adds to the value.
const EXTEND: Access = Access(&["RW", "insert"]);
/// Reads the value and changes the key.
const EXCHANGE: Access = Access(&["RW", "access", "update"]);
/// Reads the value and removes the key.
const TAKE: Access = Access(&["RW", "access", "delete"]);

/// The places of the index: enough that few names share one.
const INDEX_SIZE: usize = 512;

/// For each hash of a name the row, or the first of those with this hash; rows that share a hash
/// follow in the next places.
static INDEX: [Option<u8>; INDEX_SIZE] = index();

const _: () = assert!(TABLE.len() < u8::MAX as usize, "the index counts rows with one byte");

/// The row of a command, found by its name in either case.
#[inline]
pub(super) fn row_named(name: &[u8]) -> Option<&'static Row> {
    let mut place = hash(name);
    while let Some(found) = INDEX[place] {
        let row = &TABLE[usize::from(found)];
        if row.name.as_bytes().eq_ignore_ascii_case(name) {
            return Some(row);
        }
        place = (place + 1) % INDEX_SIZE;
    }
    None
}

const fn index() -> [Option<u8>; INDEX_SIZE] {
    let mut index = [None; INDEX_SIZE];
    let mut at = 0_u8;
    while (at as usize) < TABLE.len() {
        let mut place = hash(TABLE[at as usize].name.as_bytes());
        while index[place].is_some() {
            place = (place + 1) % INDEX_SIZE;
        }
        index[place] = Some(at);
        at += 1;
    }
    index
}

/// A hash of a name without its case.
const fn hash(name: &[u8]) -> usize {
    let mut hash = name.len();
    let mut at = 0;
    while at < name.len() && at < NAME_BYTES_HASHED {
        hash = hash.wrapping_mul(31).wrapping_add((name[at] | 0x20) as usize);
        at += 1;
    }
    (hash ^ (hash >> 9)) % INDEX_SIZE
}

/// Names are not hashed further than this.
const NAME_BYTES_HASHED: usize = 16;

/// All commands, in the order of the documents.
pub(super) static TABLE: &[Row] = &[
    Row::new("get", 2, strings::get)
        .flags(&[Flags::READONLY, Flags::FAST])
        .keys(1, Some(1), READ)
        .within(Group::String, &[Category::String])
        .since("1.0.0", "O(1)")
        .says("key", "Answers the value of a key, or nil"),
    Row::new("set", -3, strings::set)
        .flags(&[Flags::WRITE, Flags::DENYOOM])
        .keys(1, Some(1), SET)
        .within(Group::String, &[Category::String])
        .since("1.0.0", "O(1)")
        .says(
            "key value [NX | XX] [GET] [EX seconds | PX milliseconds | EXAT seconds | \
             PXAT milliseconds | KEEPTTL]",
            "Gives a key a value; NX and XX look at this datacenter only",
        ),
    Row::new("mget", -2, strings::mget)
        .flags(&[Flags::READONLY, Flags::FAST])
        .keys(1, None, READ)
        .within(Group::String, &[Category::String])
        .since("1.0.0", "O(N)")
        .says("key [key ...]", "Answers the values of several keys"),
    Row::new("mset", -3, strings::mset)
        .flags(&[Flags::WRITE, Flags::DENYOOM])
        .keys(1, None, OVERWRITE)
        .key_step(2)
        .within(Group::String, &[Category::String])
        .since("1.0.1", "O(N)")
        .says(
            "key value [key value ...]",
            "Gives several keys values, in one step if they lie in one shard",
        ),
    Row::new("getset", 3, strings::getset)
        .flags(&[Flags::WRITE, Flags::DENYOOM, Flags::FAST])
        .keys(1, Some(1), EXCHANGE)
        .within(Group::String, &[Category::String])
        .since("1.0.0", "O(1)")
        .says("key value", "Gives a key a value and answers the one before"),
    Row::new("setnx", 3, strings::setnx)
        .flags(&[Flags::WRITE, Flags::DENYOOM, Flags::FAST])
        .keys(1, Some(1), INSERT_NEW)
        .within(Group::String, &[Category::String])
        .since("1.0.0", "O(1)")
        .says("key value", "Gives a key a value if it has none in this datacenter"),
    Row::new("setex", 4, strings::setex)
        .flags(&[Flags::WRITE, Flags::DENYOOM])
        .keys(1, Some(1), OVERWRITE)
        .within(Group::String, &[Category::String])
        .since("2.0.0", "O(1)")
        .says("key seconds value", "Gives a key a value for so many seconds"),
    Row::new("psetex", 4, strings::psetex)
        .flags(&[Flags::WRITE, Flags::DENYOOM])
        .keys(1, Some(1), OVERWRITE)
        .within(Group::String, &[Category::String])
        .since("2.6.0", "O(1)")
        .says("key milliseconds value", "Gives a key a value for so many milliseconds"),
    Row::new("getex", -2, strings::getex)
        .flags(&[Flags::WRITE, Flags::FAST])
        .keys(1, Some(1), EXCHANGE)
        .within(Group::String, &[Category::String])
        .since("6.2.0", "O(1)")
        .says(
            "key [EX seconds | PX milliseconds | EXAT seconds | PXAT milliseconds | \
             PERSIST]",
            "Answers the value of a key and changes its time to live",
        ),
    Row::new("getdel", 2, strings::getdel)
        .flags(&[Flags::WRITE, Flags::FAST])
        .keys(1, Some(1), TAKE)
        .within(Group::String, &[Category::String])
        .since("6.2.0", "O(1)")
        .says("key", "Answers the value of a key and removes it"),
    Row::new("append", 3, strings::append)
        .flags(&[Flags::WRITE, Flags::DENYOOM, Flags::FAST])
        .keys(1, Some(1), EXTEND)
        .within(Group::String, &[Category::String])
        .since("2.0.0", "O(1)")
        .says("key value", "Puts bytes behind a value; between datacenters the last writer wins"),
    Row::new("strlen", 2, strings::strlen)
        .flags(&[Flags::READONLY, Flags::FAST])
        .keys(1, Some(1), LOOK)
        .within(Group::String, &[Category::String])
        .since("2.2.0", "O(1)")
        .says("key", "Answers the length of a value in bytes"),
    Row::new("getrange", 4, strings::getrange)
        .flags(&[Flags::READONLY])
        .keys(1, Some(1), READ)
        .within(Group::String, &[Category::String])
        .since("2.4.0", "O(N)")
        .says("key start end", "Answers a part of a value"),
    Row::new("substr", 4, strings::getrange)
        .flags(&[Flags::READONLY])
        .keys(1, Some(1), READ)
        .within(Group::String, &[Category::String])
        .since("1.0.0", "O(N)")
        .says("key start end", "Answers a part of a value; the old name of GETRANGE"),
    Row::new("setrange", 4, strings::setrange)
        .flags(&[Flags::WRITE, Flags::DENYOOM])
        .keys(1, Some(1), CHANGE)
        .within(Group::String, &[Category::String])
        .since("2.2.0", "O(N)")
        .says(
            "key offset value",
            "Overwrites a part of a value; between datacenters the last writer wins",
        ),
    Row::new("del", -2, keys::del)
        .flags(&[Flags::WRITE])
        .keys(1, None, REMOVE)
        .within(Group::Generic, &[Category::Keyspace])
        .since("1.0.0", "O(N)")
        .says("key [key ...]", "Removes keys and answers how many there were"),
    Row::new("unlink", -2, keys::del)
        .flags(&[Flags::WRITE, Flags::FAST])
        .keys(1, None, REMOVE)
        .within(Group::Generic, &[Category::Keyspace])
        .since("4.0.0", "O(N)")
        .says("key [key ...]", "Removes keys, as DEL does"),
    Row::new("exists", -2, keys::exists)
        .flags(&[Flags::READONLY, Flags::FAST])
        .keys(1, None, LOOK)
        .within(Group::Generic, &[Category::Keyspace])
        .since("1.0.0", "O(N)")
        .says("key [key ...]", "Answers how many of the keys are there"),
    Row::new("touch", -2, keys::exists)
        .flags(&[Flags::READONLY, Flags::FAST])
        .keys(1, None, LOOK)
        .within(Group::Generic, &[Category::Keyspace])
        .since("3.2.1", "O(N)")
        .says("key [key ...]", "Answers how many of the keys are there, as EXISTS does"),
    Row::new("type", 2, keys::type_of)
        .flags(&[Flags::READONLY, Flags::FAST])
        .keys(1, Some(1), LOOK)
        .within(Group::Generic, &[Category::Keyspace])
        .since("1.0.0", "O(1)")
        .says("key", "Answers the type of a value, or none"),
    Row::new("expire", -3, keys::expire)
        .flags(&[Flags::WRITE, Flags::FAST])
        .keys(1, Some(1), CHANGE)
        .within(Group::Generic, &[Category::Keyspace])
        .since("1.0.0", "O(1)")
        .says("key seconds [NX | XX | GT | LT]", "Lets a key end in so many seconds"),
    Row::new("pexpire", -3, keys::pexpire)
        .flags(&[Flags::WRITE, Flags::FAST])
        .keys(1, Some(1), CHANGE)
        .within(Group::Generic, &[Category::Keyspace])
        .since("2.6.0", "O(1)")
        .says("key milliseconds [NX | XX | GT | LT]", "Lets a key end in so many milliseconds"),
    Row::new("expireat", -3, keys::expireat)
        .flags(&[Flags::WRITE, Flags::FAST])
        .keys(1, Some(1), CHANGE)
        .within(Group::Generic, &[Category::Keyspace])
        .since("1.2.0", "O(1)")
        .says("key unix-seconds [NX | XX | GT | LT]", "Lets a key end at a time in seconds"),
    Row::new("pexpireat", -3, keys::pexpireat)
        .flags(&[Flags::WRITE, Flags::FAST])
        .keys(1, Some(1), CHANGE)
        .within(Group::Generic, &[Category::Keyspace])
        .since("2.6.0", "O(1)")
        .says(
            "key unix-milliseconds [NX | XX | GT | LT]",
            "Lets a key end at a time in milliseconds",
        ),
    Row::new("ttl", 2, keys::ttl)
        .flags(&[Flags::READONLY, Flags::FAST])
        .keys(1, Some(1), READ)
        .within(Group::Generic, &[Category::Keyspace])
        .since("1.0.0", "O(1)")
        .says(
            "key",
            "Answers the seconds that a key has left: -1 without an end, -2 without a \
             key",
        ),
    Row::new("pttl", 2, keys::pttl)
        .flags(&[Flags::READONLY, Flags::FAST])
        .keys(1, Some(1), READ)
        .within(Group::Generic, &[Category::Keyspace])
        .since("2.6.0", "O(1)")
        .says(
            "key",
            "Answers the milliseconds that a key has left: -1 without an end, -2 \
             without a key",
        ),
    Row::new("expiretime", 2, keys::expiretime)
        .flags(&[Flags::READONLY, Flags::FAST])
        .keys(1, Some(1), READ)
        .within(Group::Generic, &[Category::Keyspace])
        .since("7.0.0", "O(1)")
        .says("key", "Answers the second at which a key ends"),
    Row::new("pexpiretime", 2, keys::pexpiretime)
        .flags(&[Flags::READONLY, Flags::FAST])
        .keys(1, Some(1), READ)
        .within(Group::Generic, &[Category::Keyspace])
        .since("7.0.0", "O(1)")
        .says("key", "Answers the millisecond at which a key ends"),
    Row::new("persist", 2, keys::persist)
        .flags(&[Flags::WRITE, Flags::FAST])
        .keys(1, Some(1), CHANGE)
        .within(Group::Generic, &[Category::Keyspace])
        .since("2.2.0", "O(1)")
        .says("key", "Removes the end of a key"),
    Row::new("scan", -2, keys::scan)
        .flags(&[Flags::READONLY])
        .within(Group::Generic, &[Category::Keyspace])
        .since("2.8.0", "O(COUNT)")
        .says(
            "cursor [MATCH pattern] [COUNT count] [TYPE type]",
            "Answers some keys of the datacenter and where to go on",
        ),
    Row::new("keys", 2, keys::keys)
        .flags(&[Flags::READONLY])
        .within(Group::Generic, &[Category::Keyspace, Category::Dangerous])
        .since("1.0.0", "O(N)")
        .says("pattern", "Answers all keys of the datacenter that match"),
    Row::new("dbsize", 1, keys::dbsize)
        .flags(&[Flags::READONLY, Flags::FAST])
        .within(Group::Server, &[Category::Keyspace])
        .since("1.0.0", "O(SHARDS)")
        .says("", "Answers how many keys the datacenter has"),
    Row::new("randomkey", 1, keys::randomkey)
        .flags(&[Flags::READONLY])
        .within(Group::Generic, &[Category::Keyspace])
        .since("1.0.0", "O(1)")
        .says("", "Answers some key of the datacenter"),
    Row::new("wait", 3, keys::wait)
        .flags(&[Flags::NOSCRIPT, Flags::NO_MULTI])
        .within(Group::Generic, &[Category::Connection])
        .since("3.0.0", "O(1)")
        .says(
            "count milliseconds",
            "Waits until so many other datacenters have applied the last write of \
             this connection",
        ),
    Row::new("object", -2, server::container)
        .within(Group::Generic, &[])
        .since("2.2.3", "O(1)")
        .says("subcommand [argument ...]", "Tells how a value is kept")
        .subcommands(containers::OBJECT),
    Row::new("causal.token", 1, causal::token)
        .flags(&[Flags::READONLY, Flags::NO_MULTI])
        .within(Group::Causal, &[])
        .since("0.1.0", "O(1)")
        .says("", "Answers a token of all that this connection has read and written"),
    Row::new("causal.after", -2, causal::after)
        .flags(&[Flags::READONLY, Flags::NO_MULTI])
        .within(Group::Causal, &[])
        .since("0.1.0", "O(1)")
        .says(
            "token [TIMEOUT milliseconds]",
            "Waits until all that a token covers can be read here, and goes on from \
             there",
        ),
    Row::new("causal.reset", 1, causal::reset)
        .flags(&[Flags::FAST, Flags::NO_MULTI])
        .within(Group::Causal, &[])
        .since("0.1.0", "O(1)")
        .says("", "Forgets what this connection has read and written"),
    Row::new("causal.level", -1, causal::level)
        .flags(&[Flags::FAST, Flags::NO_MULTI])
        .within(Group::Causal, &[])
        .since("0.1.0", "O(1)")
        .says(
            "[eventual | linearizable]",
            "Chooses how strong the promises of the following commands are, or \
             answers it",
        ),
    Row::new("causal.do", -4, causal::with_id)
        .flags(&[Flags::NOSCRIPT, Flags::NO_MULTI])
        .within(Group::Causal, &[])
        .since("0.1.0", "That of the command")
        .says(
            "ID datacenter.name:number command [argument ...]",
            "Executes a command that may write, or EXEC, unless it was executed under this id \
             before: then it answers as it did then",
        ),
    Row::new("multi", 1, connection::multi)
        .flags(&[Flags::NOSCRIPT, Flags::LOADING, Flags::STALE, Flags::FAST, Flags::ALLOW_BUSY])
        .within(Group::Transactions, &[Category::Transaction])
        .since("1.2.0", "O(1)")
        .says("", "Begins a transaction: what follows is queued"),
    Row::new("exec", 1, connection::exec)
        .flags(&[Flags::NOSCRIPT, Flags::LOADING, Flags::STALE])
        .within(Group::Transactions, &[Category::Transaction])
        .since("1.2.0", "O(N)")
        .says("", "Executes what is queued in one step, in one shard"),
    Row::new("discard", 1, connection::discard)
        .flags(&[Flags::NOSCRIPT, Flags::LOADING, Flags::STALE, Flags::FAST, Flags::ALLOW_BUSY])
        .within(Group::Transactions, &[Category::Transaction])
        .since("2.0.0", "O(N)")
        .says("", "Forgets what is queued"),
    Row::new("watch", -2, connection::watch)
        .flags(&[Flags::NOSCRIPT, Flags::LOADING, Flags::STALE, Flags::FAST, Flags::ALLOW_BUSY])
        .keys(1, None, LOOK)
        .within(Group::Transactions, &[Category::Transaction])
        .since("2.2.0", "O(N)")
        .says(
            "key [key ...]",
            "Lets the next transaction fail if one of the keys changes before it",
        ),
    Row::new("unwatch", 1, connection::unwatch)
        .flags(&[Flags::NOSCRIPT, Flags::LOADING, Flags::STALE, Flags::FAST, Flags::ALLOW_BUSY])
        .within(Group::Transactions, &[Category::Transaction])
        .since("2.2.0", "O(1)")
        .says("", "Forgets the keys that are watched"),
    Row::new("hello", -1, connection::hello)
        .flags(&[
            Flags::NOSCRIPT,
            Flags::LOADING,
            Flags::STALE,
            Flags::FAST,
            Flags::NO_AUTH,
            Flags::ALLOW_BUSY,
            Flags::NO_MULTI,
        ])
        .within(Group::Connection, &[Category::Connection])
        .since("6.0.0", "O(1)")
        .says(
            "[version [AUTH user password] [SETNAME name]]",
            "Agrees on the version of the protocol",
        ),
    Row::new("auth", -2, connection::auth)
        .flags(&[
            Flags::NOSCRIPT,
            Flags::LOADING,
            Flags::STALE,
            Flags::FAST,
            Flags::NO_AUTH,
            Flags::ALLOW_BUSY,
            Flags::NO_MULTI,
        ])
        .within(Group::Connection, &[Category::Connection])
        .since("1.0.0", "O(1)")
        .says("[user] password", "Authenticates the connection"),
    Row::new("ping", -1, connection::ping)
        .flags(&[Flags::FAST])
        .within(Group::Connection, &[Category::Connection])
        .since("1.0.0", "O(1)")
        .says("[message]", "Answers PONG, or the message"),
    Row::new("echo", 2, connection::echo)
        .flags(&[Flags::LOADING, Flags::STALE, Flags::FAST])
        .within(Group::Connection, &[Category::Connection])
        .since("1.0.0", "O(1)")
        .says("message", "Answers the message"),
    Row::new("select", 2, connection::select)
        .flags(&[Flags::LOADING, Flags::STALE, Flags::FAST])
        .within(Group::Connection, &[Category::Connection])
        .since("1.0.0", "O(1)")
        .says("index", "Accepts database 0, the only one"),
    Row::new("quit", -1, connection::quit)
        .flags(&[
            Flags::NOSCRIPT,
            Flags::LOADING,
            Flags::STALE,
            Flags::FAST,
            Flags::NO_AUTH,
            Flags::ALLOW_BUSY,
        ])
        .within(Group::Connection, &[Category::Connection])
        .since("1.0.0", "O(1)")
        .says("", "Closes the connection"),
    Row::new("reset", 1, connection::reset)
        .flags(&[
            Flags::NOSCRIPT,
            Flags::LOADING,
            Flags::STALE,
            Flags::FAST,
            Flags::NO_AUTH,
            Flags::ALLOW_BUSY,
        ])
        .within(Group::Connection, &[Category::Connection])
        .since("6.2.0", "O(1)")
        .says("", "Makes the connection as it was when it was new"),
    Row::new("readonly", 1, connection::accept)
        .flags(&[Flags::LOADING, Flags::STALE, Flags::FAST])
        .within(Group::Connection, &[Category::Connection])
        .since("3.0.0", "O(1)")
        .says("", "Is accepted: every node answers reads anyway"),
    Row::new("readwrite", 1, connection::accept)
        .flags(&[Flags::LOADING, Flags::STALE, Flags::FAST])
        .within(Group::Connection, &[Category::Connection])
        .since("3.0.0", "O(1)")
        .says("", "Is accepted: every node takes writes anyway"),
    Row::new("asking", 1, connection::accept)
        .flags(&[Flags::FAST])
        .within(Group::Connection, &[Category::Connection])
        .since("3.0.0", "O(1)")
        .says("", "Is accepted: every node takes every key anyway"),
    Row::new("client", -2, server::container)
        .within(Group::Connection, &[])
        .since("2.4.0", "O(1)")
        .says("subcommand [argument ...]", "Tells of connections, and changes this one")
        .subcommands(containers::CLIENT),
    Row::new("command", -1, server::command)
        .flags(&[Flags::LOADING, Flags::STALE])
        .within(Group::Server, &[Category::Connection])
        .since("2.8.13", "O(N)")
        .says("[subcommand [argument ...]]", "Describes the commands")
        .subcommands(containers::COMMAND),
    Row::new("info", -1, server::info)
        .flags(&[Flags::LOADING, Flags::STALE])
        .within(Group::Server, &[Category::Dangerous])
        .since("1.0.0", "O(1)")
        .says("[section ...]", "Describes the server"),
    Row::new("time", 1, server::time)
        .flags(&[Flags::LOADING, Flags::STALE, Flags::FAST])
        .within(Group::Server, &[])
        .since("2.6.0", "O(1)")
        .says("", "Answers the time of this node in seconds and microseconds"),
    Row::new("config", -2, server::container)
        .within(Group::Server, &[])
        .since("2.0.0", "O(1)")
        .says("subcommand [argument ...]", "Reads and changes settings of this node")
        .subcommands(containers::CONFIG),
    Row::new("acl", -2, server::container)
        .within(Group::Server, &[])
        .since("6.0.0", "O(1)")
        .says("subcommand [argument ...]", "Tells of users and categories")
        .subcommands(containers::ACL),
    Row::new("memory", -2, server::container)
        .within(Group::Server, &[])
        .since("4.0.0", "O(1)")
        .says("subcommand [argument ...]", "Tells what a key costs")
        .subcommands(containers::MEMORY),
    Row::new("latency", -2, server::container)
        .within(Group::Server, &[])
        .since("2.8.13", "O(1)")
        .says("subcommand [argument ...]", "Is answered as if nothing had been slow")
        .subcommands(containers::LATENCY),
    Row::new("slowlog", -2, server::container)
        .within(Group::Server, &[])
        .since("2.2.12", "O(1)")
        .says("subcommand [argument ...]", "Is answered as if nothing had been slow")
        .subcommands(containers::SLOWLOG),
    Row::new("module", -2, server::container)
        .within(Group::Server, &[])
        .since("4.0.0", "O(1)")
        .says("subcommand [argument ...]", "Says that there are no modules")
        .subcommands(containers::MODULE),
    Row::new("cluster", -2, server::container)
        .within(Group::Cluster, &[])
        .since("3.0.0", "O(1)")
        .says("subcommand [argument ...]", "Tells of slots; clients need not know where keys are")
        .subcommands(containers::CLUSTER),
];
