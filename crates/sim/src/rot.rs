//! Changes bits of what nodes keep on their disks, and does what people do about it.
//!
//! A node crashes, and while it is down one bit of its log or of its checkpoint changes. Its next
//! start must refuse that, or find a torn end where nothing proves that more had been synced. People
//! see the refusal some time later. Where others have all that the node had, they set the folder
//! aside and start the node with an empty one, under a newer run; else they wait, and in the end
//! they put back what was there before the bit changed.
//!
//! Assumes: people look at the rest of the datacenter first. A bit changes only where another
//! replica of each chain that counts on the node runs, is heard by the manager, is not about to
//! leave, and lacks nothing, by what the register holds and by what is on its way there.
//! Limits: bits change while a node is down; damage that a running node meets is left to tests of
//! real processes.

use antecede_model::{
    configuration::Waiting,
    ids::{Boot, DatacenterId, NodeId, ShardId},
};
use antecede_protocol::{
    chain::Shard,
    entry::{Body, Change, Entry},
    mutation::Mutation,
    record::Record,
};
use antecede_storage::{
    Disk, HEADER_BYTES, Log, SimulatedDisk,
    checkpoint::{CheckpointStore, SimulatedCheckpoints},
};

use crate::{
    chance::Chance,
    check::Failure,
    moment::{MILLI, Moment, SECOND},
    node::{LOG_OPTIONS, Node, Recovered},
    world::{Happening, World},
};

/// Bytes of a segment's header that say something.
const HEADER_USED: u64 = 64;
/// How many bytes before the end of a log count as its end.
const END_BYTES: u64 = 300;
/// How many records before the end a deliberate bug reads wrongly.
const END_RECORDS: usize = 40;
/// Of a thousand changed bits on disks with checkpoints, how many are in these.
const IN_CHECKPOINT_PER_MILLE: u64 = 300;
/// How often people look whether others have all that a refused node had.
const LOOK_EVERY: u64 = 300 * MILLI;
/// How long they wait for that before they put back what was there.
const PATIENCE: u64 = 4 * SECOND;
/// For how long nothing may be about to go wrong with the others where a node comes back without
/// something that it had synced, and does not know it.
const QUIET: u64 = 3 * SECOND;

/// A folder in which a bit has changed.
#[derive(Debug)]
pub struct Rot {
    /// What it was before.
    disk: SimulatedDisk,
    checkpoints: SimulatedCheckpoints,
    /// The last record that its log had.
    ends_at: u64,
    /// Which bit it is, for people.
    place: String,
    is_in_checkpoint: bool,
    /// When people were told.
    refused_at: Option<Moment>,
}

/// A bit of an entry that is read wrongly and fits no checksum, by a deliberate bug.
#[derive(Clone, Debug)]
pub struct Unseen {
    index: u64,
    /// The bytes in which it is.
    value: Vec<u8>,
}

impl Unseen {
    /// Changes what is read of a record, if it is this one.
    pub fn change(&self, index: u64, record: &mut Record) {
        if self.index == index
            && let Record::Entry { entry, .. } = record
            && let Body::Write(body) = &mut entry.body
            && let Some(at) = body.windows(self.value.len()).position(|it| it == self.value)
        {
            let mut changed = body.to_vec();
            changed[at] ^= 1;
            *body = changed.into();
        }
    }
}

/// The bytes of a file up to the last one that is not zero.
fn used_bytes(disk: &SimulatedDisk, name: &str) -> u64 {
    let file = disk.open(name).expect("it was listed");
    let size = disk.size(&file).expect("it is open");
    let mut bytes = vec![0; usize::try_from(size).expect("files are small")];
    let read = disk.read_at(&file, 0, &mut bytes).expect("it is open");
    bytes.truncate(read);
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1)
}

/// A bit of the log: its file, the byte, and which of its bits.
fn draw_place(chance: &mut Chance, disk: &SimulatedDisk) -> Option<(String, u64, u8)> {
    let names = disk.list().expect("simulated disks do not fail here");
    let files: Vec<(String, u64)> = names
        .into_iter()
        .map(|name| (used_bytes(disk, &name), name))
        .filter(|(used, _)| 0 < *used)
        .map(|(used, name)| (name, used))
        .collect();
    if files.is_empty() {
        return None;
    }
    let kind = chance.below(10);
    let any = chance.place(files.len());
    let last = files.iter().rposition(|(_, used)| HEADER_BYTES < *used).unwrap_or(any);
    let (name, used) = &files[if (2..6).contains(&kind) { last } else { any }];
    let begin = match kind {
        0 | 1 => 0,
        2..6 => used.saturating_sub(END_BYTES).max(HEADER_BYTES),
        _ => HEADER_BYTES,
    };
    let (begin, end) =
        if 0 < begin && begin < *used { (begin, *used) } else { (0, HEADER_USED.min(*used)) };
    let offset = begin + chance.below(end - begin);
    let bit = u8::try_from(chance.below(8)).expect("a byte has eight");
    Some((name.clone(), offset, bit))
}

/// A value that an entry sets.
fn value_of(entry: &Entry) -> Option<Vec<u8>> {
    let mut found = None;
    entry.for_each_effect(|effect| {
        if let Change::Set { value, deadline: _ } = effect.change {
            found = Some(value.to_vec());
        }
    });
    found.filter(|value| !value.is_empty())
}

impl Node {
    /// Lets a bit of what it keeps change; none where there is nothing.
    fn change_a_bit(&mut self, chance: &mut Chance) -> Option<Rot> {
        let (disk, checkpoints) = (self.disk.reopen(), self.checkpoints.crash(0));
        let mut last = Vec::new();
        let take = |index: antecede_storage::LogIndex, bytes: &[u8]| {
            if let Ok(Record::Entry { entry, .. }) = Record::read(bytes) {
                last.extend(value_of(&entry).map(|value| (index.get(), value)));
            }
        };
        let opened = Log::open(disk.reopen(), LOG_OPTIONS, self.log_identity(), take).ok()?;
        let ends_at = opened.1.recovered_to.get();
        let rot = |place: String, is_in_checkpoint| {
            let refused_at = None;
            Rot { disk, checkpoints, ends_at, place, is_in_checkpoint, refused_at }
        };
        if self.is_mutated(Mutation::TakeDamaged) {
            let last = last.split_off(last.len().saturating_sub(END_RECORDS));
            let (index, value) = last.get(chance.place(last.len().max(1)))?.clone();
            self.unseen = Some(Unseen { index, value });
            return Some(rot(format!("record {index}, unseen"), false));
        }
        if chance.per_mille(IN_CHECKPOINT_PER_MILLE)
            && let Some(place) = self.change_checkpoint(chance)
        {
            return Some(rot(place, true));
        }
        let (name, offset, bit) = draw_place(chance, &self.disk)?;
        self.disk.flip_bit(&name, offset, bit).expect("the file is there");
        Some(rot(format!("bit {bit} of byte {offset} of {name}"), false))
    }

    fn change_checkpoint(&self, chance: &mut Chance) -> Option<String> {
        let mut shards = self.checkpoints.shards().expect("simulated disks do not fail here");
        // What has no meta record yet counts for nothing, damaged or not.
        shards.retain(|shard| self.checkpoints.meta(*shard).is_ok_and(|meta| meta.is_some()));
        let shard = *shards.get(chance.place(shards.len().max(1)))?;
        let mut keys = Vec::new();
        let scanned = self.checkpoints.scan(shard, None, &mut |key, _| {
            keys.push(key.to_vec());
            std::ops::ControlFlow::Continue(())
        });
        scanned.expect("nothing is damaged yet");
        let bit = usize::try_from(chance.below(1 << 20)).expect("few bits");
        if keys.is_empty() || chance.per_mille(200) {
            let is_there = self.checkpoints.flip_meta_bit(shard, bit);
            return is_there.then(|| format!("what the checkpoint says of shard {shard}"));
        }
        let key = &keys[chance.place(keys.len())];
        if chance.per_mille(200) {
            let is_there = self.checkpoints.lose(shard, key);
            return is_there.then(|| format!("a record of shard {shard} that cannot be found"));
        }
        let is_there = self.checkpoints.flip_bit(shard, key, bit);
        is_there.then(|| format!("a record of shard {shard} in the checkpoint"))
    }

    /// Its folder is put back as it was before a bit changed.
    fn put_back(&mut self, rot: Rot) {
        (self.disk, self.checkpoints) = (rot.disk, rot.checkpoints);
    }

    /// Its folder is set aside: it begins with an empty one.
    fn set_aside(&mut self) {
        (self.disk, self.checkpoints) = (SimulatedDisk::new(), SimulatedCheckpoints::new());
        self.whole.clear();
        self.unseen = None;
        self.may_lack_in = Some(Boot(self.boot.0 + 1));
    }
}

impl World {
    /// A node ends, and a bit of what it keeps changes, if others have all of that as well.
    pub(crate) fn rot(&mut self, id: NodeId, is_power_loss: bool, lasts: u64) {
        let place = self.place_of(id);
        if !self.nodes[place].is_up || !self.has_copies(id) {
            return;
        }
        self.crash(place, is_power_loss, lasts);
        let Some(rot) = self.nodes[place].change_a_bit(&mut self.rot_chance) else { return };
        self.trace.line(self.now, format_args!("{id}: changed is {}", rot.place));
        self.tally.rotten += 1;
        self.nodes[place].rot = Some(Box::new(rot));
    }

    /// Whether a node has all that is counted on to be there.
    pub(crate) fn is_whole(&self, id: NodeId) -> bool {
        let node = &self.nodes[self.place_of(id)];
        if node.rot.is_some() {
            return false;
        }
        let Some(boot) = node.may_lack_in else { return true };
        let Some(part) = self.configuration.datacenter(id.datacenter) else { return false };
        let is_known = part.boots.get(&id).is_some_and(|known| boot <= *known);
        let serves = part.chains.iter().map(|chain| chain.serving.contains(&id));
        let have_settled = serves
            .zip(&node.shards)
            .all(|(serves, replica)| !serves || replica.as_ref().is_some_and(Shard::is_settled));
        node.is_up && is_known && have_settled
    }

    /// Whether others have all that a node has and that is counted on, whatever is decided at this
    /// moment, and nothing is wrong with them.
    fn has_copies(&self, id: NodeId) -> bool {
        let Some(control) = self.control.get(&id.datacenter) else { return false };
        let is_sound = |other: &NodeId| {
            let node = &self.nodes[self.place_of(*other)];
            let runs = node.is_up && !node.is_removed && node.paused_until <= self.now;
            let is_heard = control.hears(*other, self.now) && !node.is_cut_from_control;
            runs && is_heard && node.leave.is_none() && self.is_whole(*other)
        };
        control.parts(self.now).all(|part| {
            (0..).map(ShardId).zip(&part.chains).all(|(shard, chain)| {
                let is_last = chain.waiting.get(&id) == Some(&Waiting::LastServing);
                let is_counted_on = is_last || chain.serving.contains(&id);
                let stays = |other: &&NodeId| **other != id && !part.is_aside(**other, shard);
                let mut others = chain.serving.iter().filter(stays);
                !is_counted_on || others.any(is_sound)
            })
        })
    }

    /// A start was refused: people will see that.
    pub(crate) fn refused(&mut self, number: usize, why: &str) {
        let node = &mut self.nodes[number];
        node.close();
        let id = node.id;
        let Some(rot) = node.rot.as_mut().filter(|rot| rot.refused_at.is_none()) else {
            let what = format!("{id} cannot read its log back: {why}");
            return self.fail(Failure::new("durable", what));
        };
        rot.refused_at = Some(self.now);
        self.tally.refused += 1;
        self.trace.line(self.now, format_args!("{id} is refused: {why}"));
        let seen = self.rot_chance.pick(&[10, 100, 1500]) * MILLI;
        let at = self.now.after(self.rot_chance.below(seen));
        self.queue.add(at, Happening::Start(number));
    }

    /// Whether a node may be started; if its folder was refused, what people do first.
    pub(crate) fn may_start(&mut self, number: usize) -> bool {
        let refused = self.nodes[number].rot.take_if(|rot| rot.refused_at.is_some());
        let Some(rot) = refused else { return true };
        let id = self.nodes[number].id;
        let since = rot.refused_at.unwrap_or_default();
        if self.has_copies(id) {
            self.trace.line(self.now, format_args!("the folder of {id} is set aside"));
            self.tally.set_aside += 1;
            self.nodes[number].set_aside();
        } else if PATIENCE <= self.now.since(since) {
            self.trace.line(self.now, format_args!("the folder of {id} is put back"));
            self.tally.restored += 1;
            self.nodes[number].put_back(*rot);
        } else {
            self.nodes[number].rot = Some(rot);
            self.queue.add(self.now.after(LOOK_EVERY), Happening::Start(number));
            return false;
        }
        true
    }

    /// Judges what a node on whose disk a bit has changed has read back. `false` if it ends again, and
    /// its folder is put back: what it lacks without knowing may be counted on.
    pub(crate) fn may_go_on(&mut self, number: usize, recovered: &Recovered) -> bool {
        let node = &mut self.nodes[number];
        let (id, boot, ended) = (node.id, node.boot, node.ended);
        let Some(rot) = node.rot.take() else { return true };
        let to = recovered.to;
        if rot.is_in_checkpoint || to < ended.proves {
            let proves = ended.proves;
            let what = format!(
                "{id} reads its log back to {to}, where record {proves} had been synced for all to \
                 see, and takes that for whole; changed was {}",
                rot.place
            );
            self.fail(Failure::new("durable", what));
        }
        if rot.ends_at <= to {
            return true; // Nothing is said by that bit.
        }
        if to < ended.synced_to {
            if !self.has_copies(id) || !self.is_quiet(id.datacenter) {
                self.trace.line(self.now, format_args!("the folder of {id} is put back"));
                self.tally.restored += 1;
                let node = &mut self.nodes[number];
                node.end(false, 0);
                node.put_back(*rot);
                return false;
            }
            self.nodes[number].may_lack_in = Some(boot);
            self.tally.cut_short += 1;
        }
        self.tally.torn += 1;
        let (lost, synced) = (rot.ends_at - to, ended.synced_to.saturating_sub(to));
        let line = format_args!("{id} takes {lost} records for a torn end; synced were {synced}");
        self.trace.line(self.now, line);
        true
    }

    /// Whether nothing goes wrong with a datacenter by itself now and soon.
    fn is_quiet(&self, datacenter: DatacenterId) -> bool {
        let until = self.now.after(QUIET);
        let is_quiet = |fault: &crate::faults::Fault| {
            let is_over = fault.at.after(fault.lasts) < self.now || until < fault.at;
            is_over || !fault.kind.concerns(datacenter)
        };
        let mut nodes = self.nodes.iter().filter(|node| node.id.datacenter == datacenter);
        self.plan.faults.iter().all(is_quiet)
            && nodes.all(|node| node.trigger.is_none() && !self.is_deaf(node.id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_of_all_parts_of_a_log_change() {
        let disk = SimulatedDisk::new();
        let identity = antecede_storage::Identity { deployment: *b"simulated deploy", node: 1 };
        let (mut log, _) = Log::open(disk.clone(), LOG_OPTIONS, identity, |_, _| {}).unwrap();
        for _ in 0..40 {
            log.append(&[&[1; 100]]).unwrap();
        }
        log.flush().unwrap();
        drop(log);
        let mut chance = Chance::new(1, 1);
        let (mut headers, mut ends, mut others) = (0, 0, 0);
        for _ in 0..300 {
            let (name, offset, bit) = draw_place(&mut chance, &disk).unwrap();
            let used = used_bytes(&disk, &name);
            assert!(offset < used && bit < 8, "byte {offset} of {used}");
            match offset {
                0..HEADER_USED => headers += 1,
                _ if used - END_BYTES <= offset => ends += 1,
                _ => others += 1,
            }
        }
        assert!(20 < headers && 60 < ends && 60 < others, "{headers}, {ends}, {others}");
        assert!(draw_place(&mut chance, &SimulatedDisk::new()).is_none());
    }
}
