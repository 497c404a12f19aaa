//! Packs a message into the bytes that travel, and unpacks it where it arrives.

use antecede_protocol::{
    message::Message,
    wire::{read_message, write_message},
};

/// A message under way.
#[derive(Clone, Debug)]
pub struct Parcel(Vec<u8>);

impl Parcel {
    /// Packs a message.
    #[must_use]
    pub fn pack(message: &Message) -> Self {
        let mut bytes = Vec::with_capacity(128);
        write_message(message, &mut bytes);
        Self(bytes)
    }

    /// Unpacks it.
    ///
    /// # Errors
    /// Why the bytes are no message.
    pub fn unpack(&self) -> Result<Message, String> {
        read_message(&self.0).map_err(|error| error.to_string())
    }
}
