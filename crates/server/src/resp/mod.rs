//! Speaks the Redis protocol, without a socket: bytes in, commands out; answers in, bytes out.
//!
//! The way of a request: `frame` cuts the bytes that arrived into requests; `commands` looks the
//! request up in the table and turns its arguments into a command; `connection` decides whether
//! this connection may send it now (authentication, `MULTI`) and answers itself what does not
//! concern keys; the rest goes to the session. The way back: `shape` gives the session's answer
//! the form that the command's clients expect, `replies` keeps the order, `reply` writes.
//!
//! Invariant: nothing outside this folder knows what RESP looks like.

/// What each command is called, takes and means.
pub mod commands;
/// What one connection has agreed on, and what it may do now.
pub mod connection;
/// What the connection asks of the server around it.
pub mod environment;
/// Requests cut out of bytes.
pub mod frame;
/// Names matched against patterns.
pub mod glob;
/// Numbers as Redis reads them.
pub mod integer;
/// Replies in the order of requests.
pub mod replies;
/// Replies as bytes.
pub mod reply;
/// The form of the session's answers.
pub mod shape;
