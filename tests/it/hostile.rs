//! Hostile bytes end at most their own connection, and take no memory.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use rustix::net::sockopt::set_socket_recv_buffer_size;
use tests::{Client, Dev, Nodes, Reply, Stage, eventually, tell, watch};

/// How much a node may grow under hostile input.
const GROWTH_BYTES_MAX: u64 = 256 << 20;

/// Connections that ask and never read.
const DEAF_CLIENTS: usize = 1000;

/// How much each of them sends at most.
const DEAF_BYTES_MAX: usize = 1 << 20;

/// How much of the answers their side of the network takes for each of them; the server's side
/// takes what the system likes, some megabytes.
const DEAF_BUFFER_BYTES: usize = 8 << 10;

/// How long they go on.
const DEAF_SPAN: Duration = Duration::from_secs(4);

const PATIENCE: Duration = Duration::from_secs(20);

/// What is sent, and what the server says before it closes the connection; nothing where it says
/// nothing.
const CLOSED: &[(&[u8], &str)] = &[
    (b"*1073741824\r\n", "-ERR Protocol error: invalid multibulk length\r\n"),
    (b"*9223372036854775807\r\n", "-ERR Protocol error: invalid multibulk length\r\n"),
    (b"*99999999999999999999999\r\n", "-ERR Protocol error: invalid multibulk length\r\n"),
    (b"*x\r\n", "-ERR Protocol error: invalid multibulk length\r\n"),
    (b"*1\r\n$-1\r\n", "-ERR Protocol error: invalid bulk length\r\n"),
    (b"*2\r\n$3\r\nGET\r\n$-2147483648\r\n", "-ERR Protocol error: invalid bulk length\r\n"),
    (b"*2\r\n$3\r\nGET\r\n$4294967296\r\n", "-ERR Protocol error: invalid bulk length\r\n"),
    (
        b"*2\r\n$3\r\nGET\r\n$9223372036854775807\r\n",
        "-ERR Protocol error: invalid bulk length\r\n",
    ),
    (b"*1\r\n:3\r\n", "-ERR Protocol error: expected '$', got ':'\r\n"),
    (b"GET \"a\r\n", "-ERR Protocol error: unbalanced quotes in request\r\n"),
    (b"POST / HTTP/1.1\r\nHost: localhost\r\n\r\nSET pwned 1\r\n", ""),
    (b"Host: localhost\r\nSET pwned 1\r\n", ""),
];

/// Halves of requests; whoever sent them goes away.
const HALVES: &[&[u8]] = &[
    b"*",
    b"*2\r\n",
    b"*2\r\n$3\r\nGET\r\n$5\r\nab",
    b"*1048576\r\n$3\r\nDEL\r\n",
    b"*3\r\n$3\r\nSET\r\n$5\r\npwned\r\n$60000000\r\nx",
    b"SET pwned 1",
    b"\xff\xfe\x00\x01",
];

fn assert_serves(client: &mut Client) {
    client.set("alive", "yes");
    assert_eq!(client.get("alive"), Some("yes".to_owned()));
    assert_eq!(client.get("pwned"), None, "what was smuggled in was not run");
}

#[test]
fn wrong_requests_are_told_as_redis_tells_them_and_end_the_connection() {
    let stage = Stage::shared();
    let dev = Dev::start(&stage, &[]);
    let mut good = dev.client();
    for (bytes, told) in CLOSED {
        let shown = String::from_utf8_lossy(bytes);
        let mut client = dev.client();
        client.send(bytes).expect("bytes can be sent");
        let answer = client.read_to_end();
        let answer = answer.unwrap_or_else(|error| panic!("{shown:?} was not closed: {error}"));
        assert_eq!(String::from_utf8_lossy(&answer), *told, "to {shown:?}");
        assert_serves(&mut good);
    }
    // Redis passes over a request of no arguments, negative or none.
    let mut client = dev.client();
    client.send(b"*-1\r\n*0\r\n\r\n").expect("bytes can be sent");
    assert_eq!(client.call(&["PING"]), Reply::Simple("PONG".to_owned()));
}

#[test]
fn half_requests_take_no_memory_and_are_not_run() {
    let stage = Stage::shared();
    let dev = Dev::start(&stage, &[]);
    let before = dev.process.resident_bytes();
    let mut waiting = Vec::new();
    for half in HALVES.iter().cycle().take(HALVES.len() * 20) {
        let mut client = dev.client();
        client.send(half).expect("bytes can be sent");
        waiting.push(client);
    }
    assert_serves(&mut dev.client());
    let during = dev.process.resident_bytes();
    assert!(during < before + GROWTH_BYTES_MAX, "{before} bytes became {during}");
    for mut client in waiting {
        client.finish_sending().expect("a connection can be half closed");
        let answer = client.read_to_end().expect("the server closes it");
        assert_eq!(String::from_utf8_lossy(&answer), "", "half a request has no answer");
    }
    assert_serves(&mut dev.client());
}

#[test]
fn a_line_without_an_end_is_refused() {
    let stage = Stage::shared();
    let dev = Dev::start(&stage, &[]);
    let mut client = dev.client();
    client.send(&[b'a'; 100_000]).expect("bytes can be sent");
    let answer = client.read_to_end().expect("the server closes it");
    let told = "-ERR Protocol error: too big inline request\r\n";
    assert_eq!(String::from_utf8_lossy(&answer), told);
    assert_serves(&mut dev.client());
}

/// A client that asks without end and never reads.
struct Deaf {
    stream: TcpStream,
    /// What is left of a request that was sent in part.
    place: usize,
    sent: usize,
    is_over: bool,
}

impl Deaf {
    fn connect(address: &str) -> Self {
        let stream = TcpStream::connect(address).expect("the server takes connections");
        stream.set_nonblocking(true).expect("a socket can be made so");
        // What is not read waits at the server, not in this machine's network.
        set_socket_recv_buffer_size(&stream, DEAF_BUFFER_BYTES).expect("a socket can be made so");
        Self { stream, place: 0, sent: 0, is_over: false }
    }

    /// Sends what the server takes.
    fn push(&mut self, requests: &[u8]) {
        while !self.is_over && self.sent < DEAF_BYTES_MAX {
            match self.stream.write(&requests[self.place..]) {
                Ok(count) => {
                    self.sent += count;
                    self.place = (self.place + count) % requests.len();
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => self.is_over = true,
            }
        }
    }
}

#[test]
fn a_thousand_strangers_who_never_read_take_no_memory_and_no_service() {
    let stage = Stage::alone();
    let dev = Dev::start(&stage, &["--password", "secret"]);
    let mut good = dev.client();
    assert_eq!(good.call(&["AUTH", "secret"]), Reply::ok());
    let before = dev.process.resident_bytes();
    // Each answer is several times as long as its request.
    let requests = b"PING\r\n".repeat(1024);
    let mut deaf: Vec<Deaf> = (0..DEAF_CLIENTS).map(|_| Deaf::connect(&dev.address)).collect();
    let mut most = before;
    watch(DEAF_SPAN, || {
        for client in &mut deaf {
            client.push(&requests);
        }
        assert_serves(&mut good);
        most = most.max(dev.process.resident_bytes());
        assert!(most < before + GROWTH_BYTES_MAX, "{before} bytes became {most}");
    });
    let sent: usize = deaf.iter().map(|client| client.sent).sum();
    tell(&format!("{sent} bytes were sent; {} MiB became {} MiB", before >> 20, most >> 20));
    assert!(DEAF_CLIENTS * requests.len() <= sent, "only {sent} bytes were sent");
    let mut stranger = dev.client();
    assert!(stranger.call(&["GET", "something"]).is_refused_with("NOAUTH"), "still no way in");
}

/// Bytes from a seed, always the same.
fn noise(seed: u64, count: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..count).map(|_| next()).collect()
}

/// What other nodes say first when they dial one, which must not run.
fn hello_to(peer: &str) -> Vec<u8> {
    let listener = TcpListener::bind(peer).expect("the node's port is free");
    listener.set_nonblocking(true).expect("a socket can be made so");
    let accepted = eventually("the node is dialled", PATIENCE, || listener.accept().ok());
    let mut stream = accepted.0;
    stream.set_nonblocking(false).expect("a socket can be made so");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket can be made so");
    let mut bytes = vec![0; 4096];
    let count = stream.read(&mut bytes).expect("a node says hello");
    bytes.truncate(count);
    bytes
}

/// Says something to a peer port and goes away, or stays silent until the node has enough.
fn say(peer: &str, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(peer).expect("a node listens for peers");
    // The node may close before everything is said.
    drop(stream.write_all(bytes));
    stream
}

#[test]
fn noise_and_half_hellos_on_the_peer_port_do_no_harm() {
    let stage = Stage::shared();
    let mut nodes = Nodes::start(&stage, &[("eu", 1), ("us", 1)]);
    let peer = nodes.all[0].place.peer.clone();
    // The hello of the other node is one that this node takes.
    nodes.all[0].crash();
    let hello = hello_to(&peer);
    nodes.all[0].restart(&stage);
    nodes.all[0].await_ready(PATIENCE);
    let before = nodes.all[0].process.resident_bytes();
    assert!(8 < hello.len(), "a hello is more than {} bytes", hello.len());

    let mut open = Vec::new();
    for seed in 0..40 {
        open.push(say(&peer, &noise(seed, 5000)));
    }
    for end in 0..hello.len() {
        drop(say(&peer, &hello[..end]));
        let mut broken = hello.clone();
        broken[end] ^= 0x55;
        open.push(say(&peer, &broken));
    }
    for seed in 100..120 {
        open.push(say(&peer, &[&hello[..], &noise(seed, 5000)].concat()));
        // A head that promises the longest frame, and nothing behind it.
        let head = [&[0xa7, 0xce, 0][..], &u32::MAX.to_le_bytes(), &noise(seed, 4)].concat();
        open.push(say(&peer, &[&hello[..], &head].concat()));
    }

    let (mut here, mut there) = (nodes.all[0].client(), nodes.all[1].client());
    here.set("there", "fine");
    eventually("the other datacenter sees it", PATIENCE, || there.get("there"));
    there.set("back", "fine");
    eventually("and the other way round", PATIENCE, || here.get("back"));
    nodes.assert_running();
    let after = nodes.all[0].process.resident_bytes();
    assert!(after < before + GROWTH_BYTES_MAX, "{before} bytes became {after}");
    drop(open);
}
