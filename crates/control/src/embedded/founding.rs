//! How a group begins, and how a member begins that has no file.
//!
//! A member that has lost its file does not know that it has voted or acknowledged anything, and
//! must not do so again for a group that counts it still. Its folder looks like that of a founder
//! that has never run. So a group begins in two steps. A founder makes a file, and is ready, when
//! all others have said that they are there and that the group has not begun. It begins, and only
//! then takes part in votes, when all others have said that they are ready, or one that it has
//! begun. Whoever has begun therefore knows that every founder had a file once: an empty founder
//! that hears of one knows that it has lost its own, leaves the group once that answers, and joins.
//!
//! What a member said that had not begun binds nobody, so it may lose its file as it likes. A
//! member that came later has a file only because the group took it in: without one it waits until
//! the group answers, leaves it if it is still counted, and joins.
//!
//! Assumes: all founders are told the same founders.
//! Ensures: no member takes part in votes with an empty file while another is there with which it
//! has done so with a file that is lost.
//! Limits: at its very first start a group waits for all its founders, and while most members have
//! lost their files the others wait: a person who knows better says [`Way::FoundsAtOnce`].
#![deny(clippy::indexing_slicing)]

use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use antecede_model::{
    codec::{DecodeError, Reader, Writer},
    ids::NodeId,
};
use parking_lot::Mutex;
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{
    Backing, GroupId,
    client::{EmbeddedStore, StoreOptions},
    disk::{self, FileError, Start},
    membership::MembershipError,
    message::{Reply, Request},
    network::{Pool, Target},
    serving::{Answering, Port},
};

/// Pause before the others are asked again.
const ASK_EVERY: Duration = Duration::from_millis(100);

/// How far a founder has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// It has no file.
    Nothing,
    /// It has a file, and has taken part in nothing.
    Ready,
    /// It takes part, or has done so.
    Begun,
}

/// In which way a member begins that has not done so yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// With the other founders.
    Founds,
    /// As a founder at once: it is known that this node has never been a member.
    IsNew,
    /// As a founder, if the group does not answer, whatever others say: only for a person who knows
    /// that this node has never been a member, or that most members have lost their files and what
    /// only they had decided is lost.
    FoundsAtOnce,
    /// It came later, and joins.
    Joins,
}

/// What a member is told that may have to begin.
#[derive(Clone, Debug)]
pub struct BeginOptions {
    /// The group that it belongs to.
    pub group: GroupId,
    /// The node that it is.
    pub node: NodeId,
    /// Its file.
    pub path: PathBuf,
    /// Whether it is known that there was a file.
    pub had_file: bool,
    /// How it begins without one.
    pub way: Way,
    /// With whom the group begins, and where they listen.
    pub founders: BTreeMap<NodeId, String>,
    /// Who may know the group if it has begun, and where they listen.
    pub contacts: BTreeMap<NodeId, String>,
    /// Where it answers meanwhile.
    pub port: Port,
    /// How long the group may take to answer.
    pub request_limit: Duration,
    /// How long one member may take to answer.
    pub attempt_limit: Duration,
}

/// What a member waits for before it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// Founders that are not there: who, where, and why not.
    Founders(GroupId, Vec<(NodeId, String, String)>),
    /// The group has begun with this member, whose file is lost, and does not answer.
    ToLeave(GroupId, MembershipError),
    /// The group that it joins does not answer.
    ToJoin(GroupId, MembershipError),
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Founders(group, absent) => {
                write!(f, "{group} begins once all its founders are there; ")?;
                for (place, (node, address, why)) in absent.iter().enumerate() {
                    let separator = if place == 0 { "" } else { ", " };
                    write!(f, "{separator}node {node} at {address} is not ({why})")?;
                }
                f.write_str("; start it")
            }
            Self::ToLeave(group, why) => write!(
                f,
                "{group} counts this node as a member, and its file is lost: it joins anew once \
                 most of the others answer; {why}"
            ),
            Self::ToJoin(group, why) => {
                write!(f, "this node joins {group} once most of its members answer; {why}")
            }
        }
    }
}

impl Stage {
    pub(crate) fn write(self, writer: &mut Writer<'_>) {
        writer.u8(match self {
            Self::Nothing => 0,
            Self::Ready => 1,
            Self::Begun => 2,
        });
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match reader.u8()? {
            0 => Ok(Self::Nothing),
            1 => Ok(Self::Ready),
            2 => Ok(Self::Begun),
            found => Err(DecodeError::UnknownTag { what: "stage of a founder", found }),
        }
    }
}

/// What a founder does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// Makes its file.
    MakeReady,
    /// Takes part from now on.
    Begin,
    /// Leaves the group, which has begun with a file that it has lost.
    Leave,
    /// Asks again.
    Wait,
}

/// What a founder does next, by what all other founders have said since it runs: `None` where one
/// has said nothing.
fn next(own: Stage, others: &[Option<Stage>]) -> Next {
    let has_begun = others.contains(&Some(Stage::Begun));
    let all_at_least = |stage: Stage| others.iter().all(|other| Some(stage) <= *other);
    match own {
        Stage::Nothing if has_begun => Next::Leave,
        Stage::Nothing if all_at_least(Stage::Nothing) => Next::MakeReady,
        Stage::Ready if has_begun || all_at_least(Stage::Ready) => Next::Begin,
        Stage::Begun => Next::Begin,
        Stage::Nothing | Stage::Ready => Next::Wait,
    }
}

/// Says for a member that has not begun how far it has come, whatever it is asked.
#[derive(Debug)]
struct Applicant {
    group: GroupId,
    node: NodeId,
    stage: Mutex<Stage>,
}

impl Answering for Applicant {
    fn group(&self) -> GroupId {
        self.group
    }

    fn node(&self) -> NodeId {
        self.node
    }

    fn backing(&self) -> Backing {
        Backing::Embedded
    }

    fn answer(&self, _: Request) -> Pin<Box<dyn Future<Output = Reply> + Send + '_>> {
        Box::pin(async { Reply::Stage(*self.stage.lock()) })
    }
}

/// An applicant at a port, until it is dropped.
#[derive(Debug)]
struct Seat {
    port: Port,
    applicant: Arc<Applicant>,
}

impl Seat {
    fn take(options: &BeginOptions, stage: Stage) -> Self {
        let (group, node, port) = (options.group, options.node, options.port.clone());
        let applicant = Arc::new(Applicant { group, node, stage: Mutex::new(stage) });
        let answering: Arc<dyn Answering> = Arc::<Applicant>::clone(&applicant);
        port.desk().seat(answering);
        Self { port, applicant }
    }

    fn stage(&self) -> Stage {
        *self.applicant.stage.lock()
    }

    fn reach(&self, stage: Stage) {
        *self.applicant.stage.lock() = stage;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.port.desk().leave(self.applicant.group);
    }
}

/// Whether a member has begun, so that it goes on from its file.
///
/// # Errors
/// When its file belongs to another, or cannot be read.
pub fn has_begun(path: &Path, group: GroupId, node: NodeId) -> Result<bool, FileError> {
    Ok(disk::stage_of(path, group, node)? == Stage::Begun)
}

/// How many of these members answer, and have begun.
pub async fn count_of_begun(options: &StoreOptions) -> usize {
    let StoreOptions { group, node, members, attempt_limit, .. } = options;
    let pool = Arc::new(Pool::new(*group, *node, Backing::Embedded));
    let answers = ask(&pool, members, *node, *attempt_limit).await;
    answers.iter().filter(|(_, said)| *said == Ok(Stage::Begun)).count()
}

/// Waits until a member may be opened, and says how. A member that has begun goes on at once.
/// `on_wait` is told what is waited for, again and again.
///
/// # Errors
/// When its file cannot be had, belongs to another, or is missing and nobody knows of the group.
pub async fn begin(
    options: BeginOptions,
    mut on_wait: impl FnMut(Waiting),
) -> Result<Start, FileError> {
    let BeginOptions { group, node, way, .. } = options;
    let (path, founders) = (&options.path, &options.founders);
    let others = Others::of(&options);
    let mut stage = disk::stage_of(path, group, node)?;
    match (stage, way) {
        (Stage::Begun, _) => return Ok(Start::Resume),
        (Stage::Nothing, Way::IsNew) => return Ok(Start::Create { members: founders.clone() }),
        (Stage::Nothing, Way::FoundsAtOnce) if others.store.members().await.is_err() => {
            return Ok(Start::Create { members: founders.clone() });
        }
        (Stage::Ready, Way::FoundsAtOnce | Way::IsNew) => {
            disk::mark_begun(path, group, node)?;
            return Ok(Start::Resume);
        }
        // Its founders may have moved since.
        (Stage::Ready, Way::Founds) => disk::make_ready(path, group, node, founders.clone())?,
        (Stage::Ready, Way::Joins) => {
            disk::remove_ready(path)?;
            stage = Stage::Nothing;
        }
        (Stage::Nothing, _) => {}
    }
    let seat = Seat::take(&options, stage);
    let mut answering = JoinSet::new();
    answering.spawn(until_it_answers(others.store.clone()));
    let mut has_answered = false;
    loop {
        let answers = if way == Way::Founds { others.ask().await } else { Vec::new() };
        let said: Vec<Option<Stage>> = answers.iter().map(|(_, said)| said.clone().ok()).collect();
        let mut step = if way == Way::Founds { next(seat.stage(), &said) } else { Next::Leave };
        // A group that answers has begun, though not all with whom it did are there any more.
        has_answered |= answering.try_join_next().is_some();
        if step == Next::Wait && has_answered {
            step = if seat.stage() == Stage::Nothing { Next::Leave } else { Next::Begin };
        }
        match step {
            Next::MakeReady if options.had_file => {
                return Err(FileError::Missing { path: path.clone() });
            }
            Next::MakeReady => {
                disk::make_ready(path, group, node, founders.clone())?;
                seat.reach(Stage::Ready);
                continue;
            }
            Next::Begin => {
                disk::mark_begun(path, group, node)?;
                return Ok(Start::Resume);
            }
            Next::Leave => match others.leave().await {
                Ok(()) => return Ok(Start::Join),
                Err(why) if way == Way::Founds => on_wait(Waiting::ToLeave(group, why)),
                Err(why) => on_wait(Waiting::ToJoin(group, why)),
            },
            Next::Wait => {
                let absent = answers.into_iter().filter_map(|(target, said)| {
                    let why = match said {
                        Err(why) => why,
                        Ok(said) if said < seat.stage() => "it has only just started".to_owned(),
                        Ok(_) => return None,
                    };
                    Some((target.node, target.address, why))
                });
                on_wait(Waiting::Founders(group, absent.collect()));
            }
        }
        sleep(ASK_EVERY).await;
    }
}

/// Waits until a group answers.
async fn until_it_answers(store: EmbeddedStore) {
    while store.members().await.is_err() {
        sleep(ASK_EVERY).await;
    }
}

/// What the others of these members say, or why nothing.
async fn ask(
    pool: &Arc<Pool>,
    members: &BTreeMap<NodeId, String>,
    own: NodeId,
    limit: Duration,
) -> Vec<(Target, Result<Stage, String>)> {
    let mut asking = JoinSet::new();
    for (node, address) in members.iter().filter(|(node, _)| **node != own) {
        let target = Target { node: *node, address: address.clone() };
        let pool = Arc::clone(pool);
        asking.spawn(async move {
            let said = match timeout(limit, pool.call(&target, &Request::Stage)).await {
                Ok(Ok(Reply::Stage(stage))) => Ok(stage),
                Ok(Ok(reply)) => Err(format!("it answered {reply:?}")),
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => Err(format!("no answer came within {limit:?}")),
            };
            (target, said)
        });
    }
    let mut answers = asking.join_all().await;
    answers.sort_by(|(left, _), (right, _)| left.cmp(right));
    answers
}

/// The way to the others.
#[derive(Debug)]
struct Others {
    node: NodeId,
    founders: BTreeMap<NodeId, String>,
    pool: Arc<Pool>,
    attempt_limit: Duration,
    store: EmbeddedStore,
}

impl Others {
    fn of(options: &BeginOptions) -> Self {
        let BeginOptions { group, node, request_limit, attempt_limit, .. } = *options;
        let mut members = options.contacts.clone();
        members.remove(&node);
        let store = StoreOptions { group, node, members, request_limit, attempt_limit };
        Self {
            node,
            founders: options.founders.clone(),
            pool: Arc::new(Pool::new(group, node, Backing::Embedded)),
            attempt_limit,
            store: EmbeddedStore::new(store),
        }
    }

    async fn ask(&self) -> Vec<(Target, Result<Stage, String>)> {
        ask(&self.pool, &self.founders, self.node, self.attempt_limit).await
    }

    /// Takes this node out of the group, if that counts it; `Ok` once it does not.
    async fn leave(&self) -> Result<(), MembershipError> {
        if !self.store.members().await?.contains_key(&self.node) {
            return Ok(());
        }
        tracing::warn!(node = %self.node, "this node's file of the agreement is lost: it leaves, and joins anew");
        match self.store.remove_member(self.node).await {
            Ok(_) | Err(MembershipError::NotMember { .. }) => Ok(()),
            Err(why) => Err(why),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const FOUNDERS: usize = 3;
    const LOSSES_MAX: u8 = 2;

    type Rule = fn(Stage, &[Option<Stage>]) -> Next;

    /// A founder of the model.
    #[derive(Clone, Debug, PartialEq, Eq)]
    struct Founder {
        /// What is on its disk.
        stage: Stage,
        /// What each of the others has said to this run of it.
        heard: [Option<Stage>; FOUNDERS],
        /// It found that the group has begun with a file that it has lost.
        leaves: bool,
        /// Those with which it has taken part in votes, and which have lost their files since.
        has_met: [bool; FOUNDERS],
    }

    /// All of them, and how many files were lost.
    #[derive(Clone, Debug, PartialEq, Eq)]
    struct World {
        founders: [Founder; FOUNDERS],
        losses: u8,
    }

    impl World {
        fn new() -> Self {
            let founder = || Founder {
                stage: Stage::Nothing,
                heard: [None; FOUNDERS],
                leaves: false,
                has_met: [false; FOUNDERS],
            };
            Self { founders: std::array::from_fn(|_| founder()), losses: 0 }
        }

        /// The same for the same state only.
        fn key(&self) -> u64 {
            let mut key = u64::from(self.losses);
            let mut add = |bits: u32, value: u64| key = key << bits | value;
            for founder in &self.founders {
                add(2, founder.stage as u64);
                add(1, u64::from(founder.leaves));
                founder.heard.iter().for_each(|said| add(2, said.map_or(3, |said| said as u64)));
                founder.has_met.iter().for_each(|met| add(1, u64::from(*met)));
            }
            key
        }

        fn ask(&mut self, asking: usize, asked: usize) {
            let said = self.founders[asked].stage;
            self.founders[asking].heard[asked] = Some(said);
        }

        /// Lets one do what is next; whether that is allowed.
        fn step(&mut self, one: usize, rule: Rule) -> bool {
            let founder = &self.founders[one];
            let heard = (0..FOUNDERS).filter(|other| *other != one);
            let heard: Vec<Option<Stage>> = heard.map(|other| founder.heard[other]).collect();
            if founder.leaves || founder.stage == Stage::Begun {
                return true;
            }
            match rule(founder.stage, &heard) {
                Next::MakeReady => self.founders[one].stage = Stage::Ready,
                Next::Begin => {
                    self.founders[one].stage = Stage::Begun;
                    return self.founders.iter().all(|other| !other.has_met[one]);
                }
                Next::Leave => self.founders[one].leaves = true,
                Next::Wait => {}
            }
            true
        }

        fn crash(&mut self, one: usize) {
            self.founders[one].heard = [None; FOUNDERS];
        }

        fn lose_file(&mut self, one: usize) {
            self.crash(one);
            if self.founders[one].stage == Stage::Begun {
                for other in self.founders.iter_mut().filter(|other| other.stage == Stage::Begun) {
                    other.has_met[one] = true;
                }
            }
            let founder = &mut self.founders[one];
            founder.stage = Stage::Nothing;
            founder.leaves = false;
            founder.has_met = [false; FOUNDERS];
            self.losses += 1;
        }

        /// Everything that may happen next.
        fn successors(&self, rule: Rule) -> Vec<(Self, bool)> {
            let mut next = Vec::new();
            let mut with = |change: &dyn Fn(&mut Self) -> bool| {
                let mut world = self.clone();
                let is_allowed = change(&mut world);
                next.push((world, is_allowed));
            };
            for one in 0..FOUNDERS {
                for other in (0..FOUNDERS).filter(|other| *other != one) {
                    with(&|world| {
                        world.ask(one, other);
                        true
                    });
                }
                with(&|world| world.step(one, rule));
                with(&|world| {
                    world.crash(one);
                    true
                });
                if self.losses < LOSSES_MAX {
                    with(&|world| {
                        world.lose_file(one);
                        true
                    });
                }
            }
            next
        }

        /// Lets all ask and go on until nothing changes any more.
        fn settle(mut self, rule: Rule) -> Self {
            loop {
                let before = self.clone();
                for one in 0..FOUNDERS {
                    (0..FOUNDERS).for_each(|other| self.ask(one, other));
                    self.step(one, rule);
                }
                if self == before {
                    return self;
                }
            }
        }
    }

    /// All states that can be reached; `None` if one of them has a member that votes twice.
    fn explore(rule: Rule) -> Option<Vec<World>> {
        let mut seen = BTreeSet::from([World::new().key()]);
        let mut worlds = vec![World::new()];
        let mut place = 0;
        while let Some(world) = worlds.get(place).cloned() {
            for (next, is_allowed) in world.successors(rule) {
                if !is_allowed {
                    return None;
                }
                if seen.insert(next.key()) {
                    worlds.push(next);
                }
            }
            place += 1;
        }
        Some(worlds)
    }

    #[test]
    fn no_founder_votes_twice_and_none_waits_for_ever_whatever_happens_in_between() {
        let states = explore(next).expect("nobody votes twice");
        assert!(10_000 < states.len(), "{} states", states.len());
        for world in states.into_iter().filter(|world| world.losses < 2) {
            let settled = world.clone().settle(next);
            let begun = settled.founders.iter().filter(|founder| founder.stage == Stage::Begun);
            let (begun, leave) =
                (begun.count(), settled.founders.iter().filter(|founder| founder.leaves).count());
            assert_eq!(begun + leave, FOUNDERS, "{world:?}");
            assert!(FOUNDERS / 2 < begun, "no majority answers those who leave: {world:?}");
        }
    }

    #[test]
    fn rules_that_ask_for_less_let_a_founder_vote_twice() {
        // Begins as the one before did: where nobody is heard who has begun.
        fn unheard(own: Stage, others: &[Option<Stage>]) -> Next {
            match own {
                Stage::Nothing if others.contains(&Some(Stage::Begun)) => Next::Leave,
                Stage::Nothing => Next::MakeReady,
                Stage::Ready | Stage::Begun => Next::Begin,
            }
        }
        // One other is a majority with oneself.
        fn majority(own: Stage, others: &[Option<Stage>]) -> Next {
            let heard: Vec<_> = others.iter().filter(|other| other.is_some()).copied().collect();
            if heard.is_empty() { Next::Wait } else { next(own, &heard) }
        }
        // One step instead of two.
        fn at_once(own: Stage, others: &[Option<Stage>]) -> Next {
            if own == Stage::Ready { Next::Begin } else { next(own, others) }
        }
        for (name, rule) in [("unheard", unheard as Rule), ("majority", majority)] {
            assert!(explore(rule).is_none(), "{name}");
        }
        // Safe, but those who find one that has begun leave a group that has no majority yet.
        let states = explore(at_once).expect("nobody votes twice");
        let is_stuck = |world: World| {
            let settled = world.settle(at_once);
            let begun = settled.founders.iter().filter(|founder| founder.stage == Stage::Begun);
            begun.count() <= FOUNDERS / 2
        };
        assert!(states.into_iter().any(|world| world.losses < 2 && is_stuck(world)));
    }
}
