//! Hears the beats of all nodes while the key `leader` names this node, and takes that key over
//! from a listener that is silent.
//!
//! The version of the key is the term. Whoever swaps it listens from the moment after the swap, and
//! knows of nobody yet. Beats are noted in memory, and confirmed by a look at the key: one look,
//! begun after they came, serves all that wait for one.
//!
//! A listener that does not lead asks the leader ten times a second whether it leads. When that has
//! gone unanswered for a while, and no other listener has had an answer either, it takes the key.
//! Those that come first in the list wait least, so that mostly one of them tries.
//!
//! Assumes: what the head of `etcd` says.
//! Ensures: the newest boot of a node is in etcd before a beat of that boot is confirmed.
//! Invariant: a term that is held was swapped by this process; one that another process of this
//! node, or a swap without an answer, left behind is taken over by one more swap.

use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use antecede_model::{
    clock::Steady,
    ids::{Boot, DatacenterId, NodeId},
};
use parking_lot::Mutex;
use tokio::{
    net::TcpListener,
    task::{JoinHandle, JoinSet},
    time::{MissedTickBehavior, interval, timeout},
};

use super::keys::{Etcd, Name, Swapped};
use crate::{
    embedded::{
        Backing, GroupId, MemberState,
        message::{Reply, Request},
        network::{CallError, Pool, Target},
        raft::Counted,
        serving::{self, Answering},
    },
    heard::Heard,
    store::{Beat, FACTS_BYTES_MAX, Renewal, Revision, Stored},
};

/// How often the leader is asked whether it leads.
const ASK_EVERY: Duration = Duration::from_millis(100);

/// What a listener is told when it is opened.
#[derive(Debug)]
pub struct ListenerOptions {
    /// The group's place in etcd.
    pub etcd: Etcd,
    /// The node that it is.
    pub node: NodeId,
    /// Where it listens.
    pub listener: TcpListener,
    /// All nodes that may listen, and where they are reached; this one is among them.
    pub listeners: BTreeMap<NodeId, String>,
    /// So many of these nodes could decide among themselves if they had an embedded agreement.
    /// Where as many say that they do, this node does not lead.
    pub rivals: usize,
    /// How long a leader may be silent until another one takes over.
    pub silence: Duration,
    /// The steady clock, which goes on while the machine sleeps.
    pub clock: fn() -> Steady,
}

/// Why a listener could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot tell where the listener of node {node} listens")]
pub struct OpenError {
    /// The node.
    node: NodeId,
    /// What the machine says.
    source: io::Error,
}

/// A node that may hear beats. It stops when it is dropped.
#[derive(Debug)]
pub struct Listener {
    core: Arc<Core>,
    tasks: [JoinHandle<()>; 2],
    local_address: SocketAddr,
}

impl Listener {
    /// Begins to listen. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When the socket is gone.
    pub fn open(options: ListenerOptions) -> Result<Self, OpenError> {
        let ListenerOptions { etcd, node, listener, listeners, rivals, silence, clock } = options;
        let address = listener.local_addr();
        let local_address = address.map_err(|source| OpenError { node, source })?;
        let core = Arc::new(Core {
            pool: Pool::new(etcd.group, node, Backing::Etcd),
            etcd,
            node,
            listeners,
            rivals,
            silence,
            clock,
            state: Mutex::new(State { answered: clock(), ..State::default() }),
            looks_begun: AtomicU64::new(0),
            last_look: tokio::sync::Mutex::default(),
        });
        let answering: Arc<dyn Answering> = Arc::<Core>::clone(&core);
        let desk: Arc<serving::Desk> = Arc::default();
        desk.seat(answering);
        let tasks =
            [tokio::spawn(serving::serve(desk, listener)), tokio::spawn(Arc::clone(&core).keep())];
        Ok(Self { core, tasks, local_address })
    }

    /// Which node it is.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.core.node
    }

    /// Where it listens.
    #[must_use]
    pub const fn local_address(&self) -> SocketAddr {
        self.local_address
    }

    /// Who leads, as far as this listener knows.
    #[must_use]
    pub fn leader(&self) -> Option<NodeId> {
        self.core.known_leader()
    }

    pub(super) fn answering(&self) -> Arc<dyn Answering> {
        Arc::<Core>::clone(&self.core)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// What a listener knows.
#[derive(Debug, Default)]
struct State {
    /// The term in which it leads.
    held: Option<u64>,
    heard: Heard,
    /// The newest boots, as etcd had them at some time in the held term.
    boots: BTreeMap<NodeId, Boot>,
    /// The key `leader` as it was last seen.
    known: Option<Claim>,
    /// When the leader last said that it leads, or was found to be another one.
    answered: Steady,
    /// When the others were last asked what they know.
    asked: Steady,
    /// Whether it may not lead, because of others that have another agreement.
    is_barred: bool,
}

/// What the other listeners say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Others {
    /// One has had an answer of the leader lately.
    hear_leader: bool,
    /// So many have another agreement.
    rivals: usize,
}

/// Who took the key `leader`, in which term.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Claim {
    leader: NodeId,
    term: u64,
}

/// What the last look at the key `leader` found.
#[derive(Debug, Default)]
struct Look {
    number: u64,
    /// `None` if etcd did not answer.
    found: Option<Option<Stored>>,
}

struct Core {
    etcd: Etcd,
    node: NodeId,
    listeners: BTreeMap<NodeId, String>,
    rivals: usize,
    silence: Duration,
    clock: fn() -> Steady,
    pool: Pool,
    state: Mutex<State>,
    looks_begun: AtomicU64,
    last_look: tokio::sync::Mutex<Look>,
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core").field("etcd", &self.etcd).field("node", &self.node).finish()
    }
}

impl Answering for Core {
    fn group(&self) -> GroupId {
        self.etcd.group
    }

    fn node(&self) -> NodeId {
        self.node
    }

    fn backing(&self) -> Backing {
        Backing::Etcd
    }

    fn answer(&self, request: Request) -> Pin<Box<dyn Future<Output = Reply> + Send + '_>> {
        Box::pin(self.reply_to(request))
    }
}

impl Core {
    async fn reply_to(&self, request: Request) -> Reply {
        match request {
            Request::Beat(beat) => self.hear(beat).await,
            Request::Beats => self.beats().await,
            Request::Members => match self.confirm().await {
                Ok(_) => Reply::Members(self.members()),
                Err(refused) => refused,
            },
            Request::Leader => Reply::Leads(self.answering_leader()),
            // Of members of the embedded store only.
            Request::Append(_)
            | Request::Vote(_)
            | Request::Snapshot { .. }
            | Request::Read { .. }
            | Request::Swap { .. }
            | Request::Await { .. }
            | Request::Change(_)
            | Request::Stage => Reply::Stopped,
        }
    }

    fn members(&self) -> BTreeMap<NodeId, MemberState> {
        let member = |(node, address): (&NodeId, &String)| {
            (*node, MemberState { address: address.clone(), votes: true })
        };
        self.listeners.iter().map(member).collect()
    }

    /// Who leads, as far as is known.
    fn known_leader(&self) -> Option<NodeId> {
        let state = self.state.lock();
        match state.held {
            Some(_) => Some(self.node),
            None => state.known.map(|claim| claim.leader).filter(|leader| *leader != self.node),
        }
    }

    /// Who leads and has said so lately.
    fn answering_leader(&self) -> Option<NodeId> {
        let state = self.state.lock();
        let is_late = self.silence < (self.clock)().0.saturating_sub(state.answered.0);
        let known = state.known.map(|claim| claim.leader).filter(|leader| *leader != self.node);
        known.filter(|_| state.held.is_none() && !is_late)
    }

    fn not_leader(&self) -> Reply {
        let leader = self.known_leader().filter(|leader| *leader != self.node);
        let place = |leader| Some((leader, self.listeners.get(&leader)?.clone()));
        Reply::NotLeader(leader.and_then(place))
    }

    /// Makes sure that this listener still leads, at a moment after this was called.
    async fn confirm(&self) -> Result<u64, Reply> {
        let Some(term) = self.state.lock().held else { return Err(self.not_leader()) };
        let Some(found) = self.look().await else { return Err(Reply::NoMajority) };
        let claim = found.as_ref().and_then(claim_of);
        {
            let mut state = self.state.lock();
            if state.held == Some(term) {
                state.answered = (self.clock)();
                if claim == Some(Claim { leader: self.node, term }) {
                    return Ok(term);
                }
                tracing::info!(node = %self.node, term, "another node listens to beats now");
                state.held = None;
                state.known = claim;
            }
        }
        Err(self.not_leader())
    }

    /// What the key `leader` says at a moment after this was called. Those who ask while a look is
    /// under way share the next one.
    async fn look(&self) -> Option<Option<Stored>> {
        let begun = self.looks_begun.load(Ordering::SeqCst);
        let mut last = self.last_look.lock().await;
        if last.number <= begun {
            let number = self.looks_begun.fetch_add(1, Ordering::SeqCst) + 1;
            let found = self.etcd.read(&Name::Leader).await.ok().map(|reading| reading.stored);
            *last = Look { number, found };
        }
        last.found.clone()
    }

    /// Hears a beat, as long as this listener leads before and after.
    async fn hear(&self, beat: Beat) -> Reply {
        if FACTS_BYTES_MAX < beat.facts.len() {
            return Reply::Stopped;
        }
        let Some(term) = self.state.lock().held else { return self.not_leader() };
        let heard_at = (self.clock)();
        let known = self.state.lock().boots.get(&beat.node).copied();
        let newest = match known.filter(|known| beat.boot <= *known) {
            Some(known) => known,
            None => match self.agree_boot(beat.node, beat.boot).await {
                Some(newest) => newest,
                None => return Reply::NoMajority,
            },
        };
        if let Err(refused) = self.confirm().await {
            return refused;
        }
        let mut state = self.state.lock();
        if state.held != Some(term) {
            drop(state);
            return self.not_leader();
        }
        let known = state.boots.entry(beat.node).or_insert(newest);
        *known = newest.max(*known);
        let newest = *known;
        if beat.boot < newest {
            return Reply::OlderBoot(newest);
        }
        match state.heard.hear(beat, heard_at) {
            Ok(()) => Reply::Renewed(Renewal { leader: self.node }, self.members()),
            Err(count) => Reply::Full { what: Counted::Nodes, count },
        }
    }

    /// Has the newest boot of a node written that is known; `None` if etcd does not answer.
    async fn agree_boot(&self, node: NodeId, boot: Boot) -> Option<Boot> {
        let name = Name::Boot(node);
        let mut current = self.etcd.read(&name).await.ok()?.stored;
        loop {
            let known = current.as_ref().and_then(boot_of);
            if let Some(known) = known.filter(|known| boot <= *known) {
                return Some(known);
            }
            let expected = current.as_ref().map(|stored| stored.revision);
            let value = boot.0.to_string();
            match self.etcd.swap(&name, expected, value.as_bytes()).await.ok()? {
                Swapped::Done(_) => return Some(boot),
                Swapped::Conflict(found) => current = found,
            }
        }
    }

    /// What was heard in the term that is held before and after. It is looked up before the key is
    /// looked at, so that no later leader had heard anybody when it was.
    async fn beats(&self) -> Reply {
        let (term, beats) = {
            let state = self.state.lock();
            let Some(term) = state.held else {
                drop(state);
                return self.not_leader();
            };
            (term, state.heard.beats((self.clock)()))
        };
        match self.confirm().await {
            Ok(confirmed) if confirmed == term => Reply::Beats(beats),
            Ok(_) => self.not_leader(),
            Err(refused) => refused,
        }
    }

    /// Takes the key over when it has to, until nobody else holds this.
    async fn keep(self: Arc<Self>) {
        let mut rounds = interval(ASK_EVERY);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while 1 < Arc::strong_count(&self) {
            rounds.tick().await;
            let (held, known, answered, asked) = {
                let state = self.state.lock();
                (state.held, state.known, state.answered, state.asked)
            };
            if held.is_some() {
                self.look_around(answered, asked).await;
                continue;
            }
            if let Some(claim) = known
                && claim.leader != self.node
                && self.says_it_leads(claim.leader).await
            {
                self.state.lock().answered = (self.clock)();
                continue;
            }
            self.stand_in().await;
        }
    }

    /// While it leads: sees from time to time that it still does, and that it may.
    async fn look_around(self: &Arc<Self>, answered: Steady, asked: Steady) {
        let now = (self.clock)();
        let is_due = |last: Steady| self.silence < now.0.saturating_sub(last.0);
        if is_due(answered) {
            drop(self.confirm().await); // Mostly somebody has asked already.
        }
        if is_due(asked) {
            self.state.lock().asked = now;
            if self.is_barred(self.others(self.node).await) {
                self.state.lock().held = None;
            }
        }
    }

    /// Takes the key if the leader that it names has been silent for long enough.
    async fn stand_in(self: &Arc<Self>) {
        let Some(stored) = self.look().await else { return };
        let found = stored.as_ref().and_then(claim_of);
        let silent = {
            let mut state = self.state.lock();
            let now = (self.clock)();
            if state.known != found {
                state.known = found;
                state.answered = now;
            }
            now.0.saturating_sub(state.answered.0)
        };
        let wait = match found {
            // Of an earlier run, or of a swap without an answer.
            Some(claim) if claim.leader == self.node => Duration::ZERO,
            Some(claim) => self.silence + self.rank(Some(claim.leader)) * self.silence / 2,
            None => self.rank(None) * self.silence / 2,
        };
        if silent < wait {
            return;
        }
        let others = self.others(found.map_or(self.node, |claim| claim.leader)).await;
        if others.hear_leader || self.is_barred(others) {
            return;
        }
        self.take(stored.map(|stored| stored.revision)).await;
    }

    async fn take(&self, expected: Option<Revision>) {
        let value = self.node.to_string();
        let Ok(Swapped::Done(revision)) =
            self.etcd.swap(&Name::Leader, expected, value.as_bytes()).await
        else {
            return; // Somebody else was faster, or the next round finds our own name there.
        };
        let term = revision.0;
        let mut state = self.state.lock();
        let now = (self.clock)();
        let mut heard = Heard::default();
        heard.enter(term, now);
        let known = Some(Claim { leader: self.node, term });
        *state = State {
            held: Some(term),
            heard,
            boots: BTreeMap::new(),
            known,
            answered: now,
            asked: now,
            is_barred: false,
        };
        drop(state);
        tracing::info!(node = %self.node, term, "this node listens to beats");
    }

    /// How many listeners come before this one, without the one that is silent.
    fn rank(&self, silent: Option<NodeId>) -> u32 {
        let before = self.listeners.keys().filter(|node| **node < self.node);
        let count = before.filter(|node| Some(**node) != silent).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    async fn ask(&self, node: NodeId, request: &Request) -> Option<Result<Reply, CallError>> {
        let address = self.listeners.get(&node)?.clone();
        let target = Target { node, address };
        timeout(self.silence / 2, self.pool.call(&target, request)).await.ok()
    }

    async fn says_it_leads(&self, leader: NodeId) -> bool {
        matches!(self.ask(leader, &Request::Members).await, Some(Ok(Reply::Members(_))))
    }

    /// What the listeners say beside this one and the leader.
    async fn others(self: &Arc<Self>, leader: NodeId) -> Others {
        let mut asking = JoinSet::new();
        for node in self.listeners.keys().copied().filter(|node| *node != self.node) {
            let core = Arc::clone(self);
            asking.spawn(async move { (node, core.ask(node, &Request::Leader).await) });
        }
        let mut others = Others::default();
        while let Some(answer) = asking.join_next().await {
            match answer {
                Ok((_, Some(Err(CallError::OtherBacking { .. })))) => others.rivals += 1,
                Ok((node, Some(Ok(Reply::Leads(found))))) => {
                    others.hear_leader |= node != leader && found == Some(leader);
                }
                Ok((_, _)) | Err(_) => {}
            }
        }
        others
    }

    /// Whether others may decide beside this node.
    fn is_barred(&self, others: Others) -> bool {
        let is_barred = 0 < self.rivals && self.rivals <= others.rivals;
        let was_barred = std::mem::replace(&mut self.state.lock().is_barred, is_barred);
        if is_barred && !was_barred {
            let (node, nodes) = (self.node, others.rivals);
            tracing::error!(%node, nodes, "other nodes of this datacenter have an embedded agreement: this one decides nothing beside them; give all nodes the same control.store");
        }
        is_barred
    }
}

/// Who took the key; `None` if it does not say so in words of ours.
fn claim_of(stored: &Stored) -> Option<Claim> {
    let (datacenter, number) = std::str::from_utf8(&stored.value).ok()?.split_once('.')?;
    let datacenter = DatacenterId(datacenter.parse().ok()?);
    let leader = NodeId { datacenter, number: number.parse().ok()? };
    Some(Claim { leader, term: stored.revision.0 })
}

fn boot_of(stored: &Stored) -> Option<Boot> {
    Some(Boot(std::str::from_utf8(&stored.value).ok()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_names_the_node_as_people_write_it() {
        let leader = NodeId { datacenter: DatacenterId(65_535), number: 12 };
        let stored =
            |value: &str| Stored { revision: Revision(7), value: Arc::from(value.as_bytes()) };
        assert_eq!(claim_of(&stored(&leader.to_string())), Some(Claim { leader, term: 7 }));
        for refused in ["", "1", "1.x", "1.2.3", "65536.1"] {
            assert_eq!(claim_of(&stored(refused)), None, "{refused}");
        }
    }
}
