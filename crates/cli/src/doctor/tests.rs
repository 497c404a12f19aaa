//! What is found in a deployment of two datacenters with three nodes each, in several states.

use super::{
    findings::{Finding, Kind, of},
    told::{Chain, Control, Disk, Heard, Lag, Link, PeerBehind, Place, Quarantine, Told, Unbegun},
    *,
};

fn datacenter_of(node: &str) -> &'static str {
    if node.starts_with('1') { "eu" } else { "us" }
}

const NODES: [&str; 6] = ["1.1", "1.2", "1.3", "2.1", "2.2", "2.3"];

fn admin_of(node: &str) -> String {
    format!("host:{node}")
}

fn told(node: &str) -> Told {
    let own = datacenter_of(node);
    let place = |other: &&str| Place {
        node: (*other).to_owned(),
        datacenter: datacenter_of(other).to_owned(),
        admin: Some(admin_of(other)),
        is_member: datacenter_of(other) == own,
    };
    let link = |other: &&str| Link {
        node: (*other).to_owned(),
        datacenter: datacenter_of(other).to_owned(),
        address: format!("peer:{other}"),
        connected: true,
        through: None,
        cut: false,
    };
    let here = NODES.iter().filter(|other| datacenter_of(other) == own);
    Told {
        deployment: "d".to_owned(),
        datacenter: own.to_owned(),
        node: node.to_owned(),
        version: "1".to_owned(),
        epoch: 5,
        can_lose: Some(1),
        control: Some(Control { reachable: true, lease_ms: 400, ..Control::default() }),
        chains: vec![Chain {
            serving: here.map(|node| (*node).to_owned()).collect(),
            ..Chain::default()
        }],
        links: NODES.iter().filter(|other| **other != node).map(link).collect(),
        nodes: NODES.iter().map(place).collect(),
        ..Told::default()
    }
}

/// All nodes are well but those that are silent, to which nobody has a link.
fn without(silent: &[&str]) -> Heard {
    let mut heard = Heard::default();
    for node in NODES {
        let mut told = told(node);
        for link in &mut told.links {
            link.connected = !silent.contains(&link.node.as_str());
        }
        heard.by_admin.insert(admin_of(node), (!silent.contains(&node)).then_some(told));
    }
    heard
}

fn change(heard: &mut Heard, node: &str, change: impl FnOnce(&mut Told)) {
    let told = heard.by_admin.get_mut(&admin_of(node)).and_then(Option::as_mut);
    change(told.expect("it answers"));
}

fn kinds(heard: &Heard) -> Vec<(Kind, String)> {
    of(heard).into_iter().map(|Finding { kind, place, .. }| (kind, place)).collect()
}

#[test]
fn nothing_is_wrong_while_all_is_well() {
    let report = Report::of(&without(&[]));
    assert_eq!(report.health, Health::NothingWrong);
    assert!(report.findings.is_empty());
    assert!(report.to_text().starts_with("nothing is wrong: 6 of 6 nodes answer"));
    assert!(report.to_text().ends_with("eu can lose 1 more node\nus can lose 1 more node"));
}

#[test]
fn one_silent_node_is_told_once_and_explains_what_follows_from_it() {
    let mut heard = without(&["1.2"]);
    change(&mut heard, "1.1", |told| {
        told.epoch = 6;
        told.chains[0].serving.retain(|node| node != "1.2");
        told.chains[0].offline.push("1.2".to_owned());
    });
    assert_eq!(kinds(&heard), [(Kind::NodeSilent, "eu 1.2".to_owned())]);
    assert!(Report::of(&heard).to_text().contains("-> start it on its machine"));
    // Its process runs, but its admin port cannot be reached from here.
    change(&mut heard, "1.3", |told| told.links[1].connected = true);
    let found = of(&heard);
    assert_eq!(found.len(), 1);
    assert!(found[0].action.contains("it runs"), "{found:?}");
}

#[test]
fn members_that_are_missing_for_a_majority_are_named() {
    let mut heard = without(&["1.2", "1.3"]);
    change(&mut heard, "1.1", |told| {
        let outage = Some("no majority".to_owned());
        told.control = Some(Control { outage, ..Control::default() });
        told.settling = 3;
    });
    let found = kinds(&heard);
    let silent = |node: &str| (Kind::NodeSilent, format!("eu {node}"));
    assert_eq!(found, [(Kind::NoMajority, "eu".to_owned()), silent("1.2"), silent("1.3")]);
    let text = Report::of(&heard).to_text();
    assert!(text.contains("1.2, 1.3 of its members 1.1, 1.2, 1.3 do not answer"), "{text}");
    assert!(text.contains("-> start 1.2, 1.3"), "{text}");
}

#[test]
fn a_node_that_alone_lacks_the_agreement_is_named() {
    let mut heard = without(&[]);
    change(&mut heard, "1.1", |told| {
        told.control = Some(Control::default());
    });
    assert_eq!(kinds(&heard), [(Kind::NoLease, "eu 1.1".to_owned())]);
}

#[test]
fn a_member_that_waits_for_others_before_it_begins_says_for_whom() {
    let mut heard = without(&[]);
    change(&mut heard, "1.1", |told| {
        let waits = Some("it begins once node 1.2 is there".to_owned());
        told.control = Some(Control { waits, ..Control::default() });
    });
    let found = of(&heard);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].what.ends_with("has not begun: it begins once node 1.2 is there"),
        "{found:?}"
    );
    assert!(found[0].action.contains("recover.md"), "{found:?}");
}

#[test]
fn a_silent_datacenter_is_one_thing() {
    let heard = without(&["2.1", "2.2", "2.3"]);
    assert_eq!(kinds(&heard), [(Kind::DatacenterSilent, "us".to_owned())]);
    let text = Report::of(&heard).to_text();
    assert!(text.contains("start its nodes 2.1, 2.2, 2.3"), "{text}");
}

#[test]
fn a_full_disk_and_what_it_keeps_from_serving_is_one_thing() {
    let mut heard = without(&[]);
    change(&mut heard, "1.2", |told| {
        told.log.disk_full = true;
        told.log.disk = Some(Disk {
            folder: "/data".to_owned(),
            free_bytes: 3 << 20,
            reserve_bytes: 256 << 20,
        });
    });
    for node in ["1.1", "1.2", "1.3"] {
        change(&mut heard, node, |told| {
            told.chains[0].serving.retain(|node| node != "1.2");
            told.chains[0].offline.push("1.2".to_owned());
        });
    }
    assert_eq!(kinds(&heard), [(Kind::DiskFull, "eu 1.2".to_owned())]);
    let text = Report::of(&heard).to_text();
    assert!(text.contains("3 MiB are free, writes leave 256 MiB"), "{text}");
    assert!(text.contains("df -h /data"), "{text}");
}

#[test]
fn writes_that_are_held_up_name_the_datacenter_that_is_behind() {
    let mut heard = without(&[]);
    change(&mut heard, "1.1", |told| {
        told.outbox.bytes = 300 << 20;
        told.outbox.max_bytes = 1 << 30;
        told.outbox.full_in_seconds = Some(600);
        told.outbox.peers.push(PeerBehind { datacenter: "us".to_owned(), behind_ms: 60_000 });
    });
    assert_eq!(kinds(&heard), [(Kind::OutboxFull, "eu 1.1".to_owned())]);
    assert!(of(&heard)[0].what.contains("kept for us; at this rate writes are refused in 600 s"));
    change(&mut heard, "1.1", |told| told.outbox.held_up_by = Some("us".to_owned()));
    let found = of(&heard);
    assert!(found[0].what.starts_with("writes are refused with OUTBOXFULL: 300 of"), "{found:?}");
    change(&mut heard, "1.1", |told| {
        (told.outbox.held_up_by, told.outbox.full_in_seconds) = (None, Some(100_000));
    });
    assert!(kinds(&heard).is_empty(), "that is far away");
}

#[test]
fn shards_that_nobody_serves_name_who_has_their_data() {
    let mut heard = without(&["1.3"]);
    for node in ["1.1", "1.2"] {
        change(&mut heard, node, |told| {
            told.chains[0].serving.clear();
            told.chains[0].last_serving.push("1.3".to_owned());
        });
    }
    let found = of(&heard);
    assert_eq!(found[0].kind, Kind::Dark);
    assert!(found[0].action.starts_with("start 1.3: only"), "{found:?}");
}

#[test]
fn shards_that_nobody_can_serve_are_told_with_who_else_has_their_data() {
    let mut heard = without(&[]);
    for node in ["1.1", "1.2", "1.3"] {
        change(&mut heard, node, |told| {
            told.chains[0].serving.clear();
            told.chains[0].offline.push("1.3".to_owned());
        });
    }
    let found = of(&heard);
    assert_eq!(found[0].kind, Kind::Lost);
    assert!(found[0].action.contains("`antecede topology plan lapse eu` against"), "{found:?}");
    assert!(!found.iter().any(|finding| finding.kind == Kind::Dark), "{found:?}");
}

#[test]
fn a_node_with_a_new_folder_waits_for_others_or_has_lost_one() {
    let mut heard = without(&[]);
    let unbegun = |is_lost| Unbegun {
        why: "its data folder is new".to_owned(),
        is_lost,
        waits_for: vec!["2.1".to_owned()],
    };
    change(&mut heard, "1.1", |told| {
        told.unbegun = Some(unbegun(false));
        told.settling = 3;
    });
    change(&mut heard, "1.2", |told| told.unbegun = Some(unbegun(true)));
    let found = of(&heard);
    assert_eq!(
        kinds(&heard),
        [(Kind::Lost, "eu 1.2".to_owned()), (Kind::Unbegun, "eu 1.1".to_owned())]
    );
    assert!(found[1].action.starts_with("start 2.1, or"), "{found:?}");
}

#[test]
fn what_concerns_links_memory_lag_and_builds_is_told_by_node() {
    let mut heard = without(&[]);
    change(&mut heard, "1.1", |told| {
        told.links[0].connected = false; // To 1.2, which runs.
        told.links[2].cut = true; // To 2.1.
        told.links[3].through = Some("3.1".to_owned()); // To 2.2.
        told.max_memory_bytes = 1 << 30;
        told.used_memory_bytes = 1 << 30;
        told.lag.push(Lag { datacenter: "us".to_owned(), lag_ms: 31_000 });
        told.chains[0].syncing.push("1.2".to_owned());
        told.version = "2".to_owned();
        told.deployment = "other".to_owned();
    });
    let place = || "eu 1.1".to_owned();
    assert_eq!(
        kinds(&heard),
        [
            (Kind::Mixed, "deployment".to_owned()),
            (Kind::MemoryFull, place()),
            (Kind::NoLink, place()),
            (Kind::Cut, place()),
            (Kind::Detour, place()),
            (Kind::Lag, place()),
            (Kind::Replicas, "eu".to_owned()),
            (Kind::Versions, "deployment".to_owned()),
        ]
    );
    let text = Report::of(&heard).to_text();
    assert!(text.contains("curl -X POST http://host:1.1/v1/faults/heal"), "{text}");
    assert!(text.contains("peer:1.2 must be reached from 1.1"), "{text}");
    assert!(text.contains("3.1 passes on what it sends to 2.2"), "{text}");
    assert!(text.contains("peer:2.2 must be reached from 1.1"), "{text}");
}

#[test]
fn nobody_can_tell_while_no_node_answers() {
    let mut heard = Heard::default();
    heard.by_admin.insert("host:1".to_owned(), None);
    let report = Report::of(&heard);
    assert_eq!(report.health, Health::Unknown);
    assert!(report.to_text().starts_with("cannot tell: no node answers"));
}

#[test]
fn a_datacenter_that_comes_or_has_gone_is_told_with_what_it_waits_for() {
    let mut heard = without(&[]);
    for (node, told) in heard.by_admin.iter_mut().filter_map(|(n, t)| Some((n, t.as_mut()?))) {
        if node.ends_with("1.1") {
            told.topology.change = Some("datacenter ap (3) is being added".to_owned());
            told.topology.waits = vec!["datacenter us has not acknowledged".to_owned()];
        }
        told.topology.is_gone = node.ends_with("2.3");
    }
    let found = of(&heard);
    let kinds: Vec<Kind> = found.iter().map(|finding| finding.kind).collect();
    assert_eq!(kinds, [Kind::NoMember, Kind::Topology], "{found:?}");
    assert!(found[1].what.contains("it waits: datacenter us has not"), "{found:?}");
    assert!(found[1].action.contains("antecede topology show --admin host:1.1"), "{found:?}");
}

#[test]
fn what_was_never_sent_is_told_until_all_of_it_is_executed_again() {
    let mut heard = without(&[]);
    let nodes: Vec<&str> = NODES.into_iter().filter(|node| datacenter_of(node) == "eu").collect();
    let put_aside = |newest: &[u16], is_replayed| Quarantine {
        number: 9,
        folder: "/data/quarantine/9".to_owned(),
        newest: newest.to_vec(),
        is_replayed,
    };
    let told = |heard: &Heard| -> Vec<String> {
        let found = of(heard).into_iter().filter(|it| it.kind == Kind::Unsent);
        found.map(|it| it.what).collect()
    };
    assert!(told(&heard).is_empty());
    change(&mut heard, nodes[0], |told| told.quarantine = vec![put_aside(&[], false)]);
    let missing = told(&heard);
    assert!(missing[0].contains("by itself for 0 of 1 shards"), "{missing:?}");
    change(&mut heard, nodes[1], |told| told.quarantine = vec![put_aside(&[0], false)]);
    assert_eq!(told(&heard), ["what eu had never sent as 9 is not executed again yet"]);
    change(&mut heard, nodes[1], |told| told.quarantine = vec![put_aside(&[0], true)]);
    assert!(told(&heard).is_empty());
    change(&mut heard, nodes[1], |told| told.quarantine.clear());
    change(&mut heard, nodes[0], |told| told.quarantine = vec![put_aside(&[], true)]);
    assert!(told(&heard).is_empty(), "somebody has done it by hand");
}
