//! Members of an embedded group in one process, with a proxy before each so that it can be cut off.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use antecede_control::{
    ConfigurationStore,
    embedded::{
        BeginOptions, EmbeddedStore, GroupId, Member, MemberOptions, Port, Start, StoreOptions,
        Timing, Way,
    },
};
use antecede_model::{
    clock::Steady,
    ids::{DatacenterId, DeploymentId, NodeId},
};
use tempfile::TempDir;
use tokio::{net::TcpListener, task::JoinSet};

use crate::{
    conformance::{Cluster, eventually},
    wires::{Caller, Proxy, Wires},
};

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

/// A member, running or not.
pub(crate) struct Place {
    pub(crate) node: NodeId,
    /// Where its proxy listens.
    pub(crate) address: String,
    pub(crate) member: Option<Member>,
    proxy: Proxy,
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

/// A port of its own.
pub(crate) async fn port() -> Port {
    Port::open(TcpListener::bind("127.0.0.1:0").await.unwrap()).unwrap()
}

/// What a member is told.
pub(crate) fn member_options(
    node: NodeId,
    path: std::path::PathBuf,
    port: Port,
    start: Start,
) -> MemberOptions {
    MemberOptions { group: GROUP, node, path, port, start, timing: TIMING, clock: steady }
}

pub(crate) fn node(place: usize) -> NodeId {
    NodeId { datacenter: DatacenterId(1), number: u16::try_from(place).unwrap() + 1 }
}

impl Group {
    /// A place for one more member, with nothing running in it.
    pub(crate) async fn add_place(&mut self) -> usize {
        let node = node(self.places.len());
        let proxy = self.wires.proxy(node, Caller::SaysHello).await;
        let address = proxy.address.clone();
        self.places.push(Place { node, address, member: None, proxy });
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
        let options =
            member_options(self.places[place].node, self.path(place), port().await, start);
        MemberOptions { timing: self.timing, ..options }
    }

    pub(crate) fn settle(&mut self, place: usize, member: Member) {
        self.places[place].proxy.lead_to(Some(member.local_address()));
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

    /// What a place's member is told that may have to begin. From now on it is reached there.
    pub(crate) async fn begin_options(&self, place: usize, way: Way) -> BeginOptions {
        let port = port().await;
        self.places[place].proxy.lead_to(Some(port.address()));
        BeginOptions {
            group: GROUP,
            node: self.places[place].node,
            path: self.path(place),
            had_file: false,
            way,
            founders: self.members(0..3),
            contacts: self.members(0..self.places.len()),
            port,
            request_limit: Duration::from_millis(500),
            attempt_limit: Duration::from_millis(250),
        }
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
        EmbeddedStore::beside(self.options(self.places[place].node), member.port())
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
        let wires = Arc::new(Wires::new(delay));
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
            let cuts = self.wires.cuts();
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
        place.proxy.lead_to(None);
        place.member.take().expect("it runs").stop().await;
    }

    async fn restart(&mut self, member: usize) {
        self.open(member, Start::Resume).await;
        self.stores[member] = self.beside(member);
    }

    fn cut(&self, member: usize) {
        self.wires.cut(self.places[member].node);
    }

    fn heal(&self) {
        self.wires.heal();
    }
}
