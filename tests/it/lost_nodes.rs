//! Nodes are killed and stopped under load where managers decide who serves: writes go on without
//! them, they join again by themselves, and what all sessions saw is judged.

use std::path::Path;
use std::time::Duration;

use tests::judged::{Content, Judged, MODELS};
use tests::load::{Load, Rate};
use tests::nodes::{Node, Nodes};
use tests::patience::{Deadline, within};
use tests::resp::request;
use tests::{Client, Reply, Stage, eventually, http, settings, tell};

/// Few enough keys that sessions meet on them.
pub(crate) const LOAD: Rate = Rate { operations: 600, keys: 200 };

/// Keys that are written to see whether all chains take writes; they lie in many shards.
const PROBES: usize = 64;

/// How many clients write them.
const PROBERS: usize = 8;

/// How long writes may stand still when a node is killed.
pub(crate) const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Half of all pauses are no longer, which is told only of many.
const PAUSE_MEDIAN: Duration = Duration::from_millis(1500);
const MANY: usize = 20;

/// How long a node that returns may take until its chains are whole.
pub(crate) const JOIN_PATIENCE: Duration = Duration::from_secs(30);

/// How long a load goes on between two kills.
pub(crate) const CALM_SPAN: Duration = Duration::from_millis(1000);

/// How long a node is stopped: longer than it takes to be given up.
const STOP_SPAN: Duration = Duration::from_secs(3);

fn probe(number: usize) -> String {
    format!("probe:{number}")
}

/// Writes every probe, each again until it succeeds, with several clients.
pub(crate) fn write_probes(node: &Node, value: &str) {
    std::thread::scope(|scope| {
        for prober in 0..PROBERS {
            scope.spawn(move || {
                let mut client = node.client();
                for number in (prober..PROBES).step_by(PROBERS) {
                    write_probe(node, &mut client, number, value);
                }
            });
        }
    });
}

fn write_probe(node: &Node, client: &mut Client, number: usize, value: &str) {
    let key = probe(number);
    eventually(&format!("{key} is written"), 4 * PAUSE_MAX, || {
        match client.try_call(&["SET", &key, value]) {
            Ok(reply) => (reply == Reply::ok()).then_some(()),
            Err(_) => {
                *client = node.client();
                None
            }
        }
    });
}

/// Reads every probe at a node; a refusal is no answer, a chain that changes gives some.
pub(crate) fn assert_probes(node: &Node, value: &str) {
    let mut client = node.client();
    for number in 0..PROBES {
        let key = probe(number);
        let found = eventually(&format!("{key} is read"), PAUSE_MAX, || {
            let reply = client.call(&["GET", &key]);
            (!reply.is_refused_with("TRYAGAIN")).then_some(reply)
        });
        assert_eq!(found, Reply::text(value), "{key}");
    }
}

/// Waits until all nodes know chains of which every replica serves.
pub(crate) fn await_whole(nodes: &Nodes, replicas: usize) {
    for node in &nodes.all {
        let what = format!("the chains of {} are whole", node.name);
        eventually(&what, JOIN_PATIENCE, || {
            (node.shortest_chain() == Some(replicas)).then_some(())
        });
    }
}

/// What every history of such a load must hold, lest the judge had nothing to do.
pub(crate) fn check(stage: &Stage, history: &Path) -> Content {
    let content = Content::of(history);
    tell(&format!("{content:?}"));
    let seconds = settings::load_duration().as_secs();
    assert!(50 * seconds <= content.acknowledged, "{content:?}");
    assert!(10 * seconds <= content.writes, "{content:?}");
    let judged = Judged::pass(stage, history, MODELS);
    for model in MODELS {
        tell(&format!("{model}: {} checked", judged.checked(model)));
    }
    assert_eq!(judged.checked("converged"), content.finals, "{content:?}");
    content
}

/// Kills a node, waits until writes go on everywhere, and starts it again; how long they stood.
pub(crate) fn kill_and_measure(
    stage: &Stage,
    nodes: &mut Nodes,
    place: usize,
    survivor: usize,
) -> Duration {
    nodes.all[place].crash();
    let since = Deadline::after(PAUSE_MAX);
    write_probes(&nodes.all[survivor], &format!("without {place}"));
    let pause = since.elapsed();
    nodes.all[place].restart(stage);
    nodes.all[place].await_ready(JOIN_PATIENCE);
    pause
}

/// What many kills have cost.
#[derive(Debug, Default)]
struct Costs {
    /// How long writes stood still.
    pauses: Vec<Duration>,
    /// How long it took from the start of the process until all chains had all replicas again.
    joins: Vec<Duration>,
}

impl Costs {
    /// Tells the figures, and the median of the pauses.
    fn tell(&mut self) -> Duration {
        for (what, spans) in [
            ("writes stood still for", &mut self.pauses),
            ("chains were whole after", &mut self.joins),
        ] {
            spans.sort_unstable();
            let at = |part: usize| spans[(spans.len() - 1) * part / 100];
            let (half, most, last) = (at(50), at(99), at(100));
            tell(&format!("{} kills: {what} p50 {half:?} p99 {most:?} max {last:?}", spans.len()));
        }
        self.pauses[(self.pauses.len() - 1) / 2]
    }
}

/// Kills a node, waits until writes go on at both others, starts it again and waits until all is as
/// before.
fn kill_and_count(stage: &Stage, nodes: &mut Nodes, place: usize, costs: &mut Costs) {
    nodes.all[place].crash();
    let since = Deadline::after(PAUSE_MAX);
    std::thread::scope(|scope| {
        for survivor in [(place + 1) % 3, (place + 2) % 3] {
            let survivor = &nodes.all[survivor];
            scope.spawn(move || write_probes(survivor, &format!("without {place}")));
        }
    });
    let pause = since.elapsed();
    costs.pauses.push(pause);
    for survivor in [(place + 1) % 3, (place + 2) % 3] {
        let admin = &nodes.all[survivor].place.admin;
        let overdue = http::metric(admin, "antecede_overdue_requests_total");
        assert!(overdue < 1.0, "{overdue} requests were answered by nobody, after {pause:?}");
    }
    let since = Deadline::after(JOIN_PATIENCE);
    nodes.all[place].restart(stage);
    nodes.all[place].await_ready(JOIN_PATIENCE);
    await_whole(nodes, 3);
    costs.joins.push(since.elapsed());
    tell(&format!("without {place}: {pause:?}, whole again after {:?}", since.elapsed()));
}

/// Kills nodes of a new deployment for as long as its load lasts, and lets the history be judged.
fn kill_under_load(costs: &mut Costs) {
    let stage = Stage::alone();
    let mut nodes = Nodes::start_managed(&stage, &[("eu", 3)]);
    await_whole(&nodes, 3);
    let mut load = Load::start(&stage, &nodes, LOAD);
    let before = costs.pauses.len();
    while !load.has_ended(CALM_SPAN) {
        // Each node in turn, and after a round another order; which of them decides changes too.
        let count = costs.pauses.len();
        let place = if (count / 3).is_multiple_of(2) { count % 3 } else { 2 - count % 3 };
        kill_and_count(&stage, &mut nodes, place, costs);
    }
    let history = load.end();
    nodes.assert_running();
    assert!(before < costs.pauses.len(), "nobody was killed");
    assert!(costs.pauses.iter().all(|pause| *pause < PAUSE_MAX), "{:?}", costs.pauses);
    check(&stage, &history);
}

#[test]
fn writes_go_on_without_a_killed_node_and_it_joins_again_by_itself() {
    let mut costs = Costs::default();
    while costs.pauses.len() < settings::kills() {
        kill_under_load(&mut costs);
    }
    let median = costs.tell();
    assert!(costs.pauses.len() < MANY || median <= PAUSE_MEDIAN, "half of all: {median:?}");
}

#[test]
fn a_node_that_was_stopped_answers_nothing_from_before() {
    let stage = Stage::alone();
    let mut nodes = Nodes::start_managed(&stage, &[("eu", 3)]);
    await_whole(&nodes, 3);
    write_probes(&nodes.all[0], "before");
    let load = Load::start(&stage, &nodes, LOAD);
    let mut readers: Vec<Client> = (0..PROBES).map(|_| nodes.all[1].client()).collect();
    for (number, reader) in readers.iter_mut().enumerate() {
        assert_eq!(reader.get(&probe(number)).as_deref(), Some("before"));
    }
    nodes.all[1].process.pause();
    let since = Deadline::after(STOP_SPAN);
    write_probes(&nodes.all[0], "after");
    // They lie in its sockets when it wakes up.
    for (number, reader) in readers.iter_mut().enumerate() {
        reader.send(&request(&["GET", &probe(number)])).expect("the system takes it");
    }
    assert!(within(STOP_SPAN, || since.is_over().then_some(())).is_some(), "it was stopped");
    nodes.all[1].process.resume();
    let mut refused = 0;
    for (number, reader) in readers.iter_mut().enumerate() {
        match reader.read().expect("it answers") {
            Reply::Error(_) => refused += 1,
            answer @ (Reply::Bulk(_)
            | Reply::Simple(_)
            | Reply::Integer(_)
            | Reply::Nil
            | Reply::Array(_)) => assert_eq!(answer, Reply::text("after"), "{}", probe(number)),
        }
    }
    tell(&format!("of {PROBES} reads that it woke up to it refused {refused}"));
    nodes.all[1].await_ready(JOIN_PATIENCE);
    await_whole(&nodes, 3);
    let history = load.end();
    nodes.assert_running();
    check(&stage, &history);
}

#[test]
fn each_datacenter_goes_on_without_one_of_its_nodes() {
    let stage = Stage::alone();
    let mut nodes = Nodes::start_managed(&stage, &[("eu", 3), ("us", 3)]);
    await_whole(&nodes, 3);
    let mut load = Load::start(&stage, &nodes, LOAD);
    let mut rounds = 0;
    for place in (0..3).cycle() {
        if load.has_ended(CALM_SPAN) {
            break;
        }
        nodes.all[place].crash();
        nodes.all[3 + place].crash();
        let since = Deadline::after(PAUSE_MAX);
        for datacenter in [0, 3] {
            write_probes(&nodes.all[datacenter + (place + 1) % 3], &format!("without {place}"));
        }
        tell(&format!("writes stood still for {:?}", since.elapsed()));
        for node in [place, 3 + place] {
            nodes.all[node].restart(&stage);
        }
        for node in [place, 3 + place] {
            nodes.all[node].await_ready(JOIN_PATIENCE);
        }
        await_whole(&nodes, 3);
        rounds += 1;
    }
    let history = load.end();
    nodes.assert_running();
    assert!(0 < rounds, "nobody was killed");
    let content = check(&stage, &history);
    let seconds = settings::load_duration().as_secs();
    assert!(seconds <= content.remote_reads, "sessions met across datacenters: {content:?}");
}

#[test]
fn two_of_three_nodes_that_were_all_killed_serve_everything_again() {
    let stage = Stage::alone();
    let mut nodes = Nodes::start_managed(&stage, &[("eu", 3)]);
    await_whole(&nodes, 3);
    write_probes(&nodes.all[2], "before");
    for node in &mut nodes.all {
        node.crash();
    }
    let since = Deadline::after(JOIN_PATIENCE);
    for place in [0, 1] {
        nodes.all[place].restart(&stage);
    }
    for place in [0, 1] {
        nodes.all[place].await_ready(JOIN_PATIENCE);
    }
    tell(&format!("two of three served after {:?}", since.elapsed()));
    assert_probes(&nodes.all[1], "before");
    write_probes(&nodes.all[0], "without the third");
    // It has missed a write to each key; it answers once it has copied them.
    nodes.all[2].restart(&stage);
    nodes.all[2].await_ready(JOIN_PATIENCE);
    await_whole(&nodes, 3);
    assert_probes(&nodes.all[2], "without the third");
    nodes.assert_running();
}
