//! Executes writes again that were never sent, key by key.
//!
//! All that was done to a key is done again in one transaction, if the key is as the first of these
//! writes found it: `WATCH` first, then the key's versions as the head of its chain knows them, so
//! that a write in between is noticed. What becomes of a key is written down, with what was to be
//! done, before the next one is begun. Done once more, all keys are skipped: they have been written
//! since.
//!
//! Limits: a transaction over several keys is done again for each key by itself. A key whose removal
//! was forgotten everywhere counts as written since.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use antecede_server::admin::{KeysAsked, VersionsFound};
use antecede_server::old_folder::{OldEffect, OldWrite};
use anyhow::{Context, bail};
use serde::Serialize;

use super::ReplayOptions;
use super::found::{Found, Word, Words, command, digits_of, time_of, words_of};
use crate::client::Connection;
use crate::client::connection::Answer;
use crate::{http, screen};

/// How long one request may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// All that was done to a key.
#[derive(Debug)]
struct Deeds<'a> {
    key: &'a [u8],
    /// The stamp of the last one; keys are taken in this order.
    last: u64,
    /// When that was.
    millis: u64,
    effects: Vec<&'a OldEffect>,
}

/// A line of the journal.
#[derive(Debug, Serialize)]
struct Line {
    key: Word,
    time: String,
    outcome: Outcome,
    commands: Vec<Words>,
}

/// What became of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    /// Its writes were executed again.
    Executed,
    /// It has been written since.
    WrittenSince,
    /// It was written at this very moment.
    WrittenMeanwhile,
    /// There was nothing but the end of its time.
    NothingToDo,
}

/// Gathers what was done to each key, in the order of the last deeds.
fn by_key(writes: &[OldWrite]) -> Vec<Deeds<'_>> {
    let mut by_key: BTreeMap<&[u8], Deeds<'_>> = BTreeMap::new();
    for write in writes {
        for effect in &write.effects {
            let key = effect.key.as_slice();
            let new = || Deeds { key, last: 0, millis: 0, effects: Vec::new() };
            let deeds = by_key.entry(key).or_insert_with(new);
            (deeds.last, deeds.millis) = (write.stamp, write.millis);
            deeds.effects.push(effect);
        }
    }
    let mut all: Vec<Deeds<'_>> = by_key.into_values().collect();
    all.sort_by_key(|deeds| deeds.last);
    all
}

/// Runs the command.
///
/// # Errors
/// When the datacenter is not gone, nobody answers, or the journal cannot be written.
pub(super) async fn run(
    found: &Found,
    admins: &[String],
    how: &ReplayOptions,
) -> anyhow::Result<ExitCode> {
    if !found.is_gone {
        bail!(
            "datacenter {} is not gone: it sends these writes itself when it is back; remove it with \
             --lost first if it never will be",
            found.datacenter
        );
    }
    let path = &how.journal;
    let journal = OpenOptions::new().write(true).create_new(true).open(path);
    let mut journal =
        journal.with_context(|| format!("cannot make {}; name another file", path.display()))?;
    let at = Target { to: &how.to, password: how.password.as_deref(), admins };
    let counts = execute(found, &at, how.overwrite, &mut journal).await?;
    screen::answer(&format!("{}; what became of each is in {}", counts.to_text(), path.display()));
    Ok(if counts.has_skipped() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// A datacenter where writes are executed.
pub(crate) struct Target<'a> {
    /// Where a node of it takes clients.
    pub(crate) to: &'a str,
    /// Said with AUTH.
    pub(crate) password: Option<&'a str>,
    /// Admin ports of all of its nodes.
    pub(crate) admins: &'a [String],
}

/// How many keys had which outcome.
#[derive(Debug, Default)]
pub(crate) struct Counts(BTreeMap<&'static str, u64>);

impl Counts {
    pub(crate) fn to_text(&self) -> String {
        let counts: Vec<String> =
            self.0.iter().map(|(what, count)| format!("{count} {what}")).collect();
        format!("keys: {}", if counts.is_empty() { "none".to_owned() } else { counts.join(", ") })
    }

    fn has_skipped(&self) -> bool {
        self.0.keys().any(|what| *what != Outcome::Executed.to_text())
    }
}

/// Executes all writes again, and adds to the journal what became of each key; it is on disk then.
///
/// # Errors
/// When nobody answers, or the journal cannot be written; what was done stays done.
pub(crate) async fn execute(
    found: &Found,
    at: &Target<'_>,
    overwrites: bool,
    journal: &mut File,
) -> anyhow::Result<Counts> {
    let connection = Connection::open(at.to, at.password, TIMEOUT).await?;
    let mut replay = Replay { connection, admins: at.admins, overwrites };
    let mut counts = Counts::default();
    for deeds in by_key(&found.writes) {
        let outcome = replay.again(&deeds).await?;
        note(journal, &deeds, outcome)?;
        *counts.0.entry(outcome.to_text()).or_default() += 1;
    }
    journal.sync_all().context("cannot write the journal")?;
    Ok(counts)
}

fn note(journal: &mut File, deeds: &Deeds<'_>, outcome: Outcome) -> anyhow::Result<()> {
    let line = Line {
        key: Word::of(deeds.key),
        time: time_of(deeds.millis),
        outcome,
        commands: deeds.effects.iter().filter_map(|effect| command(effect)).collect(),
    };
    let mut text = serde_json::to_string(&line).context("a line of the journal has a form")?;
    text.push('\n');
    journal.write_all(text.as_bytes()).context("cannot write the journal")
}

impl Outcome {
    const fn to_text(self) -> &'static str {
        match self {
            Self::Executed => "executed",
            Self::WrittenSince => "skipped, written since",
            Self::WrittenMeanwhile => "skipped, written meanwhile",
            Self::NothingToDo => "skipped, their time was over",
        }
    }
}

/// Executes writes again.
struct Replay<'a> {
    connection: Connection,
    admins: &'a [String],
    overwrites: bool,
}

impl Replay<'_> {
    async fn again(&mut self, deeds: &Deeds<'_>) -> anyhow::Result<Outcome> {
        let commands: Vec<Vec<Vec<u8>>> =
            deeds.effects.iter().filter_map(|effect| words_of(effect)).collect();
        let Some(first) = deeds.effects.first().filter(|_| !commands.is_empty()) else {
            return Ok(Outcome::NothingToDo);
        };
        if !self.overwrites {
            self.connection.call(&[b"WATCH", deeds.key]).await?;
            let now = self.versions_of(deeds.key).await?;
            let then: BTreeSet<(u16, u64)> = first.seen.iter().copied().collect();
            if now != then {
                self.connection.call(&[b"UNWATCH"]).await?;
                return Ok(Outcome::WrittenSince);
            }
        }
        self.connection.call(&[b"MULTI"]).await?;
        for command in &commands {
            let words: Vec<&[u8]> = command.iter().map(Vec::as_slice).collect();
            self.connection.call(&words).await?;
        }
        match self.connection.call(&[b"EXEC"]).await? {
            Answer::Nil => Ok(Outcome::WrittenMeanwhile),
            Answer::List(answers) => {
                let refused = answers.into_iter().find_map(|answer| match answer {
                    Answer::Error(text) => Some(text),
                    Answer::Text(_) | Answer::Integer(_) | Answer::Nil | Answer::List(_) => None,
                });
                match refused {
                    Some(text) => bail!("{} was refused: {text}", digits_of(deeds.key)),
                    None => Ok(Outcome::Executed),
                }
            }
            Answer::Text(_) | Answer::Integer(_) | Answer::Error(_) => {
                bail!("the node answered EXEC with something else than a list")
            }
        }
    }

    /// The versions that a write of a key would find now.
    async fn versions_of(&self, key: &[u8]) -> anyhow::Result<BTreeSet<(u16, u64)>> {
        let asked = serde_json::to_string(&KeysAsked { keys: vec![digits_of(key)] })?;
        for admin in self.admins {
            let (status, body) = http::post(admin, "/v1/versions", &asked).await?;
            if status != 200 {
                bail!("{admin}/v1/versions answered {status}: {}", body.trim());
            }
            let found: Vec<VersionsFound> = serde_json::from_str(&body)
                .with_context(|| format!("{admin} answered something else"))?;
            if let Some(versions) = found.into_iter().find_map(|found| found.versions) {
                return Ok(versions.into_iter().collect());
            }
        }
        bail!(
            "none of the nodes that were asked is the head of a key's chain; name the admin ports of \
             all nodes of a datacenter"
        )
    }
}

#[cfg(test)]
mod tests {
    use antecede_server::old_folder::OldChange;

    use super::*;

    #[test]
    fn what_was_done_to_a_key_stays_together_and_in_order() {
        let effect = |key: &str, change| OldEffect {
            key: key.as_bytes().to_vec(),
            seen: Vec::new(),
            change,
        };
        let write =
            |stamp, effects| OldWrite { shard: 0, stamp, millis: stamp, is_certain: true, effects };
        let set = || OldChange::Set { value: b"v".to_vec(), deadline: None };
        let writes = [
            write(1, vec![effect("b", set()), effect("a", set())]),
            write(2, vec![effect("b", OldChange::Delete)]),
        ];
        let deeds = by_key(&writes);
        let told: Vec<_> = deeds.iter().map(|it| (it.key, it.last, it.effects.len())).collect();
        assert_eq!(told, [(b"a".as_slice(), 1, 1), (b"b".as_slice(), 2, 2)]);
        assert_eq!(deeds[1].effects[1].change, OldChange::Delete);
    }
}
