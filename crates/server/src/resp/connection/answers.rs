//! Answers what does not concern keys: the handshake, the connection itself, the server.

use super::{
    super::{
        commands::{
            ClientCommand, ClientFilter, ConnectionCommand, FixedReply, Hello, describe,
            is_default_user,
        },
        environment::{ClientEntry, Environment, REDIS_VERSION, SettingError},
        glob,
        reply::{Protocol, Reply},
    },
    Connection,
};

const WRONG_PASSWORD: &[u8] = b"WRONGPASS invalid username-password pair or user is disabled.";
const NOT_INSIDE: &[u8] = b"ERR this command is not available inside MULTI";
const NO_PASSWORD: &[u8] = b"ERR AUTH <password> called without any password configured for the \
    default user. Are you sure your configuration is correct?";
const HELLO_FIRST: &[u8] = b"NOAUTH HELLO must be called with the client already authenticated, \
    otherwise the HELLO <proto> AUTH <user> <pass> option can be used to authenticate the client \
    and select the RESP protocol version at the same time";

impl Connection {
    /// Answers a command; `true` means that the connection is closed after that.
    pub(super) fn answer(
        &mut self,
        command: &ConnectionCommand<'_>,
        environment: &mut dyn Environment,
        reply: &mut Reply<'_>,
    ) -> bool {
        match command {
            ConnectionCommand::Ping(None) => reply.status("PONG"),
            ConnectionCommand::Ping(Some(text)) | ConnectionCommand::Echo(text) => reply.bulk(text),
            ConnectionCommand::Time => {
                let micros = environment.wall_micros();
                reply.array(2);
                reply.bulk((micros / 1_000_000).to_string().as_bytes());
                reply.bulk((micros % 1_000_000).to_string().as_bytes());
            }
            ConnectionCommand::Hello(hello) => self.on_hello(*hello, environment, reply),
            ConnectionCommand::Auth { user, password } => self.on_auth(*user, password, reply),
            ConnectionCommand::Client(command) => {
                return self.on_client(command, environment, reply);
            }
            ConnectionCommand::Describe(question) => describe::answer(question, reply),
            ConnectionCommand::Info { sections } => reply.verbatim(&environment.info(sections)),
            ConnectionCommand::ConfigGet { patterns } => {
                write_settings(patterns, environment, reply);
            }
            ConnectionCommand::ConfigSet { pairs } => change_settings(pairs, environment, reply),
            ConnectionCommand::ConfigResetStatistics => {
                environment.reset_statistics();
                reply.ok();
            }
            ConnectionCommand::ClusterInfo => {
                let nodes = environment.identity().node_count;
                reply.verbatim(&format!(
                    "cluster_enabled:0\r\ncluster_state:ok\r\ncluster_slots_assigned:16384\r\n\
                     cluster_known_nodes:{nodes}\r\ncluster_size:{nodes}\r\n"
                ));
            }
            ConnectionCommand::ClusterMyId => reply.bulk(environment.identity().node.as_bytes()),
            ConnectionCommand::AclList => {
                let password = if self.settings.password.is_some() { "" } else { "nopass " };
                let line = format!("user default on {password}~* &* +@all");
                reply.array(1);
                reply.bulk(line.as_bytes());
            }
            ConnectionCommand::Fixed(fixed) => write_fixed(*fixed, reply),
            ConnectionCommand::Help(command) => describe::write_help(command, reply),
            // Inside a transaction nothing is watched any more when this is reached.
            ConnectionCommand::Unwatch => reply.ok(),
            ConnectionCommand::Multi
            | ConnectionCommand::Exec(_)
            | ConnectionCommand::Discard
            | ConnectionCommand::Watch { .. }
            | ConnectionCommand::After { .. }
            | ConnectionCommand::Reset
            | ConnectionCommand::Quit => {
                // These change the connection: the table keeps them out of transactions.
                reply.error(NOT_INSIDE);
            }
        }
        false
    }

    fn on_hello(
        &mut self,
        hello: Hello<'_>,
        environment: &mut dyn Environment,
        reply: &mut Reply<'_>,
    ) {
        if let Some((user, password)) = hello.credentials {
            if !self.try_password(user, password) {
                return reply.error(WRONG_PASSWORD);
            }
        } else if !self.is_authenticated {
            return reply.error(HELLO_FIRST);
        }
        if let Some(name) = hello.name {
            self.name = String::from_utf8_lossy(name).into_owned();
        }
        match hello.version {
            Some(3) => self.protocol = Protocol::Three,
            Some(_) => self.protocol = Protocol::Two,
            None => {}
        }
        let identity = environment.identity();
        reply.speak(self.protocol);
        reply.map(9);
        for (field, text) in [
            ("server", "redis"),
            ("version", REDIS_VERSION),
            ("mode", "standalone"),
            ("role", "master"),
            ("antecede_version", identity.version),
            ("availability_zone", &identity.datacenter),
        ] {
            reply.bulk(field.as_bytes());
            reply.bulk(text.as_bytes());
        }
        reply.bulk(b"proto");
        reply.integer(self.protocol.number());
        reply.bulk(b"id");
        reply.integer(i64::try_from(self.id).unwrap_or(i64::MAX));
        reply.bulk(b"modules");
        reply.array(0);
    }

    fn on_auth(&mut self, user: Option<&[u8]>, password: &[u8], reply: &mut Reply<'_>) {
        if user.is_none() && self.settings.password.is_none() {
            return reply.error(NO_PASSWORD);
        }
        if self.try_password(user.unwrap_or(b"default"), password) {
            reply.ok();
        } else {
            reply.error(WRONG_PASSWORD);
        }
    }

    fn try_password(&mut self, user: &[u8], password: &[u8]) -> bool {
        let is_right = self.settings.password.as_ref().is_none_or(|own| own.is(password));
        if is_right & is_default_user(user) {
            self.is_authenticated = true;
            self.limits.is_unauthenticated = false;
            return true;
        }
        false
    }

    fn on_client(
        &mut self,
        command: &ClientCommand<'_>,
        environment: &mut dyn Environment,
        reply: &mut Reply<'_>,
    ) -> bool {
        match command {
            ClientCommand::Id => reply.integer(i64::try_from(self.id).unwrap_or(i64::MAX)),
            ClientCommand::Name if self.name.is_empty() => reply.nil(),
            ClientCommand::Name => reply.bulk(self.name.as_bytes()),
            ClientCommand::SetName(name) => {
                self.name = String::from_utf8_lossy(name).into_owned();
                reply.ok();
            }
            ClientCommand::SetLibraryName(name) => {
                self.library_name = String::from_utf8_lossy(name).into_owned();
                reply.ok();
            }
            ClientCommand::SetLibraryVersion(version) => {
                self.library_version = String::from_utf8_lossy(version).into_owned();
                reply.ok();
            }
            ClientCommand::Info => {
                let only_me = ClientFilter { ids: vec![self.id], ..ClientFilter::default() };
                reply.verbatim(&self.lines(&only_me, environment));
            }
            ClientCommand::List(filter) => reply.verbatim(&self.lines(filter, environment)),
            ClientCommand::Kill { filter, skip_me, is_old_form } => {
                let killed = environment.kill(filter, skip_me.then_some(self.id));
                if !*is_old_form {
                    reply.integer(i64::try_from(killed.count).unwrap_or(i64::MAX));
                } else if killed.count == 0 {
                    reply.error(b"ERR No such client");
                } else {
                    reply.ok();
                }
                return killed.is_caller_among;
            }
            ClientCommand::Reply(_) => reply.error(NOT_INSIDE),
        }
        false
    }

    /// The lines of the connections that are meant; of this one as it is at this moment.
    fn lines(&self, filter: &ClientFilter<'_>, environment: &dyn Environment) -> String {
        let entries = environment.clients(filter).into_iter();
        entries
            .map(|entry| {
                let is_me = entry.id == self.id;
                let state = if is_me { self.state() } else { entry.state };
                ClientEntry { state, ..entry }.line()
            })
            .collect()
    }
}

fn write_settings(patterns: &[&[u8]], environment: &dyn Environment, reply: &mut Reply<'_>) {
    let is_wanted = |name: &str| {
        patterns.iter().any(|pattern| glob::matches_any_case(pattern, name.as_bytes()))
    };
    let mut settings = environment.settings();
    settings.retain(|(name, _)| is_wanted(name));
    reply.map(settings.len());
    for (name, value) in settings {
        reply.bulk(name.as_bytes());
        reply.bulk(value.as_bytes());
    }
}

fn change_settings(
    pairs: &[(&[u8], &[u8])],
    environment: &mut dyn Environment,
    reply: &mut Reply<'_>,
) {
    for (place, (name, value)) in pairs.iter().enumerate() {
        let shown = String::from_utf8_lossy(name).to_ascii_lowercase();
        let is_repeated = pairs[..place].iter().any(|(other, _)| other.eq_ignore_ascii_case(name));
        let changed = if is_repeated {
            Err(SettingError::Unfit { reason: "duplicate parameter" })
        } else {
            environment.change_setting(&shown, value)
        };
        let given = String::from_utf8_lossy(name);
        let line = match changed {
            Ok(()) => continue,
            Err(SettingError::Unknown) => {
                format!("ERR Unknown option or number of arguments for CONFIG SET - '{given}'")
            }
            Err(error @ (SettingError::Fixed | SettingError::Unfit { .. })) => {
                format!("ERR CONFIG SET failed (possibly related to argument '{given}') - {error}")
            }
        };
        return reply.error(line.as_bytes());
    }
    reply.ok();
}

fn write_fixed(fixed: FixedReply, reply: &mut Reply<'_>) {
    match fixed {
        FixedReply::Ok => reply.ok(),
        FixedReply::Integer(value) => reply.integer(value),
        FixedReply::Bulk(text) => reply.bulk(text.as_bytes()),
        FixedReply::EmptyArray => reply.array(0),
        FixedReply::EmptyMap => reply.map(0),
        FixedReply::Users => {
            reply.array(1);
            reply.bulk(b"default");
        }
        FixedReply::NothingScanned => {
            reply.array(2);
            reply.bulk(b"0");
            reply.array(0);
        }
        FixedReply::NotTracking => {
            reply.map(3);
            reply.bulk(b"flags");
            reply.set(1);
            reply.bulk(b"off");
            reply.bulk(b"redirect");
            reply.integer(-1);
            reply.bulk(b"prefixes");
            reply.array(0);
        }
    }
}
