//! What an admin port tells of what nodes hold, and how people read it; what this build does not know
//! is passed over.

use serde::Deserialize;

use crate::table;

/// The nodes of a datacenter.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Nodes {
    pub(super) datacenter: String,
    pub(super) epoch: u64,
    pub(super) is_agreed: bool,
    pub(super) replicas: u64,
    pub(super) shards: u64,
    pub(super) nodes: Vec<Node>,
}

/// What a node holds.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Node {
    pub(super) node: String,
    pub(super) is_absent: bool,
    pub(super) is_drained: bool,
    pub(super) waits: Option<String>,
    pub(super) held: u64,
    pub(super) copies: u64,
    pub(super) heads: u64,
    pub(super) tails: u64,
}

impl Node {
    fn state(&self) -> &'static str {
        match (self.is_drained, 0 < self.held, self.is_absent) {
            (true, true, false) => "to be emptied",
            (true, true, true) => "gone, to be replaced",
            (true, false, false) => "empty",
            (true, false, true) => "empty, gone",
            (false, _, false) => "holds",
            (false, _, true) => "gone",
        }
    }
}

impl Nodes {
    fn named(&self, node: &str) -> Option<&Node> {
        self.nodes.iter().find(|found| found.node == node)
    }

    /// Whether a node shall hold nothing.
    pub(super) fn is_drained(&self, node: &str) -> bool {
        self.named(node).is_some_and(|found| found.is_drained)
    }

    /// Whether a node shall hold nothing, and does.
    pub(super) fn is_empty(&self, node: &str) -> bool {
        self.named(node).is_some_and(|found| found.is_drained && found.held == 0)
    }

    /// Replicas that are copied now, on all nodes.
    fn copies(&self) -> u64 {
        self.nodes.iter().map(|node| node.copies).sum()
    }

    /// How far it is.
    pub(super) fn progress_words(&self, node: &str) -> String {
        let Some(found) = self.named(node) else { return format!("there is no node {node}") };
        let words = format!("{node} holds {} shards, {} are copied now", found.held, self.copies());
        match &found.waits {
            Some(why) => format!("{words}\n  waits: {why}"),
            None => words,
        }
    }

    /// What it means that a node shall hold nothing, from how it would be.
    pub(super) fn plan_words(&self, node: &str) -> String {
        let Some(found) = self.named(node) else { return format!("there is no node {node}") };
        let others: Vec<&str> = self
            .nodes
            .iter()
            .filter(|other| !other.is_drained && !other.is_absent)
            .map(|other| other.node.as_str())
            .collect();
        let mut text = format!(
            "plan: {node} of datacenter {} shall hold nothing\n  its {} replicas are copied to {}, a \
             few at a time, each to the node that holds least\n  a shard has {} replicas all the time; \
             one leaves {node} once another node has all of it\n  writes to a shard wait for some \
             tenths of a second when its replica leaves\n",
            self.datacenter,
            found.held,
            others.join(", "),
            self.replicas,
        );
        if let Some(why) = &found.waits {
            text.push_str(&format!("  it cannot end as things are: {why}\n"));
        }
        text.push_str(&format!("  antecede nodes undrain {node} takes it back"));
        text
    }

    /// All of it.
    pub(super) fn to_text(&self) -> String {
        let mut text = format!(
            "datacenter {}: {} shards of {} replicas, epoch {}",
            self.datacenter, self.shards, self.replicas, self.epoch
        );
        if !self.is_agreed {
            text.push_str(" as this node knows it");
        }
        for node in &self.nodes {
            if let Some(why) = &node.waits {
                text.push_str(&format!("\n  {} keeps its replicas: {why}", node.node));
            }
        }
        let rows = self.nodes.iter().map(|node| {
            [
                node.node.clone(),
                node.state().to_owned(),
                node.held.to_string(),
                node.copies.to_string(),
                node.heads.to_string(),
                node.tails.to_string(),
            ]
        });
        let headings = ["node", "is", "shards", "copies", "head of", "tail of"];
        text.push_str(&format!("\n\n{}", table::of(headings, rows, usize::MAX)));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> Nodes {
        serde_json::from_str(
            r#"{
                "datacenter": "eu", "epoch": 9, "is_agreed": true, "replicas": 2, "shards": 8,
                "nodes": [
                    { "node": "1.1", "is_absent": false, "is_drained": false, "waits": null,
                      "held": 8, "copies": 2, "heads": 4, "tails": 3 },
                    { "node": "1.2", "is_absent": false, "is_drained": true, "waits": "of this",
                      "held": 3, "copies": 0, "heads": 0, "tails": 3 },
                    { "node": "1.3", "is_absent": true, "is_drained": true, "waits": null,
                      "held": 0, "copies": 0, "heads": 0, "tails": 0 }
                ]
            }"#,
        )
        .unwrap()
    }

    #[test]
    fn what_nodes_hold_is_told_with_what_is_waited_for() {
        let text = three().to_text();
        assert!(text.starts_with("datacenter eu: 8 shards of 2 replicas, epoch 9\n"), "{text}");
        for words in ["1.2 keeps its replicas: of this", "to be emptied", "empty, gone"] {
            assert!(text.contains(words), "{words} in {text}");
        }
        let old = Nodes { is_agreed: false, ..three() };
        assert!(old.to_text().contains("as this node knows it"));
    }

    #[test]
    fn drain_is_over_when_the_node_holds_nothing() {
        assert!(three().is_empty("1.3") && !three().is_empty("1.2") && !three().is_empty("1.1"));
        assert!(three().is_drained("1.2") && !three().is_drained("1.1"));
        let words = three().progress_words("1.2");
        assert_eq!(words, "1.2 holds 3 shards, 2 are copied now\n  waits: of this");
    }

    #[test]
    fn plan_names_who_takes_the_replicas_and_says_if_it_cannot_end() {
        let text = three().plan_words("1.2");
        assert!(text.contains("its 3 replicas are copied to 1.1,"), "{text}");
        assert!(text.contains("it cannot end as things are: of this"), "{text}");
        assert!(!three().plan_words("1.3").contains("cannot end"));
    }
}
