//! Understands the commands of a story.
//!
//! Places are `A` (all nodes of a datacenter, or its head where one is asked), `A head`,
//! `A middle`, `A tail`, `everywhere`. After each command messages run and disks persist until
//! nothing moves, except where a link or a disk is held. The commands:
//!
//! - `datacenters 2, chain of 3, shards 4` begins; `, kept bytes 9000` behind: so much of its log a
//!   shard keeps for replicas that are away.
//! - `put KEY = VALUE at PLACE`, `get KEY at PLACE`, `delete KEY at PLACE`, each with clauses:
//!   `, as NAME`, `, if absent`, `, for 100 ms`, `, after NAME and NAME`, `, floor NAME` (depends on
//!   everything of that write's origin up to it), `, eventually`. A value `3 MiB` is that long.
//! - `cut A - B`, `cut A -> B`, `heal`; `hold A -> B`, `release A -> B`, `let 1 through A -> B`,
//!   `drop 1 of A -> B`, `repeat A -> B`, each of the last five with ` of KEY` (its shard) and
//!   ` only KIND` behind; `repeat` sends the last message that arrived once more.
//! - `hold disk of PLACE`, `release disk of PLACE`, `fill disk of PLACE`, `lower disk of PLACE`, `empty disk of PLACE`.
//! - `crash PLACE`, `restart PLACE`, `wipe disk of PLACE`, `clock of PLACE +300 ms`.
//! - `epoch 2 of A reaches PLACE`: nothing changes but the number.
//! - `decide A serves middle, tail; head syncs; reaches PLACE`: the next epoch, in which the runs that
//!   there are have rights; `serves nobody; middle, tail served last`; who is not named is gone. A
//!   node that is down hears of it when it starts. `reaches nobody`.
//! - `lease of PLACE ends`, `lease of PLACE lasts 300 ms`; at the beginning leases last for ever.
//! - `pass 500 ms`, `pass 2 s quietly` (only counts what passed, by kind).
//! - `session s1 at PLACE: SET k v; GET k` (pipelined), `session s1: ...` for one that there is.
//! - `token of s1 to s2 at PLACE, 500 ms` takes the token to a new session, which waits that long.
//! - `expect ...`, see `expectation`.

use std::{collections::BTreeMap, time::Duration};

use antecede_model::{
    clock::Steady,
    configuration::{Configuration, Waiting},
    ids::{DatacenterId, NodeId},
    operation::{Action, Condition, Operation, SetReply, Ttl},
    response::Response,
    token::SessionToken,
};
use antecede_protocol::{
    machine::{Lease, Room},
    mutation::Mutations,
};

use super::{
    asking::{self, Ask},
    client::Clauses,
    deployment::{Decided, Deployment, Size},
    network::Selection,
    telling::EPOCH_MILLIS,
};

/// A story under way.
#[derive(Debug, Default)]
pub(super) struct Story {
    deployment: Option<Deployment>,
    /// Lines of this block that the file shows.
    shown: Vec<String>,
    /// All lines of this block.
    pub(super) block_lines: Vec<String>,
    /// Records appended by all nodes when this block began.
    pub(super) appended_before: usize,
    /// A deliberate bug, to see that the story notices it.
    mutations: Mutations,
}

impl Story {
    /// A story that begins with its first command.
    pub(super) fn with(mutations: Mutations) -> Self {
        Self { mutations, ..Self::default() }
    }

    pub(super) fn deployment(&mut self) -> &mut Deployment {
        self.deployment.as_mut().expect("the story begins with its datacenters")
    }

    /// Does one command; tells what is wrong with it, or what does not hold.
    pub(super) fn command(&mut self, text: &str) -> Result<(), String> {
        if let Some(expected) = text.strip_prefix("expect ") {
            let said = self.expect(expected);
            return said.map_err(|found| format!("expected {expected}, but {found}"));
        }
        let is_quiet = text.ends_with(" quietly");
        let text = text.trim_end_matches(" quietly");
        if text.starts_with("datacenters ") {
            self.begin(text);
        } else {
            let (verb, rest) = text.split_once(' ').unwrap_or((text, ""));
            self.act(verb, rest).ok_or_else(|| format!("there is no command {text}"))?;
        }
        self.deployment().drain();
        let lines = std::mem::take(&mut self.deployment().lines);
        if is_quiet {
            self.shown.push(summary(&lines));
        } else {
            self.shown.extend(lines.iter().map(|line| line.trim_end().to_owned()));
        }
        self.block_lines.extend(lines);
        match self.deployment().violations.first() {
            Some(violation) => Err(format!("after {text}: {violation}")),
            None => Ok(()),
        }
    }

    /// Ends a block; tells what the file shows of it.
    pub(super) fn end_block(&mut self) -> Vec<String> {
        self.block_lines.clear();
        self.appended_before = self.appended();
        let shown = std::mem::take(&mut self.shown);
        if shown.is_empty() { vec!["(nothing)".to_owned()] } else { shown }
    }

    /// Records that were ever appended.
    pub(super) fn appended(&mut self) -> usize {
        self.deployment().nodes.values().map(|node| node.disk.appended).sum()
    }

    fn begin(&mut self, text: &str) {
        let numbers: Vec<u32> = text
            .split(|character: char| !character.is_ascii_digit())
            .filter_map(|part| part.parse().ok())
            .collect();
        let (datacenters, chain_length, shards, kept) = match numbers[..] {
            [datacenters, chain_length, shards] => (datacenters, chain_length, shards, 0),
            [datacenters, chain_length, shards, kept] => (datacenters, chain_length, shards, kept),
            _ => panic!("datacenters N, chain of N, shards N: {text}"),
        };
        let size = Size {
            datacenters: u16::try_from(datacenters).unwrap(),
            chain_length: u16::try_from(chain_length).unwrap(),
            shards,
            kept_bytes_max: usize::try_from(kept).unwrap(),
        };
        let mut deployment = Deployment::of(size, self.mutations);
        deployment.lines.clear();
        deployment.tell_line("all nodes", "are settled");
        self.deployment = Some(deployment);
    }

    /// Does a command; `None` if there is no such one.
    fn act(&mut self, verb: &str, rest: &str) -> Option<()> {
        match verb {
            "put" | "get" | "delete" => self.ask(verb, rest),
            "cut" | "heal" | "hold" | "release" | "let" | "drop" | "repeat" => {
                self.trouble(verb, rest)
            }
            "fill" | "lower" | "empty" | "loosen" | "wipe" => {
                self.disk(verb, rest.strip_prefix("disk of ")?)
            }
            "crash" | "restart" => {
                for node in self.places(rest)? {
                    if verb == "crash" {
                        self.deployment().crash(node);
                    } else {
                        let name = self.deployment().name(node);
                        self.deployment().tell_line(&name, "restarts");
                        self.deployment().start(node);
                    }
                }
                Some(())
            }
            "pass" => {
                self.deployment().pass(millis(rest)?);
                Some(())
            }
            "clock" => {
                let (place, offset) = rest.strip_prefix("of ")?.rsplit_once(['+', '-'])?;
                let sign = if rest.contains('+') { 1 } else { -1 };
                let offset = sign * millis(offset)?.cast_signed();
                for node in self.places(place.trim())? {
                    self.deployment().node(node).clock_offset_millis = offset;
                }
                Some(())
            }
            "epoch" => {
                let (number, rest) = rest.split_once(" of ")?;
                let (datacenter, reached) = rest.split_once(" reaches ")?;
                let datacenter = self.places(datacenter)?.first()?.datacenter;
                let reached = self.places(reached)?;
                self.deployment().reconfigure(datacenter, number.parse().ok()?, &reached);
                Some(())
            }
            "decide" => self.decide(rest),
            "lease" => self.lease(rest.strip_prefix("of ")?),
            "session" => self.session(rest),
            "token" => self.token(rest),
            _ => None,
        }
    }

    fn decide(&mut self, rest: &str) -> Option<()> {
        let (datacenter, rest) = rest.split_once(" serves ")?;
        let (chain, reached) = rest.split_once("; reaches ")?;
        let mut parts = chain.split("; ");
        let serving = self.members(datacenter, parts.next()?)?;
        let mut waiting = BTreeMap::new();
        for part in parts {
            let (members, why) = match part.strip_suffix(" syncs") {
                Some(members) => (members, Waiting::Syncing),
                None => (part.strip_suffix(" served last")?, Waiting::LastServing),
            };
            let members = self.members(datacenter, members)?;
            waiting.extend(members.into_iter().map(|node| (node, why)));
        }
        let reached = if reached == "nobody" { Vec::new() } else { self.places(reached)? };
        let datacenter = self.places(datacenter)?.first()?.datacenter;
        self.deployment().decide(&Decided { datacenter, serving, waiting }, &reached);
        Some(())
    }

    /// Nodes of a datacenter by the places that they had at first.
    fn members(&mut self, datacenter: &str, names: &str) -> Option<Vec<NodeId>> {
        if names == "nobody" {
            return Some(Vec::new());
        }
        let node = |name| Some(*self.places(&format!("{datacenter} {name}"))?.first()?);
        names.split(", ").map(node).collect()
    }

    fn lease(&mut self, rest: &str) -> Option<()> {
        let (place, lasts) = match rest.strip_suffix(" ends") {
            Some(place) => (place, 0),
            None => {
                let (place, time) = rest.split_once(" lasts ")?;
                (place, millis(time)?)
            }
        };
        for node in self.places(place)? {
            let end = Steady(Duration::from_millis(self.deployment().millis + lasts));
            self.deployment().node(node).lease = Lease::Until(end);
        }
        Some(())
    }

    /// Nodes that the script names.
    pub(super) fn places(&mut self, text: &str) -> Option<Vec<NodeId>> {
        let configuration = std::sync::Arc::clone(&self.deployment().configuration);
        places(&configuration, text)
    }

    fn ask(&mut self, verb: &str, rest: &str) -> Option<()> {
        let mut parts = rest.split(", ");
        let (subject, place) = parts.next()?.rsplit_once(" at ")?;
        let mut clauses = Clauses::default();
        let mut condition = Condition::Always;
        let mut ttl = Ttl::Clear;
        for clause in parts {
            let (word, rest) = clause.split_once(' ').unwrap_or((clause, ""));
            match word {
                "as" => clauses.name = Some(rest.to_owned()),
                "after" => clauses.after = rest.split(" and ").map(str::to_owned).collect(),
                "floor" => clauses.floor = Some(rest.to_owned()),
                "eventually" => clauses.is_eventual = true,
                "if" if rest == "absent" => condition = Condition::IfAbsent,
                "for" => {
                    ttl = Ttl::Until(EPOCH_MILLIS + self.deployment().millis + millis(rest)?);
                }
                _ => return None,
            }
        }
        let node = *self.places(place)?.first()?;
        let (key, value) = subject.split_once(" = ").unwrap_or((subject, ""));
        let value = value_bytes(value);
        let action = match verb {
            "put" => Action::Set { value: &value, condition, ttl, reply: SetReply::Status },
            "get" => Action::Get,
            _ => Action::Delete,
        };
        let operation = Operation { key: key.as_bytes(), action };
        self.deployment().ask(node, operation, &clauses);
        Some(())
    }

    fn trouble(&mut self, verb: &str, rest: &str) -> Option<()> {
        if let Some(place) = rest.strip_prefix("disk of ") {
            return self.disk(verb, place);
        }
        match verb {
            "heal" => self.deployment().network.heal(),
            "cut" => {
                let links = self.selection(rest)?.links;
                self.deployment().network.cut(&links);
            }
            "hold" => {
                let selection = self.selection(rest)?;
                self.deployment().network.hold(selection);
            }
            "release" => {
                let selection = self.selection(rest)?;
                self.deployment().network.release(&selection);
            }
            "let" | "drop" => {
                let (count, rest) = rest.split_once(' ')?;
                let rest = rest.strip_prefix("through ").or_else(|| rest.strip_prefix("of "))?;
                let selection = self.selection(rest)?;
                let count: usize = count.parse().ok()?;
                let taken = self.deployment().network.take_held(&selection, count);
                assert!(taken.len() == count, "only {} messages are held", taken.len());
                for packet in taken.into_iter().filter(|_| verb == "let") {
                    self.deployment().deliver(packet);
                }
            }
            _ => {
                let selection = self.selection(rest)?;
                let packet = self.deployment().network.last_arrived(&selection);
                self.deployment().deliver(packet);
            }
        }
        Some(())
    }

    fn selection(&mut self, text: &str) -> Option<Selection> {
        let (text, kind) = match text.split_once(" only ") {
            Some((text, kind)) => (text, Some(kind.to_owned())),
            None => (text, None),
        };
        let (text, shard) = match text.split_once(" of ") {
            Some((text, key)) => (text, Some(self.deployment().shard_of(key))),
            None => (text, None),
        };
        let (from, to, is_both) = match text.split_once(" -> ") {
            Some((from, to)) => (from, to, false),
            None => {
                let (from, to) = text.split_once(" - ")?;
                (from, to, true)
            }
        };
        let (from, to) = (self.places(from)?, self.places(to)?);
        let mut links = self.deployment().links(&from, &to);
        if is_both {
            links.extend(self.deployment().links(&to, &from));
        }
        Some(Selection { links, shard, kind })
    }

    fn disk(&mut self, verb: &str, place: &str) -> Option<()> {
        for node in self.places(place)? {
            let disk = &mut self.deployment().node(node).disk;
            match verb {
                "hold" => disk.is_held = true,
                "release" => disk.is_held = false,
                "fill" => disk.room = Room::None,
                "empty" => disk.room = Room::Ample,
                "lower" => disk.room = Room::Low,
                "loosen" => disk.loosen(),
                "wipe" => disk.wipe(),
                _ => return None,
            }
        }
        Some(())
    }

    fn session(&mut self, rest: &str) -> Option<()> {
        let (who, commands) = rest.split_once(": ")?;
        let name = match who.split_once(" at ") {
            Some((name, place)) => {
                let node = *self.places(place)?.first()?;
                self.deployment().connect(name, node);
                name
            }
            None => who,
        };
        self.deployment().pipeline(name, asking::asks(commands));
        Some(())
    }

    fn token(&mut self, rest: &str) -> Option<()> {
        let (from, rest) = rest.strip_prefix("of ")?.split_once(" to ")?;
        let (to, rest) = rest.split_once(" at ")?;
        let (place, timeout) = rest.split_once(", ")?;
        self.deployment().pipeline(from, asking::asks("TOKEN"));
        let client = self.deployment().clients.client(from)?;
        let [Response::Bytes(token)] = client.answers.as_slice() else {
            panic!("{from} was told no token but {:?}", client.answers)
        };
        let text = String::from_utf8(token.clone()).unwrap();
        let configuration = &self.deployment().configuration;
        let (deployment, membership) = (configuration.deployment, configuration.membership.epoch);
        let context = SessionToken::decode(&text, deployment, membership).unwrap();
        let node = *self.places(place)?.first()?;
        self.deployment().connect(to, node);
        let ask = Ask::After { context: Box::new(context), timeout_millis: millis(timeout)? };
        self.deployment().pipeline(to, vec![ask]);
        Some(())
    }
}

fn places(configuration: &Configuration, text: &str) -> Option<Vec<NodeId>> {
    if text == "everywhere" {
        let all = configuration.datacenters.values();
        return Some(all.flat_map(|datacenter| datacenter.nodes.clone()).collect());
    }
    if text.contains(" and ") {
        let parts: Option<Vec<Vec<NodeId>>> =
            text.split(" and ").map(|part| places(configuration, part)).collect();
        return Some(parts?.concat());
    }
    let mut characters = text.chars();
    let letter = characters.next().filter(char::is_ascii_uppercase)?;
    let id = DatacenterId(u16::from(u8::try_from(letter).ok()? - b'A') + 1);
    let nodes = &configuration.datacenters.get(&id)?.nodes;
    match characters.as_str() {
        "" => Some(nodes.clone()),
        " head" => Some(vec![*nodes.first()?]),
        " tail" => Some(vec![*nodes.last()?]),
        " middle" if nodes.len() == 3 => Some(vec![nodes[1]]),
        _ => None,
    }
}

fn millis(text: &str) -> Option<u64> {
    let (count, unit) = text.trim().split_once(' ')?;
    let count: u64 = count.parse().ok()?;
    match unit {
        "ms" => Some(count),
        "s" => Some(count * 1000),
        _ => None,
    }
}

fn value_bytes(text: &str) -> Vec<u8> {
    match text.strip_suffix(" MiB").and_then(|count| count.parse::<usize>().ok()) {
        Some(count) => vec![b'x'; count * 1024 * 1024],
        None => text.as_bytes().to_vec(),
    }
}

/// Counts lines by what they are about.
fn summary(lines: &[String]) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for line in lines {
        let what = line.get(20..).unwrap_or("").trim();
        let mut words = what.split_whitespace();
        let first = words.next().unwrap_or("");
        let is_shard = first.starts_with('s') && first[1..].parse::<u16>().is_ok();
        let kind = if is_shard { words.next().unwrap_or("") } else { first };
        *counts.entry(kind).or_default() += 1;
    }
    let told: Vec<String> = counts.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    if told.is_empty() { "(nothing passes)".to_owned() } else { format!("({})", told.join(", ")) }
}
