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
    #[serde(default)]
    pub(super) kept: Option<Kept>,
}

/// What the node that was asked keeps for the others.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Kept {
    pub(super) bytes: u64,
    pub(super) max_bytes: u64,
    pub(super) is_full: bool,
    pub(super) furthest: String,
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
    #[serde(default)]
    pub(super) successor: Option<u16>,
}

fn lapsed(name: &str, successor: u16) -> String {
    format!(
        "datacenter {name} has lapsed: nothing is kept for it any more; it comes back by itself, as \
         {successor}, as soon as it hears of it"
    )
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
        if let Some(there) = self.datacenters.iter().find(|there| there.name == name) {
            return format!("datacenter {name} ({}) serves", there.id);
        }
        match self.last_gone(name) {
            Some(Gone { successor: Some(id), .. }) => lapsed(name, *id),
            Some(Gone { was_lost: true, .. }) => format!("datacenter {name} is given up"),
            Some(Gone { was_lost: false, .. }) => {
                format!("datacenter {name} is gone; its nodes can be stopped")
            }
            None => format!("datacenter {name} is no member"),
        }
    }

    /// With which version a datacenter has lapsed, and how it goes on, if that was not before a
    /// version.
    pub(super) fn lapse_words(&self, name: &str, begun: u64) -> Option<(u64, String)> {
        let gone = self.last_gone(name).filter(|gone| begun <= gone.since)?;
        gone.successor.map(|id| (gone.since, lapsed(name, id)))
    }

    /// The last one that had a name and is gone.
    fn last_gone(&self, name: &str) -> Option<&Gone> {
        self.gone.iter().filter(|gone| gone.name == name).max_by_key(|gone| gone.since)
    }

    /// What the node that was asked keeps for one that is behind.
    pub(super) fn kept_words(&self, name: &str) -> String {
        let Some(kept) = &self.kept else {
            return format!("the node that was asked keeps nothing that {name} misses");
        };
        if kept.furthest != name {
            let other = &kept.furthest;
            return format!("of what the node that was asked keeps, {other} is held up most");
        }
        let of = match kept.max_bytes {
            0 => String::new(),
            limit => format!(" of {} MiB", limit >> 20),
        };
        let full =
            if kept.is_full { ", and refuses writes because of it (OUTBOXFULL)" } else { "" };
        format!(
            "the node that was asked keeps {} MiB{of} for the one furthest behind, {name}{full}",
            kept.bytes >> 20
        )
    }

    /// How one that is gone went, and whether it is back.
    fn gone_words(&self, gone: &Gone) -> String {
        let Some(id) = gone.successor else {
            let how = if gone.was_lost { "given up" } else { "removed" };
            return format!("is gone: {how} with version {}", gone.since);
        };
        let is_back = self.datacenters.iter().any(|there| there.id == id);
        let then = if is_back { "is there again as" } else { "comes back by itself as" };
        format!("has lapsed with version {}, {then} {id}", gone.since)
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
            let how = self.gone_words(gone);
            text.push_str(&format!("\n{} ({}) {how}", gone.name, gone.id));
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
                "gone": [{ "id": 9, "name": "old", "was_lost": true, "since": 2 }],
                "kept": { "bytes": 7864320, "max_bytes": 104857600, "is_full": false,
                          "furthest": "ap" }
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
        assert_eq!(three().end_words("eu"), "datacenter eu (1) serves");
        assert_eq!(three().end_words("old"), "datacenter old is given up");
        let mut lapsed = three();
        lapsed.gone[0].successor = Some(7);
        assert!(lapsed.end_words("old").contains("comes back by itself, as 7"));
        let (since, words) = lapsed.lapse_words("old", 2).unwrap();
        assert_eq!((since, words), (2, lapsed.end_words("old")));
        assert_eq!(lapsed.lapse_words("old", 3), None, "it lapsed before");
        assert_eq!(lapsed.lapse_words("eu", 2), None);
        let shown = "old (9) has lapsed with version 2, comes back by itself as 7";
        assert!(lapsed.to_text().contains(shown), "{}", lapsed.to_text());
        lapsed.datacenters[2].id = 7;
        assert!(
            lapsed.to_text().contains("old (9) has lapsed with version 2, is there again as 7")
        );
        assert!(three().progress_words().ends_with("ap: 2 of 8 shards served"));
        let mut last = Topology { change: None, waits: Vec::new(), ..three() };
        assert!(!last.is_done(), "us does not act by it yet");
        assert!(last.progress_words().contains("waits: datacenter us does not act by it yet"));
        last.datacenters[1].acknowledged = 4;
        assert!(last.is_done() && !three().is_done());
    }
}
