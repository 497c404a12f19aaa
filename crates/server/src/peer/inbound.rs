//! What other nodes say to this one: a task for each connection that they dialled.
//!
//! All messages of what was read are handled as one batch, then everything is sent on and the log
//! is flushed once. A peer that has much to say is heard in turns with everybody else.
//!
//! Assumes: the wire's reader lets nothing through that is not whole and within limits.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use antecede_model::ids::NodeId;
use antecede_protocol::{
    machine::Envelope,
    wire::{
        frame::{FrameError, FrameReader},
        relay::Opening,
    },
};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::{info, warn};

use super::arriving::{read_opening, take_messages};
use super::link::{HANDSHAKE_TIMEOUT, LinkError, answer_hello, patience};
use super::relay;
use crate::node::{Node, Work};
use crate::workers::{Placement, Stay};

/// How much is read at a time from a connection of a node of this datacenter.
const READ_BYTES: usize = 256 * 1024;
/// How much is read at a time from one of another datacenter: as much as takes about a millisecond,
/// since clients of this node wait for so long. After a partition these connections bring what
/// was written meanwhile, as fast as it is read.
const READ_BYTES_FAR: usize = 16 * 1024;
/// How long to wait after a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// After this silence the system asks whether the peer's machine is still there.
const KEEPALIVE_TIME: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
enum InboundError {
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error("its clock is too far ahead; compare both nodes' clocks")]
    Drift,
    #[error("bytes that are no frame arrived")]
    Frame(#[from] FrameError),
    #[error("the connection failed")]
    Io(#[from] io::Error),
    #[error("node {0} is of this deployment no more")]
    Gone(NodeId),
}

/// Takes connections of other nodes; they end with this task.
pub(crate) async fn accept(node: Arc<Node>, listener: TcpListener, placement: Option<Placement>) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok((stream, address)) => {
                let (node, placement) = (Arc::clone(&node), placement.clone());
                connections.spawn(async move {
                    if let Err(error) = serve(&node, stream, placement).await
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

async fn serve(
    node: &Arc<Node>,
    mut stream: TcpStream,
    placement: Option<Placement>,
) -> Result<(), InboundError> {
    stream.set_nodelay(true)?;
    SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE_TIME))?;
    let opening = timeout(HANDSHAKE_TIMEOUT, open(node, &mut stream))
        .await
        .map_err(|_| LinkError::Silent(HANDSHAKE_TIMEOUT))??;
    let hello = match opening {
        Opening::Hello(hello) => hello,
        Opening::Relay(request) => return Ok(relay::pass_on(node, stream, request).await?),
    };
    info!(node = %node.id, peer = %hello.node, boot = %hello.boot, "a peer has connected");
    let hearing = node.links.to(hello.node).map(|link| link.hear());
    let sender = Sender { node: hello.node, boot: hello.boot };
    let result = live(Arc::clone(node), stream, sender, placement).await;
    drop(hearing);
    // What the peer still had to answer may have been on this connection.
    node.sessions.link_lost(hello.node);
    result
}

/// Hears what a connection begins with, and answers a hello.
async fn open(node: &Arc<Node>, stream: &mut TcpStream) -> Result<Opening, LinkError> {
    Ok(match read_opening(stream).await? {
        Opening::Hello(theirs) => Opening::Hello(answer_hello(node, theirs, stream).await?),
        relay @ Opening::Relay(_) => relay,
    })
}

#[derive(Clone, Copy, Debug)]
struct Sender {
    node: NodeId,
    boot: antecede_model::ids::Boot,
}

/// Receives where connections shall live, until the connection ends.
async fn live(
    node: Arc<Node>,
    stream: TcpStream,
    sender: Sender,
    placement: Option<Placement>,
) -> Result<(), InboundError> {
    let mut reader = FrameReader::new();
    let Some(placement) = placement else {
        return receive(&node, &stream, sender, &mut reader, &Stay::FOR_EVER).await;
    };
    placement
        .follow((reader, stream.into_std()?), move |(mut reader, socket), stay| {
            let node = Arc::clone(&node);
            async move {
                let life = async {
                    let stream = TcpStream::from_std(socket)?;
                    receive(&node, &stream, sender, &mut reader, &stay).await?;
                    io::Result::Ok(stream.into_std()?).map_err(InboundError::from)
                };
                match life.await {
                    Ok(socket) => Ok((reader, socket)),
                    Err(error) => Err(Err(error)),
                }
            }
        })
        .await
}

/// Receives until the connection ends, which is an error, or moves.
async fn receive(
    node: &Node,
    stream: &TcpStream,
    sender: Sender,
    reader: &mut FrameReader,
    stay: &Stay,
) -> Result<(), InboundError> {
    let is_near = sender.node.datacenter == node.id.datacenter;
    let mut buffer = vec![0_u8; if is_near { READ_BYTES } else { READ_BYTES_FAR }];
    let mut work = Work::begin();
    let mut heartbeat = interval(patience(node.id, sender.node).heartbeat);
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
                if node.links.to(sender.node).is_none() {
                    return Err(InboundError::Gone(sender.node));
                }
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
        take_messages(reader, buffer.get(..count).unwrap_or_default(), |message| {
            node.receive(Envelope { from, boot, message }, &mut work);
        })?;
        node.finish(&mut work);
        if node.links.to(from).is_some_and(|link| link.take_distrust()) {
            return Err(InboundError::Drift);
        }
        if stay.is_over() {
            return Ok(());
        }
        if count == buffer.len() {
            // More is there: whoever else is ready on this thread comes first.
            tokio::task::yield_now().await;
        }
    }
}
