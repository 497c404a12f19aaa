//! Turns a command that concerns several shards into requests to each, and their answers into one.
//!
//! Keys in several shards: one request a shard, in the order in which the command first names it.
//! All keys of the datacenter (`SCAN`, `KEYS`, `DBSIZE`, `RANDOMKEY`): one shard after the other.
//!
//! A scan's cursor is the shard in its upper bits and the upper bits of the smallest hash that was
//! not looked at below, so that no node remembers anything. Hashes are rounded down: a key may be
//! told twice, none that stays is left out.
//!
//! Ensures: one shard that refuses makes the whole answer a refusal; nothing partial is told.
//! Limits: `MSET`, `DEL` and their like are not atomic between shards: what a refusal stopped
//! halfway stays done.

use std::collections::{BTreeMap, VecDeque};

use antecede_model::{
    ids::ShardId,
    key::ShardCount,
    operation::{Action, Operation, Scan, ShardOperation},
    refusal::Refusal,
    response::Response,
    sighting::Sighting,
};

use super::{
    command::Gather,
    part::{Kind, encoded, gathered},
};

/// The most keys that one `SCAN` looks at in a shard, whatever it is asked.
const SCAN_COUNT_MAX: u64 = 10_000;
/// The most shards that one `SCAN` goes through while it finds too few keys.
const SCAN_SHARDS_MAX: u16 = 64;
/// How many keys `KEYS` looks at in one request.
const KEYS_PAGE: u64 = 1_000;
/// Bits of a cursor that hold a hash.
const CURSOR_HASH_BITS: u32 = 49;

/// A request that a task wants made.
#[derive(Debug)]
pub(super) struct Next {
    pub(super) shard: ShardId,
    pub(super) kind: Kind,
    /// The operation.
    pub(super) bytes: Box<[u8]>,
}

/// A command that concerns several shards.
#[derive(Debug)]
pub(super) struct Task {
    work: Work,
    refusal: Option<Refusal>,
}

/// A key that the next transaction is to find unchanged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Watched {
    pub(super) key: Box<[u8]>,
    pub(super) shard: ShardId,
    pub(super) sighting: Sighting,
}

/// What a finished task leaves.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) response: Response,
    /// Keys that were watched; `None` unless the task watches.
    pub(super) watched: Option<Vec<Watched>>,
}

#[derive(Debug)]
enum Work {
    Spread(Spread),
    Watch(Watch),
    Scan(ScanWork),
    Keys(KeysWork),
    Count { shards: VecDeque<ShardId>, sum: i64 },
    Random(RandomWork),
}

/// Actions on keys of several shards.
#[derive(Debug)]
struct Spread {
    gather: Gather,
    pending: VecDeque<Next>,
    /// Of each shard asked, the places of its answers in the whole.
    places: VecDeque<Vec<usize>>,
    answers: Vec<Response>,
}

#[derive(Debug)]
struct Watch {
    pending: VecDeque<Next>,
    keys: VecDeque<(Box<[u8]>, ShardId)>,
    watched: Vec<Watched>,
}

#[derive(Debug)]
struct ScanWork {
    shard_count: ShardCount,
    shard: u16,
    from: u64,
    /// The cursor that it began with: it ends with a larger one.
    begun: u64,
    count: u64,
    pattern: Option<Box<[u8]>>,
    shards_left: u16,
    is_asked: bool,
    /// Where the client goes on, once that is known; the inner `None` is the end.
    next: Option<Option<u64>>,
    keys: Vec<Vec<u8>>,
}

#[derive(Debug)]
struct KeysWork {
    pattern: Box<[u8]>,
    /// Where to look next.
    pages: VecDeque<(ShardId, u64)>,
    keys: Vec<Response>,
}

#[derive(Debug)]
struct RandomWork {
    draw: u64,
    /// Shards that were not asked yet.
    shards: VecDeque<ShardId>,
    is_asked: bool,
    found: Option<Response>,
}

impl Task {
    const fn of(work: Work) -> Self {
        Self { work, refusal: None }
    }

    /// Actions on keys of several shards.
    pub(super) fn spread(
        shard_count: ShardCount,
        operations: &[Operation<'_>],
        gather: Gather,
    ) -> Self {
        let mut order: Vec<(ShardId, Vec<usize>)> = Vec::new();
        let mut found: BTreeMap<ShardId, usize> = BTreeMap::new();
        for (place, operation) in operations.iter().enumerate() {
            let shard = shard_count.shard_of(operation.key);
            let at = *found.entry(shard).or_insert_with(|| {
                order.push((shard, Vec::new()));
                order.len() - 1
            });
            order[at].1.push(place);
        }
        let (mut pending, mut places) = (VecDeque::new(), VecDeque::new());
        for (shard, at) in order {
            let of_shard: Vec<_> = at.iter().map(|place| operations[*place].clone()).collect();
            let kind = Kind::of_all(&of_shard);
            let operation = ShardOperation::Batch { watched: Vec::new(), operations: of_shard };
            pending.push_back(Next { shard, kind, bytes: encoded(&operation) });
            places.push_back(at);
        }
        let answers = vec![Response::Nil; operations.len()];
        Self::of(Work::Spread(Spread { gather, pending, places, answers }))
    }

    /// What is under keys, for the next transaction.
    pub(super) fn watch(shard_count: ShardCount, keys: &[&[u8]]) -> Self {
        let (mut pending, mut owned) = (VecDeque::new(), VecDeque::new());
        for key in keys {
            let shard = shard_count.shard_of(key);
            let observe = ShardOperation::One(Operation { key, action: Action::Observe });
            pending.push_back(Next { shard, kind: Kind::Read, bytes: encoded(&observe) });
            owned.push_back(((*key).into(), shard));
        }
        Self::of(Work::Watch(Watch { pending, keys: owned, watched: Vec::new() }))
    }

    /// Some keys from a cursor on.
    pub(super) fn scan(
        shard_count: ShardCount,
        cursor: u64,
        count: u64,
        pattern: Option<&[u8]>,
    ) -> Self {
        let (shard, from) = unpacked(cursor);
        let is_over = u64::from(shard_count.count()) <= shard;
        Self::of(Work::Scan(ScanWork {
            shard_count,
            shard: u16::try_from(shard).unwrap_or(u16::MAX),
            from,
            begun: cursor,
            count: count.clamp(1, SCAN_COUNT_MAX),
            pattern: pattern.map(Into::into),
            shards_left: SCAN_SHARDS_MAX,
            is_asked: false,
            next: is_over.then_some(None),
            keys: Vec::new(),
        }))
    }

    /// All keys that match.
    pub(super) fn keys(shard_count: ShardCount, pattern: &[u8]) -> Self {
        let pages = shard_count.shards().map(|shard| (shard, 0)).collect();
        Self::of(Work::Keys(KeysWork { pattern: pattern.into(), pages, keys: Vec::new() }))
    }

    /// How many keys there are.
    pub(super) fn count(shard_count: ShardCount) -> Self {
        Self::of(Work::Count { shards: shard_count.shards().collect(), sum: 0 })
    }

    /// Some key.
    pub(super) fn random(shard_count: ShardCount, draw: u64) -> Self {
        let mut shards: VecDeque<_> = shard_count.shards().collect();
        let first = usize::try_from(draw % u64::from(shard_count.count())).unwrap_or(0);
        shards.rotate_left(first);
        // The shards took the low end of the draw, the place within one takes the high end.
        let draw = draw.rotate_right(32);
        Self::of(Work::Random(RandomWork { draw, shards, is_asked: false, found: None }))
    }

    /// Whether [`Task::next`] has a request, and which shard it would go to.
    pub(super) fn peek(&self) -> Option<(ShardId, Kind)> {
        if self.refusal.is_some() {
            return None;
        }
        match &self.work {
            Work::Spread(Spread { pending, .. }) | Work::Watch(Watch { pending, .. }) => {
                pending.front().map(|next| (next.shard, next.kind))
            }
            Work::Scan(scan) => {
                let is_ready = !scan.is_asked && scan.next.is_none();
                is_ready.then_some((ShardId(scan.shard), Kind::Read))
            }
            Work::Keys(keys) => keys.pages.front().map(|(shard, _)| (*shard, Kind::Read)),
            Work::Count { shards, .. } => shards.front().map(|shard| (*shard, Kind::Read)),
            Work::Random(random) => {
                let is_ready = !random.is_asked && random.found.is_none();
                let shard = random.shards.front().filter(|_| is_ready);
                shard.map(|shard| (*shard, Kind::Read))
            }
        }
    }

    /// The next request, if there is one to make now.
    pub(super) fn next(&mut self) -> Option<Next> {
        let (shard, kind) = self.peek()?;
        let operation = match &mut self.work {
            Work::Spread(Spread { pending, .. }) | Work::Watch(Watch { pending, .. }) => {
                return pending.pop_front();
            }
            Work::Scan(scan) => {
                scan.is_asked = true;
                let found = scan.keys.len() as u64;
                let count = scan.count.saturating_sub(found).max(1);
                ShardOperation::Scan(Scan {
                    from: scan.from,
                    count,
                    pattern: scan.pattern.as_deref(),
                })
            }
            Work::Keys(keys) => {
                let (_, from) = keys.pages.pop_front()?;
                ShardOperation::Scan(Scan { from, count: KEYS_PAGE, pattern: Some(&keys.pattern) })
            }
            Work::Count { shards, .. } => {
                shards.pop_front();
                ShardOperation::Count
            }
            Work::Random(random) => {
                random.shards.pop_front();
                random.is_asked = true;
                ShardOperation::Random { draw: random.draw }
            }
        };
        Some(Next { shard, kind, bytes: encoded(&operation) })
    }

    /// Takes the answer of a shard; answers come in the order of the requests.
    pub(super) fn take(&mut self, shard: ShardId, response: Response) {
        let taken = match (&mut self.work, response) {
            (_, Response::Refused(refusal)) => Err(Response::Refused(refusal)),
            (Work::Spread(spread), response) => spread.take(response),
            (Work::Watch(watch), response) => watch.take(response),
            (Work::Scan(scan), Response::Scanned { next, keys }) => {
                scan.take(next, keys);
                Ok(())
            }
            (Work::Keys(work), Response::Scanned { next, keys }) => {
                work.pages.extend(next.map(|from| (shard, from)));
                work.keys.extend(keys.into_iter().map(Response::Bytes));
                Ok(())
            }
            (Work::Count { sum, .. }, Response::Integer(count)) => {
                *sum = sum.saturating_add(count);
                Ok(())
            }
            (Work::Random(random), Response::Nil) => {
                random.is_asked = false;
                Ok(())
            }
            (Work::Random(random), response @ Response::Bytes(_)) => {
                random.found = Some(response);
                Ok(())
            }
            (Work::Scan(_) | Work::Keys(_) | Work::Count { .. } | Work::Random(_), response) => {
                Err(response)
            }
        };
        if let Err(response) = taken {
            // Whatever else comes back is the answer of another build to what it does not know.
            let refusal = if let Response::Refused(refusal) = response {
                refusal
            } else {
                Refusal::Unreachable { shard }
            };
            self.refusal.get_or_insert(refusal);
        }
    }

    /// What the client is told, once every request was answered and there is no next.
    pub(super) fn finish(self) -> Finished {
        let is_watch = matches!(self.work, Work::Watch(_));
        if let Some(refusal) = self.refusal {
            let watched = is_watch.then(Vec::new);
            return Finished { response: Response::Refused(refusal), watched };
        }
        let response = match self.work {
            Work::Spread(spread) => gathered(spread.gather, spread.answers),
            Work::Watch(watch) => {
                return Finished { response: Response::Ok, watched: Some(watch.watched) };
            }
            Work::Scan(scan) => Response::Scanned { next: scan.next.flatten(), keys: scan.keys },
            Work::Keys(keys) => Response::List(keys.keys),
            Work::Count { sum, .. } => Response::Integer(sum),
            Work::Random(random) => random.found.unwrap_or(Response::Nil),
        };
        Finished { response, watched: None }
    }
}

impl Spread {
    fn take(&mut self, response: Response) -> Result<(), Response> {
        let places = self.places.pop_front().unwrap_or_default();
        let Response::List(items) = response else { return Err(response) };
        if items.len() != places.len() {
            return Err(Response::List(items));
        }
        for (place, item) in places.into_iter().zip(items) {
            self.answers[place] = item;
        }
        Ok(())
    }
}

impl Watch {
    fn take(&mut self, response: Response) -> Result<(), Response> {
        let (Response::Observed(sighting), Some((key, shard))) = (&response, self.keys.pop_front())
        else {
            return Err(response);
        };
        self.watched.push(Watched { key, shard, sighting: *sighting });
        Ok(())
    }
}

impl ScanWork {
    fn take(&mut self, next: Option<u64>, keys: Vec<Vec<u8>>) {
        self.is_asked = false;
        self.keys.extend(keys);
        if let Some(hash) = next {
            self.from = hash;
            let cursor = packed(self.shard, hash);
            // Otherwise more keys than were asked for share the bits that a cursor holds.
            if self.begun < cursor {
                self.next = Some(Some(cursor));
            }
            return;
        }
        self.shard += 1;
        self.from = 0;
        self.shards_left -= 1;
        if self.shard_count.count() <= self.shard {
            self.next = Some(None);
        } else if self.count <= self.keys.len() as u64 || self.shards_left == 0 {
            self.next = Some(Some(packed(self.shard, 0)));
        }
    }
}

fn packed(shard: u16, hash: u64) -> u64 {
    u64::from(shard) << CURSOR_HASH_BITS | hash >> (u64::BITS - CURSOR_HASH_BITS)
}

const fn unpacked(cursor: u64) -> (u64, u64) {
    (cursor >> CURSOR_HASH_BITS, cursor << (u64::BITS - CURSOR_HASH_BITS))
}
