//! Takes the bytes of a link apart, and puts them together with lengths and checksums that fit.
//!
//! Written anew from the description of the formats, not with the reader that is tried: what both
//! make of the same bytes is compared (`expected`).

use antecede_protocol::{
    message::Message,
    wire::{frame::FRAME_BYTES_MAX, hello::HELLO_BYTES_MAX, read_message},
};

use crate::fuzzing::random::Random;

const HELLO_MAGIC: [u8; 8] = *b"antecede";
const RELAY_MAGIC: [u8; 8] = *b"anterely";
const FRAME_MAGIC: [u8; 2] = [0xa7, 0xce];
/// Magic, length, checksum.
const HELLO_HEAD: usize = 14;
/// Magic, kind, length, checksum.
const FRAME_HEAD: usize = 11;

/// A part of what a peer sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// The content of a hello.
    Hello(Vec<u8>),
    /// The content of a request to be passed on.
    Relay(Vec<u8>),
    /// A frame with messages, each with its length.
    Messages(Vec<Vec<u8>>),
    /// A frame of any kind with bytes.
    Frame(u8, Vec<u8>),
    /// Bytes as they are.
    Raw(Vec<u8>),
}

/// All that a peer sends.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stream {
    pub(crate) parts: Vec<Part>,
}

/// What a stream begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Hello,
    Relay,
}

/// What a reader must make of a stream.
#[derive(Debug)]
pub(crate) struct Expected {
    /// What is whole and sound in the beginning; what is behind it is read behind a hello only.
    pub(crate) opening: Option<Kind>,
    /// The messages up to the end, or up to what is refused.
    pub(crate) messages: Vec<Message>,
    /// Whether something is refused.
    pub(crate) is_refused: bool,
}

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (head, rest) = bytes.split_at_checked(count)?;
    *bytes = rest;
    Some(head)
}

fn number(bytes: &[u8]) -> usize {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte))
}

/// The content of a sound hello or request at the front.
fn take_opening<'a>(bytes: &mut &'a [u8]) -> Option<(Kind, &'a [u8])> {
    let mut rest = *bytes;
    let head = take(&mut rest, HELLO_HEAD)?;
    let content = take(&mut rest, number(&head[8..10]))?;
    let kind = match *head.first_chunk()? {
        HELLO_MAGIC => Kind::Hello,
        RELAY_MAGIC => Kind::Relay,
        _ => return None,
    };
    let is_sound = content.len() <= HELLO_BYTES_MAX - HELLO_HEAD
        && number(&head[10..]) == crc32c::crc32c(content) as usize;
    *bytes = if is_sound { rest } else { return None };
    Some((kind, content))
}

/// What is at the front where a frame should begin.
enum Front<'a> {
    Frame(u8, &'a [u8]),
    /// More must arrive first.
    Half,
    Refused,
}

fn take_frame<'a>(bytes: &mut &'a [u8]) -> Front<'a> {
    let mut rest = *bytes;
    let Some(head) = take(&mut rest, FRAME_HEAD) else { return Front::Half };
    let length = number(&head[3..7]);
    if head[..2] != FRAME_MAGIC || FRAME_BYTES_MAX < length {
        return Front::Refused;
    }
    let Some(content) = take(&mut rest, length) else { return Front::Half };
    if number(&head[7..]) != frame_checksum(head[2], length, content) as usize {
        return Front::Refused;
    }
    *bytes = rest;
    Front::Frame(head[2], content)
}

fn frame_checksum(kind: u8, length: usize, content: &[u8]) -> u32 {
    let mut bytes = vec![kind];
    bytes.extend_from_slice(&short(length));
    bytes.extend_from_slice(content);
    crc32c::crc32c(&bytes)
}

fn short(length: usize) -> [u8; 4] {
    u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes()
}

/// The messages in the content of a frame; `None` when their lengths do not fit it.
fn messages_in(mut content: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut messages = Vec::new();
    while !content.is_empty() {
        let length = number(take(&mut content, 4)?);
        messages.push(take(&mut content, length)?.to_vec());
    }
    Some(messages)
}

/// What a reader must make of these bytes.
pub(crate) fn expected(mut bytes: &[u8], is_sound: impl Fn(&[u8]) -> bool) -> Expected {
    let before = bytes;
    let opening = take_opening(&mut bytes).filter(|_| is_sound(before)).map(|(kind, _)| kind);
    let mut expected = Expected { opening, messages: Vec::new(), is_refused: false };
    if opening != Some(Kind::Hello) {
        return expected;
    }
    let mut piece: Vec<u8> = Vec::new();
    loop {
        let (kind, mut content) = match take_frame(&mut bytes) {
            Front::Half => return expected,
            Front::Refused => break,
            Front::Frame(kind, content) => (kind, content),
        };
        match kind {
            0 if piece.is_empty() => {
                while !content.is_empty() {
                    let message = take(&mut content, 4).map(number);
                    let message = message.and_then(|length| take(&mut content, length));
                    match message.map(read_message) {
                        Some(Ok(message)) => expected.messages.push(message),
                        Some(Err(_)) | None => {
                            expected.is_refused = true;
                            return expected;
                        }
                    }
                }
            }
            1 => piece.extend_from_slice(content),
            2 => {
                piece.extend_from_slice(content);
                match read_message(&std::mem::take(&mut piece)) {
                    Ok(message) => expected.messages.push(message),
                    Err(_) => break,
                }
            }
            _ => break,
        }
    }
    expected.is_refused = true;
    expected
}

impl Part {
    /// Writes the part with lengths and checksums that fit.
    pub(crate) fn write(&self, to: &mut Vec<u8>) {
        match self {
            Self::Hello(content) => write_opening(HELLO_MAGIC, content, to),
            Self::Relay(content) => write_opening(RELAY_MAGIC, content, to),
            Self::Messages(messages) => {
                let mut content = Vec::new();
                for message in messages {
                    content.extend_from_slice(&short(message.len()));
                    content.extend_from_slice(message);
                }
                write_frame(0, content.len(), &content, to);
            }
            Self::Frame(kind, content) => write_frame(*kind, content.len(), content, to),
            Self::Raw(bytes) => to.extend_from_slice(bytes),
        }
    }

    /// The pieces of the part that can be cut.
    fn leaves(&mut self) -> Vec<&mut Vec<u8>> {
        match self {
            Self::Hello(bytes) | Self::Relay(bytes) | Self::Frame(_, bytes) | Self::Raw(bytes) => {
                vec![bytes]
            }
            Self::Messages(messages) => messages.iter_mut().collect(),
        }
    }
}

/// Writes what a connection begins with.
fn write_opening(magic: [u8; 8], content: &[u8], to: &mut Vec<u8>) {
    to.extend_from_slice(&magic);
    let length = u16::try_from(content.len()).unwrap_or(u16::MAX);
    to.extend_from_slice(&length.to_le_bytes());
    to.extend_from_slice(&crc32c::crc32c(content).to_le_bytes());
    to.extend_from_slice(content);
}

/// Writes a frame that says that it is `length` long, with a checksum of what it says.
pub(crate) fn write_frame(kind: u8, length: usize, content: &[u8], to: &mut Vec<u8>) {
    to.extend_from_slice(&FRAME_MAGIC);
    to.push(kind);
    to.extend_from_slice(&short(length));
    // A reader sees as many bytes as are announced, or waits for them.
    let seen = content.get(..length).unwrap_or(content);
    to.extend_from_slice(&frame_checksum(kind, length, seen).to_le_bytes());
    to.extend_from_slice(content);
}

impl Stream {
    /// Takes bytes apart; what is not sound stays as it is.
    pub(crate) fn parse(mut bytes: &[u8]) -> Self {
        let mut parts = Vec::new();
        if let Some((kind, content)) = take_opening(&mut bytes) {
            let content = content.to_vec();
            parts.push(match kind {
                Kind::Hello => Part::Hello(content),
                Kind::Relay => Part::Relay(content),
            });
        }
        while let Front::Frame(kind, content) = take_frame(&mut bytes) {
            let messages = if kind == 0 { messages_in(content) } else { None };
            let raw = || Part::Frame(kind, content.to_vec());
            parts.push(messages.map_or_else(raw, Part::Messages));
        }
        if !bytes.is_empty() {
            parts.push(Part::Raw(bytes.to_vec()));
        }
        Self { parts }
    }

    /// The bytes.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for part in &self.parts {
            part.write(&mut bytes);
        }
        bytes
    }

    /// How many bytes are not lengths and checksums.
    pub(crate) fn content_len(&mut self) -> usize {
        self.parts.iter_mut().flat_map(Part::leaves).map(|leaf| leaf.len()).sum()
    }

    /// Removes these bytes among those that are not lengths and checksums; what becomes empty
    /// goes.
    pub(crate) fn cut(&mut self, from: usize, to: usize) {
        let mut at = 0;
        for leaf in self.parts.iter_mut().flat_map(Part::leaves) {
            let length = leaf.len();
            let within = |place: usize| place.clamp(at, at + length) - at;
            leaf.drain(within(from)..within(to));
            at += length;
        }
        for part in &mut self.parts {
            if let Part::Messages(messages) = part {
                messages.retain(|message| !message.is_empty());
            }
        }
        self.parts.retain_mut(|part| part.leaves().iter().any(|leaf| !leaf.is_empty()));
    }

    /// A message of some frame.
    pub(crate) fn message(&mut self, random: &mut Random) -> Option<&mut Vec<u8>> {
        let frames = self.parts.iter_mut().filter_map(|part| match part {
            Part::Messages(messages) => Some(messages),
            Part::Hello(_) | Part::Relay(_) | Part::Frame(..) | Part::Raw(_) => None,
        });
        let mut messages: Vec<_> = frames.flatten().collect();
        let at = random.below(messages.len());
        if at < messages.len() { Some(messages.swap_remove(at)) } else { None }
    }
}
