//! Holds a request that no replica has looked at, and hands it over again once one may take it.
//!
//! A refusal such as "settling" or "no lease" says that nothing was evaluated: the chain is between
//! two epochs, its head has just gone, or this node and the replica know different configurations.
//! Mostly that ends within a second, so the client waits instead of trying again itself: a read is
//! sent to the next replica at once, and what nobody takes is handed over again after a short pause,
//! and as soon as the chain has another epoch. A read that a replica is silent about is no different:
//! the node may be cut off, so it goes on to the next one, with more patience each time.
//!
//! A write with a request id is held, too, when its answer was lost: whoever has executed it
//! already tells that answer again.
//!
//! Ensures: without a request id only what was certainly not evaluated is handed over again, and
//! nothing of the session overtakes it: a request is held only as the only open one, or as a read
//! among reads; one whose answer was lost only while there is no other.
//! Limits: half the time-out of a request, the whole one with a request id; then the client is told
//! the last refusal, or that the outcome is unknown.

use std::time::Duration;

use antecede_model::{
    clock::Steady,
    ids::{Epoch, NodeId},
    operation::ShardOperation,
    refusal::Refusal,
    response::Response,
};

use super::{
    Requests, Session, View,
    part::{Course, Kind, Part, State, encoded},
    past::after,
    route::replica_after,
};
use crate::message::Place;

/// The first pause before a request is handed over again; it doubles each time.
const PAUSE_MIN: Duration = Duration::from_millis(5);
/// The longest.
const PAUSE_MAX: Duration = Duration::from_millis(40);

/// How long a replica that has left its chain may still take to answer: what it has said before is on
/// its way.
const GONE_AFTER: Duration = Duration::from_millis(500);

/// Why a part is held, and until when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Held {
    refusal: Refusal,
    pub(super) again_at: Steady,
    /// The epoch of the chain in which it was refused.
    epoch: Epoch,
}

impl Session {
    /// Whether a part that waits may be overtaken by nothing: what is behind it waits too.
    pub(super) fn holds_back(&self) -> bool {
        self.course != Some(Course::Reads) && self.parts.front().is_some_and(Part::is_held)
    }

    /// Whether the part at a place, or one that is not filed yet, may be held without being
    /// overtaken.
    fn may_hold(&self, part: &Part, at: Option<usize>) -> bool {
        let is_read_among_reads = part.kind == Kind::Read && self.course == Some(Course::Reads);
        let mut others = self.parts.iter().enumerate().filter(|(place, _)| Some(*place) != at);
        is_read_among_reads || others.all(|(_, other)| !other.is_open())
    }

    fn hold_of(&self, view: &View<'_>, part: &mut Part, refusal: Refusal) -> Option<State> {
        let now = view.now.steady;
        if !part.may_go_on_after(refusal) || self.hold_end(part) <= now {
            return None;
        }
        let pause = PAUSE_MAX.min(PAUSE_MIN * (1 << part.pauses.min(8)));
        part.pauses = part.pauses.saturating_add(1);
        let epoch = view.configuration.chain_epoch(self.node.datacenter, part.shard);
        Some(State::Held(Held { refusal, again_at: after(now, pause), epoch }))
    }

    fn hold_end(&self, part: &Part) -> Steady {
        let timeout = self.options.request_timeout;
        after(part.made, if part.retried.is_some() { timeout } else { timeout / 2 })
    }

    /// What becomes of a part that was refused while it was handed over: it is held, or answered.
    pub(super) fn refused_at_once(
        &self,
        view: &View<'_>,
        part: &mut Part,
        refusal: Refusal,
        operation: &ShardOperation<'_>,
    ) -> State {
        let held = if self.may_hold(part, None) { self.hold_of(view, part, refusal) } else { None };
        if held.is_some() {
            part.bytes.get_or_insert_with(|| encoded(operation));
        }
        held.unwrap_or_else(|| {
            part.end_with(Response::Refused(refusal));
            part.state.clone()
        })
    }

    /// Takes a refusal of the open part at a place; whether the part goes on.
    pub(super) fn goes_on_after(
        &mut self,
        view: &View<'_>,
        at: usize,
        refusal: Refusal,
        requests: &mut dyn Requests,
    ) -> bool {
        let part = &self.parts[at];
        let may_go_on = part.bytes.is_some() && part.may_go_on_after(refusal);
        if !may_go_on || !self.may_hold(part, Some(at)) {
            return false;
        }
        if !refusal.was_not_tried() {
            return self.holds_lost(view, at);
        }
        if part.kind == Kind::Read
            && let Some(next) = self.next_for_read(view, part)
        {
            self.move_read(at, next, view, requests);
            return true;
        }
        self.holds(view, at, refusal)
    }

    /// Holds the part at a place, whose answer was lost, if it has a request id; nothing else of
    /// the session may be on its way, or behind it.
    pub(super) fn holds_lost(&mut self, view: &View<'_>, at: usize) -> bool {
        let is_alone = self.parts.len() == 1;
        let part = &mut self.parts[at];
        let Some(retried) = part.retried.as_mut().filter(|_| part.bytes.is_some()) else {
            return false;
        };
        retried.is_open = true;
        self.past.lost(part.number);
        is_alone && self.holds(view, at, Refusal::UnknownOutcome)
    }

    /// Holds the part at a place, if there is time left.
    fn holds(&mut self, view: &View<'_>, at: usize, refusal: Refusal) -> bool {
        let stand_in = Part::answered(self.node, view.now.steady, Response::Nil);
        let mut part = std::mem::replace(&mut self.parts[at], stand_in);
        let held = self.hold_of(view, &mut part, refusal);
        let is_held = held.is_some();
        if let Some(state) = held {
            part.state = state;
            part.number = 0;
            let due = self.due(&part);
            self.wake = Some(self.wake.map_or(due, |wake| wake.min(due)));
        }
        self.parts[at] = part;
        is_held
    }

    /// The replica that a read is sent to after the one where it is, if it may be sent again.
    pub(super) fn next_for_read(&self, view: &View<'_>, part: &Part) -> Option<NodeId> {
        let chain = view.configuration.chain(self.node.datacenter, part.shard);
        let is_in_time = view.now.steady < after(part.made, self.options.request_timeout);
        let next = part.going_round(chain, replica_after(chain, part.to)?, view.now.steady);
        let may_move = is_in_time && part.bytes.is_some() && next != part.to;
        (may_move && usize::from(part.attempts) < chain.len()).then_some(next)
    }

    /// Takes note of replicas that have left their chains while they have a part.
    pub(super) fn note_departures(&mut self, view: &View<'_>) {
        let gone_at = after(view.now.steady, GONE_AFTER);
        for part in &mut self.parts {
            let chain = view.configuration.chain(self.node.datacenter, part.shard);
            if part.state == State::UnderWay && part.gone_at.is_none() && !chain.contains(&part.to)
            {
                part.gone_at = Some(gone_at);
                self.wake = Some(self.wake.map_or(gone_at, |wake| wake.min(gone_at)));
            }
        }
    }

    /// Hands over again what is held, when it is due or the chain has another epoch.
    pub(super) fn try_held_again(&mut self, view: &View<'_>, requests: &mut dyn Requests) {
        let now = view.now.steady;
        for at in 0..self.parts.len() {
            let part = &self.parts[at];
            let State::Held(held) = &part.state else { continue };
            let held = *held;
            let epoch = view.configuration.chain_epoch(self.node.datacenter, part.shard);
            if now < held.again_at && epoch == held.epoch {
                continue;
            }
            if self.hold_end(part) <= now {
                self.answer(at, Response::Refused(held.refusal));
                continue;
            }
            self.hand_over_anew(at, view, requests);
        }
    }

    /// Finds the replica again as if the part had just been made.
    fn hand_over_anew(&mut self, at: usize, view: &View<'_>, requests: &mut dyn Requests) {
        self.tally.remove(&self.parts[at]);
        let (shard, kind) = (self.parts[at].shard, self.parts[at].kind);
        let is_alone = self.parts.iter().enumerate().all(|(i, part)| i == at || !part.is_open());
        // Reads behind it that are answered may have to be read again, whatever its chain is now.
        let is_before_reads = self.course == Some(Course::Reads) && at + 1 < self.parts.len();
        if is_alone && !is_before_reads {
            self.course = Some(self.course_of(view, shard, kind));
        }
        let place = self.place_of(shard, kind);
        let chain = view.configuration.chain(self.node.datacenter, shard);
        let mut to = self.replica_of(chain, shard, place);
        let part = &mut self.parts[at];
        if place == Place::Anywhere {
            to = part.going_round(chain, to, view.now.steady);
        }
        (part.to, part.place, part.attempts, part.stamp) = (to, place, 0, None);
        self.send_again(at, view, requests);
    }
}
