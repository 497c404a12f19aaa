//! Says what a command means where there are several datacenters, for the documents.
//!
//! Commands without a note mean the same as in Redis, or concern one connection or node only.
//!
//! Ensures: every name here is a command of the table (a test).

/// What is decided by what this datacenter holds now.
const LOCAL: &str = "decides by what this datacenter holds; when two datacenters change the key at \
                     the same time, the last writer wins in all";
/// As `LOCAL`, for values that change in part.
const WHOLE: &str = "decides by what this datacenter holds, and the whole value travels; when two \
                     datacenters change the key at the same time, the last writer wins in all";
/// Deadlines.
const DEADLINE: &str = "looks at this datacenter only; of two deadlines that are set at the same \
                        time in two datacenters the later one holds";
/// Removals.
const REMOVAL: &str = "removes what this datacenter holds; a write elsewhere at the same time stays \
                       if its version is larger";
/// Reads of all keys.
const ALL_KEYS: &str = "answers for this datacenter, over all its nodes, or with an error";
/// Transactions.
const ONE_SHARD: &str = "keys of several shards are refused with CROSSSLOT; other datacenters see all \
                         of it or nothing";

/// Names of commands, and their note.
const NOTES: &[(&str, &str)] = &[
    ("set", "NX, XX, GET and KEEPTTL look at this datacenter only; the last writer wins in all"),
    ("mget", "keys of several shards are no snapshot: each is read by itself"),
    ("mset", "one step within one shard; over several shards each key by itself"),
    ("getset", LOCAL),
    ("setnx", LOCAL),
    ("getex", DEADLINE),
    ("getdel", REMOVAL),
    ("append", WHOLE),
    ("setrange", WHOLE),
    ("del", REMOVAL),
    ("unlink", REMOVAL),
    ("expire", DEADLINE),
    ("pexpire", DEADLINE),
    ("expireat", DEADLINE),
    ("pexpireat", DEADLINE),
    ("persist", DEADLINE),
    ("scan", ALL_KEYS),
    ("keys", ALL_KEYS),
    ("dbsize", ALL_KEYS),
    ("randomkey", ALL_KEYS),
    ("wait", "counts other datacenters that have applied and persisted the write, not replicas"),
    ("causal.token", "a token is good in every datacenter of the deployment"),
    ("causal.after", "waits for writes of other datacenters that have not arrived yet"),
    ("causal.level", "linearizable is meant within this datacenter"),
    (
        "causal.do",
        "an id is executed only in the datacenter that it names; keys of several shards are \
         refused with CROSSSLOT",
    ),
    ("exec", ONE_SHARD),
    ("watch", "notices changes that become visible in this datacenter before EXEC"),
    ("time", "each node's own; order between datacenters does not follow from it"),
    ("config", "concerns this node only"),
    ("info", "concerns this node; its section `causal` tells how far others are behind"),
];

/// What a command means where there are several datacenters; `None` where there is nothing to say.
#[must_use]
pub fn note(name: &str) -> Option<&'static str> {
    NOTES.iter().find(|(known, _)| *known == name).map(|(_, note)| *note)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::commands::table;

    #[test]
    fn every_note_belongs_to_a_command() {
        for (name, note) in NOTES {
            assert!(table().iter().any(|row| row.name == *name), "{name}");
            assert!(!note.contains(['|', '\n']), "{name}: it stands in a table");
        }
    }

    #[test]
    fn every_command_that_writes_keys_says_what_that_means_elsewhere() {
        use crate::resp::commands::row::Flags;
        // The last writer wins, as with SET: nothing else is to be said.
        let plain = ["setex", "psetex"];
        for row in table().iter().filter(|row| row.flags.has(Flags::WRITE)) {
            assert!(note(row.name).is_some() != plain.contains(&row.name), "{}", row.name);
        }
    }
}
