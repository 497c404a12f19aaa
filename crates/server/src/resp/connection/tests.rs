//! Checks what a connection answers itself, what it lets pass, and the handshakes of clients.
//!
//! `handshakes/*.txt` hold what clients send when they connect (`>`, words as an array of bulk
//! strings) and what they must be told (`<`).

use antecede_model::{operation::Operation, refusal::Refusal};

use super::*;
use crate::resp::{
    commands::ClientFilter,
    environment::{ClientEntry, Identity, Killed, SettingError},
    frame::{Arguments, FrameParser},
};

/// A server with one other connection and one setting.
#[derive(Default)]
struct Server {
    maxmemory: String,
    was_reset: bool,
}

impl Environment for Server {
    fn wall_micros(&self) -> u64 {
        1_700_000_000_000_042
    }

    fn draw(&mut self) -> u64 {
        77
    }

    fn info(&self, sections: &[&[u8]]) -> String {
        format!("# Server\r\nsections:{}\r\n", sections.len())
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        vec![("databases", "1".to_owned()), ("maxmemory", self.maxmemory.clone())]
    }

    fn change_setting(&mut self, name: &str, value: &[u8]) -> Result<(), SettingError> {
        match name {
            "maxmemory" if value.iter().all(u8::is_ascii_digit) => {
                self.maxmemory = String::from_utf8_lossy(value).into_owned();
                Ok(())
            }
            "maxmemory" => Err(SettingError::Unfit { reason: "argument must be a memory value" }),
            "databases" => Err(SettingError::Fixed),
            _ => Err(SettingError::Unknown),
        }
    }

    fn reset_statistics(&mut self) {
        self.was_reset = true;
    }

    fn clients(&self, filter: &ClientFilter<'_>) -> Vec<ClientEntry> {
        let entry = |id: u64| ClientEntry {
            id,
            address: format!("127.0.0.1:{id}"),
            local_address: "127.0.0.1:6379".to_owned(),
            age_seconds: 3,
            idle_seconds: 1,
            state: Connection::new(id, settings(None)).state(),
        };
        let mut entries = vec![entry(5), entry(6)];
        entries.retain(|entry| filter.has(entry.id, &entry.address, &entry.local_address));
        entries
    }

    fn kill(&mut self, filter: &ClientFilter<'_>, spared: Option<u64>) -> Killed {
        let mut killed = self.clients(filter);
        killed.retain(|entry| Some(entry.id) != spared);
        let is_caller_among = killed.iter().any(|entry| entry.id == 5);
        Killed { count: killed.len(), is_caller_among }
    }

    fn identity(&self) -> Identity {
        Identity {
            version: "0.1.0",
            datacenter: "north".to_owned(),
            node: "0".repeat(40),
            node_count: 3,
        }
    }
}

fn settings(password: Option<&str>) -> Arc<Settings> {
    let password = password.map(|password| Password::new(password.as_bytes()).unwrap());
    Arc::new(Settings { password, limits: Limits::default() })
}

/// A client, its connection and a session that answers `OK` to everything.
struct Client {
    connection: Connection,
    server: Server,
    replies: Replies,
    asked: Vec<String>,
}

impl Client {
    fn new(password: Option<&str>) -> Self {
        Self {
            connection: Connection::new(5, settings(password)),
            server: Server::default(),
            replies: Replies::default(),
            asked: Vec::new(),
        }
    }

    /// Sends a line of words; what comes back at once, with the session's answers in place.
    fn send(&mut self, line: &str) -> String {
        let words: Vec<_> = line.split(' ').map(str::as_bytes).collect();
        self.send_words(&words)
    }

    fn send_words(&mut self, words: &[&[u8]]) -> String {
        let Self { connection, server, replies, asked } = self;
        let mut is_closed = false;
        match connection.handle(words, 1000, server, replies) {
            Outcome::Answered => {}
            Outcome::Ask(command) => {
                asked.push(format!("{command:?}"));
                replies.on_response(&Response::Ok);
            }
            Outcome::Execute(queue) => {
                if let Some(command) = connection.execute(&queue, 1000, server, replies) {
                    let inner = if let Command::Retried { command, .. } = &command {
                        command
                    } else {
                        &command
                    };
                    let Command::Transaction { operations } = inner else {
                        panic!("{command:?}");
                    };
                    asked.push(format!("{command:?}"));
                    replies.on_response(&Response::List(vec![Response::Ok; operations.len()]));
                }
            }
            Outcome::After { token, timeout_millis } => {
                asked.push(format!("after {} {timeout_millis:?}", token.escape_ascii()));
                connection.expect(Shape::Plain, replies);
                replies.on_response(&Response::Ok);
            }
            Outcome::Reset => {
                for command in RESET_COMMANDS {
                    asked.push(format!("{command:?}"));
                    replies.on_response(&Response::Ok);
                }
            }
            Outcome::Close => is_closed = true,
        }
        assert_eq!(replies.missing_count(), 0, "every answer was awaited");
        let mut sent = String::from_utf8(std::mem::take(replies.ready())).unwrap();
        if is_closed {
            sent.push_str("<closed>");
        }
        sent
    }

    fn check(&mut self, dialogue: &[(&str, &str)]) {
        for (line, expected) in dialogue {
            assert_eq!(self.send(line), *expected, "{line}");
        }
    }
}

#[test]
fn a_transaction_may_have_a_request_id() {
    let mut client = Client::new(None);
    client.check(&[
        ("CAUSAL.DO ID eu.app:5 EXEC", "-ERR EXEC without MULTI\r\n"),
        ("MULTI", "+OK\r\n"),
        ("SET a 1", "+QUEUED\r\n"),
        ("CAUSAL.DO ID eu.app:5 EXEC", "*1\r\n+OK\r\n"),
        ("MULTI", "+OK\r\n"),
        ("SET a 2", "+QUEUED\r\n"),
        ("CAUSAL.DO ID eu.app:5 exec", "*1\r\n+OK\r\n"),
        ("MULTI", "+OK\r\n"),
    ]);
    let refused = client.send("CAUSAL.DO ID eu.app:6 SET a 1");
    assert!(refused.starts_with("-ERR CAUSAL.DO is not available inside MULTI"), "{refused}");
    let [first, second] = client.asked.try_into().unwrap();
    assert!(first.contains(r#"datacenter: "eu", client: "app", number: 5"#), "{first}");
    let words =
        |asked: &str| asked.split("words: ").nth(1).unwrap().split(',').next().unwrap().to_owned();
    assert_ne!(words(&first), words(&second), "other commands were queued");
}

#[test]
fn a_transaction_is_queued_and_executed_in_one() {
    let mut client = Client::new(None);
    client.check(&[
        ("WATCH a b", "+OK\r\n"),
        ("MULTI", "+OK\r\n"),
        ("SET a 1 EX 5", "+QUEUED\r\n"),
        ("PING", "+QUEUED\r\n"),
        ("MGET a b", "+QUEUED\r\n"),
        ("SET a b EX 0", "+QUEUED\r\n"),
        ("UNWATCH", "+QUEUED\r\n"),
        (
            "EXEC",
            "*5\r\n+OK\r\n+PONG\r\n*2\r\n+OK\r\n+OK\r\n\
             -ERR invalid expire time in 'set' command\r\n+OK\r\n",
        ),
        ("EXEC", "-ERR EXEC without MULTI\r\n"),
    ]);
    assert_eq!(client.asked.len(), 2);
    let until = "Until(6000)";
    assert!(client.asked[1].contains(until), "the time to live counts from EXEC");
}

#[test]
fn a_refused_request_breaks_the_transaction() {
    let aborted = "-EXECABORT Transaction discarded because of previous errors.\r\n";
    let mut client = Client::new(None);
    client.check(&[
        ("MULTI", "+OK\r\n"),
        ("GET", "-ERR wrong number of arguments for 'get' command\r\n"),
        ("SET a b", "+QUEUED\r\n"),
        ("EXEC", aborted),
        ("WATCH a", "+OK\r\n"),
        ("MULTI", "+OK\r\n"),
        ("FOO", "-ERR unknown command 'FOO', with args beginning with: \r\n"),
        ("EXEC", aborted),
        ("MULTI", "+OK\r\n"),
        ("MULTI", "-ERR MULTI calls can not be nested\r\n"),
        ("WATCH a", "-ERR WATCH inside MULTI is not allowed\r\n"),
        ("SET a b", "+QUEUED\r\n"),
        ("EXEC", "*1\r\n+OK\r\n"),
        ("MULTI", "+OK\r\n"),
        (
            "EXEC now",
            "-EXECABORT Transaction discarded because of: wrong number of arguments for 'exec' \
             command\r\n",
        ),
        ("EXEC", "-ERR EXEC without MULTI\r\n"),
        (
            "EXEC now",
            "-EXECABORT Transaction discarded because of: wrong number of arguments for 'exec' \
             command\r\n",
        ),
        ("MULTI", "+OK\r\n"),
        (
            "KEYS a",
            "-ERR KEYS is not available inside MULTI: a transaction lies in one shard, and it \
             concerns all of them\r\n",
        ),
        ("DISCARD", "+OK\r\n"),
        ("DISCARD", "-ERR DISCARD without MULTI\r\n"),
    ]);
    let unwatched = client.asked.iter().filter(|asked| *asked == "Unwatch").count();
    assert_eq!(unwatched, 2, "a broken EXEC and DISCARD both forget what was watched");
}

#[test]
fn a_transaction_without_operations_asks_the_session_only_if_keys_are_watched() {
    let mut client = Client::new(None);
    client.check(&[("MULTI", "+OK\r\n"), ("PING", "+QUEUED\r\n"), ("EXEC", "*1\r\n+PONG\r\n")]);
    client.check(&[("MULTI", "+OK\r\n"), ("EXEC", "*0\r\n")]);
    assert_eq!(client.asked.len(), 0);
    client.check(&[("WATCH k", "+OK\r\n"), ("MULTI", "+OK\r\n"), ("EXEC", "*0\r\n")]);
    assert_eq!(client.asked[1], "Transaction { operations: [] }");
}

#[test]
fn only_a_few_commands_are_served_before_authentication() {
    let mut client = Client::new(Some("secret"));
    assert!(client.connection.limits().is_unauthenticated);
    let no = "-NOAUTH Authentication required.\r\n";
    let wrong = "-WRONGPASS invalid username-password pair or user is disabled.\r\n";
    client.check(&[
        ("GET k", no),
        ("PING", no),
        ("COMMAND", no),
        ("GET", "-ERR wrong number of arguments for 'get' command\r\n"),
        ("AUTH wrong", wrong),
        ("AUTH other secret", wrong),
        ("HELLO 3 AUTH default wrong", wrong),
        ("PING", no),
        ("AUTH secret", "+OK\r\n"),
        ("PING", "+PONG\r\n"),
    ]);
    assert!(client.send("HELLO 3").starts_with("%9\r\n$6\r\nserver\r\n$5\r\nredis\r\n"));
    assert!(!client.connection.limits().is_unauthenticated);
    client.check(&[("RESET", "+RESET\r\n"), ("PING", no)]);
    assert!(client.connection.limits().is_unauthenticated);
    assert!(client.send("HELLO 2").starts_with("-NOAUTH HELLO must be called with the client"));
    assert!(client.send("HELLO 3 AUTH default secret SETNAME me").starts_with("%9"));
    client.check(&[("CLIENT GETNAME", "$2\r\nme\r\n"), ("QUIT", "+OK\r\n<closed>")]);
}

#[test]
fn without_a_password_everybody_is_let_in() {
    Client::new(None).check(&[
        (
            "AUTH x",
            "-ERR AUTH <password> called without any password configured for the default user. \
             Are you sure your configuration is correct?\r\n",
        ),
        ("AUTH default x", "+OK\r\n"),
        ("AUTH other x", "-WRONGPASS invalid username-password pair or user is disabled.\r\n"),
        ("AUTH a b c", "-ERR syntax error\r\n"),
    ]);
}

#[test]
fn a_reset_makes_the_connection_new_and_the_session_with_it() {
    let mut client = Client::new(None);
    client.send("HELLO 3 SETNAME me");
    client.send("MULTI");
    client.check(&[("RESET", "+RESET\r\n"), ("CLIENT GETNAME", "$-1\r\n"), ("PING", "+PONG\r\n")]);
    assert_eq!(client.asked, ["Unwatch", "Level(Some(Linearizable))", "Reset"]);
    assert_eq!(client.connection.protocol(), Protocol::Two);
}

#[test]
fn replies_are_switched_off_and_on() {
    Client::new(None).check(&[
        ("CLIENT REPLY SKIP", ""),
        ("PING", ""),
        ("PING", "+PONG\r\n"),
        ("CLIENT REPLY SKIP", ""),
        ("SET k v", ""),
        ("GET", "-ERR wrong number of arguments for 'get' command\r\n"),
        ("CLIENT REPLY OFF", ""),
        ("CLIENT REPLY SKIP", ""),
        ("PING", ""),
        ("SET k v", ""),
        ("GET", ""),
        ("CLIENT REPLY ON", "+OK\r\n"),
        ("CLIENT REPLY x", "-ERR syntax error\r\n"),
        ("SET k v", "+OK\r\n"),
    ]);
}

#[test]
fn connections_are_listed_and_closed() {
    let mut client = Client::new(None);
    client.send("CLIENT SETINFO LIB-NAME lib");
    let line = client.send("CLIENT INFO");
    assert!(line.contains("id=5 addr=127.0.0.1:5 laddr=127.0.0.1:6379 fd=-1 name= age=3 idle=1"));
    assert!(line.contains("cmd=client|info user=default redir=-1 resp=2 lib-name=lib lib-ver=\n"));
    assert_eq!(client.send("CLIENT LIST").matches("id=").count(), 2);
    assert_eq!(client.send("CLIENT LIST ID 6 7").matches("id=").count(), 1);
    client.check(&[
        ("CLIENT LIST TYPE pubsub", "$0\r\n\r\n"),
        ("CLIENT LIST TYPE x", "-ERR Unknown client type 'x'\r\n"),
        ("CLIENT KILL ID 6", ":1\r\n"),
        ("CLIENT KILL ID 5", ":0\r\n"),
        ("CLIENT KILL ID 0", "-ERR client-id should be greater than 0\r\n"),
        ("CLIENT KILL 1.1.1.1:1", "-ERR No such client\r\n"),
        ("CLIENT KILL USER x", "-ERR No such user 'x'\r\n"),
        ("CLIENT KILL TYPE normal SKIPME no", ":2\r\n<closed>"),
        ("CLIENT KILL 127.0.0.1:5", "+OK\r\n<closed>"),
    ]);
}

#[test]
fn settings_are_read_and_changed() {
    let mut client = Client::new(None);
    client.check(&[
        ("CONFIG GET DATA*", "*2\r\n$9\r\ndatabases\r\n$1\r\n1\r\n"),
        ("CONFIG SET maxmemory 5", "+OK\r\n"),
        ("CONFIG GET maxmemory nosuch", "*2\r\n$9\r\nmaxmemory\r\n$1\r\n5\r\n"),
        (
            "CONFIG SET Foo 1",
            "-ERR Unknown option or number of arguments for CONFIG SET - 'Foo'\r\n",
        ),
        (
            "CONFIG SET maxmemory x",
            "-ERR CONFIG SET failed (possibly related to argument 'maxmemory') - argument must be \
             a memory value\r\n",
        ),
        (
            "CONFIG SET databases 2",
            "-ERR CONFIG SET failed (possibly related to argument 'databases') - can't set \
             immutable config\r\n",
        ),
        (
            "CONFIG SET maxmemory 1 MAXMEMORY 2",
            "-ERR CONFIG SET failed (possibly related to argument 'MAXMEMORY') - duplicate \
             parameter\r\n",
        ),
        ("CONFIG RESETSTAT", "+OK\r\n"),
    ]);
    assert!(client.server.was_reset);
}

#[test]
fn small_questions_are_answered_at_once() {
    Client::new(None).check(&[
        ("TIME", "*2\r\n$10\r\n1700000000\r\n$2\r\n42\r\n"),
        ("ECHO a", "$1\r\na\r\n"),
        ("PING a", "$1\r\na\r\n"),
        ("SELECT 0", "+OK\r\n"),
        ("CLIENT ID", ":5\r\n"),
        ("CLUSTER KEYSLOT foo", ":12182\r\n"),
        ("CLUSTER NODES", "-ERR This instance has cluster support disabled\r\n"),
        ("ACL WHOAMI", "$7\r\ndefault\r\n"),
        ("ACL LIST", "*1\r\n$34\r\nuser default on nopass ~* &* +@all\r\n"),
        ("MODULE LIST", "*0\r\n"),
        ("SLOWLOG GET 10", "*0\r\n"),
        ("LATENCY RESET", ":0\r\n"),
        ("SCAN 0 TYPE hash", "*2\r\n$1\r\n0\r\n*0\r\n"),
        (
            "CLIENT MAINT_NOTIFICATIONS ON",
            "-ERR unknown subcommand 'MAINT_NOTIFICATIONS'. Try CLIENT HELP.\r\n",
        ),
        ("CAUSAL.AFTER ct1_a TIMEOUT 5", "+OK\r\n"),
        ("POST /", "<closed>"),
    ]);
}

#[test]
fn a_help_names_each_subcommand() {
    let help = Client::new(None).send("OBJECT HELP");
    assert!(help.starts_with(
        "*11\r\n+OBJECT <subcommand> [<arg> [value] [opt] ...]. Subcommands are:\r\n\
         +ENCODING key\r\n+    Answers how a value is encoded, in Redis's words.\r\n"
    ));
}

#[test]
fn a_drawn_number_comes_from_outside() {
    let mut client = Client::new(None);
    client.send("RANDOMKEY");
    assert_eq!(client.asked, ["RandomKey { draw: 77 }"]);
}

#[test]
fn a_refusal_of_a_token_is_the_reply_to_its_command() {
    let mut connection = Connection::new(5, settings(None));
    let mut replies = Replies::default();
    let words = [b"CAUSAL.AFTER".as_slice(), b"x"];
    let outcome = connection.handle(&words, 0, &mut Server::default(), &mut replies);
    assert_eq!(outcome, Outcome::After { token: b"x", timeout_millis: None });
    connection.refuse(b"ERR no token", &mut replies);
    assert_eq!(replies.ready(), b"-ERR no token\r\n");
}

#[test]
fn what_is_asked_borrows_from_the_request_and_not_from_the_connection() {
    let request = [b"SET".as_slice(), b"k", b"v"];
    let mut replies = Replies::default();
    let asked = {
        let mut connection = Connection::new(5, settings(None));
        connection.handle(&request, 0, &mut Server::default(), &mut replies)
    };
    assert!(matches!(asked, Outcome::Ask(Command::One(Operation { key: b"k", .. }))));
    replies.on_response(&Response::Refused(Refusal::WrongType));
    let expected = b"-WRONGTYPE Operation against a key holding the wrong kind of value\r\n";
    assert_eq!(replies.ready(), expected);
}

mod handshakes {
    use super::*;

    /// The bytes of what a transcript's client sends, and what the transcript says it is told.
    fn read(transcript: &str) -> (Vec<u8>, String) {
        let mut sent = Vec::new();
        let mut told = String::new();
        for line in transcript.lines() {
            if let Some(words) = line.strip_prefix("> ") {
                let words: Vec<_> = words.split(' ').collect();
                sent.extend(format!("*{}\r\n", words.len()).into_bytes());
                for word in words {
                    sent.extend(format!("${}\r\n{word}\r\n", word.len()).into_bytes());
                }
            } else if let Some(reply) = line.strip_prefix("< ") {
                told.push_str(&reply.replace("\\r\\n", "\r\n"));
            }
        }
        (sent, told)
    }

    fn talk(client: &mut Client, mut sent: Vec<u8>) -> String {
        let mut parser = FrameParser::default();
        let mut bytes = sent.as_mut_slice();
        let mut arguments = Arguments::new();
        let mut told = String::new();
        while parser.next(&mut bytes, client.connection.limits(), &mut arguments) == Ok(true) {
            told.push_str(&client.send_words(&arguments));
        }
        assert_eq!(bytes, b"", "all was understood");
        told
    }

    fn check(transcript: &str) {
        let (sent, told) = read(transcript);
        assert_eq!(talk(&mut Client::new(Some("secret")), sent), told);
    }

    #[test]
    fn go_redis() {
        check(include_str!("handshakes/go-redis.txt"));
    }

    #[test]
    fn ioredis() {
        check(include_str!("handshakes/ioredis.txt"));
    }

    #[test]
    fn jedis() {
        check(include_str!("handshakes/jedis.txt"));
    }

    #[test]
    fn lettuce() {
        check(include_str!("handshakes/lettuce.txt"));
    }

    #[test]
    fn memtier() {
        check(include_str!("handshakes/memtier.txt"));
    }

    #[test]
    fn node_redis() {
        check(include_str!("handshakes/node-redis.txt"));
    }

    #[test]
    fn redis_benchmark() {
        check(include_str!("handshakes/redis-benchmark.txt"));
    }

    #[test]
    fn redis_cli() {
        check(include_str!("handshakes/redis-cli.txt"));
    }

    #[test]
    fn redis_insight() {
        check(include_str!("handshakes/redis-insight.txt"));
    }

    #[test]
    fn redis_py() {
        check(include_str!("handshakes/redis-py.txt"));
    }

    #[test]
    fn redis_rs() {
        check(include_str!("handshakes/redis-rs.txt"));
    }
}
