//! Reads what a node's datacenter has written from the node's data folder, while no process uses it.
//!
//! Nothing in the folder is changed, and the folder need not be writable.
//!
//! Limits: the log alone is read. An entry leaves it only once it is known to be applied everywhere.

use std::io;
use std::path::{Path, PathBuf};

use antecede_model::{codec::DecodeError, ids::NodeId};
use antecede_protocol::{
    entry::{Change, Effect, Entry},
    record::Record,
    unsent::OwnWrites,
};
use antecede_storage::{LogIndex, OpenError, RealDisk};

/// A data folder, as far as it tells of its datacenter's writes.
#[derive(Debug)]
pub struct OldFolder {
    /// The deployment, in hexadecimal digits.
    pub deployment: String,
    /// The node whose folder it is.
    pub node: NodeId,
    /// What its datacenter has written, by shard.
    pub writes: Vec<OldWrite>,
}

/// A write of the folder's datacenter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OldWrite {
    /// The shard.
    pub shard: u16,
    /// Its stamp, which names it in the shard.
    pub stamp: u64,
    /// When it was stamped, in milliseconds of Unix time.
    pub millis: u64,
    /// Whether it is known to have been committed; the last ones may not have been.
    pub is_certain: bool,
    /// What it did to keys, each at most once.
    pub effects: Vec<OldEffect>,
}

/// What a write did to a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OldEffect {
    /// The key.
    pub key: Vec<u8>,
    /// Datacenter and stamp of each version that it found there.
    pub seen: Vec<(u16, u64)>,
    /// What it did.
    pub change: OldChange,
}

/// What was done to a key; moments are milliseconds of Unix time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OldChange {
    /// A new value.
    Set {
        /// The value.
        value: Vec<u8>,
        /// When it expires.
        deadline: Option<u64>,
    },
    /// It was removed.
    Delete,
    /// When the value that was there expires.
    Ttl {
        /// `None`: never.
        deadline: Option<u64>,
    },
    /// Its time was over.
    Hide,
}

impl OldWrite {
    fn of(shard: u16, entry: &Entry, is_certain: bool) -> Self {
        let mut effects = Vec::new();
        entry.for_each_effect(|effect| effects.push(OldEffect::of(&effect)));
        let (stamp, millis) = (entry.stamp.0, entry.stamp.millis());
        Self { shard, stamp, millis, is_certain, effects }
    }
}

impl OldEffect {
    fn of(effect: &Effect<'_>) -> Self {
        let change = match effect.change {
            Change::Set { value, deadline } => OldChange::Set { value: value.to_vec(), deadline },
            Change::Delete => OldChange::Delete,
            Change::Ttl { deadline } => OldChange::Ttl { deadline },
            Change::Hide => OldChange::Hide,
        };
        let seen = effect.seen.iter().map(|version| (version.origin.0, version.timestamp.0));
        Self { key: effect.key.to_vec(), seen: seen.collect(), change }
    }
}

/// Why a data folder cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum OldFolderError {
    /// The folder cannot be opened.
    #[error("cannot open the log in {}; give the folder that storage.folder named", path.display())]
    Open {
        /// The folder of the log.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// The log cannot be read.
    #[error("cannot read the log")]
    Log(#[from] OpenError),
    /// A record of the log cannot be read by this build.
    #[error("cannot read record {index} of the log; was it written by a newer build?")]
    Record {
        /// Its number.
        index: LogIndex,
        /// What is wrong with it.
        source: DecodeError,
    },
}

/// Reads a data folder.
///
/// # Errors
/// When a process uses it, it holds no log, or the log is damaged.
pub fn read(folder: &Path) -> Result<OldFolder, OldFolderError> {
    let path = folder.join("log");
    let disk = RealDisk::open_to_read(&path)
        .map_err(|source| OldFolderError::Open { path: path.clone(), source })?;
    // Whose log it is, is known when it has been read: so it is read twice.
    let (identity, _) = antecede_storage::look(&disk, |_, _| {})?;
    let node = NodeId::from_bits(identity.node);
    let mut writes = OwnWrites::of(node.datacenter);
    let mut wrong = None;
    antecede_storage::look(&disk, |index, bytes| match Record::read(bytes) {
        Ok(record) => writes.take(record),
        Err(source) => {
            wrong.get_or_insert(OldFolderError::Record { index, source });
        }
    })?;
    if let Some(error) = wrong {
        return Err(error);
    }
    let of = |(shard, entry, is_certain): (antecede_model::ids::ShardId, &Entry, bool)| {
        OldWrite::of(shard.0, entry, is_certain)
    };
    let writes = writes.writes().map(of).collect();
    let deployment = format!("{:032x}", u128::from_be_bytes(identity.deployment));
    Ok(OldFolder { deployment, node, writes })
}
