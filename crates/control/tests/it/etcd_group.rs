//! Members of etcd, each with one of our listeners beside it as if on one machine.
//!
//! Real processes of etcd, on ports that are free, with proxies between all: of members among each
//! other, of nodes to members, of nodes to listeners. A machine that is stopped is killed at once.
//! The machine that leads does so in both senses: its member leads etcd, its listener hears beats.

use std::{
    collections::BTreeMap,
    io::Write,
    net::{Ipv4Addr, SocketAddr},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use antecede_control::{
    ConfigurationStore,
    etcd::{ConnectOptions, Etcd, EtcdOptions, EtcdStore, Listener, ListenerOptions},
};
use antecede_model::ids::NodeId;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    time::timeout,
};

use crate::{
    conformance::{Cluster, eventually},
    group::{GROUP, node, steady},
    wires::{Caller, Proxy, Wires},
};

/// What all keys of the tests begin with.
pub(crate) const PREFIX: &str = "/antecede";

/// How long a leader may be silent here: a busy machine makes pauses.
const SILENCE: Duration = Duration::from_secs(1);

/// How long a member may take for an answer about itself.
const STATUS_LIMIT: Duration = Duration::from_secs(2);

/// A machine: a member of etcd and a listener.
struct Machine {
    node: NodeId,
    process: Option<Child>,
    /// Where the member answers, and where its peers call it.
    client: SocketAddr,
    peer: SocketAddr,
    before_peer: Proxy,
    /// Before the member's place for clients: one proxy for each node that asks.
    before_client: BTreeMap<NodeId, Proxy>,
    before_listener: Proxy,
    listener: Option<Listener>,
    store: Option<EtcdStore>,
}

/// Machines with etcd.
pub(crate) struct EtcdGroup {
    machines: Vec<Machine>,
    wires: Arc<Wires>,
    folder: TempDir,
}

/// What a member says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Status {
    member: u64,
    leader: u64,
}

/// Whether etcd can be run here; if not, it is said how it can.
pub(crate) fn can_run() -> bool {
    let mut command = Command::new("etcd");
    let status = command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    let can = status.is_ok_and(|status| status.success());
    if !can {
        let why = "skipped: there is no etcd here; apt-get install etcd-server brings it";
        drop(writeln!(std::io::stdout(), "{why}"));
    }
    can
}

fn outsider() -> NodeId {
    node(98)
}

impl EtcdGroup {
    async fn place(&mut self, count: usize, callers: watch::Receiver<Vec<(String, NodeId)>>) {
        let number = self.machines.len();
        let node = node(number);
        let mut before_client = BTreeMap::new();
        for caller in (0..count).map(crate::group::node).chain([outsider()]) {
            let who = if caller == node { Caller::Itself } else { Caller::Is(caller) };
            before_client.insert(caller, self.wires.proxy(node, who).await);
        }
        let (client, peer) = (free_port().await, free_port().await);
        let before_peer = self.wires.proxy(node, Caller::NamesItsAddress(callers)).await;
        before_peer.lead_to(Some(peer));
        for proxy in before_client.values() {
            proxy.lead_to(Some(client));
        }
        self.machines.push(Machine {
            node,
            process: None,
            client,
            peer,
            before_peer,
            before_client,
            before_listener: self.wires.proxy(node, Caller::SaysHello).await,
            listener: None,
            store: None,
        });
    }

    fn run(&mut self, member: usize) {
        let peers: Vec<String> = (0..)
            .zip(&self.machines)
            .map(|(number, machine)| format!("m{number}=http://{}", machine.before_peer.address))
            .collect();
        let folder = self.folder.path().join(format!("m{member}"));
        let log = std::fs::File::create(self.folder.path().join(format!("m{member}.log"))).unwrap();
        let machine = &mut self.machines[member];
        let (client, peer) = (format!("http://{}", machine.client), machine.peer);
        let child = Command::new("etcd")
            .args(["--name", &format!("m{member}"), "--logger", "zap"])
            .arg("--data-dir")
            .arg(folder)
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &format!("http://{peer}")])
            .args(["--initial-advertise-peer-urls"])
            .arg(format!("http://{}", machine.before_peer.address))
            .args(["--initial-cluster", &peers.join(",")])
            .args(["--initial-cluster-state", "new", "--initial-cluster-token", "tests"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        machine.process = Some(child);
    }

    async fn listen(&mut self, member: usize) {
        let node = self.machines[member].node;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let options = ListenerOptions {
            etcd: self.etcd(node),
            node,
            listener,
            listeners: self.listeners(),
            rivals: 2,
            silence: SILENCE,
            clock: steady,
        };
        let listener = Listener::open(options).unwrap();
        let store = EtcdStore::beside(self.options(node), &listener);
        let machine = &mut self.machines[member];
        machine.before_listener.lead_to(Some(listener.local_address()));
        machine.listener = Some(listener);
        machine.store = Some(store);
    }

    fn listeners(&self) -> BTreeMap<NodeId, String> {
        let place = |it: &Machine| (it.node, it.before_listener.address.clone());
        self.machines.iter().map(place).collect()
    }

    /// How a node reaches all members.
    fn endpoints(&self, asking: NodeId) -> Vec<String> {
        let before = |it: &Machine| it.before_client[&asking].address.clone();
        self.machines.iter().map(before).collect()
    }

    fn etcd(&self, asking: NodeId) -> Etcd {
        let options = connect_options(self.endpoints(asking), None);
        Etcd::new(options, PREFIX, GROUP, asking).unwrap()
    }

    fn options(&self, asking: NodeId) -> EtcdOptions {
        EtcdOptions {
            etcd: self.etcd(asking),
            node: asking,
            listeners: self.listeners(),
            request_limit: Duration::from_secs(4),
            attempt_limit: Duration::from_secs(2),
        }
    }

    /// A store of a node beside which nobody listens.
    pub(crate) fn outsider(&self) -> EtcdStore {
        EtcdStore::new(self.options(outsider()))
    }

    /// Cuts the outsider off from everybody.
    pub(crate) fn cut_outsider(&self) {
        self.wires.cut(outsider());
    }

    /// How a store of the outsider reaches everybody, with its own way to etcd.
    pub(crate) fn options_with(&self, options: ConnectOptions) -> EtcdOptions {
        let etcd = Etcd::new(options, PREFIX, GROUP, outsider()).unwrap();
        EtcdOptions { etcd, ..self.options(outsider()) }
    }

    /// How the outsider reaches all members.
    pub(crate) fn connect_options(&self) -> ConnectOptions {
        connect_options(self.endpoints(outsider()), None)
    }

    /// Where the listener of a machine is reached.
    pub(crate) fn listener_address(&self, member: usize) -> String {
        self.machines[member].before_listener.address.clone()
    }

    /// Stops a member where it is, or lets it go on.
    pub(crate) fn signal(&self, member: usize, signal: Signal) {
        let process = self.machines[member].process.as_ref().expect("it runs");
        let id = Pid::from_raw(process.id().try_into().unwrap()).unwrap();
        kill_process(id, signal).unwrap();
    }

    /// Puts something else in the place of a machine's listener.
    pub(crate) fn replace_listener(&mut self, member: usize, by: SocketAddr) {
        let machine = &mut self.machines[member];
        machine.listener = None;
        machine.before_listener.lead_to(Some(by));
    }

    /// Calls a member's interface for people and scripts.
    pub(crate) async fn call(&self, member: usize, path: &str, body: &str) -> Option<String> {
        let asking = async {
            let mut stream = TcpStream::connect(self.machines[member].client).await.ok()?;
            let length = body.len();
            let head = format!(
                "POST {path} HTTP/1.1\r\nHost: etcd\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
            );
            stream.write_all(format!("{head}{body}").as_bytes()).await.ok()?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.ok()?;
            answer.starts_with("HTTP/1.1 200").then_some(answer)
        };
        timeout(STATUS_LIMIT, asking).await.ok()?
    }

    async fn status(&self, member: usize) -> Option<Status> {
        let answer = self.call(member, "/v3/maintenance/status", "{}").await?;
        let number = |name: &str| {
            let rest = answer.split_once(&format!("\"{name}\":\""))?.1;
            rest.split_once('"')?.0.parse().ok()
        };
        Some(Status { member: number("member_id")?, leader: number("leader")? })
    }

    /// The machine whose listener leads, with etcd's leadership brought there.
    async fn leading(&self) -> Option<usize> {
        let cuts = self.wires.cuts();
        let is_there = |it: &Machine| it.process.is_some() && !cuts.contains(&it.node);
        let there: Vec<usize> =
            (0..self.machines.len()).filter(|place| is_there(&self.machines[*place])).collect();
        let leads = |place: &usize| {
            let it = &self.machines[*place];
            it.listener.as_ref().is_some_and(|listener| listener.leader() == Some(it.node))
        };
        let mut leading = there.iter().copied().filter(leads);
        let place = leading.next().filter(|_| leading.next().is_none())?;
        let wanted = self.status(place).await?;
        if wanted.leader == wanted.member {
            return Some(place);
        }
        for other in there {
            let status = self.status(other).await?;
            if status.leader == status.member {
                let body = format!("{{\"targetID\":\"{}\"}}", wanted.member);
                self.call(other, "/v3/maintenance/transfer-leadership", &body).await?;
            }
        }
        None
    }
}

/// How these members are reached.
pub(crate) fn connect_options(endpoints: Vec<String>, cluster: Option<u64>) -> ConnectOptions {
    ConnectOptions {
        endpoints,
        tls: None,
        credentials: None,
        cluster,
        request_limit: Duration::from_secs(4),
        attempt_limit: Duration::from_secs(2),
    }
}

/// A port that nobody has now.
///
/// It lies below those that the system gives to whoever asks for any: else a connection of another
/// test could get it before etcd does, or while a member is stopped. Processes begin apart.
pub(crate) async fn free_port() -> SocketAddr {
    const FIRST: u16 = 28_100;
    const COUNT: u32 = 4_600;
    const APART: u32 = 16;
    static TAKEN: AtomicU32 = AtomicU32::new(0);

    for _ in 0..COUNT {
        let next = std::process::id() % COUNT * APART + TAKEN.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + u16::try_from(next % COUNT).unwrap();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(address).await.is_ok() {
            return address;
        }
    }
    panic!("no port is free");
}

impl Cluster for EtcdGroup {
    async fn start(count: usize) -> Self {
        let wires = Arc::new(Wires::new(Duration::ZERO));
        let mut group = Self { machines: Vec::new(), wires, folder: TempDir::new().unwrap() };
        let (told, callers) = watch::channel(Vec::new());
        for _ in 0..count {
            group.place(count, callers.clone()).await;
        }
        let place = |it: &Machine| (it.before_peer.address.clone(), it.node);
        told.send_replace(group.machines.iter().map(place).collect());
        for member in 0..count {
            group.run(member);
            group.listen(member).await;
        }
        group.leader().await;
        group
    }

    fn client(&self) -> Arc<dyn ConfigurationStore> {
        Arc::new(self.outsider())
    }

    fn store(&self, member: usize) -> Arc<dyn ConfigurationStore> {
        Arc::new(self.machines[member].store.clone().expect("it was started"))
    }

    async fn leader(&self) -> usize {
        eventually("a leader of etcd with a listener that leads", || self.leading()).await
    }

    async fn stop(&mut self, member: usize) {
        let machine = &mut self.machines[member];
        machine.before_listener.lead_to(None);
        machine.listener = None;
        let mut process = machine.process.take().expect("it runs");
        process.kill().unwrap();
        process.wait().unwrap();
    }

    async fn restart(&mut self, member: usize) {
        self.run(member);
        self.listen(member).await;
    }

    fn cut(&self, member: usize) {
        self.wires.cut(self.machines[member].node);
    }

    fn heal(&self) {
        self.wires.heal();
    }
}

impl Drop for EtcdGroup {
    fn drop(&mut self) {
        for machine in &mut self.machines {
            if let Some(mut process) = machine.process.take() {
                drop(process.kill());
                drop(process.wait());
            }
        }
    }
}
