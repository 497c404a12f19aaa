//! Starts a node: its log, its boot number, its replicas as the log left them.
//!
//! A folder holds `deployment` (its id, where the configuration names none), `boot` (the number of
//! the last run), `members` (`members`), `met` (`met`), `checkpoint/` and `log/`. The boot number is written down, and synced, before the node says
//! anything; it is at least the wall clock's microseconds, so that a node whose folder was emptied
//! is still a newer run for its peers.

use std::fs::File;
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use antecede_model::{
    clock::{Steady, Timestamp},
    configuration::Configuration,
    ids::{Boot, DeploymentId, NodeId, ShardId},
};
use antecede_protocol::{
    chain::{Input, Shard, ShardOptions},
    checkpointed::{CheckpointMeta, RecoveryError},
    geo::cuts::CutKeeper,
    machine::Lease,
    mutation::Mutations,
};
use antecede_storage::{
    Identity, Log, LogIndex, Notice, OpenError, Options, RealDisk, RecoveryReport, SharedLog,
    SharedOptions,
    checkpoint::{
        CheckpointBatch, CheckpointError, CheckpointOptions, CheckpointStore, OpenCheckpointsError,
        RealCheckpoints,
    },
};
use parking_lot::{Mutex, RwLock};
use tracing::{error, info, warn};

use super::checkpoint::Checkpoints;
use super::cold::{AWAY_BYTES_MIN, ColdValues};
use super::current::Current;
use super::free::FreeSpace;
use super::log::{NodeLog, PENDING_BYTES_MAX};
use super::mailbox::Sessions;
use super::memory::{Memory, MemoryFigure};
use super::met::{Beginning, Found, Met, Whole, check_newest, first_run_of};
use super::outbox::Outbox;
use super::replay::{self, Damage};
use super::timers::Timers;
use super::{Node, Replica, Work, members};
use crate::clock;
use crate::config::Config;
use crate::connection::registry::Registry;
use crate::control::Control;
use crate::fatal::{self, Fatal};
use crate::peer::{LinkShaper, Links};
use crate::telemetry::Telemetry;

/// Bytes of entries that a shard keeps for replicas that are away; a node may hold 256 shards.
const KEPT_BYTES_MAX: usize = 512 * 1024;
/// How long to wait before a full disk is tried again.
const DISK_RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// Why a node cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The log cannot be opened.
    #[error("cannot open the log")]
    Log(#[from] OpenError),
    /// A record of the log cannot be read by this build.
    #[error("cannot read record {index} of the log; was it written by a newer build?")]
    Record {
        /// Its number.
        index: LogIndex,
        /// What is wrong with it.
        source: antecede_model::codec::DecodeError,
    },
    /// The checkpoints cannot be opened.
    #[error("cannot open the checkpoints")]
    Checkpoints(#[from] OpenCheckpointsError),
    /// A checkpoint cannot be read.
    #[error("cannot read the checkpoint of shard {shard}")]
    Checkpoint {
        /// The shard.
        shard: ShardId,
        /// What is wrong with it.
        source: CheckpointError,
    },
    /// A record of a checkpoint cannot be read by this build.
    #[error(
        "cannot read a record of the checkpoint of shard {shard}; was it written by a newer build?"
    )]
    CheckpointRecord {
        /// The shard.
        shard: ShardId,
        /// What is wrong with it.
        source: antecede_model::codec::DecodeError,
    },
    /// The log and the checkpoints do not belong together.
    #[error(
        "cannot put the checkpoints and the log in {} together; put back both as they were, or, if \
         other nodes have the data, empty the folder: this node copies it from them then",
        folder.display()
    )]
    Recovery {
        /// The data folder.
        folder: PathBuf,
        /// What does not fit.
        source: RecoveryError,
    },
    /// The member of the agreement cannot be opened.
    #[error("cannot take part in the agreement")]
    Agreement(#[from] antecede_control::embedded::OpenError),
    /// etcd cannot be asked with such settings.
    #[cfg(feature = "etcd")]
    #[error("cannot ask etcd")]
    Etcd(#[from] antecede_control::etcd::OptionsError),
    /// The node cannot listen to beats.
    #[cfg(feature = "etcd")]
    #[error("cannot take part in the agreement")]
    Listener(#[from] antecede_control::etcd::OpenError),
    /// The member of the agreement has lost its file, and cannot be made one again.
    #[error("cannot become a member of the agreement again after the member's file was lost")]
    Rejoin(#[from] antecede_control::embedded::MembershipError),
    /// The folder lags behind what the others know of this node.
    #[error(
        "{} is an old copy: run {found} of node {node} was the last to use it, its datacenter has \
         had run {known} since; use the folder of that run, or start with an empty folder: the node \
         then copies everything from its chains",
        path.display()
    )]
    OldFolder {
        /// The folder.
        path: PathBuf,
        /// The node.
        node: NodeId,
        /// The last run that used it; 0: none that is known.
        found: Boot,
        /// The last run that the others know.
        known: Boot,
    },
    /// A later run has used another folder.
    #[error(
        "{} is an old copy: another node has met run {known} of node {node}, which had another data \
         folder; use the folder of that run; if there is none, and what it had acknowledged is to be \
         given up, remove the file `superseded` in this one",
        path.display()
    )]
    Superseded {
        /// The folder.
        path: PathBuf,
        /// The node.
        node: NodeId,
        /// The later run.
        known: Boot,
    },
    /// Others have more of what was written here.
    #[error(
        "{} is an old copy: another datacenter knows of writes that were in node {node}'s datacenter \
         and are not in it; use the folder of the last run; if there is none, start with an empty \
         folder, and let the datacenter come back with what the others have (docs/guide/recover.md)",
        path.display()
    )]
    SetBack {
        /// The folder.
        path: PathBuf,
        /// The node.
        node: NodeId,
    },
    /// The agreement knows nothing of the folder.
    #[error(
        "run {found} of node {node} has used {}, but the agreement of this datacenter knows no run \
         of it: it was begun anew, on other folders than those that it had before; stop all nodes \
         of the datacenter and start those first whose folders have the newest agreement",
        path.display()
    )]
    OldAgreement {
        /// The folder.
        path: PathBuf,
        /// The node.
        node: NodeId,
        /// The last run that used it.
        found: Boot,
    },
    /// Another process of this node runs.
    #[error(
        "another process of node {node} runs and takes part; stop it first, or, if this one was \
         started on a copy of its folder, remove the copy"
    )]
    Twin {
        /// The node.
        node: NodeId,
    },
    /// A file or thread cannot be had.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// What could not be done.
        what: &'static str,
        /// With which file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// An address cannot be listened on.
    #[error("cannot listen on {address} for {what}; is another process there?")]
    Listen {
        /// For whom.
        what: &'static str,
        /// Where.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// The folder says something that is not what was written.
    #[error("{} holds \"{found}\" where {wanted} should be; restore it or empty the folder", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What it holds.
        found: String,
        /// What it should hold.
        wanted: &'static str,
    },
}

/// What a node is made of, besides its settings.
#[derive(Clone)]
pub(crate) struct Parts {
    pub(crate) config: Arc<Config>,
    pub(crate) memory_figure: Option<MemoryFigure>,
    pub(crate) shaper: LinkShaper,
}

/// What the log said at the start.
struct Recovered {
    log: Log<RealDisk>,
    /// Bytes of the records that were there.
    bytes: u64,
    checkpoints: Option<RealCheckpoints<RealDisk>>,
    replicas: Vec<Option<Shard>>,
    floor: Timestamp,
    /// Whether there is nothing of any shard.
    is_empty: bool,
    /// Whether no run has used the folder.
    is_first_run: bool,
}

/// Opens a node; its replicas begin to settle when its links are up.
pub(crate) fn open(parts: Parts) -> Result<Arc<Node>, StartError> {
    let config = parts.config;
    let folder = config.storage.folder.as_deref();
    folder.map_or(Ok(()), |folder| check_newest(folder, config.node))?;
    let deployment = deployment(&config, folder)?;
    let configuration = Arc::new(first_configuration(&config, deployment)?);
    let recovered = recover(&config, &configuration, deployment)?;
    let found = next_boot(config.node, folder, recovered.is_first_run)?;
    let (boot, beginning) = (found.boot, Beginning::of(found));
    let slot: Arc<OnceLock<Weak<Node>>> = Arc::default();
    let options = SharedOptions {
        fsync: config.storage.fsync,
        retry_interval: DISK_RETRY_INTERVAL,
        clock: Arc::new(clock::LogClock),
    };
    let callback = Arc::clone(&slot);
    let shared = SharedLog::start(recovered.log, options, move |notice| {
        if let Some(node) = callback.get().and_then(Weak::upgrade) {
            node.on_notice(notice);
        }
    })
    .map_err(|source| {
        let path = folder.unwrap_or_else(|| Path::new("memory"));
        io_error("start the log's thread for", path, source)
    })?;
    let free = FreeSpace::of(folder, config.storage.reserve_bytes);
    let log_found = (recovered.floor, recovered.bytes);
    let log = NodeLog::new(shared, folder.is_none(), config.max_clock_drift, log_found, free);
    let telemetry = Telemetry::new(&config);
    let links = Links::new(&config, deployment, boot, &parts.shaper);
    links.extend(&configuration, &config, &telemetry);
    let keeper = CutKeeper::new(Arc::clone(&configuration), config.node.datacenter);
    let held = recovered.replicas.iter().flatten().count();
    let replica = |shard| Mutex::new(Replica::new(shard));
    let node = Arc::new(Node {
        id: config.node,
        boot,
        started: clock::now(),
        hlc_floor: recovered.floor,
        has_begun_empty: recovered.is_empty,
        met: Met::open(folder)?,
        beginning,
        replicas: recovered.replicas.into_iter().map(|it| it.map(replica)).collect(),
        log,
        cold: ColdValues::new(recovered.checkpoints.is_some()),
        checkpoints: Checkpoints::new(recovered.checkpoints),
        memory: Memory::new(parts.memory_figure, config.limits.memory_bytes_max),
        outbox: Outbox::new(config.limits.outbox_bytes_max),
        sessions: Sessions::starting_at(clock::wall()),
        links,
        timers: Timers::default(),
        telemetry,
        registry: Registry::default(),
        connections_max: AtomicU64::new(config.limits.connections_max as u64),
        idle_timeout_millis: AtomicU64::new(0),
        is_sync_late: AtomicBool::new(false),
        cuts: RwLock::new(Arc::clone(keeper.cuts())),
        keeper: Mutex::new(keeper),
        quiet: Mutex::default(),
        unsettled: AtomicU64::new(0),
        reconfiguring: Mutex::default(),
        boots: Mutex::default(),
        stopping: tokio::sync::watch::Sender::new(false),
        control: Control::default(),
        current: Current::new(configuration, first_lease(&config)),
        config,
    });
    node.set_idle_timeout(node.config.limits.idle_timeout);
    slot.get_or_init(|| Arc::downgrade(&node));
    info!(node = %node.id, boot = %node.boot, shards = held, "node is open");
    Ok(node)
}

/// What the settings say, with the datacenters that the run before this one acted by.
fn first_configuration(
    config: &Config,
    deployment: DeploymentId,
) -> Result<Configuration, StartError> {
    let mut configuration = config.configuration(deployment);
    let members = config.storage.folder.as_deref().map(members::read).transpose()?.flatten();
    if let Some(members) = members {
        configuration.adopt_membership(&members, Some(config.node.datacenter));
    }
    Ok(configuration)
}

/// The lease of a node that has just started: none until it is granted one, where somebody grants.
fn first_lease(config: &Config) -> Lease {
    if config.is_managed() { Lease::Until(Steady::default()) } else { Lease::Unbounded }
}

impl Node {
    /// Lets the replicas begin: they agree with their neighbours, then serve. With a new folder, where
    /// nobody decides who serves, they wait for what the others know of this node; `at_once`: not so.
    pub(crate) fn start_replicas(&self, at_once: bool) {
        let mut work = Work::begin();
        let configuration = self.configuration();
        if at_once {
            self.beginning.excuse();
        }
        let asks = !self.config.is_managed() && self.beginning.is_new();
        if asks && (at_once || self.links.all().is_empty()) {
            self.beginning.end(Whole::First);
        } else if asks {
            self.beginning.wait();
            info!(node = %self.id, "the data folder is new: shards wait until all other nodes have said whether they know this one");
        }
        for shard in self.shards() {
            let Some(replica) = self.replica(shard) else { continue };
            let mut replica = replica.lock();
            replica.serves = configuration.chain(self.id.datacenter, shard).contains(&self.id);
            replica.is_withheld = true;
            self.count_unsettled(&mut replica);
        }
        if !self.beginning.waits() {
            self.begin_with(|_| true, &mut work);
        }
    }

    /// Lets those replicas begin that were withheld so far.
    pub(super) fn begin_with(&self, begins: impl Fn(ShardId) -> bool, work: &mut Work) {
        for shard in self.shards().filter(|shard| begins(*shard)) {
            let Some(replica) = self.replica(shard) else { continue };
            let mut replica = replica.lock();
            if !std::mem::take(&mut replica.is_withheld) {
                continue;
            }
            let here = self.here(work.now);
            let mut storage = self.appender(work.now);
            replica.shard.start(&here, &mut storage, &mut work.out);
            self.collect(shard, &mut replica, work);
            // What was recovered counts as persisted and synced.
            let persisted = self.log.persisted();
            replica.told = persisted;
            self.handle(shard, &mut replica, Input::Persisted(persisted), work);
            // It has heard of none while it was withheld.
            self.handle(shard, &mut replica, Input::Configuration(self.configuration()), work);
            self.follow_log(shard, &mut replica, work);
        }
        self.finish(work);
    }

    /// What the log tells, on any thread.
    fn on_notice(&self, notice: Notice) {
        match notice {
            Notice::Advanced(positions) => {
                if self.log.learn(positions) && !NodeLog::is_flushing_here() {
                    self.on_log_advanced();
                }
            }
            Notice::DiskFull(full) => {
                self.log.set_disk_full(true);
                warn!(node = %self.id, error = %full, "writes are refused");
            }
            Notice::Healed => {
                self.log.set_disk_full(false);
                info!(node = %self.id, "there is room on the disk again, writes go on");
            }
            Notice::Failed(failure) => {
                let cause = std::error::Error::source(&failure).map(ToString::to_string);
                error!(node = %self.id, error = %failure, cause, "the log has failed: this process ends; see to the disk, then start the node again");
                // Nothing that was appended since can be believed; the chain goes on without it.
                fatal::end(Fatal::Disk);
            }
        }
    }
}

/// Opens the log, and gives each record to its replica.
fn recover(
    config: &Config,
    configuration: &Arc<Configuration>,
    deployment: DeploymentId,
) -> Result<Recovered, StartError> {
    let mut replicas = replicas(config, configuration, deployment);
    let options = Options {
        pending_bytes_max: PENDING_BYTES_MAX,
        segment_bytes: config.storage.segment_bytes,
        ..Options::usual(config.storage.fsync, draw())
    };
    let Some(folder) = &config.storage.folder else {
        let (log, floor) = (Log::memory(options), Timestamp::ZERO);
        let checkpoints = None;
        let (is_empty, is_first_run) = (true, false);
        return Ok(Recovered {
            log,
            bytes: 0,
            checkpoints,
            replicas,
            floor,
            is_empty,
            is_first_run,
        });
    };
    let path = folder.join("log");
    let disk = RealDisk::open(&path).map_err(|source| io_error("open", &path, source))?;
    let identity = Identity { deployment: deployment.0, node: config.node.to_bits() };
    let began = clock::steady();
    let limit = config.limits.memory_bytes_max;
    let (checkpoints, loaded) = load(folder, identity, limit, &mut replicas)?;
    tell_loading(config.node, loaded, began);
    let found = checkpoints.shards();
    let has_checkpoints =
        !found.map_err(|source| StartError::Checkpoint { shard: ShardId(0), source })?.is_empty();
    let began = clock::steady();
    let (opened, told) = replay::replay(&mut replicas, |sorter| {
        Log::open(disk, options, identity, |index, bytes| sorter.take(index, bytes))
    })
    .map_err(|source| io_error("start a thread that reads", &path, source))?;
    let (log, report) = opened?;
    let told = told.map_err(|Damage { index, source }| StartError::Record { index, source })?;
    let end = antecede_model::ids::LogIndex(report.recovered_to.get());
    for replica in replicas.iter_mut().flatten() {
        let ended = replica.end_recovery(end);
        ended.map_err(|source| StartError::Recovery { folder: folder.clone(), source })?;
    }
    tell_recovery(config.node, &report, clock::steady().0.saturating_sub(began.0));
    // Each run begins a segment, and writes its number once the mark is there.
    let is_first_run = report.segments == 0 || number_in(&folder.join("boot"))?.is_none();
    let is_empty = !told.is_about_shards && !has_checkpoints;
    let (floor, bytes) = (told.floor, report.bytes);
    let checkpoints = Some(checkpoints);
    Ok(Recovered { log, bytes, checkpoints, replicas, floor, is_empty, is_first_run })
}

/// Opens the checkpoints, and gives each replica what there is of it; tells how many keys that is.
/// Once half of the memory limit is filled, values stay on disk: the log may bring more.
fn load(
    folder: &Path,
    identity: Identity,
    memory_limit: u64,
    replicas: &mut [Option<Shard>],
) -> Result<(RealCheckpoints<RealDisk>, u64), StartError> {
    let path = folder.join("checkpoint");
    let disk = RealDisk::open(&path).map_err(|source| io_error("open", &path, source))?;
    let options = CheckpointOptions::usual(Arc::new(clock::LogClock)).within(memory_limit);
    let store = RealCheckpoints::open(disk, options, identity)?;
    let (mut loaded, mut bytes) = (0, 0);
    let mut gone = CheckpointBatch::new();
    let wrong = |shard| move |source| StartError::Checkpoint { shard, source };
    let shards = store.shards().map_err(wrong(ShardId(0)))?;
    for shard in shards {
        let Some(Some(replica)) = replicas.get_mut(usize::from(shard.0)) else {
            gone.reset(shard); // This node does not hold the shard any more.
            continue;
        };
        let Some(meta) = store.meta(shard).map_err(wrong(shard))? else { continue };
        let damaged = |source| StartError::CheckpointRecord { shard, source };
        replica.recover_checkpoint(CheckpointMeta::read(&meta).map_err(damaged)?);
        let mut damage = None;
        let scanned = store.scan(shard, None, &mut |hash, records| {
            loaded += 1;
            let hash = hash.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
            bytes += records.len() as u64;
            let takes_values = memory_limit == 0 || bytes < memory_limit / 2;
            match replica.recover_records(hash, records, takes_values) {
                Ok(()) => ControlFlow::Continue(()),
                Err(source) => {
                    damage = Some(damaged(source));
                    ControlFlow::Break(())
                }
            }
        });
        scanned.map_err(wrong(shard))?;
        if let Some(damage) = damage {
            return Err(damage);
        }
    }
    if !gone.is_empty() {
        store.write(&gone).map_err(wrong(ShardId(0)))?;
    }
    Ok((store, loaded))
}

fn tell_loading(node: NodeId, keys: u64, began: Steady) {
    let took = clock::steady().0.saturating_sub(began.0);
    let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    info!(%node, keys, millis, "the checkpoint is read");
}

fn tell_recovery(node: NodeId, report: &RecoveryReport, took: Duration) {
    let RecoveryReport { records, bytes, segments, torn_bytes, .. } = *report;
    let took = humantime::format_duration(Duration::from_millis(
        u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
    ));
    info!(%node, records, bytes, segments, torn_bytes, %took, "the log is read");
}

fn replicas(
    config: &Config,
    configuration: &Arc<Configuration>,
    deployment: DeploymentId,
) -> Vec<Option<Shard>> {
    let options = ShardOptions {
        blocked_bytes_max: antecede_protocol::geo::inbox::BLOCKED_BYTES_MAX,
        kept_bytes_max: KEPT_BYTES_MAX,
        trimmed_bytes_min: antecede_protocol::record::TRIMMED_BYTES_MIN,
        part_bytes: antecede_protocol::copied::PART_BYTES,
        part_pause: antecede_protocol::copied::PART_PAUSE,
        retries_max: antecede_protocol::retries::KEPT_MAX,
        has_checkpoints: config.storage.folder.is_some(),
        away_bytes_min: config.storage.folder.is_some().then_some(AWAY_BYTES_MIN),
        max_clock_drift: config.max_clock_drift,
        hash_secret: secret_of(deployment),
        mutations: Mutations::NONE,
    };
    let held: std::collections::BTreeSet<ShardId> = configuration.shards_of(config.node).collect();
    // Where managers decide it may hold any shard, now or by what it finds on its disk.
    let may_hold = |shard| config.is_managed() || held.contains(&shard);
    let one = |shard| {
        may_hold(shard).then(|| Shard::new(shard, config.node, Arc::clone(configuration), options))
    };
    configuration.shard_count.shards().map(one).collect()
}

/// The secret that orders scans; the same on all nodes of a deployment.
fn secret_of(deployment: DeploymentId) -> u64 {
    let number = u128::from_be_bytes(deployment.0);
    let [high, low] = [(number >> 64) & u128::from(u64::MAX), number & u128::from(u64::MAX)];
    u64::try_from(high ^ low.rotate_left(1) & u128::from(u64::MAX)).unwrap_or(0)
}

/// A number that nobody can guess.
pub(crate) fn draw() -> u64 {
    let mut bytes = [0_u8; 8];
    match rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()) {
        Ok(_) => u64::from_ne_bytes(bytes),
        // Only before the system has any randomness; the clock is the next best.
        Err(_) => clock::wall().0.rotate_left(20) ^ u64::from(std::process::id()),
    }
}

fn io_error(what: &'static str, path: &Path, source: io::Error) -> StartError {
    StartError::Io { what, path: path.to_owned(), source }
}

/// The deployment's id: configured, or kept in the folder, or drawn.
fn deployment(config: &Config, folder: Option<&Path>) -> Result<DeploymentId, StartError> {
    if let Some(id) = config.deployment {
        return Ok(id);
    }
    let drawn = || {
        let number = (u128::from(draw()) << 64) | u128::from(draw());
        DeploymentId(number.to_be_bytes())
    };
    let Some(folder) = folder else { return Ok(drawn()) };
    let path = folder.join("deployment");
    if let Some(text) = read_file(&path)? {
        let number = u128::from_str_radix(text.trim(), 16).map_err(|_| StartError::Damaged {
            path: path.clone(),
            found: text.trim().to_owned(),
            wanted: "32 hexadecimal digits",
        })?;
        return Ok(DeploymentId(number.to_be_bytes()));
    }
    let id = drawn();
    write_file(folder, "deployment", &format!("{id}\n"))?;
    Ok(id)
}

/// A number larger than that of every earlier run; it is on disk when this returns.
fn next_boot(node: NodeId, folder: Option<&Path>, is_first_run: bool) -> Result<Found, StartError> {
    let now = clock::wall().0;
    let Some(folder) = folder else {
        let (last_run, first_run) = (Boot::default(), None);
        return Ok(Found { node, boot: Boot(now), folder: None, last_run, first_run });
    };
    let last_run = Boot(number_in(&folder.join("boot"))?.unwrap_or(0));
    let boot = Boot(now.max(last_run.0 + 1));
    let first_run = first_run_of(folder, is_first_run.then_some(boot))?;
    write_file(folder, "boot", &format!("{boot}\n"))?;
    Ok(Found { node, boot, folder: Some(folder.to_owned()), last_run, first_run })
}

/// The number of a run in a file; `None` if it is not there.
pub(crate) fn number_in(path: &Path) -> Result<Option<u64>, StartError> {
    let Some(text) = read_file(path)? else { return Ok(None) };
    let number = text.trim().parse::<u64>().map_err(|_| StartError::Damaged {
        path: path.to_owned(),
        found: text.trim().to_owned(),
        wanted: "the number of a run",
    })?;
    Ok(Some(number))
}

/// The text of a small file; `None` if it is not there.
pub(crate) fn read_file(path: &Path) -> Result<Option<String>, StartError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(io_error("read", path, source)),
    }
}

/// Writes a small file so that a crash leaves the old one or the new one.
pub(crate) fn write_file(folder: &Path, name: &str, text: &str) -> Result<(), StartError> {
    let path = folder.join(name);
    let temporary = folder.join(format!("{name}.new"));
    let attempt = || -> io::Result<()> {
        std::fs::create_dir_all(folder)?;
        let mut file = File::create(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&temporary, &path)?;
        File::open(folder)?.sync_all()
    };
    attempt().map_err(|source| io_error("write", &path, source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boots_grow_from_run_to_run_also_when_the_clock_goes_back() {
        let folder = tempfile::tempdir().unwrap();
        let node = NodeId { datacenter: antecede_model::ids::DatacenterId(1), number: 1 };
        let next = || next_boot(node, Some(folder.path()), false);
        let first = next().unwrap();
        let second = next().unwrap();
        assert!(first.boot < second.boot);
        assert_eq!(second.last_run, first.boot);
        let future = clock::wall().0 * 2;
        write_file(folder.path(), "boot", &future.to_string()).unwrap();
        assert_eq!(next().unwrap().boot, Boot(future + 1));
        write_file(folder.path(), "boot", "one").unwrap();
        assert!(matches!(next(), Err(StartError::Damaged { .. })));
    }

    #[test]
    fn a_drawn_deployment_is_kept_in_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let config = Config::dev("127.0.0.1:0", None, Some(folder.path())).unwrap();
        let first = deployment(&config, Some(folder.path())).unwrap();
        assert_eq!(deployment(&config, Some(folder.path())).unwrap(), first);
        assert_ne!(deployment(&config, None).unwrap(), first);
    }
}
