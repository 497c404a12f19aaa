//! Reads what arrives from another node: its hello, then its messages.
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
    },
};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::link::LinkError;

/// Reads the hello that a new link begins with, byte by byte: what follows it belongs to the
/// frames.
///
/// # Errors
/// [`LinkError`] when the stream ends or fails, or as soon as the bytes can be no hello.
pub async fn read_hello<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Hello, LinkError> {
    let mut bytes = Vec::new();
    loop {
        bytes.push(stream.read_u8().await?);
        if let Some((hello, _)) = Hello::read(&bytes)? {
            return Ok(hello);
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
