//! Asks the members in a node's name: finds the leader, tries again while that is safe, and says
//! so when it is not.
//!
//! A request goes to this node's own member, if it has one, and then round the members that are
//! known, until one leads; each names the leader that it knows. What has no effect when it is
//! repeated is asked again after a lost answer, and the next member is asked while one is silent: the
//! one that led last may be cut off, and a new leader should be found before leases end. A swap is
//! asked of one member at a time, and not again: its outcome is unknown after a lost answer.
//!
//! A watch asks any member to wait for news, and asks the leader whenever a while has passed
//! without any: so it neither loads the leader nor hangs on a member that is cut off.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    panic::resume_unwind,
    sync::Arc,
    time::Duration,
};

use antecede_model::ids::NodeId;
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::{
    Backing, GroupId,
    member::AWAIT_LIMIT,
    membership::{Change, MemberState, MembershipError},
    message::{Reply, Request},
    network::{CallError, Pool, Target},
    raft::Counted,
    serving::{Answering, Port},
};
use crate::store::{
    Answer, Beat, Beats, ConfigurationStore, FACTS_BYTES_MAX, Feed, NODES_MAX, Outage, Renewal,
    Revision, STATE_BYTES_MAX, StoreError, StoreKey, Stored, VALUE_BYTES_MAX, Watch, check_size,
};

/// Pause when all known members were asked in vain.
const ROUND_PAUSE: Duration = Duration::from_millis(50);

/// How long a member may be silent before the next one is asked as well.
const SILENCE: Duration = Duration::from_millis(100);

/// Leaders that are asked at once because a member named them; then comes a pause, since members
/// that name each other know nothing yet.
const NAMED_MAX: u32 = 2;

/// How long a change of members may take, with all that a new member has to receive.
const CHANGE_LIMIT: Duration = Duration::from_secs(60);

/// What a store is told when it is made.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// The group that is asked.
    pub group: GroupId,
    /// The node that asks.
    pub node: NodeId,
    /// Members that are known from the configuration, and where they listen. Others are learnt.
    pub members: BTreeMap<NodeId, String>,
    /// How long a request may take, all attempts together.
    pub request_limit: Duration,
    /// How long one member may take to answer.
    pub attempt_limit: Duration,
}

/// A node's way to the agreement. Cheap to clone.
#[derive(Clone, Debug)]
pub struct EmbeddedStore {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    local: Option<Local>,
    pool: Pool,
    known: Mutex<Known>,
    request_limit: Duration,
    attempt_limit: Duration,
}

/// Who is asked first, without a connection.
#[derive(Debug)]
pub(crate) enum Local {
    /// This one.
    #[cfg(feature = "etcd")]
    One(Arc<dyn Answering>),
    /// Whoever answers for the group at a port of this node, if anybody does.
    At(Port, GroupId),
}

impl Local {
    fn answering(&self) -> Option<Arc<dyn Answering>> {
        match self {
            #[cfg(feature = "etcd")]
            Self::One(local) => Some(Arc::clone(local)),
            Self::At(port, group) => port.desk().member_of(*group),
        }
    }
}

#[derive(Debug)]
struct Known {
    members: BTreeMap<NodeId, String>,
    /// The one that led when it was last asked.
    leader: Option<NodeId>,
}

/// Whom to ask.
#[derive(Clone, Debug)]
enum Asked {
    Here(Arc<dyn Answering>),
    There(Target),
}

/// How far a request that must not be repeated has come.
#[derive(Debug, Default)]
struct Progress {
    /// It is with a member that has not answered yet.
    is_out: bool,
    /// Why the last attempt failed.
    last: Option<Outage>,
}

/// Whether a request may be asked again after its answer was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// Asking twice is as good as once.
    Safe,
    /// It might take effect twice.
    Never,
}

/// Why a request got no answer that settles it.
#[derive(Debug)]
pub(crate) enum AskError {
    /// It had no effect.
    Unavailable(Outage),
    /// It may have an effect.
    Unknown(Outage),
}

/// What an attempt means.
enum Verdict {
    /// The request is settled.
    Answered(Reply),
    /// It had no effect. Whether another member was named, that is worth asking first.
    NotDone { outage: Outage, is_named: bool },
    /// It may have had an effect.
    InDoubt(Outage),
}

impl From<AskError> for StoreError {
    fn from(error: AskError) -> Self {
        match error {
            AskError::Unavailable(outage) => Self::Unavailable { outage },
            AskError::Unknown(outage) => Self::Unknown { outage },
        }
    }
}

impl From<AskError> for MembershipError {
    fn from(error: AskError) -> Self {
        match error {
            AskError::Unavailable(outage) => Self::Unavailable { outage },
            AskError::Unknown(outage) => Self::Unknown { outage },
        }
    }
}

impl EmbeddedStore {
    /// A store that asks these members over the network.
    #[must_use]
    pub fn new(options: StoreOptions) -> Self {
        Self::with(options, None, Backing::Embedded)
    }

    /// A store of a node whose own member answers at this port, or will: it is asked first.
    #[must_use]
    pub fn beside(options: StoreOptions, port: &Port) -> Self {
        let local = Local::At(port.clone(), options.group);
        Self::with(options, Some(local), Backing::Embedded)
    }

    /// A store of a node that asks `local` first, and nobody who agrees by something else.
    pub(crate) fn with(options: StoreOptions, local: Option<Local>, backing: Backing) -> Self {
        let StoreOptions { group, node, members, request_limit, attempt_limit } = options;
        let known = Mutex::new(Known { members, leader: None });
        let pool = Pool::new(group, node, backing);
        Self { shared: Arc::new(Shared { local, pool, known, request_limit, attempt_limit }) }
    }

    /// The members, as the leader knows them.
    ///
    /// # Errors
    /// [`MembershipError::Unavailable`].
    pub async fn members(&self) -> Result<BTreeMap<NodeId, MemberState>, MembershipError> {
        let limits = (self.shared.request_limit, self.shared.attempt_limit);
        let reply = self.shared.ask(&Request::Members, Repeat::Safe, limits).await?;
        if let Reply::Members(members) = reply {
            return Ok(self.shared.learn(members));
        }
        Err(MembershipError::Unavailable { outage: unfit(&reply) })
    }

    /// Adds a member, which was started to join and listens at `address`.
    ///
    /// # Errors
    /// [`MembershipError`] says what is wrong and what to do.
    pub async fn add_member(
        &self,
        node: NodeId,
        address: &str,
    ) -> Result<BTreeMap<NodeId, MemberState>, MembershipError> {
        self.change(Change::Add { node, address: address.to_owned() }).await
    }

    /// Removes a member, which may be gone already.
    ///
    /// # Errors
    /// [`MembershipError`] says what is wrong and what to do.
    pub async fn remove_member(
        &self,
        node: NodeId,
    ) -> Result<BTreeMap<NodeId, MemberState>, MembershipError> {
        self.change(Change::Remove { node }).await
    }

    /// Puts a new member in the place of another, in one step.
    ///
    /// # Errors
    /// [`MembershipError`] says what is wrong and what to do.
    pub async fn replace_member(
        &self,
        old: NodeId,
        new: NodeId,
        address: &str,
    ) -> Result<BTreeMap<NodeId, MemberState>, MembershipError> {
        self.change(Change::Replace { old, new, address: address.to_owned() }).await
    }

    async fn change(
        &self,
        change: Change,
    ) -> Result<BTreeMap<NodeId, MemberState>, MembershipError> {
        let limits = (CHANGE_LIMIT, CHANGE_LIMIT);
        let reply = self.shared.ask(&Request::Change(change), Repeat::Never, limits).await?;
        if let Reply::Members(members) = reply {
            return Ok(self.shared.learn(members));
        }
        if let Reply::NotChanged(error) = reply {
            return Err(error);
        }
        Err(MembershipError::Unknown { outage: unfit(&reply) })
    }

    async fn read_key(&self, key: StoreKey) -> Result<Option<Stored>, StoreError> {
        let reply = self.shared.request(&Request::Read { key }, Repeat::Safe).await?;
        if let Reply::State(state) = reply {
            return Ok(state);
        }
        Err(StoreError::Unavailable { outage: unfit(&reply) })
    }

    async fn swap(
        &self,
        key: StoreKey,
        expected: Option<Revision>,
        value: Arc<[u8]>,
    ) -> Result<Revision, StoreError> {
        check_size("a value", &value, VALUE_BYTES_MAX)?;
        let request = Request::Swap { key, expected, value };
        let reply = self.shared.request(&request, Repeat::Never).await?;
        if let Reply::Swapped(revision) = reply {
            return Ok(revision);
        }
        if let Reply::Conflict(current) = reply {
            return Err(StoreError::Conflict { current });
        }
        if let Reply::Full { what, count } = reply {
            return Err(full(what, count));
        }
        Err(StoreError::Unknown { outage: unfit(&reply) })
    }

    pub(crate) async fn beat(&self, beat: Beat) -> Result<Renewal, StoreError> {
        check_size("facts", &beat.facts, FACTS_BYTES_MAX)?;
        let (node, offered) = (beat.node, beat.boot);
        let reply = self.shared.request(&Request::Beat(beat), Repeat::Safe).await?;
        if let Reply::Renewed(renewal, members) = reply {
            self.shared.learn(members);
            return Ok(renewal);
        }
        if let Reply::OlderBoot(newest) = reply {
            return Err(StoreError::OlderBoot { node, offered, newest });
        }
        if let Reply::Full { what, count } = reply {
            return Err(full(what, count));
        }
        Err(StoreError::Unavailable { outage: unfit(&reply) })
    }

    pub(crate) async fn all_beats(&self) -> Result<Beats, StoreError> {
        let reply = self.shared.request(&Request::Beats, Repeat::Safe).await?;
        if let Reply::Beats(beats) = reply {
            return Ok(beats);
        }
        Err(StoreError::Unavailable { outage: unfit(&reply) })
    }

    /// Feeds a watch until it is dropped.
    async fn follow(self, key: StoreKey, feed: Feed) {
        let news = async {
            let mut is_quiet = true;
            loop {
                if is_quiet && let Ok(Some(stored)) = self.read_key(key.clone()).await {
                    feed.offer(stored);
                }
                let request = Request::Await { key: key.clone(), after: feed.newest() };
                match self.shared.ask_any(&request).await {
                    Some(Reply::State(Some(stored))) => {
                        feed.offer(stored);
                        is_quiet = false;
                    }
                    Some(_) => is_quiet = true,
                    None => {
                        is_quiet = true;
                        sleep(ROUND_PAUSE).await;
                    }
                }
            }
        };
        tokio::select! {
            () = feed.closed() => {}
            () = news => {}
        }
    }
}

impl ConfigurationStore for EmbeddedStore {
    fn read(&self, key: &StoreKey) -> Answer<'_, Option<Stored>> {
        Box::pin(self.read_key(key.clone()))
    }

    fn compare_and_swap(
        &self,
        key: &StoreKey,
        expected: Option<Revision>,
        value: Arc<[u8]>,
    ) -> Answer<'_, Revision> {
        Box::pin(self.swap(key.clone(), expected, value))
    }

    fn watch(&self, key: &StoreKey) -> Watch {
        let (feed, watch) = Watch::channel();
        tokio::spawn(self.clone().follow(key.clone(), feed));
        watch
    }

    fn heartbeat(&self, beat: Beat) -> Answer<'_, Renewal> {
        Box::pin(self.beat(beat))
    }

    fn beats(&self) -> Answer<'_, Beats> {
        Box::pin(self.all_beats())
    }
}

impl Shared {
    async fn request(
        self: &Arc<Self>,
        request: &Request,
        repeat: Repeat,
    ) -> Result<Reply, AskError> {
        self.ask(request, repeat, (self.request_limit, self.attempt_limit)).await
    }

    /// Asks until the leader has answered, for as long as the first limit says and each member
    /// for as long as the second.
    async fn ask(
        self: &Arc<Self>,
        request: &Request,
        repeat: Repeat,
        (limit, attempt_limit): (Duration, Duration),
    ) -> Result<Reply, AskError> {
        let mut progress = Progress::default();
        let asked = match repeat {
            Repeat::Safe => {
                let asking = self.ask_several(request, attempt_limit, &mut progress.last);
                timeout(limit, Box::pin(asking)).await.map(Ok)
            }
            Repeat::Never => {
                let asking = self.ask_one_by_one(request, attempt_limit, &mut progress);
                timeout(limit, Box::pin(asking)).await
            }
        };
        match asked {
            Ok(answer) => answer,
            Err(_) if progress.is_out => Err(AskError::Unknown(Outage::TimedOut { limit })),
            Err(_) => {
                Err(AskError::Unavailable(progress.last.unwrap_or(Outage::TimedOut { limit })))
            }
        }
    }

    /// Asks one member after the other, until one has answered; a lost answer ends it.
    async fn ask_one_by_one(
        &self,
        request: &Request,
        limit: Duration,
        progress: &mut Progress,
    ) -> Result<Reply, AskError> {
        let mut named_count = 0;
        'rounds: loop {
            for asked in self.candidates() {
                progress.is_out = true;
                let attempt = self.attempt_within(limit, &asked, request).await;
                match self.judge(&asked, attempt) {
                    Verdict::Answered(reply) => return Ok(reply),
                    Verdict::NotDone { outage, is_named } => {
                        progress.is_out = false;
                        progress.last = Some(outage);
                        if is_named && named_count < NAMED_MAX {
                            named_count += 1;
                            continue 'rounds;
                        }
                    }
                    Verdict::InDoubt(outage) => return Err(AskError::Unknown(outage)),
                }
            }
            named_count = 0;
            sleep(ROUND_PAUSE).await;
        }
    }

    /// Asks members in turn, the next one also while others are silent, until one has answered.
    async fn ask_several(
        self: &Arc<Self>,
        request: &Request,
        limit: Duration,
        last: &mut Option<Outage>,
    ) -> Reply {
        let request = Arc::new(request.clone());
        let mut attempts: JoinSet<(Asked, Result<Reply, CallError>)> = JoinSet::new();
        let mut silent: BTreeSet<NodeId> = BTreeSet::new();
        let (mut next, mut named_count) = (VecDeque::from(self.candidates()), 0);
        loop {
            let pause = if next.is_empty() { ROUND_PAUSE } else { SILENCE };
            if let Some(asked) = next.pop_front() {
                if !silent.insert(asked.node()) {
                    continue;
                }
                let (shared, request) = (Arc::clone(self), Arc::clone(&request));
                attempts.spawn(async move {
                    let attempt = shared.attempt_within(limit, &asked, &request).await;
                    (asked, attempt)
                });
            }
            let ended = timeout(pause, async {
                match attempts.join_next().await {
                    Some(Ok(ended)) => ended,
                    Some(Err(error)) if error.is_panic() => resume_unwind(error.into_panic()),
                    // Nobody is under way, or everything ends.
                    Some(Err(_)) | None => std::future::pending().await,
                }
            });
            let Ok((asked, attempt)) = ended.await else {
                if pause == ROUND_PAUSE {
                    (next, named_count) = (self.candidates().into(), 0);
                }
                continue;
            };
            silent.remove(&asked.node());
            match self.judge(&asked, attempt) {
                Verdict::Answered(reply) => return reply,
                Verdict::NotDone { outage, is_named } => {
                    *last = Some(outage);
                    if is_named && named_count < NAMED_MAX {
                        named_count += 1;
                        next = self.candidates().into();
                    }
                }
                Verdict::InDoubt(outage) => *last = Some(outage),
            }
        }
    }

    async fn attempt_within(
        &self,
        limit: Duration,
        asked: &Asked,
        request: &Request,
    ) -> Result<Reply, CallError> {
        timeout(limit, self.attempt(asked, request)).await.unwrap_or_else(|_| {
            Err(CallError::Lost {
                address: asked.node().to_string(),
                reason: format!("nothing came within {limit:?}"),
            })
        })
    }

    /// What an attempt means, and what it teaches about who leads.
    fn judge(&self, asked: &Asked, attempt: Result<Reply, CallError>) -> Verdict {
        let not_done = |outage| Verdict::NotDone { outage, is_named: false };
        match attempt {
            Ok(Reply::NotLeader(leader)) => {
                let is_named = self.note_leader(asked, leader);
                Verdict::NotDone { outage: Outage::NoLeader, is_named }
            }
            Ok(Reply::NoMajority) => not_done(Outage::NoMajority),
            Ok(Reply::Stage(_)) => not_done(Outage::NotBegun { member: asked.node() }),
            Ok(Reply::Stopped) => not_done(Outage::Stopped { member: asked.node() }),
            Ok(Reply::LeaderChanged) => {
                self.forget_leader(asked.node());
                Verdict::InDoubt(Outage::LeaderChanged)
            }
            Ok(reply) => {
                self.known.lock().leader = Some(asked.node());
                Verdict::Answered(reply)
            }
            Err(CallError::NotSent { address, reason }) => {
                self.forget_leader(asked.node());
                let members = self.known.lock().members.len();
                not_done(Outage::Unreachable { members, last: format!("{address}: {reason}") })
            }
            Err(CallError::OtherBacking { address, reason }) => {
                self.forget_leader(asked.node());
                not_done(Outage::Refused { address, reason })
            }
            Err(CallError::Lost { address, reason }) => {
                self.forget_leader(asked.node());
                Verdict::InDoubt(Outage::ConnectionLost { address, reason })
            }
        }
    }

    /// Asks members in turn, for something that each of them can answer.
    async fn ask_any(&self, request: &Request) -> Option<Reply> {
        for asked in self.candidates() {
            let limit = self.attempt_limit + AWAIT_LIMIT;
            if let Ok(Ok(reply)) = timeout(limit, self.attempt(&asked, request)).await {
                return Some(reply);
            }
        }
        None
    }

    async fn attempt(&self, asked: &Asked, request: &Request) -> Result<Reply, CallError> {
        match asked {
            Asked::Here(core) => Ok(core.answer(request.clone()).await),
            Asked::There(target) => self.pool.call(target, request).await,
        }
    }

    /// Whom to ask, in this order: the one that led last, this node's own member, all others.
    fn candidates(&self) -> Vec<Asked> {
        let local = self.local.as_ref().and_then(Local::answering);
        let known = self.known.lock();
        let own = local.as_ref().map(|core| core.node());
        let mut nodes: Vec<NodeId> = known.leader.into_iter().chain(own).collect();
        nodes.extend(known.members.keys().copied());
        let mut candidates: Vec<Asked> = Vec::new();
        for node in nodes {
            if candidates.iter().any(|asked| asked.node() == node) {
                continue;
            }
            match (&local, known.members.get(&node)) {
                (Some(core), _) if core.node() == node => {
                    candidates.push(Asked::Here(Arc::clone(core)));
                }
                (Some(_) | None, Some(address)) => {
                    candidates.push(Asked::There(Target { node, address: address.clone() }));
                }
                (Some(_) | None, None) => {}
            }
        }
        candidates
    }

    /// Notes the leader that a member named; whether it is worth asking before the others.
    fn note_leader(&self, asked: &Asked, leader: Option<(NodeId, String)>) -> bool {
        let mut known = self.known.lock();
        let Some((node, address)) = leader.filter(|(node, _)| *node != asked.node()) else {
            if known.leader == Some(asked.node()) {
                known.leader = None;
            }
            return false;
        };
        let is_news = known.leader != Some(node);
        known.members.insert(node, address);
        known.leader = Some(node);
        is_news
    }

    fn forget_leader(&self, node: NodeId) {
        let mut known = self.known.lock();
        if known.leader == Some(node) {
            known.leader = None;
        }
    }

    /// Replaces what is known of the members by what the leader says.
    fn learn(&self, members: BTreeMap<NodeId, MemberState>) -> BTreeMap<NodeId, MemberState> {
        let mut known = self.known.lock();
        known.members =
            members.iter().map(|(node, member)| (*node, member.address.clone())).collect();
        drop(known);
        members
    }
}

impl Asked {
    fn node(&self) -> NodeId {
        match self {
            Self::Here(core) => core.node(),
            Self::There(target) => target.node,
        }
    }
}

fn full(what: Counted, count: u64) -> StoreError {
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    match what {
        Counted::Bytes => StoreError::Full { what: "its bytes", count, limit: STATE_BYTES_MAX },
        Counted::Nodes => StoreError::Full { what: "its nodes", count, limit: NODES_MAX },
    }
}

/// A member of the same version answered what was not asked.
fn unfit(reply: &Reply) -> Outage {
    tracing::error!(?reply, "a member of the agreement gave an answer that fits no request");
    Outage::LeaderChanged
}
