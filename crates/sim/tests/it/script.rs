//! A node that crashes at any of its outputs loses nothing and holds nobody up for ever.

use sim::script;

/// The gate takes one point of so many; `sim crashes` takes all of them.
const EVERY: usize = 7;

#[test]
fn node_may_crash_at_any_of_its_outputs() {
    let outputs = script::outputs(1).unwrap();
    let points = outputs.iter().flat_map(|(node, count)| (1..=*count).map(move |at| (*node, at)));
    let mut taken = 0;
    for (node, at) in points.step_by(EVERY) {
        assert_eq!(script::crash_at(1, node, at), Ok(()), "{node} crashes at its output {at}");
        taken += 1;
    }
    assert!(50 < taken, "only {taken} points: the script does next to nothing");
}
