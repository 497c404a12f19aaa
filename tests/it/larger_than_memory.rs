//! More data than memory: values are on disk only, and nobody is told anything else than before.

use std::time::Duration;

use tests::demo::path_text;
use tests::resp::request;
use tests::{Client, Dev, Reply, Stage, eventually};

/// The limit.
const LIMIT_BYTES: usize = 40 << 20;
/// Bytes of a value.
const VALUE_BYTES: usize = 2 << 10;
/// So many keys that their values take four times the limit.
const KEYS: usize = 4 * LIMIT_BYTES / VALUE_BYTES;
/// Commands on their way at a time.
const PIPELINE: usize = 256;
/// Sessions that write or read at the same time.
const SESSIONS: usize = 4;
/// Used memory may be above the limit for a moment, while values wait for the disk.
const USED_BYTES_MAX: usize = LIMIT_BYTES / 4 * 5;

const PATIENCE: Duration = Duration::from_secs(60);

fn key(number: usize) -> String {
    format!("key:{number}")
}

/// A value that no other key and no other round has.
fn value(number: usize, round: usize) -> String {
    let name = format!("{number}:{round},");
    name.repeat(VALUE_BYTES / name.len() + 1).chars().take(VALUE_BYTES).collect()
}

/// Asks something of many keys, in pipelines of several sessions, and looks at each answer.
fn ask_all<'a>(
    dev: &Dev,
    numbers: impl Fn(usize) -> bool + Sync,
    command: impl Fn(usize) -> Vec<String> + Sync,
    is_right: impl Fn(usize, &Reply) -> bool + Sync + 'a,
) {
    let (numbers, command, is_right) = (&numbers, &command, &is_right);
    std::thread::scope(|scope| {
        for session in 0..SESSIONS {
            scope.spawn(move || {
                let mut client = dev.client();
                let mine: Vec<usize> =
                    (session..KEYS).step_by(SESSIONS).filter(|number| numbers(*number)).collect();
                for part in mine.chunks(PIPELINE) {
                    ask_part(&mut client, part, command, is_right);
                }
            });
        }
    });
}

fn ask_part(
    client: &mut Client,
    numbers: &[usize],
    command: &impl Fn(usize) -> Vec<String>,
    is_right: &impl Fn(usize, &Reply) -> bool,
) {
    let mut bytes = Vec::new();
    for number in numbers {
        let words = command(*number);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        bytes.extend(request(&words));
    }
    client.send(&bytes).expect("the pipeline is taken");
    for number in numbers {
        let reply = client.read().expect("every command is answered");
        assert!(is_right(*number, &reply), "{} was answered with {reply:?}", key(*number));
    }
}

fn write(dev: &Dev, round: usize, numbers: impl Fn(usize) -> bool + Sync) {
    let set = |number| vec!["SET".to_owned(), key(number), value(number, round)];
    ask_all(dev, numbers, set, |_, reply| *reply == Reply::ok());
}

fn read(dev: &Dev, wanted: impl Fn(usize) -> String + Sync) {
    let get = |number| vec!["GET".to_owned(), key(number)];
    ask_all(dev, |_| true, get, |number, reply| *reply == Reply::Bulk(wanted(number)));
}

/// A figure that `INFO` tells.
fn figure(dev: &Dev, name: &str) -> usize {
    let Reply::Bulk(info) = dev.client().call(&["INFO", "memory"]) else {
        panic!("INFO is not answered with text");
    };
    let line = info.lines().find_map(|line| line.strip_prefix(&format!("{name}:")));
    line.and_then(|number| number.trim().parse().ok()).expect("INFO tells a number")
}

fn assert_within_limit(dev: &Dev) {
    let peak = figure(dev, "used_memory_peak");
    assert!(peak < USED_BYTES_MAX, "memory is kept within its limit: {peak}");
    let away = figure(dev, "values_on_disk_bytes");
    assert!(KEYS * VALUE_BYTES / 2 < away, "only {away} bytes are on disk only");
    assert_eq!(figure(dev, "values_failed_to_load"), 0);
}

#[test]
fn four_times_the_memory_is_written_read_changed_and_found_again_after_a_kill() {
    // Whoever frees memory needs processors: beside other tests it comes too late for the bound.
    let stage = Stage::alone();
    let data = stage.path("data");
    let limit = LIMIT_BYTES.to_string();
    let words = ["--data", path_text(&data), "--fsync", "interval", "--maxmemory", &limit];
    let mut dev = Dev::start(&stage, &words);
    write(&dev, 1, |_| true);
    assert_within_limit(&dev);
    read(&dev, |number| value(number, 1));
    assert!(KEYS / 2 < figure(&dev, "values_loaded"), "most values were read from the disk");

    // Of every four keys one is overwritten, one is changed where it is, one expires some day.
    write(&dev, 2, |number| number % 4 == 0);
    let append = |number| vec!["APPEND".to_owned(), key(number), "!".to_owned()];
    let grown = i64::try_from(VALUE_BYTES + 1).expect("it is small");
    let is_grown = |_, reply: &Reply| *reply == Reply::Integer(grown);
    ask_all(&dev, |number| number % 4 == 1, append, is_grown);
    let expire = |number| vec!["EXPIRE".to_owned(), key(number), "100000".to_owned()];
    ask_all(&dev, |number| number % 4 == 2, expire, |_, reply| *reply == Reply::Integer(1));
    let newest = |number| match number % 4 {
        0 => value(number, 2),
        1 => value(number, 1) + "!",
        _ => value(number, 1),
    };
    read(&dev, newest);
    assert_within_limit(&dev);

    await_sync(&mut dev);
    dev.process.kill();
    let dev = Dev::start(&stage, &words);
    read(&dev, newest);
    assert_within_limit(&dev);
    let Reply::Integer(left) = dev.client().call(&["TTL", &key(2)]) else {
        panic!("TTL is not answered with a number");
    };
    assert!(90_000 < left, "the time to live was kept, {left} s are left");
    assert_eq!(dev.client().call(&["DBSIZE"]), Reply::Integer(i64::try_from(KEYS).expect("few")));
}

/// Waits until what was written is synced, which happens every second.
fn await_sync(dev: &mut Dev) {
    let mut client = dev.client();
    let mut told = |name: &str| {
        let Reply::Bulk(info) = client.call(&["INFO", "persistence"]) else {
            panic!("INFO is not answered with text");
        };
        let line = info.lines().find_map(|line| line.strip_prefix(&format!("{name}:")));
        line.and_then(|number| number.trim().parse::<u64>().ok())
    };
    let written = told("log_appended_to");
    eventually("the log is synced", PATIENCE, || (written <= told("log_synced_to")).then_some(()));
}

/// What has changed can go only once a checkpoint has it, however little was written for that.
#[test]
fn values_of_keys_that_get_a_time_to_live_leave_room_when_they_are_read() {
    const COUNT: usize = LIMIT_BYTES / 8_192 * 3 / 2;
    let stage = Stage::alone();
    let data = stage.path("data");
    let limit = LIMIT_BYTES.to_string();
    let dev = Dev::start(
        &stage,
        &["--data", path_text(&data), "--fsync", "interval", "--maxmemory", &limit],
    );
    let mut client = dev.client();
    let long = |number: usize| format!("{number:08}").repeat(1_024);
    let set = |number| vec!["SET".to_owned(), key(number), long(number)];
    let expire = |number| vec!["EXPIRE".to_owned(), key(number), "100000".to_owned()];
    let get = |number| vec!["GET".to_owned(), key(number)];
    let numbers: Vec<usize> = (0..COUNT).collect();
    for part in numbers.chunks(32) {
        ask_part(&mut client, part, &set, &|_, reply| *reply == Reply::ok());
    }
    for part in numbers.chunks(32) {
        ask_part(&mut client, part, &expire, &|_, reply| *reply == Reply::Integer(1));
    }
    for part in numbers.chunks(32) {
        ask_part(&mut client, part, &get, &|number, reply| *reply == Reply::Bulk(long(number)));
    }
    let peak = figure(&dev, "used_memory_peak");
    assert!(peak < USED_BYTES_MAX, "memory is kept within its limit: {peak}");
}

#[test]
fn keys_that_do_not_fit_are_refused_and_what_is_there_is_served() {
    let stage = Stage::shared();
    let data = stage.path("data");
    let words = ["--data", path_text(&data), "--fsync", "never", "--maxmemory", "16MiB"];
    let dev = Dev::start(&stage, &words);
    let mut client = dev.client();
    let mut written = 0;
    // Small values stay in memory, so that they fill it.
    let refused = loop {
        let reply = client.call(&["SET", &key(written), "small"]);
        if reply != Reply::ok() {
            break reply;
        }
        written += 1;
        assert!(written < 1_000_000, "so many keys do not fit the limit");
    };
    assert!(refused.is_refused_with("OOM"), "{refused:?}");
    for number in (0..written).step_by(997) {
        assert_eq!(client.get(&key(number)), Some("small".to_owned()));
    }
    assert_eq!(client.call(&["DEL", &key(0)]), Reply::Integer(1));
}
