//! Feeds a link with hostile bytes and looks for panics, hangs, unbounded memory and lost meaning:
//! `cargo run --release -p antecede-server --example fuzz_peer -- --seconds 60 --seed 1`.
//!
//! The bytes go through the two functions by which a node reads from its peers (`read_opening`,
//! `take_messages`), whole and in random pieces. Of every input must hold:
//! - exactly what a second, simpler reading of the formats (`stream::expected`) accepts is
//!   accepted, with the same messages, however the bytes arrive;
//! - reading it holds at most [`HELD_BYTES_BASE`] and [`HELD_BYTES_EACH`] bytes for each that
//!   arrived, all its messages dropped as soon as they are there;
//! - a message that was read is written and read again as the same; bodies of entries and
//!   operations of requests as well, which machines read later without errors; records of keys can
//!   be taken for keys;
//! - what is refused is refused with words, down to the last cause.
//!
//! Not here: what machines make of messages that are well formed and lie.

use std::error::Error;
use std::future::Future;
use std::pin::pin;
use std::process::ExitCode;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use antecede_model::{
    clock::Wall,
    codec::{DecodeError, Reader, Writer},
    configuration::{Configuration, Layout},
    ids::DatacenterId,
    key::ShardCount,
    operation::ShardOperation,
};
use antecede_protocol::{
    copied::{Part, Start},
    entry::{self, Entry},
    message::{Body, Message},
    state::Keys,
    wire::{
        frame::{FrameError, FrameReader, FrameWriter},
        hello::ReadHelloError,
        read_message,
        relay::Opening,
        write_message,
    },
};
use antecede_server::{LinkError, read_opening, take_messages};

use self::fuzzing::{Target, Tried, allocated, random::Random};
use self::stream::{Kind, Stream};

/// What is said in the beginning.
mod corpus;
/// Runs inputs and shortens one that fails.
#[path = "../fuzzing/mod.rs"]
mod fuzzing;
/// Changes what is said.
mod mutate;
/// Frames taken apart and put together.
mod stream;

#[global_allocator]
static ALLOCATOR: allocated::Counting = allocated::Counting;

/// What a node reads from a socket at a time.
const READ_BYTES: usize = 256 * 1024;
/// Bytes that reading may hold whatever arrives.
const HELD_BYTES_BASE: usize = 4 * 1024;
/// Bytes that reading may hold for each byte that arrived. An entry of two bytes, a tick, is what
/// becomes largest in memory; a list holds up to three times its items while it grows.
const HELD_BYTES_EACH: usize = 192;

fn main() -> ExitCode {
    fuzzing::run(&Peer::new())
}

/// The link that is fed.
struct Peer {
    configuration: Configuration,
}

/// What reading a stream came to.
#[derive(Debug)]
struct Arrived {
    opening: Result<Opening, LinkError>,
    frames: Result<(), FrameError>,
    /// Bytes that wait for more in the end.
    waiting: usize,
}

impl Target for Peer {
    fn corpus(&self) -> Vec<Vec<u8>> {
        corpus::streams()
    }

    fn mutated(&self, corpus: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
        mutate::mutated(corpus, random)
    }

    fn try_input(&self, input: &[u8]) -> Result<Tried, String> {
        let (counted, held) = allocated::measured(|| {
            let mut count = 0_usize;
            let arrived = arrive(input, || READ_BYTES, |_| count += 1);
            drop(arrived);
            count
        });
        let mut whole = Vec::new();
        let arrived = arrive(input, || READ_BYTES, |message| whole.push(message));
        let mut random = Random::of(input);
        let piece = input.len().min(1 << random.below(20));
        let mut in_pieces = Vec::new();
        let again = arrive(input, || 1 + random.below(piece), |message| in_pieces.push(message));
        if counted != whole.len() || whole != in_pieces || !is_same(&arrived, &again) {
            return Err(format!("whole it is {arrived:?}, in pieces {again:?}"));
        }
        drop(in_pieces);
        compare(input, &arrived, &whole)?;
        self.check_opening(&arrived)?;
        check_errors(&arrived)?;
        for message in &whole {
            check_meaning(message)?;
        }
        let kind = kind_of(&arrived, &whole);
        let held_max = HELD_BYTES_BASE + HELD_BYTES_EACH * input.len();
        Ok(Tried { kind, held, held_max })
    }

    fn units(&self, input: &[u8]) -> usize {
        Stream::parse(input).content_len()
    }

    fn without(&self, input: &[u8], from: usize, to: usize) -> Vec<u8> {
        let mut stream = Stream::parse(input);
        stream.cut(from, to);
        stream.to_bytes()
    }
}

/// Reads a stream as a node does: what it begins with, then what follows a hello in reads of these
/// lengths.
fn arrive(
    mut input: &[u8],
    mut read_bytes: impl FnMut() -> usize,
    mut each: impl FnMut(Message),
) -> Arrived {
    let opening = now(read_opening(&mut input));
    let mut reader = FrameReader::new();
    let mut frames = Ok(());
    if let Ok(Opening::Hello(_)) = opening {
        while !input.is_empty() && frames.is_ok() {
            let (read, rest) = input.split_at(read_bytes().min(input.len()));
            frames = take_messages(&mut reader, read, &mut each);
            input = rest;
        }
    }
    Arrived { opening, frames, waiting: reader.held_bytes() }
}

/// What a future comes to that never waits: all bytes are there.
fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => unreachable!("bytes in memory are always there"),
    }
}

fn is_same(one: &Arrived, other: &Arrived) -> bool {
    let has_same_opening = match (&one.opening, &other.opening) {
        (Ok(one), Ok(other)) => one == other,
        (Err(one), Err(other)) => one.to_string() == other.to_string(),
        (Ok(_), Err(_)) | (Err(_), Ok(_)) => false,
    };
    let has_same_rest = one.frames.is_err() || one.waiting == other.waiting;
    has_same_opening && one.frames == other.frames && has_same_rest
}

/// Compares with what a simpler reader makes of it.
fn compare(input: &[u8], arrived: &Arrived, messages: &[Message]) -> Result<(), String> {
    let expected = stream::expected(input, |bytes| matches!(Opening::read(bytes), Ok(Some(_))));
    let found = arrived.opening.as_ref().ok().map(|opening| match opening {
        Opening::Hello(_) => Kind::Hello,
        Opening::Relay(_) => Kind::Relay,
    });
    if expected.opening != found {
        return Err(format!("expected in the beginning: {:?}; {arrived:?}", expected.opening));
    }
    if expected.is_refused != arrived.frames.is_err() {
        return Err(format!("expected a refusal: {}; {arrived:?}", expected.is_refused));
    }
    if expected.messages != messages {
        let (wanted, found) = (expected.messages.len(), messages.len());
        return Err(format!("{wanted} messages were expected, {found} others came"));
    }
    if input.len() < arrived.waiting {
        return Err(format!("{} bytes wait of {}", arrived.waiting, input.len()));
    }
    Ok(())
}

/// Whether all that was refused is told in words.
fn check_errors(arrived: &Arrived) -> Result<(), String> {
    if let Err(error) = &arrived.opening {
        check_words(error)?;
    }
    if let Err(error) = &arrived.frames {
        check_words(error)?;
    }
    Ok(())
}

fn check_words(error: &dyn Error) -> Result<(), String> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.to_string().trim().len() < 8 {
            return Err(format!("`{error}` says nothing"));
        }
        cause = error.source();
    }
    Ok(())
}

/// Whether a message keeps its meaning when it is written and read again.
fn check_meaning(message: &Message) -> Result<(), String> {
    let mut bytes = Vec::new();
    write_message(message, &mut bytes);
    if read_message(&bytes).as_ref() != Ok(message) {
        return Err(format!("a message became another: {message:?}"));
    }
    let mut writer = FrameWriter::new();
    let pushed = writer.push(message);
    writer.swap(&mut bytes);
    let mut reader = FrameReader::new();
    let mut again = Vec::new();
    let taken = take_messages(&mut reader, &bytes, |message| again.push(message));
    if pushed.is_err() || taken.is_err() || again.as_slice() != std::slice::from_ref(message) {
        return Err(format!("a message became another in a frame: {message:?}"));
    }
    let Message::Shard(of_shard) = message else { return Ok(()) };
    match &of_shard.body {
        Body::Forward { entries } | Body::Returned { entries } | Body::HandOn { entries, .. } => {
            entries.iter().try_for_each(check_body)
        }
        Body::Replicate(replicate) => replicate.entries.iter().try_for_each(check_body),
        Body::Copied(copied) => {
            copied.history.iter().chain(&copied.entries).try_for_each(check_body)?;
            copied.part.as_ref().map_or(Ok(()), check_part)
        }
        Body::Request(request) => check_operation(&request.operation),
        Body::Persisted(_)
        | Body::Ack(_)
        | Body::SendAgain { .. }
        | Body::NoRoom { .. }
        | Body::HandedOn { .. }
        | Body::Question { .. }
        | Body::Answer { .. }
        | Body::SettleAsk { .. }
        | Body::SettleTell { .. }
        | Body::TakeBack { .. }
        | Body::AwaitApplied { .. }
        | Body::Applied { .. }
        | Body::Received(_)
        | Body::Fetch { .. }
        | Body::HadApplied(_)
        | Body::CopyAsk(_)
        | Body::CopyAnew { .. } => Ok(()),
    }
}

/// Whether a body is read without errors, as machines do, and keeps its meaning.
fn check_body(entry: &Entry) -> Result<(), String> {
    if entry.is_tick() {
        return Ok(());
    }
    let dependencies = entry.dependencies();
    let mut effects = Vec::new();
    entry.for_each_effect(|effect| effects.push(effect));
    let mut bytes = Vec::new();
    entry::Body::encode(&mut bytes, entry.stamp, &dependencies, effects.iter().cloned());
    let checked = entry::Body::check(&bytes, entry.stamp);
    let again = Entry { body: entry::Body::Write(bytes.into()), ..entry.clone() };
    let mut effects_again = Vec::new();
    if checked.is_ok() {
        again.for_each_effect(|effect| effects_again.push(effect));
    }
    if checked.is_err() || again.dependencies() != dependencies || effects_again != effects {
        return Err(format!("the body of an entry became another: {entry:?}"));
    }
    Ok(())
}

/// Whether the records of a part can be taken for keys, and are the same as such.
fn check_part(part: &Part) -> Result<(), String> {
    let mut keys = Keys::new(1);
    keys.copy_from(&Start::default());
    let from_the_first = Part { from: 0, ..part.clone() };
    if !keys.install(&from_the_first) || keys.frontier() != part.next {
        return Err(format!("a part is not the first of a copy: {part:?}"));
    }
    let again = keys.part(0, usize::MAX).expect("all values are in memory");
    let count = keys.live_count() + keys.tombstone_count();
    if again.records.len() != count || !again.records.iter().all(|one| part.records.contains(one)) {
        return Err(format!("a part became another: {part:?}, then {again:?}"));
    }
    // All that shows a key reads its record; deadlines are looked for among them.
    keys.expired(u64::MAX, usize::MAX).iter().for_each(|key| drop(keys.committed(key).seen()));
    keys.scan(0, u64::MAX, None, 0).1.iter().for_each(|key| drop(keys.committed(key).seen()));
    Ok(())
}

fn check_operation(bytes: &[u8]) -> Result<(), String> {
    let read = |bytes| -> Result<_, DecodeError> {
        let mut reader = Reader::new(bytes);
        let operation = ShardOperation::read(&mut reader)?;
        reader.finish().map(|()| operation)
    };
    let operation = read(bytes).map_err(|error| format!("an operation is none: {error}"))?;
    let mut again = Vec::new();
    operation.write(&mut Writer::new(&mut again));
    if read(&again).as_ref() != Ok(&operation) {
        return Err(format!("an operation became another: {operation:?}"));
    }
    Ok(())
}

impl Peer {
    fn new() -> Self {
        let ours = corpus::hello(1);
        let datacenters = vec![(DatacenterId(1), "one".to_owned(), 2)];
        let shard_count = ShardCount::new(256).expect("256 is a power of two");
        let layout =
            Layout { deployment: ours.deployment, shard_count, chain_length: 2, datacenters };
        Self { configuration: Configuration::of(&layout) }
    }

    /// Judges what a stream begins with, and writes it again.
    fn check_opening(&self, arrived: &Arrived) -> Result<(), String> {
        let Ok(opening) = &arrived.opening else { return Ok(()) };
        let wall = Wall((corpus::NOW >> 16) * 1000);
        let ours = corpus::hello(1);
        let mut bytes = Vec::new();
        match opening {
            Opening::Hello(hello) => {
                let limit = Duration::from_millis(500);
                if let Err(refusal) = ours.accept(hello, &self.configuration, wall, limit) {
                    check_words(&refusal)?;
                }
                hello.write(&mut bytes);
            }
            Opening::Relay(request) => {
                if let Err(refusal) = request.accept(ours.node, &self.configuration) {
                    check_words(&refusal)?;
                }
                request.write(&mut bytes);
            }
        }
        let again: Result<_, ReadHelloError> = Opening::read(&bytes);
        if again != Ok(Some((*opening, bytes.len()))) {
            return Err(format!("what a stream begins with became another: {opening:?}"));
        }
        Ok(())
    }
}

/// What kinds of messages were read and why the rest was refused, without numbers.
fn kind_of(arrived: &Arrived, messages: &[Message]) -> Vec<u8> {
    let mut kind = Vec::new();
    for message in messages.iter().take(4) {
        // What is long is told by its start; bytes are numbers and left out.
        let mut bytes = Vec::new();
        write_message(message, &mut bytes);
        if bytes.len() < 512 {
            let words = format!("{message:?}");
            kind.extend(words.bytes().filter(u8::is_ascii_alphabetic).take(400));
        }
        kind.push(bytes.len().ilog2().to_le_bytes()[0]);
    }
    let words = match (&arrived.opening, &arrived.frames) {
        (Err(error), _) => format!("{error:?}"),
        (Ok(_), Err(error)) => format!("{error:?}"),
        (Ok(_), Ok(())) => String::new(),
    };
    kind.extend(words.bytes().filter(|byte| !byte.is_ascii_digit()));
    kind.push(messages.len().min(4).to_le_bytes()[0]);
    kind.push(u8::from(arrived.waiting != 0));
    kind
}
