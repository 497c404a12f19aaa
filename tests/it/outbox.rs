//! What is kept for a datacenter that is cut off is bounded: writes are refused with a reason, reads go
//! on, and everything goes on by itself when the line is whole.

use std::time::Duration;

use tests::nodes::{Node, Nodes, Way};
use tests::{Reply, Stage, eventually, tell};

/// Long enough for two nodes to catch up under the load of other tests.
const PATIENCE: Duration = Duration::from_secs(30);

const HERE: Way = Way { delay_ms: 0, jitter_ms: 0, is_cut: false };
const CUT: Way = Way { is_cut: true, ..HERE };

/// More writes of a kilobyte than fit a mebibyte.
const WRITES_MAX: usize = 4_000;

fn bytes_kept(node: &Node) -> Option<u64> {
    node.status()?["outbox"]["bytes"].as_u64()
}

fn is_in_trouble(node: &Node, words: &str) -> Option<bool> {
    let status = node.status()?;
    let reasons = status["trouble"].as_array()?.iter().filter_map(|reason| reason.as_str());
    Some(reasons.into_iter().any(|reason| reason.contains(words)))
}

#[test]
fn a_datacenter_that_is_cut_off_holds_writes_up_at_the_limit_and_not_for_longer() {
    let stage = Stage::alone();
    let limit = [("ANTECEDE_LIMITS_OUTBOX", "1MiB")];
    let datacenters = [("eu", 1), ("us", 1), ("ap", 1)];
    let mut nodes = Nodes::start_in(&stage, &datacenters, "none", &limit);
    for other in ["eu", "us"] {
        nodes.shape("ap", other, CUT);
        nodes.shape(other, "ap", CUT);
    }
    let eu = &nodes.all[0];
    let mut client = eu.client();
    let value = "v".repeat(1_000);
    let mut taken = Vec::new();
    let refused = (0..WRITES_MAX).find_map(|number| {
        let key = format!("kept:{number}");
        match client.call(&["SET", &key, &value]) {
            Reply::Error(error) => Some(error),
            Reply::Simple(_)
            | Reply::Integer(_)
            | Reply::Bulk(_)
            | Reply::Nil
            | Reply::Array(_) => {
                taken.push(key);
                None
            }
        }
    });
    let refused = refused.expect("a mebibyte is full");
    assert!(refused.starts_with("OUTBOXFULL"), "{refused}");
    // A mebibyte is full before anybody has told how far it is: the next promises tell.
    eventually("the refusal names who is behind", PATIENCE, || {
        let reply = client.call(&["SET", "refused", "too"]);
        matches!(reply, Reply::Error(error) if error.contains("datacenter 3")).then_some(())
    });
    tell(&format!("after {} writes: {refused}", taken.len()));
    assert_eq!(client.get(&taken[0]), Some(value.clone()), "reads go on");
    assert_eq!(is_in_trouble(eu, "are kept for datacenter ap"), Some(true));
    let kept = nodes.metric("antecede_outbox_full");
    assert!(1.0 <= kept, "{kept}");

    for other in ["eu", "us"] {
        nodes.shape("ap", other, HERE);
        nodes.shape(other, "ap", HERE);
    }
    eventually("writes are taken again", PATIENCE, || {
        (client.call(&["SET", "after", "the cut"]) == Reply::ok()).then_some(())
    });
    let mut far = nodes.all[2].client();
    eventually("what was written last has arrived", PATIENCE, || {
        (far.get("after")? == "the cut").then_some(())
    });
    for key in &taken {
        assert_eq!(far.get(key).as_ref(), Some(&value), "{key}");
    }
    eventually("nothing is kept any more but the last ticks", PATIENCE, || {
        (bytes_kept(&nodes.all[0])? < 200_000).then_some(())
    });
    assert_eq!(is_in_trouble(&nodes.all[0], "are kept for"), Some(false));
    nodes.assert_running();
}
