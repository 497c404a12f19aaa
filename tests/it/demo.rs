//! The demo: three datacenters with real ports, and verbs that cut them apart.

use std::time::Duration;

use serde_json::Value;
use tests::{Client, Demo, Stage, eventually, http, tell};

const PATIENCE: Duration = Duration::from_secs(30);

/// How long `\photo` may take: two runs with delays of more than a second, on a busy machine.
const PHOTO_PATIENCE: Duration = Duration::from_secs(60);

/// Keys that both sides of a partition write.
const KEYS: usize = 50;

fn wait_for(client: &mut Client, key: &str, value: &str) {
    let what = format!("{key} is {value}");
    eventually(&what, PATIENCE, || (client.get(key).as_deref() == Some(value)).then_some(()));
}

#[test]
fn a_write_in_one_datacenter_is_read_in_the_others() {
    let stage = Stage::shared();
    let mut demo = Demo::start(&stage, &[]);
    assert_eq!(demo.places.iter().map(Vec::len).collect::<Vec<_>>(), [3, 3, 3]);
    for (dc, nodes) in (0..).zip(&demo.places) {
        for (node, place) in (0..).zip(nodes) {
            let wanted = format!("127.0.0.1:{}", demo.base_port + 1000 * dc + node);
            assert_eq!(place.client, wanted, "ports are where they were asked for");
        }
    }
    for (from, to) in [(0, 1), (1, 2), (2, 0)] {
        let key = format!("from:{from}");
        demo.client(from, 0).set(&key, "hello");
        assert_eq!(
            demo.client(from, 2).get(&key),
            Some("hello".to_owned()),
            "any node takes any key"
        );
        wait_for(&mut demo.client(to, 1), &key, "hello");
    }
    demo.process.type_line("us GET from:0");
    demo.process.eventually("the prompt answers", PATIENCE, |process| {
        process.answer().lines().any(|line| line.contains("hello")).then_some(())
    });
    demo.process.type_line("\\quit");
    let status = demo.process.end(PATIENCE);
    assert_eq!(status.code(), Some(0), "{status}");
}

#[test]
fn the_photo_shows_the_anomaly_with_eventual_writes_only() {
    let stage = Stage::shared();
    let mut demo = Demo::start(&stage, &[]);
    demo.process.type_line("\\photo --json");
    let shown = demo.process.eventually("the photo is told", PHOTO_PATIENCE, |process| {
        let answer = process.answer();
        let line = answer.lines().find(|line| line.starts_with('{'))?;
        serde_json::from_str::<Value>(line).ok()
    });
    tell(&format!("{shown}"));
    let number = |run: &str, name: &str| {
        shown[run][name].as_u64().unwrap_or_else(|| panic!("{run}.{name} in {shown}"))
    };
    assert_eq!(shown["as_expected"], true, "{shown}");
    assert!(0 < number("eventual", "comments_without_photo"), "{shown}");
    assert_eq!(number("causal", "comments_without_photo"), 0, "{shown}");
    // The reader had the chance to see it wrong: the comment was there long before the photo.
    assert!(
        number("eventual", "comment_after_ms") < number("eventual", "photo_after_ms"),
        "{shown}"
    );
    assert!(number("causal", "photo_after_ms") <= number("causal", "comment_after_ms"), "{shown}");
    assert!(10 < number("causal", "looks"), "{shown}");
}

/// Types a verb and waits until every node's links between `one` and others show it.
fn cut(demo: &mut Demo, one: usize, is_cut: bool) {
    let names = demo.names.clone();
    let verb = if is_cut { "partition" } else { "heal" };
    for other in names.iter().filter(|name| **name != names[one]) {
        demo.process.type_line(&format!("\\{verb} {} {other}", names[one]));
    }
    let places: Vec<String> = demo.places[one].iter().map(|place| place.admin.clone()).collect();
    eventually("the links are so", PATIENCE, || {
        let is_so = |admin: &String| {
            let status = http::status(admin);
            let links = status["links"].as_array().expect("there is a list of links");
            let mut away = links.iter().filter(|link| link["datacenter"] != names[one].as_str());
            away.all(|link| link["cut"] == is_cut)
        };
        places.iter().all(is_so).then_some(())
    });
}

#[test]
fn both_sides_of_a_partition_go_on_and_agree_afterwards() {
    let stage = Stage::shared();
    let mut demo = Demo::start(&stage, &["--latency", "20ms"]);
    let (mut alone, mut second, mut third) =
        (demo.client(0, 0), demo.client(1, 1), demo.client(2, 2));
    alone.set("before", "all");
    for client in [&mut second, &mut third] {
        wait_for(client, "before", "all");
    }

    cut(&mut demo, 0, true);
    for number in 0..KEYS {
        let key = format!("both:{number}");
        alone.set(&key, "alone");
        second.set(&key, "pair");
        assert_eq!(alone.get(&key), Some("alone".to_owned()), "a side sees its own writes");
    }
    alone.set("only:alone", "1");
    second.set("only:pair", "1");
    // What crosses between the two that are joined has had time to cross to the third, too.
    wait_for(&mut third, "only:pair", "1");
    wait_for(&mut third, &format!("both:{}", KEYS - 1), "pair");
    assert_eq!(alone.get("only:pair"), None, "nothing crosses a cut");
    assert_eq!(third.get("only:alone"), None, "nothing crosses a cut");
    assert_eq!(alone.get("both:0"), Some("alone".to_owned()), "nothing crosses a cut");

    cut(&mut demo, 0, false);
    let mut keys: Vec<String> = (0..KEYS).map(|number| format!("both:{number}")).collect();
    keys.extend(["before", "only:alone", "only:pair"].map(str::to_owned));
    let mut clients = demo.clients();
    let agreed = eventually("all nodes hold the same", PATIENCE, || {
        let all: Vec<Vec<Option<String>>> =
            clients.iter_mut().map(|client| values(client, &keys)).collect();
        let is_whole = !all[0].contains(&None);
        (is_whole && all.iter().all(|other| *other == all[0])).then(|| all[0].clone())
    });
    // The pair wrote each key last, and clocks of one machine agree.
    assert_eq!(agreed[0], Some("pair".to_owned()));
}

/// The values of keys, whatever their shards.
fn values(client: &mut Client, keys: &[String]) -> Vec<Option<String>> {
    keys.iter().map(|key| client.get(key)).collect()
}
