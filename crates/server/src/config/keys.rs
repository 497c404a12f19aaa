//! The table of all configuration keys: the reader, the documents and the example are made of it.
//!
//! A key's path names tables with dots; `[]` stands for the elements of an array of tables.
//!
//! Ensures: numbers, words and lengths beyond a key's bounds are refused (`resolve`).
//! Invariant: every key that has a default has one that its own reader accepts (a test).

use crate::resp::connection::password::PASSWORD_BYTES_MAX;

/// What a key's value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Any text.
    Text,
    /// A whole number.
    Integer,
    /// `true` or `false`.
    Flag,
    /// Bytes, as a number or as text with a unit such as `"64MiB"`.
    Size,
    /// A time such as `"500ms"`.
    Time,
    /// `"host:port"`.
    Address,
    /// A folder.
    Folder,
    /// Several of `"host:port"`; separated by commas where it is no file that says so.
    Addresses,
}

impl Kind {
    /// What people call such a value.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Text => "text in quotes",
            Self::Integer => "a whole number",
            Self::Flag => "true or false",
            Self::Size => "a size such as \"64MiB\"",
            Self::Time => "a time such as \"500ms\"",
            Self::Address => "an address such as \"127.0.0.1:6379\"",
            Self::Folder => "a folder in quotes",
            Self::Addresses => "a list of addresses such as [\"127.0.0.1:2379\"]",
        }
    }
}

/// Which values of a key's kind are accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bounds {
    /// All.
    Any,
    /// Numbers from the first to the last.
    Numbers(i64, i64),
    /// One of these words.
    Words(&'static [&'static str]),
    /// So many hexadecimal digits.
    HexDigits(usize),
    /// Text of so many bytes, from the first to the last number.
    Bytes(usize, usize),
}

impl std::fmt::Display for Bounds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Any => Ok(()),
            Self::Numbers(least, most) => write!(f, "{least} to {most}"),
            Self::Words(words) => f.write_str(&words.join(", ")),
            Self::HexDigits(count) => write!(f, "{count} hexadecimal digits"),
            Self::Bytes(least, most) => write!(f, "{least} to {most} bytes"),
        }
    }
}

/// One configuration key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its path, `[]` behind arrays of tables.
    pub path: &'static str,
    /// What its value is.
    pub kind: Kind,
    /// The value if nobody says anything, as TOML; `None`: absent.
    pub default: Option<&'static str>,
    /// A value for the example where there is no default, as TOML.
    pub example: &'static str,
    /// What it does.
    pub doc: &'static str,
    /// Whether it is hidden when the configuration is shown.
    pub is_secret: bool,
    /// Which values are accepted.
    pub bounds: Bounds,
}

impl Key {
    /// The key with bounds.
    const fn within(self, bounds: Bounds) -> Self {
        Self { bounds, ..self }
    }
}

const fn key(
    path: &'static str,
    kind: Kind,
    default: Option<&'static str>,
    example: &'static str,
    doc: &'static str,
) -> Key {
    Key { path, kind, default, example, doc, is_secret: false, bounds: Bounds::Any }
}

/// Numbers that two bytes hold.
const SMALL: Bounds = Bounds::Numbers(1, 65_535);
/// Numbers of things in memory.
const COUNT: Bounds = Bounds::Numbers(1, 2_147_483_647);

/// All keys, in the order of the example.
pub const KEYS: &[Key] = &[
    key(
        "deployment.name",
        Kind::Text,
        Some("\"antecede\""),
        "",
        "What people call the deployment.",
    ),
    key(
        "deployment.id",
        Kind::Text,
        None,
        "\"5b0c6e0e8f5c4b7a9d3e2f1a0b9c8d7e\"",
        "32 hexadecimal digits that name the deployment for ever; nodes of another one are refused.\n\
         Needed as soon as there are several nodes; one node alone draws it and keeps it in its data folder.",
    )
    .within(Bounds::HexDigits(32)),
    key(
        "deployment.shards",
        Kind::Integer,
        Some("256"),
        "",
        "How many shards the key space has: a power of two up to 16384, fixed for ever.",
    )
    .within(Bounds::Numbers(1, 16_384)),
    key(
        "deployment.chain_length",
        Kind::Integer,
        Some("3"),
        "",
        "How many replicas a shard has in each datacenter; fewer where there are fewer nodes.",
    )
    .within(SMALL),
    key(
        "datacenter[].id",
        Kind::Integer,
        None,
        "1",
        "Number of the datacenter, from 1; never used again for another.",
    )
    .within(SMALL),
    key("datacenter[].name", Kind::Text, None, "\"us-east\"", "What people call the datacenter."),
    key(
        "datacenter[].added",
        Kind::Flag,
        None,
        "false",
        "Whether the datacenter was added to a deployment that was there before (antecede topology):\n\
         true in the settings of its own nodes, and wherever else it is named; absent: false.",
    ),
    key(
        "datacenter[].node[].number",
        Kind::Integer,
        None,
        "1",
        "Number of the node in its datacenter, from 1 without gaps.",
    )
    .within(SMALL),
    key(
        "datacenter[].node[].client",
        Kind::Address,
        None,
        "\"127.0.0.1:6379\"",
        "Where clients reach the node.",
    ),
    key(
        "datacenter[].node[].peer",
        Kind::Address,
        None,
        "\"127.0.0.1:16379\"",
        "Where other nodes reach it.",
    ),
    key(
        "datacenter[].node[].admin",
        Kind::Address,
        None,
        "\"127.0.0.1:26379\"",
        "Where the admin port is; absent: none.",
    ),
    key(
        "datacenter[].node[].control",
        Kind::Address,
        None,
        "\"127.0.0.1:36379\"",
        "Where the node is reached for the agreement; needed for members of an embedded one\n\
         (control.members), and for at least one node of each datacenter with etcd.",
    ),
    key(
        "node.datacenter",
        Kind::Text,
        None,
        "\"us-east\"",
        "Name of the datacenter that this node belongs to.",
    ),
    key("node.number", Kind::Integer, None, "1", "This node's number in it.")
    .within(SMALL),
    key(
        "listen.client",
        Kind::Address,
        None,
        "\"0.0.0.0:6379\"",
        "Where to listen for clients, if not at the node's own address.",
    ),
    key("listen.peer", Kind::Address, None, "\"0.0.0.0:16379\"", "The same for other nodes."),
    key("listen.admin", Kind::Address, None, "\"127.0.0.1:26379\"", "The same for the admin port."),
    key(
        "listen.control",
        Kind::Address,
        None,
        "\"0.0.0.0:36379\"",
        "The same for the member of the agreement.",
    ),
    key(
        "control.store",
        Kind::Text,
        Some("\"none\""),
        "",
        "Who decides which replicas serve. none: nobody, chains are as the settings say, and stop while\n\
         one of their nodes is away; embedded: a manager, by agreement of some nodes of the datacenter,\n\
         so that chains go on without a node; etcd: the same by agreement of an etcd (control.endpoints).\n\
         The same on all nodes. With none, a node with a new data folder serves only when all other nodes\n\
         have said that they do not know it.",
    )
    .within(Bounds::Words(&["none", "embedded", "etcd"])),
    key(
        "control.members",
        Kind::Integer,
        None,
        "3",
        "How many nodes of each datacenter agree, the first ones: 1, 3 or 5, of which one, two or three\n\
         must run; absent: 3, or 1 where there are fewer nodes. Fixed once the deployment has begun.",
    )
    .within(Bounds::Numbers(1, 5)),
    key(
        "control.folder",
        Kind::Folder,
        None,
        "\"/var/lib/antecede\"",
        "Where a member keeps its file; absent: storage.folder.",
    ),
    key(
        "control.endpoints",
        Kind::Addresses,
        None,
        "[\"10.0.0.1:2379\", \"10.0.0.2:2379\", \"10.0.0.3:2379\"]",
        "Where the members of etcd answer clients; needed for store = \"etcd\", and best near the nodes.",
    ),
    key(
        "control.deployment_endpoints",
        Kind::Addresses,
        None,
        "[\"10.0.0.1:2379\", \"10.1.0.1:2379\", \"10.2.0.1:2379\"]",
        "Where an etcd answers that all datacenters ask, to agree on which datacenters there are; for\n\
         store = \"etcd\". Absent: none can be added or removed.",
    ),
    key(
        "control.witness",
        Kind::Address,
        None,
        "\"10.9.0.1:36379\"",
        "Where a witness (antecede witness) is reached, which votes where datacenters are agreed on, with\n\
         the first node of each of them; for store = \"embedded\". Best where there are two datacenters,\n\
         in a third place: without it neither can be added or removed while one of them is away.",
    ),
    key(
        "control.prefix",
        Kind::Text,
        Some("\"/antecede\""),
        "",
        "What our keys in etcd begin with; the deployment's id and the datacenter's number follow.",
    ),
    key(
        "control.user",
        Kind::Text,
        None,
        "\"antecede\"",
        "Who we are to etcd, where it asks; the user reads and writes below control.prefix.",
    ),
    Key {
        path: "control.password",
        kind: Kind::Text,
        default: None,
        example: "\"correct horse battery staple\"",
        doc: "The password of control.user.",
        is_secret: true,
        bounds: Bounds::Any,
    },
    key(
        "control.ca",
        Kind::Text,
        None,
        "\"/etc/antecede/etcd-ca.pem\"",
        "File with the certificates that etcd's may be signed with; given: connections are encrypted.",
    ),
    key(
        "control.certificate",
        Kind::Text,
        None,
        "\"/etc/antecede/etcd-client.pem\"",
        "File with our own certificate, where etcd asks for one.",
    ),
    key(
        "control.key",
        Kind::Text,
        None,
        "\"/etc/antecede/etcd-client.key\"",
        "File with its key.",
    ),
    key(
        "control.leave_timeout",
        Kind::Time,
        Some("\"10s\""),
        "",
        "How long a node that is asked to stop may take until other nodes serve what it has served; then\n\
         it stops anyway.",
    ),
    key(
        "storage.folder",
        Kind::Folder,
        None,
        "\"/var/lib/antecede\"",
        "Where the log is kept; absent: in memory only, and gone with the process.",
    ),
    key(
        "storage.memory",
        Kind::Flag,
        Some("false"),
        "",
        "Says that memory only is meant; needed without a folder as soon as there are several nodes.",
    ),
    key(
        "storage.fsync",
        Kind::Text,
        Some("\"always\""),
        "",
        "always: acknowledged means on disk; interval: synced this often; never: when the system likes\n\
         (refused where there are several datacenters).",
    )
    .within(Bounds::Words(&["always", "interval", "never"])),
    key(
        "storage.interval",
        Kind::Time,
        Some("\"1s\""),
        "",
        "How often to sync under fsync = \"interval\".",
    ),
    key(
        "storage.checkpoint",
        Kind::Size,
        Some("\"256MiB\""),
        "",
        "Bytes by which the log grows, or a quarter of the data if that is more, before the keys are\n\
         written down and the log is cut: more means fewer writes, a longer log and a longer start.",
    ),
    key("storage.segment", Kind::Size, Some("\"64MiB\""), "", "Bytes of one segment of the log."),
    key(
        "storage.reserve",
        Kind::Size,
        Some("\"256MiB\""),
        "",
        "Bytes that writes of clients leave free on the disk of storage.folder, but no more than a\n\
         twentieth of it: what is under way and what the node needs to go on still fits.",
    ),
    key(
        "limits.maxmemory",
        Kind::Size,
        Some("0"),
        "",
        "Memory of the process. With storage.folder, values that were not used lately are on disk only\n\
         before it is reached; writes that may grow the data are refused beyond it when nothing is left\n\
         that could go there, and without storage.folder at once. 0: no limit.",
    ),
    key(
        "limits.outbox",
        Kind::Size,
        Some("\"1GiB\""),
        "",
        "Memory of a node for writes that another datacenter has not applied yet, about 200 bytes each\n\
         and the key and value. Beyond it writes are refused with OUTBOXFULL until that datacenter has\n\
         caught up; set it alike on all nodes. 0: no limit.",
    ),
    key(
        "limits.connections",
        Kind::Integer,
        Some("10000"),
        "",
        "Client connections at a time.",
    )
    .within(Bounds::Numbers(1, 65_536)),
    key(
        "limits.query_buffer",
        Kind::Size,
        Some("\"64MiB\""),
        "",
        "Bytes of one unfinished command; beyond, the connection is closed.",
    ),
    key(
        "limits.output_buffer",
        Kind::Size,
        Some("\"64MiB\""),
        "",
        "Bytes of unread answers; beyond, the client is not read from.",
    ),
    key("limits.bulk", Kind::Size, Some("\"64MiB\""), "", "Bytes of one argument."),
    key("limits.arguments", Kind::Integer, Some("1048576"), "", "Arguments of one command.")
    .within(COUNT),
    key(
        "limits.pipeline",
        Kind::Integer,
        Some("1024"),
        "",
        "Commands of one connection that are run in one turn.",
    )
    .within(COUNT),
    key(
        "limits.idle_timeout",
        Kind::Time,
        Some("\"0s\""),
        "",
        "How long a client may be silent; 0s: for ever.",
    ),
    Key {
        path: "security.password",
        kind: Kind::Text,
        default: None,
        example: "\"correct horse battery staple\"",
        doc: "Clients say it with AUTH; needed to listen beyond loopback.",
        is_secret: true,
        bounds: Bounds::Bytes(1, PASSWORD_BYTES_MAX),
    },
    key(
        "clock.max_drift",
        Kind::Time,
        Some("\"500ms\""),
        "",
        "How far ahead another node's clock may be.",
    ),
    key(
        "request.timeout",
        Kind::Time,
        Some("\"5s\""),
        "",
        "How long a request to another node may take.",
    ),
    key(
        "peer.queue",
        Kind::Size,
        Some("\"64MiB\""),
        "",
        "Bytes that may wait for one peer; what is beyond is dropped and sent again later.",
    ),
    key(
        "faults.enabled",
        Kind::Flag,
        Some("false"),
        "",
        "Lets the admin port delay and cut links between datacenters; for demonstrations and tests.",
    ),
];

/// The key of a path whose indexes are left out.
#[must_use]
pub fn find(pattern: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == pattern)
}

/// A commented file with every key; those without a default are commented out, except for a
/// deployment of one node.
#[must_use]
pub fn example() -> String {
    let mut text = String::from(
        "# Every key of Antecede's configuration with its default.\n\
         # A key that is commented out has none; the value is an example.\n\
         # Order of precedence: default < this file < ANTECEDE_* environment < flags;\n\
         # ANTECEDE_LIMITS_MAXMEMORY stands for limits.maxmemory.\n",
    );
    let mut table = "";
    for key in KEYS {
        let (parent, name) = key.path.rsplit_once('.').unwrap_or(("", key.path));
        if parent != table {
            table = parent;
            text.push('\n');
            text.push_str(&heading(parent));
        }
        for line in key.doc.lines() {
            text.push_str("# ");
            text.push_str(line);
            text.push('\n');
        }
        let is_given =
            key.default.is_some() || parent.starts_with("datacenter") || parent == "node";
        let value = key.default.unwrap_or(key.example);
        let mark = if is_given { "" } else { "# " };
        text.push_str(&format!("{mark}{name} = {value}\n"));
    }
    text
}

fn heading(table: &str) -> String {
    let plain = table.replace("[]", "");
    if table.contains("[]") { format!("[[{plain}]]\n") } else { format!("[{plain}]\n") }
}
