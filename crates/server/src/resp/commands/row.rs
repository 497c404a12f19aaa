//! Describes a command in one row, from which routing, `COMMAND`, `ACL CAT` and documents are made.
//!
//! Rows are put together at compile time by small builders, so that the table reads as a table.

use super::{Parsed, error::CommandError};

/// One command, or one subcommand of a command.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The name in lower case; of a subcommand with its command: `client|id`.
    pub name: &'static str,
    /// How many arguments with the name; negative: at least so many.
    pub arity: i32,
    /// What it does to data and connection.
    pub flags: Flags,
    /// Where its keys stand, if it has any.
    pub keys: Option<KeySpec>,
    /// Categories beyond those that follow from the flags.
    pub categories: &'static [Category],
    /// The group of the documents it stands in.
    pub group: Group,
    /// The version of Redis that brought it, or of Antecede for its own commands.
    pub since: &'static str,
    /// How its cost grows.
    pub complexity: &'static str,
    /// Its arguments, as documents show them.
    pub syntax: &'static str,
    /// What it does, in one sentence.
    pub summary: &'static str,
    /// Its subcommands.
    pub subcommands: &'static [Self],
    /// Turns arguments into a command.
    pub parse: Parse,
}

/// Turns the arguments of a call into a command.
pub type Parse = for<'s, 'a> fn(&Call<'s, 'a>) -> Result<Parsed<'a>, CommandError>;

/// One request, once its row is known and the number of its arguments is right.
#[derive(Clone, Copy, Debug)]
pub struct Call<'s, 'a> {
    /// The row.
    pub row: &'static Row,
    /// All arguments, the name first.
    pub arguments: &'s [&'a [u8]],
    /// Milliseconds since 1970, for deadlines that are given from now.
    pub wall_millis: u64,
}

/// Where the keys of a command stand among its arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeySpec {
    /// The first key.
    pub first: usize,
    /// The last key; `None` means up to the end.
    pub last: Option<usize>,
    /// From one key to the next.
    pub step: usize,
    /// What is done with them.
    pub access: Access,
}

/// What a command does with its keys, in the words of `COMMAND GETKEYSANDFLAGS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access(pub &'static [&'static str]);

/// What a command does to data and connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flags(u16);

impl Flags {
    /// Nothing of what follows.
    pub const NONE: Self = Self(0);
    /// Changes keys.
    pub const WRITE: Self = Self(1);
    /// Reads keys.
    pub const READONLY: Self = Self(1 << 1);
    /// Is refused when memory is short.
    pub const DENYOOM: Self = Self(1 << 2);
    /// Is for operators.
    pub const ADMIN: Self = Self(1 << 3);
    /// Is not for scripts.
    pub const NOSCRIPT: Self = Self(1 << 4);
    /// Is served while data is being loaded.
    pub const LOADING: Self = Self(1 << 5);
    /// Is served by a replica that may lag.
    pub const STALE: Self = Self(1 << 6);
    /// Costs about the same whatever it meets.
    pub const FAST: Self = Self(1 << 7);
    /// Is served before authentication.
    pub const NO_AUTH: Self = Self(1 << 8);
    /// Is served while a script runs too long.
    pub const ALLOW_BUSY: Self = Self(1 << 9);
    /// Cannot be queued after `MULTI`; Redis has no such word for some of these commands.
    pub const NO_MULTI: Self = Self(1 << 10);

    /// The names that `COMMAND INFO` shows, in Redis's order.
    const NAMES: [(Self, &'static str); 11] = [
        (Self::WRITE, "write"),
        (Self::READONLY, "readonly"),
        (Self::DENYOOM, "denyoom"),
        (Self::ADMIN, "admin"),
        (Self::NOSCRIPT, "noscript"),
        (Self::LOADING, "loading"),
        (Self::STALE, "stale"),
        (Self::FAST, "fast"),
        (Self::NO_AUTH, "no_auth"),
        (Self::ALLOW_BUSY, "allow_busy"),
        (Self::NO_MULTI, "no_multi"),
    ];

    /// These flags and others.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of `other` are among these.
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Their names.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES.into_iter().filter(move |(flag, _)| self.has(*flag)).map(|(_, name)| name)
    }
}

/// The groups of the documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// Strings.
    String,
    /// Keys of any type.
    Generic,
    /// Sessions and what they have seen; Antecede's own.
    Causal,
    /// Transactions.
    Transactions,
    /// The connection itself.
    Connection,
    /// The server as a whole.
    Server,
    /// Slots and nodes.
    Cluster,
}

impl Group {
    /// The name that `COMMAND DOCS` shows.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Generic => "generic",
            Self::Causal => "causal",
            Self::Transactions => "transactions",
            Self::Connection => "connection",
            Self::Server => "server",
            Self::Cluster => "cluster",
        }
    }
}

/// The categories that access lists speak of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Category {
    /// Any type's keys.
    Keyspace,
    /// Reads.
    Read,
    /// Writes.
    Write,
    /// Sets.
    Set,
    /// Sorted sets.
    SortedSet,
    /// Lists.
    List,
    /// Hashes.
    Hash,
    /// Strings.
    String,
    /// Bitmaps.
    Bitmap,
    /// Cardinality estimates.
    HyperLogLog,
    /// Places on a globe.
    Geo,
    /// Streams.
    Stream,
    /// Publishing and subscribing.
    PubSub,
    /// For operators.
    Admin,
    /// Costs about the same whatever it meets.
    Fast,
    /// Costs more with more data.
    Slow,
    /// May block.
    Blocking,
    /// May do harm.
    Dangerous,
    /// The connection.
    Connection,
    /// Transactions.
    Transaction,
    /// Scripts.
    Scripting,
}

impl Category {
    /// All of them, in Redis's order; those without commands are known as well.
    pub const ALL: [(Self, &'static str); 21] = [
        (Self::Keyspace, "keyspace"),
        (Self::Read, "read"),
        (Self::Write, "write"),
        (Self::Set, "set"),
        (Self::SortedSet, "sortedset"),
        (Self::List, "list"),
        (Self::Hash, "hash"),
        (Self::String, "string"),
        (Self::Bitmap, "bitmap"),
        (Self::HyperLogLog, "hyperloglog"),
        (Self::Geo, "geo"),
        (Self::Stream, "stream"),
        (Self::PubSub, "pubsub"),
        (Self::Admin, "admin"),
        (Self::Fast, "fast"),
        (Self::Slow, "slow"),
        (Self::Blocking, "blocking"),
        (Self::Dangerous, "dangerous"),
        (Self::Connection, "connection"),
        (Self::Transaction, "transaction"),
        (Self::Scripting, "scripting"),
    ];

    /// The category of a name, in either case.
    #[must_use]
    pub fn of_name(name: &[u8]) -> Option<Self> {
        let mut all = Self::ALL.into_iter();
        all.find(|(_, known)| known.as_bytes().eq_ignore_ascii_case(name))
            .map(|(category, _)| category)
    }
}

impl PartialEq for Row {
    /// A name stands for one row.
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Row {}

impl Row {
    /// A command without keys, subcommands or documents; the builders add them.
    #[must_use]
    pub const fn new(name: &'static str, arity: i32, parse: Parse) -> Self {
        Self {
            name,
            arity,
            flags: Flags::NONE,
            keys: None,
            categories: &[],
            group: Group::Generic,
            since: "1.0.0",
            complexity: "O(1)",
            syntax: "",
            summary: "",
            subcommands: &[],
            parse,
        }
    }

    /// The row with flags.
    #[must_use]
    pub const fn flags(mut self, flags: &[Flags]) -> Self {
        let mut at = 0;
        while at < flags.len() {
            self.flags = self.flags.and(flags[at]);
            at += 1;
        }
        self
    }

    /// The row with the places of its keys.
    #[must_use]
    pub const fn keys(mut self, first: usize, last: Option<usize>, access: Access) -> Self {
        self.keys = Some(KeySpec { first, last, step: 1, access });
        self
    }

    /// The row with keys that do not stand next to each other.
    #[must_use]
    pub const fn key_step(mut self, step: usize) -> Self {
        if let Some(keys) = &mut self.keys {
            keys.step = step;
        }
        self
    }

    /// The row with its group and categories.
    #[must_use]
    pub const fn within(mut self, group: Group, categories: &'static [Category]) -> Self {
        self.group = group;
        self.categories = categories;
        self
    }

    /// The row with the version that brought it and the growth of its cost.
    #[must_use]
    pub const fn since(mut self, since: &'static str, complexity: &'static str) -> Self {
        self.since = since;
        self.complexity = complexity;
        self
    }

    /// The row with its arguments and its summary.
    #[must_use]
    pub const fn says(mut self, syntax: &'static str, summary: &'static str) -> Self {
        self.syntax = syntax;
        self.summary = summary;
        self
    }

    /// The row with subcommands.
    #[must_use]
    pub const fn subcommands(mut self, subcommands: &'static [Self]) -> Self {
        self.subcommands = subcommands;
        self
    }

    /// Whether a call with so many arguments, the name among them, is well formed.
    #[must_use]
    pub fn takes(&self, count: usize) -> bool {
        let arity = usize::try_from(self.arity.unsigned_abs()).unwrap_or(usize::MAX);
        if self.arity < 0 { arity <= count } else { arity == count }
    }

    /// The name of a subcommand without its command's; of a command its name.
    #[must_use]
    pub fn short_name(&self) -> &'static str {
        self.name.split_once('|').map_or(self.name, |(_, short)| short)
    }

    /// The keys of a call with these arguments.
    pub fn keys_of<'s, 'a>(
        &self,
        arguments: &'s [&'a [u8]],
    ) -> impl Iterator<Item = &'a [u8]> + use<'s, 'a> {
        let spec = self.keys;
        let (first, step) = spec.map_or((0, 1), |spec| (spec.first, spec.step));
        let end = spec.map_or(0, |spec| spec.last.map_or(arguments.len(), |last| last + 1));
        let end = end.min(arguments.len());
        arguments.get(first..end).unwrap_or_default().iter().step_by(step).copied()
    }

    /// All categories: those that follow from the flags, and the row's own.
    pub fn all_categories(&self) -> impl Iterator<Item = &'static str> {
        let flags = self.flags;
        let own = self.categories;
        let has_category = move |category: Category| match category {
            Category::Read => flags.has(Flags::READONLY),
            Category::Write => flags.has(Flags::WRITE),
            Category::Admin => flags.has(Flags::ADMIN),
            Category::Fast => flags.has(Flags::FAST),
            Category::Slow => !flags.has(Flags::FAST),
            Category::Dangerous => flags.has(Flags::ADMIN) || own.contains(&category),
            Category::Keyspace
            | Category::Set
            | Category::SortedSet
            | Category::List
            | Category::Hash
            | Category::String
            | Category::Bitmap
            | Category::HyperLogLog
            | Category::Geo
            | Category::Stream
            | Category::PubSub
            | Category::Blocking
            | Category::Connection
            | Category::Transaction
            | Category::Scripting => own.contains(&category),
        };
        Category::ALL
            .into_iter()
            .filter(move |(category, _)| has_category(*category))
            .map(|(_, name)| name)
    }
}
