//! Ways around a bad link: a node that cannot reach one of another datacenter asks a node of a third
//! to pass on what it says, and says hello to the one that it wanted.
//!
//! The two ends speak as if nobody were between them: to machines it is a link with a longer way, so
//! nothing that they promise changes. A node that passes on reads nothing of it, keeps at most
//! `PASS_BYTES` of each connection, and does not read faster than the other end does.
//!
//! Only one node is ever between, and only between datacenters: who cannot reach a neighbour of its
//! own datacenter leaves the chain.
//!
//! Limits: `RELAYS_MAX` connections; who asks for one more is told so and asks another node.

use std::sync::Arc;
use std::time::Duration;

use antecede_model::{
    clock::Steady,
    ids::{DatacenterId, NodeId},
};
use antecede_protocol::wire::relay::{RelayAnswer, RelayRefusal, RelayRequest};
use metrics::Counter;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tracing::{debug, info};

use super::arriving::read_relay_answer;
use super::link::{Link, LinkError, patience};
use crate::clock;
use crate::node::Node;

/// Connections that a node passes on at the same time.
const RELAYS_MAX: usize = 256;
/// How much of a connection is read at a time; clients of this node wait for so long.
const PASS_BYTES: usize = 16 * 1024;
/// How much the other end answers at a time: signs of life.
const ANSWER_BYTES: usize = 64;
/// How long a node is not reached until others are asked.
const UNREACHED_FOR: Duration = Duration::from_secs(5);
/// How long a node that passes on tries to reach the other end: who asked is as patient again.
const DIAL_LIMIT: Duration = Duration::from_secs(2);
/// The first pause until the straight way is tried again; it doubles while that does not last.
const STRAIGHT_PAUSE_MIN: Duration = Duration::from_secs(5);
/// The longest such pause; a straight way that stands for as long is a good one.
const STRAIGHT_PAUSE_MAX: Duration = Duration::from_secs(300);

/// What a node passes on for others.
#[derive(Debug)]
pub(crate) struct Relays {
    free: Arc<Semaphore>,
}

impl Relays {
    pub(super) fn new() -> Self {
        Self { free: Arc::new(Semaphore::new(RELAYS_MAX)) }
    }

    /// Connections that it passes on now.
    pub(crate) fn count(&self) -> usize {
        RELAYS_MAX - self.free.available_permits()
    }
}

/// How a link goes around a broken way.
#[derive(Debug)]
pub(super) struct Detour {
    own: NodeId,
    to: NodeId,
    /// Who is asked next among those who can be: not the same one for all links.
    turn: usize,
    /// How long until the straight way is tried.
    pause: Duration,
}

impl Detour {
    pub(super) const fn new(own: NodeId, to: NodeId) -> Self {
        let turn = own.number as usize + to.number as usize;
        Self { own, to, turn, pause: STRAIGHT_PAUSE_MIN }
    }

    /// Whether another way is due, since there is no straight one.
    pub(super) fn is_due(&self, link: &Link) -> bool {
        let is_far = self.own.datacenter != self.to.datacenter;
        is_far && link.is_unreached(clock::steady(), UNREACHED_FOR)
    }

    /// Asks a node of a third datacenter to pass on; the next one the next time.
    pub(super) async fn open(&mut self, node: &Node) -> Result<(TcpStream, NodeId), LinkError> {
        let turn = self.turn;
        self.turn = turn.wrapping_add(1);
        let relay = {
            let all = node.links.all();
            let ends = [self.own.datacenter, self.to.datacenter];
            let able = able(ends, all.values());
            able.get(turn % able.len().max(1)).map(|link| Arc::clone(link))
        };
        let relay = relay.ok_or(RelayRefusal::Unreached)?;
        let mut stream = TcpStream::connect(relay.address()).await?;
        stream.set_nodelay(true)?;
        let deployment = node.configuration().deployment;
        let mut bytes = Vec::new();
        RelayRequest { deployment, from: self.own, to: self.to }.write(&mut bytes);
        stream.write_all(&bytes).await?;
        match read_relay_answer(&mut stream).await? {
            RelayAnswer::Open => Ok((stream, relay.node())),
            RelayAnswer::Refused(refusal) => {
                debug!(node = %self.own, peer = %self.to, through = %relay.node(), %refusal, "no way around");
                Err(refusal.into())
            }
        }
    }

    /// Waits until the other end is reached without anybody between.
    pub(super) async fn straight_again(&mut self, address: &str) -> TcpStream {
        let patience = patience(self.own, self.to).handshake;
        loop {
            sleep(self.pause).await;
            if let Ok(Ok(stream)) = timeout(patience, TcpStream::connect(address)).await {
                self.lengthen();
                return stream;
            }
        }
    }

    /// Waits longer before the next try: a straight way that lasts shortens that again.
    fn lengthen(&mut self) {
        self.pause = (self.pause * 2).min(STRAIGHT_PAUSE_MAX);
    }

    /// Takes note that a straight connection ends, which had stood since then.
    pub(super) fn note_straight(&mut self, since: Option<Steady>) {
        let stood = since.map(|since| clock::steady().0.saturating_sub(since.0));
        if stood.is_some_and(|stood| STRAIGHT_PAUSE_MAX <= stood) {
            self.pause = STRAIGHT_PAUSE_MIN;
        }
    }
}

/// Who may pass on between two datacenters: nodes of others that are reached themselves.
fn able<'a>(
    ends: [DatacenterId; 2],
    all: impl Iterator<Item = &'a Arc<Link>>,
) -> Vec<&'a Arc<Link>> {
    all.filter(|link| !ends.contains(&link.node().datacenter) && link.is_straight()).collect()
}

/// Passes on between a node that has asked for it and the one that it wants, until either ends.
pub(super) async fn pass_on(
    node: &Arc<Node>,
    mut asking: TcpStream,
    request: RelayRequest,
) -> Result<(), LinkError> {
    let RelayRequest { from, to, .. } = request;
    let mut answer = Vec::new();
    let (wanted, permit) = match reach(node, request).await {
        Ok(reached) => reached,
        Err(refusal) => {
            debug!(node = %node.id, %from, %to, %refusal, "not passed on");
            RelayAnswer::Refused(refusal).write(&mut answer);
            return Ok(asking.write_all(&answer).await?);
        }
    };
    RelayAnswer::Open.write(&mut answer);
    asking.write_all(&answer).await?;
    info!(node = %node.id, %from, %to, "passes on: the two do not reach each other");
    // A node that asked and is gone without a word holds nothing for long: what it is passed is a
    // sign of life a second, and all of them must arrive.
    let silence = patience(from, to).silence;
    SockRef::from(&asking).set_tcp_user_timeout(Some(2 * silence))?;
    let ended = between(asking, wanted, &node.telemetry.relayed_bytes, silence);
    let ended = ended.await;
    drop(permit);
    let error = ended.err().map(tracing::field::display);
    info!(node = %node.id, %from, %to, error, "passes on no more");
    Ok(())
}

/// A connection to the node that is wanted, if this node may and can have one.
async fn reach(
    node: &Node,
    request: RelayRequest,
) -> Result<(TcpStream, OwnedSemaphorePermit), RelayRefusal> {
    request.accept(node.id, &node.configuration())?;
    let link = node.links.to(request.to).filter(|link| link.is_straight());
    let link = link.ok_or(RelayRefusal::Unreached)?;
    let free = Arc::clone(&node.links.relays.free);
    let permit = free.try_acquire_owned().map_err(|_| RelayRefusal::Busy)?;
    match timeout(DIAL_LIMIT, TcpStream::connect(link.address())).await {
        Ok(Ok(stream)) if stream.set_nodelay(true).is_ok() => Ok((stream, permit)),
        Ok(_) | Err(_) => Err(RelayRefusal::Unreached),
    }
}

/// Passes bytes both ways until one end is closed, or the one that is wanted is silent for too long:
/// it says now and then that it is there.
async fn between(
    mut asking: TcpStream,
    mut wanted: TcpStream,
    passed: &Counter,
    silence: Duration,
) -> Result<(), LinkError> {
    let (from_asking, to_asking) = asking.split();
    let (from_wanted, to_wanted) = wanted.split();
    tokio::select! {
        ended = pass::<PASS_BYTES>(from_asking, to_wanted, None, passed) => ended,
        ended = pass::<ANSWER_BYTES>(from_wanted, to_asking, Some(silence), passed) => ended,
    }
}

/// Passes bytes one way, at most `BYTES` of them at a time.
async fn pass<const BYTES: usize>(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    silence: Option<Duration>,
    passed: &Counter,
) -> Result<(), LinkError> {
    let mut buffer = vec![0; BYTES];
    loop {
        let reading = from.read(&mut buffer);
        let count = match silence {
            Some(silence) => {
                timeout(silence, reading).await.map_err(|_| LinkError::Silent(silence))??
            }
            None => reading.await?,
        };
        if count == 0 {
            return Ok(());
        }
        to.write_all(buffer.get(..count).unwrap_or_default()).await?;
        passed.increment(count as u64);
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn node(datacenter: u16, number: u16) -> NodeId {
        NodeId { datacenter: DatacenterId(datacenter), number }
    }

    /// Both ends of a connection.
    async fn connection() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dialling = TcpStream::connect(listener.local_addr().unwrap());
        let (dialled, accepted) = tokio::join!(dialling, listener.accept());
        (dialled.unwrap(), accepted.unwrap().0)
    }

    #[tokio::test]
    async fn what_one_end_says_arrives_at_the_other_until_one_has_closed() {
        let (mut asking, near) = connection().await;
        let (far, mut wanted) = connection().await;
        let passed = Counter::noop();
        let passing = tokio::spawn(async move { between(near, far, &passed, LONG).await });
        let said = vec![7; 5 * PASS_BYTES + 1];
        let (all, mut heard) = (said.clone(), vec![0; said.len()]);
        let saying = async { asking.write_all(&all).await };
        let (written, read) = tokio::join!(saying, wanted.read_exact(&mut heard));
        assert!(written.is_ok() && read.is_ok() && heard == said);
        wanted.write_all(&[0]).await.unwrap();
        assert_eq!(asking.read_u8().await.unwrap(), 0);
        drop(asking);
        assert_eq!(wanted.read(&mut [0; 8]).await.unwrap(), 0, "the other end hears of it");
        assert!(passing.await.unwrap().is_ok());
    }

    #[tokio::test]
    async fn an_end_that_is_silent_is_not_passed_on_to() {
        let (_asking, near) = connection().await;
        let (far, _wanted) = connection().await;
        let silence = Duration::from_millis(50);
        let ended = between(near, far, &Counter::noop(), silence).await;
        assert!(matches!(ended, Err(LinkError::Silent(found)) if found == silence), "{ended:?}");
    }

    #[tokio::test]
    async fn the_straight_way_is_tried_less_often_while_it_does_not_last() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let mut detour = Detour::new(node(1, 1), node(3, 1));
        detour.pause = Duration::ZERO;
        drop(detour.straight_again(&address).await);
        for (before, after) in [(5, 10), (40, 80), (200, 300), (300, 300)] {
            detour.pause = Duration::from_secs(before);
            detour.lengthen();
            assert_eq!(detour.pause, Duration::from_secs(after));
        }
        detour.note_straight(Some(clock::steady()));
        detour.note_straight(None);
        assert_eq!(detour.pause, STRAIGHT_PAUSE_MAX, "it did not last");
        let long_ago = clock::steady().0.checked_sub(STRAIGHT_PAUSE_MAX);
        if let Some(long_ago) = long_ago {
            detour.note_straight(Some(Steady(long_ago)));
            assert_eq!(detour.pause, STRAIGHT_PAUSE_MIN);
        }
    }
}
