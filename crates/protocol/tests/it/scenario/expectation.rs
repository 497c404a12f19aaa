//! Says whether what a story expects is so.
//!
//! - `NAME = RESPONSE`, `NAME waits`: of a single request; `NAME stamped above NAME`.
//! - `KEY = VALUE at PLACE`: what each node of the place shows as committed, `nil` for nothing;
//!   ` everywhere` stands for all nodes.
//! - `KEY dirty at PLACE`, `KEY clean at PLACE`, `log of KEY at PLACE ends at #N`,
//!   `log of KEY at PLACE keeps N entries` (in memory).
//! - `line PATTERN`, `no line PATTERN`, `N lines PATTERN`, `order PATTERN | PATTERN`: of what has
//!   passed in this block, spaces counted as one, `*` for anything, `<NAME>` for the write of a
//!   single request (`A@1000`), `<#NAME>` for its stamp alone.
//! - `N blocked of KEY at PLACE`, `N conflicts at PLACE`, `N tombstones at PLACE`.
//! - `PLACE settled`, `PLACE settling`.
//! - `PLACE vouches for PLACE`, `PLACE finds PLACE unfit`, each also with `nobody`: the facts that a
//!   node has for its manager, of any of its shards.
//! - `NAME stable at PLACE`, `NAME unstable at PLACE`: by the cuts that the nodes know.
//! - `nothing written`: no log has grown in this block.
//! - `NAME told RESPONSE, RESPONSE`, `NAME waits for N`: of a session's last commands.
//! - `NAME depends on nothing`, `NAME depends on KEY, KEY`: a session's context, by the newest
//!   versions that its datacenter has; `NAME depends on N writes`.

use std::collections::BTreeSet;

use antecede_model::{dependency::Dependency, ids::NodeId};
use antecede_protocol::{chain::Shard, event::Event};

use super::{story::Story, telling};

/// What was found instead.
type Found = Result<(), String>;

fn check(is_so: bool, found: impl FnOnce() -> String) -> Found {
    if is_so { Ok(()) } else { Err(found()) }
}

impl Story {
    /// Whether it is so; if not, what is.
    pub(super) fn expect(&mut self, text: &str) -> Found {
        let text = text.replace(" everywhere", " at everywhere");
        let text = self.with_stamps(&text)?;
        let text = text.as_str();
        if let Some((place, other)) = text.split_once(" vouches for ") {
            return self.expect_fact(place, other, Shard::caught_up);
        }
        if let Some((place, other)) = text.split_once(" finds ")
            && let Some(other) = other.strip_suffix(" unfit")
        {
            return self.expect_fact(place, other, Shard::misfit);
        }
        let words: Vec<&str> = text.split_whitespace().collect();
        match words.as_slice() {
            ["nothing", "written"] => self.expect_nothing_written(),
            ["line", ..] => self.expect_lines(&text[5..], |count| 0 < count),
            ["no", "line", ..] => self.expect_lines(&text[8..], |count| count == 0),
            [number, "lines", ..] => {
                let wanted: usize = number.parse().map_err(|_| "that is no number".to_owned())?;
                let (_, pattern) = text.split_once(" lines ").unwrap_or((text, ""));
                self.expect_lines(pattern, |count| count == wanted)
            }
            ["order", ..] => self.expect_order(&text[6..]),
            ["log", "of", key, "at", place @ .., "ends", "at", end] => {
                self.expect_log(key, &place.join(" "), end)
            }
            ["log", "of", key, "at", place @ .., "keeps", number, "entries"] => {
                self.expect_kept(number, key, &place.join(" "))
            }
            [number, "blocked", "of", key, "at", place @ ..] => {
                self.expect_blocked(number, key, &place.join(" "))
            }
            [number, "conflicts", "at", place @ ..] => {
                self.expect_conflicts(number, &place.join(" "))
            }
            [number, "tombstones", "at", place @ ..] => {
                self.expect_tombstones(number, &place.join(" "))
            }
            [key, "dirty", "at", place @ ..] => self.expect_dirty(key, true, &place.join(" ")),
            [key, "clean", "at", place @ ..] => self.expect_dirty(key, false, &place.join(" ")),
            [name, "stable", "at", place @ ..] => self.expect_stable(name, true, &place.join(" ")),
            [name, "unstable", "at", place @ ..] => {
                self.expect_stable(name, false, &place.join(" "))
            }
            [place @ .., "settled"] => self.expect_settled(&place.join(" "), true),
            [place @ .., "settling"] => self.expect_settled(&place.join(" "), false),
            [name, "stamped", "above", other] => self.expect_stamped_above(name, other),
            [name, "waits"] => {
                let reply = self.deployment().clients.reply(name).cloned();
                check(reply.is_none(), || format!("it is answered: {reply:?}"))
            }
            [name, "waits", "for", number] => self.expect_unanswered(name, number),
            [name, "told", rest @ ..] => self.expect_told(name, &rest.join(" ")),
            [name, "depends", "on", rest @ ..] => self.expect_context(name, &rest.join(" ")),
            [_, "=", ..] => self.expect_value(text),
            _ => Err("no such expectation is known".to_owned()),
        }
    }

    /// Puts stamps in the place of the names of writes.
    fn with_stamps(&mut self, text: &str) -> Result<String, String> {
        let mut told = String::new();
        let mut rest = text;
        while let Some((before, behind)) = rest.split_once('<') {
            let (name, behind) = behind.split_once('>').ok_or("a name has no end")?;
            let (is_stamp, name) =
                name.strip_prefix('#').map_or((false, name), |name| (true, name));
            let write = self.wrote(name)?;
            let stamp = telling::stamp(write.stamp);
            let origin = telling::datacenter(write.origin);
            told.push_str(before);
            told.push_str(&if is_stamp { stamp } else { format!("{origin}@{stamp}") });
            rest = behind;
        }
        told.push_str(rest);
        Ok(told)
    }

    fn expect_nothing_written(&mut self) -> Found {
        let count = self.appended() - self.appended_before;
        check(count == 0, || format!("{count} records were"))
    }

    fn expect_lines(&self, pattern: &str, fits: impl Fn(usize) -> bool) -> Found {
        let count = self.block_lines.iter().filter(|line| matches(line, pattern)).count();
        check(fits(count), || format!("{count} lines match among\n{}", self.block_lines.join("\n")))
    }

    fn expect_order(&self, patterns: &str) -> Found {
        let mut lines = self.block_lines.iter();
        for pattern in patterns.split(" | ") {
            let is_found = lines.any(|line| matches(line, pattern));
            check(is_found, || {
                format!("{pattern} does not follow in\n{}", self.block_lines.join("\n"))
            })?;
        }
        Ok(())
    }

    fn nodes(&mut self, place: &str) -> Result<Vec<NodeId>, String> {
        self.places(place).ok_or_else(|| format!("there is no place {place}"))
    }

    fn expect_value(&mut self, text: &str) -> Found {
        let (name, wanted) = text.split_once(" = ").expect("the caller has seen it");
        let Some((wanted, place)) = wanted.rsplit_once(" at ") else {
            let reply = self.deployment().clients.reply(name);
            let found = reply.map(|reply| telling::response(&reply.response));
            return check(found.as_deref() == Some(wanted), || format!("it is {found:?}"));
        };
        for node in self.nodes(place)? {
            let shard = self.deployment().shard_of(name);
            let Some(machine) = self.deployment().node(node).shards.get(&shard) else {
                return Err(format!("{node} is down"));
            };
            let value = machine.keys().committed(name.as_bytes()).value();
            let value = value.and_then(antecede_protocol::state::Stored::bytes);
            let found = value.map_or_else(|| "nil".to_owned(), telling::bytes);
            check(found == wanted, || format!("{node} has {found}"))?;
        }
        Ok(())
    }

    fn expect_dirty(&mut self, key: &str, wanted: bool, place: &str) -> Found {
        for node in self.nodes(place)? {
            let shard = self.deployment().shard_of(key);
            let machine = &self.deployment().node(node).shards[&shard];
            let dirty = machine.keys().newest_dirty(key.as_bytes());
            check(dirty.is_some() == wanted, || format!("at {node} it is {dirty:?}"))?;
        }
        Ok(())
    }

    fn expect_log(&mut self, key: &str, place: &str, end: &str) -> Found {
        for node in self.nodes(place)? {
            let shard = self.deployment().shard_of(key);
            let found = format!("#{}", self.deployment().node(node).shards[&shard].end());
            check(found == end, || format!("at {node} it ends at {found}"))?;
        }
        Ok(())
    }

    fn expect_kept(&mut self, number: &str, key: &str, place: &str) -> Found {
        for node in self.nodes(place)? {
            let shard = self.deployment().shard_of(key);
            let (_, found) = self.deployment().node(node).shards[&shard].window_size();
            check(found.to_string() == number, || format!("{node} keeps {found}"))?;
        }
        Ok(())
    }

    fn expect_blocked(&mut self, number: &str, key: &str, place: &str) -> Found {
        for node in self.nodes(place)? {
            let shard = self.deployment().shard_of(key);
            let found = self.deployment().node(node).shards[&shard].blocked_count();
            check(found.to_string() == number, || format!("{found} are at {node}"))?;
        }
        Ok(())
    }

    fn expect_conflicts(&mut self, number: &str, place: &str) -> Found {
        for node in self.nodes(place)? {
            let events = &self.deployment().events;
            let conflicts = events
                .iter()
                .filter(|(at, event)| *at == node && matches!(event, Event::Conflict { .. }));
            let found = conflicts.count();
            check(found.to_string() == number, || format!("{node} told of {found}"))?;
        }
        Ok(())
    }

    fn expect_tombstones(&mut self, number: &str, place: &str) -> Found {
        for node in self.nodes(place)? {
            let shards = self.deployment().node(node).shards.values();
            let found: usize = shards.map(|shard| shard.keys().tombstone_count()).sum();
            check(found.to_string() == number, || format!("{node} has {found}"))?;
        }
        Ok(())
    }

    fn expect_settled(&mut self, place: &str, wanted: bool) -> Found {
        for node in self.nodes(place)? {
            for (id, shard) in &self.deployment().node(node).shards {
                let is_so = shard.is_settled() == wanted;
                check(is_so, || format!("s{id} at {node} is not"))?;
            }
        }
        Ok(())
    }

    fn expect_fact(
        &mut self,
        place: &str,
        other: &str,
        fact: fn(&Shard) -> Option<NodeId>,
    ) -> Found {
        let wanted = if other == "nobody" { Vec::new() } else { self.nodes(other)? };
        for node in self.nodes(place)? {
            let shards = self.deployment().node(node).shards.values();
            let found: BTreeSet<NodeId> = shards.filter_map(fact).collect();
            let is_so = found == wanted.iter().copied().collect();
            check(is_so, || format!("{node} tells of {found:?}"))?;
        }
        Ok(())
    }

    fn wrote(&mut self, name: &str) -> Result<Dependency, String> {
        let reply = self.deployment().clients.reply(name);
        reply.and_then(|reply| reply.wrote).ok_or_else(|| format!("{name} is no answered write"))
    }

    fn expect_stable(&mut self, name: &str, wanted: bool, place: &str) -> Found {
        let write = self.wrote(name)?;
        for node in self.nodes(place)? {
            let cuts = self.deployment().node(node).keeper.cuts();
            let is_so = cuts.stable.covers(write.origin, write.stamp) == wanted;
            check(is_so, || format!("at {node} the stable cut is {}", telling::cut(&cuts.stable)))?;
        }
        Ok(())
    }

    fn expect_stamped_above(&mut self, name: &str, other: &str) -> Found {
        let (one, two) = (self.wrote(name)?, self.wrote(other)?);
        check(two.stamp < one.stamp, || {
            format!("{} is not above {}", telling::dependency(one), telling::dependency(two))
        })
    }

    fn expect_unanswered(&mut self, name: &str, number: &str) -> Found {
        let client = self.deployment().clients.client(name).ok_or("there is no such session")?;
        let (found, answers) = (client.unanswered, &client.answers);
        check(found.to_string() == number, || format!("it waits for {found}, told {answers:?}"))
    }

    fn expect_told(&mut self, name: &str, wanted: &str) -> Found {
        let client = self.deployment().clients.client(name).ok_or("there is no such session")?;
        let answers: Vec<String> = client.answers.iter().map(telling::response).collect();
        let found = answers.join(", ");
        check(found == wanted, || format!("it was told {found}"))
    }

    fn expect_context(&mut self, name: &str, wanted: &str) -> Found {
        let dependencies = self.deployment().context(name).dependencies().clone();
        let told: Vec<String> =
            dependencies.exact.iter().map(|exact| telling::dependency(*exact)).collect();
        let found = || format!("it depends on {told:?} and floors {:?}", dependencies.floor);
        if wanted == "nothing" {
            let is_so = dependencies.exact.is_empty() && dependencies.floor.is_empty();
            return check(is_so, found);
        }
        if let Some(number) = wanted.strip_suffix(" writes") {
            return check(dependencies.exact.len().to_string() == number, found);
        }
        let node = self.deployment().clients.client(name).ok_or("there is no such session")?.node;
        let mut keys = Vec::new();
        for key in wanted.split(", ") {
            let shard = self.deployment().shard_of(key);
            let machine = &self.deployment().node(node).shards[&shard];
            let version = machine.keys().newest(key.as_bytes()).version();
            let version = version.ok_or_else(|| format!("{key} has no version"))?;
            keys.push(Dependency { origin: version.origin, shard, stamp: version.timestamp });
        }
        keys.sort_unstable();
        check(dependencies.exact == keys && dependencies.floor.is_empty(), found)
    }
}

/// Whether a line, spaces counted as one, contains a pattern with `*` for anything.
fn matches(line: &str, pattern: &str) -> bool {
    let line = line.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut rest = line.as_str();
    for part in pattern.split('*').map(str::trim) {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    true
}
