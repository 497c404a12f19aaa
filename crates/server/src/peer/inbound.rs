//! What other nodes say to this one: a task for each connection that they dialled.
//!
//! All messages of what was read are handled as one batch, then everything is sent on and the log
//! is flushed once.
//!
//! Assumes: the wire's reader lets nothing through that is not whole and within limits.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use antecede_model::ids::NodeId;
use antecede_protocol::{
    machine::Envelope,
    wire::frame::{FrameError, FrameReader},
};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::{info, warn};

use super::arriving::take_messages;
use super::link::{HANDSHAKE_TIMEOUT, HEARTBEAT_INTERVAL, Link, LinkError, shake_hands};
use crate::node::{Node, Work};

/// How much is read from a connection at a time.
const READ_BYTES: usize = 256 * 1024;
/// How long to wait after a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// After this silence the system asks whether the peer's machine is still there.
const KEEPALIVE_TIME: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
enum InboundError {
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error("bytes that are no frame arrived")]
    Frame(#[from] FrameError),
    #[error("the connection failed")]
    Io(#[from] io::Error),
}

/// Takes connections of other nodes; they end with this task.
pub(crate) async fn accept(node: Arc<Node>, listener: TcpListener) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok((stream, address)) => {
                let node = Arc::clone(&node);
                connections.spawn(async move {
                    if let Err(error) = serve(&node, stream).await
                        && !node.is_stopping()
                    {
                        let cause = std::error::Error::source(&error).map(ToString::to_string);
                        warn!(node = %node.id, %address, %error, cause, "a peer's connection ended");
                    }
                });
            }
            Err(error) => {
                warn!(node = %node.id, %error, "cannot take a peer's connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve(node: &Node, mut stream: TcpStream) -> Result<(), InboundError> {
    stream.set_nodelay(true)?;
    SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE_TIME))?;
    let hello = timeout(HANDSHAKE_TIMEOUT, shake_hands(node, &mut stream))
        .await
        .map_err(|_| LinkError::Silent(HANDSHAKE_TIMEOUT))??;
    node.learn_boot(hello.node, hello.boot)?;
    info!(node = %node.id, peer = %hello.node, boot = %hello.boot, "a peer has connected");
    let hearing = node.links.to(hello.node).map(Link::hear);
    let result = receive(node, &stream, Sender { node: hello.node, boot: hello.boot }).await;
    drop(hearing);
    // What the peer still had to answer may have been on this connection.
    node.sessions.link_lost(hello.node);
    result
}

#[derive(Clone, Copy, Debug)]
struct Sender {
    node: NodeId,
    boot: antecede_model::ids::Boot,
}

async fn receive(node: &Node, stream: &TcpStream, sender: Sender) -> Result<(), InboundError> {
    let mut reader = FrameReader::new();
    let mut buffer = vec![0_u8; READ_BYTES];
    let mut work = Work::begin();
    let mut heartbeat = interval(HEARTBEAT_INTERVAL);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let counters = node.telemetry.link(sender.node);
    loop {
        tokio::select! {
            readable = stream.readable() => readable?,
            _ = heartbeat.tick() => {
                // A full socket is read by nobody, and then a sign of life helps nobody.
                if let Err(error) = stream.try_write(&[0])
                    && error.kind() != io::ErrorKind::WouldBlock
                {
                    return Err(error.into());
                }
                node.learn_boot(sender.node, sender.boot)?;
                continue;
            }
        }
        let count = match stream.try_read(&mut buffer) {
            Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error.into()),
        };
        counters.received_bytes.increment(count as u64);
        work.restart();
        let Sender { node: from, boot } = sender;
        take_messages(&mut reader, buffer.get(..count).unwrap_or_default(), |message| {
            node.receive(Envelope { from, boot, message }, &mut work);
        })?;
        node.finish(&mut work);
    }
}
