//! A task for each client connection: its socket, its buffers, its turns.
//!
//! A turn runs everything that was read (`turn`), sends messages to other nodes, lets other
//! connections run once so that their records share one flush of the log, flushes, and writes all
//! replies at once. Then it waits: for bytes, for mail (answers from elsewhere), for the session's
//! timer, or until a slow client has read. Between two turns it may move, with its socket, to the
//! threads on which connections shall live now (`workers`).
//!
//! Limits: a client that does not read its replies is not read from; `output_bytes_max`,
//! `query_bytes_max`, `connections_max` and `idle_timeout` are settings.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use antecede_model::{clock::Steady, ids::SessionId};
use antecede_protocol::{
    mutation::Mutations,
    session::{Session, SessionOptions},
};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::AsyncReadExt;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tracing::{debug, warn};

use self::registry::Client;
use self::turn::{Conversation, Progress};
use crate::clock;
use crate::node::mailbox::{Mail, Mailbox};
use crate::node::{Node, log::PENDING_BYTES_SLOW};
use crate::resp::{
    connection::{Connection, Settings, password::Password},
    frame::Limits,
};
use crate::workers::{Placement, Stay};

/// Requests that were read and cannot be run yet.
mod backlog;
/// All connections of a node.
pub(crate) mod registry;
/// From bytes to replies.
mod turn;

/// Room for reading that a connection begins with.
const READ_BYTES_MIN: usize = 4 * 1024;
/// Room that it grows to while reads fill it, and that it keeps between requests.
const READ_BYTES_MAX: usize = 128 * 1024;
/// How long to wait after a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How often a connection tells the registry what it is doing, at most.
const TELL_INTERVAL: Duration = Duration::from_millis(100);
/// How long a connection pauses when the log has fallen behind.
const SLOW_PAUSE: Duration = Duration::from_millis(2);
/// How long a client that waits for memory waits before it looks again.
const MEMORY_STEP: Duration = Duration::from_millis(32);
/// How long a client whose connection ends may take to read what it is still told.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(5);

/// After this silence the system asks whether the client's machine is still there.
pub(crate) const KEEPALIVE_TIME: Duration = Duration::from_secs(300);

const TOO_MANY: &[u8] = b"-ERR max number of clients reached\r\n";

/// Takes client connections until the node stops, then waits for their ends.
pub(crate) async fn accept(node: Arc<Node>, listener: TcpListener, placement: Option<Placement>) {
    let settings = Arc::new(settings_of(&node));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
            () = node.stopped() => break,
        };
        match accepted {
            Ok((stream, address)) => {
                let (node, settings) = (Arc::clone(&node), Arc::clone(&settings));
                let placement = placement.clone();
                connections.spawn(async move {
                    if let Err(error) = serve(node, settings, stream, address, placement).await {
                        debug!(%address, %error, "a client's connection ended");
                    }
                });
            }
            Err(error) => {
                // Usually too many open files; the next one may find one closed.
                warn!(node = %node.id, %error, "cannot take a client's connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

fn settings_of(node: &Node) -> Settings {
    let limits = &node.config.limits;
    // Settings are checked when they are read: a password that cannot be one never comes here.
    let password = node.config.password.as_ref();
    Settings {
        password: password.and_then(|password| Password::new(password.as_bytes()).ok()),
        limits: Limits {
            bulk_bytes_max: limits.bulk_bytes_max,
            arguments_max: limits.arguments_max,
            request_bytes_max: limits.query_bytes_max,
            is_unauthenticated: false,
        },
    }
}

async fn serve(
    node: Arc<Node>,
    settings: Arc<Settings>,
    stream: TcpStream,
    address: SocketAddr,
    placement: Option<Placement>,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE_TIME))?;
    let local_address = stream.local_addr()?;
    let Some((session, mailbox)) = node.sessions.add() else {
        node.registry.refused.fetch_add(1, Ordering::Relaxed);
        stream.try_write(TOO_MANY)?;
        return Ok(());
    };
    let number = node.registry.next_number();
    let connection = Connection::new(number, settings);
    let opened = clock::steady();
    let client =
        Arc::new(Client::new(session, (address, local_address), opened, connection.state()));
    let limit = usize::try_from(node.connections_max.load(Ordering::Relaxed)).unwrap_or(usize::MAX);
    let result = if node.registry.add(number, Arc::clone(&client), limit) {
        let options = SessionOptions {
            request_timeout: node.config.request_timeout,
            max_clock_drift: node.config.max_clock_drift,
            mutations: Mutations::NONE,
        };
        let machine = Session::new(session, node.id, options);
        let conversation = Conversation::new(Arc::clone(&node), connection, machine, session);
        let task = Task {
            conversation,
            mailbox,
            client,
            output: Vec::new(),
            written: 0,
            active_at: opened,
            told_at: opened,
        };
        live(Box::new(task), stream, placement).await
    } else {
        stream.try_write(TOO_MANY).map(|_| ())
    };
    end(&node, number, session);
    result
}

/// Lives where connections shall live, until the connection ends.
async fn live(
    mut task: Box<Task>,
    mut stream: TcpStream,
    placement: Option<Placement>,
) -> io::Result<()> {
    let Some(placement) = placement else {
        return task.run(&mut stream, &Stay::FOR_EVER).await.map(|_| ());
    };
    placement
        .follow((task, stream.into_std()?), |(mut task, socket), stay| async move {
            let life = async {
                let mut stream = TcpStream::from_std(socket)?;
                match task.run(&mut stream, &stay).await? {
                    Ending::Closed => Ok(None),
                    Ending::Moving => stream.into_std().map(Some),
                }
            };
            match life.await {
                Ok(Some(socket)) => Ok((task, socket)),
                Ok(None) => Err(Ok(())),
                Err(error) => Err(Err(error)),
            }
        })
        .await
}

fn end(node: &Node, number: u64, session: SessionId) {
    node.sessions.remove(session);
    node.registry.remove(number);
}

/// One client connection, without its socket.
struct Task {
    conversation: Conversation,
    mailbox: Arc<Mailbox>,
    client: Arc<Client>,
    /// Replies that are being written.
    output: Vec<u8>,
    written: usize,
    active_at: Steady,
    told_at: Steady,
}

/// Why the wait of a connection ended.
enum Woken {
    Readable(io::Result<usize>),
    Writable(io::Result<()>),
    Mail,
    Timer,
    Idle,
}

/// Why a connection's task has ended.
enum Ending {
    /// The connection is over.
    Closed,
    /// It goes on elsewhere.
    Moving,
}

impl Task {
    /// Runs until the connection ends or moves.
    async fn run(&mut self, stream: &mut TcpStream, stay: &Stay) -> io::Result<Ending> {
        let (mut reader, writer) = stream.split();
        let mut mail = Mail::default();
        loop {
            let progress = self.turn(&writer, stay, &mut mail).await?;
            if self.conversation.is_killed {
                return Ok(Ending::Closed);
            }
            if progress == Progress::Closing && self.conversation.replies.missing_count() == 0 {
                self.farewell(&writer).await?;
                return Ok(Ending::Closed);
            }
            if stay.is_over() {
                // A turn takes up everything from where this one has left it.
                return Ok(Ending::Moving);
            }
            if progress == Progress::More && !self.conversation.is_output_full() {
                tokio::task::yield_now().await;
                continue;
            }
            match self.wait(&mut reader, &writer, progress).await {
                Woken::Readable(Ok(0)) => return Ok(Ending::Closed),
                Woken::Readable(Ok(count)) => self.on_read(count),
                Woken::Readable(Err(error)) | Woken::Writable(Err(error)) => return Err(error),
                Woken::Writable(Ok(())) | Woken::Mail | Woken::Timer => {}
                Woken::Idle => {
                    debug!(address = %self.client.address, "a silent client is disconnected");
                    return Ok(Ending::Closed);
                }
            }
        }
    }

    /// Runs what is there to run, as far as it goes without waiting for a peer or the client.
    async fn turn(
        &mut self,
        writer: &WriteHalf<'_>,
        stay: &Stay,
        mail: &mut Mail,
    ) -> io::Result<Progress> {
        let conversation = &mut self.conversation;
        let node = Arc::clone(&conversation.node);
        conversation.begin();
        // From here on: a link may be lost while this turn hands a request to it.
        self.mailbox.set_waiting(true);
        self.mailbox.take(mail);
        conversation.on_mail(mail);
        conversation.wake_if_due();
        let has_room = !conversation.is_output_full();
        let mut progress = if has_room { conversation.run() } else { Progress::More };
        conversation.has_written |= conversation.work.has_appended();
        node.send_off(&mut conversation.work);
        if node.must_flush(&conversation.work) {
            // Others that are ready run first, and their records go with the same flush.
            tokio::task::yield_now().await;
        }
        node.flush(&mut conversation.work);
        // What the flush has committed is answered in this turn, and may let more run.
        loop {
            self.mailbox.take(mail);
            if !mail.is_empty() {
                conversation.refresh();
            }
            if !conversation.on_mail(mail) {
                break;
            }
            if progress == Progress::Stalled {
                progress = conversation.run();
            }
            node.send_off(&mut conversation.work);
            node.flush(&mut conversation.work);
        }
        self.mailbox.set_waiting(self.conversation.is_waiting());
        self.tell(stay);
        self.write(writer)?;
        if PENDING_BYTES_SLOW < node.log.pending_bytes() || node.is_sync_late() {
            tokio::time::sleep(SLOW_PAUSE).await;
        }
        let has_written = std::mem::take(&mut self.conversation.has_written);
        if has_written {
            wait_for_memory(&node).await;
        }
        Ok(progress)
    }

    /// Writes what the client takes now.
    fn write(&mut self, writer: &WriteHalf<'_>) -> io::Result<()> {
        let result = self.write_some(writer);
        self.conversation.unwritten_bytes = self.output.len() - self.written;
        result
    }

    fn write_some(&mut self, writer: &WriteHalf<'_>) -> io::Result<()> {
        loop {
            if self.written == self.output.len() {
                if READ_BYTES_MAX < self.output.capacity() {
                    self.output = Vec::new();
                }
                self.output.clear();
                self.written = 0;
                std::mem::swap(&mut self.output, self.conversation.replies.ready());
            }
            let rest = self.output.get(self.written..).unwrap_or_default();
            if rest.is_empty() {
                return Ok(());
            }
            match writer.try_write(rest) {
                Ok(count) => {
                    self.written += count;
                    let registry = &self.conversation.node.registry;
                    registry.written_bytes.fetch_add(count as u64, Ordering::Relaxed);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    fn has_output(&self) -> bool {
        self.written < self.output.len()
    }

    /// Waits for the next thing that concerns this connection.
    async fn wait(
        &mut self,
        reader: &mut ReadHalf<'_>,
        writer: &WriteHalf<'_>,
        progress: Progress,
    ) -> Woken {
        let conversation = &mut self.conversation;
        let can_read = progress == Progress::Done
            && !conversation.is_output_full()
            && !conversation.has_backlog();
        let has_output = self.written < self.output.len();
        let timer = conversation.wake_at;
        let idle_timeout = conversation.node.idle_timeout();
        let idle_at = (!idle_timeout.is_zero() && !conversation.is_waiting())
            .then(|| Steady(self.active_at.0 + idle_timeout));
        if can_read {
            let missing = conversation.missing_bytes();
            make_room(&mut conversation.input, missing);
        }
        let input = &mut conversation.input;
        tokio::select! {
            biased;
            read = reader.read_buf(input), if can_read => Woken::Readable(read),
            writable = writer.writable(), if has_output => Woken::Writable(writable),
            () = self.mailbox.arrival() => Woken::Mail,
            () = sleep_until(timer), if timer.is_some() => Woken::Timer,
            () = sleep_until(idle_at), if idle_at.is_some() => Woken::Idle,
        }
    }

    fn on_read(&mut self, count: usize) {
        self.active_at = clock::steady();
        let node = &self.conversation.node;
        node.registry.read_bytes.fetch_add(count as u64, Ordering::Relaxed);
        node.memory.on_received(count as u64);
    }

    /// Tells the registry what the connection says of itself, at once when that may have changed.
    fn tell(&mut self, stay: &Stay) {
        let served = self.conversation.tell_counts();
        stay.count(served);
        if 0 < served {
            let now = self.conversation.work.now().steady;
            let has_changed = std::mem::take(&mut self.conversation.may_have_changed);
            if has_changed || TELL_INTERVAL <= now.0.saturating_sub(self.told_at.0) {
                self.told_at = now;
                self.client.tell(self.conversation.connection.state(), now);
            }
        }
    }

    /// Lets the client read what it is still told.
    async fn farewell(&mut self, writer: &WriteHalf<'_>) -> io::Result<()> {
        let rest = async {
            while self.has_output() {
                writer.writable().await?;
                self.write(writer)?;
            }
            Ok(())
        };
        tokio::time::timeout(FAREWELL_TIMEOUT, rest).await.unwrap_or(Ok(()))
    }
}

/// Lets values go to the disk before the client writes more: as long as the memory in use asks for
/// meanwhile, so no longer than it is short.
async fn wait_for_memory(node: &Node) {
    let mut waited = Duration::ZERO;
    while let Some(pause) = node.pause_for_memory().filter(|pause| waited < *pause) {
        let step = (pause - waited).min(MEMORY_STEP);
        tokio::time::sleep(step).await;
        waited += step;
    }
}

/// Waits until a moment of the steady clock; for ever without one.
async fn sleep_until(at: Option<Steady>) {
    match at {
        Some(at) => tokio::time::sleep(at.0.saturating_sub(clock::steady().0)).await,
        None => std::future::pending().await,
    }
}

/// Makes room to read into: more while reads fill it, little again when nothing is held.
fn make_room(input: &mut Vec<u8>, missing: usize) {
    if input.is_empty() && READ_BYTES_MAX < input.capacity() {
        *input = Vec::with_capacity(READ_BYTES_MIN);
    }
    let free = input.capacity() - input.len();
    let wanted = missing.clamp(READ_BYTES_MIN, READ_BYTES_MAX);
    if free < wanted {
        input.reserve(wanted.max(input.capacity().min(READ_BYTES_MAX)));
    }
}

#[cfg(test)]
mod tests;
