//! Holds requests back until the values that they need are read from the checkpoint.
//!
//! A value that was not used for long may be on disk only (`state::keys::away`). A request that
//! needs one is *parked*: the shell is asked for the records of the key's hash, and when they are
//! here the request is evaluated as if it had just come, so at the head against the newest state.
//! Nothing was promised meanwhile, and nobody else waits: only later requests of the same session
//! queue up behind it, since its commands take effect in their order. What needs no value (a new
//! value, a removal, a time to live, a commit, a remote write) is never parked.
//!
//! Assumes: the shell answers every load, also one that has failed.
//! Ensures: what is loaded goes only into a record of the same version that still lacks it; a value
//! that cannot be read is an error to who asked, and never an absent key.
//! Ensures: a value that was loaded stays until the request that it was loaded for was evaluated.
//! Limits: `PARKED_MAX` requests of `PARKED_BYTES_MAX`; past it they are refused with
//! `Refusal::Busy`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use antecede_model::{
    codec::{Reader, Writer},
    ids::{NodeId, RequestId, SessionId},
    operation::ShardOperation,
    refusal::Refusal,
    retry::Retry,
};

use super::{Loaded, Shard};
use crate::{
    checkpointed::StepLimits,
    event::Event,
    machine::{Here, Load, Outputs, Storage},
    message::{Carried, LocalRequest},
    mutation::Mutation,
    state::{Evicted, Lacking},
};

/// Requests that wait for values, or behind such; past it they are refused.
const PARKED_MAX: usize = 4_096;
/// Bytes of their operations.
const PARKED_BYTES_MAX: usize = 64 << 20;

/// A session, by the node where it lives.
type Asker = (NodeId, SessionId);

/// A request that waits.
#[derive(Debug)]
struct Parked {
    id: RequestId,
    operation: Vec<u8>,
    carried: Carried,
    retry: Option<Retry>,
    /// The hashes of values that are not here yet.
    lacks: BTreeSet<u64>,
    /// The hashes of all values that were loaded for it, or will be.
    pins: BTreeSet<u64>,
}

/// A load under way.
#[derive(Debug)]
struct UnderWay {
    number: u64,
    /// Sessions whose first request waits for it.
    askers: Vec<Asker>,
}

/// What waits for values that are on disk only.
#[derive(Debug, Default)]
pub(super) struct Cold {
    /// Counts loads.
    number: u64,
    /// By hash.
    loads: BTreeMap<u64, UnderWay>,
    /// Of each session the request that lacks values, and those behind it.
    parked: BTreeMap<Asker, VecDeque<Parked>>,
    parked_count: usize,
    parked_bytes: usize,
    /// For how many requests a hash must keep its values.
    pins: BTreeMap<u64, usize>,
    /// Hashes whose values the next part of a copy needs.
    for_copy: BTreeSet<u64>,
}

impl Cold {
    /// The keys were forgotten: what is loaded for them is of no use.
    pub(super) fn forget_loads(&mut self) {
        debug_assert!(self.parked.is_empty(), "requests are given up before the keys are");
        self.loads.clear();
        self.for_copy.clear();
    }

    /// Nobody copies any more, or has what it needs.
    pub(super) fn end_copy(&mut self) {
        self.for_copy.clear();
    }

    pub(super) fn has_parked(&self) -> bool {
        !self.parked.is_empty()
    }

    fn pin(&mut self, hashes: &BTreeSet<u64>) {
        for hash in hashes {
            *self.pins.entry(*hash).or_default() += 1;
        }
    }

    fn unpin(&mut self, hashes: &BTreeSet<u64>) {
        for hash in hashes {
            if let Some(count) = self.pins.get_mut(hash) {
                *count -= 1;
                if *count == 0 {
                    self.pins.remove(hash);
                }
            }
        }
    }

    fn add(&mut self, asker: Asker, parked: Parked, is_first: bool) {
        self.pin(&parked.pins);
        self.parked_count += 1;
        self.parked_bytes += parked.operation.len();
        let queue = self.parked.entry(asker).or_default();
        if is_first {
            queue.push_front(parked);
        } else {
            queue.push_back(parked);
        }
    }

    /// Takes the first request of a session, if it lacks nothing any more or must go anyway. Its
    /// values stay pinned.
    fn take_first(&mut self, asker: Asker, is_anyway: bool) -> Option<Parked> {
        let queue = self.parked.get_mut(&asker)?;
        let parked = queue.pop_front_if(|first| is_anyway || first.lacks.is_empty())?;
        if queue.is_empty() {
            self.parked.remove(&asker);
        }
        self.parked_count -= 1;
        self.parked_bytes -= parked.operation.len();
        Some(parked)
    }

    fn must_keep(&self, hash: u64) -> bool {
        self.loads.contains_key(&hash)
            || self.pins.contains_key(&hash)
            || self.for_copy.contains(&hash)
    }
}

impl Shard {
    /// Parks a request of a session whose earlier one is parked; false if there is none.
    pub(super) fn waits_behind_parked(
        &mut self,
        request: &LocalRequest<'_>,
        out: &mut Outputs,
    ) -> bool {
        let asker = (request.id.node, request.id.session);
        if self.cold.parked.is_empty() || !self.cold.parked.contains_key(&asker) {
            return false;
        }
        if let Some(parked) = self.parked_of(request, out) {
            self.cold.add(asker, parked, false);
        }
        true
    }

    /// A request as it is parked; refused if there are too many.
    fn parked_of(&self, request: &LocalRequest<'_>, out: &mut Outputs) -> Option<Parked> {
        let LocalRequest { id, operation, carried, retry } = *request;
        if PARKED_MAX <= self.cold.parked_count || PARKED_BYTES_MAX <= self.cold.parked_bytes {
            let limit = u32::try_from(PARKED_MAX).unwrap_or(u32::MAX);
            let held = u32::try_from(self.cold.parked_count).unwrap_or(u32::MAX);
            self.refuse(id, Refusal::Busy { shard: self.shard, held, limit }, out);
            return None;
        }
        let mut bytes = Vec::new();
        operation.write(&mut Writer::new(&mut bytes));
        let (lacks, pins) = (BTreeSet::new(), BTreeSet::new());
        let (carried, retry) = (carried.clone(), retry.cloned());
        Some(Parked { id, operation: bytes, carried, retry, lacks, pins })
    }

    /// Parks a request, which is the first of its session, until what it lacks was loaded.
    pub(super) fn park(
        &mut self,
        request: &LocalRequest<'_>,
        lacking: &Lacking,
        out: &mut Outputs,
    ) {
        let asker = (request.id.node, request.id.session);
        let Some(mut parked) = self.parked_of(request, out) else { return };
        parked.lacks = lacking.hashes.iter().copied().collect();
        parked.pins.clone_from(&parked.lacks);
        for hash in &parked.lacks {
            self.load(*hash, Some(asker), out);
        }
        self.cold.add(asker, parked, true);
    }

    /// Asks for the values of a hash, unless that was done.
    fn load(&mut self, hash: u64, asker: Option<Asker>, out: &mut Outputs) {
        let (shard, cold) = (self.shard, &mut self.cold);
        let under_way = cold.loads.entry(hash).or_insert_with(|| {
            cold.number += 1;
            out.loads.push(Load { shard, hash, number: cold.number });
            UnderWay { number: cold.number, askers: Vec::new() }
        });
        under_way.askers.extend(asker);
    }

    /// Asks for what a part of a copy lacks.
    pub(super) fn load_for_copy(&mut self, lacking: &Lacking, out: &mut Outputs) {
        for hash in &lacking.hashes {
            self.load(*hash, None, out);
            self.cold.for_copy.insert(*hash);
        }
    }

    /// A load has ended, one way or the other.
    pub(super) fn on_loaded(
        &mut self,
        here: &Here,
        loaded: &Loaded<'_>,
        storage: &mut dyn Storage,
        out: &mut Outputs,
    ) {
        let Loaded { hash, number, records } = *loaded;
        if self.cold.loads.get(&hash).is_none_or(|under_way| under_way.number != number) {
            return; // The keys that it was for are forgotten.
        }
        let Some(under_way) = self.cold.loads.remove(&hash) else { return };
        let is_unchecked = self.options.mutations.has(Mutation::LoadOverNewer);
        let is_there = self.keys.put_back(hash, records, is_unchecked).is_ok();
        if !is_there {
            out.event(Event::LoadFailed { shard: self.shard, hash });
        }
        for asker in under_way.askers {
            let first = self.cold.parked.get_mut(&asker).and_then(VecDeque::front_mut);
            let Some(first) = first.filter(|first| first.lacks.contains(&hash)) else { continue };
            first.lacks.remove(&hash);
            if !is_there && let Some(failed) = self.cold.take_first(asker, true) {
                self.cold.unpin(&failed.pins);
                self.refuse(failed.id, Refusal::Unreadable { node: self.node }, out);
            }
            self.go_on_with(here, asker, storage, out);
        }
        if is_there && self.cold.for_copy.contains(&hash) {
            let is_loading = |hash: &u64| self.cold.loads.contains_key(hash);
            if !self.cold.for_copy.iter().any(is_loading) {
                self.answer_joiner(out);
                self.answer_seed(out);
            }
        }
    }

    /// Evaluates what a session has asked, in order, up to what lacks a value.
    fn go_on_with(
        &mut self,
        here: &Here,
        asker: Asker,
        storage: &mut dyn Storage,
        out: &mut Outputs,
    ) {
        while let Some(parked) = self.cold.take_first(asker, false) {
            let operation = ShardOperation::read(&mut Reader::new(&parked.operation))
                .expect("these bytes were written here");
            let (id, carried, retry) = (parked.id, &parked.carried, parked.retry.as_ref());
            let request = LocalRequest { id, operation: &operation, carried, retry };
            self.take_up(here, &request, storage, out);
            let cold = &mut self.cold;
            let queue = cold.parked.get_mut(&asker);
            let again = queue.and_then(VecDeque::front_mut).filter(|first| first.id == id);
            if let Some(again) = again {
                // It lacks something else by now; what it has got stays meanwhile.
                let kept: BTreeSet<u64> = parked.pins.difference(&again.pins).copied().collect();
                again.pins.extend(&kept);
                cold.pin(&kept);
            }
            cold.unpin(&parked.pins);
        }
    }

    /// In a new epoch others may evaluate what waits here: it was not tried.
    pub(super) fn give_up_parked(&mut self, out: &mut Outputs) {
        let parked = std::mem::take(&mut self.cold.parked);
        (self.cold.parked_count, self.cold.parked_bytes) = (0, 0);
        self.cold.pins.clear();
        self.cold.for_copy.clear();
        for waiting in parked.into_values().flatten() {
            self.refuse(waiting.id, Refusal::Settling { shard: self.shard }, out);
        }
    }

    /// Takes values out of memory that are on disk, too, and were not used lately; see
    /// `Keys::evict`.
    pub fn evict(&mut self, limits: StepLimits) -> Evicted {
        let is_unchecked = self.options.mutations.has(Mutation::EvictUnsaved);
        let cold = &self.cold;
        let evicted = self.keys.evict(limits, |hash| cold.must_keep(hash), is_unchecked);
        let unsaved_bytes = if self.has_all_data() { evicted.unsaved_bytes } else { 0 };
        Evicted { unsaved_bytes, ..evicted }
    }

    /// Whether a request waits here for a value, or behind one that does.
    #[must_use]
    pub fn has_parked(&self, id: RequestId) -> bool {
        let queue = self.cold.parked.get(&(id.node, id.session));
        queue.and_then(VecDeque::back).is_some_and(|last| last.id == id)
    }

    /// Requests that wait for values that are on disk only.
    #[must_use]
    pub const fn parked_count(&self) -> usize {
        self.cold.parked_count
    }
}
