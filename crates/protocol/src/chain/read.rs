//! Answers reads at any replica: clean keys at once, dirty ones by the tail's word.
//!
//! A key is clean when its newest entry is committed. Of a dirty key the replica does not know
//! which state is committed; it asks the tail, which answers with a log position, and shows at
//! least that (CRAQ section 2.3; the answer is a lower bound, as the versions below may be gone by then).
//! Reads that arrive while a question is out wait for the next one.
//!
//! An expired key that is not hidden yet is hidden first, by the head: two replicas with different
//! clocks must not disagree on whether a key is there (PITFALLS B34).

use std::mem;

use antecede_model::{
    clock::Steady,
    codec::{Reader, Writer},
    consistency::Consistency,
    ids::{NodeId, Position, RequestId},
    operation::ShardOperation,
    refusal::Refusal,
};

use super::{RETRY_AFTER, Shard, after};
use crate::{
    machine::{Here, Outputs, Storage},
    message::{Body, Carried, LocalRequest, Reply},
    mutation::Mutation,
    state,
};

/// A read of a dirty key.
#[derive(Debug)]
struct WaitingRead {
    id: RequestId,
    /// The operation's bytes.
    operation: Vec<u8>,
    carried: Carried,
}

/// Reads that wait for the tail's word.
#[derive(Debug, Default)]
pub(super) struct Reads {
    /// Counts questions.
    number: u64,
    /// The reads that the question under way is for.
    asked: Vec<WaitingRead>,
    /// The reads that came since.
    next: Vec<WaitingRead>,
    /// When to ask again.
    again_at: Option<Steady>,
}

impl Shard {
    pub(super) fn read(
        &mut self,
        here: &Here,
        id: RequestId,
        operation: &ShardOperation<'_>,
        carried: &Carried,
        (storage, out): (&mut dyn Storage, &mut Outputs),
    ) {
        let may_show = self.neighbours.is_tail()
            || carried.level == Consistency::Eventual
            || !self.is_any_dirty(operation);
        if may_show {
            self.show(here, (id, operation, carried), self.committed_to, storage, out);
        } else if self.options.mutations.has(Mutation::DirtyReadsAtTheMiddle) {
            self.show(here, (id, operation, carried), self.window.end(), storage, out);
        } else {
            let mut bytes = Vec::new();
            operation.write(&mut Writer::new(&mut bytes));
            self.reads.next.push(WaitingRead { id, operation: bytes, carried: carried.clone() });
            self.ask_if_free(here, out);
        }
    }

    /// Answers a read with the states at a position.
    fn show(
        &mut self,
        here: &Here,
        (id, operation, carried): (RequestId, &ShardOperation<'_>, &Carried),
        at: Position,
        storage: &mut dyn Storage,
        out: &mut Outputs,
    ) {
        let wall = here.now.wall.millis();
        let shown = match state::read(&self.keys, operation, at, wall) {
            Ok(shown) => shown,
            Err(lacking) => {
                let request = LocalRequest { id, operation, carried, retry: None };
                return self.park(&request, &lacking, out);
            }
        };
        if !shown.needs_hide {
            out.reply(id, self.reply_of(shown));
        } else if self.neighbours.is_head() {
            self.evaluate_at_head(here, (id, None), operation, carried, (storage, out));
        } else {
            self.hand_to_head(id, operation, carried, out);
        }
    }

    /// The reply to a read that was answered here.
    fn reply_of(&self, shown: state::Shown) -> Reply {
        Reply {
            response: shown.response,
            wrote: None,
            observed: shown.observed,
            shard: self.shard,
            visible_at: shown.visible_at,
        }
    }

    /// Numbers of questions are far from those of other runs: an answer to one of theirs is old.
    pub(super) fn number_questions_from(&mut self, boot: antecede_model::ids::Boot) {
        const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
        self.reads.number = boot.0.wrapping_mul(SPREAD);
    }

    fn ask_if_free(&mut self, here: &Here, out: &mut Outputs) {
        if self.reads.asked.is_empty() && !self.reads.next.is_empty() {
            self.reads.asked = mem::take(&mut self.reads.next);
            self.ask(here, out);
        }
    }

    fn ask(&mut self, here: &Here, out: &mut Outputs) {
        let Some(tail) = self.tail() else { return };
        self.reads.number = self.reads.number.wrapping_add(1);
        out.early(tail, self.message(Body::Question { number: self.reads.number }));
        let at = after(here.now.steady, RETRY_AFTER);
        self.reads.again_at = Some(at);
        self.arm(at, out);
    }

    pub(super) fn on_question(&self, from: NodeId, number: u64, out: &mut Outputs) {
        if !self.neighbours.is_tail() || !self.is_settled() {
            return; // The asker asks again.
        }
        let committed_to = self.committed_to;
        out.early(from, self.message(Body::Answer { number, committed_to }));
    }

    pub(super) fn on_answer(
        &mut self,
        here: &Here,
        number: u64,
        committed_to: Position,
        out: &mut Outputs,
    ) {
        if number != self.reads.number || self.window.end() < committed_to {
            return;
        }
        for read in mem::take(&mut self.reads.asked) {
            if !self.may_answer(here) {
                self.refuse(read.id, Refusal::NoLease { shard: self.shard }, out);
                continue;
            }
            let operation = ShardOperation::read(&mut Reader::new(&read.operation))
                .expect("these bytes were written here");
            let wall = here.now.wall.millis();
            let shown = match state::read(&self.keys, &operation, committed_to, wall) {
                Ok(shown) => shown,
                Err(lacking) => {
                    let (id, carried) = (read.id, &read.carried);
                    let request = LocalRequest { id, operation: &operation, carried, retry: None };
                    self.park(&request, &lacking, out);
                    continue;
                }
            };
            if shown.needs_hide {
                self.hand_to_head(read.id, &operation, &read.carried, out);
                continue;
            }
            out.reply(read.id, self.reply_of(shown));
        }
        self.reads.again_at = None;
        self.ask_if_free(here, out);
    }

    pub(super) fn ask_again_when_due(&mut self, here: &Here, out: &mut Outputs) {
        let Some(due) = self.reads.again_at else { return };
        if here.now.steady < due {
            self.arm(due, out);
        } else if self.reads.asked.is_empty() {
            self.reads.again_at = None;
        } else {
            self.ask(here, out);
        }
    }

    /// Nobody waits for a replica that serves no more.
    pub(super) fn give_up_reads(&mut self, out: &mut Outputs) {
        let (asked, next) = (mem::take(&mut self.reads.asked), mem::take(&mut self.reads.next));
        for read in asked.into_iter().chain(next) {
            self.refuse(read.id, Refusal::Unreachable { shard: self.shard }, out);
        }
    }

    /// In a new epoch the tail may be another node: the question under way is asked again.
    pub(super) fn ask_anew(&mut self) {
        if !self.reads.asked.is_empty() {
            self.reads.again_at = Some(Steady::default());
        }
    }
}
