//! Finds the writes in old folders that none of the others has.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use antecede_server::admin::{AppliedShard, AppliedStatus};
use antecede_server::old_folder::{self, OldChange, OldEffect, OldFolder, OldWrite};
use anyhow::{Context, bail};
use serde::Serialize;

use crate::http;

/// Text is shown up to so many characters.
const TEXT_MAX: usize = 60;

/// Writes that nobody else has.
#[derive(Debug)]
pub(crate) struct Found {
    /// The datacenter that made them.
    pub(super) datacenter: u16,
    /// Whether it is gone for the others, so that it cannot send them any more.
    pub(crate) is_gone: bool,
    /// In the order of their stamps.
    pub(super) writes: Vec<OldWrite>,
}

/// A command as a client would send it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Words(pub(super) Vec<Word>);

/// A word of a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub(super) enum Word {
    /// Readable.
    Text(String),
    /// In hexadecimal digits.
    Bytes {
        /// The digits.
        hex: String,
    },
}

impl Word {
    pub(super) fn of(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::Text(text.to_owned()),
            Err(_) => Self::Bytes { hex: digits_of(bytes) },
        }
    }
}

impl Words {
    fn of(words: &[&[u8]]) -> Self {
        Self(words.iter().map(|word| Word::of(word)).collect())
    }

    /// The command on one line, long words cut.
    pub(super) fn to_text(&self) -> String {
        let word = |word: &Word| {
            let text = match word {
                Word::Text(text) => text.escape_default().to_string(),
                Word::Bytes { hex } => format!("0x{hex}"),
            };
            let rest = text.chars().count().saturating_sub(TEXT_MAX);
            let cut: String = text.chars().take(TEXT_MAX).collect();
            if rest == 0 { cut } else { format!("{cut}... ({rest} more)") }
        };
        self.0.iter().map(word).collect::<Vec<_>>().join(" ")
    }
}

/// Bytes in hexadecimal digits.
pub(super) fn digits_of(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A moment in words.
pub(super) fn time_of(millis: u64) -> String {
    let at = SystemTime::UNIX_EPOCH + Duration::from_millis(millis);
    humantime::format_rfc3339_millis(at).to_string()
}

/// The words of the command that does the same; none for a key whose time was over.
pub(super) fn words_of(effect: &OldEffect) -> Option<Vec<Vec<u8>>> {
    let key = effect.key.clone();
    let word = |text: &str| text.as_bytes().to_vec();
    Some(match &effect.change {
        OldChange::Set { value, deadline: None } => vec![word("SET"), key, value.clone()],
        OldChange::Set { value, deadline: Some(at) } => {
            vec![word("SET"), key, value.clone(), word("PXAT"), word(&at.to_string())]
        }
        OldChange::Delete => vec![word("DEL"), key],
        OldChange::Ttl { deadline: Some(at) } => {
            vec![word("PEXPIREAT"), key, word(&at.to_string())]
        }
        OldChange::Ttl { deadline: None } => vec![word("PERSIST"), key],
        OldChange::Hide => return None,
    })
}

/// The same, to be shown.
pub(super) fn command(effect: &OldEffect) -> Option<Words> {
    let words = words_of(effect)?;
    Some(Words::of(&words.iter().map(Vec::as_slice).collect::<Vec<_>>()))
}

impl Found {
    /// Reads folders, and asks nodes of the others what of it they have.
    ///
    /// # Errors
    /// When a folder cannot be read, or the nodes that were asked do not hold every shard.
    pub(crate) async fn in_folders(folders: &[PathBuf], admins: &[String]) -> anyhow::Result<Self> {
        let read = |path: &PathBuf| {
            old_folder::read(path).with_context(|| format!("cannot use {}", path.display()))
        };
        let folders: Vec<OldFolder> = folders.iter().map(read).collect::<anyhow::Result<_>>()?;
        let first = folders.first().context("name a data folder")?;
        let datacenter = first.node.datacenter.0;
        for other in &folders {
            if other.deployment != first.deployment || other.node.datacenter.0 != datacenter {
                bail!(
                    "the folders are of nodes {} and {}; give those of one datacenter at a time",
                    first.node,
                    other.node
                );
            }
        }
        let deployment = first.deployment.clone();
        let mut told = Vec::new();
        for admin in admins {
            let body = http::get(admin, &format!("/v1/applied/{datacenter}")).await?;
            let one: AppliedStatus = serde_json::from_str(&body)
                .with_context(|| format!("{admin} answered something else"))?;
            if one.deployment != deployment {
                bail!("{admin} is of another deployment than the folders: {}", one.deployment);
            }
            told.push(one);
        }
        let is_gone = told.iter().all(|one| one.is_gone);
        let applied = Applied::of(&told)?;
        let writes = unsent(folders.into_iter().flat_map(|folder| folder.writes), &applied);
        Ok(Self { datacenter, is_gone, writes })
    }
}

impl Found {
    /// The same without the writes of shards but these.
    pub(crate) fn of_shards(mut self, shards: &[u16]) -> Self {
        self.writes.retain(|write| shards.contains(&write.shard));
        self
    }
}

/// What the others have.
#[derive(Debug)]
struct Applied {
    by_shard: BTreeMap<u16, (u64, BTreeSet<u64>)>,
}

impl Applied {
    fn of(told: &[AppliedStatus]) -> anyhow::Result<Self> {
        let mut by_shard: BTreeMap<u16, (u64, BTreeSet<u64>)> = BTreeMap::new();
        for AppliedShard { shard, to, above } in told.iter().flat_map(|one| &one.shards) {
            let known = by_shard.entry(*shard).or_default();
            known.0 = known.0.max(*to);
            known.1.extend(above);
        }
        let count = told.iter().map(|one| one.shard_count).max().unwrap_or_default();
        let missing = (0..count).filter(|shard| {
            u16::try_from(*shard).is_ok_and(|shard| !by_shard.contains_key(&shard))
        });
        match missing.count() {
            0 => Ok(Self { by_shard }),
            missing => bail!(
                "the nodes that were asked do not serve {missing} of {count} shards; name the admin \
                 ports of all nodes of a datacenter, and wait until they serve"
            ),
        }
    }

    fn contains(&self, write: &OldWrite) -> bool {
        let known = self.by_shard.get(&write.shard);
        known.is_some_and(|(to, above)| write.stamp <= *to || above.contains(&write.stamp))
    }
}

/// The writes that the others do not have, each once, by stamp.
fn unsent(writes: impl Iterator<Item = OldWrite>, applied: &Applied) -> Vec<OldWrite> {
    let mut left: BTreeMap<(u64, u16), OldWrite> = BTreeMap::new();
    for write in writes.filter(|write| !applied.contains(write)) {
        let is_certain = write.is_certain;
        let known = left.entry((write.stamp, write.shard)).or_insert(write);
        known.is_certain |= is_certain;
    }
    left.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(shard: u16, stamp: u64, is_certain: bool) -> OldWrite {
        OldWrite { shard, stamp, millis: stamp >> 16, is_certain, effects: Vec::new() }
    }

    fn told(shards: Vec<AppliedShard>) -> AppliedStatus {
        AppliedStatus { deployment: "one".to_owned(), shard_count: 2, is_gone: true, shards }
    }

    #[test]
    fn what_anybody_has_is_left_out_and_the_rest_is_there_once() {
        let first = told(vec![AppliedShard { shard: 0, to: 10, above: vec![14] }]);
        let second = told(vec![
            AppliedShard { shard: 0, to: 12, above: Vec::new() },
            AppliedShard { shard: 1, to: 0, above: Vec::new() },
        ]);
        let applied = Applied::of(&[first.clone(), second]).unwrap();
        let writes = [(0, 12), (0, 13), (0, 14), (0, 15), (1, 11), (0, 15)];
        let writes = writes.map(|(shard, stamp)| write(shard, stamp, shard == 1));
        let certain = write(0, 13, true);
        let left = unsent(writes.into_iter().chain([certain]), &applied);
        let names: Vec<_> = left.iter().map(|it| (it.shard, it.stamp, it.is_certain)).collect();
        assert_eq!(names, [(1, 11, true), (0, 13, true), (0, 15, false)]);
        let partial = Applied::of(&[first]).unwrap_err().to_string();
        assert!(partial.contains("do not serve 1 of 2 shards"), "{partial}");
    }

    #[test]
    fn every_change_has_a_command_but_the_end_of_a_time() {
        let text = |change| {
            let effect = OldEffect { key: b"k".to_vec(), seen: Vec::new(), change };
            command(&effect).map(|words| words.to_text())
        };
        let set = |deadline| OldChange::Set { value: vec![255], deadline };
        assert_eq!(text(set(None)).as_deref(), Some("SET k 0xff"));
        assert_eq!(text(set(Some(7))).as_deref(), Some("SET k 0xff PXAT 7"));
        assert_eq!(text(OldChange::Delete).as_deref(), Some("DEL k"));
        assert_eq!(text(OldChange::Ttl { deadline: Some(9) }).as_deref(), Some("PEXPIREAT k 9"));
        assert_eq!(text(OldChange::Ttl { deadline: None }).as_deref(), Some("PERSIST k"));
        assert_eq!(text(OldChange::Hide), None);
        let long = OldChange::Set { value: vec![b'v'; 80], deadline: None };
        assert!(text(long).unwrap().ends_with("v... (20 more)"));
    }
}
