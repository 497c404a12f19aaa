//! Mailboxes of client connections: replies and news that come from other tasks.
//!
//! A session's id holds the place of its mailbox in a table, and a count that makes it unique, so
//! that a reply for a session that is gone finds nobody.
//!
//! Ensures: whoever puts something into an empty mailbox wakes its owner.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use antecede_model::{
    clock::Wall,
    ids::{NodeId, RequestId, SessionId},
};
use antecede_protocol::message::Reply;
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

/// Bits of a session's id that name the place of its mailbox.
const PLACE_BITS: u32 = 17;
/// Places there are; beyond, no session can be added.
const PLACES_MAX: usize = 1 << PLACE_BITS;

/// What other tasks have left for a connection.
#[derive(Debug, Default)]
pub(crate) struct Mail {
    /// Answers of shards.
    pub(crate) replies: Vec<(RequestId, Reply)>,
    /// Nodes whose link was lost.
    pub(crate) lost: Vec<NodeId>,
    /// The cuts have moved while the session waited.
    pub(crate) is_poked: bool,
    /// The connection must end.
    pub(crate) is_killed: bool,
}

impl Mail {
    /// Whether nothing was left.
    pub(crate) const fn is_empty(&self) -> bool {
        self.replies.is_empty() && self.lost.is_empty() && !self.is_poked && !self.is_killed
    }
}

/// The mailbox of one connection.
#[derive(Debug, Default)]
pub(crate) struct Mailbox {
    mail: Mutex<Mail>,
    notify: Notify,
    /// Whether the session waits for something or may begin to, so that news of cuts and links
    /// concern it.
    is_waiting: AtomicBool,
}

impl Mailbox {
    /// Takes everything; `into` is empty before.
    pub(crate) fn take(&self, into: &mut Mail) {
        // What is put back would wake nobody.
        debug_assert!(into.is_empty(), "mail that was taken before is still unread");
        std::mem::swap(&mut *self.mail.lock(), into);
    }

    /// Waits until something was put in since the last time.
    pub(crate) async fn arrival(&self) {
        self.notify.notified().await;
    }

    /// Says whether the session waits for something; before it hands anything to a link.
    pub(crate) fn set_waiting(&self, is_waiting: bool) {
        self.is_waiting.store(is_waiting, Ordering::Release);
    }

    /// Makes the connection end.
    pub(crate) fn kill(&self) {
        self.put(|mail| mail.is_killed = true);
    }

    fn put(&self, put: impl FnOnce(&mut Mail)) {
        let was_empty = {
            let mut mail = self.mail.lock();
            let was_empty = mail.is_empty();
            put(&mut mail);
            was_empty
        };
        if was_empty {
            self.notify.notify_one();
        }
    }
}

/// All sessions of a node.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    table: RwLock<Table>,
    count: AtomicU64,
}

#[derive(Debug, Default)]
struct Table {
    places: Vec<Option<(SessionId, Arc<Mailbox>)>>,
    free: Vec<usize>,
}

impl Sessions {
    /// No sessions yet; ids begin above those of every earlier run, so that a late reply to one of
    /// them finds nobody.
    pub(crate) fn starting_at(wall: Wall) -> Self {
        Self { table: RwLock::default(), count: AtomicU64::new(wall.millis()) }
    }

    /// Adds a session; `None` when there are too many.
    pub(crate) fn add(&self) -> Option<(SessionId, Arc<Mailbox>)> {
        let mut table = self.table.write();
        let place = match table.free.pop() {
            Some(place) => place,
            None if table.places.len() < PLACES_MAX => {
                table.places.push(None);
                table.places.len() - 1
            }
            None => return None,
        };
        let count = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        let id = SessionId((count << PLACE_BITS) | place as u64);
        let mailbox = Arc::<Mailbox>::default();
        if let Some(found) = table.places.get_mut(place) {
            *found = Some((id, Arc::clone(&mailbox)));
        }
        Some((id, mailbox))
    }

    /// Removes a session.
    pub(crate) fn remove(&self, id: SessionId) {
        let mut table = self.table.write();
        let place = place_of(id);
        if let Some(found) = table.places.get_mut(place)
            && found.take_if(|(found, _)| *found == id).is_some()
        {
            table.free.push(place);
        }
    }

    /// Puts replies into the mailboxes of those who asked; replies to nobody are dropped.
    pub(crate) fn deliver(&self, replies: &mut Vec<(RequestId, Reply)>) {
        if replies.is_empty() {
            return;
        }
        let table = self.table.read();
        for (request, reply) in replies.drain(..) {
            if let Some(Some((id, mailbox))) = table.places.get(place_of(request.session))
                && *id == request.session
            {
                mailbox.put(|mail| mail.replies.push((request, reply)));
            }
        }
    }

    /// Tells everyone that a link was lost.
    pub(crate) fn link_lost(&self, node: NodeId) {
        self.each(|mailbox| mailbox.put(|mail| mail.lost.push(node)));
    }

    /// Tells everyone who waits that the cuts have moved.
    pub(crate) fn poke(&self) {
        self.each(|mailbox| mailbox.put(|mail| mail.is_poked = true));
    }

    /// Ends a session's connection; whether there is one.
    pub(crate) fn kill(&self, session: SessionId) -> bool {
        let table = self.table.read();
        match table.places.get(place_of(session)) {
            Some(Some((id, mailbox))) if *id == session => {
                mailbox.kill();
                true
            }
            Some(_) | None => false,
        }
    }

    /// Ends the connections that wait for nothing.
    pub(crate) fn kill_idle(&self) {
        let table = self.table.read();
        for (_, mailbox) in table.places.iter().flatten() {
            if !mailbox.is_waiting.load(Ordering::Acquire) {
                mailbox.kill();
            }
        }
    }

    /// Ends every connection.
    pub(crate) fn kill_all(&self) {
        let table = self.table.read();
        for (_, mailbox) in table.places.iter().flatten() {
            mailbox.kill();
        }
    }

    fn each(&self, tell: impl Fn(&Mailbox)) {
        let table = self.table.read();
        for (_, mailbox) in table.places.iter().flatten() {
            if mailbox.is_waiting.load(Ordering::Acquire) {
                tell(mailbox);
            }
        }
    }
}

fn place_of(id: SessionId) -> usize {
    usize::try_from(id.0).unwrap_or(usize::MAX) & (PLACES_MAX - 1)
}

#[cfg(test)]
mod tests {
    use antecede_model::{
        clock::Timestamp,
        ids::{DatacenterId, ShardId},
        response::Response,
    };

    use super::*;

    const NODE: NodeId = NodeId { datacenter: DatacenterId(1), number: 1 };

    fn reply(session: SessionId) -> (RequestId, Reply) {
        let reply = Reply {
            response: Response::Ok,
            wrote: None,
            observed: smallvec::SmallVec::new(),
            shard: ShardId(0),
            visible_at: Timestamp::ZERO,
        };
        (RequestId { node: NODE, session, number: 1 }, reply)
    }

    #[test]
    fn a_reply_for_a_session_that_is_gone_does_not_reach_the_next_one_in_its_place() {
        let sessions = Sessions::default();
        let (first, _) = sessions.add().unwrap();
        sessions.remove(first);
        let (second, mailbox) = sessions.add().unwrap();
        assert_eq!(place_of(first), place_of(second));
        sessions.deliver(&mut vec![reply(first)]);
        let mut mail = Mail::default();
        mailbox.take(&mut mail);
        assert!(mail.is_empty());
        sessions.deliver(&mut vec![reply(second)]);
        mailbox.take(&mut mail);
        assert_eq!(mail.replies.len(), 1);
    }

    #[test]
    fn news_reach_only_those_who_wait_and_a_kill_reaches_all() {
        let sessions = Sessions::default();
        let (_, idle) = sessions.add().unwrap();
        let (id, waiting) = sessions.add().unwrap();
        waiting.set_waiting(true);
        sessions.poke();
        sessions.link_lost(NODE);
        let mut mail = Mail::default();
        idle.take(&mut mail);
        assert!(mail.is_empty());
        waiting.take(&mut mail);
        assert!(mail.is_poked && mail.lost == vec![NODE]);
        assert!(sessions.kill(id));
        let mut mail = Mail::default();
        waiting.take(&mut mail);
        assert!(mail.is_killed);
    }

    #[tokio::test]
    async fn what_is_put_before_anybody_waits_is_not_missed() {
        let sessions = Sessions::default();
        let (id, mailbox) = sessions.add().unwrap();
        sessions.deliver(&mut vec![reply(id), reply(id)]);
        mailbox.arrival().await;
        let mut mail = Mail::default();
        mailbox.take(&mut mail);
        assert_eq!(mail.replies.len(), 2);
    }
}
