//! Whole runs against a small store of this process that drops connections and leaves outcomes open.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use antecede_check::{Kind, Outcome, jsonl, judge};
use clap::Parser;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::finals;
use super::options::BenchOptions;
use super::plan::Plan;
use crate::client::reply::{self, Reply};

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    options: BenchOptions,
}

/// Keys and values, as one linearizable store.
type Store = std::sync::Mutex<BTreeMap<Vec<u8>, Vec<u8>>>;

/// What goes wrong in the small store: every so many writes, 0 for never.
#[derive(Clone, Copy, Debug, Default)]
struct Faults {
    /// The connection ends; the write is done.
    lost: u64,
    /// `-UNKNOWNOUTCOME`; the write is not done.
    unknown: u64,
    /// `-OOM`; the write is not done.
    refused: u64,
    /// Deletes and sets are told to be done and are not.
    lie: u64,
}

async fn serving(faults: Faults) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let store = Arc::new(Store::default());
    let writes = Arc::new(AtomicU64::new(0));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, Arc::clone(&store), Arc::clone(&writes), faults));
        }
    });
    address
}

async fn serve(mut stream: TcpStream, store: Arc<Store>, writes: Arc<AtomicU64>, faults: Faults) {
    let mut input = Vec::new();
    loop {
        let mut output = Vec::new();
        let mut at = 0;
        let mut is_lost = false;
        while let Some((Reply::Array(words), length)) = reply::read(&input[at..]).unwrap() {
            at += length;
            let words: Vec<&[u8]> = words
                .iter()
                .map(|word| {
                    let Reply::Bulk(bytes) = word else { panic!("a request holds {word:?}") };
                    *bytes
                })
                .collect();
            let answered = output.len();
            is_lost = !answer(&words, &store, &writes, faults, &mut output);
            if is_lost {
                output.truncate(answered); // Done, but nobody is told.
                break;
            }
        }
        input.drain(..at);
        if stream.write_all(&output).await.is_err() || is_lost {
            return;
        }
        if stream.read_buf(&mut input).await.unwrap_or(0) == 0 {
            return;
        }
    }
}

/// Answers one request; `false` if the connection is to end instead.
fn answer(
    words: &[&[u8]],
    store: &Store,
    writes: &AtomicU64,
    faults: Faults,
    output: &mut Vec<u8>,
) -> bool {
    let mut store = store.lock().unwrap();
    let is_write = words[0] == b"SET" || words[0] == b"DEL";
    let number = if is_write { writes.fetch_add(1, Ordering::Relaxed) + 1 } else { 1 };
    let is_due = |every: u64| is_write && every != 0 && number.is_multiple_of(every);
    if is_due(faults.unknown) {
        output.extend_from_slice(b"-UNKNOWNOUTCOME who knows\r\n");
        return true;
    }
    if is_due(faults.refused) {
        output.extend_from_slice(b"-OOM no room\r\n");
        return true;
    }
    let lies = is_due(faults.lie);
    match words {
        [b"PING"] => output.extend_from_slice(b"+PONG\r\n"),
        [b"HELLO"] => output.extend_from_slice(b"*2\r\n$17\r\navailability_zone\r\n$2\r\neu\r\n"),
        [b"GET", key] => match store.get(*key) {
            Some(value) => crate::client::request::write_bulk(output, value),
            None => output.extend_from_slice(b"$-1\r\n"),
        },
        [b"SET", key, value] => {
            if !lies {
                store.insert(key.to_vec(), value.to_vec());
            }
            output.extend_from_slice(b"+OK\r\n");
        }
        [b"DEL", key] => {
            let was_there = store.contains_key(*key);
            if !lies {
                store.remove(*key);
            }
            output.extend_from_slice(if was_there { b":1\r\n" } else { b":0\r\n" });
        }
        [b"WAIT", count, _] => {
            output.extend_from_slice(b":");
            output.extend_from_slice(count);
            output.extend_from_slice(b"\r\n");
        }
        _ => output.extend_from_slice(b"-ERR unknown command\r\n"),
    }
    !is_due(faults.lost)
}

/// Runs a bench with a history against the small store.
async fn recorded(faults: Faults, more: &[&str]) -> (bool, antecede_check::History) {
    let address = serving(faults).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("run.jsonl");
    let path = file.to_str().unwrap();
    let line = ["bench", "--endpoints", &address, "--history", path, "--final-state"];
    let rest = ["-c", "3", "-P", "3", "--ratio", "50:50", "--keys", "20", "-n", "3000"];
    let line = line.iter().chain(&rest).chain(more);
    let options = Line::try_parse_from(line).unwrap().options;
    let report = super::measure(&options).await.unwrap();
    let source = std::io::BufReader::new(std::fs::File::open(&file).unwrap());
    (report.is_good(), jsonl::read(source).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_with_lost_connections_and_open_outcomes_is_judged_fairly() {
    let faults = Faults { lost: 97, unknown: 53, refused: 41, ..Faults::default() };
    let (is_good, history) = recorded(faults, &[]).await;
    assert!(is_good);
    let count = |kind: Kind, outcome: Outcome| {
        let all = history.operations().iter();
        all.filter(|operation| operation.kind == kind && operation.outcome == outcome).count()
    };
    assert!(10 < count(Kind::Write, Outcome::Unknown), "outcomes were left open");
    assert!(10 < count(Kind::Write, Outcome::Fail), "writes were refused");
    assert!(5 < count(Kind::Delete, Outcome::Ok), "deletes are part of it");
    let sessions = history.operations().iter().map(|operation| operation.session).max();
    assert!(Some(20) < sessions, "a new session follows an open outcome: {sessions:?}");
    let report = judge(&history, &Default::default());
    assert!(report.is_clean(), "{report}");
    let needed = ["linearizable", "causal+", "converged", "durable"];
    assert!(report.missing(&needed).is_empty(), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_asked_to_end_does_not_wait_until_all_agree() {
    let endpoints = [serving(Faults::default()).await, serving(Faults::default()).await].join(",");
    let line = ["bench", "--endpoints", &endpoints, "--keys", "2", "-n", "1"];
    let options = Line::try_parse_from(line).unwrap().options;
    let plan = Plan::of(&options, "run").await.unwrap();
    let mut stream = TcpStream::connect(&plan.endpoints[0].address).await.unwrap();
    let key = plan.keys.name(0);
    let set = format!("*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n$1\r\nv\r\n", key.len());
    stream.write_all(set.as_bytes()).await.unwrap();
    stream.read_exact(&mut [0; 5]).await.unwrap();
    let asked = tokio::time::sleep(Duration::from_millis(300));
    let finals = finals::take(&plan, &[0, 1], Duration::from_secs(30), asked).await;
    assert!(!finals.have_agreed, "{finals:?}");
    assert!(finals.records.is_empty(), "nothing is known of the final state: {finals:?}");
    assert!(finals.seconds < 30.0, "{finals:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_forgets_writes_is_found_out() {
    let (_, history) = recorded(Faults { lie: 60, ..Faults::default() }, &[]).await;
    let report = judge(&history, &Default::default());
    assert!(report.violated().next().is_some(), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_figures_count_every_operation_once() {
    let address = serving(Faults::default()).await;
    let line = ["bench", "--endpoints", &address, "-n", "900", "-c", "3", "-P", "4"];
    let with_wait = ["--ratio", "0:1", "--wait", "2", "--value-size", "10"];
    let options = Line::try_parse_from(line.iter().chain(&with_wait)).unwrap().options;
    let report = super::measure(&options).await.unwrap();
    assert_eq!(report.total.operations, 900);
    assert_eq!(report.short_waits, 0);
    assert_eq!(report.unanswered, 0);
    let of = |name: &str| report.commands.iter().find(|figures| figures.command == name);
    assert_eq!(of("SET").unwrap().operations, 900);
    assert_eq!(of("SET+WAIT").unwrap().operations, 900);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_is_kept() {
    let address = serving(Faults::default()).await;
    let line = ["bench", "--endpoints", &address, "--rate", "500", "--duration", "2s", "-c", "4"];
    let options = Line::try_parse_from(line).unwrap().options;
    let report = super::measure(&options).await.unwrap();
    let per_second = report.total.per_second;
    assert!((400.0..=510.0).contains(&per_second), "{per_second}");
}
