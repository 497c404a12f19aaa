//! Runs a member: opens its file, starts Raft, answers requests.
//!
//! What needs agreement is done by the leader only; another member names the leader that it knows.
//! Reads and beats end with a round in which a majority says that it still follows this leader:
//! a leader that was replaced without knowing it answers nothing.
//!
//! Heartbeats are kept in memory by the leader, with the term in which it heard them. They are
//! forgotten with the term, and so is the time since when it listens. The newest boot of each node
//! is agreed upon, so that an older one is refused by every later leader, too.

use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    net::SocketAddr,
    path::PathBuf,
    pin::Pin,
    sync::{Arc, Weak},
    time::Duration,
};

use antecede_model::{clock::Steady, ids::NodeId};
use openraft::{
    BasicNode, ConfigError, ServerState, Snapshot,
    error::{CheckIsLeaderError, ClientWriteError, Fatal, InitializeError, RaftError},
    raft::SnapshotResponse,
};
use parking_lot::Mutex;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use super::{
    Backing, GroupId,
    disk::{FileError, LogFile, MemberFile, Start},
    founding::Stage,
    membership::{self, Ended, MemberState, members_of},
    message::{Reply, Request},
    network::{Network, Pool},
    raft::{Command, Outcome, Raft, Timing, member_of, node_of},
    serving::{Answering, Port},
    state::{State, StateMachine},
};
use crate::{
    heard::Heard,
    store::{Beat, FACTS_BYTES_MAX, Renewal, VALUE_BYTES_MAX},
};

/// How long a member keeps a question for news before it says that there are none.
pub(super) const AWAIT_LIMIT: Duration = Duration::from_secs(1);

/// How long a stopping member waits for its tasks to leave the file.
const LEAVE_LIMIT: Duration = Duration::from_secs(10);

/// For so long a founder stands alone for election when a group begins: longer than a vote takes
/// between datacenters.
const TURN: Duration = Duration::from_millis(300);

/// How often each founder stands in its turn.
const ROUNDS: u32 = 20;

/// What a member is told when it is opened.
#[derive(Debug)]
pub struct MemberOptions {
    /// The group that it belongs to.
    pub group: GroupId,
    /// The node that it is.
    pub node: NodeId,
    /// Its file.
    pub path: PathBuf,
    /// Where it answers.
    pub port: Port,
    /// How it begins.
    pub start: Start,
    /// How fast the loss of a leader is noticed.
    pub timing: Timing,
    /// The steady clock, which goes on while the machine sleeps.
    pub clock: fn() -> Steady,
}

/// Why a member could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Its file.
    #[error("cannot open member {node}")]
    File {
        /// The member.
        node: NodeId,
        /// What is wrong with its file.
        source: FileError,
    },
    /// The times do not fit each other.
    #[error(
        "cannot open member {node}: {timing:?} must have heartbeat < silence_min < silence_max"
    )]
    Timing {
        /// The member.
        node: NodeId,
        /// The times.
        timing: Timing,
        /// What the library says.
        source: Box<ConfigError>,
    },
    /// The library cannot go on from what is on disk.
    #[error("member {node} cannot go on from its file")]
    Raft {
        /// The member.
        node: NodeId,
        /// What the library says.
        source: Box<Fatal<u64>>,
    },
    /// The list of members with which the group begins lacks this one.
    #[error("node {node} is not among the members with which {group} is to begin")]
    NotAFounder {
        /// The member.
        node: NodeId,
        /// The group.
        group: GroupId,
    },
}

/// A running member. It stops when it is dropped, at once; [`Member::stop`] waits for its disk.
#[derive(Debug)]
pub struct Member {
    core: Arc<Core>,
    port: Port,
    /// Ends when the file is closed.
    open: watch::Receiver<()>,
}

impl Member {
    /// Opens a member. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`OpenError`] says what is wrong and what to do.
    pub async fn open(options: MemberOptions) -> Result<Self, OpenError> {
        let MemberOptions { group, node, path, port, start, timing, clock } = options;
        let config = timing.config(group.to_string()).map_err(|source| OpenError::Timing {
            node,
            timing,
            source,
        })?;
        if let Start::Create { members } = &start
            && !members.contains_key(&node)
        {
            return Err(OpenError::NotAFounder { node, group });
        }
        let (file, founders) = MemberFile::open(&path, group, node, start)
            .map_err(|source| OpenError::File { node, source })?;
        let file = Arc::new(file);
        let failed = |source: Fatal<u64>| OpenError::Raft { node, source: Box::new(source) };
        let (machine, state) =
            StateMachine::open(Arc::clone(&file)).map_err(|error| failed((*error).into()))?;
        let pool = Arc::new(Pool::new(group, node, Backing::Embedded));
        let network = Network::new(Arc::clone(&pool));
        let open = file.watch();
        let log = LogFile::new(file);
        let raft = Raft::new(member_of(node), Arc::new(config), network, log, machine)
            .await
            .map_err(failed)?;
        let core = Arc::new(Core {
            group,
            node,
            raft,
            state,
            clock,
            learn_limit: timing.learn_limit,
            heard: Mutex::default(),
        });
        let turns = founders.len();
        let turn = founders.keys().position(|founder| *founder == node);
        core.found(founders).await.map_err(failed)?;
        let answering: Arc<dyn Answering> = Arc::<Core>::clone(&core);
        port.desk().seat(answering);
        if let Some(turn) = turn {
            tokio::spawn(stand_in_turns(Arc::downgrade(&core), turn, turns));
        }
        Ok(Self { core, port, open })
    }

    /// Which node it is.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.core.node
    }

    /// Where it listens.
    #[must_use]
    pub fn local_address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Where it answers, and where a member of another group may, too.
    #[must_use]
    pub const fn port(&self) -> &Port {
        &self.port
    }

    /// Who leads, as far as this member knows.
    #[must_use]
    pub fn leader(&self) -> Option<NodeId> {
        self.core.raft.metrics().borrow().current_leader.and_then(node_of)
    }

    /// Waits until the member cannot go on, because its disk failed, and says why.
    ///
    /// The process has to end then: what was on its way to the disk is in doubt.
    pub async fn failed(&self) -> String {
        self.watch_failure().await
    }

    /// The same, for whoever does not hold the member; for ever, if it is stopped.
    pub fn watch_failure(&self) -> impl Future<Output = String> + use<> {
        let mut metrics = self.core.raft.metrics();
        async move {
            let running = metrics.wait_for(|metrics| metrics.running_state.is_err()).await;
            let fatal = running.ok().and_then(|metrics| metrics.running_state.clone().err());
            fatal.map_or_else(|| "it was stopped".to_owned(), |fatal| fatal.to_string())
        }
    }

    /// Stops it and waits until it has left its file. Its port stays open.
    pub async fn stop(mut self) {
        self.port.desk().leave(self.core.group);
        if let Err(error) = self.core.raft.shutdown().await {
            tracing::error!(%error, "the agreement did not end in order");
        }
        if timeout(LEAVE_LIMIT, self.open.changed()).await.is_err() {
            tracing::warn!(member = %self.core.node, "the agreement still holds its file");
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.port.desk().leave(self.core.group);
    }
}

/// Lets the founders of a group stand for election one after the other, until somebody leads.
///
/// They begin at the same time, and whoever stands while the others are not there yet, or stand as
/// well, would try again only when a leader would be missed, which is seconds between datacenters.
async fn stand_in_turns(core: Weak<Core>, turn: usize, turns: usize) {
    let waits = |turns: usize| TURN.saturating_mul(u32::try_from(turns).unwrap_or(u32::MAX));
    sleep(waits(turn + 1)).await;
    for _ in 0..ROUNDS {
        let Some(core) = core.upgrade() else { return };
        if core.raft.metrics().borrow().current_leader.is_some() {
            return;
        }
        if core.raft.trigger().elect().await.is_err() {
            return; // It has failed, which others watch.
        }
        drop(core);
        sleep(waits(turns)).await;
    }
}

/// A member's parts, shared by those who ask.
pub(crate) struct Core {
    pub(super) group: GroupId,
    pub(super) node: NodeId,
    raft: Raft,
    state: Arc<State>,
    clock: fn() -> Steady,
    learn_limit: Duration,
    heard: Mutex<Heard>,
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core").field("group", &self.group).field("node", &self.node).finish()
    }
}

impl Answering for Core {
    fn group(&self) -> GroupId {
        self.group
    }

    fn node(&self) -> NodeId {
        self.node
    }

    fn backing(&self) -> Backing {
        Backing::Embedded
    }

    fn answer(&self, request: Request) -> Pin<Box<dyn Future<Output = Reply> + Send + '_>> {
        Box::pin(self.reply_to(request))
    }
}

impl Core {
    /// Begins the group, if this member is one of those that it began with and has not done so.
    async fn found(&self, founders: BTreeMap<NodeId, String>) -> Result<(), Fatal<u64>> {
        if founders.is_empty() {
            return Ok(());
        }
        let member = |(node, address)| (member_of(node), BasicNode::new(address));
        let members: BTreeMap<u64, BasicNode> = founders.into_iter().map(member).collect();
        match self.raft.initialize(members).await {
            // It has begun before, or another founder has reached it first.
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
            Err(RaftError::APIError(InitializeError::NotInMembers(_))) => {
                unreachable!("a member that is no founder does not create a group")
            }
            Err(RaftError::Fatal(fatal)) => Err(fatal),
        }
    }

    async fn reply_to(&self, request: Request) -> Reply {
        match request {
            Request::Append(append) => match self.raft.append_entries(append).await {
                Ok(response) => Reply::Append(response),
                Err(_) => Reply::Stopped,
            },
            Request::Vote(vote) => match self.raft.vote(vote).await {
                Ok(response) => Reply::Vote(response),
                Err(_) => Reply::Stopped,
            },
            Request::Snapshot { vote, meta, image } => {
                // What is no state must not reach the library, which would take it for a failure
                // of this member's disk.
                if super::state::Image::decode(&image).is_err() {
                    return Reply::Stopped;
                }
                let snapshot = Snapshot { meta, snapshot: Box::new(image) };
                match self.raft.install_full_snapshot(vote, snapshot).await {
                    Ok(SnapshotResponse { vote }) => Reply::Snapshot(vote),
                    Err(_) => Reply::Stopped,
                }
            }
            Request::Read { key } => match self.confirm().await {
                Ok(()) => Reply::State(self.state.stored(&key)),
                Err(refused) => refused,
            },
            Request::Swap { key, expected, value } => {
                if VALUE_BYTES_MAX < value.len() {
                    return Reply::Stopped;
                }
                self.write(Command::Swap { key, expected, value }).await
            }
            Request::Await { key, after } => {
                let newer = timeout(AWAIT_LIMIT, self.state.newer(&key, after)).await;
                Reply::State(newer.unwrap_or(None))
            }
            Request::Beat(beat) => self.hear(beat).await,
            Request::Beats => self.beats().await,
            Request::Leader => {
                Reply::Leads(self.raft.metrics().borrow().current_leader.and_then(node_of))
            }
            Request::Stage => Reply::Stage(Stage::Begun),
            Request::Members => match self.confirm().await {
                Ok(()) => Reply::Members(self.members()),
                Err(refused) => refused,
            },
            Request::Change(change) => {
                if self.leading().is_none() {
                    return self.not_leader();
                }
                match membership::change(&self.raft, &change, self.learn_limit).await {
                    Ended::Done => Reply::Members(self.members()),
                    Ended::Refused(error) => Reply::NotChanged(error),
                    Ended::LeaderChanged => Reply::LeaderChanged,
                    Ended::Stopped => Reply::Stopped,
                }
            }
        }
    }

    fn members(&self) -> BTreeMap<NodeId, MemberState> {
        members_of(&self.raft.metrics().borrow().membership_config)
    }

    /// The term in which this member leads, as far as it knows.
    fn leading(&self) -> Option<u64> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        (metrics.state == ServerState::Leader && metrics.running_state.is_ok())
            .then_some(metrics.current_term)
    }

    fn not_leader(&self) -> Reply {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        if metrics.running_state.is_err() {
            return Reply::Stopped;
        }
        let leader = metrics.current_leader.filter(|leader| *leader != metrics.id);
        let leader = leader.and_then(|leader| {
            let node = metrics.membership_config.membership().get_node(&leader)?;
            Some((node_of(leader)?, node.addr.clone()))
        });
        Reply::NotLeader(leader)
    }

    /// Makes sure that a majority still follows this leader, and that all that was acknowledged
    /// before is applied here.
    async fn confirm(&self) -> Result<(), Reply> {
        match self.raft.ensure_linearizable().await {
            Ok(_) => Ok(()),
            Err(RaftError::APIError(CheckIsLeaderError::ForwardToLeader(_))) => {
                Err(self.not_leader())
            }
            Err(RaftError::APIError(CheckIsLeaderError::QuorumNotEnough(_))) => {
                Err(Reply::NoMajority)
            }
            Err(RaftError::Fatal(_)) => Err(Reply::Stopped),
        }
    }

    async fn write(&self, command: Command) -> Reply {
        if self.leading().is_none() {
            return self.not_leader();
        }
        match self.raft.client_write(command).await {
            Ok(written) => match written.data {
                Outcome::Swapped(revision) => Reply::Swapped(revision),
                Outcome::Conflict(current) => Reply::Conflict(current),
                Outcome::Newest(boot) => Reply::OlderBoot(boot),
                Outcome::Full { what, count } => Reply::Full { what, count: count as u64 },
                Outcome::Nothing => unreachable!("a command has an outcome"),
            },
            // The library says the same when it has not taken the command and when it has lost it
            // together with the leadership; the second may still take effect at another member.
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_))) => Reply::LeaderChanged,
            Err(RaftError::APIError(ClientWriteError::ChangeMembershipError(_))) => {
                unreachable!("a command changes no members")
            }
            // It may have reached others before this member stopped.
            Err(RaftError::Fatal(_)) => Reply::LeaderChanged,
        }
    }

    /// Hears a beat, as long as this member leads before and after.
    async fn hear(&self, beat: Beat) -> Reply {
        if FACTS_BYTES_MAX < beat.facts.len() {
            return Reply::Stopped;
        }
        let heard_at = (self.clock)();
        let Some(term) = self.leading() else { return self.not_leader() };
        if let Err(refused) = self.confirm().await {
            return refused;
        }
        if self.state.boot(beat.node) < Some(beat.boot) {
            let written = self.write(Command::Boot { node: beat.node, boot: beat.boot }).await;
            if !matches!(written, Reply::OlderBoot(newest) if newest == beat.boot) {
                return written;
            }
        }
        if let Some(newest) = self.state.boot(beat.node).filter(|newest| beat.boot < *newest) {
            return Reply::OlderBoot(newest);
        }
        if self.leading() != Some(term) {
            return self.not_leader();
        }
        let mut heard = self.heard.lock();
        if term < heard.term() {
            return Reply::NotLeader(None);
        }
        // It leads by now: what it heard before may be older than its term.
        heard.enter(term, (self.clock)());
        if let Err(count) = heard.hear(beat, heard_at) {
            return Reply::Full { what: super::raft::Counted::Nodes, count };
        }
        drop(heard);
        Reply::Renewed(Renewal { leader: self.node }, self.members())
    }

    /// What was heard in the term in which this member leads before and after.
    ///
    /// It is looked up before the majority is asked: if this process stands still in between, a
    /// later leader may hear a node, and what was looked up after that would not know of it.
    async fn beats(&self) -> Reply {
        let Some(term) = self.leading() else { return self.not_leader() };
        let beats = {
            let mut heard = self.heard.lock();
            if term < heard.term() {
                return Reply::NotLeader(None);
            }
            let now = (self.clock)();
            heard.enter(term, now);
            heard.beats(now)
        };
        if let Err(refused) = self.confirm().await {
            return refused;
        }
        if self.leading() != Some(term) {
            return self.not_leader();
        }
        Reply::Beats(beats)
    }
}
