//! `antecede dev` keeps what it acknowledged, ends when asked, and refuses what is wrong.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tests::demo::path_text;
use tests::resp::request;
use tests::{Client, Dev, Reply, Stage, binary, eventually};

/// Sessions that write at the same time.
const WRITERS: usize = 8;

/// Writes that are acknowledged before the process is killed.
const ACKNOWLEDGED_MIN: u64 = 2000;

/// Requests of the pipeline that a stopping node meets.
const PIPELINE: usize = 20_000;

const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn a_value_that_is_set_is_read_again() {
    let stage = Stage::shared();
    let dev = Dev::start(&stage, &[]);
    let mut client = dev.client();
    assert_eq!(client.get("greeting"), None);
    client.set("greeting", "hello");
    assert_eq!(client.get("greeting"), Some("hello".to_owned()));
    assert_eq!(dev.client().get("greeting"), Some("hello".to_owned()));
}

/// Writes keys of its own, and one key again and again, until the connection fails; how many
/// rounds were acknowledged.
fn write_on(address: &str, writer: usize, total: &AtomicU64, stop: &AtomicBool) -> u64 {
    let mut client = Client::connect(address);
    let mut rounds = 0;
    while !stop.load(Ordering::Relaxed) {
        let (key, value) = (format!("key:{writer}:{rounds}"), rounds.to_string());
        for key in [key.as_str(), &format!("last:{writer}")] {
            match client.try_call(&["SET", key, &value]) {
                Ok(reply) => assert_eq!(reply, Reply::ok(), "SET {key}"),
                Err(_) => return rounds,
            }
        }
        rounds += 1;
        total.fetch_add(2, Ordering::Relaxed);
    }
    rounds
}

#[test]
fn every_acknowledged_write_survives_a_kill() {
    let stage = Stage::shared();
    let data = stage.path("data");
    let words = ["--data", path_text(&data), "--fsync", "always"];
    let mut dev = Dev::start(&stage, &words);
    let (total, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let address = dev.address.clone();
    let rounds: Vec<u64> = std::thread::scope(|scope| {
        let (address, total, stop) = (&address, &total, &stop);
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| scope.spawn(move || write_on(address, writer, total, stop)))
            .collect();
        eventually("enough is written", PATIENCE, || {
            (ACKNOWLEDGED_MIN <= total.load(Ordering::Relaxed)).then_some(())
        });
        dev.process.kill();
        stop.store(true, Ordering::Relaxed);
        writers.into_iter().map(|writer| writer.join().expect("a writer ends")).collect()
    });
    drop(dev);

    let dev = Dev::start(&stage, &words);
    let mut client = dev.client();
    for (writer, rounds) in rounds.iter().enumerate() {
        for round in 0..*rounds {
            let found = client.get(&format!("key:{writer}:{round}"));
            assert_eq!(found, Some(round.to_string()), "writer {writer} of {rounds} rounds");
        }
        let last = client.get(&format!("last:{writer}")).map(|value| value.parse::<u64>());
        let Some(Ok(last)) = last else { panic!("writer {writer} of {rounds} rounds: {last:?}") };
        assert!(*rounds <= last + 1, "writer {writer} finds {last} after {rounds} rounds");
    }
}

#[test]
fn a_node_that_is_asked_to_end_answers_what_it_took_and_exits_well() {
    let stage = Stage::shared();
    let data = stage.path("data");
    let words = ["--data", path_text(&data), "--fsync", "always"];
    let mut dev = Dev::start(&stage, &words);
    let _silent = dev.client();
    let mut client = dev.client();
    let pipeline: Vec<u8> = (0..PIPELINE)
        .flat_map(|number| request(&["SET", &format!("key:{number}"), &number.to_string()]))
        .collect();
    client.send(&pipeline).expect("all is sent");
    assert_eq!(client.read().expect("the first is answered"), Reply::ok());
    dev.process.terminate();
    let mut acknowledged = 1;
    while let Ok(reply) = client.read() {
        assert_eq!(reply, Reply::ok(), "answer {acknowledged}");
        acknowledged += 1;
    }
    let status = dev.process.end(PATIENCE);
    assert_eq!(status.code(), Some(0), "{status}");
    drop(dev);

    let dev = Dev::start(&stage, &words);
    let mut client = dev.client();
    for number in 0..acknowledged {
        let found = client.get(&format!("key:{number}"));
        assert_eq!(found, Some(number.to_string()), "{acknowledged} were acknowledged");
    }
}

#[test]
fn a_second_process_on_the_same_folder_is_refused() {
    let stage = Stage::shared();
    let data = stage.path("data");
    let words = ["--data", path_text(&data), "--fsync", "always"];
    let dev = Dev::start(&stage, &words);
    dev.client().set("owner", "first");

    let second = binary::run(&stage, &[&["dev", "--port", "0"], &words[..]].concat());

    assert_eq!(second.status, Some(1), "{second:?}");
    assert!(second.notes.contains("another process uses this data folder"), "{second:?}");
    assert!(second.notes.contains(path_text(&data)), "the folder is named: {second:?}");
    assert_eq!(dev.client().get("owner"), Some("first".to_owned()), "the first one goes on");
}

#[test]
fn a_port_that_is_taken_is_named() {
    let stage = Stage::shared();
    let dev = Dev::start(&stage, &[]);
    let port = dev.address.rsplit_once(':').expect("an address has a port").1;
    let second = binary::run(&stage, &["dev", "--port", port]);
    assert_eq!(second.status, Some(1), "{second:?}");
    assert!(second.notes.contains(&dev.address), "{second:?}");
}

/// A file with this text must be refused with the line and column, and words that help.
fn check_refused(stage: &Stage, text: &str, place: &str, help: &str) {
    let file = stage.path("node.toml");
    std::fs::write(&file, text).expect("a file can be written");
    let file = path_text(&file);
    for words in [&["serve", "--config", file][..], &["config", "check", file]] {
        let ended = binary::run(stage, words);
        assert_eq!(ended.status, Some(1), "{words:?}: {ended:?}");
        let wanted = format!("{file}:{place}");
        assert!(ended.notes.contains(&wanted), "{words:?} with {text:?}: {ended:?}");
        assert!(ended.notes.contains(help), "{words:?} with {text:?}: {ended:?}");
    }
}

#[test]
fn a_wrong_configuration_is_refused_with_its_place() {
    let stage = Stage::shared();
    check_refused(&stage, "[clock]\nmax_drift = \"soon\"\n", "2:", "500ms");
    check_refused(&stage, "# Mine.\n\n[limits]\nmaxmemry = 1\n", "4:", "maxmemory");
    check_refused(&stage, "[storage\n", "1:", "storage");
}
