//! What this node says to another: a buffer, a connection, and the task that keeps it.
//!
//! Messages are encoded straight into the buffer of the next frame. Whoever ends a batch flushes:
//! it writes to the socket itself, without a hop to another task, unless somebody else is writing
//! or the socket is full; then what it has added goes with the next write. On a delayed path
//! frames wait in a queue until they are due, and the courier flushes.
//!
//! The other side sends a byte now and then, so that silence means that it is gone.
//!
//! Ensures: frames leave in the order in which their messages were pushed.
//! Ensures: an answer to a node that counts this one as heard is sent, or that node sees its
//! connection end: answers are taken from before this node says hello.
//! Limits: `queued_bytes_max`; what is beyond is dropped and counted, and its sender will say it
//! again.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use antecede_model::{
    clock::Steady,
    ids::{Boot, NodeId},
};
use antecede_protocol::{
    entry::Change,
    manager::UNREACHED_AFTER,
    message::{Body, Message},
    wire::{
        frame::FrameWriter,
        hello::{Hello, Keeps, LinkRefusal, ReadHelloError},
        relay::RelayRefusal,
    },
};
use parking_lot::Mutex;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::timeout;
use tracing::{info, warn};

use super::arriving::read_hello;
use super::relay::Detour;
use super::shaper::{Courier, LinkShape, Path};
use crate::clock;
use crate::node::{Node, StartError};
use crate::telemetry::LinkCounters;

/// How patient two nodes are with each other.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// How long dialling and a handshake may take.
    pub(super) handshake: Duration,
    /// How often the receiving side says that it is there.
    pub(super) heartbeat: Duration,
    /// How long it may be silent.
    pub(super) silence: Duration,
    /// The longest pause before dialling again.
    pause: Duration,
}

/// Of one datacenter: their chains stand still while they do not hear each other.
const NEAR: Patience = Patience {
    handshake: Duration::from_secs(2),
    heartbeat: Duration::from_millis(500),
    silence: Duration::from_secs(2),
    pause: Duration::from_millis(500),
};
const _: () = assert!(NEAR.heartbeat.as_millis() * 3 < NEAR.silence.as_millis());
const _: () = assert!(
    NEAR.pause.as_millis() * 3 < UNREACHED_AFTER.as_millis(),
    "who has restarted is connected again before it counts as not reached"
);

/// Of two datacenters.
const FAR: Patience = Patience {
    handshake: Duration::from_secs(5),
    heartbeat: Duration::from_secs(1),
    silence: Duration::from_secs(5),
    pause: Duration::from_secs(2),
};
const _: () = assert!(FAR.heartbeat.as_millis() * 3 < FAR.silence.as_millis());

/// How long whoever has dialled may take to say who he is.
pub(super) const HANDSHAKE_TIMEOUT: Duration = FAR.handshake;
/// The first pause before dialling again; it doubles each time.
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// How many bytes go to the socket in one write, about.
const WRITE_BYTES: usize = 256 * 1024;

/// What a link is made of.
#[derive(Debug)]
pub(crate) struct LinkOptions {
    pub(crate) to: NodeId,
    pub(crate) address: String,
    pub(crate) queued_bytes_max: usize,
    pub(crate) path: Arc<Path>,
    pub(crate) courier: Arc<Courier>,
    /// For the jitter of delays and pauses.
    pub(crate) seed: u64,
    pub(crate) counters: LinkCounters,
}

/// A link to one node.
#[derive(Debug)]
pub(crate) struct Link {
    options: LinkOptions,
    state: Mutex<State>,
    has_pending: AtomicBool,
    /// Calls the task: the socket is full, or the connection has failed.
    call: Notify,
    random: AtomicU64,
    /// Connections that the other node has dialled.
    heard: AtomicUsize,
    /// Whether something that the other node said was ahead of this node's clock.
    is_distrusted: AtomicBool,
    reach: Mutex<Reach>,
}

/// Since when the other node is reached, or is not.
#[derive(Clone, Copy, Debug)]
enum Reach {
    /// The connection stands, and the other side has said that it takes what is said there.
    ///
    /// What is said goes through this node of a third datacenter if there is one.
    Connected(Steady, Option<NodeId>),
    /// There is none, since then or since the node was expected anew.
    Lost(Steady),
}

/// How patient a node is with another.
pub(super) fn patience(of: NodeId, with: NodeId) -> Patience {
    if of.datacenter == with.datacenter { NEAR } else { FAR }
}

/// A connection that the other node has dialled.
#[derive(Debug)]
pub(crate) struct Hearing {
    link: Arc<Link>,
}

impl Drop for Hearing {
    fn drop(&mut self) {
        self.link.heard.fetch_sub(1, Ordering::AcqRel);
    }
}

#[derive(Debug, Default)]
struct State {
    /// The frame that is being filled.
    frames: FrameWriter,
    /// Sealed frames that wait, in order.
    queue: VecDeque<Sealed>,
    queued_bytes: usize,
    /// A buffer to use again.
    spare: Vec<u8>,
    /// The connection, once both sides have agreed.
    stream: Option<Arc<TcpStream>>,
    /// Whether a connection is being agreed upon: the other side may count it before this one does,
    /// and ask for something.
    is_opening: bool,
    is_writing: bool,
    /// Whether its node is none of the configuration any more: there is never a connection again.
    is_retired: bool,
    /// The socket was full; the task waits until it is not.
    is_blocked: bool,
    last_due: Steady,
    boot: Boot,
}

#[derive(Debug)]
struct Sealed {
    due: Steady,
    bytes: Vec<u8>,
    written: usize,
}

/// Why a connection ended or was not made.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The network failed.
    #[error("the connection failed")]
    Io(#[from] io::Error),
    /// Nothing came for too long.
    #[error("nothing was heard for {} s", .0.as_secs())]
    Silent(Duration),
    /// The other side said something else.
    #[error(transparent)]
    NotAHello(#[from] ReadHelloError),
    /// What was met cannot be written down.
    #[error("a node with a new data folder must be written down before it is answered")]
    Note(#[from] StartError),
    /// The two must not talk.
    #[error(transparent)]
    Refused(#[from] LinkRefusal),
    /// A node of a third datacenter does not pass on.
    #[error(transparent)]
    NotPassedOn(#[from] RelayRefusal),
    /// Another node answered.
    #[error("node {found} answers where node {wanted} should be; check the addresses")]
    OtherNode {
        /// Who answered.
        found: NodeId,
        /// Who should have.
        wanted: NodeId,
    },
    /// It runs on an old copy of its data folder.
    #[error(
        "node {node} runs on the data folder of run {found}, but run {known} is known; start it \
         with the folder of that run"
    )]
    OldCopy {
        /// The node.
        node: NodeId,
        /// The run that its folder is from.
        found: Boot,
        /// The newest that is known.
        known: Boot,
    },
    /// A run that has ended speaks, or speaks through an old connection.
    #[error("run {found} of node {node} speaks, but run {known} is known; stop the older process")]
    OlderBoot {
        /// The node.
        node: NodeId,
        /// The run that speaks.
        found: Boot,
        /// The newest that is known.
        known: Boot,
    },
}

impl Link {
    pub(crate) fn new(options: LinkOptions) -> Self {
        let random = AtomicU64::new(options.seed | 1);
        Self {
            options,
            state: Mutex::default(),
            has_pending: AtomicBool::new(false),
            call: Notify::new(),
            random,
            heard: AtomicUsize::new(0),
            is_distrusted: AtomicBool::new(false),
            reach: Mutex::new(Reach::Lost(clock::steady())),
        }
    }

    /// The node at the other end.
    pub(crate) const fn node(&self) -> NodeId {
        self.options.to
    }

    /// Where it is dialled.
    pub(crate) fn address(&self) -> &str {
        &self.options.address
    }

    /// Since when the connection stands; `None` while there is none.
    pub(crate) fn connected_since(&self) -> Option<Steady> {
        match *self.reach.lock() {
            Reach::Connected(since, _) => Some(since),
            Reach::Lost(_) => None,
        }
    }

    /// The node of a third datacenter that passes on what is said; `None` if none does.
    pub(crate) fn through(&self) -> Option<NodeId> {
        match *self.reach.lock() {
            Reach::Connected(_, through) => through,
            Reach::Lost(_) => None,
        }
    }

    /// Whether a connection stands that nobody passes on.
    pub(super) fn is_straight(&self) -> bool {
        matches!(*self.reach.lock(), Reach::Connected(_, None))
    }

    /// Whether there has been no connection for so long, since the node was expected.
    pub(crate) fn is_unreached(&self, now: Steady, span: Duration) -> bool {
        match *self.reach.lock() {
            Reach::Connected(..) => false,
            Reach::Lost(since) => since.0 + span <= now.0,
        }
    }

    /// The other node says that it is there; whether that is news.
    fn reach(&self, through: Option<NodeId>) -> bool {
        let mut reach = self.reach.lock();
        let is_news = matches!(*reach, Reach::Lost(_));
        if is_news {
            *reach = Reach::Connected(clock::steady(), through);
        }
        is_news
    }

    /// The connection has ended.
    fn lose(&self) {
        let mut reach = self.reach.lock();
        if let Reach::Connected(..) = *reach {
            *reach = Reach::Lost(clock::steady());
        }
    }

    /// The node is back, or runs anew: it gets its time to be connected again.
    pub(crate) fn expect_anew(&self) {
        let mut reach = self.reach.lock();
        if let Reach::Lost(since) = &mut *reach {
            *since = clock::steady();
        }
    }

    /// The run of the node at the other end, as of the last connection.
    pub(crate) fn boot(&self) -> Boot {
        self.state.lock().boot
    }

    /// Bytes that wait to be sent.
    pub(crate) fn queued_bytes(&self) -> usize {
        let state = self.state.lock();
        state.queued_bytes + state.frames.len()
    }

    /// Whether the other node can answer: it has dialled this one.
    pub(crate) fn is_heard(&self) -> bool {
        0 < self.heard.load(Ordering::Acquire)
    }

    /// What the other node says is not taken, because its clock is too far ahead: who hears it ends
    /// the connection, so that both notice, and the next hello tells whether that is over.
    pub(crate) fn distrust(&self) {
        self.is_distrusted.store(true, Ordering::Relaxed);
    }

    /// Whether that was so since it was asked last.
    pub(super) fn take_distrust(&self) -> bool {
        self.is_distrusted.load(Ordering::Relaxed)
            && self.is_distrusted.swap(false, Ordering::Relaxed)
    }

    /// Takes note of a connection that the other node has dialled, until the value is dropped.
    pub(crate) fn hear(self: &Arc<Self>) -> Hearing {
        self.heard.fetch_add(1, Ordering::AcqRel);
        Hearing { link: Arc::clone(self) }
    }

    /// How the path is delayed or cut.
    pub(crate) fn shape(&self) -> LinkShape {
        self.options.path.shape()
    }

    pub(crate) const fn counters(&self) -> &LinkCounters {
        &self.options.counters
    }

    /// Puts a message into the buffer; false if it was dropped, because there is no connection or
    /// no room.
    pub(crate) fn push(&self, message: &Message) -> bool {
        let mut state = self.state.lock();
        let before = state.frames.len();
        let has_room = state.queued_bytes + before < self.options.queued_bytes_max;
        let is_open =
            state.stream.is_some() || state.is_opening && matches!(message, Message::Reply(..));
        if !is_open || !has_room || state.frames.push(message).is_err() {
            drop(state);
            self.options.counters.dropped.increment(1);
            return false;
        }
        let bytes = state.frames.len().saturating_sub(before);
        drop(state);
        self.has_pending.store(true, Ordering::Relaxed);
        if let Some((writes, payload)) = replicated(message) {
            let metadata = (bytes as u64).saturating_sub(payload);
            self.options.counters.replicated_writes.increment(writes);
            self.options.counters.replicated_bytes.increment(bytes as u64);
            self.options.counters.replicated_metadata_bytes.increment(metadata);
        }
        true
    }

    /// Ends it for good.
    pub(crate) fn retire(&self) {
        let mut state = self.state.lock();
        state.is_retired = true;
        state.stream = None;
        drop(state);
        self.call.notify_one();
    }

    fn is_retired(&self) -> bool {
        self.state.lock().is_retired
    }

    pub(crate) fn has_pending(&self) -> bool {
        self.has_pending.load(Ordering::Relaxed)
    }

    /// Seals what the buffer holds and sends it, or lets the courier do so when it is due.
    pub(crate) fn flush(self: &Arc<Self>) {
        self.has_pending.store(false, Ordering::Relaxed);
        let shape = self.options.path.shape();
        let due = {
            let mut state = self.state.lock();
            // Without a delay it is due at once, but not before what was delayed earlier.
            let mut due = state.last_due;
            if !shape.delay.is_zero() || !shape.jitter.is_zero() {
                let jitter = shape.jitter.mul_f64(self.fraction());
                due = due.max(Steady(clock::steady().0 + shape.delay + jitter));
            }
            if !state.seal(due) {
                return;
            }
            state.last_due = due;
            due
        };
        if shape.delay.is_zero() && shape.jitter.is_zero() && due <= clock::steady() {
            self.pump();
        } else {
            self.options.courier.call_at(due, self);
        }
    }

    /// Writes what is due, unless somebody else does.
    pub(crate) fn pump(&self) {
        let is_cut = self.options.path.shape().is_cut;
        let mut state = self.state.lock();
        loop {
            if state.is_writing || state.is_blocked {
                return;
            }
            let Some(stream) = state.stream.clone() else { return };
            let now = clock::steady();
            let Some(mut chunk) = state.take_due(now) else { return };
            state.is_writing = true;
            drop(state);
            let written = if is_cut {
                self.options.counters.cut.increment(1);
                Ok(chunk.bytes.len() - chunk.written)
            } else {
                stream.try_write(chunk.bytes.get(chunk.written..).unwrap_or_default())
            };
            state = self.state.lock();
            state.is_writing = false;
            match written {
                Ok(count) => {
                    self.options.counters.sent_bytes.increment(count as u64);
                    chunk.written += count;
                    state.put_back(chunk);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    state.put_back(chunk);
                    state.is_blocked = true;
                    self.call.notify_one();
                }
                Err(_) => {
                    // The task sees the end of the connection itself.
                    state.stream = None;
                    self.call.notify_one();
                }
            }
        }
    }

    /// A number from 0 to 1 (SplitMix64).
    fn fraction(&self) -> f64 {
        let step = 0x9e37_79b9_7f4a_7c15;
        let mut mixed = self.random.fetch_add(step, Ordering::Relaxed).wrapping_add(step);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let top = u32::try_from((mixed ^ (mixed >> 31)) >> 32).unwrap_or(0);
        f64::from(top) / f64::from(u32::MAX)
    }
}

impl State {
    /// Moves what the buffer holds to the end of the queue; whether there was anything.
    fn seal(&mut self, due: Steady) -> bool {
        if self.frames.is_empty() {
            return false;
        }
        let mut bytes = std::mem::take(&mut self.spare);
        self.frames.swap(&mut bytes);
        self.queued_bytes += bytes.len();
        self.queue.push_back(Sealed { due, bytes, written: 0 });
        true
    }

    /// What is due, as one piece if the pieces are small.
    fn take_due(&mut self, now: Steady) -> Option<Sealed> {
        let mut chunk = self.queue.pop_front_if(|front| front.due <= now)?;
        while chunk.bytes.len() < WRITE_BYTES
            && let Some(next) = self.queue.pop_front_if(|front| front.due <= now)
        {
            chunk.bytes.extend_from_slice(&next.bytes);
        }
        self.queued_bytes -= chunk.bytes.len() - chunk.written;
        Some(chunk)
    }

    /// Keeps what is left of a piece at the front, or its buffer.
    fn put_back(&mut self, mut chunk: Sealed) {
        if chunk.written < chunk.bytes.len() {
            self.queued_bytes += chunk.bytes.len() - chunk.written;
            self.queue.push_front(chunk);
        } else if chunk.bytes.capacity() <= WRITE_BYTES {
            chunk.bytes.clear();
            self.spare = chunk.bytes;
        }
    }

    /// Takes answers from now on.
    fn open(&mut self) {
        self.disconnect();
        self.is_opening = true;
    }

    fn connect(&mut self, stream: Arc<TcpStream>, boot: Boot) {
        self.is_opening = false;
        self.stream = (!self.is_retired).then_some(stream);
        self.boot = boot;
    }

    fn disconnect(&mut self) {
        self.stream = None;
        self.is_opening = false;
        self.queue.clear();
        self.queued_bytes = 0;
        self.is_blocked = false;
        self.last_due = Steady::default();
        let mut rest = Vec::new();
        self.frames.swap(&mut rest);
    }
}

/// Keeps the link's connection until the node stops, or the link is ended for good.
pub(crate) async fn keep(node: Arc<Node>, link: Arc<Link>) {
    let patience = patience(node.id, link.node());
    let mut pause = PAUSE_MIN;
    let mut last_told = String::new();
    let mut detour = Detour::new(node.id, link.node());
    let mut straight = None;
    while !node.is_stopping() && !link.is_retired() {
        let (made, through) = connect(&node, &link, &mut detour, straight.take()).await;
        let error = match made {
            Ok((stream, hello)) => {
                let stream = Arc::new(stream);
                let is_restarted = ![Boot::default(), hello.boot].contains(&link.boot());
                link.state.lock().connect(Arc::clone(&stream), hello.boot);
                link.flush(); // What was pushed meanwhile.
                link.pump();
                if is_restarted {
                    node.note_restart(link.node());
                }
                let watching = watch(&link, &stream, patience.silence, through, || {
                    let through = through.map(tracing::field::display);
                    info!(node = %node.id, peer = %link.node(), boot = %hello.boot, through, "link is up");
                    last_told.clear();
                    pause = PAUSE_MIN;
                });
                let error = tokio::select! {
                    error = watching => Some(error),
                    stream = detour.straight_again(link.address()), if through.is_some() => {
                        straight = Some(stream);
                        None
                    }
                };
                if through.is_none() {
                    detour.note_straight(link.connected_since());
                }
                link.lose();
                link.state.lock().disconnect();
                node.sessions.link_lost(link.node());
                error
            }
            Err(error) => {
                link.state.lock().disconnect();
                Some(error)
            }
        };
        if node.is_stopping() || link.is_retired() {
            break;
        }
        // Without an error the next connection stands already.
        let Some(error) = error else { continue };
        tell(&node, &link, &error, &mut last_told);
        let jittered = pause.mul_f64(0.5 + link.fraction() / 2.0);
        tokio::time::sleep(jittered).await;
        pause = (pause * 2).min(patience.pause);
    }
    if link.is_retired() {
        info!(node = %node.id, peer = %link.node(), "the link has ended for good: that node is of this deployment no more");
    }
}

/// Connects straight, or else through a node of a third datacenter, which it then tells.
async fn connect(
    node: &Arc<Node>,
    link: &Link,
    detour: &mut Detour,
    straight: Option<TcpStream>,
) -> (Result<(TcpStream, Hello), LinkError>, Option<NodeId>) {
    let patience = patience(node.id, link.node()).handshake;
    let made = limited(patience, async {
        let stream = match straight {
            Some(stream) => stream,
            None => TcpStream::connect(link.address()).await?,
        };
        agree(node, link, stream).await
    });
    let error = match made.await {
        Err(error @ (LinkError::Io(_) | LinkError::Silent(_))) if detour.is_due(link) => error,
        made => return (made, None),
    };
    let made = limited(patience, async {
        let (stream, through) = detour.open(node).await?;
        Ok((agree(node, link, stream).await?, through))
    });
    match made.await {
        Ok((made, through)) => (Ok(made), Some(through)),
        // There is no other way, or it is not better.
        Err(LinkError::Io(_) | LinkError::Silent(_) | LinkError::NotPassedOn(_)) => {
            (Err(error), None)
        }
        Err(refused) => (Err(refused), None),
    }
}

async fn limited<T>(
    patience: Duration,
    attempt: impl Future<Output = Result<T, LinkError>>,
) -> Result<T, LinkError> {
    timeout(patience, attempt).await.map_err(|_| LinkError::Silent(patience))?
}

/// Says once why there is no connection.
fn tell(node: &Node, link: &Link, error: &LinkError, last_told: &mut String) {
    link.counters().lost.increment(1);
    let cause = std::error::Error::source(error).map(ToString::to_string);
    let words = error.to_string();
    if words != *last_told {
        warn!(node = %node.id, peer = %link.node(), address = link.address(), error = words, cause, "no link");
        *last_told = words;
    }
}

/// Says hello at the other end of a new connection, and judges what it says.
async fn agree(
    node: &Arc<Node>,
    link: &Link,
    mut stream: TcpStream,
) -> Result<(TcpStream, Hello), LinkError> {
    stream.set_nodelay(true)?;
    link.state.lock().open();
    let ours = node.links.hello(node);
    say_hello(&ours, &mut stream).await?;
    let hello = read_hello(&mut stream).await?;
    if hello.node == link.node() && hello.deployment == ours.deployment {
        node.hear_answer(&hello);
    }
    judge(node, &ours, &hello)?;
    let (found, wanted) = (hello.node, link.node());
    if found != wanted {
        return Err(LinkError::OtherNode { found, wanted });
    }
    Ok((stream, hello))
}

async fn say_hello(hello: &Hello, stream: &mut TcpStream) -> Result<(), LinkError> {
    let mut bytes = Vec::new();
    hello.write(&mut bytes);
    Ok(stream.write_all(&bytes).await?)
}

/// Whether this node speaks with another that says this.
fn judge(node: &Node, ours: &Hello, theirs: &Hello) -> Result<(), LinkError> {
    let (configuration, wall) = (node.configuration(), clock::wall());
    ours.accept(theirs, &configuration, wall, node.config.max_clock_drift)?;
    node.learn_boot(theirs.node, theirs.boot)?;
    match node.met.later_run(theirs) {
        None => Ok(()),
        Some(known) => {
            Err(LinkError::OldCopy { node: theirs.node, found: theirs.continues, known })
        }
    }
}

/// Judges the hello of a node that has dialled and writes it down; only then answers.
pub(super) async fn answer_hello(
    node: &Arc<Node>,
    theirs: Hello,
    stream: &mut TcpStream,
) -> Result<Hello, LinkError> {
    let mut ours = node.links.hello(node);
    ours.known = node.met.newest(theirs.node);
    let judged = judge(node, &ours, &theirs);
    if judged.is_ok() {
        let noting = Arc::clone(node);
        let noted = tokio::task::spawn_blocking(move || noting.met.note(&theirs)).await;
        ours.known = match noted {
            Ok(Ok(known)) => known,
            // It begins with nothing only if it is known here, also when this process has ended.
            Ok(Err(error)) if theirs.keeps == Keeps::NewFolder => return Err(error.into()),
            Ok(Err(error)) => {
                warn!(node = %node.id, peer = %theirs.node, %error, "it is not written down that this node was met");
                node.met.newest(theirs.node)
            }
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        };
    }
    // The other side judges by itself, and says what does not fit.
    say_hello(&ours, stream).await?;
    judged.map(|()| theirs)
}

/// Listens for signs of life, and writes when the socket was full; returns when the connection
/// has ended.
///
/// The first such sign says that the other side takes this one's hello: it may have closed at once.
async fn watch(
    link: &Link,
    stream: &TcpStream,
    silence: Duration,
    through: Option<NodeId>,
    mut on_reached: impl FnMut(),
) -> LinkError {
    let mut heard = [0_u8; 64];
    loop {
        let is_blocked = link.state.lock().is_blocked;
        tokio::select! {
            readable = timeout(silence, stream.readable()) => match readable {
                Err(_) => return LinkError::Silent(silence),
                Ok(Err(error)) => return error.into(),
                Ok(Ok(())) => match stream.try_read(&mut heard) {
                    Ok(0) => return io::Error::from(io::ErrorKind::UnexpectedEof).into(),
                    Ok(_) => {
                        if link.reach(through) {
                            on_reached();
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return error.into(),
                },
            },
            writable = stream.writable(), if is_blocked => {
                if let Err(error) = writable {
                    return error.into();
                }
                link.state.lock().is_blocked = false;
                link.pump();
            }
            () = link.call.notified() => {
                if link.state.lock().stream.is_none() {
                    return io::Error::from(io::ErrorKind::BrokenPipe).into();
                }
            }
        }
    }
}

/// How many writes a message takes to another datacenter, and the bytes of their keys and values;
/// `None` if it takes none.
fn replicated(message: &Message) -> Option<(u64, u64)> {
    let Message::Shard(message) = message else { return None };
    let Body::Replicate(replicate) = &message.body else { return None };
    let (mut writes, mut payload) = (0, 0);
    for entry in replicate.entries.iter().filter(|entry| !entry.is_tick()) {
        writes += 1;
        entry.for_each_effect(|effect| {
            let value = match effect.change {
                Change::Set { value, .. } => value.len(),
                Change::Delete | Change::Ttl { .. } | Change::Hide => 0,
            };
            payload += (effect.key.len() + value) as u64;
        });
    }
    (0 < writes).then_some((writes, payload))
}

#[cfg(test)]
mod tests {
    use antecede_model::{
        clock::Timestamp,
        context::Dependencies,
        ids::{DatacenterId, Epoch, Lineage, MembershipEpoch, ShardId},
    };
    use antecede_protocol::{
        entry::{self, Effect, Entry, Identity, Seen},
        message::{Replicate, ShardMessage},
    };

    use super::*;

    fn entry(stamp: u64, changes: &[(&[u8], Change<'_>)]) -> Entry {
        let mut bytes = Vec::new();
        let effects = changes.iter().map(|(key, change)| {
            let seen = Seen::new();
            Effect { key, seen, change: *change }
        });
        let none = Dependencies::default();
        entry::Body::encode(&mut bytes, Timestamp(stamp), &none, effects);
        let is_tick = changes.is_empty();
        Entry {
            identity: Identity::default(),
            origin: DatacenterId(1),
            lineage: Lineage(1),
            stamp: Timestamp(stamp),
            previous: Timestamp(stamp - 1),
            visible_at: Timestamp(stamp),
            body: if is_tick { entry::Body::Tick } else { entry::Body::Write(bytes.into()) },
            kept: None,
        }
    }

    fn of_shard(body: Body) -> Message {
        let (shard, epoch, hlc) = (ShardId(1), Epoch(1), Timestamp(9));
        Message::Shard(ShardMessage { shard, epoch, hlc, body })
    }

    #[test]
    fn keys_and_values_of_writes_are_told_apart_from_what_goes_with_them() {
        let replicate = |entries| {
            of_shard(Body::Replicate(Replicate {
                membership: MembershipEpoch(1),
                origin: DatacenterId(1),
                lineage: Lineage(1),
                previous: Timestamp(1),
                entries,
                is_fetched: false,
            }))
        };
        let set = Change::Set { value: b"value", deadline: Some(7) };
        let two = [(&b"key"[..], set), (&b"other"[..], Change::Delete)];
        let one = [(&b"k"[..], Change::Ttl { deadline: None })];
        let message = replicate(vec![entry(2, &two), entry(3, &[]), entry(4, &one)]);
        assert_eq!(replicated(&message), Some((2, 3 + 5 + 5 + 1)));
        assert_eq!(replicated(&replicate(vec![entry(2, &[])])), None, "a tick is no write");
        assert_eq!(replicated(&of_shard(Body::Forward { entries: vec![entry(2, &one)] })), None);
    }
}
