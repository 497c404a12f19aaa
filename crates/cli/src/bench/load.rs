//! Runs the load: threads, each with its own runtime and its share of the connections.
//!
//! Nothing is shared between threads while they run but a few numbers; what they counted is added
//! up at the end.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use antecede_check::Record;
use antecede_server::clock;
use anyhow::{Context, anyhow};

use super::lane::Lane;
use super::plan::Plan;
use super::recorder::{PARCEL, Records};
use super::tally::Tally;

/// When a run ends, and from when it counts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    /// Time that is not counted.
    pub(crate) warmup: Duration,
    /// Time that is counted; `None` until `requests` are served.
    pub(crate) duration: Option<Duration>,
    /// Operations, if that is the end.
    pub(crate) requests: Option<u64>,
}

/// What all threads see.
#[derive(Debug)]
pub(crate) struct Shared {
    /// What is to do.
    pub(crate) plan: Plan,
    /// The steady clock when everything was made.
    zero: Duration,
    /// Set when the user wants it to end.
    pub(crate) stop: AtomicBool,
    /// Operations that may still begin.
    left: Option<AtomicU64>,
    sessions: AtomicU64,
    /// When counting begins and ends, in nanoseconds since `zero`.
    counted_from: AtomicU64,
    ends_at: AtomicU64,
    /// Operations served, for those who watch.
    pub(crate) served: AtomicU64,
}

impl Shared {
    /// A run that has not begun.
    pub(crate) fn new(plan: Plan, span: Span) -> Arc<Self> {
        Arc::new(Self {
            plan,
            zero: clock::steady().0,
            stop: AtomicBool::new(false),
            left: span.requests.map(AtomicU64::new),
            sessions: AtomicU64::new(0),
            counted_from: AtomicU64::new(0),
            ends_at: AtomicU64::new(u64::MAX),
            served: AtomicU64::new(0),
        })
    }

    /// Nanoseconds since the run was made.
    pub(crate) fn now(&self) -> u64 {
        let since = clock::steady().0.saturating_sub(self.zero);
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }

    /// A number that no other session has.
    pub(crate) fn new_session(&self) -> u64 {
        self.sessions.fetch_add(1, Ordering::Relaxed)
    }

    /// Whether nothing new may begin.
    pub(crate) fn is_over(&self, now: u64) -> bool {
        self.stop.load(Ordering::Relaxed) || self.ends_at() <= now
    }

    /// When the run ends.
    pub(crate) fn ends_at(&self) -> u64 {
        self.ends_at.load(Ordering::Relaxed)
    }

    /// Whether an operation that began at `from` and was answered at `to` counts.
    pub(crate) fn counts(&self, from: u64, to: u64) -> bool {
        self.counted_from.load(Ordering::Relaxed) <= from && to <= self.ends_at()
    }

    /// How many of `wanted` operations may begin at `now`.
    pub(crate) fn take(&self, wanted: usize, now: u64) -> usize {
        let Some(left) = &self.left else { return wanted };
        if now < self.counted_from.load(Ordering::Relaxed) {
            return wanted;
        }
        let wanted = wanted as u64;
        let before = left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                Some(left.saturating_sub(wanted))
            })
            .unwrap_or(0);
        usize::try_from(before.min(wanted)).unwrap_or(usize::MAX)
    }

    fn begin(&self, span: Span) {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let from = self.now().saturating_add(nanos(span.warmup));
        self.counted_from.store(from, Ordering::Relaxed);
        let to = span.duration.map_or(u64::MAX, |time| from.saturating_add(nanos(time)));
        self.ends_at.store(to, Ordering::Relaxed);
    }
}

/// What the connections of one thread share.
#[derive(Debug)]
pub(crate) struct Crew {
    /// What they counted.
    pub(crate) tally: RefCell<Tally>,
    /// Which keys they asked for; empty without a history.
    pub(crate) used: RefCell<Vec<bool>>,
    /// Bytes that values are cut from.
    pub(crate) pool: Vec<u8>,
    /// When the last counted answer came.
    pub(crate) last_answer: Cell<u64>,
    parcel: RefCell<Vec<Record>>,
    records: Option<Records>,
}

impl Crew {
    /// The crew of one thread of a run.
    pub(crate) fn new(plan: &Plan, records: Option<Records>) -> Self {
        let used = if records.is_some() {
            vec![false; usize::try_from(plan.keys.count).unwrap_or(0)]
        } else {
            Vec::new()
        };
        Self {
            tally: RefCell::default(),
            used: RefCell::new(used),
            pool: plan.value_pool(),
            last_answer: Cell::new(0),
            parcel: RefCell::default(),
            records,
        }
    }

    /// Puts one operation into the history.
    pub(crate) fn record(&self, record: Record) {
        let mut parcel = self.parcel.borrow_mut();
        parcel.push(record);
        if PARCEL <= parcel.len() {
            self.hand_over(std::mem::take(&mut parcel));
        }
    }

    fn hand_over(&self, parcel: Vec<Record>) {
        if let Some(records) = &self.records {
            // The other end is gone only after an error of its own, which ends the run.
            drop(records.send(parcel));
        }
    }
}

/// What a run brought.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// What was counted.
    pub(crate) tally: Tally,
    /// Seconds over which it was counted.
    pub(crate) seconds: f64,
    /// The keys that were asked for.
    pub(crate) used: Vec<bool>,
    /// Sessions that there were.
    pub(crate) sessions: u64,
}

/// Runs the whole load on `threads` threads; returns when it has ended.
///
/// # Errors
/// When a thread cannot be made.
pub(crate) fn run(
    shared: &Arc<Shared>,
    span: Span,
    threads: usize,
    records: Option<Records>,
) -> anyhow::Result<Outcome> {
    let threads = threads.clamp(1, shared.plan.lane_count());
    let barrier = Arc::new(Barrier::new(threads + 1));
    let mut running = Vec::new();
    for thread in 0..threads {
        let shared = Arc::clone(shared);
        let barrier = Arc::clone(&barrier);
        let records = records.clone();
        let builder = std::thread::Builder::new().name(format!("load-{thread}"));
        running.push(builder.spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            run_thread(&shared, (thread, threads), &barrier, records, runtime)
        })?);
    }
    drop(records);
    barrier.wait(); // All have connected.
    shared.begin(span);
    barrier.wait();
    let from = shared.counted_from.load(Ordering::Relaxed);
    let mut outcome =
        Outcome { tally: Tally::default(), seconds: 0.0, used: Vec::new(), sessions: 0 };
    let mut last_answer = from;
    for thread in running {
        let crew = thread.join().map_err(|_| anyhow!("a thread of the load died"))??;
        outcome.tally.add(&crew.tally.borrow());
        last_answer = last_answer.max(crew.last_answer.get());
        let used = crew.used.borrow();
        outcome.used.resize(used.len(), false);
        for (all, own) in outcome.used.iter_mut().zip(used.iter()) {
            *all |= own;
        }
    }
    let to = if span.requests.is_some() || shared.stop.load(Ordering::Relaxed) {
        last_answer
    } else {
        shared.ends_at()
    };
    outcome.seconds = to.saturating_sub(from) as f64 / 1e9;
    outcome.sessions = shared.sessions.load(Ordering::Relaxed);
    Ok(outcome)
}

fn run_thread(
    shared: &Arc<Shared>,
    (thread, threads): (usize, usize),
    barrier: &Barrier,
    records: Option<Records>,
    runtime: std::io::Result<tokio::runtime::Runtime>,
) -> anyhow::Result<Crew> {
    let crew = Rc::new(Crew::new(&shared.plan, records));
    let mut lanes: Vec<Lane> = (0..shared.plan.lane_count())
        .filter(|lane| lane % threads == thread)
        .map(|lane| Lane::new(shared, &crew, lane))
        .collect();
    if let Ok(runtime) = &runtime {
        runtime.block_on(async {
            for lane in &mut lanes {
                lane.connect().await;
            }
        });
    }
    barrier.wait();
    barrier.wait();
    let runtime = runtime.context("cannot make a runtime for the load")?;
    let all = tokio::task::LocalSet::new();
    for lane in lanes {
        all.spawn_local(lane.run());
    }
    runtime.block_on(all);
    let rest = crew.parcel.take();
    if !rest.is_empty() {
        crew.hand_over(rest);
    }
    Rc::into_inner(crew).ok_or_else(|| anyhow!("a connection outlived its thread"))
}
