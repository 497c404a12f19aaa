//! Waits for other datacenters: until a token's past is here, or until the session's last write is
//! there.
//!
//! A token's writes that the applied cut does not cover are asked of the tails of their shards,
//! again and again until they answer; floors wait for the cut. What began in this datacenter was
//! committed here before any session was told of it. `WAIT` asks the tail of the write's shard,
//! which answers when enough peers have it or at the time-out.
//!
//! Assumes: the shell wakes a session whose `Waiting` needs cuts whenever they have moved.

use std::{collections::BTreeMap, time::Duration};

use antecede_model::{
    clock::{DriftError, Steady, Timestamp, check_drift},
    context::Context,
    cut::Cut,
    ids::{DatacenterId, NodeId, RequestId, ShardId},
    operation::ShardOperation,
    refusal::Refusal,
    response::Response,
};

use super::{Handover, Requests, Session, View, part::unreachable, past::after};
use crate::message::{Asker, Body, LocalRequest, Message, Place, Reply, ShardMessage};

/// How often a tail is asked again that has not answered.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// A command that waits for other datacenters.
#[derive(Debug)]
pub(super) enum Waiting {
    /// For a token's past.
    Token(TokenWait),
    /// For other datacenters to have applied a write.
    Replicated(ReplicatedWait),
    /// For the time-out, since there are no other datacenters.
    Nobody {
        /// `None` for ever.
        until: Option<Steady>,
    },
}

#[derive(Debug)]
pub(super) struct TokenWait {
    context: Context,
    began: Steady,
    until: Steady,
    /// What was asked of each shard and is not answered yet.
    asked: Vec<Asked>,
    ask_at: Steady,
    /// The largest visible-at that a tail told.
    visible_at: Timestamp,
}

#[derive(Debug)]
struct Asked {
    number: u64,
    shard: ShardId,
    writes: Vec<(DatacenterId, Timestamp)>,
}

#[derive(Debug)]
pub(super) struct ReplicatedWait {
    shard: ShardId,
    stamp: Timestamp,
    count: u64,
    /// When the client no longer waits; `None` for ever.
    until: Option<Steady>,
    /// The question that is under way.
    asked: Option<(u64, NodeId)>,
    ask_at: Steady,
}

/// Whether a write is applied in this datacenter as far as the cuts tell.
fn is_here(view: &View<'_>, here: DatacenterId, origin: DatacenterId, stamp: Timestamp) -> bool {
    let covers = |cut: &Cut| cut.covers(origin, stamp);
    origin == here || covers(view.applied) || covers(view.stable)
}

/// Refuses a context whose times lie too far ahead of this node's clock to be merged.
fn check_times(
    view: &View<'_>,
    context: &Context,
    max_clock_drift: Duration,
) -> Result<(), Refusal> {
    let contributed = context.contributed().iter().map(|(_, at)| *at);
    let newest = contributed.chain([context.time(), context.dependencies().newest()]).max();
    check_drift(view.now.wall, newest.unwrap_or_default(), max_clock_drift).map_err(
        |DriftError { ahead_millis, limit_millis, .. }| Refusal::Drift {
            ahead_millis: saturated(ahead_millis),
            limit_millis: saturated(limit_millis),
        },
    )
}

fn saturated(millis: u64) -> u32 {
    u32::try_from(millis).unwrap_or(u32::MAX)
}

impl TokenWait {
    /// Forgets what the cuts cover by now; tells how much is missing.
    fn missing(&mut self, view: &View<'_>, here: DatacenterId) -> usize {
        for asked in &mut self.asked {
            asked.writes.retain(|(origin, stamp)| !is_here(view, here, *origin, *stamp));
        }
        self.asked.retain(|asked| !asked.writes.is_empty());
        let floor = &self.context.dependencies().floor;
        let floors = floor.iter().filter(|(origin, at)| !is_here(view, here, *origin, *at));
        self.asked.iter().map(|asked| asked.writes.len()).sum::<usize>() + floors.count()
    }
}

impl Waiting {
    /// When it must be looked at again, whatever arrives.
    pub(super) fn wake(&self, request_timeout: Duration) -> Option<Steady> {
        match self {
            Self::Token(wait) => Some(wait.until.min(wait.ask_at)),
            Self::Replicated(wait) => {
                let given_up = wait.until.map(|until| after(until, request_timeout));
                let ask_at = wait.asked.is_none().then_some(wait.ask_at);
                given_up.into_iter().chain(ask_at).min()
            }
            Self::Nobody { until } => *until,
        }
    }
}

impl Session {
    /// `CAUSAL.AFTER`.
    pub(super) fn take_token(
        &mut self,
        view: &View<'_>,
        context: &Context,
        timeout_millis: u64,
        requests: &mut dyn Requests,
    ) -> Option<Response> {
        if let Err(refusal) = check_times(view, context, self.options.max_clock_drift) {
            return Some(Response::Refused(refusal));
        }
        if let Some(refusal) = self.refuse_past(view, context) {
            return Some(Response::Refused(refusal));
        }
        let here = self.node.datacenter;
        let mut by_shard: BTreeMap<ShardId, Vec<(DatacenterId, Timestamp)>> = BTreeMap::new();
        if !context.is_covered_at(here) {
            for dependency in &context.dependencies().exact {
                let writes = by_shard.entry(dependency.shard).or_default();
                writes.push((dependency.origin, dependency.stamp));
            }
        }
        let mut asked = Vec::new();
        for (shard, writes) in by_shard {
            asked.push(Asked { number: self.next_number(), shard, writes });
        }
        let now = view.now.steady;
        let mut wait = TokenWait {
            context: context.clone(),
            began: now,
            until: after(now, Duration::from_millis(timeout_millis)),
            asked,
            ask_at: now,
            visible_at: Timestamp::ZERO,
        };
        if context.is_covered_at(here) {
            self.past.join(context, Timestamp::ZERO, view.stable);
            return Some(Response::Ok);
        }
        if wait.missing(view, here) == 0 {
            self.past.join(context, view.applied_at, view.stable);
            return Some(Response::Ok);
        }
        self.waiting = Some(Box::new(Waiting::Token(wait)));
        self.look_after_waiting(view, requests)
    }

    /// Why a past is not taken. Of writes of a datacenter that was lost, unless they were shown here,
    /// those that nobody had received are gone, and nobody knows which. And a datacenter that is let
    /// go of may have what nobody else has: whoever brought a past to it could not take it on.
    fn refuse_past(&self, view: &View<'_>, context: &Context) -> Option<Refusal> {
        let here = self.node.datacenter;
        if !view.configuration.is_present(here) {
            let has_lapsed = view.configuration.membership.is_lapsed(here);
            return Some(if has_lapsed { Refusal::Lapsed } else { Refusal::Gone });
        }
        if context.is_covered_at(here) {
            return None;
        }
        let gone = &view.configuration.membership.gone;
        let dependencies = context.dependencies();
        let exact = dependencies.exact.iter().map(|dependency| dependency.origin);
        let mut origins = exact.chain(dependencies.floor.iter().map(|(origin, _)| *origin));
        let lost = origins.find(|origin| gone.get(origin).is_some_and(|gone| gone.was_lost));
        lost.map(|datacenter| Refusal::Lost { datacenter })
    }

    /// `WAIT`.
    pub(super) fn take_wait(
        &mut self,
        view: &View<'_>,
        count: u64,
        timeout_millis: u64,
        requests: &mut dyn Requests,
    ) -> Option<Response> {
        let now = view.now.steady;
        let timeout = (timeout_millis != 0).then(|| Duration::from_millis(timeout_millis));
        let until = timeout.map(|timeout| after(now, timeout));
        let peers = view.configuration.peers(self.node.datacenter).count() as u64;
        if count == 0 && peers == 0 {
            return Some(Response::Integer(0));
        }
        let waiting = match self.past.last_write() {
            _ if peers == 0 => Waiting::Nobody { until },
            None => return Some(Response::Integer(i64::try_from(peers).unwrap_or(i64::MAX))),
            Some(last) => Waiting::Replicated(ReplicatedWait {
                shard: last.shard,
                stamp: last.stamp,
                count,
                until,
                asked: None,
                ask_at: now,
            }),
        };
        self.waiting = Some(Box::new(waiting));
        self.look_after_waiting(view, requests)
    }

    /// Asks what must be asked now; ends the wait if it is over.
    pub(super) fn look_after_waiting(
        &mut self,
        view: &View<'_>,
        requests: &mut dyn Requests,
    ) -> Option<Response> {
        let mut waiting = self.waiting.take()?;
        let response = match &mut *waiting {
            Waiting::Token(wait) => self.look_after_token(wait, view, requests),
            Waiting::Replicated(wait) => self.look_after_replicated(wait, view, requests),
            Waiting::Nobody { until } => {
                let is_over = until.is_some_and(|until| until <= view.now.steady);
                is_over.then_some(Response::Integer(0))
            }
        };
        if response.is_none() {
            self.waiting = Some(waiting);
        }
        response
    }

    fn look_after_token(
        &mut self,
        wait: &mut TokenWait,
        view: &View<'_>,
        requests: &mut dyn Requests,
    ) -> Option<Response> {
        let here = self.node.datacenter;
        if let Some(refusal) = self.refuse_past(view, &wait.context) {
            return Some(Response::Refused(refusal)); // Lost meanwhile, it or this datacenter.
        }
        let missing = wait.missing(view, here);
        if missing == 0 {
            self.past.join(&wait.context, wait.visible_at.max(view.applied_at), view.stable);
            return Some(Response::Ok);
        }
        let now = view.now.steady;
        if wait.until <= now {
            let waited = now.0.saturating_sub(wait.began.0).as_millis();
            return Some(Response::Refused(Refusal::NotYet {
                missing: u32::try_from(missing).unwrap_or(u32::MAX),
                waited_millis: u32::try_from(waited).unwrap_or(u32::MAX),
            }));
        }
        if wait.ask_at <= now {
            wait.ask_at = after(now, ASK_EVERY);
            for asked in &wait.asked {
                self.ask_tail(view, asked, requests);
            }
        }
        None
    }

    fn ask_tail(&self, view: &View<'_>, asked: &Asked, requests: &mut dyn Requests) {
        let here = self.node.datacenter;
        let Some(tail) = view.configuration.tail(here, asked.shard) else { return };
        let asker = Asker::Session(self.request_id(asked.number));
        let message = ShardMessage {
            shard: asked.shard,
            epoch: view.configuration.chain_epoch(here, asked.shard),
            hlc: self.past.context().time(),
            body: Body::AwaitApplied { asker, writes: asked.writes.clone() },
        };
        requests.send(tail, Message::Shard(message));
    }

    fn look_after_replicated(
        &mut self,
        wait: &mut ReplicatedWait,
        view: &View<'_>,
        requests: &mut dyn Requests,
    ) -> Option<Response> {
        let now = view.now.steady;
        if wait.until.is_some_and(|until| after(until, self.options.request_timeout) <= now) {
            return Some(unreachable(wait.shard));
        }
        if wait.asked.is_some() || now < wait.ask_at {
            return None;
        }
        wait.ask_at = after(now, ASK_EVERY);
        let tail = view.configuration.tail(self.node.datacenter, wait.shard)?;
        let left = wait.until.map(|until| until.0.saturating_sub(now.0).as_millis());
        let left = left.map_or(0, |left| u64::try_from(left).unwrap_or(u64::MAX).max(1));
        let operation = ShardOperation::Replicated {
            stamp: wait.stamp,
            count: wait.count,
            timeout_millis: left,
        };
        let number = self.next_number();
        let id = self.request_id(number);
        let carried = self.past.carry(false, Place::Tail, view.stable);
        let request = LocalRequest { id, operation: &operation, carried, retry: None };
        match requests.request(tail, wait.shard, request) {
            Handover::UnderWay | Handover::Parked | Handover::Answered | Handover::Stamped(_) => {
                wait.asked = Some((number, tail));
            }
            Handover::NoLink | Handover::Refused(_) => {} // It is asked again.
        }
        None
    }

    /// Takes the answer to something that was asked while waiting.
    pub(super) fn on_reply_while_waiting(
        &mut self,
        view: &View<'_>,
        id: RequestId,
        reply: Reply,
        requests: &mut dyn Requests,
    ) -> Option<Response> {
        match self.waiting.as_deref_mut()? {
            Waiting::Token(wait) => {
                if reply.response == Response::Ok {
                    wait.visible_at = wait.visible_at.max(reply.visible_at);
                    wait.asked.retain(|asked| asked.number != id.number);
                }
            }
            Waiting::Replicated(wait) => {
                if wait.asked.is_none_or(|(number, _)| number != id.number) {
                    return None;
                }
                wait.asked = None;
                // A tail that cannot tell now is asked again.
                if !matches!(reply.response, Response::Refused(_)) {
                    self.waiting = None;
                    return Some(reply.response);
                }
            }
            Waiting::Nobody { .. } => {}
        }
        self.look_after_waiting(view, requests)
    }

    /// Asks again soon what a lost link may have swallowed.
    pub(super) fn on_link_lost_while_waiting(&mut self, node: NodeId, view: &View<'_>) {
        let soon = after(view.now.steady, ASK_EVERY);
        match self.waiting.as_deref_mut() {
            Some(Waiting::Token(wait)) => wait.ask_at = wait.ask_at.min(soon),
            Some(Waiting::Replicated(wait)) => {
                if wait.asked.is_some_and(|(_, to)| to == node) {
                    wait.asked = None;
                    wait.ask_at = soon;
                }
            }
            Some(Waiting::Nobody { .. }) | None => {}
        }
    }
}
