//! Starts nodes on free ports, and talks to them as a client would, in bytes.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use antecede_model::ids::{DatacenterId, NodeId};
use antecede_server::config::{Layers, NodeAddresses};
use antecede_server::{Config, LinkShaper, Listeners, RunningServer, Server, ServerOptions};

/// How long a test waits for anything.
const PATIENCE: Duration = Duration::from_secs(20);

static RUNTIME: LazyLock<tokio::runtime::Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a test's surroundings work")
});

/// Runs something of the server's to its end.
pub(crate) fn block<T>(future: impl Future<Output = T>) -> T {
    RUNTIME.block_on(future)
}

#[expect(clippy::disallowed_methods, reason = "a test's own deadline")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Waits until something is so.
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = now() + PATIENCE;
    while !is_so() {
        assert!(now() < deadline, "waited in vain until {what}");
        std::thread::yield_now();
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

/// Settings of one node, by path.
pub(crate) fn config(settings: &[(&str, &str)]) -> Config {
    let flags = settings.iter().map(|(path, value)| ((*path).to_owned(), (*value).to_owned()));
    Config::load(&Layers { flags: flags.collect(), ..Layers::default() })
        .expect("a test's surroundings work")
}

/// A node alone.
pub(crate) fn alone(settings: &[(&str, &str)]) -> RunningServer {
    let mut all = vec![("listen.client", "127.0.0.1:0"), ("listen.admin", "127.0.0.1:0")];
    all.extend_from_slice(settings);
    let server = block(Server::start(config(&all), ServerOptions::default()))
        .expect("a test's surroundings work");
    wait_until("the node is ready", || server.is_ready());
    server
}

/// A node alone with its log in a folder.
pub(crate) fn alone_in(folder: &Path) -> RunningServer {
    alone(&[("storage.folder", folder.to_str().expect("a test's surroundings work"))])
}

/// Nodes of a deployment that share a shaper of links.
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Option<RunningServer>>,
    pub(crate) shaper: LinkShaper,
    config: Config,
    folders: Option<tempfile::TempDir>,
}

impl Cluster {
    /// `datacenters` with `each` nodes in each; on disk or in memory.
    pub(crate) fn of(datacenters: u16, each: u16, is_on_disk: bool) -> Self {
        let mut listeners = Vec::new();
        let mut text = String::from(
            "[deployment]\nid = \"5b0c6e0e8f5c4b7a9d3e2f1a0b9c8d7e\"\nshards = 16\n\
             [storage]\nmemory = true\n\
             [node]\ndatacenter = \"dc1\"\nnumber = 1\n",
        );
        for datacenter in 1..=datacenters {
            text.push_str(&format!(
                "[[datacenter]]\nid = {datacenter}\nname = \"dc{datacenter}\"\n"
            ));
            for number in 1..=each {
                let bind = || TcpListener::bind("127.0.0.1:0").expect("a test's surroundings work");
                let (client, peer) = (bind(), bind());
                text.push_str(&format!(
                    "[[datacenter.node]]\nnumber = {number}\nclient = \"{}\"\npeer = \"{}\"\n",
                    client.local_addr().expect("a test's surroundings work"),
                    peer.local_addr().expect("a test's surroundings work"),
                ));
                let id = NodeId { datacenter: DatacenterId(datacenter), number };
                listeners
                    .push((id, Listeners { client, peer: Some(peer), admin: None, control: None }));
            }
        }
        let layers = Layers { file: Some(("test.toml".into(), text)), ..Layers::default() };
        let config = Config::load(&layers).expect("a test's surroundings work");
        let folders = is_on_disk.then(|| tempfile::tempdir().expect("a test's surroundings work"));
        let mut cluster = Self { nodes: Vec::new(), shaper: LinkShaper::new(), config, folders };
        for (id, listeners) in listeners {
            let server = cluster.start(id, Some(listeners));
            cluster.nodes.push(Some(server));
        }
        cluster
    }

    fn start(&self, id: NodeId, listeners: Option<Listeners>) -> RunningServer {
        let folder = self.folders.as_ref().map(|folders| folders.path().join(id.to_string()));
        let config = self.config.for_node(id, folder).expect("a test's surroundings work");
        let shaper = self.shaper.clone();
        let options = ServerOptions { shaper, listeners, ..ServerOptions::default() };
        block(Server::start(config, options)).expect("a test's surroundings work")
    }

    /// Waits until all shards of all nodes that run have settled.
    pub(crate) fn settle(&self) {
        wait_until("all shards have settled", || {
            self.nodes.iter().flatten().all(RunningServer::is_ready)
        });
    }

    pub(crate) fn node(&self, index: usize) -> &RunningServer {
        self.nodes[index].as_ref().expect("a test's surroundings work")
    }

    pub(crate) fn client(&self, index: usize) -> Client {
        Client::connect(self.node(index).client_address())
    }

    /// Ends a node as a crash would.
    pub(crate) fn kill(&mut self, index: usize) {
        block(self.nodes[index].take().expect("a test's surroundings work").kill());
    }

    /// Starts a node that has ended, at its old addresses.
    pub(crate) fn restart(&mut self, index: usize) {
        let (id, _) = self.config.nodes().nth(index).expect("a test's surroundings work");
        self.nodes[index] = Some(self.start(id, None));
    }

    /// The addresses of a node.
    pub(crate) fn addresses(&self, index: usize) -> NodeAddresses {
        self.config.nodes().nth(index).expect("a test's surroundings work").1.clone()
    }
}

/// A client's connection.
pub(crate) struct Client {
    stream: TcpStream,
    unread: Vec<u8>,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("a test's surroundings work");
        stream.set_read_timeout(Some(PATIENCE)).expect("a test's surroundings work");
        stream.set_nodelay(true).expect("a test's surroundings work");
        Self { stream, unread: Vec::new() }
    }

    /// Sends a request.
    pub(crate) fn send(&mut self, arguments: &[&str]) {
        let mut bytes = format!("*{}\r\n", arguments.len());
        for argument in arguments {
            bytes.push_str(&format!("${}\r\n{argument}\r\n", argument.len()));
        }
        self.send_bytes(bytes.as_bytes());
    }

    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("a test's surroundings work");
    }

    /// Sends a request and takes its reply: simple strings and errors as they are, bulk strings as
    /// their text, nil as `(nil)`, arrays in brackets.
    pub(crate) fn ask(&mut self, arguments: &[&str]) -> String {
        self.send(arguments);
        self.reply()
    }

    /// The next reply.
    pub(crate) fn reply(&mut self) -> String {
        let line = self.line();
        let (kind, rest) = line.split_at(1);
        match kind {
            "+" | ":" => rest.to_owned(),
            "-" => line,
            "_" => "(nil)".to_owned(),
            "$" if rest == "-1" => "(nil)".to_owned(),
            "$" => {
                let length: usize = rest.parse().expect("a test's surroundings work");
                let bytes = self.take(length + 2);
                String::from_utf8_lossy(&bytes[..length]).into_owned()
            }
            "*" if rest == "-1" => "(nil)".to_owned(),
            "*" => {
                let count: usize = rest.parse().expect("a test's surroundings work");
                let items: Vec<String> = (0..count).map(|_| self.reply()).collect();
                format!("[{}]", items.join(" "))
            }
            other => panic!("a reply begins with {other}"),
        }
    }

    fn line(&mut self) -> String {
        loop {
            if let Some(end) = self.unread.windows(2).position(|pair| pair == b"\r\n") {
                let line: Vec<u8> = self.unread.drain(..end + 2).collect();
                return String::from_utf8(line[..end].to_vec())
                    .expect("a test's surroundings work");
            }
            self.fill();
        }
    }

    fn take(&mut self, count: usize) -> Vec<u8> {
        while self.unread.len() < count {
            self.fill();
        }
        self.unread.drain(..count).collect()
    }

    fn fill(&mut self) {
        let mut buffer = [0; 64 * 1024];
        let count = self.stream.read(&mut buffer).expect("a reply comes in time");
        assert!(0 < count, "the connection was closed");
        self.unread.extend_from_slice(&buffer[..count]);
    }

    /// Whether the server closes the connection without another byte.
    pub(crate) fn is_closed(&mut self) -> bool {
        let mut buffer = [0; 16];
        self.unread.is_empty() && matches!(self.stream.read(&mut buffer), Ok(0) | Err(_))
    }
}

impl Client {
    /// Whether the server closes the connection, whatever it says before.
    pub(crate) fn is_closed_after_hello(&mut self) -> bool {
        let mut rest = Vec::new();
        match self.stream.read_to_end(&mut rest) {
            Ok(_) => rest.starts_with(b"antecede"),
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }

    /// How many more replies come before the server closes the connection.
    pub(crate) fn replies_until_closed(&mut self) -> usize {
        let mut rest = Vec::new();
        // The server may close while requests are unread, which shows as a reset here.
        drop(self.stream.read_to_end(&mut rest));
        self.unread.append(&mut rest);
        self.unread.windows(5).filter(|window| *window == b"+OK\r\n").count()
    }
}
