//! Throws mutated handshakes at the parser, the table and the connection until the time is up:
//! `cargo run --release -p antecede-server --example fuzz_resp -- --seconds 60 --seed 1`.
//!
//! Each input is sent whole and in random pieces, and must be answered alike. The corpus are the
//! handshakes of all clients, a call of each command, and inputs that were new in what they
//! caused. Answering an input may make the process hold `HELD_BYTES_BASE` bytes, and a number of
//! bytes for each that was sent or told (`HELD_BYTES_EACH`, `HELD_BYTES_TOLD`).

use std::{fmt::Write as _, process::ExitCode, sync::Arc};

use antecede_model::{refusal::Refusal, response::Response};
use antecede_protocol::session::command::Command;
use antecede_server::resp::{
    commands::{ClientFilter, table},
    connection::{Connection, Outcome, RESET_COMMANDS, Settings, password::Password},
    environment::{ClientEntry, Environment, Identity, Killed, SettingError},
    frame::{Arguments, FrameParser, Limits},
    replies::Replies,
    shape::Shape,
};

use self::fuzzing::{Target, Tried, allocated, random::Random};

/// Runs inputs and shortens one that fails.
mod fuzzing;

#[global_allocator]
static ALLOCATOR: allocated::Counting = allocated::Counting;

const HANDSHAKES: [&str; 11] = [
    include_str!("../src/resp/connection/handshakes/go-redis.txt"),
    include_str!("../src/resp/connection/handshakes/ioredis.txt"),
    include_str!("../src/resp/connection/handshakes/jedis.txt"),
    include_str!("../src/resp/connection/handshakes/lettuce.txt"),
    include_str!("../src/resp/connection/handshakes/memtier.txt"),
    include_str!("../src/resp/connection/handshakes/node-redis.txt"),
    include_str!("../src/resp/connection/handshakes/redis-benchmark.txt"),
    include_str!("../src/resp/connection/handshakes/redis-cli.txt"),
    include_str!("../src/resp/connection/handshakes/redis-insight.txt"),
    include_str!("../src/resp/connection/handshakes/redis-py.txt"),
    include_str!("../src/resp/connection/handshakes/redis-rs.txt"),
];

/// Pieces that are put into inputs.
const DICTIONARY: [&[u8]; 24] = [
    b"*1\r\n",
    b"*0\r\n",
    b"*-1\r\n",
    b"$-1\r\n",
    b"$0\r\n\r\n",
    b"\r\n",
    b"\n",
    b"\0",
    b"*2147483648\r\n",
    b"$9223372036854775807\r\n",
    b"-9223372036854775808",
    b"*1048577\r\n",
    b"$536870912\r\n",
    b"MULTI\r\n",
    b"EXEC\r\n",
    b"RESET\r\n",
    b"HELLO 3\r\n",
    b"\"\\x41\" ",
    b"CLIENT REPLY SKIP\r\n",
    b"GET k\r\n",
    b"SET k 'v w' EX 5\r\n",
    b"POST / HTTP/1.1\r\n",
    b"AUTH secret\r\n",
    b"WATCH k\r\n",
];
/// The longest input.
const INPUT_BYTES_MAX: usize = 4096;
/// Bytes that an input may make the process hold whatever it says.
const HELD_BYTES_BASE: usize = 64 * 1024;
/// Bytes for each byte of the input: arguments are kept once more while they are queued.
const HELD_BYTES_EACH: usize = 256;
/// Bytes for each byte of the answers and of what the session was asked, which are kept here.
const HELD_BYTES_TOLD: usize = 8;

fn main() -> ExitCode {
    fuzzing::run(&Client)
}

/// The connection that is fed.
struct Client;

impl Target for Client {
    fn corpus(&self) -> Vec<Vec<u8>> {
        first_corpus()
    }

    fn mutated(&self, corpus: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
        mutated(corpus, random)
    }

    fn try_input(&self, input: &[u8]) -> Result<Tried, String> {
        let mut random = Random::of(input);
        let has_password = random.once_in(2);
        let (once, held) = allocated::measured(|| answered(input, &[], has_password));
        let pieces: Vec<_> = (0..32).map(|_| 1 + random.below(64)).collect();
        let pieced = answered(input, &pieces, has_password);
        if once != pieced {
            return Err(difference(input, &once, &pieced));
        }
        let asked_bytes: usize = once.asked.iter().map(String::len).sum();
        let told_bytes = once.sent.len() + asked_bytes;
        let held_max =
            HELD_BYTES_BASE + HELD_BYTES_EACH * input.len() + HELD_BYTES_TOLD * told_bytes;
        Ok(Tried { kind: once.signature(), held, held_max })
    }
}

fn difference(input: &[u8], once: &Answered, pieced: &Answered) -> String {
    let mut text = format!("{}\n", input.escape_ascii());
    for (name, answered) in [("once", once), ("in pieces", pieced)] {
        let sent = answered.sent.escape_ascii();
        let (consumed, asked) = (answered.consumed, &answered.asked);
        let added = writeln!(text, "{name}: {consumed} taken, asked {asked:?}, sent {sent}");
        debug_assert!(added.is_ok(), "a string takes all");
    }
    text
}

/// What came of an input.
#[derive(PartialEq, Eq)]
struct Answered {
    consumed: usize,
    asked: Vec<String>,
    sent: Vec<u8>,
}

impl Answered {
    /// What kind of answers they are: the first bytes of each line, without numbers.
    fn signature(&self) -> Vec<u8> {
        let lines = self.sent.split(|byte| *byte == b'\n');
        lines
            .flat_map(|line| line.iter().take(24).filter(|byte| !byte.is_ascii_digit()))
            .copied()
            .collect()
    }
}

/// Sends an input in pieces of these lengths; the rest, when they are used up, in one.
fn answered(input: &[u8], pieces: &[usize], has_password: bool) -> Answered {
    let password = has_password.then(|| Password::new(b"secret").ok()).flatten();
    let settings = Settings { password, limits: Limits::default() };
    let mut connection = Connection::new(5, Arc::new(settings));
    let mut replies = Replies::default();
    let mut parser = FrameParser::default();
    let mut all = Answered { consumed: 0, asked: Vec::new(), sent: Vec::new() };
    let mut held: Vec<u8> = Vec::new();
    let mut rest = input;
    let mut pieces = pieces.iter().copied();
    while !rest.is_empty() {
        let (piece, behind) = rest.split_at(pieces.next().unwrap_or(rest.len()).min(rest.len()));
        rest = behind;
        held.extend_from_slice(piece);
        let is_open = take_all(&mut held, &mut parser, &mut connection, &mut replies, &mut all);
        all.sent.append(replies.ready());
        if !is_open {
            break;
        }
    }
    all
}

/// Takes all whole requests; `false` when the connection is to be closed.
fn take_all(
    held: &mut Vec<u8>,
    parser: &mut FrameParser,
    connection: &mut Connection,
    replies: &mut Replies,
    all: &mut Answered,
) -> bool {
    let lent = held.len();
    let mut is_open = true;
    let left = {
        let mut view = held.as_mut_slice();
        let mut arguments = Arguments::new();
        loop {
            match parser.next(&mut view, connection.limits(), &mut arguments) {
                Ok(false) => break,
                Ok(true) => is_open = take(&arguments, connection, replies, &mut all.asked),
                Err(error) => {
                    connection.on_frame_error(error, replies);
                    is_open = false;
                }
            }
            if !is_open {
                break;
            }
        }
        view.len()
    };
    all.consumed += lent - left;
    held.drain(..lent - left);
    is_open
}

fn take(
    arguments: &[&[u8]],
    connection: &mut Connection,
    replies: &mut Replies,
    asked: &mut Vec<String>,
) -> bool {
    let server = &mut Server;
    match connection.handle(arguments, 1_700_000_000_000, server, replies) {
        Outcome::Answered => {}
        Outcome::Ask(command) => replies.on_response(&answer(&command, asked)),
        Outcome::Execute(queue) => {
            if let Some(command) = connection.execute(&queue, 1_700_000_000_000, server, replies) {
                replies.on_response(&answer(&command, asked));
            }
        }
        Outcome::After { token, timeout_millis } => {
            asked.push(format!("{token:?} {timeout_millis:?}"));
            if token.len() % 2 == 0 {
                connection.expect(Shape::Plain, replies);
                replies.on_response(&Response::Ok);
            } else {
                connection.refuse(b"ERR no token", replies);
            }
        }
        Outcome::Reset => {
            for command in &RESET_COMMANDS {
                replies.on_response(&answer(command, asked));
            }
        }
        Outcome::Close => return false,
    }
    assert_eq!(replies.missing_count(), 0, "every command has its answer");
    true
}

/// What a session might say: each kind of answer, chosen by the command.
fn answer(command: &Command<'_>, asked: &mut Vec<String>) -> Response {
    asked.push(format!("{command:?}"));
    match command {
        Command::Transaction { operations } => {
            let kinds = [Response::Ok, Response::Nil, Response::Integer(1)];
            Response::List(kinds.into_iter().cycle().take(operations.len()).collect())
        }
        Command::Several { operations, .. } => {
            Response::List(vec![Response::Bytes(b"v".to_vec()); operations.len()])
        }
        Command::Scan { .. } => Response::Scanned { next: Some(4), keys: vec![b"k".to_vec()] },
        Command::Keys { .. } => Response::List(Vec::new()),
        Command::One(_) => Response::Refused(Refusal::WrongType),
        Command::Retried { .. } => Response::Refused(Refusal::OtherRequest),
        Command::Count | Command::Wait { .. } => Response::Integer(3),
        Command::RandomKey { .. } => Response::Nil,
        Command::Watch { .. }
        | Command::Unwatch
        | Command::Token
        | Command::After { .. }
        | Command::Reset
        | Command::Level(_) => Response::Ok,
    }
}

/// Handshakes as clients send them, and a call of each command with a few arguments.
fn first_corpus() -> Vec<Vec<u8>> {
    let handshakes = HANDSHAKES.iter().map(|transcript| {
        let lines = transcript.lines().filter_map(|line| line.strip_prefix("> "));
        lines.flat_map(|line| as_array(&line.split(' ').collect::<Vec<_>>())).collect()
    });
    let all = table().iter().flat_map(|row| std::iter::once(row).chain(row.subcommands));
    let calls = all.map(|row| {
        let mut words: Vec<&str> = row.name.split('|').collect();
        let count = usize::try_from(row.arity.unsigned_abs()).unwrap_or(1);
        words.extend(if row.name == "causal.do" {
            ["ID", "north.app:5", "SET", "k", "v"]
        } else {
            ["k", "5", "v", "EX", "7"]
        });
        words.truncate(count.max(1));
        as_array(&words)
    });
    handshakes.chain(calls).collect()
}

fn as_array(words: &[&str]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend(format!("${}\r\n{word}\r\n", word.len()).into_bytes());
    }
    bytes
}

fn mutated(corpus: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut input = corpus[random.below(corpus.len())].clone();
    for _ in 0..=random.below(6) {
        let at = random.below(input.len() + 1);
        let to = (at + random.below(16)).min(input.len());
        match random.below(8) {
            0 if at < input.len() => input[at] ^= 1 << random.below(8),
            1 if at < input.len() => input[at] = random.byte(),
            2 => drop(input.drain(at..to)),
            3 => drop(input.splice(at..at, [random.byte(), random.byte()])),
            4 => drop(input.splice(at..to, DICTIONARY[random.below(DICTIONARY.len())].to_vec())),
            5 => {
                let copied = input[at..to].to_vec();
                drop(input.splice(at..at, copied));
            }
            6 => input.extend_from_slice(&corpus[random.below(corpus.len())]),
            _ => drop(input.splice(at..at, DICTIONARY[random.below(DICTIONARY.len())].to_vec())),
        }
    }
    input.truncate(INPUT_BYTES_MAX);
    input
}

/// A server with fixed answers.
struct Server;

impl Environment for Server {
    fn wall_micros(&self) -> u64 {
        42
    }

    fn draw(&mut self) -> u64 {
        7
    }

    fn info(&self, sections: &[&[u8]]) -> String {
        format!("sections:{}\r\n", sections.len())
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        vec![("databases", "1".to_owned()), ("maxmemory", "0".to_owned())]
    }

    fn change_setting(&mut self, name: &str, _: &[u8]) -> Result<(), SettingError> {
        if name == "maxmemory" { Ok(()) } else { Err(SettingError::Unknown) }
    }

    fn reset_statistics(&mut self) {}

    fn clients(&self, _: &ClientFilter<'_>) -> Vec<ClientEntry> {
        Vec::new()
    }

    fn kill(&mut self, filter: &ClientFilter<'_>, spared: Option<u64>) -> Killed {
        Killed { count: filter.ids.len(), is_caller_among: spared.is_none() }
    }

    fn identity(&self) -> Identity {
        let (datacenter, node) = ("north".to_owned(), "0".repeat(40));
        Identity { version: "0.0.0", datacenter, node, node_count: 1 }
    }
}
