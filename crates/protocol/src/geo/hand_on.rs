//! Hands on what this datacenter has of one that is lost for ever.
//!
//! Only the tail of the origin sends its entries; when a whole datacenter is lost, each survivor may
//! hold a different end of its lines, and what others wrote may depend on it. So each tail sends the
//! head of every other survivor the entries that it has in its log and that are not stable, until
//! each is known to be applied and persisted there (PITFALLS A16). An entry that was received but
//! still waited for its dependencies is in no log: it has been shown to nobody, and is given up.
//!
//! Assumes: the decision that a datacenter is lost began a new epoch of every chain: a settled tail
//! has committed all that any replica had taken before, and nothing of the origin comes but by this.
//! Ensures: when every survivor has handed on all that it has, all have the same; each entry still
//! enters a chain after what it depends on.

use std::collections::{BTreeMap, BTreeSet};

use antecede_model::{
    clock::{Steady, Timestamp},
    ids::{DatacenterId, MembershipEpoch, NodeId, Position},
    membership::Standing,
};

use crate::{
    chain::{MESSAGE_BYTES_MAX, RETRY_AFTER, Shard, after},
    entry::Entry,
    event::Event,
    machine::{Here, Outputs, Storage},
    message::Body,
    mutation::Mutation,
};

/// Entries in one message.
const ENTRIES_MAX: usize = 512;

/// What each other datacenter has of a lost one, as far as it is not stable.
#[derive(Debug, Default)]
pub struct HandingOn {
    /// By datacenter, origins and stamps.
    confirmed: BTreeMap<DatacenterId, BTreeSet<(DatacenterId, Timestamp)>>,
    /// Up to where in the log a datacenter has all of an origin.
    has_to: BTreeMap<(DatacenterId, DatacenterId), Position>,
    again_at: Option<Steady>,
}

impl Shard {
    fn is_lost(&self, origin: DatacenterId) -> bool {
        self.configuration.membership.standing(origin) == Some(Standing::Lost)
    }

    /// Forgets what others have said; the next round asks anew.
    pub(crate) fn hand_on_anew(&mut self) {
        self.handing_on = HandingOn::default();
    }

    /// Sends others what they are not known to have, when it is time to.
    pub(crate) fn hand_on_when_due(&mut self, here: &Here, out: &mut Outputs) {
        if self.configuration.membership.lost().next().is_none() {
            return;
        }
        let keeps = self.options.mutations.has(Mutation::KeepLostToOneself);
        if !self.neighbours.is_tail() || !self.is_settled() || keeps {
            return;
        }
        if let Some(due) = self.handing_on.again_at
            && here.now.steady < due
        {
            self.arm(due, out);
            return;
        }
        let peers: Vec<DatacenterId> = self.configuration.peers(self.here_datacenter()).collect();
        for peer in peers {
            self.hand_on_to(peer, out);
        }
        let at = after(here.now.steady, RETRY_AFTER);
        self.handing_on.again_at = Some(at);
        self.arm(at, out);
    }

    fn hand_on_to(&self, peer: DatacenterId, out: &mut Outputs) {
        for lost in self.configuration.membership.lost() {
            self.hand_on_of(lost, peer, out);
        }
    }

    fn hand_on_of(&self, lost: DatacenterId, peer: DatacenterId, out: &mut Outputs) {
        let Some(head) = self.configuration.head(peer, self.shard) else { return };
        let mut bytes = 0;
        let wanted = self.lacking(peer, lost).take(ENTRIES_MAX).take_while(|entry| {
            let fits = bytes < MESSAGE_BYTES_MAX;
            bytes += entry.body_bytes();
            fits
        });
        let entries: Vec<Entry> = wanted.cloned().collect();
        if !entries.is_empty() {
            let membership = self.configuration.membership.epoch;
            let body = Body::HandOn { membership, origin: lost, entries };
            out.early(head, self.message(body));
        }
    }

    /// Entries of the lost datacenter that another one is not known to have.
    fn lacking(&self, peer: DatacenterId, lost: DatacenterId) -> impl Iterator<Item = &Entry> {
        let confirmed = self.handing_on.confirmed.get(&peer);
        let durable_to = self.durable_position();
        let has_to = self.handing_on.has_to.get(&(peer, lost)).copied();
        self.window.after(has_to.unwrap_or_default()).filter(move |entry| {
            entry.origin == lost
                && entry.identity.position <= durable_to
                && !self.cuts.stable.covers(lost, entry.stamp)
                && confirmed.is_none_or(|known| !known.contains(&(lost, entry.stamp)))
        })
    }

    /// At the head: takes what another survivor has of a lost datacenter.
    pub(crate) fn on_hand_on(
        &mut self,
        here: &Here,
        from: NodeId,
        (membership, origin): (MembershipEpoch, DatacenterId),
        entries: Vec<Entry>,
        (storage, out): (&mut dyn Storage, &mut Outputs),
    ) {
        if membership != self.configuration.membership.epoch || !self.is_lost(origin) {
            out.event(Event::StaleMessage { from });
            return;
        }
        if !self.neighbours.is_head() || !self.is_settled() {
            return; // It sends again.
        }
        let mut stamps = Vec::new();
        for entry in entries {
            let stamp = entry.stamp;
            let line = self.lines.entry(origin).or_default();
            if line.durable.contains(stamp) {
                stamps.push(stamp);
            } else if entry.origin == origin
                && stamp <= self.hlc.last()
                && !line.received.contains(stamp)
                && !self.is_blocked(origin, stamp)
                && self.short_of_room(here, storage).is_none()
            {
                self.admit_whole(here, entry, storage, out);
            }
        }
        self.send_entries(here, out);
        if !stamps.is_empty() {
            out.early(from, self.message(Body::HandedOn { membership, origin, stamps }));
        }
    }

    /// At the tail: another survivor has applied and persisted these.
    pub(crate) fn on_handed_on(
        &mut self,
        from: NodeId,
        (membership, origin): (MembershipEpoch, DatacenterId),
        stamps: Vec<Timestamp>,
        out: &mut Outputs,
    ) {
        if membership != self.configuration.membership.epoch || !self.is_lost(origin) {
            out.event(Event::StaleMessage { from });
            return;
        }
        let confirmed = self.handing_on.confirmed.entry(from.datacenter).or_default();
        confirmed.extend(stamps.into_iter().map(|stamp| (origin, stamp)));
        let first_lacking = self.lacking(from.datacenter, origin).next();
        let has_to = first_lacking.map_or_else(
            || self.durable_position(),
            |entry| Position(entry.identity.position.0.saturating_sub(1)),
        );
        self.handing_on.has_to.insert((from.datacenter, origin), has_to);
        self.hand_on_to(from.datacenter, out);
    }

    /// Whether this tail has handed out what the membership asks for: all own writes while this
    /// datacenter leaves, all that it has of one that is lost.
    pub(crate) fn is_handed_out(&self) -> bool {
        let own = self.here_datacenter();
        match self.configuration.membership.changing() {
            Some((leaving, Standing::Leaving)) => {
                let newest = self.lines.get(&own).map(|line| line.newest_write);
                leaving != own || self.is_applied_by_all(newest.unwrap_or_default())
            }
            Some((_, Standing::Lost)) => {
                let keeps = self.options.mutations.has(Mutation::KeepLostToOneself);
                let has_all = |peer| {
                    let mut lost = self.configuration.membership.lost();
                    lost.all(|lost| self.lacking(peer, lost).next().is_none())
                };
                keeps || self.configuration.peers(own).all(has_all)
            }
            Some((_, Standing::Joining { .. } | Standing::Copying { .. } | Standing::Open))
            | None => true,
        }
    }
}
