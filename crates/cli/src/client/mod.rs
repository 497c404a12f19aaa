//! Speaks the Redis protocol as a client: for the load of `bench`, for `demo` and for questions.

/// A connection for one request after another.
pub(crate) mod connection;
/// Bytes of replies.
pub(crate) mod reply;
/// Bytes of requests.
pub(crate) mod request;

pub(crate) use connection::Connection;
