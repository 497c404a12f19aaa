//! Lists the subcommands of the commands that have some, one row each.
//!
//! A subcommand that Redis has and that cannot be served here has a row as well: its error says
//! why, and `HELP` says what there is.

use super::{
    connection, keys,
    row::{Access, Category, Flags, Group, Row},
    server,
};

/// Looks whether a key is there.
const LOOK: Access = Access(&["RO"]);

/// Subcommands of `OBJECT`.
pub(super) const OBJECT: &[Row] = &[
    Row::new("object|encoding", 3, keys::object_encoding)
        .flags(&[Flags::READONLY])
        .keys(2, Some(2), LOOK)
        .within(Group::Generic, &[Category::Keyspace])
        .since("2.2.3", "O(1)")
        .says("key", "Answers how a value is encoded, in Redis's words"),
    Row::new("object|freq", 3, server::object_freq)
        .flags(&[Flags::READONLY])
        .keys(2, Some(2), LOOK)
        .within(Group::Generic, &[Category::Keyspace])
        .since("4.0.0", "O(1)")
        .says("key", "Is not available: how often a key is used is not kept"),
    Row::new("object|help", 2, server::help)
        .flags(&[Flags::LOADING, Flags::STALE])
        .within(Group::Generic, &[Category::Keyspace])
        .since("6.2.0", "O(1)")
        .says("", "Lists the subcommands"),
    Row::new("object|idletime", 3, server::object_idletime)
        .flags(&[Flags::READONLY])
        .keys(2, Some(2), LOOK)
        .within(Group::Generic, &[Category::Keyspace])
        .since("2.2.3", "O(1)")
        .says("key", "Is not available: the time of the last use is not kept"),
    Row::new("object|refcount", 3, keys::object_refcount)
        .flags(&[Flags::READONLY])
        .keys(2, Some(2), LOOK)
        .within(Group::Generic, &[Category::Keyspace])
        .since("2.2.3", "O(1)")
        .says("key", "Answers 1 for a key that is there"),
];

/// Subcommands of `CLIENT`.
pub(super) const CLIENT: &[Row] = &[
    Row::new("client|caching", 3, connection::client_caching)
        .flags(&[Flags::NOSCRIPT, Flags::LOADING, Flags::STALE])
        .within(Group::Connection, &[Category::Connection])
        .since("6.0.0", "O(1)")
        .says("YES or NO", "Is an error, since tracking is off"),
    Row::new("client|getname", 2, connection::client_getname)
        .flags(&[Flags::NOSCRIPT, Flags::LOADING, Flags::STALE])
        .within(Group::Connection, &[Category::Connection])
        .since("2.6.9", "O(1)")
        .says("", "Answers the connection's name"),
    Row::new("client|getredir", 2, connection::client_getredir)
        .flags(&[Flags::NOSCRIPT, Flags::LOADING, Flags::STALE])
        .within(Group::Connection, &[Category::Connection])
        .since("6.0.0", "O(1)")
        .says("", "Answers -1, since tracking is off"),
    Row::new("client|help", 2, server::help)
        .flags(&[Flags::LOADING, Flags::STALE])
        .within(Group::Connection, &[Category::Connection])
        .since("5.0.0", "O(1)")
        .says("", "Lists the subcommands"),
    Row::new("client|id", 2, connection::client_id)
        .flags(&[Flags::NOSCRIPT, Flags::LOADING, Flags::STALE])
        .within(Group::Connection, &[Category::Connection])
        .since("5.0.0", "O(1)")
        .says("", "Answers the connection's number on this node"),
    Row::new("client|info", 2, connection::client_info)
        .flags(&[Flags::NOSCRIPT, Flags::LOADING, Flags::STALE])
        .within(Group::Connection, &[Category::Connection])
        .since("6.2.0", "O(1)")
        .says("", "Describes this connection"),
    Row::new("client|kill", -3, connection::client_kill)
        .flags(&[Flags::ADMIN, Flags::NOSCRIPT, Flags::LOADING, Flags::STALE, Flags::NO_MULTI])
        .within(Group::Connection, &[Category::Connection])
        .since("2.4.0", "O(N)")
        .says(
            "address or [ID id] [ADDR address] [LADDR address] [TYPE kind] [USER \
             user] [SKIPME yes or no]",
            "Closes connections of this node",
        ),
    Row::new("client|list", -2, connection::client_list)
        .flags(&[Flags::ADMIN, Flags::NOSCRIPT, Flags::LOADING, Flags::STALE])
        .within(Group::Connection, &[Category::Connection])
        .since("2.4.0", "O(N)")
        .says("[TYPE kind] [ID id [id ...]]", "Describes the connections of this node"),
    Row::new("client|no-evict", 3, connection::client_switch)
        .flags(&[Flags::ADMIN, Flags::NOSCRIPT, Flags::LOADING, Flags::STALE])
        .within(Group::Connection, &[Category::Connection])
        .since("7.0.0", "O(1)")
        .says("ON or OFF", "Is accepted: no connection is closed to save memory"),
    Row::new("client|no-touch", 3, connection::client_switch)
        .flags(&[Flags::NOSCRIPT, Flags::LOADING, Flags::STALE])
        .within(Group::Connection, &[Category::Connection])
        .since("7.2.0", "O(1)")
        .says("ON or OFF", "Is accepted: reads never change how a key is kept"),
    Row::new("client|pause", -3, connection::client_pause)
        .flags(&[Flags::ADMIN, Flags::NOSCRIPT, Flags::LOADING, Flags::STALE])
        .within(Group::Connection, &[Category::Connection])
        .since("3.0.0", "O(1)")
        .says("milliseconds [WRITE | ALL]", "Is not available: clients of other nodes would go on"),
    Row::new("client|reply", 3, connection::client_reply)
        .flags(&[Flags::NOSCRIPT, Flags::LOADING, Flags::STALE, Flags::NO_MULTI])
        .within(Group::Connection, &[Category::Connection])
        .since("3.2.0", "O(1)")
        .says("ON, OFF or SKIP", "Chooses whether replies are sent"),
    Row::new("client|setinfo", 4, connection::client_setinfo)
        .flags(&[Flags::NOSCRIPT, Flags::LOADING, Flags::STALE, Flags::NO_MULTI])
        .within(Group::Connection, &[Category::Connection])
        .since("7.2.0", "O(1)")
        .says("LIB-NAME name or LIB-VER version", "Names the library that the client uses"),
    Row::new("client|setname", 3, connection::client_setname)
        .flags(&[Flags::NOSCRIPT, Flags::LOADING, Flags::STALE, Flags::NO_MULTI])
        .within(Group::Connection, &[Category::Connection])
        .since("2.6.9", "O(1)")
        .says("name", "Names the connection"),
    Row::new("client|tracking", -3, connection::client_tracking)
        .flags(&[Flags::NOSCRIPT, Flags::LOADING, Flags::STALE])
        .within(Group::Connection, &[Category::Connection])
        .since("6.0.0", "O(1)")
        .says("ON or OFF", "Is not available but for OFF"),
    Row::new("client|trackinginfo", 2, connection::client_trackinginfo)
        .flags(&[Flags::NOSCRIPT, Flags::LOADING, Flags::STALE])
        .within(Group::Connection, &[Category::Connection])
        .since("6.2.0", "O(1)")
        .says("", "Says that tracking is off"),
    Row::new("client|unblock", -3, connection::client_unblock)
        .flags(&[Flags::ADMIN, Flags::NOSCRIPT, Flags::LOADING, Flags::STALE])
        .within(Group::Connection, &[Category::Connection])
        .since("5.0.0", "O(1)")
        .says("id [TIMEOUT | ERROR]", "Answers 0: no command can be unblocked"),
    Row::new("client|unpause", 2, connection::client_unpause)
        .flags(&[Flags::ADMIN, Flags::NOSCRIPT, Flags::LOADING, Flags::STALE])
        .within(Group::Connection, &[Category::Connection])
        .since("6.2.0", "O(1)")
        .says("", "Is accepted: nothing is ever paused"),
];

/// Subcommands of `COMMAND`.
pub(super) const COMMAND: &[Row] = &[
    Row::new("command|count", 2, server::command_count)
        .flags(&[Flags::LOADING, Flags::STALE])
        .within(Group::Server, &[Category::Connection])
        .since("2.8.13", "O(1)")
        .says("", "Answers how many commands there are"),
    Row::new("command|docs", -2, server::command_docs)
        .flags(&[Flags::LOADING, Flags::STALE])
        .within(Group::Server, &[Category::Connection])
        .since("7.0.0", "O(N)")
        .says("[name ...]", "Answers what commands do"),
    Row::new("command|getkeys", -4, server::command_getkeys)
        .flags(&[Flags::LOADING, Flags::STALE])
        .within(Group::Server, &[Category::Connection])
        .since("2.8.13", "O(N)")
        .says("command [argument ...]", "Answers the keys of a call"),
    Row::new("command|getkeysandflags", -4, server::command_getkeysandflags)
        .flags(&[Flags::LOADING, Flags::STALE])
        .within(Group::Server, &[Category::Connection])
        .since("7.0.0", "O(N)")
        .says("command [argument ...]", "Answers the keys of a call and what is done with them"),
    Row::new("command|help", 2, server::help)
        .flags(&[Flags::LOADING, Flags::STALE])
        .within(Group::Server, &[Category::Connection])
        .since("5.0.0", "O(1)")
        .says("", "Lists the subcommands"),
    Row::new("command|info", -2, server::command_info)
        .flags(&[Flags::LOADING, Flags::STALE])
        .within(Group::Server, &[Category::Connection])
        .since("2.8.13", "O(N)")
        .says("[name ...]", "Answers arity, flags and keys of commands"),
    Row::new("command|list", -2, server::command_list)
        .flags(&[Flags::LOADING, Flags::STALE])
        .within(Group::Server, &[Category::Connection])
        .since("7.0.0", "O(N)")
        .says(
            "[FILTERBY (MODULE name | ACLCAT category | PATTERN pattern)]",
            "Answers the names of commands",
        ),
];

/// Subcommands of `CONFIG`.
pub(super) const CONFIG: &[Row] = &[
    Row::new("config|get", -3, server::config_get)
        .flags(&[Flags::ADMIN, Flags::NOSCRIPT, Flags::LOADING, Flags::STALE])
        .within(Group::Server, &[])
        .since("2.0.0", "O(N)")
        .says("pattern [pattern ...]", "Answers settings"),
    Row::new("config|help", 2, server::help)
        .flags(&[Flags::LOADING, Flags::STALE])
        .within(Group::Server, &[])
        .since("5.0.0", "O(1)")
        .says("", "Lists the subcommands"),
    Row::new("config|resetstat", 2, server::config_resetstat)
        .flags(&[Flags::ADMIN, Flags::NOSCRIPT, Flags::LOADING, Flags::STALE, Flags::NO_MULTI])
        .within(Group::Server, &[])
        .since("2.0.0", "O(1)")
        .says("", "Sets the counters of INFO to zero"),
    Row::new("config|rewrite", 2, server::config_rewrite)
        .flags(&[Flags::ADMIN, Flags::NOSCRIPT, Flags::LOADING, Flags::STALE])
        .within(Group::Server, &[])
        .since("2.8.0", "O(1)")
        .says("", "Is not available: the file is the operator's"),
    Row::new("config|set", -4, server::config_set)
        .flags(&[Flags::ADMIN, Flags::NOSCRIPT, Flags::LOADING, Flags::STALE, Flags::NO_MULTI])
        .within(Group::Server, &[])
        .since("2.0.0", "O(N)")
        .says("name value [name value ...]", "Changes settings until the next start"),
];

/// Subcommands of `ACL`.
pub(super) const ACL: &[Row] = &[
    Row::new("acl|cat", -2, server::acl_cat)
        .flags(&[Flags::NOSCRIPT, Flags::LOADING, Flags::STALE])
        .within(Group::Server, &[])
        .since("6.0.0", "O(1)")
        .says("[category]", "Lists categories, or the commands of one"),
    Row::new("acl|deluser", -3, server::acl_other)
        .flags(&[Flags::ADMIN, Flags::NOSCRIPT, Flags::LOADING, Flags::STALE])
        .within(Group::Server, &[])
        .since("6.0.0", "O(1)")
        .says("user [user ...]", "Is not available: there is one user"),
    Row::new("acl|dryrun", -4, server::acl_other)
        .flags(&[Flags::ADMIN, Flags::NOSCRIPT, Flags::LOADING, Flags::STALE])
        .within(Group::Server, &[])
        .since("7.0.0", "O(1)")
        .says("user command [argument ...]", "Is not available: there is one user"),
    Row::new("acl|genpass", -2, server::acl_other)
        .flags(&[Flags::NOSCRIPT, Flags::LOADING, Flags::STALE])
        .within(Group::Server, &[])
        .since("6.0.0", "O(1)")
        .says("[bits]", "Is not available"),
    Row::new("acl|getuser", 3, server::acl_other)
        .flags(&[Flags::ADMIN, Flags::NOSCRIPT, Flags::LOADING, Flags::STALE])
        .within(Group::Server, &[])
        .since("6.0.0", "O(1)")
        .says("user", "Is not available: there is one user"),
    Row::new("acl|help", 2, server::help)
        .flags(&[Flags::LOADING, Flags::STALE])
        .within(Group::Server, &[])
        .since("6.0.0", "O(1)")
        .says("", "Lists the subcommands"),
    Row::new("acl|list", 2, server::acl_list)
        .flags(&[Flags::ADMIN, Flags::NOSCRIPT, Flags::LOADING, Flags::STALE])
        .within(Group::Server, &[])
        .since("6.0.0", "O(1)")
        .says("", "Describes the one user"),
    Row::new("acl|load", 2, server::acl_other)
        .flags(&[Flags::ADMIN, Flags::NOSCRIPT, Flags::LOADING, Flags::STALE])
        .within(Group::Server, &[])
        .since("6.0.0", "O(1)")
        .says("", "Is not available: there is one user"),
    Row::new("acl|log", -2, server::acl_other)
        .flags(&[Flags::ADMIN, Flags::NOSCRIPT, Flags::LOADING, Flags::STALE])
        .within(Group::Server, &[])
        .since("6.0.0", "O(1)")
        .says("[count | RESET]", "Is not available"),
    Row::new("acl|save", 2, server::acl_other)
        .flags(&[Flags::ADMIN, Flags::NOSCRIPT, Flags::LOADING, Flags::STALE])
        .within(Group::Server, &[])
        .since("6.0.0", "O(1)")
        .says("", "Is not available: there is one user"),
    Row::new("acl|setuser", -3, server::acl_other)
        .flags(&[Flags::ADMIN, Flags::NOSCRIPT, Flags::LOADING, Flags::STALE])
        .within(Group::Server, &[])
        .since("6.0.0", "O(1)")
        .says("user [rule ...]", "Is not available: there is one user"),
    Row::new("acl|users", 2, server::acl_users)
        .flags(&[Flags::ADMIN, Flags::NOSCRIPT, Flags::LOADING, Flags::STALE])
        .within(Group::Server, &[])
        .since("6.0.0", "O(1)")
        .says("", "Names the one user"),
    Row::new("acl|whoami", 2, server::acl_whoami)
        .flags(&[Flags::NOSCRIPT, Flags::LOADING, Flags::STALE])
        .within(Group::Server, &[])
        .since("6.0.0", "O(1)")
        .says("", "Answers default"),
];

/// Subcommands of `MEMORY`.
pub(super) const MEMORY: &[Row] = &[
    Row::new("memory|doctor", 2, server::memory_other)
        .within(Group::Server, &[])
        .since("4.0.0", "O(1)")
        .says("", "Is not available: see INFO memory"),
    Row::new("memory|help", 2, server::help)
        .flags(&[Flags::LOADING, Flags::STALE])
        .within(Group::Server, &[])
        .since("4.0.0", "O(1)")
        .says("", "Lists the subcommands"),
    Row::new("memory|malloc-stats", 2, server::memory_other)
        .within(Group::Server, &[])
        .since("4.0.0", "O(1)")
        .says("", "Is not available: see INFO memory"),
    Row::new("memory|purge", 2, server::memory_other)
        .within(Group::Server, &[])
        .since("4.0.0", "O(1)")
        .says("", "Is not available: see INFO memory"),
    Row::new("memory|stats", 2, server::memory_other)
        .within(Group::Server, &[])
        .since("4.0.0", "O(1)")
        .says("", "Is not available: see INFO memory"),
    Row::new("memory|usage", -3, keys::memory_usage)
        .flags(&[Flags::READONLY])
        .keys(2, Some(2), LOOK)
        .within(Group::Server, &[])
        .since("4.0.0", "O(1)")
        .says("key [SAMPLES count]", "Answers the bytes of memory that a key takes here"),
];

/// Subcommands of `LATENCY`.
pub(super) const LATENCY: &[Row] = &[
    Row::new("latency|doctor", 2, server::latency_other)
        .flags(&[Flags::ADMIN, Flags::NOSCRIPT, Flags::LOADING, Flags::STALE])
        .within(Group::Server, &[])
        .since("2.8.13", "O(1)")
        .says("", "Is not available: see the metrics"),
    Row::new("latency|graph", 3, server::latency_other)
        .flags(&[Flags::ADMIN, Flags::NOSCRIPT, Flags::LOADING, Flags::STALE])
        .within(Group::Server, &[])
        .since("2.8.13", "O(1)")
        .says("event", "Is not available: see the metrics"),
    Row::new("latency|help", 2, server::help)
        .flags(&[Flags::LOADING, Flags::STALE])
        .within(Group::Server, &[])
        .since("2.8.13", "O(1)")
        .says("", "Lists the subcommands"),
    Row::new("latency|histogram", -2, server::empty_map)
        .flags(&[Flags::ADMIN, Flags::NOSCRIPT, Flags::LOADING, Flags::STALE])
        .within(Group::Server, &[])
        .since("7.0.0", "O(1)")
        .says("[command ...]", "Answers nothing: see the metrics"),
    Row::new("latency|history", 3, server::empty_array)
        .flags(&[Flags::ADMIN, Flags::NOSCRIPT, Flags::LOADING, Flags::STALE])
        .within(Group::Server, &[])
        .since("2.8.13", "O(1)")
        .says("event", "Answers nothing: see the metrics"),
    Row::new("latency|latest", 2, server::empty_array)
        .flags(&[Flags::ADMIN, Flags::NOSCRIPT, Flags::LOADING, Flags::STALE])
        .within(Group::Server, &[])
        .since("2.8.13", "O(1)")
        .says("", "Answers nothing: see the metrics"),
    Row::new("latency|reset", -2, server::zero)
        .flags(&[Flags::ADMIN, Flags::NOSCRIPT, Flags::LOADING, Flags::STALE])
        .within(Group::Server, &[])
        .since("2.8.13", "O(1)")
        .says("[event ...]", "Answers 0: nothing is kept"),
];

/// Subcommands of `SLOWLOG`.
pub(super) const SLOWLOG: &[Row] = &[
    Row::new("slowlog|get", -2, server::slowlog_get)
        .flags(&[Flags::ADMIN, Flags::LOADING, Flags::STALE])
        .within(Group::Server, &[])
        .since("2.2.12", "O(1)")
        .says("[count]", "Answers nothing: see the metrics"),
    Row::new("slowlog|help", 2, server::help)
        .flags(&[Flags::LOADING, Flags::STALE])
        .within(Group::Server, &[])
        .since("6.2.0", "O(1)")
        .says("", "Lists the subcommands"),
    Row::new("slowlog|len", 2, server::zero)
        .flags(&[Flags::ADMIN, Flags::LOADING, Flags::STALE])
        .within(Group::Server, &[])
        .since("2.2.12", "O(1)")
        .says("", "Answers 0: nothing is kept"),
    Row::new("slowlog|reset", 2, connection::accept)
        .flags(&[Flags::ADMIN, Flags::LOADING, Flags::STALE])
        .within(Group::Server, &[])
        .since("2.2.12", "O(1)")
        .says("", "Is accepted: nothing is kept"),
];

/// Subcommands of `MODULE`.
pub(super) const MODULE: &[Row] = &[
    Row::new("module|help", 2, server::help)
        .flags(&[Flags::LOADING, Flags::STALE])
        .within(Group::Server, &[])
        .since("5.0.0", "O(1)")
        .says("", "Lists the subcommands"),
    Row::new("module|list", 2, server::empty_array)
        .flags(&[Flags::ADMIN, Flags::NOSCRIPT])
        .within(Group::Server, &[])
        .since("4.0.0", "O(1)")
        .says("", "Answers nothing: there are none"),
    Row::new("module|load", -3, server::module_other)
        .flags(&[Flags::ADMIN, Flags::NOSCRIPT])
        .within(Group::Server, &[])
        .since("4.0.0", "O(1)")
        .says("path [argument ...]", "Is not available: there are none"),
    Row::new("module|loadex", -3, server::module_other)
        .flags(&[Flags::ADMIN, Flags::NOSCRIPT])
        .within(Group::Server, &[])
        .since("7.0.0", "O(1)")
        .says("path [argument ...]", "Is not available: there are none"),
    Row::new("module|unload", 3, server::module_other)
        .flags(&[Flags::ADMIN, Flags::NOSCRIPT])
        .within(Group::Server, &[])
        .since("4.0.0", "O(1)")
        .says("name", "Is not available: there are none"),
];

/// Subcommands of `CLUSTER`.
pub(super) const CLUSTER: &[Row] = &[
    Row::new("cluster|countkeysinslot", 3, server::cluster_disabled)
        .flags(&[Flags::STALE])
        .within(Group::Cluster, &[])
        .since("3.0.0", "O(1)")
        .says("slot", "Is not available: any node takes any key"),
    Row::new("cluster|getkeysinslot", 4, server::cluster_disabled)
        .flags(&[Flags::STALE])
        .within(Group::Cluster, &[])
        .since("3.0.0", "O(1)")
        .says("slot count", "Is not available: any node takes any key"),
    Row::new("cluster|help", 2, server::help)
        .flags(&[Flags::LOADING, Flags::STALE])
        .within(Group::Cluster, &[])
        .since("5.0.0", "O(1)")
        .says("", "Lists the subcommands"),
    Row::new("cluster|info", 2, server::cluster_info)
        .flags(&[Flags::STALE])
        .within(Group::Cluster, &[])
        .since("3.0.0", "O(1)")
        .says("", "Says that clients need not know where keys are"),
    Row::new("cluster|keyslot", 3, server::cluster_keyslot)
        .flags(&[Flags::STALE])
        .within(Group::Cluster, &[])
        .since("3.0.0", "O(N)")
        .says("key", "Answers the slot of a key"),
    Row::new("cluster|links", 2, server::cluster_disabled)
        .flags(&[Flags::STALE])
        .within(Group::Cluster, &[])
        .since("7.0.0", "O(1)")
        .says("", "Is not available: any node takes any key"),
    Row::new("cluster|myid", 2, server::cluster_myid)
        .flags(&[Flags::STALE])
        .within(Group::Cluster, &[])
        .since("3.0.0", "O(1)")
        .says("", "Answers the name of this node"),
    Row::new("cluster|nodes", 2, server::cluster_disabled)
        .flags(&[Flags::STALE])
        .within(Group::Cluster, &[])
        .since("3.0.0", "O(1)")
        .says("", "Is not available: any node takes any key"),
    Row::new("cluster|replicas", 3, server::cluster_disabled)
        .flags(&[Flags::ADMIN, Flags::STALE])
        .within(Group::Cluster, &[])
        .since("5.0.0", "O(1)")
        .says("node", "Is not available: any node takes any key"),
    Row::new("cluster|shards", 2, server::cluster_disabled)
        .flags(&[Flags::STALE])
        .within(Group::Cluster, &[])
        .since("7.0.0", "O(1)")
        .says("", "Is not available: any node takes any key"),
    Row::new("cluster|slots", 2, server::cluster_disabled)
        .flags(&[Flags::STALE])
        .within(Group::Cluster, &[])
        .since("3.0.0", "O(1)")
        .says("", "Is not available: any node takes any key"),
];
