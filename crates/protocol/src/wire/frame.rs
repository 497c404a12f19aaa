//! Packs messages into frames with a length and a checksum, and unpacks them as bytes arrive.
//!
//! A frame is: two magic bytes, a kind, the length of its content, CRC32C over kind, length and
//! content, the content. Usually the content is all messages of one flush, each with its length.
//! A message that is too long for that travels in pieces, each in a frame of its own, so that no
//! frame is long, whatever a value's size.
//!
//! Ensures: the reader never holds more than the bytes that it was fed, one frame's worth of them
//! at most beyond a message in pieces; a damaged frame ends the link.
//! Limits: `FRAME_BYTES_MAX`, `MESSAGE_BYTES_MAX`.
#![deny(clippy::indexing_slicing)]

use antecede_model::{codec::DecodeError, operation::VALUE_BYTES_MAX};

use super::{read_message, write_message};
use crate::message::Message;

/// The most bytes of content that a frame may have.
pub const FRAME_BYTES_MAX: usize = 64 * 1024 * 1024;
/// The most bytes that a message may have: the longest value and what comes with it.
pub const MESSAGE_BYTES_MAX: usize = VALUE_BYTES_MAX + 64 * 1024 * 1024;
/// A frame takes no further message beyond about this many bytes, and a piece is this long.
pub const FRAME_BYTES_USUAL: usize = 1024 * 1024;

/// A longer buffer is given back when all of it has been read.
const KEPT_BYTES_MAX: usize = 4 * FRAME_BYTES_USUAL;
const MAGIC: [u8; 2] = [0xa7, 0xce];
/// Magic, kind, length, checksum.
const HEAD_BYTES: usize = 11;
/// The length in front of each message.
const LENGTH_BYTES: usize = 4;

/// What the content of a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Whole messages.
    Messages = 0,
    /// A piece of a message, with more to come.
    Piece = 1,
    /// The last piece of a message.
    LastPiece = 2,
}

/// Bytes that are no frame; the link cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A frame does not begin where one should.
    #[error("bytes {found:02x?} arrived where a frame should begin")]
    NotAFrame {
        /// What was there.
        found: [u8; 2],
    },
    /// A message is longer than what is sent or taken.
    #[error("a message has {found} bytes or more, the limit is {limit}")]
    TooLong {
        /// Its length, as far as it is known.
        found: usize,
        /// The limit.
        limit: usize,
    },
    /// A frame or a message cannot be read.
    #[error("a frame cannot be read")]
    Damaged(#[from] DecodeError),
}

/// Packs messages of one flush.
#[derive(Debug, Default)]
pub struct FrameWriter {
    buffer: Vec<u8>,
    /// Where the head of the open frame begins, if one is open.
    open: Option<usize>,
}

impl FrameWriter {
    /// A writer with an empty buffer.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a message.
    ///
    /// # Errors
    /// [`FrameError::TooLong`] for a message over [`MESSAGE_BYTES_MAX`]; nothing is added.
    pub fn push(&mut self, message: &Message) -> Result<(), FrameError> {
        let before = self.buffer.len();
        let was_open = self.open.is_some();
        let start = self.open.unwrap_or(before);
        if !was_open {
            self.buffer.extend_from_slice(&[0; HEAD_BYTES]);
        }
        let length_at = self.buffer.len();
        self.buffer.extend_from_slice(&[0; LENGTH_BYTES]);
        let message_at = self.buffer.len();
        write_message(message, &mut self.buffer);
        let length = self.buffer.len() - message_at;
        if FRAME_BYTES_USUAL < length {
            let bytes = self.buffer.split_off(message_at);
            self.buffer.truncate(before);
            if was_open {
                self.seal();
            }
            return self.push_pieces(&bytes);
        }
        put(&mut self.buffer, length_at, &length_bytes(length));
        self.open = Some(start);
        if FRAME_BYTES_USUAL <= self.buffer.len() - start {
            self.seal();
        }
        Ok(())
    }

    /// Bytes that wait to be sent.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.buffer.len()
    }

    /// Whether nothing waits to be sent.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Ends the open frame and swaps what waits to be sent with an empty buffer.
    pub fn swap(&mut self, buffer: &mut Vec<u8>) {
        self.seal();
        buffer.clear();
        std::mem::swap(&mut self.buffer, buffer);
    }

    fn push_pieces(&mut self, bytes: &[u8]) -> Result<(), FrameError> {
        if MESSAGE_BYTES_MAX < bytes.len() {
            return Err(FrameError::TooLong { found: bytes.len(), limit: MESSAGE_BYTES_MAX });
        }
        let mut pieces = bytes.chunks(FRAME_BYTES_USUAL).peekable();
        while let Some(piece) = pieces.next() {
            let start = self.buffer.len();
            self.buffer.extend_from_slice(&[0; HEAD_BYTES]);
            self.buffer.extend_from_slice(piece);
            let kind = if pieces.peek().is_some() { Kind::Piece } else { Kind::LastPiece };
            self.write_head(start, kind);
        }
        Ok(())
    }

    fn seal(&mut self) {
        if let Some(start) = self.open.take() {
            self.write_head(start, Kind::Messages);
        }
    }

    fn write_head(&mut self, start: usize, kind: Kind) {
        let content = self.buffer.get(start + HEAD_BYTES..).unwrap_or_default();
        let [a, b, c, d] = length_bytes(content.len());
        let [e, f, g, h] = checksum(kind as u8, [a, b, c, d], content).to_le_bytes();
        let [first, second] = MAGIC;
        put(&mut self.buffer, start, &[first, second, kind as u8, a, b, c, d, e, f, g, h]);
    }
}

/// Unpacks messages from bytes as they arrive.
#[derive(Debug, Default)]
pub struct FrameReader {
    /// Bytes that were fed; those before `taken` are done with.
    buffer: Vec<u8>,
    taken: usize,
    /// Where the content of the frame ends whose messages are being taken.
    frame_end: Option<usize>,
    /// A message of which the last piece has not come yet.
    pieces: Vec<u8>,
}

impl FrameReader {
    /// A reader that was fed nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes bytes that arrived; call [`FrameReader::next`] until there are no more messages
    /// before feeding again.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.taken < self.buffer.len() {
            self.buffer.drain(..self.taken);
        } else if self.buffer.capacity() <= KEPT_BYTES_MAX {
            self.buffer.clear();
        } else {
            self.buffer = Vec::new();
        }
        self.frame_end = self.frame_end.map(|end| end - self.taken);
        self.taken = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// Bytes that are held.
    #[must_use]
    pub const fn held_bytes(&self) -> usize {
        self.buffer.len() - self.taken + self.pieces.len()
    }

    /// The next whole message; `None` when more bytes must arrive first.
    ///
    /// # Errors
    /// [`FrameError`] when the bytes are no frame or no message; the link cannot go on.
    #[expect(clippy::should_implement_trait, reason = "more bytes may bring more messages")]
    pub fn next(&mut self) -> Result<Option<Message>, FrameError> {
        loop {
            if let Some(end) = self.frame_end {
                if self.taken < end {
                    return self.take_message(end).map(Some);
                }
                self.frame_end = None;
            }
            let Some((kind, end)) = self.whole_frame()? else { return Ok(None) };
            self.taken += HEAD_BYTES;
            match kind {
                Kind::Messages => self.frame_end = Some(end),
                Kind::Piece => self.take_piece(end)?,
                Kind::LastPiece => {
                    self.take_piece(end)?;
                    let bytes = std::mem::take(&mut self.pieces);
                    return Ok(Some(read_message(&bytes)?));
                }
            }
        }
    }

    /// The kind and the end of the frame at the front, once all of it is here and sound.
    fn whole_frame(&self) -> Result<Option<(Kind, usize)>, FrameError> {
        let rest = self.buffer.get(self.taken..).unwrap_or_default();
        let Some((head, content)) = rest.split_first_chunk::<HEAD_BYTES>() else {
            return Ok(None);
        };
        let [first, second, kind, a, b, c, d, e, f, g, h] = *head;
        if [first, second] != MAGIC {
            return Err(FrameError::NotAFrame { found: [first, second] });
        }
        let length = u32::from_le_bytes([a, b, c, d]) as usize;
        if FRAME_BYTES_MAX < length {
            return Err(FrameError::TooLong { found: length, limit: FRAME_BYTES_MAX });
        }
        let Some(content) = content.get(..length) else { return Ok(None) };
        let computed = checksum(kind, [a, b, c, d], content);
        let found = u32::from_le_bytes([e, f, g, h]);
        if found != computed {
            return Err(DecodeError::Checksum { found, computed }.into());
        }
        let kind = match kind {
            0 => Kind::Messages,
            1 => Kind::Piece,
            2 => Kind::LastPiece,
            found => return Err(DecodeError::UnknownTag { what: "kind of a frame", found }.into()),
        };
        if kind == Kind::Messages && !self.pieces.is_empty() {
            return Err(DecodeError::Short { wanted: 1 }.into());
        }
        Ok(Some((kind, self.taken + HEAD_BYTES + length)))
    }

    fn take_message(&mut self, end: usize) -> Result<Message, FrameError> {
        let rest = self.buffer.get(self.taken..end).unwrap_or_default();
        let (length, rest) = rest
            .split_first_chunk::<LENGTH_BYTES>()
            .ok_or(DecodeError::Short { wanted: LENGTH_BYTES })?;
        let length = u32::from_le_bytes(*length) as usize;
        let bytes = rest.get(..length).ok_or(DecodeError::Short { wanted: length })?;
        let message = read_message(bytes)?;
        self.taken += LENGTH_BYTES + length;
        Ok(message)
    }

    fn take_piece(&mut self, end: usize) -> Result<(), FrameError> {
        let piece = self.buffer.get(self.taken..end).unwrap_or_default();
        let found = self.pieces.len() + piece.len();
        if MESSAGE_BYTES_MAX < found {
            return Err(FrameError::TooLong { found, limit: MESSAGE_BYTES_MAX });
        }
        self.pieces.extend_from_slice(piece);
        self.taken = end;
        Ok(())
    }
}

fn checksum(kind: u8, length: [u8; 4], content: &[u8]) -> u32 {
    let [a, b, c, d] = length;
    crc32c::crc32c_append(crc32c::crc32c(&[kind, a, b, c, d]), content)
}

fn length_bytes(length: usize) -> [u8; 4] {
    u32::try_from(length).expect("frames and their messages are short").to_le_bytes()
}

fn put(buffer: &mut [u8], at: usize, bytes: &[u8]) {
    let place = buffer.get_mut(at..at + bytes.len()).expect("room was made before the content");
    place.copy_from_slice(bytes);
}
