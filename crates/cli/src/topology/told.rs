//! What an admin port tells of the members, and how people read it; what this build does not know
//! is passed over.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::table;

/// The members.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Topology {
    pub(super) version: u64,
    pub(super) is_agreed: bool,
    pub(super) unchangeable: Option<String>,
    pub(super) change: Option<String>,
    #[serde(default)]
    pub(super) waits: Vec<String>,
    pub(super) datacenters: Vec<Datacenter>,
    #[serde(default)]
    pub(super) gone: Vec<Gone>,
}

/// A datacenter.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Datacenter {
    pub(super) id: u16,
    pub(super) name: String,
    pub(super) standing: String,
    pub(super) is_open: bool,
    pub(super) from: Option<String>,
    #[serde(default)]
    pub(super) nodes: BTreeMap<String, String>,
    pub(super) acknowledged: u64,
    pub(super) shards_served: u64,
    pub(super) shards: u64,
    pub(super) behind_ms: Option<u64>,
    #[serde(default)]
    pub(super) applied_by: BTreeMap<String, u64>,
}

/// A datacenter that is there no more.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Gone {
    pub(super) id: u16,
    pub(super) name: String,
    pub(super) was_lost: bool,
    pub(super) since: u64,
}

impl Datacenter {
    fn behind(&self) -> String {
        self.behind_ms.map_or_else(|| "-".to_owned(), |millis| millis.to_string())
    }
}

impl Topology {
    /// The change that is under way.
    pub(super) fn change_words(&self) -> String {
        self.change.clone().unwrap_or_else(|| "nothing changes".to_owned())
    }

    /// Datacenters that do not act by this version yet.
    fn late(&self) -> impl Iterator<Item = &Datacenter> {
        self.datacenters.iter().filter(|there| there.acknowledged < self.version)
    }

    /// Whether nothing is under way, and everybody knows it.
    pub(super) fn is_done(&self) -> bool {
        self.change.is_none() && self.late().next().is_none()
    }

    /// How far it is.
    pub(super) fn progress_words(&self) -> String {
        let mut words = format!("version {}: {}", self.version, self.change_words());
        for wait in &self.waits {
            words.push_str(&format!("\n  waits: {wait}"));
        }
        if self.change.is_none() {
            for late in self.late() {
                words.push_str(&format!(
                    "\n  waits: datacenter {} does not act by it yet",
                    late.name
                ));
            }
        }
        for there in self.datacenters.iter().filter(|there| !there.is_open) {
            words.push_str(&format!(
                "\n  {}: {} of {} shards served",
                there.name, there.shards_served, there.shards
            ));
        }
        words
    }

    /// How it ended for a datacenter.
    pub(super) fn end_words(&self, name: &str) -> String {
        if self.datacenters.iter().any(|there| there.name == name) {
            return format!("datacenter {name} serves");
        }
        match self.gone.iter().find(|gone| gone.name == name) {
            Some(Gone { was_lost: true, .. }) => format!("datacenter {name} is given up"),
            Some(Gone { was_lost: false, .. }) => {
                format!("datacenter {name} is gone; its nodes can be stopped")
            }
            None => format!("datacenter {name} is no member"),
        }
    }

    /// All of it.
    pub(super) fn to_text(&self) -> String {
        let mut text = format!("version {}", self.version);
        if !self.is_agreed {
            text.push_str(" as this node knows it");
        }
        if let Some(why) = &self.unchangeable {
            text.push_str(&format!("\n  cannot be changed now: {why}"));
        }
        if let Some(change) = &self.change {
            text.push_str(&format!("\n  {change}"));
        }
        for wait in &self.waits {
            text.push_str(&format!("\n  waits: {wait}"));
        }
        let rows = self.datacenters.iter().map(|there| {
            let from = there.from.as_ref().map(|from| format!(" from {from}"));
            let nodes = there.nodes.iter().map(|(node, at)| format!("{node} {at}"));
            [
                there.name.clone(),
                there.id.to_string(),
                format!("{}{}", there.standing, from.unwrap_or_default()),
                there.acknowledged.to_string(),
                format!("{}/{}", there.shards_served, there.shards),
                there.behind(),
                nodes.collect::<Vec<_>>().join(", "),
            ]
        });
        let headings =
            ["datacenter", "id", "is", "acts by", "shards served", "behind by (ms)", "nodes"];
        text.push_str(&format!("\n\n{}", table::of(headings, rows, usize::MAX)));
        for gone in &self.gone {
            let how = if gone.was_lost { "given up" } else { "removed" };
            text.push_str(&format!(
                "\n{} ({}) is gone: {how} with version {}",
                gone.name, gone.id, gone.since
            ));
        }
        text
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn three() -> Topology {
        serde_json::from_str(
            r#"{
                "version": 4, "is_agreed": true, "unchangeable": null,
                "change": "datacenter ap (3) is copying", "waits": ["ap copies"],
                "datacenters": [
                    { "id": 1, "name": "eu", "standing": "serving", "is_open": true, "from": null,
                      "nodes": { "1.1": "host:1" }, "acknowledged": 4, "done": 0,
                      "shards_served": 8, "shards": 8, "behind_ms": 0,
                      "applied_by": { "ap": 1000, "us": 61000 } },
                    { "id": 2, "name": "us", "standing": "serving", "is_open": true, "from": null,
                      "nodes": {}, "acknowledged": 3, "done": 0,
                      "shards_served": 8, "shards": 8, "behind_ms": null, "applied_by": {} },
                    { "id": 3, "name": "ap", "standing": "copying", "is_open": false, "from": "eu",
                      "nodes": {}, "acknowledged": 4, "done": 3,
                      "shards_served": 2, "shards": 8, "behind_ms": 70, "applied_by": {} }
                ],
                "gone": [{ "id": 9, "name": "old", "was_lost": true, "since": 2 }]
            }"#,
        )
        .unwrap()
    }

    #[test]
    fn what_changes_comes_first_and_what_it_waits_for() {
        let text = three().to_text();
        let wanted = "version 4\n  datacenter ap (3) is copying\n  waits: ap copies\n\n";
        assert!(text.starts_with(wanted), "{text}");
        for words in ["copying from eu", "2/8", "1.1 host:1", "old (9) is gone: given up"] {
            assert!(text.contains(words), "{words} in {text}");
        }
        let silent = Topology {
            is_agreed: false,
            unchangeable: Some("nobody answers".to_owned()),
            ..three()
        };
        assert!(
            silent.to_text().contains("as this node knows it\n  cannot be changed now: nobody")
        );
    }

    #[test]
    fn the_end_of_a_change_is_told_by_where_the_datacenter_is() {
        assert_eq!(three().end_words("eu"), "datacenter eu serves");
        assert_eq!(three().end_words("old"), "datacenter old is given up");
        assert!(three().progress_words().ends_with("ap: 2 of 8 shards served"));
        let mut last = Topology { change: None, waits: Vec::new(), ..three() };
        assert!(!last.is_done(), "us does not act by it yet");
        assert!(last.progress_words().contains("waits: datacenter us does not act by it yet"));
        last.datacenters[1].acknowledged = 4;
        assert!(last.is_done() && !three().is_done());
    }
}
