//! What a client asks of its session: operations on keys, and questions about the session itself.

use antecede_model::{
    consistency::Consistency, context::Context, operation::Operation, retry::WrittenId,
};

/// One command of a client, borrowed from its read buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command<'a> {
    /// One action on one key.
    One(Operation<'a>),
    /// Actions on several keys: in one step if they lie in one shard, else one after the other.
    Several {
        /// The actions, in order.
        operations: Vec<Operation<'a>>,
        /// How their answers become one.
        gather: Gather,
    },
    /// `EXEC`: all in one log entry, in one shard, unless a watched key has changed.
    Transaction {
        /// The queued actions, in order.
        operations: Vec<Operation<'a>>,
    },
    /// `CAUSAL.DO ID`: a command that may write, in one shard, under an id of the client's: sent
    /// again it gets its first answer and is not executed again.
    Retried {
        /// The id.
        id: WrittenId<'a>,
        /// A check number of the words of the command.
        words: u32,
        /// The command: one or several actions, or a transaction.
        command: Box<Self>,
    },
    /// `WATCH`: remembers the versions of keys for the next transaction.
    Watch {
        /// The keys.
        keys: Vec<&'a [u8]>,
    },
    /// `UNWATCH`, `DISCARD`: forgets them.
    Unwatch,
    /// `SCAN`: some keys of the datacenter, and a cursor to go on from.
    Scan {
        /// 0 to begin.
        cursor: u64,
        /// About how many keys to look at.
        count: u64,
        /// A glob that keys must match.
        pattern: Option<&'a [u8]>,
    },
    /// `KEYS`: all keys of the datacenter that match.
    Keys {
        /// The glob.
        pattern: &'a [u8],
    },
    /// `DBSIZE`: how many keys the datacenter has.
    Count,
    /// `RANDOMKEY`: some key of the datacenter, or nil.
    RandomKey {
        /// A drawn number.
        draw: u64,
    },
    /// `WAIT`: how many other datacenters have applied this session's last write.
    Wait {
        /// How many are enough.
        count: u64,
        /// How long to wait for them, in milliseconds; 0 means as long as it takes.
        timeout_millis: u64,
    },
    /// `CAUSAL.TOKEN`: the session's context, written down.
    Token,
    /// `CAUSAL.AFTER`: waits until a token is covered here, and adds it to the context.
    After {
        /// What the token holds.
        context: Box<Context>,
        /// How long to wait, in milliseconds.
        timeout_millis: u64,
    },
    /// `CAUSAL.RESET`: forgets the context.
    Reset,
    /// `CAUSAL.LEVEL`: how strong the promises of the following commands are; `None` asks.
    Level(Option<Consistency>),
}

/// How the answers of several actions become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gather {
    /// In a list. `MGET`
    List,
    /// Added up. `DEL`, `UNLINK`, `EXISTS`, `TOUCH`
    Sum,
    /// `OK` if all went well. `MSET`
    Ok,
}
