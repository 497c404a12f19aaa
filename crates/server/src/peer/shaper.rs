//! Delays and cuts links between datacenters, for demonstrations and tests.
//!
//! A path is a direction between two datacenters, by name; every link on it looks at its shape
//! when it sends. Sockets know no delays of less than a millisecond, so the courier, one thread
//! for a shaper, sleeps until the next bytes are due and then writes them itself.
//!
//! Ensures: bytes of one link keep their order, whatever the jitter.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use antecede_model::clock::Steady;
use parking_lot::{Condvar, Mutex};
use tracing::warn;

use super::link::Link;
use crate::clock;

/// How the system may round the courier's sleeps, in nanoseconds; the usual 50 us would show.
const TIMER_SLACK_NANOS: NonZeroU64 = NonZeroU64::new(1_000).expect("it is not zero");

/// What a path does to what is sent on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkShape {
    /// One way.
    pub delay: Duration,
    /// At most so much more, drawn for each batch.
    pub jitter: Duration,
    /// Everything is dropped.
    pub is_cut: bool,
}

/// The shape of one path, as its links see it.
#[derive(Debug, Default)]
pub(crate) struct Path {
    delay_nanos: AtomicU64,
    jitter_nanos: AtomicU64,
    is_cut: AtomicBool,
}

impl Path {
    pub(crate) fn shape(&self) -> LinkShape {
        LinkShape {
            delay: Duration::from_nanos(self.delay_nanos.load(Ordering::Relaxed)),
            jitter: Duration::from_nanos(self.jitter_nanos.load(Ordering::Relaxed)),
            is_cut: self.is_cut.load(Ordering::Relaxed),
        }
    }

    fn set(&self, shape: LinkShape) {
        let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.delay_nanos.store(nanos(shape.delay), Ordering::Relaxed);
        self.jitter_nanos.store(nanos(shape.jitter), Ordering::Relaxed);
        self.is_cut.store(shape.is_cut, Ordering::Relaxed);
    }
}

/// The paths between datacenters; the handle by which they are delayed and cut. All nodes of one
/// process share one.
#[derive(Clone, Debug, Default)]
pub struct LinkShaper {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    paths: Mutex<BTreeMap<(String, String), Arc<Path>>>,
    courier: Arc<Courier>,
}

impl LinkShaper {
    /// Paths without delays.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Shapes one direction between two datacenters.
    pub fn set(&self, from: &str, to: &str, shape: LinkShape) {
        self.path(from, to).set(shape);
    }

    /// Changes the shape of one direction.
    pub fn change(&self, from: &str, to: &str, change: impl FnOnce(&mut LinkShape)) {
        let path = self.path(from, to);
        let mut shape = path.shape();
        change(&mut shape);
        path.set(shape);
    }

    /// How one direction is shaped.
    #[must_use]
    pub fn shape(&self, from: &str, to: &str) -> LinkShape {
        self.path(from, to).shape()
    }

    /// All directions that were asked for, with their shapes.
    #[must_use]
    pub fn shapes(&self) -> Vec<(String, String, LinkShape)> {
        let paths = self.inner.paths.lock();
        paths.iter().map(|((from, to), path)| (from.clone(), to.clone(), path.shape())).collect()
    }

    /// Ends all cuts; delays stay.
    pub fn heal(&self) {
        for path in self.inner.paths.lock().values() {
            path.is_cut.store(false, Ordering::Relaxed);
        }
    }

    pub(crate) fn path(&self, from: &str, to: &str) -> Arc<Path> {
        let mut paths = self.inner.paths.lock();
        Arc::clone(paths.entry((from.to_owned(), to.to_owned())).or_default())
    }

    pub(crate) fn courier(&self) -> Arc<Courier> {
        Arc::clone(&self.inner.courier)
    }
}

/// Writes delayed bytes when they are due.
#[derive(Debug, Default)]
pub(crate) struct Courier {
    rounds: Mutex<Rounds>,
    earlier: Condvar,
    started: OnceLock<()>,
}

#[derive(Debug, Default)]
struct Rounds {
    /// Earliest first; a link that is gone is passed over.
    due: BinaryHeap<Reverse<(Steady, u64)>>,
    links: BTreeMap<u64, Weak<Link>>,
    number: u64,
}

impl Courier {
    /// Lets `link` send at `at` what is due by then.
    pub(crate) fn call_at(self: &Arc<Self>, at: Steady, link: &Arc<Link>) {
        self.started.get_or_init(|| {
            let weak = Arc::downgrade(self);
            let thread = std::thread::Builder::new().name("courier".to_owned());
            if let Err(error) = thread.spawn(move || run(&weak)) {
                warn!(%error, "no thread for delayed links: they will stand still");
            }
        });
        let is_first = {
            let mut rounds = self.rounds.lock();
            rounds.number += 1;
            let number = rounds.number;
            rounds.links.insert(number, Arc::downgrade(link));
            let is_first = rounds.due.peek().is_none_or(|Reverse((first, _))| at < *first);
            rounds.due.push(Reverse((at, number)));
            is_first
        };
        if is_first {
            self.earlier.notify_one();
        }
    }

    /// Sleeps until something is due or has become earlier; the links that are due.
    fn wait(&self) -> Vec<Weak<Link>> {
        let mut rounds = self.rounds.lock();
        match rounds.due.peek().map(|Reverse((at, _))| at.0.saturating_sub(clock::steady().0)) {
            None => {
                self.earlier.wait_for(&mut rounds, IDLE_WAIT);
            }
            Some(rest) if rest.is_zero() => {}
            Some(rest) => {
                self.earlier.wait_for(&mut rounds, rest.min(IDLE_WAIT));
            }
        }
        let now = clock::steady();
        let mut due = Vec::new();
        while let Some(Reverse((at, number))) = rounds.due.peek().copied()
            && at <= now
        {
            rounds.due.pop();
            due.extend(rounds.links.remove(&number));
        }
        due
    }
}

/// How long the courier sleeps at most, so that it notices that its shaper is gone.
const IDLE_WAIT: Duration = Duration::from_secs(1);

fn run(courier: &Weak<Courier>) {
    if let Err(error) = rustix::thread::set_current_timer_slack(Some(TIMER_SLACK_NANOS)) {
        warn!(%error, "delays of links will be less exact");
    }
    while let Some(courier) = courier.upgrade() {
        for link in courier.wait() {
            if let Some(link) = link.upgrade() {
                link.pump();
            }
        }
    }
}
