//! Members of an embedded group in one process, with a proxy before each so that it can be cut off.
//!
//! A proxy reads the hello of a connection to learn who calls. While the caller or the called one
//! is cut off it passes nothing on and closes nothing, as a network does that loses packets.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use antecede_control::{
    ConfigurationStore,
    embedded::{EmbeddedStore, GroupId, Member, MemberOptions, Start, StoreOptions, Timing},
};
use antecede_model::{
    clock::Steady,
    ids::{DatacenterId, DeploymentId, NodeId},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::sleep,
};

use crate::conformance::{Cluster, eventually};

/// The group of all tests.
pub(crate) const GROUP: GroupId =
    GroupId { deployment: DeploymentId([7; 16]), datacenter: Some(DatacenterId(1)) };

/// Slow enough for a busy machine.
pub(crate) const TIMING: Timing = Timing {
    heartbeat: Duration::from_millis(200),
    silence_min: Duration::from_millis(800),
    silence_max: Duration::from_millis(1600),
    learn_limit: Duration::from_secs(2),
};

/// Where the caller stands in a connection's first bytes: behind length, checksum, the name of the
/// protocol and its version.
const CALLER_AT: usize = 4 + 4 + 8 + 1;

/// The network between members.
pub(crate) struct Wires {
    /// The nodes that are cut off.
    cuts: watch::Sender<BTreeSet<NodeId>>,
    /// How long bytes take in each direction.
    delay: Duration,
}

/// A member, running or not.
pub(crate) struct Place {
    pub(crate) node: NodeId,
    /// Where its proxy listens.
    pub(crate) address: String,
    pub(crate) member: Option<Member>,
    /// Where it listens itself.
    behind: watch::Sender<Option<SocketAddr>>,
    proxy: JoinHandle<()>,
}

/// A group of members.
pub(crate) struct Group {
    pub(crate) places: Vec<Place>,
    stores: Vec<EmbeddedStore>,
    wires: Arc<Wires>,
    timing: Timing,
    folder: TempDir,
}

pub(crate) fn steady() -> Steady {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Steady(Duration::new(time.tv_sec.try_into().unwrap(), time.tv_nsec.try_into().unwrap()))
}

pub(crate) fn node(place: usize) -> NodeId {
    NodeId { datacenter: DatacenterId(1), number: u16::try_from(place).unwrap() + 1 }
}

impl Group {
    /// A place for one more member, with nothing running in it.
    pub(crate) async fn add_place(&mut self) -> usize {
        let node = node(self.places.len());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (behind, target) = watch::channel(None);
        let proxy = tokio::spawn(accept(listener, node, target, Arc::clone(&self.wires)));
        self.places.push(Place { node, address, member: None, behind, proxy });
        self.places.len() - 1
    }

    pub(crate) fn path(&self, place: usize) -> std::path::PathBuf {
        self.folder.path().join(format!("{place}.agreement"))
    }

    /// Opens a member at a place.
    pub(crate) async fn open(&mut self, place: usize, start: Start) {
        let options = self.member_options(place, start).await;
        self.settle(place, Member::open(options).await.unwrap());
    }

    async fn member_options(&self, place: usize, start: Start) -> MemberOptions {
        MemberOptions {
            group: GROUP,
            node: self.places[place].node,
            path: self.path(place),
            listener: TcpListener::bind("127.0.0.1:0").await.unwrap(),
            start,
            timing: self.timing,
            clock: steady,
        }
    }

    fn settle(&mut self, place: usize, member: Member) {
        self.places[place].behind.send_replace(Some(member.local_address()));
        self.places[place].member = Some(member);
    }

    /// Opens the founders of the group in so many places, all at the same moment.
    pub(crate) async fn found(&mut self, count: usize) {
        for _ in 0..count {
            self.add_place().await;
        }
        let members = self.members(0..count);
        let mut opening = JoinSet::new();
        for place in 0..count {
            let start = Start::Create { members: members.clone() };
            let options = self.member_options(place, start).await;
            opening.spawn(async move { (place, Member::open(options).await.unwrap()) });
        }
        while let Some(opened) = opening.join_next().await {
            let (place, member) = opened.unwrap();
            self.settle(place, member);
        }
        self.stores = (0..count).map(|place| self.beside(place)).collect();
    }

    /// The members and where their proxies listen.
    pub(crate) fn members(&self, places: std::ops::Range<usize>) -> BTreeMap<NodeId, String> {
        let place = |place: &Place| (place.node, place.address.clone());
        self.places[places].iter().map(place).collect()
    }

    fn options(&self, node: NodeId) -> StoreOptions {
        StoreOptions {
            group: GROUP,
            node,
            members: self.members(0..self.places.len()),
            request_limit: Duration::from_secs(4),
            attempt_limit: Duration::from_secs(2),
        }
    }

    /// A store of a node that is no member.
    pub(crate) fn outsider(&self) -> EmbeddedStore {
        EmbeddedStore::new(self.options(node(99)))
    }

    /// Makes the store of a place's node, beside its member.
    pub(crate) fn beside(&self, place: usize) -> EmbeddedStore {
        let member = self.places[place].member.as_ref().expect("its member runs");
        EmbeddedStore::beside(self.options(self.places[place].node), member)
    }

    /// A group with so many members.
    async fn with(count: usize, timing: Timing) -> Self {
        let mut group = Self::empty(timing);
        group.found(count).await;
        group
    }

    /// A group without members.
    pub(crate) fn empty(timing: Timing) -> Self {
        Self::slow(timing, Duration::ZERO)
    }

    /// A group without members, on a slow network.
    pub(crate) fn slow(timing: Timing, delay: Duration) -> Self {
        let wires = Arc::new(Wires { cuts: watch::Sender::new(BTreeSet::new()), delay });
        Self {
            places: Vec::new(),
            stores: Vec::new(),
            wires,
            timing,
            folder: TempDir::new().unwrap(),
        }
    }
}

impl Cluster for Group {
    async fn start(count: usize) -> Self {
        Self::with(count, TIMING).await
    }

    fn store(&self, member: usize) -> Arc<dyn ConfigurationStore> {
        Arc::new(self.stores[member].clone())
    }

    fn client(&self) -> Arc<dyn ConfigurationStore> {
        Arc::new(self.outsider())
    }

    async fn leader(&self) -> usize {
        eventually("a leader", || async {
            let cuts = self.wires.cuts.borrow().clone();
            let reachable = self.places.iter().filter(|place| !cuts.contains(&place.node));
            let named = reachable.filter_map(|place| place.member.as_ref()?.leader());
            let named: BTreeSet<NodeId> = named.collect();
            let mut leads = named.iter().filter_map(|named| {
                let is_up = |place: &Place| place.node == *named && place.member.is_some();
                self.places.iter().position(is_up).filter(|_| !cuts.contains(named))
            });
            let leader = leads.next()?;
            leads.next().is_none().then_some(leader)
        })
        .await
    }

    async fn stop(&mut self, member: usize) {
        let place = &mut self.places[member];
        place.behind.send_replace(None);
        place.member.take().expect("it runs").stop().await;
    }

    async fn restart(&mut self, member: usize) {
        self.open(member, Start::Resume).await;
        self.stores[member] = self.beside(member);
    }

    fn cut(&self, member: usize) {
        let node = self.places[member].node;
        self.wires.cuts.send_modify(|cuts| {
            cuts.insert(node);
        });
    }

    fn heal(&self) {
        self.wires.cuts.send_modify(BTreeSet::clear);
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for place in &self.places {
            place.proxy.abort();
        }
    }
}

/// Accepts connections for a member.
async fn accept(
    listener: TcpListener,
    node: NodeId,
    behind: watch::Receiver<Option<SocketAddr>>,
    wires: Arc<Wires>,
) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(pass(stream, node, behind.clone(), Arc::clone(&wires)));
    }
}

/// Passes bytes on, unless one side is cut off; what was cut ends when the cut ends.
async fn pass(
    mut near: TcpStream,
    node: NodeId,
    mut behind: watch::Receiver<Option<SocketAddr>>,
    wires: Arc<Wires>,
) -> Option<()> {
    let mut first = [0; CALLER_AT + 4];
    near.read_exact(&mut first).await.ok()?;
    let caller = NodeId::from_bits(u32::from_le_bytes(*first.last_chunk::<4>()?));
    let is_cut = |cuts: &BTreeSet<NodeId>| cuts.contains(&node) || cuts.contains(&caller);
    let mut changes = wires.cuts.subscribe();
    if is_cut(&wires.cuts.borrow().clone()) {
        changes.wait_for(|cuts| !is_cut(cuts)).await.ok()?;
        return None;
    }
    let target = (*behind.borrow_and_update())?;
    let mut far = TcpStream::connect(target).await.ok()?;
    far.set_nodelay(true).ok()?;
    near.set_nodelay(true).ok()?;
    far.write_all(&first).await.ok()?;
    let was_cut = tokio::select! {
        () = carry(near, far, wires.delay) => false,
        _ = behind.changed() => false,
        found = changes.wait_for(is_cut) => found.is_ok(),
    };
    if was_cut {
        changes.wait_for(|cuts| !is_cut(cuts)).await.ok()?;
    }
    None
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
