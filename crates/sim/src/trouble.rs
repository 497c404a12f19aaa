//! Makes faults begin and end: crashes, cuts, slowness, clocks, lost nodes.

use std::{collections::BTreeMap, sync::Arc};

use antecede_model::ids::{DatacenterId, NodeId};
use antecede_protocol::machine::Room;
use antecede_protocol::manager::{Change, Facts, Life, next_configuration};

use crate::{
    faults::{Fault, FaultKind, Trigger},
    moment::MILLI,
    world::{Happening, World},
};

impl World {
    /// A fault begins.
    pub(crate) fn begin(&mut self, number: usize) {
        let fault = self.plan.faults[number];
        self.tally.faults += 1;
        self.trace.line(self.now, format_args!("FAULT {number} begins: {:?}", fault.kind));
        self.queue.add(self.now.after(fault.lasts), Happening::End(number));
        match fault.kind {
            FaultKind::Crash { node, is_power_loss, trigger } => {
                let place = self.place_of(node);
                self.nodes[place].trigger = Some((trigger, is_power_loss, fault.lasts));
                self.crash_if_due(place, Trigger::Now);
            }
            FaultKind::Blackout { datacenter } => {
                for place in self.places_in(datacenter) {
                    self.crash(place, true, fault.lasts);
                }
            }
            FaultKind::Rot { node, is_power_loss } => self.rot(node, is_power_loss, fault.lasts),
            FaultKind::Reset { from, to } => {
                if from != to {
                    self.network.reset(from, to);
                }
            }
            FaultKind::ClockJump { node, to_millis } => {
                let place = self.place_of(node);
                self.nodes[place].clock.offset_micros = to_millis * 1000;
            }
            FaultKind::Remove { node } => self.remove(node),
            FaultKind::Leave { node } => self.ask_to_leave(node, fault.lasts),
            FaultKind::NewManager { datacenter } => self.new_manager(datacenter),
            FaultKind::Pause { node } => {
                let place = self.place_of(node);
                let until = self.now.after(fault.lasts);
                self.nodes[place].paused_until = self.nodes[place].paused_until.max(until);
            }
            FaultKind::CutControl { .. }
            | FaultKind::ControlDown { .. }
            | FaultKind::CutNodes { .. }
            | FaultKind::CutDatacenters { .. }
            | FaultKind::Slow { .. }
            | FaultKind::SlowDisk { .. }
            | FaultKind::NoRoom { .. }
            | FaultKind::SlowLink { .. }
            | FaultKind::SlowPair { .. } => self.switch(fault.kind, true),
        }
    }

    /// A fault ends.
    pub(crate) fn end(&mut self, number: usize) {
        if self.rest.is_healed() {
            return; // Everything has ended already.
        }
        let Fault { kind, lasts, .. } = self.plan.faults[number];
        self.trace.line(self.now, format_args!("FAULT {number} ends"));
        if let FaultKind::CutNodes { from, to, .. } = kind {
            self.check_line(from, to, lasts);
        }
        match kind {
            FaultKind::CutControl { .. }
            | FaultKind::ControlDown { .. }
            | FaultKind::CutNodes { .. }
            | FaultKind::CutDatacenters { .. }
            | FaultKind::Slow { .. }
            | FaultKind::SlowDisk { .. }
            | FaultKind::NoRoom { .. }
            | FaultKind::SlowLink { .. }
            | FaultKind::SlowPair { .. } => self.switch(kind, false),
            FaultKind::Crash { .. }
            | FaultKind::Blackout { .. }
            | FaultKind::Rot { .. }
            | FaultKind::Reset { .. }
            | FaultKind::ClockJump { .. }
            | FaultKind::NewManager { .. }
            | FaultKind::Pause { .. }
            | FaultKind::Leave { .. }
            | FaultKind::Remove { .. } => {}
        }
        self.forget_missing_links();
    }

    /// Switches on or off what lasts.
    pub(crate) fn switch(&mut self, kind: FaultKind, is_on: bool) {
        match kind {
            FaultKind::CutNodes { from, to, is_one_way } => {
                self.network.cut(from, to, is_on);
                if !is_one_way {
                    self.network.cut(to, from, is_on);
                }
            }
            FaultKind::CutDatacenters { from, to, is_one_way } => {
                for (from, to) in self.pairs(from, to) {
                    self.network.cut(from, to, is_on);
                    if !is_one_way {
                        self.network.cut(to, from, is_on);
                    }
                }
            }
            FaultKind::Slow { node, cost } => {
                let place = self.place_of(node);
                self.nodes[place].cost = if is_on { cost } else { 0 };
                self.nodes[place].well_since = self.now;
            }
            FaultKind::SlowDisk { node, factor } => {
                let place = self.place_of(node);
                self.nodes[place].disk_factor = if is_on { factor } else { 1 };
                self.nodes[place].well_since = self.now;
            }
            FaultKind::NoRoom { node, room } => {
                let place = self.place_of(node);
                self.nodes[place].set_room(if is_on { room } else { Room::Ample });
            }
            FaultKind::SlowLink { from, to, extra } => {
                for (from, to) in self.pairs(from, to) {
                    self.network.slow(from, to, extra, is_on);
                }
            }
            FaultKind::SlowPair { from, to, extra } => self.network.slow(from, to, extra, is_on),
            FaultKind::CutControl { node } => {
                let place = self.place_of(node);
                self.nodes[place].is_cut_from_control = is_on;
                self.nodes[place].well_since = self.now;
            }
            FaultKind::ControlDown { datacenter } => {
                if let Some(control) = self.control.get_mut(&datacenter) {
                    control.is_up = !is_on;
                    control.take_over(self.now);
                }
            }
            FaultKind::Crash { .. }
            | FaultKind::Blackout { .. }
            | FaultKind::Rot { .. }
            | FaultKind::Reset { .. }
            | FaultKind::ClockJump { .. }
            | FaultKind::NewManager { .. }
            | FaultKind::Pause { .. }
            | FaultKind::Leave { .. }
            | FaultKind::Remove { .. } => {}
        }
    }

    fn new_manager(&mut self, datacenter: DatacenterId) {
        if let Some(control) = self.control.get_mut(&datacenter) {
            control.take_over(self.now);
        }
    }

    fn places_in(&self, datacenter: DatacenterId) -> Vec<usize> {
        let places = self.nodes.iter().enumerate();
        places.filter(|(_, node)| node.id.datacenter == datacenter).map(|(at, _)| at).collect()
    }

    fn pairs(&self, from: DatacenterId, to: DatacenterId) -> Vec<(NodeId, NodeId)> {
        let ids = |datacenter| self.places_in(datacenter).into_iter().map(|at| self.nodes[at].id);
        ids(from).flat_map(|one| ids(to).map(move |other| (one, other))).collect()
    }

    /// Crashes a node whose moment has come; true if it did.
    pub(crate) fn crash_if_due(&mut self, place: usize, trigger: Trigger) -> bool {
        let Some((due, is_power_loss, lasts)) = self.nodes[place].trigger else { return false };
        if due != trigger || !self.nodes[place].is_up {
            return false;
        }
        if trigger == Trigger::Append && self.chance.per_mille(500) {
            self.send_early(place);
        }
        self.crash(place, is_power_loss, lasts);
        true
    }

    /// A node ends, and starts again later.
    pub(crate) fn crash(&mut self, place: usize, is_power_loss: bool, lasts: u64) {
        if !self.nodes[place].is_up {
            return;
        }
        let id = self.nodes[place].id;
        self.trace.line(self.now, format_args!("{id} crashes (power: {is_power_loss})"));
        let clients: Vec<u32> =
            self.nodes[place].connections.values().map(|connection| connection.client).collect();
        let seed = self.chance.bits();
        self.nodes[place].end(is_power_loss, seed);
        self.ledger.down(id);
        for client in clients {
            self.lose_connection(client);
        }
        for other in 0..self.nodes.len() {
            let other = self.nodes[other].id;
            if other != id {
                self.network.refuse(other, id);
                self.break_link(other, id);
            }
        }
        let at = self.now.after(lasts + self.chance.below(10 * MILLI));
        self.queue.add(at, Happening::Start(place));
    }

    /// A node is gone for ever; its datacenter goes on in a new epoch without it.
    ///
    /// The node has ended before anybody hears of the new epoch, so that no right of the old one is
    /// left: that is the handover.
    fn remove(&mut self, node: NodeId) {
        let datacenter = node.datacenter;
        if !self.control.is_empty() {
            // Its manager will see that it is gone; so must those who judge the end.
            if self.may_lose(node) {
                let place = self.place_of(node);
                self.crash(place, true, 0);
                self.nodes[place].is_removed = true;
            }
            return;
        }
        let facts = Facts {
            epoch: self.configuration.epoch(datacenter),
            nodes: BTreeMap::from([(node, Life::Expired)]),
            ..Facts::default()
        };
        let Some(decision) = next_configuration(&self.configuration, datacenter, &facts) else {
            return; // It is gone already.
        };
        if decision.changes.iter().any(|change| matches!(change, Change::Dark { .. })) {
            return; // What only this node has would be gone for ever.
        }
        let place = self.place_of(node);
        self.crash(place, true, 0);
        self.nodes[place].is_removed = true;
        self.configuration = Arc::new(decision.configuration);
        for other in 0..self.nodes.len() {
            let at = self.now.after(self.chance.between(50 * MILLI, 2500 * MILLI));
            let place = self.present(other);
            self.queue.add(at, Happening::Configure(place, Arc::clone(&self.configuration)));
        }
    }

    /// Whether every chain has another serving replica that runs: what only this one has would be
    /// gone for ever.
    fn may_lose(&self, node: NodeId) -> bool {
        let is_lost =
            |other: &NodeId| self.nodes[self.place_of(*other)].is_removed || !self.is_whole(*other);
        let Some(part) = self.configuration.datacenter(node.datacenter) else { return false };
        part.chains.iter().all(|chain| {
            let is_other = |other: &&NodeId| **other != node && !is_lost(other);
            chain.serving.iter().any(|other| is_other(&other))
        })
    }

    /// Ends all faults.
    pub(crate) fn heal(&mut self) {
        self.trace.line(self.now, format_args!("HEALED"));
        self.rest.healed_at = Some(self.now);
        self.network.calm();
        for control in self.control.values_mut() {
            control.is_up = true;
        }
        for place in 0..self.nodes.len() {
            let node = &mut self.nodes[place];
            node.cost = 0;
            node.disk_factor = 1;
            node.set_room(Room::Ample);
            node.trigger = None;
            node.is_cut_from_control = false;
            if !node.is_up {
                let at = self.now.after(self.chance.below(300 * MILLI));
                self.queue.add(at, Happening::Start(place));
            } else if node.leave.is_some() {
                self.crash(place, false, 0); // Whoever waits for it has waited long enough.
            }
        }
        self.forget_missing_links();
    }
}
