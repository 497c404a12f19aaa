//! Names the commands that Redis has and Antecede does not, with the reason.
//!
//! A command that cannot mean the same in several datacenters must not seem to work: until it has
//! a meaning that merges, it is an error that says what there is instead.

use super::error::CommandError;

/// Commands that are missing for one reason.
#[derive(Clone, Copy, Debug)]
pub struct Missing {
    /// Why, and what there is instead.
    pub reason: &'static str,
    /// Their names in lower case.
    pub names: &'static [&'static str],
}

/// All of Redis's commands that are missing, up to version 8.
pub const MISSING: &[Missing] = &[
    Missing {
        reason: "counters that merge between datacenters come in a later version; GET, SET and \
                 the other string commands work",
        names: &["decr", "decrby", "incr", "incrby", "incrbyfloat"],
    },
    Missing {
        reason: "bitmaps that merge between datacenters come in a later version; GETRANGE and \
                 SETRANGE work",
        names: &["bitcount", "bitfield", "bitfield_ro", "bitop", "bitpos", "getbit", "setbit"],
    },
    Missing {
        reason: "strings have GET, SET, MGET, MSET, APPEND, GETRANGE and SETRANGE for now",
        names: &["lcs", "msetnx", "msetex", "delex", "digest"],
    },
    Missing {
        reason: "hashes that merge between datacenters come in a later version; strings work",
        names: &[
            "hdel",
            "hexists",
            "hexpire",
            "hexpireat",
            "hexpiretime",
            "hget",
            "hgetall",
            "hgetdel",
            "hgetex",
            "hincrby",
            "hincrbyfloat",
            "hkeys",
            "hlen",
            "hmget",
            "hmset",
            "hpersist",
            "hpexpire",
            "hpexpireat",
            "hpexpiretime",
            "hpttl",
            "hrandfield",
            "hscan",
            "hset",
            "hsetex",
            "hsetnx",
            "hstrlen",
            "httl",
            "hvals",
        ],
    },
    Missing {
        reason: "lists come in a later version; strings work",
        names: &[
            "blmove",
            "blmpop",
            "blpop",
            "brpop",
            "brpoplpush",
            "lindex",
            "linsert",
            "llen",
            "lmove",
            "lmpop",
            "lpop",
            "lpos",
            "lpush",
            "lpushx",
            "lrange",
            "lrem",
            "lset",
            "ltrim",
            "rpop",
            "rpoplpush",
            "rpush",
            "rpushx",
        ],
    },
    Missing {
        reason: "sets that merge between datacenters come in a later version; strings work",
        names: &[
            "sadd",
            "scard",
            "sdiff",
            "sdiffstore",
            "sinter",
            "sintercard",
            "sinterstore",
            "sismember",
            "smembers",
            "smismember",
            "smove",
            "spop",
            "srandmember",
            "srem",
            "sscan",
            "sunion",
            "sunionstore",
        ],
    },
    Missing {
        reason: "sorted sets that merge between datacenters come in a later version; strings work",
        names: &[
            "bzmpop",
            "bzpopmax",
            "bzpopmin",
            "zadd",
            "zcard",
            "zcount",
            "zdiff",
            "zdiffstore",
            "zincrby",
            "zinter",
            "zintercard",
            "zinterstore",
            "zlexcount",
            "zmpop",
            "zmscore",
            "zpopmax",
            "zpopmin",
            "zrandmember",
            "zrange",
            "zrangebylex",
            "zrangebyscore",
            "zrangestore",
            "zrank",
            "zrem",
            "zremrangebylex",
            "zremrangebyrank",
            "zremrangebyscore",
            "zrevrange",
            "zrevrangebylex",
            "zrevrangebyscore",
            "zrevrank",
            "zscan",
            "zscore",
            "zunion",
            "zunionstore",
        ],
    },
    Missing {
        reason: "this type comes in a later version, if at all; strings work",
        names: &[
            "geoadd",
            "geodist",
            "geohash",
            "geopos",
            "georadius",
            "georadius_ro",
            "georadiusbymember",
            "georadiusbymember_ro",
            "geosearch",
            "geosearchstore",
            "pfadd",
            "pfcount",
            "pfdebug",
            "pfmerge",
            "pfselftest",
            "vadd",
            "vcard",
            "vdim",
            "vemb",
            "vgetattr",
            "vinfo",
            "vismember",
            "vlinks",
            "vrandmember",
            "vrange",
            "vrem",
            "vsetattr",
            "vsim",
            "xack",
            "xackdel",
            "xadd",
            "xautoclaim",
            "xclaim",
            "xdel",
            "xdelex",
            "xgroup",
            "xinfo",
            "xlen",
            "xpending",
            "xrange",
            "xread",
            "xreadgroup",
            "xrevrange",
            "xsetid",
            "xtrim",
        ],
    },
    Missing {
        reason: "messages between clients come in a later version",
        names: &[
            "psubscribe",
            "publish",
            "pubsub",
            "punsubscribe",
            "spublish",
            "ssubscribe",
            "subscribe",
            "sunsubscribe",
            "unsubscribe",
        ],
    },
    Missing {
        reason: "the effects of a script cannot be merged between datacenters; use SET with its \
                 options, or MULTI with WATCH",
        names: &[
            "eval",
            "eval_ro",
            "evalsha",
            "evalsha_ro",
            "fcall",
            "fcall_ro",
            "function",
            "script",
        ],
    },
    Missing {
        reason: "keys stay where their name puts them for now; read one and write the other",
        names: &["copy", "move", "rename", "renamenx"],
    },
    Missing {
        reason: "values leave and enter by reads and writes for now",
        names: &["dump", "migrate", "restore", "restore-asking", "sort", "sort_ro"],
    },
    Missing {
        reason: "removing everything in all datacenters at once comes in a later version, with a \
                 confirmation; SCAN with UNLINK works",
        names: &["flushall", "flushdb"],
    },
    Missing { reason: "there is one database", names: &["swapdb"] },
    Missing {
        reason: "the log on disk is kept all the time, as its fsync setting says",
        names: &["bgrewriteaof", "bgsave", "lastsave", "save", "waitaof"],
    },
    Missing {
        reason: "replicas are placed by the configuration, and speak a protocol of their own; see \
                 INFO replication and the status of the admin port",
        names: &["failover", "psync", "replconf", "replicaof", "role", "slaveof", "sync"],
    },
    Missing {
        reason: "commands that change a running server from inside are left out; stop it with \
                 SIGTERM, look into it by the admin port",
        names: &["debug", "hotkeys", "lolwut", "monitor", "shutdown", "trimslots"],
    },
];

/// The error for a command that exists in Redis only; `None` if Redis does not have it either.
#[must_use]
pub fn explain(name: &[u8]) -> Option<CommandError> {
    let (name, reason) = MISSING.iter().find_map(|missing| {
        let mut names = missing.names.iter();
        let known = names.find(|known| known.as_bytes().eq_ignore_ascii_case(name))?;
        Some((known.to_ascii_uppercase(), missing.reason))
    })?;
    Some(CommandError::NotAvailable { name, reason })
}
