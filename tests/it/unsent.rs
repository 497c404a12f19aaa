//! What a lost datacenter had acknowledged and never sent is listed from its folder, and executed again
//! where nobody has written since.

use std::fs;
use std::time::Duration;

use serde_json::Value;
use tests::demo::path_text;
use tests::nodes::{Node, Nodes, Way};
use tests::{Reply, Stage, binary, eventually, tell};

use crate::topology::{await_standing, carry_out};

const PATIENCE: Duration = Duration::from_secs(30);
const CUT: Way = Way { delay_ms: 0, jitter_ms: 0, is_cut: true };

pub(crate) fn write(node: &Node, words: &[&str]) {
    let mut client = node.client();
    eventually(&format!("{words:?} is taken"), PATIENCE, || {
        (!matches!(client.call(words), Reply::Error(_))).then_some(())
    });
}

pub(crate) fn await_value(node: &Node, key: &str, value: &str) {
    let mut client = node.client();
    eventually(&format!("{key} is {value} at {}", node.name), PATIENCE, || {
        (client.get(key)? == value).then_some(())
    });
}

/// Enough to cut the log more than once, were nothing kept.
const MANY: usize = 400;

fn write_many(node: &Node) {
    let mut client = node.client();
    for number in 0..MANY {
        let key = format!("many:{number}");
        assert_eq!(client.call(&["SET", &key, &"v".repeat(500)]), Reply::ok(), "{key}");
    }
}

/// Cuts the third datacenter off, and writes there and elsewhere.
fn write_apart(nodes: &Nodes) {
    let [eu, us, ap] = [0, 1, 2].map(|place| &nodes.all[place]);
    for key in ["kept", "removed", "written since", "lasting"] {
        write(ap, &["SET", key, "of all"]);
        // What is written over it elsewhere depends on it.
        await_value(eu, key, "of all");
        await_value(us, key, "of all");
    }
    for other in ["eu", "us"] {
        nodes.shape("ap", other, CUT);
        nodes.shape(other, "ap", CUT);
    }
    write(ap, &["SET", "kept", "first"]);
    write(ap, &["SET", "kept", "second"]);
    write(ap, &["DEL", "removed"]);
    write(ap, &["SET", "new", "of ap"]);
    write(ap, &["SET", "written since", "of ap"]);
    write(ap, &["PEXPIREAT", "lasting", "4102444800000"]);
    write_many(ap);
    write(eu, &["SET", "written since", "of eu"]);
    await_value(us, "written since", "of eu");
}

#[test]
fn what_was_never_sent_is_listed_and_executed_again_where_nobody_has_written_since() {
    let stage = Stage::alone();
    let mut nodes = Nodes::start_managed(&stage, &[("eu", 1), ("us", 1), ("ap", 1)]);
    write_apart(&nodes);
    nodes.all[2].crash();
    let folder = stage.path("data").join("ap-1");
    let admin = nodes.all[0].place.admin.clone();
    let list = ["unsent", "list", path_text(&folder), "--admin", &admin];
    let early = binary::answer_of(&stage, &list);
    assert!(early.contains("it may send them yet"), "{early}");
    let journal = stage.path("journal");
    let client = nodes.all[0].place.client.clone();
    let mut replay = vec!["unsent", "replay", path_text(&folder), "--admin", &admin, "--to"];
    replay.extend([client.as_str(), "--journal", path_text(&journal)]);
    let too_early = binary::run(&stage, &replay);
    assert_eq!(too_early.status, Some(1), "{too_early:?}");
    assert!(too_early.notes.contains("datacenter 3 is not gone"), "{too_early:?}");

    carry_out(&stage, &nodes.all[0], &["remove", "ap", "--lost"]);
    // A run that hears that it is gone keeps what nobody has.
    nodes.all[2].restart(&stage);
    await_standing(&nodes.all[2], "gone");
    let running = binary::run(&stage, &list);
    assert!(running.notes.contains("another process uses"), "{running:?}");
    nodes.all[2].crash();

    let shown = binary::answer_of(&stage, &list);
    let first = shown.lines().next().unwrap_or_default();
    tell(&shown.lines().take(8).collect::<Vec<_>>().join("\n"));
    let count = 6 + MANY;
    assert!(first.starts_with(&format!("{count} writes of datacenter 3 are in")), "{first}");
    for words in ["SET kept second", "DEL removed", "PEXPIREAT lasting 4102444800000"] {
        assert!(shown.contains(words), "{words}: {shown}");
    }
    let listed = binary::answer_of(&stage, &[&list[..], &["--json"]].concat());
    let listed: Value = serde_json::from_str(&listed).expect("it is JSON");
    assert_eq!(listed.as_array().map(Vec::len), Some(count));

    let done = binary::run(&stage, &replay);
    assert_eq!(done.status, Some(1), "one was skipped: {done:?}");
    tell(&done.answer);
    let (executed, skipped) = (4 + MANY, "1 skipped, written since");
    assert!(done.answer.contains(&format!("{executed} executed, {skipped}")), "{done:?}");
    let journal_text = fs::read_to_string(&journal).expect("there is a journal");
    let skipped = journal_text.lines().find(|line| line.contains("written_since"));
    let wanted = r#""commands":[["SET","written since","of ap"]]"#;
    assert!(skipped.is_some_and(|line| line.contains(wanted)), "{skipped:?}");
    for node in &nodes.all[..2] {
        await_value(node, "new", "of ap");
        await_value(node, "kept", "second");
        await_value(node, "written since", "of eu");
        await_value(node, &format!("many:{}", MANY - 1), &"v".repeat(500));
        let mut client = node.client();
        eventually("what was removed is gone, what shall expire will", PATIENCE, || {
            let ends =
                client.call(&["PEXPIRETIME", "lasting"]) == Reply::Integer(4_102_444_800_000);
            (client.get("removed").is_none() && ends).then_some(())
        });
    }
    // Done once more, nothing is done.
    let again = stage.path("again");
    *replay.last_mut().expect("the journal is last") = path_text(&again);
    let repeated = binary::run(&stage, &replay);
    let left = format!("keys: {} skipped, written since;", executed + 1);
    assert!(repeated.answer.starts_with(&left), "{repeated:?}");
}
