//! Several nodes: links, chains, datacenters.

use std::time::Duration;

use antecede_server::LinkShape;

use crate::harness::{Client, Cluster, now, wait_until};

#[test]
fn a_chain_of_three_answers_at_every_node() {
    let cluster = Cluster::of(1, 3, true);
    cluster.settle();
    for writer in 0..3 {
        let mut client = cluster.client(writer);
        for number in 0..50 {
            let key = format!("{writer}:{number}");
            assert_eq!(client.ask(&["SET", &key, &key]), "OK");
            for reader in 0..3 {
                assert_eq!(cluster.client(reader).ask(&["GET", &key]), key);
            }
        }
    }
    for node in 0..3 {
        assert_eq!(cluster.client(node).ask(&["DBSIZE"]), "150");
    }
}

#[test]
fn a_write_of_one_datacenter_is_read_in_another() {
    let cluster = Cluster::of(2, 1, false);
    cluster.settle();
    let mut here = cluster.client(0);
    let mut there = cluster.client(1);
    for number in 0..20 {
        let key = format!("k{number}");
        assert_eq!(here.ask(&["SET", &key, "v"]), "OK");
        wait_until("the write has arrived", || there.ask(&["GET", &key]) == "v");
    }
    let metrics = cluster.node(1).metrics();
    assert!(metrics.contains("antecede_visibility_seconds_count{origin=\"dc1\"} 20"), "{metrics}");
}

#[test]
fn a_request_id_is_executed_once_and_only_in_its_datacenter() {
    let cluster = Cluster::of(2, 2, true);
    cluster.settle();
    let id = |number: u64| format!("dc1.app-1:{number}");
    let append = |client: &mut Client, number, text| {
        client.ask(&["CAUSAL.DO", "ID", &id(number), "APPEND", "k", text])
    };
    for node in 0..2 {
        let mut client = cluster.client(node);
        assert_eq!(append(&mut client, 1, "ab"), "2");
        assert_eq!(append(&mut client, 2, "c"), "3");
        assert_eq!(append(&mut client, 1, "ab"), "2");
        let other = append(&mut client, 1, "xy");
        assert!(other.contains("ERR this request id was used for another request"), "{other}");
    }
    let mut there = cluster.client(2);
    wait_until("the writes have arrived", || there.ask(&["GET", "k"]) == "abc");
    let refused = append(&mut there, 1, "ab");
    assert!(refused.contains("UNKNOWNOUTCOME this request id is for the datacenter"), "{refused}");
    let mut client = cluster.client(1);
    assert_eq!(client.ask(&["MULTI"]), "OK");
    assert_eq!(client.ask(&["APPEND", "k", "d"]), "QUEUED");
    let first = client.ask(&["CAUSAL.DO", "ID", &id(3), "EXEC"]);
    let mut client = cluster.client(0);
    assert_eq!(client.ask(&["MULTI"]), "OK");
    assert_eq!(client.ask(&["APPEND", "k", "d"]), "QUEUED");
    assert_eq!(client.ask(&["CAUSAL.DO", "ID", &id(3), "EXEC"]), first);
    assert_eq!(client.ask(&["GET", "k"]), "abcd");
}

#[test]
fn a_delayed_path_delays_by_what_was_set() {
    let cluster = Cluster::of(2, 1, false);
    cluster.settle();
    let mut here = cluster.client(0);
    let mut there = cluster.client(1);
    let delay = Duration::from_millis(40);
    cluster.shaper.set("dc1", "dc2", LinkShape { delay, ..LinkShape::default() });
    for number in 0..5 {
        let key = format!("k{number}");
        let began = now();
        assert_eq!(here.ask(&["SET", &key, "v"]), "OK");
        assert!(began.elapsed() < delay, "a write waits for no other datacenter");
        wait_until("the write has arrived", || there.ask(&["GET", &key]) == "v");
        assert!(delay <= began.elapsed());
    }
}

#[test]
fn a_cut_path_lets_both_sides_work_and_heals() {
    let cluster = Cluster::of(2, 1, false);
    cluster.settle();
    let mut here = cluster.client(0);
    let mut there = cluster.client(1);
    let cut = |is_cut| {
        cluster.shaper.change("dc1", "dc2", |shape| shape.is_cut = is_cut);
        cluster.shaper.change("dc2", "dc1", |shape| shape.is_cut = is_cut);
    };
    cut(true);
    assert_eq!(here.ask(&["SET", "a", "1"]), "OK");
    assert_eq!(there.ask(&["SET", "b", "2"]), "OK");
    wait_until("something was dropped on the way", || {
        let metrics = cluster.node(0).metrics();
        let line = metrics.lines().find(|line| line.starts_with("antecede_link_cut_writes_total"));
        line.is_some_and(|line| !line.ends_with(" 0"))
    });
    assert_eq!(there.ask(&["GET", "a"]), "(nil)");
    assert!(cluster.node(0).status().verdict.contains("cut off on purpose from 2.1"));
    cut(false);
    wait_until("both have both", || {
        there.ask(&["GET", "a"]) == "1" && here.ask(&["GET", "b"]) == "2"
    });
}

#[test]
fn a_node_that_crashed_comes_back_with_everything() {
    let mut cluster = Cluster::of(1, 3, true);
    cluster.settle();
    let mut client = cluster.client(0);
    for number in 0..50 {
        assert_eq!(client.ask(&["SET", &format!("k{number}"), "v"]), "OK");
    }
    cluster.kill(1);
    cluster.restart(1);
    cluster.settle();
    wait_until("writes are taken again", || client.ask(&["SET", "again", "v"]) == "OK");
    for node in 0..3 {
        let mut client = cluster.client(node);
        for number in 0..50 {
            let key = format!("k{number}");
            wait_until("the key is there", || client.ask(&["GET", &key]) == "v");
        }
    }
}

#[test]
fn whoever_does_not_say_hello_is_hung_up_on() {
    let cluster = Cluster::of(1, 2, false);
    cluster.settle();
    let address = cluster.addresses(0).peer.parse().unwrap();
    let mut stranger = Client::connect(address);
    stranger.send_bytes(b"GET / HTTP/1.1\r\n\r\n");
    let mut client = cluster.client(0);
    assert_eq!(client.ask(&["PING"]), "PONG");
    assert!(stranger.is_closed_after_hello());
}
