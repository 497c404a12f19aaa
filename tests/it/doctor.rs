//! `antecede doctor` finds what is wrong with real processes, and says what mends it.

use std::time::Duration;

use serde_json::Value;
use tests::binary::Ended;
use tests::nodes::{Nodes, Way};
use tests::{SmallDisk, Stage, binary, eventually, within};

const PATIENCE: Duration = Duration::from_secs(40);

/// MiB of a small disk.
const DISK_MIB: u32 = 48;

/// What it says when it asks one node for all others.
fn examine(stage: &Stage, admin: &str) -> (Ended, Value) {
    let ended = binary::run(stage, &["doctor", "--admin", admin, "--json"]);
    let report = serde_json::from_str(&ended.answer).unwrap_or_else(|_| panic!("{ended:?}"));
    (ended, report)
}

/// Kinds and places of what it finds.
fn found(report: &Value) -> Vec<(String, String)> {
    let text = |finding: &Value, name: &str| finding[name].as_str().unwrap_or_default().to_owned();
    let findings = report["findings"].as_array().expect("findings are a list");
    findings.iter().map(|finding| (text(finding, "kind"), text(finding, "place"))).collect()
}

/// Waits until it finds exactly this, with this exit status; the report.
fn await_findings(stage: &Stage, admin: &str, status: i32, wanted: &[(&str, &str)]) -> Value {
    let wanted: Vec<(String, String)> =
        wanted.iter().map(|(kind, place)| ((*kind).to_owned(), (*place).to_owned())).collect();
    let mut last = None;
    let seen = within(PATIENCE, || {
        let (ended, report) = examine(stage, admin);
        let is_it = found(&report) == wanted && ended.status == Some(status);
        last = Some(ended);
        is_it.then_some(report)
    });
    seen.unwrap_or_else(|| panic!("wanted {wanted:?} with {status}, last: {last:?}"))
}

/// The action of the first finding.
fn first_action(report: &Value) -> &str {
    report["findings"][0]["action"].as_str().unwrap_or_default()
}

#[test]
fn doctor_finds_dead_nodes_and_an_agreement_without_a_majority() {
    let stage = Stage::shared();
    let mut nodes = Nodes::start_managed(&stage, &[("eu", 3)]);
    let admin = nodes.all[0].place.admin.clone();
    let report = await_findings(&stage, &admin, 0, &[]);
    assert_eq!(report["answering"], 3, "it finds the others through one: {report}");

    nodes.all[1].crash();
    let report = await_findings(&stage, &admin, 1, &[("node_silent", "eu 1.2")]);
    assert!(first_action(&report).contains("antecede serve --config FILE"), "{report}");
    eventually("the node is given up", PATIENCE, || {
        let (_, report) = examine(&stage, &admin);
        (report["can_lose"][0] == "eu can lose no more node").then_some(())
    });

    nodes.all[2].crash();
    let wanted = [("no_majority", "eu"), ("node_silent", "eu 1.2"), ("node_silent", "eu 1.3")];
    let report = await_findings(&stage, &admin, 1, &wanted);
    assert!(first_action(&report).starts_with("start 1.2, 1.3"), "{report}");

    // What it says is done, and nothing is wrong any more.
    for place in [1, 2] {
        nodes.all[place].restart(&stage);
    }
    await_findings(&stage, &admin, 0, &[]);
    for node in &mut nodes.all {
        node.crash();
    }
    let (ended, report) = examine(&stage, &admin);
    assert_eq!((ended.status, report["health"].as_str()), (Some(2), Some("unknown")), "{ended:?}");
}

#[test]
fn doctor_finds_a_full_disk_by_its_folder() {
    let stage = Stage::shared();
    let disk = SmallDisk::mount(stage.path("data").join("eu-2"), DISK_MIB);
    let Some(disk) = disk else { return };
    let environment = [("ANTECEDE_STORAGE_SEGMENT", "2MiB")];
    let nodes = Nodes::start_in(&stage, &[("eu", 3)], "embedded", &environment);
    let admin = nodes.all[0].place.admin.clone();
    await_findings(&stage, &admin, 0, &[]);
    let ballast = disk.fill_but(1 << 20);
    let report = await_findings(&stage, &admin, 1, &[("disk_full", "eu 1.2")]);
    let command = format!("df -h {}", disk.path().display());
    assert!(first_action(&report).contains(&command), "{report}");
    std::fs::remove_file(ballast).expect("ballast can be thrown off");
    await_findings(&stage, &admin, 0, &[]);
}

#[test]
fn doctor_finds_a_datacenter_that_is_away_and_links_that_are_cut() {
    let stage = Stage::shared();
    let mut nodes = Nodes::start(&stage, &[("eu", 1), ("us", 2)]);
    let admin = nodes.all[0].place.admin.clone();
    await_findings(&stage, &admin, 0, &[]);

    nodes.shape("eu", "us", Way { delay_ms: 0, jitter_ms: 0, is_cut: true });
    let report = await_findings(&stage, &admin, 1, &[("cut", "eu 1.1")]);
    assert!(first_action(&report).contains(&format!("http://{admin}/v1/faults/heal")), "{report}");
    nodes.shape("eu", "us", Way { delay_ms: 0, jitter_ms: 0, is_cut: false });
    await_findings(&stage, &admin, 0, &[]);

    for node in &mut nodes.all[1..] {
        node.crash();
    }
    let report = await_findings(&stage, &admin, 1, &[("datacenter_silent", "us")]);
    assert!(first_action(&report).contains("start its nodes 2.1, 2.2"), "{report}");
    for node in &mut nodes.all[1..] {
        node.restart(&stage);
    }
    eventually("the deployment is whole again", PATIENCE, || {
        (examine(&stage, &admin).0.status == Some(0)).then_some(())
    });
}
