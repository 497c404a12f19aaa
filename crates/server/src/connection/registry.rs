//! The client connections of a node, for those who list or end them, and the counts of `INFO`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use antecede_model::{clock::Steady, ids::SessionId};
use parking_lot::Mutex;

use crate::resp::environment::ClientState;

/// What others may know of one connection.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) session: SessionId,
    pub(crate) address: SocketAddr,
    pub(crate) local_address: SocketAddr,
    pub(crate) opened: Steady,
    told: Mutex<Told>,
}

#[derive(Clone, Debug)]
struct Told {
    state: ClientState,
    last_active: Steady,
}

impl Client {
    pub(crate) fn new(
        session: SessionId,
        (address, local_address): (SocketAddr, SocketAddr),
        opened: Steady,
        state: ClientState,
    ) -> Self {
        let told = Mutex::new(Told { state, last_active: opened });
        Self { session, address, local_address, opened, told }
    }

    /// Takes over what the connection says of itself.
    pub(crate) fn tell(&self, state: ClientState, now: Steady) {
        *self.told.lock() = Told { state, last_active: now };
    }

    /// What it said last, and when it was last active, about.
    pub(crate) fn told(&self) -> (ClientState, Steady) {
        let told = self.told.lock();
        (told.state.clone(), told.last_active)
    }
}

/// All client connections of a node, and what was counted since the start.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    clients: Mutex<BTreeMap<u64, Arc<Client>>>,
    numbers: AtomicU64,
    /// Since the last `CONFIG RESETSTAT`.
    pub(crate) connections: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) commands: AtomicU64,
    pub(crate) read_bytes: AtomicU64,
    pub(crate) written_bytes: AtomicU64,
}

impl Registry {
    /// The number of the next connection.
    pub(crate) fn next_number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Adds a connection, unless there are `limit` already.
    pub(crate) fn add(&self, number: u64, client: Arc<Client>, limit: usize) -> bool {
        let mut clients = self.clients.lock();
        if limit <= clients.len() {
            drop(clients);
            self.refused.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        clients.insert(number, client);
        drop(clients);
        self.connections.fetch_add(1, Ordering::Relaxed);
        true
    }

    pub(crate) fn remove(&self, number: u64) {
        self.clients.lock().remove(&number);
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.clients.lock().len()
    }

    /// All of them in the order of their numbers.
    pub(crate) fn all(&self) -> Vec<(u64, Arc<Client>)> {
        let clients = self.clients.lock();
        clients.iter().map(|(number, client)| (*number, Arc::clone(client))).collect()
    }

    /// Counts from zero again.
    pub(crate) fn reset(&self) {
        for counter in [
            &self.connections,
            &self.refused,
            &self.commands,
            &self.read_bytes,
            &self.written_bytes,
        ] {
            counter.store(0, Ordering::Relaxed);
        }
    }
}
