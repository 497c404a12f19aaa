//! Lets clients give their writes request ids, and send them again: because they have no answer, or
//! only to see that they get the same one; at any node, now and then in another datacenter.

use antecede_check::Outcome;
use antecede_model::{ids::DatacenterId, refusal::Refusal, response::Response};

use crate::{
    check::{Failure, retries},
    client::{Asked, outcome_of},
    moment::MILLI,
    workload::{Ask, AskId},
    world::World,
};

/// Answered commands that a client remembers.
const ANSWERED_MAX: usize = 30;

impl World {
    /// Gives a command that may write an id, perhaps.
    pub(crate) fn with_id(&mut self, number: u32, ask: Ask) -> Ask {
        let client = self.clients.get_mut(&number).expect("only clients ask");
        let per_mille = self.plan.workload.id_per_mille;
        if per_mille == 0 || !ask.is_write() || !client.id_chance.per_mille(per_mille) {
            return ask;
        }
        let node = client.node;
        let place = self.plan.name_of(node.datacenter);
        let wall = self.nodes[self.place_of(node)].clock.at(self.now).wall.0;
        let client = self.clients.get_mut(&number).expect("only clients ask");
        client.last_id = wall.max(client.last_id + 1);
        let id = AskId {
            datacenter: node.datacenter,
            place,
            client: format!("c{number}"),
            number: client.last_id,
        };
        Ask::Retried { id, ask: Box::new(ask) }
    }

    /// What a client asks again only to see that the answer is the same.
    pub(crate) fn draw_repeat(&mut self, number: u32) -> Option<Asked> {
        let client = self.clients.get_mut(&number)?;
        if client.answered.is_empty() || !client.id_chance.per_mille(150) {
            return None;
        }
        let place = client.id_chance.place(client.answered.len());
        client.answered.get(place).cloned()
    }

    /// Where a client connects that has something to ask again.
    pub(crate) fn datacenter_of_repeat(&mut self, number: u32) -> Option<DatacenterId> {
        let count = self.plan.shape.datacenters;
        let client = self.clients.get_mut(&number)?;
        let own = client.again.as_ref()?.ask.id()?.datacenter;
        if client.id_chance.per_mille(850) {
            return Some(own);
        }
        let drawn = client.id_chance.between(1, u64::from(count));
        u16::try_from(drawn).ok().map(DatacenterId)
    }

    /// Looks at an answer to a command with an id: `None` if there is nothing to record, since it
    /// is asked again or was asked for its answer only.
    pub(crate) fn look_at_repeat(
        &mut self,
        number: u32,
        asked: Asked,
        response: &Response,
    ) -> Option<(Asked, Response)> {
        let Some(id) = asked.ask.id().cloned() else { return Some((asked, response.clone())) };
        if *response == Response::Refused(Refusal::OtherRequest) {
            let what = format!("{id:?} was taken for another request");
            self.fail(Failure::new("retries", what));
            return None;
        }
        let outcome = outcome_of(response);
        if outcome == Outcome::Ok {
            let first = self.answers_by_id.entry(id.clone()).or_insert_with(|| response.clone());
            let result = retries::at_answer(&id, first, response);
            self.hold(result);
        }
        let client = self.clients.get_mut(&number).expect("only clients are answered");
        if asked.first.is_some() {
            // The session goes on, whatever it was told now.
            client.last_write = None; // `WAIT` speaks of this one now, which is not looked up.
            let think = client.id_chance.spread(10 * MILLI);
            if client.waiting.is_empty() {
                self.turn_after(number, think);
            }
            return None;
        }
        let is_open = outcome == Outcome::Unknown || outcome == Outcome::Fail && 0 < asked.tries;
        if is_open {
            if client.asks_again(&asked) {
                self.lose_connection(number);
                return None;
            }
            return Some((asked, Response::Refused(Refusal::UnknownOutcome)));
        }
        if outcome == Outcome::Ok {
            let first = Some(response.clone());
            client.answered.push_back(Asked { first, ..asked.clone() });
            if ANSWERED_MAX < client.answered.len() {
                client.answered.pop_front();
            }
        }
        Some((asked, response.clone()))
    }

    /// What clients wanted to ask again when everything came to rest is never answered.
    pub(crate) fn end_repeats(&mut self) {
        for client in self.clients.values_mut() {
            if let Some(again) = client.again.take()
                && again.first.is_none()
            {
                self.records.extend(client.unanswered(&again, &self.keys));
            }
        }
    }
}
