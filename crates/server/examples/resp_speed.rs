//! Measures what a request costs between the bytes that arrive and the bytes that leave, without
//! sockets, session and storage: `cargo run --release -p antecede-server --example resp_speed`.
//!
//! Each figure is the least of several rounds: the machine's other work only ever adds.

use std::{hint::black_box, sync::Arc, time::Duration};

use antecede_model::response::Response;
use antecede_server::resp::{
    commands::ClientFilter,
    connection::{Connection, Outcome, Settings},
    environment::{ClientEntry, Environment, Identity, Killed, SettingError},
    frame::{Arguments, FrameParser, Limits},
    replies::Replies,
};

const ROUNDS: usize = 20;
const REQUESTS: usize = 64;
const BATCHES: usize = 4000;

/// A server that is never asked anything.
struct Nobody;

impl Environment for Nobody {
    fn wall_micros(&self) -> u64 {
        0
    }

    fn draw(&mut self) -> u64 {
        0
    }

    fn info(&self, _: &[&[u8]]) -> String {
        String::new()
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    fn change_setting(&mut self, _: &str, _: &[u8]) -> Result<(), SettingError> {
        Err(SettingError::Unknown)
    }

    fn reset_statistics(&mut self) {}

    fn clients(&self, _: &ClientFilter<'_>) -> Vec<ClientEntry> {
        Vec::new()
    }

    fn kill(&mut self, _: &ClientFilter<'_>, _: Option<u64>) -> Killed {
        Killed::default()
    }

    fn identity(&self) -> Identity {
        Identity { version: "", datacenter: String::new(), node: String::new(), node_count: 1 }
    }
}

#[expect(clippy::print_stdout, reason = "a program that prints its figures")]
fn main() {
    let get = b"*2\r\n$3\r\nGET\r\n$16\r\nkey:000000012345\r\n";
    let mut set = b"*3\r\n$3\r\nSET\r\n$16\r\nkey:000000012345\r\n$128\r\n".to_vec();
    set.extend([b'v'; 128]);
    set.extend(b"\r\n");
    let ping = b"*1\r\n$4\r\nPING\r\n";
    let value = Response::Bytes(vec![b'v'; 128]);
    println!("GET   {:>4} ns", nanos_per_request(get, &value));
    println!("SET   {:>4} ns", nanos_per_request(&set, &Response::Ok));
    println!("PING  {:>4} ns", nanos_per_request(ping, &Response::Ok));
}

/// Parses a buffer of equal requests, looks them up, answers them; over and over.
fn nanos_per_request(request: &[u8], answer: &Response) -> u128 {
    let settings = Arc::new(Settings { password: None, limits: Limits::default() });
    let mut connection = Connection::new(1, settings);
    let mut replies = Replies::default();
    let mut parser = FrameParser::default();
    let mut bytes = request.repeat(REQUESTS);
    let mut least = Duration::MAX;
    for _ in 0..ROUNDS {
        let started = now();
        for _ in 0..BATCHES {
            let mut rest = bytes.as_mut_slice();
            let mut arguments = Arguments::new();
            while parser.next(&mut rest, connection.limits(), &mut arguments) == Ok(true) {
                let outcome = connection.handle(&arguments, 0, &mut Nobody, &mut replies);
                if let Outcome::Ask(command) = outcome {
                    black_box(&command);
                    replies.on_response(black_box(answer));
                }
            }
            black_box(replies.ready()).clear();
        }
        least = least.min(started.elapsed());
    }
    least.as_nanos() / u128::try_from(BATCHES * REQUESTS).unwrap_or(1)
}

#[expect(clippy::disallowed_methods, reason = "a measurement needs the machine's time")]
fn now() -> std::time::Instant {
    std::time::Instant::now()
}
