//! A network whose nodes can be cut off: a proxy stands before each place that is called.
//!
//! A proxy learns who calls from the first bytes of a connection, or knows it. While the caller or
//! the called one is cut off it passes nothing on and closes nothing, as a network does that loses
//! packets. What was cut ends when the cut ends.

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc, time::Duration};

use antecede_model::ids::NodeId;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
    time::sleep,
};

/// Where the caller stands in a connection's first bytes: behind length, checksum, the name of the
/// protocol and its version.
const CALLER_AT: usize = 4 + 4 + 8 + 1;

/// Bytes of the head of a request of etcd.
#[cfg(feature = "etcd")]
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// The network between nodes.
#[derive(Debug)]
pub(crate) struct Wires {
    /// The nodes that are cut off.
    cuts: watch::Sender<BTreeSet<NodeId>>,
    /// How long bytes take in each direction.
    delay: Duration,
}

/// Who calls.
#[derive(Clone, Debug)]
pub(crate) enum Caller {
    /// It says so in a hello of ours.
    SaysHello,
    /// This node.
    #[cfg(feature = "etcd")]
    Is(NodeId),
    /// The one that is called: no cut comes between.
    #[cfg(feature = "etcd")]
    Itself,
    /// A member of etcd, which names its own address in its requests. Others name none, and are
    /// cut off only with the one that they call.
    #[cfg(feature = "etcd")]
    NamesItsAddress(watch::Receiver<Vec<(String, NodeId)>>),
}

/// A place that is called.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) address: String,
    behind: watch::Sender<Option<SocketAddr>>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// Where calls go on to.
    pub(crate) fn lead_to(&self, behind: Option<SocketAddr>) {
        self.behind.send_replace(behind);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Wires {
    pub(crate) fn new(delay: Duration) -> Self {
        Self { cuts: watch::Sender::new(BTreeSet::new()), delay }
    }

    pub(crate) fn cuts(&self) -> BTreeSet<NodeId> {
        self.cuts.borrow().clone()
    }

    pub(crate) fn cut(&self, node: NodeId) {
        self.cuts.send_modify(|cuts| {
            cuts.insert(node);
        });
    }

    pub(crate) fn heal(&self) {
        self.cuts.send_modify(BTreeSet::clear);
    }

    /// A place before a node, which leads nowhere yet.
    pub(crate) async fn proxy(self: &Arc<Self>, node: NodeId, caller: Caller) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (behind, target) = watch::channel(None);
        let task = tokio::spawn(accept(listener, node, caller, target, Arc::clone(self)));
        Proxy { address, behind, task }
    }
}

/// Accepts connections for a node.
async fn accept(
    listener: TcpListener,
    node: NodeId,
    caller: Caller,
    behind: watch::Receiver<Option<SocketAddr>>,
    wires: Arc<Wires>,
) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(pass(stream, node, caller.clone(), behind.clone(), Arc::clone(&wires)));
    }
}

/// Passes bytes on, unless one side is cut off.
async fn pass(
    mut near: TcpStream,
    node: NodeId,
    caller: Caller,
    mut behind: watch::Receiver<Option<SocketAddr>>,
    wires: Arc<Wires>,
) -> Option<()> {
    let (caller, first) = identify(&mut near, node, caller).await?;
    let is_cut = |cuts: &BTreeSet<NodeId>| {
        caller != Some(node)
            && (cuts.contains(&node) || caller.is_some_and(|caller| cuts.contains(&caller)))
    };
    let mut changes = wires.cuts.subscribe();
    if is_cut(&wires.cuts()) {
        changes.wait_for(|cuts| !is_cut(cuts)).await.ok()?;
        return None;
    }
    let target = (*behind.borrow_and_update())?;
    let mut far = TcpStream::connect(target).await.ok()?;
    far.set_nodelay(true).ok()?;
    near.set_nodelay(true).ok()?;
    far.write_all(&first).await.ok()?;
    // Kept beyond the cut: what is let go of is closed, and tells the caller.
    let mut carried = std::pin::pin!(carry(near, far, wires.delay));
    let was_cut = tokio::select! {
        () = &mut carried => false,
        _ = behind.changed() => false,
        found = changes.wait_for(is_cut) => found.is_ok(),
    };
    if was_cut {
        changes.wait_for(|cuts| !is_cut(cuts)).await.ok()?;
    }
    None
}

/// Finds out who calls, and returns what was read for it.
async fn identify(
    near: &mut TcpStream,
    node: NodeId,
    caller: Caller,
) -> Option<(Option<NodeId>, Vec<u8>)> {
    match caller {
        Caller::SaysHello => {
            let mut first = vec![0; CALLER_AT + 4];
            near.read_exact(&mut first).await.ok()?;
            let caller = NodeId::from_bits(u32::from_le_bytes(*first.last_chunk::<4>()?));
            // A node that calls itself is nobody's member: it is cut off with itself.
            Some((Some(caller).filter(|caller| *caller != node), first))
        }
        #[cfg(feature = "etcd")]
        Caller::Is(caller) => Some((Some(caller), Vec::new())),
        #[cfg(feature = "etcd")]
        Caller::Itself => Some((Some(node), Vec::new())),
        #[cfg(feature = "etcd")]
        Caller::NamesItsAddress(places) => {
            let mut first = Vec::new();
            while !first.ends_with(b"\r\n\r\n") && first.len() < HEAD_BYTES_MAX {
                first.push(near.read_u8().await.ok()?);
            }
            let head = String::from_utf8_lossy(&first).to_lowercase();
            let named = head.lines().find(|line| line.starts_with("x-peerurls:"));
            let caller = named.and_then(|named| {
                let places = places.borrow();
                let place = places.iter().find(|(address, _)| named.contains(address.as_str()));
                place.map(|(_, node)| *node)
            });
            Some((caller, first))
        }
    }
}

/// Passes bytes on in both directions, until one ends.
async fn carry(near: TcpStream, far: TcpStream, delay: Duration) {
    let (near_read, near_write) = near.into_split();
    let (far_read, far_write) = far.into_split();
    tokio::select! {
        _ = carry_one_way(near_read, far_write, delay) => {}
        _ = carry_one_way(far_read, near_write, delay) => {}
    }
}

async fn carry_one_way(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    delay: Duration,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        if !delay.is_zero() {
            sleep(delay).await;
        }
        to.write_all(&buffer[..count]).await?;
    }
}
