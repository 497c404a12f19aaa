//! Starts a node with all its tasks, and ends it.
//!
//! Several nodes may run in one process, on one runtime; each has its own ports, log and tasks.
//!
//! Ensures: `RunningServer::shutdown` returns when no task of the node is left and everything
//! that was appended is on disk.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use antecede_model::{clock::Steady, ids::NodeId};
use antecede_protocol::geo::cuts::CUTS_EVERY;
use tokio::net::TcpListener;
use tokio::time::{MissedTickBehavior, interval};
use tokio::{runtime::Handle, task::JoinHandle};
use tracing::{info, warn};

use crate::aside::{self, Lapse, Quarantine};
use crate::clock;
use crate::config::Config;
use crate::node::{
    MemoryFigure, Node, Work,
    open::{Parts, StartError, open},
};
use crate::peer::{self, LinkShaper};
use crate::workers::{ControlThread, Placement};
use crate::{
    admin, connection,
    control::{self, agreement::Agreement, member::BeginAtOnce},
};

/// How long connections may take to finish what is under way when the node stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a stopping node looks whether its connections are done.
const DRAIN_INTERVAL: Duration = Duration::from_millis(5);
/// How often memory is measured while there is a limit; without one, as often as cuts.
const MEMORY_INTERVAL: Duration = Duration::from_millis(20);
/// Ticks between two rounds of metrics upkeep.
const UPKEEP_TICKS: u32 = 20;

/// Sockets that are bound already.
#[derive(Debug)]
pub struct Listeners {
    /// For clients.
    pub client: std::net::TcpListener,
    /// For other nodes; needed as soon as there are some.
    pub peer: Option<std::net::TcpListener>,
    /// For the admin port.
    pub admin: Option<std::net::TcpListener>,
    /// For the member of the agreement, if the node has one.
    pub control: Option<std::net::TcpListener>,
}

impl Listeners {
    /// Binds the addresses of a configuration.
    ///
    /// # Errors
    /// When an address cannot be had.
    pub fn bind(config: &Config) -> Result<Self, StartError> {
        let bind = |what: &'static str, address: &str| {
            listen(address).map_err(|source| {
                let address = address.to_owned();
                StartError::Listen { what, address, source }
            })
        };
        let has_peers = config.peers().next().is_some();
        let admin = config.listen.admin.as_ref();
        Ok(Self {
            client: bind("clients", &config.listen.client)?,
            peer: has_peers.then(|| bind("other nodes", &config.listen.peer)).transpose()?,
            admin: admin.map(|address| bind("the admin port", address)).transpose()?,
            control: config
                .control_address()
                .map(|address| bind("the agreement", address))
                .transpose()?,
        })
    }
}

fn listen(address: &str) -> io::Result<std::net::TcpListener> {
    use std::net::ToSocketAddrs;

    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in address.to_socket_addrs()? {
        match listen_at(address) {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn listen_at(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
    // A node that restarts takes its port although old connections linger.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(1024)?;
    Ok(socket.into())
}

/// What a server is started with.
#[derive(Default)]
pub struct ServerOptions {
    /// Tells how much memory is in use; without it, the resident size of the process counts.
    pub memory_figure: Option<MemoryFigure>,
    /// Delays and cuts links; give all nodes of a process the same.
    pub shaper: LinkShaper,
    /// Sockets; without them the configuration's addresses are bound.
    pub listeners: Option<Listeners>,
    /// Where connections live; without it, on the runtime on which the server is started.
    pub placement: Option<Placement>,
    /// Where it may begin without hearing from the others.
    pub begin_at_once: BeginAtOnce,
}

impl std::fmt::Debug for ServerOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerOptions").field("listeners", &self.listeners).finish_non_exhaustive()
    }
}

/// Starts nodes.
#[derive(Debug)]
pub struct Server;

/// A node that runs.
#[derive(Debug)]
pub struct RunningServer {
    node: Arc<Node>,
    client_address: SocketAddr,
    peer_address: Option<SocketAddr>,
    admin_address: Option<SocketAddr>,
    shaper: LinkShaper,
    clients: JoinHandle<()>,
    tasks: Vec<JoinHandle<()>>,
    /// Those that work on the disk of the checkpoints.
    threads: Vec<std::thread::JoinHandle<()>>,
    agreement: Option<Arc<Agreement>>,
    /// Where the agreement's tasks run.
    control: Option<ControlThread>,
}

impl Server {
    /// Starts a node; it takes connections when this returns.
    ///
    /// # Errors
    /// When a socket, the log or the data folder cannot be had.
    pub async fn start(
        config: Config,
        options: ServerOptions,
    ) -> Result<RunningServer, StartError> {
        let ServerOptions { memory_figure, shaper, listeners, placement, begin_at_once } = options;
        let config = aside::resume(config)?;
        let listeners = match listeners {
            Some(listeners) => listeners,
            None => Listeners::bind(&config)?,
        };
        let parts = Parts { config: Arc::new(config), memory_figure, shaper: shaper.clone() };
        let node = match tokio::task::spawn_blocking(move || open(parts)).await {
            Ok(node) => node?,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        };
        let control = node.config.is_managed().then(ControlThread::start).transpose();
        let control = control
            .map_err(|source| no_threads(&node, "start the thread of the agreement for", source))?;
        let agreement = match &control {
            Some(control) => {
                join_agreement(control, &node, listeners.control, begin_at_once).await?
            }
            None => None,
        };
        let mut tasks = Vec::new();
        let mut peer_address = None;
        if let Some(listener) = listeners.peer {
            let (listener, address) = into_tokio(listener, "other nodes")?;
            peer_address = Some(address);
            tasks.push(tokio::spawn(peer::inbound::accept(
                Arc::clone(&node),
                listener,
                placement.clone(),
            )));
        }
        tasks.push(tokio::spawn(peer::keep_all(Arc::clone(&node))));
        node.start_replicas(
            begin_at_once.data || node.config.is_managed() && begin_at_once.deployment,
        );
        let threads = spawn_threads(&node)?;
        if let (Some(agreement), Some(control)) = (&agreement, &control) {
            let life = control::live(Arc::clone(&node), Arc::clone(agreement), Handle::current());
            tasks.push(control.handle().spawn(life));
        }
        tasks.push(tokio::spawn(wake(Arc::clone(&node))));
        tasks.push(tokio::spawn(tick(Arc::clone(&node))));
        tasks.push(tokio::spawn(measure(Arc::clone(&node))));
        let mut admin_address = None;
        if let Some(listener) = listeners.admin {
            let (listener, address) = into_tokio(listener, "the admin port")?;
            admin_address = Some(address);
            let shaper = shaper.clone();
            let service = admin::serve(Arc::clone(&node), shaper, agreement.as_ref(), listener);
            tasks.push(tokio::spawn(service));
        }
        let (listener, client_address) = into_tokio(listeners.client, "clients")?;
        let clients = tokio::spawn(connection::accept(Arc::clone(&node), listener, placement));
        info!(node = %node.id, %client_address, ?peer_address, ?admin_address, "serving");
        Ok(RunningServer {
            node,
            client_address,
            peer_address,
            admin_address,
            shaper,
            clients,
            tasks,
            threads,
            agreement,
            control,
        })
    }
}

/// Opens the way to the agreement, on the thread where all of it lives.
async fn join_agreement(
    control: &ControlThread,
    node: &Arc<Node>,
    listener: Option<std::net::TcpListener>,
    at_once: BeginAtOnce,
) -> Result<Option<Arc<Agreement>>, StartError> {
    let node = Arc::clone(node);
    let opened = control.handle().spawn(async move {
        let listener = listener.map(|listener| into_tokio(listener, "the agreement"));
        let listener = listener.transpose()?.map(|(listener, _)| listener);
        Box::pin(Agreement::open(&node, listener, at_once)).await
    });
    match opened.await {
        Ok(agreement) => Ok(agreement?.map(Arc::new)),
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

fn into_tokio(
    listener: std::net::TcpListener,
    what: &'static str,
) -> Result<(TcpListener, SocketAddr), StartError> {
    let convert = |listener: std::net::TcpListener| {
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let address = listener.local_addr()?;
        Ok((listener, address))
    };
    convert(listener).map_err(|source| StartError::Listen {
        what,
        address: "a socket that was given".to_owned(),
        source,
    })
}

impl RunningServer {
    /// Which node this is.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.node.id
    }

    /// Its settings.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.node.config
    }

    /// Where clients connect.
    #[must_use]
    pub const fn client_address(&self) -> SocketAddr {
        self.client_address
    }

    /// Where other nodes connect.
    #[must_use]
    pub const fn peer_address(&self) -> Option<SocketAddr> {
        self.peer_address
    }

    /// Where the admin port is.
    #[must_use]
    pub const fn admin_address(&self) -> Option<SocketAddr> {
        self.admin_address
    }

    /// Delays and cuts the links of this node.
    #[must_use]
    pub const fn shaper(&self) -> &LinkShaper {
        &self.shaper
    }

    /// Whether all shards have agreed with their neighbours, so that clients are answered.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.node.why_not_ready().is_none()
    }

    /// What the admin port shows of this node.
    #[must_use]
    pub fn status(&self) -> admin::Status {
        admin::status_of(&self.node)
    }

    /// All metrics as the admin port shows them.
    #[must_use]
    pub fn metrics(&self) -> String {
        admin::metrics_of(&self.node)
    }

    /// Waits for SIGTERM or SIGINT.
    ///
    /// # Errors
    /// When signals cannot be heard.
    pub async fn stop_signal() -> io::Result<()> {
        use tokio::signal::unix::{SignalKind, signal};

        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        Ok(())
    }

    /// Leaves its chains, where managers decide who serves; to be followed by
    /// [`RunningServer::shutdown`]. Clients are served meanwhile.
    pub async fn leave(&self) {
        if self.agreement.is_some() {
            Box::pin(control::leave(&self.node)).await;
        }
    }

    /// Waits until its datacenter has lapsed and is given up, and tells how it comes back: after
    /// [`RunningServer::shutdown`], by [`Lapse::put_aside`], under another number.
    pub async fn lapsed(&self) -> Lapse {
        self.node.control.lapsed().await
    }

    /// What was put aside when the datacenter had lapsed.
    #[must_use]
    pub fn quarantines(&self) -> Vec<Quarantine> {
        aside::quarantines(&self.node.config)
    }

    /// Stops: takes no new connections, lets what is under way end, and syncs the log.
    pub async fn shutdown(self) {
        info!(node = %self.node.id, "stopping");
        self.node.stop();
        let drained = async {
            while 0 < self.node.registry.count() {
                self.node.sessions.kill_idle();
                tokio::time::sleep(DRAIN_INTERVAL).await;
            }
        };
        if tokio::time::timeout(DRAIN_TIMEOUT, drained).await.is_err() {
            let left = self.node.registry.count();
            warn!(node = %self.node.id, left, "connections were cut off with requests under way");
        }
        let node = Arc::clone(&self.node);
        // A failed sync is told by the log itself, and ends the process.
        drop(tokio::task::spawn_blocking(move || node.log.sync()).await);
        self.end().await;
    }

    /// Ends at once, as a crash would: nothing more is written or sent.
    pub async fn kill(self) {
        self.node.stop();
        self.end().await;
    }

    async fn end(self) {
        self.node.sessions.kill_all();
        let Self { node, clients, tasks, threads, agreement, control, .. } = self;
        // Waits for the batch that is being written; a panic was reported when it happened.
        let join_all = move || threads.into_iter().try_for_each(std::thread::JoinHandle::join);
        drop(tokio::task::spawn_blocking(join_all).await);
        for task in tasks.iter().chain([&clients]) {
            task.abort();
        }
        for task in tasks.into_iter().chain([clients]) {
            // An aborted task is what is wanted; a panic was reported when it happened.
            drop(task.await);
        }
        if let Some(agreement) = agreement.and_then(Arc::into_inner) {
            agreement.stop().await;
        }
        drop(control);
        // Tasks of single connections end a moment later; the last one to go frees the log's lock.
        let ended = async {
            while 1 < Arc::strong_count(&node) {
                tokio::time::sleep(DRAIN_INTERVAL).await;
            }
        };
        if tokio::time::timeout(DRAIN_TIMEOUT, ended).await.is_err() {
            warn!(node = %node.id, "a task does not end; the data folder stays locked");
        }
        info!(node = %node.id, "stopped");
    }
}

/// Wakes replicas when they have asked for it.
async fn wake(node: Arc<Node>) {
    let mut work = Work::begin();
    while !node.is_stopping() {
        let next = node.timers.next();
        tokio::select! {
            () = sleep_until(next), if next.is_some() => {
                work.restart();
                node.wake_due(&mut work);
            }
            () = node.timers.earlier() => {}
        }
    }
}

/// Gathers what is applied, at intervals.
async fn tick(node: Arc<Node>) {
    let mut rounds = interval(CUTS_EVERY);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut work = Work::begin();
    let mut count = 0_u32;
    while !node.is_stopping() {
        rounds.tick().await;
        work.restart();
        node.tick(&mut work);
        count = count.wrapping_add(1);
        if count.is_multiple_of(UPKEEP_TICKS) {
            node.telemetry.run_upkeep();
        }
    }
}

/// Starts the threads that write checkpoints, read from them, and keep memory within its limit.
fn spawn_threads(node: &Arc<Node>) -> Result<Vec<std::thread::JoinHandle<()>>, StartError> {
    let start = || {
        let mut threads = crate::node::cold::start(node)?;
        let of_checkpoints = Arc::clone(node);
        let builder = std::thread::Builder::new().name("checkpoint".to_owned());
        threads.push(builder.spawn(move || crate::node::checkpoint::run(&of_checkpoints))?);
        Ok(threads)
    };
    start().map_err(|source| no_threads(node, "start the threads of checkpoints for", source))
}

fn no_threads(node: &Node, what: &'static str, source: io::Error) -> StartError {
    StartError::Io { what, path: node.config.storage.folder.clone().unwrap_or_default(), source }
}

/// Measures memory, and what is left on the disk.
async fn measure(node: Arc<Node>) {
    while !node.is_stopping() {
        node.memory.sample();
        node.log.free.sample(node.id);
        node.look_whether_whole();
        let pause = if node.memory.limit() == 0 { CUTS_EVERY } else { MEMORY_INTERVAL };
        tokio::time::sleep(pause).await;
    }
}

async fn sleep_until(at: Option<Steady>) {
    match at {
        Some(at) => tokio::time::sleep(at.0.saturating_sub(clock::steady().0)).await,
        None => std::future::pending().await,
    }
}
