//! Ends a run: waits until everything has come to rest, watches that nothing is written then, and
//! judges what the clients were told.

use std::collections::BTreeMap;

use antecede_model::{
    clock::Timestamp,
    ids::{DatacenterId, NodeId, RequestId, SessionId, ShardId},
    operation::{Action, Operation, ShardOperation},
    response::Response,
};
use antecede_protocol::{
    chain::{Input, Shard},
    message::{Carried, LocalRequest},
};

use crate::{
    check::{
        Failure, causal, chain_prefix, converged, durable, idle, linearizable,
        no_stuck::{self, Unrest},
        session,
    },
    moment::{MILLI, Moment},
    node::Node,
    workload::KeyId,
    world::World,
};

/// The largest stamp of a write of each origin.
type Newest = BTreeMap<DatacenterId, Timestamp>;

/// The first of the sessions in whose name the world reads what replicas hold: one for each key, so
/// that none waits for the value of another.
const PROBES: SessionId = SessionId(1 << 63);

/// Whether the world reads in the name of a session.
pub(crate) const fn is_probe(session: SessionId) -> bool {
    PROBES.0 <= session.0
}

/// How often it is looked whether everything has come to rest.
const LOOK_EVERY: u64 = 500 * MILLI;

/// What the end of a run needs to remember.
#[derive(Debug, Default)]
pub(crate) struct Rest {
    /// When the faults ended.
    pub(crate) healed_at: Option<Moment>,
    asked: Vec<(KeyId, NodeId)>,
    first: u64,
    answered: converged::Answered,
}

impl Rest {
    /// Whether the faults have ended.
    pub(crate) const fn is_healed(&self) -> bool {
        self.healed_at.is_some()
    }

    /// Takes the answer to a probe.
    pub(crate) fn answer(&mut self, number: u64, response: &Response) {
        let Some(place) = number.checked_sub(self.first) else { return };
        let Ok(place) = usize::try_from(place) else { return };
        let Some(asked) = self.asked.get(place) else { return };
        if let Response::Bytes(value) = response {
            self.answered.insert(*asked, Some(value.clone()));
        } else if *response == Response::Nil {
            self.answered.insert(*asked, None);
        }
    }
}

impl World {
    /// Runs until everything has come to rest.
    pub(crate) fn come_to_rest(&mut self) -> Result<(), Failure> {
        let healed = self.rest.healed_at.unwrap_or(self.now);
        loop {
            let next = self.now.after(LOOK_EVERY);
            self.run_to(next)?;
            self.bring_back();
            let mut unrest = self.unrest();
            if unrest.is_rest() {
                self.probe();
                let next = self.now.after(LOOK_EVERY);
                self.run_to(next)?;
                unrest.different = self.differences();
            }
            if unrest.is_rest() {
                self.trace.line(self.now, format_args!("AT REST"));
                return Ok(());
            }
            no_stuck::check(healed, self.now, &unrest)?;
        }
    }

    fn unrest(&self) -> Unrest {
        let mut unrest = Unrest::default();
        for client in self.clients.values() {
            if let Some(asked) = client.waiting.front() {
                let (at, node) = (asked.call, client.node);
                let what = asked.ask.tell(&self.keys);
                unrest
                    .clients
                    .push(format!("client {} at {node} since {at}: {what}", client.number));
            }
        }
        unrest.unsettled.extend(self.short_chains());
        unrest.unsettled.extend(self.misplaced());
        unrest.unsettled.extend(self.changing_members());
        let newest = self.ledger.newest_committed().clone();
        let judged = |node: &&Node| !node.is_removed && self.is_judged(node.id);
        for node in self.nodes.iter().filter(judged) {
            for (number, replica) in node.shards.iter().enumerate() {
                let Some(replica) = replica else { continue };
                if self.is_member(node.id, number) && !Shard::is_settled(replica) {
                    unrest.unsettled.push(format!("{} shard {number}", node.id));
                }
            }
            self.add_behind(node, &newest, &mut unrest);
            if let Some(behind) = node.bound.held_up_by() {
                let (id, behind) = (node.id, behind.datacenter);
                unrest.unsettled.push(format!("{id} takes no writes, since {behind} is behind"));
            }
            let stable = &node.keeper.cuts().stable;
            for (origin, stamp) in &newest {
                if !stable.covers(*origin, *stamp) {
                    let at = stable.at(*origin);
                    unrest.unstable.push(format!("{}: {origin} at {at}, not {stamp}", node.id));
                }
            }
        }
        unrest
    }

    /// Adds the tails here that have not applied everything.
    fn add_behind(&self, node: &Node, newest: &Newest, unrest: &mut Unrest) {
        for (number, replica) in node.shards.iter().enumerate() {
            let watermarks = replica.as_ref().and_then(Shard::watermarks);
            for (origin, at) in watermarks.unwrap_or_default().applied {
                let is_gone = self.configuration.membership.is_gone(origin);
                if !is_gone && newest.get(&origin).is_some_and(|newest| at < *newest) {
                    let what = format!("{} shard {number}: {origin} applied to {at}", node.id);
                    unrest.behind.push(what);
                }
            }
        }
    }

    fn is_member(&self, node: NodeId, shard: usize) -> bool {
        let shard = ShardId(u16::try_from(shard).expect("few shards"));
        self.configuration.chain(node.datacenter, shard).contains(&node)
    }

    /// Reads every key at every replica.
    fn probe(&mut self) {
        self.rest.first += self.rest.asked.len() as u64;
        self.rest.asked.clear();
        self.rest.answered.clear();
        for key in self.all_keys() {
            let shard = self.keys.of_id(key).shard;
            for datacenter in self.configuration.datacenters.keys() {
                for node in self.configuration.chain(*datacenter, shard) {
                    self.rest.asked.push((key, *node));
                }
            }
        }
        let carried = Carried::default();
        for (place, (key, node)) in self.rest.asked.clone().into_iter().enumerate() {
            let facts = self.keys.of_id(key).clone();
            let operation =
                ShardOperation::One(Operation { key: facts.name.as_bytes(), action: Action::Get });
            let number = self.rest.first + place as u64;
            let session = SessionId(PROBES.0 + place as u64);
            let id = RequestId { node, session, number };
            let request =
                LocalRequest { id, operation: &operation, carried: &carried, retry: None };
            let at = self.place_of(node);
            self.nodes[at].tell(self.now, facts.shard, Input::Request(request));
            self.absorb(at);
        }
    }

    fn differences(&self) -> Vec<String> {
        let missing = self.rest.asked.len() - self.rest.answered.len();
        let mut found = converged::differences(
            &self.ledger,
            &self.configuration,
            &self.keys,
            &self.rest.answered,
        );
        if 0 < missing {
            found.push(format!("{missing} replicas did not answer"));
        }
        found
    }

    /// Runs while nothing happens.
    pub(crate) fn idle(&mut self) -> Result<(), Failure> {
        self.run_to(self.now.after(idle::LAST_WRITES_WITHIN))?;
        let before = self.ledger.appended();
        self.run_to(self.now.after(idle::IDLE_FOR))?;
        idle::check(before, self.ledger.appended())
    }

    /// Judges the whole run.
    pub(crate) fn judge(&mut self) -> Result<(), Failure> {
        for datacenter in self.configuration.datacenters.keys() {
            for shard in self.configuration.shard_count.shards() {
                let chain = self.configuration.chain(*datacenter, shard);
                chain_prefix::at_rest(&self.ledger, chain, *datacenter, shard)?;
            }
        }
        durable::at_rest(&self.ledger, &self.configuration, &self.lost)?;
        self.judge_lapses()?;
        self.end_repeats();
        let history = self.history();
        let mut surviving = self.history_without_lost();
        converged::check(
            &mut surviving,
            &self.ledger,
            &self.configuration,
            &self.keys,
            &self.rest.answered,
        )?;
        self.tally.undecided = u64::from(!linearizable::check(&history)?);
        session::check(&history)?;
        causal::check(&history)
    }
}
