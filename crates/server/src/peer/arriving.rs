//! Reads what arrives from another node: what a connection begins with, then its messages.
//!
//! Both ends of a link use it, and so does the program that feeds links hostile bytes
//! (`examples/fuzz_peer.rs`): nothing that a peer sends is read anywhere else.
//!
//! Ensures: never a panic, and no more memory than in proportion to the bytes that arrived.

use antecede_protocol::{
    message::Message,
    wire::{
        frame::{FrameError, FrameReader},
        hello::{HELLO_BYTES_MAX, Hello, ReadHelloError},
        relay::{Opening, RelayAnswer},
    },
};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::link::LinkError;

/// Reads the hello that the other end of a new link answers.
///
/// # Errors
/// [`LinkError`] when the stream ends or fails, or as soon as the bytes can be no hello.
pub(super) async fn read_hello<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Hello, LinkError> {
    read_whole(stream, Hello::read).await
}

/// Reads what a connection begins with that another node has dialled.
///
/// # Errors
/// [`LinkError`] when the stream ends or fails, or as soon as the bytes can be neither a hello nor a
/// request to be passed on.
pub async fn read_opening<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Opening, LinkError> {
    read_whole(stream, Opening::read).await
}

/// Reads what a node answers that was asked to pass on.
pub(super) async fn read_relay_answer<S: AsyncRead + Unpin>(
    stream: &mut S,
) -> Result<RelayAnswer, LinkError> {
    read_whole(stream, RelayAnswer::read).await
}

/// Reads one thing byte by byte: what follows it belongs to somebody else.
async fn read_whole<S: AsyncRead + Unpin, T>(
    stream: &mut S,
    read: impl Fn(&[u8]) -> Result<Option<(T, usize)>, ReadHelloError>,
) -> Result<T, LinkError> {
    let mut bytes = Vec::new();
    loop {
        bytes.push(stream.read_u8().await?);
        if let Some((whole, _)) = read(&bytes)? {
            return Ok(whole);
        }
        if HELLO_BYTES_MAX < bytes.len() {
            return Err(ReadHelloError::NotAHello.into());
        }
    }
}

/// Calls `each` with every message that is whole once these bytes have arrived.
///
/// # Errors
/// [`FrameError`] when the bytes are no frame or no message; the link cannot go on.
pub fn take_messages(
    reader: &mut FrameReader,
    bytes: &[u8],
    mut each: impl FnMut(Message),
) -> Result<(), FrameError> {
    reader.feed(bytes);
    while let Some(message) = reader.next()? {
        each(message);
    }
    Ok(())
}
