//! Changes streams: within messages and bodies of entries with lengths and checksums that still
//! fit, so that decoders are reached; and in lengths, checksums and the order of frames.

use std::sync::Arc;

use antecede_protocol::{
    entry,
    message::{Body, Message},
    wire::{frame::FRAME_BYTES_MAX, read_message, write_message},
};

use crate::fuzzing::random::Random;
use crate::stream::{Part, Stream, write_frame};

/// The longest input that is made of short ones.
const STREAM_BYTES_MAX: usize = 16 * 1024;
/// Longer ones are taken once in so many times.
const LONG_ONCE_IN: usize = 500;

/// Numbers, tags and lengths that decoders must not believe.
const DICTIONARY: [&[u8]; 14] = [
    &[0],
    &[1],
    &[0x7f],
    &[0xff, 0x7f],
    // 65,536 and 65,537, around the limit on items.
    &[0x80, 0x80, 0x04],
    &[0x81, 0x80, 0x04],
    // 2^32 - 1, 2^40, 2^63, 2^64 - 1, and more than 64 bits.
    &[0xff, 0xff, 0xff, 0xff, 0x0f],
    &[0x80, 0x80, 0x80, 0x80, 0x80, 0x20],
    &[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01],
    &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
    &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f],
    // Timestamps: the first and the last.
    &[0, 0, 0, 0, 0, 0, 0, 0],
    &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    // The start of a frame.
    &[0xa7, 0xce, 0],
];

/// A new input.
pub(crate) fn mutated(corpus: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let is_long = random.once_in(LONG_ONCE_IN);
    let mut stream = Stream::parse(&base(corpus, is_long, random));
    // First, because it reads the message, and only what was tried before may be read here.
    if random.once_in(3)
        && let Some(message) = stream.message(random)
    {
        scramble_within(message, random);
    }
    for _ in 0..random.below(5) {
        change(&mut stream, corpus, random);
    }
    let mut bytes = stream.to_bytes();
    if random.once_in(4) {
        for _ in 0..=random.below(3) {
            damage(&mut bytes, random);
        }
    }
    if !is_long {
        bytes.truncate(STREAM_BYTES_MAX);
    }
    bytes
}

/// An input to begin with.
fn base(corpus: &[Vec<u8>], is_long: bool, random: &mut Random) -> Vec<u8> {
    let mut base = corpus[random.below(corpus.len())].clone();
    // Three tries: the corpus has enough of either length.
    for _ in 0..3 {
        if (STREAM_BYTES_MAX < base.len()) != is_long {
            base.clone_from(&corpus[random.below(corpus.len())]);
        }
    }
    if !is_long {
        base.truncate(STREAM_BYTES_MAX);
    }
    base
}

/// Changes what is sent, with lengths and checksums that fit.
fn change(stream: &mut Stream, corpus: &[Vec<u8>], random: &mut Random) {
    let at = random.below(stream.parts.len());
    match random.below(9) {
        0..=3 => {
            if let Some(message) = stream.message(random) {
                scramble(message, random);
            }
        }
        4 => {
            if let Some(part) = stream.parts.get(at).cloned() {
                stream.parts.insert(at, part);
            }
        }
        5 if !stream.parts.is_empty() => {
            let other = random.below(stream.parts.len());
            stream.parts.swap(at, other);
        }
        6 if 1 < stream.parts.len() => drop(stream.parts.remove(at)),
        7 => {
            let other = Stream::parse(&base(corpus, false, random));
            let from = random.below(other.parts.len());
            let frames = other.parts.into_iter().skip(from).take(1 + random.below(3));
            stream.parts.splice(at..at, frames);
        }
        _ => reframe(stream, at, random),
    }
}

/// Changes how a part is framed.
fn reframe(stream: &mut Stream, at: usize, random: &mut Random) {
    let Some(part) = stream.parts.get_mut(at) else { return };
    match part {
        Part::Hello(content)
        | Part::Relay(content)
        | Part::Frame(_, content)
        | Part::Raw(content) => {
            scramble(content, random);
        }
        Part::Messages(messages) => {
            let Some(message) = messages.get(random.below(messages.len())).cloned() else { return };
            let mut pieces = Vec::new();
            let mut rest = &message[..];
            for _ in 0..random.below(4) {
                let (piece, later) = rest.split_at(random.below(rest.len() + 1));
                pieces.push(Part::Frame(1, piece.to_vec()));
                rest = later;
            }
            // Without its last piece it never ends, and another frame may come between.
            if !random.once_in(4) {
                pieces.push(Part::Frame(2, rest.to_vec()));
            }
            stream.parts.splice(at..at, pieces);
        }
    }
}

/// Changes the body of an entry, the operation of a request or the record of a key inside of a
/// message; the checksum of the entry and all lengths fit.
fn scramble_within(bytes: &mut Vec<u8>, random: &mut Random) {
    let Ok(mut message) = read_message(bytes) else { return };
    let Message::Shard(of_shard) = &mut message else { return };
    let entries = match &mut of_shard.body {
        Body::Forward { entries } | Body::Returned { entries } => entries,
        Body::Replicate(replicate) => &mut replicate.entries,
        Body::Copied(copied) => match random.below(3) {
            0 => &mut copied.history,
            1 => &mut copied.entries,
            _ => {
                if let Some(part) = &mut copied.part {
                    scramble_record(&mut part.records, random);
                }
                bytes.clear();
                return write_message(&message, bytes);
            }
        },
        Body::Request(request) => {
            scramble(&mut request.operation, random);
            bytes.clear();
            return write_message(&message, bytes);
        }
        Body::Persisted(_)
        | Body::Ack(_)
        | Body::SendAgain { .. }
        | Body::NoRoom { .. }
        | Body::HandOn { .. }
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
        | Body::CopyAnew { .. } => return,
    };
    let at = random.below(entries.len());
    let Some(entry) = entries.get_mut(at) else { return };
    let mut body = match &entry.body {
        entry::Body::Tick => Vec::new(),
        entry::Body::Write(bytes) => bytes.to_vec(),
    };
    scramble(&mut body, random);
    entry.body = entry::Body::Write(Arc::from(body));
    entry.identity.checksum = entry.computed_checksum();
    bytes.clear();
    write_message(&message, bytes);
}

/// Changes the record of one key.
fn scramble_record(records: &mut [Box<[u8]>], random: &mut Random) {
    let at = random.below(records.len());
    let Some(record) = records.get_mut(at) else { return };
    let mut bytes = record.to_vec();
    scramble(&mut bytes, random);
    *record = bytes.into();
}

/// Changes bytes somewhere.
fn scramble(bytes: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..=random.below(3) {
        let at = random.below(bytes.len() + 1);
        let to = (at + random.below(12)).min(bytes.len());
        let word = DICTIONARY[random.below(DICTIONARY.len())];
        match random.below(10) {
            0 | 1 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            2 if at < bytes.len() => bytes[at] = random.byte(),
            3 => drop(bytes.drain(at..to)),
            4 => drop(bytes.splice(at..at, word.iter().copied())),
            5 => drop(bytes.splice(at..to, word.iter().copied())),
            6 => {
                let copied = bytes[at..to].to_vec();
                bytes.splice(at..at, copied);
            }
            7 => bytes.truncate(at),
            8 => {
                // A list of many small items, with its count.
                let count = random.below(2000);
                let byte = random.byte() & 0x0f;
                let low = (count & 0x7f).to_le_bytes()[0] | 0x80;
                let count_bytes = [low, (count >> 7).to_le_bytes()[0]];
                bytes.splice(at..to, count_bytes.into_iter().chain(vec![byte; count]));
            }
            _ => {
                // Lists within lists.
                let deep = [5, 1].repeat(1 + random.below(4000));
                bytes.splice(at..to, deep);
            }
        }
    }
}

/// Changes bytes of the stream, without care or with cunning.
fn damage(bytes: &mut Vec<u8>, random: &mut Random) {
    let at = random.below(bytes.len() + 1);
    match random.below(6) {
        0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
        1 if at < bytes.len() => bytes[at] = random.byte(),
        2 => bytes.truncate(at),
        3 => {
            // A frame whose length is wrong and whose checksum is right for it.
            let mut stream = Stream::parse(bytes);
            let place = random.below(stream.parts.len());
            let Some(part) = stream.parts.get_mut(place) else { return };
            let mut content = Vec::new();
            part.write(&mut content);
            let content = content.split_off(content.len().min(11));
            let length = match random.below(5) {
                0 => FRAME_BYTES_MAX,
                1 => FRAME_BYTES_MAX + 1 + random.below(9),
                2 => usize::MAX,
                3 => content.len() + random.below(9),
                _ => random.below(content.len() + 1),
            };
            let mut frame = Vec::new();
            let kind = if random.once_in(4) { random.byte() } else { 0 };
            write_frame(kind, length, &content, &mut frame);
            *part = Part::Raw(frame);
            *bytes = stream.to_bytes();
        }
        4 => {
            // A message whose length is wrong, in a frame whose checksum is right.
            let mut stream = Stream::parse(bytes);
            let place = random.below(stream.parts.len());
            let Some(part) = stream.parts.get_mut(place) else { return };
            let mut frame = Vec::new();
            part.write(&mut frame);
            let mut content = frame.split_off(frame.len().min(11));
            if let Some(byte) = content.get_mut(random.below(4)) {
                *byte ^= 1 << random.below(8);
            }
            *part = Part::Frame(0, content);
            *bytes = stream.to_bytes();
        }
        _ => {
            let to = (at + random.below(64)).min(bytes.len());
            let copied = bytes[at..to].to_vec();
            bytes.splice(at..at, copied);
        }
    }
}
