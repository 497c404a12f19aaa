//! What one node does for its clients.

use std::time::Duration;

use crate::harness::{Client, alone, alone_in, block, wait_until};

#[test]
fn a_value_that_was_set_is_read() {
    let server = alone(&[]);
    let mut client = Client::connect(server.client_address());
    assert_eq!(client.ask(&["PING"]), "PONG");
    assert_eq!(client.ask(&["SET", "k", "v"]), "OK");
    assert_eq!(client.ask(&["GET", "k"]), "v");
    assert_eq!(client.ask(&["GET", "absent"]), "(nil)");
    assert_eq!(client.ask(&["DEL", "k"]), "1");
    assert_eq!(client.ask(&["DBSIZE"]), "0");
    block(server.shutdown());
}

#[test]
fn replies_of_a_pipeline_come_in_order() {
    let folder = tempfile::tempdir().unwrap();
    for server in [alone(&[]), alone_in(folder.path())] {
        let mut client = Client::connect(server.client_address());
        let count = 3000;
        for number in 0..count {
            client.send(&["SET", &format!("key:{number}"), &number.to_string()]);
            client.send(&["GET", &format!("key:{number}")]);
            client.send(&["ECHO", &format!("e{number}")]);
        }
        for number in 0..count {
            assert_eq!(client.reply(), "OK");
            assert_eq!(client.reply(), number.to_string());
            assert_eq!(client.reply(), format!("e{number}"));
        }
        block(server.shutdown());
    }
}

#[test]
fn many_connections_share_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let server = alone_in(folder.path());
    let address = server.client_address();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            scope.spawn(move || {
                let mut client = Client::connect(address);
                for number in 0..200 {
                    let key = format!("{thread}:{number}");
                    assert_eq!(client.ask(&["SET", &key, &key]), "OK");
                    assert_eq!(client.ask(&["GET", &key]), key);
                }
            });
        }
    });
    let mut client = Client::connect(address);
    assert_eq!(client.ask(&["DBSIZE"]), "1600");
    block(server.shutdown());
}

#[test]
fn what_was_acknowledged_is_there_after_a_crash() {
    let folder = tempfile::tempdir().unwrap();
    let server = alone_in(folder.path());
    let mut client = Client::connect(server.client_address());
    for number in 0..100 {
        assert_eq!(client.ask(&["SET", &format!("k{number}"), "v"]), "OK");
    }
    let boot = server.status().boot;
    block(server.kill());
    let server = alone_in(folder.path());
    assert!(boot < server.status().boot);
    let mut client = Client::connect(server.client_address());
    for number in 0..100 {
        assert_eq!(client.ask(&["GET", &format!("k{number}")]), "v");
    }
    assert_eq!(client.ask(&["SET", "k0", "w"]), "OK");
    assert_eq!(client.ask(&["GET", "k0"]), "w");
    block(server.shutdown());
    let server = alone_in(folder.path());
    let mut client = Client::connect(server.client_address());
    assert_eq!(client.ask(&["GET", "k0"]), "w");
    block(server.shutdown());
}

#[test]
fn every_setting_of_fsync_answers() {
    for fsync in ["always", "interval", "never"] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_str().unwrap();
        let server = alone(&[("storage.folder", path), ("storage.fsync", fsync)]);
        let mut client = Client::connect(server.client_address());
        assert_eq!(client.ask(&["SET", "k", fsync]), "OK");
        block(server.shutdown());
        let server = alone_in(folder.path());
        let mut client = Client::connect(server.client_address());
        assert_eq!(client.ask(&["GET", "k"]), fsync);
        block(server.shutdown());
    }
}

#[test]
fn one_client_too_many_is_told_so() {
    let server = alone(&[("limits.connections", "2")]);
    let mut first = Client::connect(server.client_address());
    let mut second = Client::connect(server.client_address());
    assert_eq!(first.ask(&["PING"]), "PONG");
    assert_eq!(second.ask(&["PING"]), "PONG");
    let mut third = Client::connect(server.client_address());
    assert_eq!(third.reply(), "-ERR max number of clients reached");
    assert!(third.is_closed());
    drop(second);
    wait_until("there is room again", || {
        let mut next = Client::connect(server.client_address());
        next.ask(&["PING"]) == "PONG"
    });
    block(server.shutdown());
}

#[test]
fn a_silent_client_is_disconnected_and_a_busy_one_is_not() {
    let server = alone(&[("limits.idle_timeout", "300ms")]);
    let mut silent = Client::connect(server.client_address());
    let mut busy = Client::connect(server.client_address());
    wait_until("the silent client is gone", || {
        assert_eq!(busy.ask(&["PING"]), "PONG");
        server.status().connections == 1
    });
    assert!(silent.is_closed());
    block(server.shutdown());
}

#[test]
fn a_password_is_asked_for() {
    let server = alone(&[("security.password", "sesame")]);
    let mut client = Client::connect(server.client_address());
    assert_eq!(client.ask(&["GET", "k"]), "-NOAUTH Authentication required.");
    assert!(client.ask(&["AUTH", "mustard"]).starts_with("-WRONGPASS"));
    // What was sent behind the password in one piece is understood with wider limits.
    let long = "x".repeat(100_000);
    client.send(&["AUTH", "sesame"]);
    client.send(&["ECHO", &long]);
    assert_eq!(client.reply(), "OK");
    assert_eq!(client.reply(), long);
    block(server.shutdown());
}

#[test]
fn bytes_that_are_no_request_end_the_connection_after_what_came_before() {
    let server = alone(&[]);
    let mut client = Client::connect(server.client_address());
    client.send_bytes(b"*1\r\n$4\r\nPING\r\n*1\r\n:3\r\n");
    assert_eq!(client.reply(), "PONG");
    assert_eq!(client.reply(), "-ERR Protocol error: expected '$', got ':'");
    assert!(client.is_closed());
    let mut client = Client::connect(server.client_address());
    client.send_bytes(b"POST / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(client.is_closed());
    block(server.shutdown());
}

#[test]
fn a_client_that_does_not_read_is_not_read_from() {
    let server = alone(&[("limits.output_buffer", "1MiB")]);
    let mut client = Client::connect(server.client_address());
    let value = "x".repeat(100_000);
    assert_eq!(client.ask(&["SET", "k", &value]), "OK");
    let asked = 400;
    for _ in 0..asked {
        client.send(&["GET", "k"]);
    }
    // The replies are 40 MB: the server holds one or two of them, the sockets some more, and the
    // requests behind wait, while others are served.
    let mut other = Client::connect(server.client_address());
    let (mut last, mut unchanged) = (0, 0);
    wait_until("the server has paused", || {
        assert_eq!(other.ask(&["PING"]), "PONG");
        let metrics = server.metrics();
        let count = metrics
            .lines()
            .find_map(|line| line.strip_prefix("antecede_commands_total{command=\"get\"} "))
            .map_or(0, |count| count.parse::<u32>().unwrap());
        unchanged = if count == last && 0 < count { unchanged + 1 } else { 0 };
        last = count;
        unchanged == 50
    });
    assert!(last < 300, "{last} replies are held");
    for _ in 0..asked {
        assert_eq!(client.reply().len(), value.len());
    }
    block(server.shutdown());
}

#[test]
fn clients_are_listed_and_killed() {
    let server = alone(&[]);
    let mut first = Client::connect(server.client_address());
    assert_eq!(first.ask(&["CLIENT", "SETNAME", "first"]), "OK");
    let mut second = Client::connect(server.client_address());
    let list = second.ask(&["CLIENT", "LIST"]);
    assert!(list.contains("name=first") && list.lines().count() == 2, "{list}");
    let id = first.ask(&["CLIENT", "ID"]);
    assert_eq!(second.ask(&["CLIENT", "KILL", "ID", &id]), "1");
    assert!(first.is_closed());
    assert_eq!(second.ask(&["PING"]), "PONG");
    block(server.shutdown());
}

#[test]
fn info_and_settings_are_told() {
    let server = alone(&[]);
    let mut client = Client::connect(server.client_address());
    assert_eq!(client.ask(&["SET", "k", "v"]), "OK");
    let info = client.ask(&["INFO"]);
    for line in ["redis_version:", "role:master", "db0:keys=1,expires=0", "# Causal", "dc:local"] {
        assert!(info.contains(line), "{line} is not in {info}");
    }
    assert!(!client.ask(&["INFO", "memory"]).contains("role:master"));
    assert_eq!(client.ask(&["CONFIG", "GET", "maxmemory"]), "[maxmemory 0]");
    assert_eq!(client.ask(&["CONFIG", "SET", "maxmemory", "100mb"]), "OK");
    assert_eq!(client.ask(&["CONFIG", "GET", "maxmemory"]), "[maxmemory 104857600]");
    assert!(client.ask(&["CONFIG", "SET", "dir", "/x"]).contains("can't set immutable config"));
    block(server.shutdown());
}

#[test]
fn beyond_the_memory_limit_writes_are_refused_and_the_rest_goes_on() {
    let server = alone(&[]);
    let mut client = Client::connect(server.client_address());
    assert_eq!(client.ask(&["SET", "k", "v"]), "OK");
    assert_eq!(client.ask(&["CONFIG", "SET", "maxmemory", "1"]), "OK");
    assert!(client.ask(&["SET", "l", "v"]).starts_with("-OOM"));
    assert_eq!(client.ask(&["GET", "k"]), "v");
    assert_eq!(client.ask(&["DEL", "k"]), "1");
    assert_eq!(client.ask(&["CONFIG", "SET", "maxmemory", "0"]), "OK");
    assert_eq!(client.ask(&["SET", "l", "v"]), "OK");
    block(server.shutdown());
}

#[test]
fn a_stop_lets_what_is_under_way_end() {
    let folder = tempfile::tempdir().unwrap();
    let server = alone_in(folder.path());
    let address = server.client_address();
    let mut client = Client::connect(address);
    for number in 0..500 {
        client.send(&["SET", &format!("k{number}"), "v"]);
    }
    assert_eq!(client.reply(), "OK");
    block(server.shutdown());
    // What was answered is there; the rest may be.
    let answered = 1 + client.replies_until_closed();
    let server = alone_in(folder.path());
    let mut client = Client::connect(server.client_address());
    let count: usize = client.ask(&["DBSIZE"]).parse().unwrap();
    assert!(answered <= count && count <= 500, "{answered} answered, {count} there");
    block(server.shutdown());
    assert!(std::net::TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_err());
}

#[test]
fn what_comes_behind_a_quit_that_had_to_wait_is_not_run() {
    let folder = tempfile::tempdir().unwrap();
    let server = alone_in(folder.path());
    let mut client = Client::connect(server.client_address());
    // The read waits for the log, and so does all that is behind it.
    client
        .send_bytes(b"SET {a}k v\r\nGET {a}k\r\nSET {b}k v\r\nQUIT\r\nSET {b}k w\r\nGET {b}k\r\n");
    assert_eq!(client.reply(), "OK");
    assert_eq!(client.reply(), "v");
    assert_eq!(client.reply(), "OK");
    assert_eq!(client.reply(), "OK");
    assert!(client.is_closed());
    let mut client = Client::connect(server.client_address());
    assert_eq!(client.ask(&["GET", "{b}k"]), "v");
    block(server.shutdown());
}
