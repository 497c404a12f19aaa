//! Connections that move while their clients talk.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::config::{Config, Layers};
use crate::workers::{Place, Placement, Workers};
use crate::{Listeners, Server, ServerOptions};

const ROUNDS: usize = 300;
const CLIENTS: usize = 4;
/// What a test waits for at most.
const DEADLINE: Duration = Duration::from_secs(30);

/// Sets and gets keys in pipelines, and has all connections moved with each of them.
fn talk(mut stream: TcpStream, client: usize, placement: &Placement) {
    stream.set_nodelay(true).expect("a socket sends at once");
    stream.set_read_timeout(Some(DEADLINE)).expect("a socket has a timeout");
    for round in 0..ROUNDS {
        let (mut asked, mut wanted) = (String::new(), String::new());
        for key in 0..8 {
            asked += &format!("SET {client}-{key} {round}\r\nGET {client}-{key}\r\n");
            let value = round.to_string();
            wanted += &format!("+OK\r\n${}\r\n{value}\r\n", value.len());
        }
        // The first answer comes while the server holds a part of the next request.
        let (first, second) = asked.split_at(asked.find('G').expect("a GET") + 2);
        let mut found = vec![0; wanted.len()];
        let (early, late) = found.split_at_mut("+OK\r\n".len());
        placement.want(if round % 2 == client % 2 { Place::Crowd } else { Place::Solo });
        stream.write_all(first.as_bytes()).expect("the server reads");
        stream.read_exact(early).expect("the server answers the first request");
        stream.write_all(second.as_bytes()).expect("the server reads");
        stream.read_exact(late).expect("the server answers all");
        assert_eq!(String::from_utf8_lossy(&found), wanted, "round {round} of client {client}");
    }
}

#[test]
fn connections_that_move_lose_nothing_and_answer_in_order() {
    let workers = Workers::start().expect("threads");
    let Some(placement) = workers.placement() else { return };
    let flags = vec![("storage.memory".to_owned(), "true".to_owned())];
    let config = Config::load(&Layers { flags, ..Layers::default() }).expect("a configuration");
    let client = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let listeners = Listeners { client, peer: None, admin: None, control: None };
    let options = ServerOptions {
        listeners: Some(listeners),
        placement: workers.placement(),
        ..ServerOptions::default()
    };
    let server = workers.block_on(Server::start(config, options)).expect("a node");
    let address = server.client_address();
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let placement = placement.clone();
            scope.spawn(move || {
                let stream = TcpStream::connect(address).expect("the server listens");
                talk(stream, client, &placement);
            });
        }
    });
    workers.block_on(server.shutdown());
}
