//! Names what a connection asks of the server around it: texts, settings, other connections, time.
//!
//! The connection decides when; the server, which has sockets and clocks, does.

use super::{commands::ClientFilter, reply::Protocol};

/// The version of Redis whose commands and replies are the model, for clients that ask.
pub const REDIS_VERSION: &str = "7.4.0";

/// The server as a connection sees it.
pub trait Environment {
    /// The time of this node, in microseconds since 1970.
    fn wall_micros(&self) -> u64;

    /// A drawn number. `RANDOMKEY`
    fn draw(&mut self) -> u64;

    /// What `INFO` says about these sections; none means the usual ones.
    fn info(&self, sections: &[&[u8]]) -> String;

    /// All settings that `CONFIG GET` may show, by name in lower case.
    fn settings(&self) -> Vec<(&'static str, String)>;

    /// Changes a setting until the next start.
    ///
    /// # Errors
    /// [`SettingError`] when there is no such setting or it cannot have this value.
    fn change_setting(&mut self, name: &str, value: &[u8]) -> Result<(), SettingError>;

    /// Sets the counters of `INFO` to zero. `CONFIG RESETSTAT`
    fn reset_statistics(&mut self);

    /// The connections of this node that are meant, in the order of their numbers.
    fn clients(&self, filter: &ClientFilter<'_>) -> Vec<ClientEntry>;

    /// Closes the connections of this node that are meant, but for the one numbered `spared`.
    fn kill(&mut self, filter: &ClientFilter<'_>, spared: Option<u64>) -> Killed;

    /// Which node this is.
    fn identity(&self) -> Identity;
}

/// Which node this is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The version of Antecede.
    pub version: &'static str,
    /// The datacenter's name.
    pub datacenter: String,
    /// The node's name, 40 digits of base 16 as clients of clusters expect it.
    pub node: String,
    /// Nodes of this datacenter.
    pub node_count: usize,
}

/// Why a setting was not changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingError {
    /// There is no such setting.
    #[error("there is no such setting")]
    Unknown,
    /// It is given at the start and stays.
    #[error("can't set immutable config")]
    Fixed,
    /// It cannot have this value.
    #[error("{reason}")]
    Unfit {
        /// What a fitting value is.
        reason: &'static str,
    },
}

/// How many connections were closed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Killed {
    /// All of them.
    pub count: usize,
    /// Whether the one that asked is among them; it is closed when it has its reply.
    pub is_caller_among: bool,
}

/// One connection, as `CLIENT LIST` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientEntry {
    /// Its number on this node.
    pub id: u64,
    /// The client's address.
    pub address: String,
    /// The address here.
    pub local_address: String,
    /// Seconds since it was opened.
    pub age_seconds: u64,
    /// Seconds since its last request.
    pub idle_seconds: u64,
    /// What the connection says of itself.
    pub state: ClientState,
}

/// What a connection says of itself to others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientState {
    /// The name it was given.
    pub name: String,
    /// The library that the client uses.
    pub library_name: String,
    /// The library's version.
    pub library_version: String,
    /// The version of the protocol.
    pub protocol: Protocol,
    /// Requests that are queued, inside `MULTI`.
    pub queued_count: Option<usize>,
    /// Keys that are watched.
    pub watched_count: usize,
    /// The command it sent last.
    pub last_command: &'static str,
}

impl ClientFilter<'_> {
    /// Whether a connection is meant.
    #[must_use]
    pub fn has(&self, id: u64, address: &str, local_address: &str) -> bool {
        let fits = |wanted: Option<&[u8]>, found: &str| {
            wanted.is_none_or(|wanted| wanted == found.as_bytes())
        };
        !self.is_empty
            && (self.ids.is_empty() || self.ids.contains(&id))
            && fits(self.address, address)
            && fits(self.local_address, local_address)
    }
}

impl ClientEntry {
    /// The line that `CLIENT LIST` shows.
    #[must_use]
    pub fn line(&self) -> String {
        let Self { id, address, local_address, age_seconds, idle_seconds, state } = self;
        let ClientState { name, library_name, library_version, protocol, .. } = state;
        let multi = state.queued_count.map_or_else(|| "-1".to_owned(), |count| count.to_string());
        let flags = if state.queued_count.is_some() { "x" } else { "N" };
        let (watched, last, version) = (state.watched_count, state.last_command, protocol.number());
        format!(
            "id={id} addr={address} laddr={local_address} fd=-1 name={name} age={age_seconds} \
             idle={idle_seconds} flags={flags} db=0 sub=0 psub=0 ssub=0 multi={multi} \
             watch={watched} events=r cmd={last} user=default redir=-1 resp={version} \
             lib-name={library_name} lib-ver={library_version}\n"
        )
    }
}
