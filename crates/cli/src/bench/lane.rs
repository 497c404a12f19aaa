//! One connection under load: sends a batch, waits for its answers, begins anew.
//!
//! A lane is one session of the history until an outcome is unknown: a lost connection, an answer
//! that takes too long, `-UNKNOWNOUTCOME`. Then it connects to the same endpoint again, after a
//! growing pause, and goes on as a new session.
//!
//! With a rate, operations are due at fixed times. One that was due while the lane waited for
//! earlier answers counts from when it was due; one that the lane itself woke up too late for
//! counts from when it was sent: a delay of the server is never left out, and one of this
//! program's timer is not taken for it.
//!
//! Ensures: everything sent is recorded once: with its answer, as refused, or as unknown; reads
//! without an answer say nothing and are only counted.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use antecede_check::{Level, Outcome, Record, history};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::chance::Chance;
use super::keys::{name_of_value, unique_name, write_unique_value};
use super::load::{Crew, Shared};
use super::plan::Endpoint;
use super::tally::Kind;
use crate::client::{
    Connection,
    reply::{self, Reply},
    request,
};

/// How much room is made before each read.
const READ_BYTES: usize = 64 << 10;

/// The pause before connecting again, and how far it grows.
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How often a session with mixed levels changes its level: in one of so many batches.
const LEVEL_CHANGE: u64 = 4;

/// The refusal that leaves open whether a write has an effect.
const UNKNOWN_OUTCOME: &[u8] = b"UNKNOWNOUTCOME";

/// What was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Get,
    Set,
    Delete,
    /// After a `SET`.
    Wait,
    /// `CAUSAL.LEVEL`; the level before.
    Level(Level),
}

/// A request without an answer yet.
#[derive(Clone, Copy, Debug)]
struct Sent {
    what: What,
    key: u64,
    seq: u64,
    /// From when its latency counts.
    due: u64,
    /// When it was sent.
    called: u64,
    level: Level,
}

/// Why a connection ended.
enum Fault {
    Lost,
    TimedOut,
    /// What came was no answer.
    Garbled,
    /// An answer left an outcome open.
    Unknown,
}

impl Fault {
    const fn name(&self) -> &'static str {
        match self {
            Self::Lost => "connection lost",
            Self::TimedOut => "no answer in time",
            Self::Garbled => "not the Redis protocol",
            Self::Unknown => "outcome unknown",
        }
    }
}

/// When operations are due.
#[derive(Debug)]
struct Schedule {
    interval: u64,
    next: u64,
    /// Since when the lane has nothing to wait for.
    free_since: u64,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Lane {
    shared: Arc<Shared>,
    crew: Rc<Crew>,
    endpoint: Endpoint,
    chance: Chance,
    stream: Option<TcpStream>,
    output: Vec<u8>,
    input: Vec<u8>,
    sent: VecDeque<Sent>,
    /// When each operation of the batch is due.
    due: Vec<u64>,
    schedule: Option<Schedule>,
    session: u64,
    seq: u64,
    level: Level,
    pause: Duration,
    number: usize,
}

impl Lane {
    /// The lane with this number; endpoints take turns.
    pub(crate) fn new(shared: &Arc<Shared>, crew: &Rc<Crew>, number: usize) -> Self {
        let plan = &shared.plan;
        let endpoint = plan.endpoints[number % plan.endpoints.len()].clone();
        Self {
            crew: Rc::clone(crew),
            endpoint,
            chance: Chance::new(plan.seed, number as u64),
            stream: None,
            output: Vec::new(),
            input: Vec::new(),
            sent: VecDeque::new(),
            due: Vec::new(),
            schedule: None,
            session: shared.new_session(),
            seq: 0,
            level: Level::Linearizable,
            pause: PAUSE_MIN,
            number,
            shared: Arc::clone(shared),
        }
    }

    /// Connects; whether it could.
    pub(crate) async fn connect(&mut self) -> bool {
        let password = self.shared.plan.password.as_deref();
        match Connection::open(&self.endpoint.address, password, CONNECT_TIMEOUT).await {
            Ok(connection) => {
                self.stream = Some(connection.into_stream());
                self.level = Level::Linearizable;
                self.pause = PAUSE_MIN;
                true
            }
            Err(_) => {
                self.crew.tally.borrow_mut().fault("cannot connect");
                false
            }
        }
    }

    /// Goes on until the run is over.
    pub(crate) async fn run(mut self) {
        if let Some(interval) = self.shared.plan.interval {
            let interval = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX).max(1);
            let now = self.shared.now();
            let lanes = self.shared.plan.lane_count() as u64;
            let next = now + interval / lanes * self.number as u64;
            self.schedule = Some(Schedule { interval, next, free_since: now });
        }
        while !self.shared.is_over(self.shared.now()) {
            if self.stream.is_none() && !self.connect().await {
                self.rest().await;
                continue;
            }
            if !self.choose_batch().await {
                break;
            }
            self.write_batch();
            let timeout = self.shared.plan.timeout;
            let fault = match tokio::time::timeout(timeout, self.exchange()).await {
                Ok(Ok(())) => None,
                Ok(Err(fault)) => Some(fault),
                Err(_) => Some(Fault::TimedOut),
            };
            if let Some(schedule) = &mut self.schedule {
                schedule.free_since = self.shared.now();
            }
            if let Some(fault) = fault {
                self.on_fault(&fault);
            }
        }
    }

    /// Waits before connecting again, longer each time.
    async fn rest(&mut self) {
        let left = self.shared.ends_at().saturating_sub(self.shared.now());
        tokio::time::sleep(self.pause.min(Duration::from_nanos(left))).await;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
    }

    /// Fills `due` with the operations of the next batch; `false` if there are none any more.
    async fn choose_batch(&mut self) -> bool {
        let pipeline = self.shared.plan.pipeline;
        let mut now = self.shared.now();
        self.due.clear();
        if let Some(schedule) = &mut self.schedule {
            while now < schedule.next {
                let wake = schedule.next.min(self.shared.ends_at());
                tokio::time::sleep(Duration::from_nanos(wake - now)).await;
                now = self.shared.now();
                if self.shared.is_over(now) {
                    return false;
                }
            }
            while schedule.next <= now && self.due.len() < pipeline {
                let was_free = schedule.free_since <= schedule.next;
                self.due.push(if was_free { now } else { schedule.next });
                schedule.next = schedule.next.saturating_add(schedule.interval);
            }
        } else {
            self.due.resize(pipeline, now);
        }
        let taken = self.shared.take(self.due.len(), now);
        self.due.truncate(taken);
        !self.due.is_empty()
    }

    /// Draws the operations of the batch and writes them down.
    fn write_batch(&mut self) {
        self.output.clear();
        let called = self.shared.now();
        let shared = Arc::clone(&self.shared);
        let mix = &shared.plan.mix;
        if mix.has_mixed_levels && self.chance.below(LEVEL_CHANGE) == 0 {
            self.write_level_change(called);
        }
        for place in 0..self.due.len() {
            let due = self.due[place];
            let mut key = shared.plan.choice.draw(&mut self.chance);
            let what = if self.chance.unit() < mix.reads {
                What::Get
            } else if 0.0 < mix.deletes && self.chance.unit() < mix.deletes {
                What::Delete
            } else {
                What::Set
            };
            if what != What::Get {
                key = shared.plan.keys.for_writer(key, u64::from(self.endpoint.dc));
            }
            let (seq, level) = (self.seq, self.level);
            self.seq += 1;
            let sent = Sent { what, key, seq, due, called, level };
            self.write_operation(&sent);
            self.sent.push_back(sent);
            if let (What::Set, Some(count)) = (what, mix.wait) {
                let millis = mix.wait_timeout.as_millis().to_string();
                let count = count.to_string();
                request::write(&mut self.output, &[b"WAIT", count.as_bytes(), millis.as_bytes()]);
                self.sent.push_back(Sent { what: What::Wait, ..sent });
            }
        }
    }

    fn write_level_change(&mut self, called: u64) {
        let before = self.level;
        let (level, name) = if before == Level::Linearizable {
            (Level::Eventual, &b"eventual"[..])
        } else {
            (Level::Linearizable, &b"linearizable"[..])
        };
        request::write(&mut self.output, &[b"CAUSAL.LEVEL", name]);
        self.level = level;
        let what = What::Level(before);
        self.sent.push_back(Sent { what, key: 0, seq: 0, due: called, called, level });
    }

    fn write_operation(&mut self, sent: &Sent) {
        let plan = &self.shared.plan;
        let out = &mut self.output;
        let mut used_keys = self.crew.used.borrow_mut();
        match sent.what {
            What::Get => out.extend_from_slice(b"*2\r\n$3\r\nGET\r\n"),
            What::Delete => out.extend_from_slice(b"*2\r\n$3\r\nDEL\r\n"),
            What::Set => out.extend_from_slice(b"*3\r\n$3\r\nSET\r\n"),
            What::Wait | What::Level(_) => {}
        }
        write_length(out, plan.keys.key_bytes());
        plan.keys.write_name(sent.key, out);
        out.extend_from_slice(b"\r\n");
        if sent.what == What::Set {
            if plan.has_history {
                let mut value = Vec::with_capacity(plan.value_bytes);
                write_unique_value(self.session, sent.seq, plan.value_bytes, &mut value);
                request::write_bulk(out, &value);
            } else {
                let start = usize::try_from(sent.seq % 64).unwrap_or(0);
                write_length(out, plan.value_bytes);
                out.extend_from_slice(&self.crew.pool[start..start + plan.value_bytes]);
                out.extend_from_slice(b"\r\n");
            }
        }
        let place = usize::try_from(sent.key).ok();
        if let Some(used) = place.and_then(|place| used_keys.get_mut(place)) {
            *used = true;
        }
    }

    /// Sends the batch and takes all answers.
    async fn exchange(&mut self) -> Result<(), Fault> {
        let Some(stream) = &mut self.stream else { return Err(Fault::Lost) };
        stream.write_all(&self.output).await.map_err(|_| Fault::Lost)?;
        let mut is_unknown = false;
        while !self.sent.is_empty() {
            let Some(stream) = &mut self.stream else { return Err(Fault::Lost) };
            self.input.reserve(READ_BYTES);
            match stream.read_buf(&mut self.input).await {
                Ok(0) | Err(_) => return Err(Fault::Lost),
                Ok(_) => is_unknown |= self.take_answers()?,
            }
        }
        if is_unknown { Err(Fault::Unknown) } else { Ok(()) }
    }

    /// Takes the answers that have come; whether one of them left an outcome open.
    fn take_answers(&mut self) -> Result<bool, Fault> {
        let now = self.shared.now();
        let input = std::mem::take(&mut self.input);
        let mut at = 0;
        let mut served = 0;
        let mut is_unknown = false;
        while let Some(read) = reply::read(input.get(at..).unwrap_or_default()).transpose() {
            let (reply, length) = read.map_err(|_| Fault::Garbled)?;
            let sent = self.sent.pop_front().ok_or(Fault::Garbled)?;
            at += length;
            served += 1;
            is_unknown |= self.on_reply(&sent, &reply, now);
        }
        self.shared.served.fetch_add(served, Ordering::Relaxed);
        self.input = input;
        self.input.drain(..at);
        Ok(is_unknown)
    }

    /// Counts and records one answer; whether it left the outcome open.
    fn on_reply(&mut self, sent: &Sent, reply: &Reply<'_>, now: u64) -> bool {
        let counts = self.shared.counts(sent.due, now);
        let crew = Rc::clone(&self.crew);
        let mut tally = crew.tally.borrow_mut();
        if counts {
            crew.last_answer.set(now);
        }
        if let Reply::Error(error) = reply {
            let code = reply::code_of(error);
            tally.refused(code);
            drop(tally);
            let is_unknown = code == UNKNOWN_OUTCOME;
            self.on_error(sent, is_unknown, now);
            return is_unknown;
        }
        let latency = now.saturating_sub(sent.due);
        let kind = match sent.what {
            What::Get => Kind::Get,
            What::Set => Kind::Set,
            What::Delete => Kind::Delete,
            What::Wait => Kind::SetAndWait,
            What::Level(_) => return false,
        };
        if counts {
            tally.served(kind, latency);
            match (sent.what, reply) {
                (What::Get, Reply::Nil) => tally.misses += 1,
                (What::Get, _) => tally.hits += 1,
                (What::Wait, Reply::Integer(count)) => {
                    let wanted = i64::from(self.shared.plan.mix.wait.unwrap_or(0));
                    tally.short_waits += u64::from(*count < wanted);
                }
                (What::Wait | What::Set | What::Delete | What::Level(_), _) => {}
            }
        }
        self.count_payload(sent, reply, &mut tally);
        drop(tally);
        if self.shared.plan.has_history && sent.what != What::Wait {
            let record = Record { ret_ns: Some(now), ..self.record_of(sent, Some(reply)) };
            self.crew.record(record);
        }
        false
    }

    /// Counts what a write gives to the links.
    fn count_payload(&self, sent: &Sent, reply: &Reply<'_>, tally: &mut super::tally::Tally) {
        let plan = &self.shared.plan;
        let value = match (sent.what, reply) {
            (What::Set, _) => plan.value_bytes,
            (What::Delete, Reply::Integer(1)) => 0,
            (What::Get | What::Delete | What::Wait | What::Level(_), _) => return,
        };
        tally.writes += 1;
        tally.payload_bytes += (plan.keys.key_bytes() + value) as u64;
    }

    fn on_error(&mut self, sent: &Sent, is_unknown: bool, now: u64) {
        match sent.what {
            What::Set | What::Delete => {
                if self.shared.plan.has_history {
                    let (outcome, ret_ns) = if is_unknown {
                        (Outcome::Unknown, None)
                    } else {
                        (Outcome::Fail, Some(now))
                    };
                    let record = Record { outcome, ret_ns, ..self.record_of(sent, None) };
                    self.crew.record(record);
                }
            }
            What::Level(before) => {
                self.level = before;
                for sent in &mut self.sent {
                    sent.level = before;
                }
            }
            What::Get | What::Wait => {}
        }
    }

    /// A record of what was asked, and of the answer if there is one.
    fn record_of(&self, sent: &Sent, reply: Option<&Reply<'_>>) -> Record {
        let plan = &self.shared.plan;
        let op = match sent.what {
            What::Set => history::Kind::Write,
            What::Delete => history::Kind::Delete,
            What::Get | What::Wait | What::Level(_) => history::Kind::Read,
        };
        let value = match (sent.what, reply) {
            (What::Set, _) => Some(unique_name(self.session, sent.seq)),
            (What::Get, Some(Reply::Bulk(value))) => Some(name_of_value(value, plan.value_bytes)),
            (What::Get | What::Delete | What::Wait | What::Level(_), _) => None,
        };
        let result = match (sent.what, reply) {
            (What::Delete, Some(Reply::Integer(count))) => Some(*count),
            (What::Get | What::Set | What::Delete | What::Wait | What::Level(_), _) => None,
        };
        Record {
            value,
            result,
            level: sent.level,
            node: Some(self.endpoint.address.clone()),
            ..Record::new(self.session, sent.seq, op, &plan.keys.name(sent.key))
        }
        .at(self.endpoint.dc, sent.called, None)
    }

    /// Gives the connection up; what was not answered has an unknown outcome.
    fn on_fault(&mut self, fault: &Fault) {
        self.stream = None;
        self.input.clear();
        let unanswered = std::mem::take(&mut self.sent);
        let mut tally = self.crew.tally.borrow_mut();
        tally.fault(fault.name());
        for sent in &unanswered {
            match sent.what {
                What::Get | What::Set | What::Delete => tally.unanswered += 1,
                What::Wait | What::Level(_) => {}
            }
        }
        drop(tally);
        for sent in &unanswered {
            let is_write = sent.what == What::Set || sent.what == What::Delete;
            if is_write && self.shared.plan.has_history {
                let record = Record { outcome: Outcome::Unknown, ..self.record_of(sent, None) };
                self.crew.record(record);
            }
        }
        self.session = self.shared.new_session();
        self.seq = 0;
    }
}

fn write_length(out: &mut Vec<u8>, length: usize) {
    use std::io::Write;
    write!(out, "${length}\r\n").expect("a vector takes all bytes");
}
