//! Clients whose writes have request ids send each again until it is answered, while nodes are
//! killed: every write takes effect once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tests::nodes::{Node, Nodes};
use tests::patience::Deadline;
use tests::{Client, Reply, Stage, eventually, settings, tell, watch};

use crate::lost_nodes::{CALM_SPAN, JOIN_PATIENCE, await_whole};

/// Writers in each datacenter, each with keys of its own in several shards.
const WRITERS: usize = 3;
const KEYS: usize = 4;

/// How long a writer tries to get one answer.
const ANSWER_PATIENCE: Duration = Duration::from_secs(40);

/// Between two sendings.
const AGAIN_AFTER: Duration = Duration::from_millis(20);

/// One writer, and what it was told.
struct Writer {
    name: String,
    datacenter: String,
    /// Where clients of that datacenter connect.
    addresses: Vec<String>,
    /// Microseconds since 1970 when `since` began.
    began: u64,
    since: Deadline,
    last_number: u64,
    connection: Option<Client>,
    /// By key: what was appended, and where it ends by the answer.
    written: Vec<Vec<(String, usize)>>,
    counts: Counts,
}

/// What writers have met.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    answered: u64,
    /// Sent again after an error or a lost connection.
    again: u64,
    /// Sent again for nothing but the same answer.
    repeats: u64,
    /// Answers that left open what became of a write.
    unknown: u64,
}

/// Microseconds since 1970, by a node's clock.
fn time_at(node: &Node) -> u64 {
    let Reply::Array(parts) = node.client().call(&["TIME"]) else { panic!("TIME is a list") };
    let [Reply::Bulk(seconds), Reply::Bulk(micros)] = parts.as_slice() else {
        panic!("TIME is two texts")
    };
    let number = |text: &str| text.parse::<u64>().expect("it is a number");
    number(seconds) * 1_000_000 + number(micros)
}

impl Writer {
    fn new(name: String, nodes: &[Node]) -> Self {
        let began = time_at(&nodes[0]);
        Self {
            name,
            datacenter: nodes[0].datacenter.clone(),
            addresses: nodes.iter().map(|node| node.place.client.clone()).collect(),
            began,
            since: Deadline::after(ANSWER_PATIENCE),
            last_number: 0,
            connection: None,
            written: vec![Vec::new(); KEYS],
            counts: Counts::default(),
        }
    }

    fn key(&self, number: usize) -> String {
        format!("{}:{number}", self.name)
    }

    fn next_id(&mut self) -> String {
        let now = self.began + u64::try_from(self.since.elapsed().as_micros()).expect("not long");
        self.last_number = now.max(self.last_number + 1);
        format!("{}.{}:{}", self.datacenter, self.name, self.last_number)
    }

    /// Sends a command once, to the node of its connection or the next one that takes one.
    fn send(&mut self, words: &[&str], turn: usize) -> Option<Reply> {
        if self.connection.is_none() {
            let address = &self.addresses[turn % self.addresses.len()];
            self.connection = Some(Client::try_connect(address).ok()?);
        }
        let client = self.connection.as_mut()?;
        let reply = client.try_call(words).ok();
        if reply.is_none() {
            self.connection = None;
        }
        reply
    }

    /// Appends something under an id until the answer comes; where the value ends with it.
    fn append(&mut self, key: &str, id: &str, text: &str) -> usize {
        let deadline = Deadline::after(ANSWER_PATIENCE);
        for turn in 0.. {
            match self.send(&["CAUSAL.DO", "ID", id, "APPEND", key, text], turn) {
                Some(Reply::Integer(length)) => {
                    return usize::try_from(length).expect("a length is no debt");
                }
                Some(Reply::Error(error)) => {
                    let is_open = error.starts_with("UNKNOWNOUTCOME");
                    let is_later =
                        error.starts_with("TRYAGAIN") || error.starts_with("CLUSTERDOWN");
                    assert!(is_open || is_later, "{id}: {error}");
                    self.counts.unknown += u64::from(is_open);
                }
                Some(other) => panic!("{id} was answered with {other:?}"),
                None => {}
            }
            assert!(!deadline.is_over(), "{id} has no answer");
            self.counts.again += 1;
            watch(AGAIN_AFTER, || {});
        }
        unreachable!("it ends with an answer or without patience")
    }

    fn run(mut self, is_over: &AtomicBool) -> Self {
        for number in 0.. {
            if is_over.load(Ordering::Relaxed) {
                break;
            }
            let (place, id) = (number % KEYS, self.next_id());
            let (key, text) = (self.key(place), format!("{number};"));
            let end = self.append(&key, &id, &text);
            self.counts.answered += 1;
            if number % 7 == 0 {
                self.connection = None; // At another node.
                assert_eq!(self.append(&key, &id, &text), end, "{id} is answered as it was");
                self.counts.repeats += 1;
            }
            self.written[place].push((text, end));
        }
        self
    }

    /// Holds what a node has against what was answered.
    fn check(&self, node: &Node) {
        for (place, written) in self.written.iter().enumerate() {
            let key = self.key(place);
            let value = node.client().get_within(&key, JOIN_PATIENCE).unwrap_or_default();
            let told: String = written.iter().map(|(text, _)| text.as_str()).collect();
            assert_eq!(value, told, "{key} at {}", node.name);
            for (text, end) in written {
                let found = value.get(end - text.len()..*end);
                assert_eq!(found, Some(text.as_str()), "{key} up to {end}");
            }
        }
    }
}

/// Kills a node of each datacenter again and again, and lets it come back.
fn kill_in_turn(stage: &Stage, nodes: &mut Nodes) -> usize {
    let span = Deadline::after(settings::load_duration());
    let mut kills = 0;
    for place in (0..3).cycle() {
        watch(CALM_SPAN, || {});
        if span.is_over() && 0 < kills {
            break;
        }
        for node in [place, 3 + place] {
            nodes.all[node].crash();
            kills += 1;
        }
        watch(CALM_SPAN, || {});
        for node in [place, 3 + place] {
            nodes.all[node].restart(stage);
        }
        for node in [place, 3 + place] {
            nodes.all[node].await_ready(JOIN_PATIENCE);
        }
        await_whole(nodes, 3);
    }
    kills
}

#[test]
fn every_write_with_a_request_id_takes_effect_once_while_nodes_are_killed() {
    let stage = Stage::alone();
    let mut nodes = Nodes::start_managed(&stage, &[("eu", 3), ("us", 3)]);
    await_whole(&nodes, 3);
    let writers = (0..2 * WRITERS).map(|number| {
        let datacenter = number / WRITERS;
        Writer::new(format!("writer-{number}"), &nodes.all[3 * datacenter..][..3])
    });
    let writers: Vec<Writer> = writers.collect();
    let is_over = AtomicBool::new(false);
    let (kills, writers) = std::thread::scope(|scope| {
        let running: Vec<_> =
            writers.into_iter().map(|writer| scope.spawn(|| writer.run(&is_over))).collect();
        let kills = kill_in_turn(&stage, &mut nodes);
        is_over.store(true, Ordering::Relaxed);
        let ended = running.into_iter().map(|writer| writer.join().expect("no writer fails"));
        (kills, ended.collect::<Vec<_>>())
    });
    nodes.assert_running();
    let mut all = Counts::default();
    for writer in &writers {
        let Counts { answered, again, repeats, unknown } = writer.counts;
        assert!(0 < answered && 0 < repeats, "{}: {:?}", writer.name, writer.counts);
        all.answered += answered;
        all.again += again;
        all.repeats += repeats;
        all.unknown += unknown;
    }
    tell(&format!("{kills} kills: {all:?}"));
    // The nodes send again themselves: only the connections to killed ones were lost.
    assert_eq!(all.unknown, 0, "{all:?}");
    assert!(0 < all.again, "no write had to be sent again: {all:?}");
    for (writer, own) in writers.iter().zip([0, 0, 0, 3, 3, 3]) {
        for node in &nodes.all[own..own + 3] {
            writer.check(node);
        }
        let there = &nodes.all[3 - own];
        let what = format!("the writes of {} have arrived at {}", writer.name, there.name);
        eventually(&what, JOIN_PATIENCE, || {
            let has = |(place, written): (usize, &Vec<(String, usize)>)| {
                let length = written.last().map_or(0, |(_, end)| *end);
                let value = there.client().get_within(&writer.key(place), JOIN_PATIENCE);
                value.unwrap_or_default().len() == length
            };
            writer.written.iter().enumerate().all(has).then_some(())
        });
        writer.check(there);
    }
}
