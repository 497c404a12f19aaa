//! Holds what requests with an id came to, so that a repeat gets the first answer.
//!
//! It is state of a shard's log: an entry whose request had an id carries the id and the answer,
//! and what is kept here is a function of the log up to a position. The window is counted in the
//! log, too: the last ids that fit both limits. What falls out of it raises a *floor*, the largest
//! number that was forgotten; a request at or below it that is not kept here may have been executed
//! before, and is never executed again. So a forgotten id is told from a new one without any clock.
//! Clients share a few floors by their names, so that one with a slow clock suffers from few others.
//!
//! A datacenter that comes back has the name that it had before, and knows no id of that time: the
//! tick with which a log of it stands alone says up to which number any may have been executed.
//!
//! Entries fall out only once they survive a power loss of the chain: what may still be taken back
//! has pushed nothing out.
//!
//! Assumes: numbers of one client grow, and are near the time (`antecede_model::retry`).
//! Ensures: an id that was executed in the log is kept here, or is at or below its floor.
//! Limits: `KEPT_MAX`, `KEPT_BYTES_MAX`, `ANSWER_BYTES_MAX`.
#![deny(clippy::indexing_slicing)]

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use antecede_model::{
    clock::Timestamp,
    codec::{DecodeError, Reader, Writer},
    ids::Position,
    response::Response,
    retry::{NAME_BYTES_MAX, Retry},
};

/// Ids that a shard remembers at most. Part of what a log means: all replicas have the same.
pub const KEPT_MAX: usize = 2048;
/// Bytes of ids and answers that a shard remembers at most; likewise.
pub const KEPT_BYTES_MAX: usize = 256 * 1024;
/// The longest answer that is kept, in bytes; of a longer one only that it was given.
pub const ANSWER_BYTES_MAX: usize = 4096;
/// In the place of a client's name, in what a tick says.
const EVERYBODY: &str = "everybody";
/// Floors of a shard.
const FLOORS: u8 = 64;

/// What an entry says of the request that made it, if that had an id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The id.
    pub retry: Retry,
    /// What the client was told; none if it was too long.
    pub answer: Option<Response>,
}

impl Kept {
    /// A request with its answer, unless that is too long.
    #[must_use]
    pub fn of(retry: Retry, answer: &Response) -> Self {
        let mut bytes = Vec::new();
        answer.write(&mut Writer::new(&mut bytes));
        let fits = bytes.len() <= ANSWER_BYTES_MAX;
        Self { retry, answer: fits.then(|| answer.clone()) }
    }

    /// What a tick says: numbers up to this one are never executed again, whoever's they are.
    #[must_use]
    pub fn floor(number: u64) -> Self {
        Self { retry: Retry { client: EVERYBODY.into(), number, words: 0 }, answer: None }
    }

    /// Writes it.
    pub fn write(&self, to: &mut Writer<'_>) {
        self.retry.write(to);
        to.option(self.answer.as_ref(), |to, answer| answer.write(to));
    }

    /// Reads it.
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes are none, or the answer is too long.
    pub fn read(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let retry = Retry::read(from)?;
        let before = from.rest().len();
        let answer = from.option(Response::read)?;
        let found = before - from.rest().len();
        if ANSWER_BYTES_MAX + 1 < found {
            return Err(DecodeError::OverLimit {
                what: "bytes of a kept answer",
                found: found as u64,
                limit: ANSWER_BYTES_MAX as u64,
            });
        }
        Ok(Self { retry, answer })
    }

    /// The bytes that [`Kept::write`] writes.
    #[must_use]
    pub fn encoded(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.write(&mut Writer::new(&mut bytes));
        bytes
    }
}

/// One id that is remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// The entry's place in the log.
    pub position: Position,
    /// Its stamp.
    pub stamp: Timestamp,
    /// What it says.
    pub kept: Arc<Kept>,
}

impl Item {
    /// Bytes by which it counts against the limit: a function of what it says.
    fn bytes(&self) -> usize {
        const ROUND_IT: usize = 32;
        let answer = self.kept.answer.as_ref().map_or(0, answer_bytes);
        self.kept.retry.client.len() + answer + ROUND_IT
    }
}

/// About how long an answer is.
fn answer_bytes(answer: &Response) -> usize {
    match answer {
        Response::Bytes(bytes) => bytes.len(),
        Response::List(items) => items.iter().map(|item| 1 + answer_bytes(item)).sum(),
        Response::Scanned { keys, .. } => keys.iter().map(Vec::len).sum(),
        Response::Ok
        | Response::Nil
        | Response::Integer(_)
        | Response::Word(_)
        | Response::Aborted
        | Response::Observed(_)
        | Response::Refused(_) => 1,
    }
}

/// What is remembered at one position of the log, to be copied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remembered {
    /// Floors that are not zero, by their numbers.
    floors: BTreeMap<u8, u64>,
    /// Ids in the order of the log.
    items: Arc<[Item]>,
}

impl Remembered {
    /// Whether nothing is remembered, nor was ever forgotten.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.floors.is_empty() && self.items.is_empty()
    }

    /// The largest time in it.
    pub(crate) fn newest(&self) -> Timestamp {
        self.items.last().map(|item| item.stamp).unwrap_or_default()
    }

    /// Writes it.
    pub fn write(&self, to: &mut Writer<'_>) {
        to.length(self.floors.len());
        for (place, floor) in &self.floors {
            to.u8(*place);
            to.number(*floor);
        }
        to.length(self.items.len());
        for item in self.items.iter() {
            to.number(item.position.0);
            to.timestamp(item.stamp);
            item.kept.write(to);
        }
    }

    /// Reads it.
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes are none.
    pub fn read(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let floors = from.list("floors of ids", |from| {
            let place = from.u8()?;
            let (what, found, limit) = ("a floor of ids", u64::from(place), u64::from(FLOORS - 1));
            if limit < found {
                return Err(DecodeError::OverLimit { what, found, limit });
            }
            Ok((place, from.number()?))
        })?;
        let items = from.list("remembered ids", |from| {
            Ok(Item {
                position: Position(from.number()?),
                stamp: from.timestamp()?,
                kept: Arc::new(Kept::read(from)?),
            })
        })?;
        if !items.is_sorted_by(|left, right| left.position < right.position) {
            return Err(DecodeError::UnknownTag { what: "order of remembered ids", found: 0 });
        }
        Ok(Self { floors: floors.into_iter().collect(), items: items.into() })
    }
}

/// What is known of an id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    /// It was not executed in this log.
    New,
    /// It may have been executed, and forgotten: numbers up to this one may have been.
    Forgotten(u64),
    /// It was used for another request, by the entry at this position.
    Other(Position),
    /// It was executed.
    Executed(Item),
}

/// What a replica remembers of the ids in its log.
#[derive(Debug)]
pub struct Retries {
    kept_max: usize,
    floors: BTreeMap<u8, u64>,
    /// In the order of the log.
    items: VecDeque<Item>,
    /// How many of them survive a power loss of the chain, and their bytes.
    settled: (usize, usize),
    /// By a hash of the client's name and the number.
    places: BTreeSet<(u32, u64, Position)>,
    has_floors: bool,
}

impl Retries {
    /// An empty log's. `has_floors` is false for a deliberate bug only.
    #[must_use]
    pub fn new(kept_max: usize, has_floors: bool) -> Self {
        Self {
            kept_max,
            floors: BTreeMap::new(),
            items: VecDeque::new(),
            settled: (0, 0),
            places: BTreeSet::new(),
            has_floors,
        }
    }

    /// How many ids are held.
    #[must_use]
    pub fn count(&self) -> usize {
        self.items.len()
    }

    /// Says what is known of an id.
    #[must_use]
    pub fn look(&self, retry: &Retry) -> Known {
        let client = hash(&retry.client);
        let range =
            (client, retry.number, Position(0))..=(client, retry.number, Position(u64::MAX));
        let mut found = self.places.range(range).filter_map(|(_, _, position)| self.at(*position));
        if let Some(item) = found.find(|item| item.kept.retry.client == retry.client) {
            let is_same = item.kept.retry.words == retry.words;
            return if is_same {
                Known::Executed(item.clone())
            } else {
                Known::Other(item.position)
            };
        }
        let floor = self.floors.get(&floor_of(client)).copied().unwrap_or_default();
        if retry.number <= floor { Known::Forgotten(floor) } else { Known::New }
    }

    fn at(&self, position: Position) -> Option<&Item> {
        let place = self.items.binary_search_by_key(&position, |item| item.position).ok()?;
        self.items.get(place)
    }

    /// An entry came to the end of the log.
    pub fn push(&mut self, position: Position, stamp: Timestamp, kept: &Arc<Kept>) {
        let kept = Arc::clone(kept);
        self.places.insert((hash(&kept.retry.client), kept.retry.number, position));
        self.items.push_back(Item { position, stamp, kept });
    }

    /// The log belongs to a datacenter of its own from here on: forgets what was executed elsewhere,
    /// and raises all floors.
    pub fn begin_anew(&mut self, floor: u64) {
        self.items.clear();
        self.places.clear();
        self.settled = (0, 0);
        for place in (0..FLOORS).filter(|_| self.has_floors) {
            let known = self.floors.entry(place).or_default();
            *known = floor.max(*known);
        }
    }

    /// Entries behind a position are taken back; they had not settled.
    pub fn cut_back(&mut self, to: Position) {
        while let Some(item) = self.items.pop_back_if(|item| to < item.position) {
            self.places.remove(&place_of(&item));
        }
        self.settled.0 = self.settled.0.min(self.items.len());
    }

    /// The log up to here stays: forgets what falls out of the window.
    pub fn settle(&mut self, to: Position) {
        while let Some(item) = self.items.get(self.settled.0)
            && item.position <= to
        {
            self.settled = (self.settled.0 + 1, self.settled.1 + item.bytes());
        }
        while self.kept_max < self.settled.0 || KEPT_BYTES_MAX < self.settled.1 {
            let Some(item) = self.items.pop_front() else { return };
            self.settled = (self.settled.0 - 1, self.settled.1 - item.bytes());
            self.places.remove(&place_of(&item));
            if self.has_floors {
                raise(&mut self.floors, &item);
            }
        }
    }

    /// What is remembered at a position that is not before what has settled.
    #[must_use]
    pub fn at_position(&self, position: Position) -> Remembered {
        let mut floors = self.floors.clone();
        let end = self.items.partition_point(|item| item.position <= position);
        let mut bytes = 0;
        let fitting = self.items.range(..end).rev().take(self.kept_max).take_while(|item| {
            bytes += item.bytes();
            bytes <= KEPT_BYTES_MAX
        });
        let begin = end - fitting.count();
        if self.has_floors {
            self.items.range(..begin).for_each(|item| raise(&mut floors, item));
        }
        Remembered { floors, items: self.items.range(begin..end).cloned().collect() }
    }

    /// Begins from what was copied.
    pub fn begin_from(&mut self, remembered: &Remembered) {
        self.floors.clone_from(&remembered.floors);
        self.items = remembered.items.iter().cloned().collect();
        self.places = self.items.iter().map(place_of).collect();
        self.settled = (0, 0);
        self.settle(Position(u64::MAX));
    }
}

fn hash(client: &str) -> u32 {
    debug_assert!(client.len() <= NAME_BYTES_MAX, "names are checked when they are read");
    crc32c::crc32c(client.as_bytes())
}

fn floor_of(client: u32) -> u8 {
    u8::try_from(client % u32::from(FLOORS)).unwrap_or_default()
}

fn place_of(item: &Item) -> (u32, u64, Position) {
    (hash(&item.kept.retry.client), item.kept.retry.number, item.position)
}

fn raise(floors: &mut BTreeMap<u8, u64>, item: &Item) {
    let floor = floors.entry(floor_of(hash(&item.kept.retry.client))).or_default();
    *floor = (*floor).max(item.kept.retry.number);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn retry(client: &str, number: u64) -> Retry {
        Retry { client: client.into(), number, words: 1 }
    }

    fn kept(client: &str, number: u64) -> Arc<Kept> {
        let answer = Response::Integer(i64::try_from(number).unwrap());
        Arc::new(Kept::of(retry(client, number), &answer))
    }

    fn filled(kept_max: usize, count: u64) -> Retries {
        let mut retries = Retries::new(kept_max, true);
        for number in 1..=count {
            retries.push(Position(number), Timestamp(number), &kept("a", number));
        }
        retries
    }

    fn is_executed(retries: &Retries, number: u64) -> bool {
        matches!(retries.look(&retry("a", number)), Known::Executed(_))
    }

    #[test]
    fn an_id_is_known_by_client_and_number_and_its_words_are_compared() {
        let retries = filled(8, 3);
        assert!(is_executed(&retries, 2));
        assert_eq!(retries.look(&retry("b", 2)), Known::New);
        assert_eq!(retries.look(&retry("a", 4)), Known::New);
        let other = Retry { words: 2, ..retry("a", 2) };
        assert_eq!(retries.look(&other), Known::Other(Position(2)));
    }

    #[test]
    fn what_falls_out_of_the_window_is_forgotten_and_never_new() {
        let mut retries = filled(4, 6);
        assert!(is_executed(&retries, 1), "nothing falls out before it has settled");
        retries.settle(Position(5));
        assert_eq!(retries.look(&retry("a", 1)), Known::Forgotten(1));
        assert_eq!(retries.look(&retry("a", 0)), Known::Forgotten(1));
        assert!(is_executed(&retries, 2) && is_executed(&retries, 6));
        retries.settle(Position(6));
        assert_eq!(retries.look(&retry("a", 2)), Known::Forgotten(2));
        assert_eq!(retries.count(), 4);
    }

    #[test]
    fn a_log_that_begins_anew_executes_nothing_that_may_have_been_executed_before() {
        let mut retries = filled(4, 6);
        retries.settle(Position(5));
        retries.begin_anew(9);
        assert_eq!(retries.look(&retry("a", 6)), Known::Forgotten(9));
        assert_eq!(retries.look(&retry("b", 9)), Known::Forgotten(9));
        assert_eq!(retries.look(&retry("b", 10)), Known::New);
        retries.push(Position(8), Timestamp(8), &kept("a", 10));
        retries.settle(Position(8));
        let mut copy = Retries::new(4, true);
        copy.begin_from(&retries.at_position(Position(8)));
        assert!(is_executed(&copy, 10));
        assert_eq!(copy.look(&retry("c", 9)), Known::Forgotten(9));
    }

    #[test]
    fn what_is_taken_back_is_new_again_and_has_pushed_nothing_out() {
        let mut retries = filled(4, 6);
        retries.settle(Position(3));
        retries.cut_back(Position(4));
        assert_eq!(retries.look(&retry("a", 5)), Known::New);
        retries.settle(Position(4));
        assert!(is_executed(&retries, 1) && is_executed(&retries, 4));
    }

    #[test]
    fn bytes_are_limited_too() {
        let mut retries = Retries::new(KEPT_MAX, true);
        for number in 1..=200 {
            let answer = Response::Bytes(vec![0; ANSWER_BYTES_MAX - 8]);
            let kept = Arc::new(Kept::of(retry("a", number), &answer));
            assert_eq!(kept.answer, Some(answer));
            retries.push(Position(number), Timestamp(number), &kept);
        }
        retries.settle(Position(200));
        assert!(retries.count() < 64, "{}", retries.count());
        assert!(is_executed(&retries, 200) && !is_executed(&retries, 100));
    }

    #[test]
    fn a_long_answer_is_not_kept() {
        let kept = Kept::of(retry("a", 1), &Response::Bytes(vec![0; ANSWER_BYTES_MAX]));
        assert_eq!(kept.answer, None);
        let mut bytes = Vec::new();
        let mut to = Writer::new(&mut bytes);
        retry("a", 1).write(&mut to);
        to.flag(true);
        Response::Bytes(vec![0; ANSWER_BYTES_MAX]).write(&mut to);
        assert!(matches!(
            Kept::read(&mut Reader::new(&bytes)),
            Err(DecodeError::OverLimit { what: "bytes of a kept answer", .. })
        ));
    }

    #[test]
    fn what_is_remembered_comes_back_from_its_bytes() {
        let mut retries = filled(4, 6);
        retries.settle(Position(6));
        let remembered = retries.at_position(Position(6));
        let mut bytes = Vec::new();
        remembered.write(&mut Writer::new(&mut bytes));
        assert_eq!(Remembered::read(&mut Reader::new(&bytes)), Ok(remembered));
        for end in 0..bytes.len() {
            assert!(Remembered::read(&mut Reader::new(&bytes[..end])).is_err(), "cut at {end}");
        }
        let disordered = Remembered {
            items: retries.items.iter().rev().cloned().collect(),
            ..Remembered::default()
        };
        let mut bytes = Vec::new();
        disordered.write(&mut Writer::new(&mut bytes));
        assert!(Remembered::read(&mut Reader::new(&bytes)).is_err());
    }

    proptest! {
        /// Whoever has the whole log, and whoever copied it anywhere on the way, know the same in
        /// the end; and nothing that was executed is new.
        #[test]
        fn a_copy_knows_what_the_log_knows(
            numbers in prop::collection::vec((0_u8..4, 1_u64..40), 1..40),
            copied_at in 0_usize..40,
            settled_at in 0_usize..40,
            kept_max in 1_usize..6,
        ) {
            let client = |place: u8| ["a", "b", "c", "d"][usize::from(place)];
            let (mut whole, mut copy) = (Retries::new(kept_max, true), Retries::new(kept_max, true));
            for (place, (who, number)) in numbers.iter().enumerate() {
                let position = Position(place as u64 + 1);
                let kept = kept(client(*who), *number);
                if place == copied_at {
                    copy.begin_from(&whole.at_position(Position(place as u64)));
                }
                whole.push(position, Timestamp(position.0), &kept);
                copy.push(position, Timestamp(position.0), &kept);
                if place <= settled_at && place < copied_at {
                    whole.settle(position);
                }
            }
            let end = Position(numbers.len() as u64);
            let before = whole.at_position(end);
            whole.settle(end);
            copy.settle(end);
            prop_assert_eq!(&whole.at_position(end), &before);
            prop_assert_eq!(&copy.at_position(end), &before);
            for (who, number) in numbers {
                prop_assert!(whole.look(&retry(client(who), number)) != Known::New);
            }
        }
    }
}
