//! Answers those who connect to members at one address: first who they are and whom
//! they mean, then one request after the other.
//!
//! What cannot be read ends the connection; nothing that comes in can end the member.
//!
//! Limits: a number of connections at once (one more is closed at once), time for the hello, for
//! the next request, and for taking an answer.

use std::{
    fmt,
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Weak},
    time::Duration,
};

use antecede_model::ids::NodeId;
use parking_lot::{Mutex, RwLock};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, TryAcquireError},
    task::{JoinHandle, JoinSet},
    time::{sleep, timeout},
};

use super::{
    Backing, GroupId,
    message::{Hello, Reply, Request, VERSION, Welcome},
    network::{HELLO_BYTES_MAX, read_frame, read_message, write_frame},
};

/// Connections at once: every node follows a few keys and sends beats, every member more.
const CONNECTIONS_MAX: usize = 4096;

/// How long a caller may take to say who it is.
const HELLO_LIMIT: Duration = Duration::from_secs(5);

/// How long a connection may be idle.
const IDLE_LIMIT: Duration = Duration::from_secs(300);

/// How long a caller may take to receive an answer.
const WRITE_LIMIT: Duration = Duration::from_secs(20);

/// Pause after the machine could not accept a connection, most likely for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Who answers requests, here or over a connection.
pub(crate) trait Answering: Send + Sync + fmt::Debug {
    /// The group that it belongs to.
    fn group(&self) -> GroupId;
    /// The node that it is.
    fn node(&self) -> NodeId;
    /// What keeps the agreement.
    fn backing(&self) -> Backing;
    /// Answers a request.
    fn answer(&self, request: Request) -> Pin<Box<dyn Future<Output = Reply> + Send + '_>>;
}

/// Members of different groups that answer at one address.
#[derive(Debug, Default)]
pub(crate) struct Desk {
    members: RwLock<Vec<Arc<dyn Answering>>>,
}

impl Desk {
    /// Lets one more answer; it is the only one of its group.
    pub(crate) fn seat(&self, member: Arc<dyn Answering>) {
        let mut members = self.members.write();
        members.retain(|other| other.group() != member.group());
        members.push(member);
    }

    /// Nobody answers for this group any more.
    pub(crate) fn leave(&self, group: GroupId) {
        self.members.write().retain(|other| other.group() != group);
    }

    /// The one that answers for a group.
    pub(crate) fn member_of(&self, group: GroupId) -> Option<Arc<dyn Answering>> {
        self.members.read().iter().find(|member| member.group() == group).cloned()
    }

    /// The one of a group, or else the first one, which says who it is.
    fn find(&self, group: GroupId) -> Option<Arc<dyn Answering>> {
        let members = self.members.read();
        members.iter().find(|member| member.group() == group).or_else(|| members.first()).cloned()
    }
}

/// An address at which members of different groups of one node answer. It is open until
/// [`Port::close`] is called or the last copy is dropped.
#[derive(Clone, Debug)]
pub struct Port {
    open: Arc<Open>,
}

#[derive(Debug)]
struct Open {
    desk: Arc<Desk>,
    address: SocketAddr,
    serving: Mutex<Option<JoinHandle<()>>>,
}

impl Port {
    /// Begins to take connections. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When the machine cannot say which address the socket has.
    pub fn open(listener: TcpListener) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let desk: Arc<Desk> = Arc::default();
        let serving = Mutex::new(Some(tokio::spawn(serve(Arc::clone(&desk), listener))));
        Ok(Self { open: Arc::new(Open { desk, address, serving }) })
    }

    /// Where it is.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.open.address
    }

    /// Ends all connections, and takes none any more; the address is free when this returns.
    pub async fn close(&self) {
        let serving = self.open.serving.lock().take();
        let Some(serving) = serving else { return };
        serving.abort();
        if let Err(error) = serving.await
            && !error.is_cancelled()
        {
            tracing::error!(%error, "the server of the agreement had ended by itself");
        }
    }

    pub(crate) fn desk(&self) -> &Desk {
        &self.open.desk
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(serving) = self.serving.get_mut() {
            serving.abort();
        }
    }
}

/// Accepts connections until it is dropped, and with it all of them.
pub(crate) async fn serve(desk: Arc<Desk>, listener: TcpListener) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection to the agreement");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let place = match Arc::clone(&places).try_acquire_owned() {
            Ok(place) => place,
            Err(TryAcquireError::NoPermits) => {
                tracing::warn!(limit = CONNECTIONS_MAX, "too many connections to the agreement");
                continue;
            }
            Err(TryAcquireError::Closed) => return,
        };
        let desk = Arc::clone(&desk);
        connections.spawn(async move {
            converse(&desk, stream).await;
            drop(place);
        });
    }
}

async fn converse(desk: &Desk, mut stream: TcpStream) {
    let Some((from, core)) = greet(desk, &mut stream).await else { return };
    loop {
        let body = match timeout(IDLE_LIMIT, read_message(&mut stream)).await {
            Ok(Ok(body)) => body,
            Ok(Err(error)) => {
                tracing::debug!(%from, %error, "a connection to the agreement ended");
                return;
            }
            Err(_) => return,
        };
        let request = match Request::decode(&body, from) {
            Ok(request) => request,
            Err(error) => {
                tracing::warn!(%from, %error, "cannot read a request to the agreement");
                return;
            }
        };
        drop(body);
        let Some(member) = core.upgrade() else { return };
        let reply = member.answer(request).await.encode();
        drop(member);
        let written = timeout(WRITE_LIMIT, write_frame(&mut stream, &reply)).await;
        if !matches!(written, Ok(Ok(()))) {
            return;
        }
    }
}

/// Finds out who calls, and whom; `None` if it calls someone else, or is none of ours.
async fn greet(desk: &Desk, stream: &mut TcpStream) -> Option<(NodeId, Weak<dyn Answering>)> {
    let body = timeout(HELLO_LIMIT, read_frame(stream, HELLO_BYTES_MAX)).await.ok()?.ok()?;
    let hello = Hello::decode(&body)?;
    let core = desk.find(hello.group)?;
    let welcome = if hello.version != VERSION {
        Welcome::OtherVersion(VERSION)
    } else if hello.group != core.group() {
        Welcome::OtherGroup(core.group())
    } else if hello.to != core.node() {
        Welcome::OtherMember(core.node())
    } else if hello.backing != core.backing() {
        Welcome::OtherBacking(core.backing())
    } else {
        Welcome::Accepted
    };
    stream.set_nodelay(true).ok()?;
    timeout(WRITE_LIMIT, write_frame(stream, &welcome.encode())).await.ok()?.ok()?;
    (welcome == Welcome::Accepted).then(|| (hello.from, Arc::downgrade(&core)))
}
