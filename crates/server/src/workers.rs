//! Runs connections on one thread while that is enough, and on all when it is not.
//!
//! A runtime with a thread for each core wakes a second thread whenever two tasks are ready. For
//! turns of a few microseconds that costs more than it gives: a call to the system, a switch on a
//! core that the clients could use, lines of the cache that move. So connections live on a runtime
//! with one thread, the `solo`, until it has almost no time to spare; then they move, on trial, to
//! the `crowd`, which has a thread for each core and runs everything else anyway. They stay there if
//! that serves more requests, and until one thread would have been enough; otherwise they go back,
//! and the next trial waits twice as long.
//!
//! A governor looks every `LOOK_INTERVAL` how long the threads had nothing to do. A connection, of
//! a client or of another node, moves by itself, between two turns, with its socket; one that is
//! silent stays where it is.
//!
//! Limits: work that comes of a sudden runs on one thread for a look or two.

use std::cell::OnceCell;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::JoinSet;
use tracing::debug;

use crate::clock;

/// How often the governor looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// Of the solo's time, in thousandths: with less to spare the crowd takes over.
const SPARE_MIN: u64 = 30;
/// Of one thread's time, in thousandths: with less to do for all threads one may be enough. More
/// than one thread's time, because some of what the crowd does comes of its being many.
const BUSY_MAX: u64 = 1_300;
/// How long that must have been so, and how long a trial that was in vain is not repeated.
const PATIENCE_MIN: Duration = Duration::from_secs(1);
/// The longest that the latter grows to.
const PATIENCE_MAX: Duration = Duration::from_secs(60);
/// Looks by which a crowd is judged.
const TRIAL_LOOKS: u64 = 3;
/// What the crowd must do of what the solo did, in thousandths.
const GAIN_MIN: u64 = 1_100;

/// Where connections live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// On one thread.
    Solo,
    /// On all threads.
    Crowd,
}

/// The threads of a process; they end when this is dropped.
#[derive(Debug)]
pub struct Workers {
    crowd: Option<Runtime>,
    solo: Option<Runtime>,
    shared: Arc<Shared>,
    governor: Option<JoinHandle<()>>,
}

/// Where connections shall live, and how they get there.
#[derive(Clone, Debug)]
pub struct Placement {
    shared: Arc<Shared>,
    solo: Handle,
    crowd: Handle,
}

/// How long a task belongs where it is.
#[derive(Debug)]
pub(crate) struct Stay {
    placement: Option<(Placement, Place)>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Whether connections belong to the crowd: 0 or 1.
    is_crowd: AtomicU8,
    /// Requests that were served since the last look.
    requests: AtomicU64,
    solo_idle: Mutex<Vec<Arc<IdleTime>>>,
    crowd_idle: Mutex<Vec<Arc<IdleTime>>>,
    has_ended: Mutex<bool>,
    ended: Condvar,
}

/// How long one thread had nothing to do, in nanoseconds of the steady clock.
#[derive(Debug, Default)]
struct IdleTime {
    /// Since when it has nothing to do; zero while it is busy.
    since: AtomicU64,
    /// In earlier times.
    before: AtomicU64,
}

thread_local! {
    static IDLE: OnceCell<Arc<IdleTime>> = const { OnceCell::new() };
}

fn now() -> u64 {
    u64::try_from(clock::steady().0.as_nanos()).unwrap_or(u64::MAX)
}

impl IdleTime {
    fn begin(&self) {
        self.since.store(now(), Ordering::Release);
    }

    fn end(&self) {
        let since = self.since.swap(0, Ordering::AcqRel);
        if since != 0 {
            self.before.fetch_add(now().saturating_sub(since), Ordering::Release);
        }
    }

    fn until(&self, now: u64) -> u64 {
        let before = self.before.load(Ordering::Acquire);
        let since = self.since.load(Ordering::Acquire);
        before + if since == 0 { 0 } else { now.saturating_sub(since) }
    }
}

impl Workers {
    /// Starts a thread for each core, and one more for the connections if there are several cores.
    ///
    /// # Errors
    /// When the system gives no threads.
    pub fn start() -> io::Result<Self> {
        let threads = std::thread::available_parallelism()?.get();
        let shared = Arc::new(Shared::default());
        let crowd = runtime(threads, &shared, |shared| &shared.crowd_idle)?;
        let mut workers = Self { crowd: Some(crowd), solo: None, shared, governor: None };
        if 1 < threads {
            workers.solo = Some(runtime(1, &workers.shared, |shared| &shared.solo_idle)?);
            let governed = Arc::clone(&workers.shared);
            let govern = move || governed.govern(threads as u64);
            let thread = std::thread::Builder::new().name("governor".to_owned());
            workers.governor = Some(thread.spawn(govern)?);
        }
        Ok(workers)
    }

    /// Where connections shall live; `None` if all cores are one.
    #[must_use]
    pub fn placement(&self) -> Option<Placement> {
        let solo = self.solo.as_ref()?.handle().clone();
        let crowd = self.crowd.as_ref()?.handle().clone();
        Some(Placement { shared: Arc::clone(&self.shared), solo, crowd })
    }

    /// Runs a future to its end; its tasks run on the crowd.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.crowd.as_ref().expect("it is there until the end").block_on(future)
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        *self.shared.has_ended.lock() = true;
        self.shared.ended.notify_all();
        if let Some(governor) = self.governor.take() {
            // If it has failed, connections have only stayed where they were.
            drop(governor.join());
        }
        drop(self.solo.take());
        drop(self.crowd.take());
    }
}

fn runtime(
    threads: usize,
    shared: &Arc<Shared>,
    list: fn(&Shared) -> &Mutex<Vec<Arc<IdleTime>>>,
) -> io::Result<Runtime> {
    let of_this_thread = |tell: fn(&IdleTime)| {
        let shared = Arc::clone(shared);
        move || {
            IDLE.with(|idle| {
                tell(idle.get_or_init(|| {
                    let idle = Arc::new(IdleTime::default());
                    list(&shared).lock().push(Arc::clone(&idle));
                    idle
                }));
            });
        }
    };
    Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .on_thread_park(of_this_thread(IdleTime::begin))
        .on_thread_unpark(of_this_thread(IdleTime::end))
        .build()
}

/// A thread for what must not wait behind the work of clients and of other datacenters: whoever
/// renews a lease too late refuses everybody. It has little to do, so the system runs it soon.
#[derive(Debug)]
pub(crate) struct ControlThread {
    runtime: Option<Runtime>,
}

impl ControlThread {
    /// Starts it.
    pub(crate) fn start() -> io::Result<Self> {
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(1).thread_name("control").enable_all();
        Ok(Self { runtime: Some(builder.build()?) })
    }

    /// Where its tasks are started.
    pub(crate) fn handle(&self) -> Handle {
        self.runtime.as_ref().expect("it is there until the end").handle().clone()
    }
}

impl Drop for ControlThread {
    fn drop(&mut self) {
        // Whoever drops it may be a task itself, which must not wait.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Placement {
    /// Where connections shall live now.
    pub(crate) fn wanted(&self) -> Place {
        if self.shared.is_crowd.load(Ordering::Relaxed) == 0 { Place::Solo } else { Place::Crowd }
    }

    /// The runtime that is there.
    pub(crate) fn runtime(&self, place: Place) -> &Handle {
        match place {
            Place::Solo => &self.solo,
            Place::Crowd => &self.crowd,
        }
    }

    /// Runs a task where it belongs, again and again: it ends with `Ok` when it has moved, and is
    /// then made anew, or with what came of it.
    ///
    /// The task is told how to find out that it belongs elsewhere. It ends with this future.
    pub(crate) async fn follow<T, R, F>(&self, mut state: T, task: impl Fn(T, Stay) -> F) -> R
    where
        T: Send + 'static,
        R: Send + 'static,
        F: Future<Output = Result<T, R>> + Send + 'static,
    {
        loop {
            let place = self.wanted();
            let stay = Stay { placement: Some((self.clone(), place)) };
            let mut life = JoinSet::new();
            life.spawn_on(task(state, stay), self.runtime(place));
            match life.join_next().await.expect("one task was spawned") {
                Ok(Ok(moved)) => state = moved,
                Ok(Err(result)) => return result,
                Err(error) => match error.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    // Only a runtime that ends cancels it, and this future is on one of them.
                    Err(_) => match std::future::pending::<Infallible>().await {},
                },
            }
        }
    }

    /// Moves all connections, as the governor does.
    #[cfg(test)]
    pub(crate) fn want(&self, place: Place) {
        self.shared.want(place);
    }
}

impl Stay {
    /// Stays for ever.
    pub(crate) const FOR_EVER: Self = Self { placement: None };

    /// Tells that so many requests were served.
    pub(crate) fn count(&self, requests: u64) {
        if let Some((placement, _)) = &self.placement
            && 0 < requests
        {
            placement.shared.requests.fetch_add(requests, Ordering::Relaxed);
        }
    }

    /// Whether the task belongs elsewhere by now.
    pub(crate) fn is_over(&self) -> bool {
        self.placement.as_ref().is_some_and(|(placement, place)| placement.wanted() != *place)
    }
}

impl Shared {
    fn want(&self, place: Place) {
        self.is_crowd.store(u8::from(place == Place::Crowd), Ordering::Relaxed);
    }

    fn idle_until(&self, now: u64) -> (u64, u64) {
        let sum =
            |list: &Mutex<Vec<Arc<IdleTime>>>| list.lock().iter().map(|idle| idle.until(now)).sum();
        (sum(&self.solo_idle), sum(&self.crowd_idle))
    }

    fn govern(&self, threads: u64) {
        let mut governor = Governor::new();
        let begun = now();
        let mut looked = (begun, self.idle_until(begun));
        loop {
            let mut has_ended = self.has_ended.lock();
            if !*has_ended {
                self.ended.wait_for(&mut has_ended, LOOK_INTERVAL);
            }
            if *has_ended {
                return;
            }
            drop(has_ended);
            let at = now();
            let elapsed = at.saturating_sub(looked.0);
            if Duration::from_nanos(elapsed) < LOOK_INTERVAL / 2 {
                continue; // Woken without a reason.
            }
            let idle = self.idle_until(at);
            let thousandths = |now: u64, before: u64| now.saturating_sub(before) * 1000 / elapsed;
            let solo_spare = thousandths(idle.0, looked.1.0);
            let crowd_spare = thousandths(idle.1, looked.1.1);
            looked = (at, idle);
            let busy = (1 + threads).saturating_mul(1000).saturating_sub(solo_spare + crowd_spare);
            let served = self.requests.swap(0, Ordering::Relaxed);
            let rate = served.saturating_mul(1_000_000) / (elapsed / 1000);
            let elapsed = Duration::from_nanos(elapsed);
            let look = Look { elapsed, solo_spare, busy, rate };
            let before = governor.course;
            self.want(governor.judge(look));
            if std::mem::discriminant(&before) != std::mem::discriminant(&governor.course) {
                debug!(?look, ?before, now = ?governor.course, "connections live elsewhere");
            }
        }
    }
}

/// What the governor sees between two looks.
#[derive(Clone, Copy, Debug)]
struct Look {
    elapsed: Duration,
    /// How long the solo had nothing to do, in thousandths of the time.
    solo_spare: u64,
    /// How long all threads together were busy, in thousandths of the time.
    busy: u64,
    /// Requests a second.
    rate: u64,
}

/// Decides where connections shall live.
#[derive(Debug)]
struct Governor {
    course: Course,
    /// How long the next trial that is in vain is remembered.
    patience: Duration,
    /// For how long yet.
    hold: Duration,
}

/// Where connections are, and why.
#[derive(Clone, Copy, Debug)]
enum Course {
    /// On the solo.
    Solo,
    /// On the crowd, to see whether it does more: what the solo did, the looks so far, and the
    /// requests a second that they have seen in all.
    Trial { solo_rate: u64, looks: u64, rates: u64 },
    /// On the crowd; how long one thread would have been enough.
    Crowd { calm: Duration },
}

impl Governor {
    const fn new() -> Self {
        Self { course: Course::Solo, patience: PATIENCE_MIN, hold: Duration::ZERO }
    }

    /// Takes note of a look; tells where connections belong.
    fn judge(&mut self, look: Look) -> Place {
        self.hold = self.hold.saturating_sub(look.elapsed);
        self.course = match self.course {
            Course::Solo if SPARE_MIN <= look.solo_spare => {
                if self.hold.is_zero() {
                    self.patience = PATIENCE_MIN;
                }
                Course::Solo
            }
            Course::Solo if self.hold.is_zero() => {
                Course::Trial { solo_rate: look.rate, looks: 0, rates: 0 }
            }
            Course::Solo => Course::Solo,
            // Connections move in the first look.
            Course::Trial { solo_rate, looks: 0, .. } => {
                Course::Trial { solo_rate, looks: 1, rates: 0 }
            }
            Course::Trial { solo_rate, looks, rates } if looks <= TRIAL_LOOKS => {
                let rates = rates.saturating_add(look.rate);
                Course::Trial { solo_rate, looks: looks + 1, rates }
            }
            Course::Trial { solo_rate, rates, .. } => {
                let is_worth_it = solo_rate.saturating_mul(GAIN_MIN) <= rates / TRIAL_LOOKS * 1000;
                if is_worth_it {
                    self.patience = PATIENCE_MIN;
                    Course::Crowd { calm: Duration::ZERO }
                } else {
                    self.hold = self.patience;
                    self.patience = PATIENCE_MAX.min(self.patience * 2);
                    Course::Solo
                }
            }
            Course::Crowd { calm } if look.busy < BUSY_MAX => {
                let calm = calm.saturating_add(look.elapsed);
                if PATIENCE_MIN <= calm { Course::Solo } else { Course::Crowd { calm } }
            }
            Course::Crowd { .. } => Course::Crowd { calm: Duration::ZERO },
        };
        match self.course {
            Course::Solo => Place::Solo,
            Course::Trial { .. } | Course::Crowd { .. } => Place::Crowd,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a look is like with so much to spare on the solo and such a rate.
    fn look(solo_spare: u64, busy: u64, rate: u64) -> Look {
        Look { elapsed: Duration::from_millis(100), solo_spare, busy, rate }
    }

    fn judged(governor: &mut Governor, looks: &[Look]) -> Place {
        looks.iter().map(|look| governor.judge(*look)).last().expect("some looks")
    }

    /// A governor whose solo has handed over to the crowd, which then did so much.
    fn tried(governor: &mut Governor, rate: u64) -> Place {
        assert_eq!(governor.judge(look(29, 971, 1000)), Place::Crowd);
        for _ in 0..=TRIAL_LOOKS {
            assert_eq!(governor.judge(look(1000, 1500, rate)), Place::Crowd);
        }
        governor.judge(look(1000, 1500, rate))
    }

    #[test]
    fn a_solo_with_time_to_spare_keeps_its_connections() {
        let mut governor = Governor::new();
        assert_eq!(judged(&mut governor, &[look(1000, 0, 0), look(30, 970, 900)]), Place::Solo);
    }

    #[test]
    fn a_crowd_that_does_more_keeps_them() {
        let mut governor = Governor::new();
        assert_eq!(tried(&mut governor, 1100), Place::Crowd);
        assert_eq!(judged(&mut governor, &[look(1000, 1300, 1); 50]), Place::Crowd);
    }

    #[test]
    fn a_crowd_that_does_no_more_gives_them_back_and_is_tried_later_and_later() {
        let mut governor = Governor::new();
        assert_eq!(tried(&mut governor, 1099), Place::Solo);
        assert_eq!(judged(&mut governor, &[look(0, 1000, 1000); 9]), Place::Solo);
        assert_eq!(tried(&mut governor, 1099), Place::Solo);
        assert_eq!(judged(&mut governor, &[look(0, 1000, 1000); 19]), Place::Solo);
        assert_eq!(judged(&mut governor, &[look(500, 500, 500)]), Place::Solo, "less to do");
        assert_eq!(tried(&mut governor, 1099), Place::Solo);
        assert_eq!(judged(&mut governor, &[look(0, 1000, 1000); 9]), Place::Solo);
        assert_eq!(
            governor.judge(look(0, 1000, 1000)),
            Place::Crowd,
            "as soon as in the beginning"
        );
    }

    #[test]
    fn connections_move_back_once_one_thread_was_enough_for_a_while() {
        let mut governor = Governor::new();
        tried(&mut governor, 2000);
        assert_eq!(judged(&mut governor, &[look(1000, 1299, 1); 9]), Place::Crowd);
        assert_eq!(judged(&mut governor, &[look(1000, 1300, 1)]), Place::Crowd, "busy in between");
        assert_eq!(judged(&mut governor, &[look(1000, 1000, 1); 9]), Place::Crowd);
        assert_eq!(judged(&mut governor, &[look(1000, 1000, 1)]), Place::Solo);
    }

    #[test]
    fn a_thread_that_waits_is_idle_and_one_that_works_is_not() {
        let idle = IdleTime::default();
        assert_eq!(idle.until(u64::MAX), 0);
        idle.begin();
        let since = idle.since.load(Ordering::Relaxed);
        assert_eq!(idle.until(since + 5), 5);
        idle.end();
        let before = idle.until(u64::MAX);
        assert_eq!(idle.until(0), before, "it does not grow while the thread works");
        idle.end();
        assert_eq!(idle.until(u64::MAX), before, "an end without a beginning adds nothing");
    }

    #[test]
    fn tasks_run_where_they_are_placed_and_the_threads_end() {
        let workers = Workers::start().expect("threads");
        let Some(placement) = workers.placement() else { return };
        assert_eq!(placement.wanted(), Place::Solo);
        workers.block_on(async {
            let mover = placement.clone();
            let places = placement.follow(Vec::new(), move |mut places, stay| {
                let mover = mover.clone();
                async move {
                    places.push(Handle::current().id());
                    if places.len() == 2 {
                        return Err(places);
                    }
                    assert!(!stay.is_over());
                    mover.want(Place::Crowd);
                    assert!(stay.is_over());
                    Ok(places)
                }
            });
            let crowd = Handle::current().id();
            let places = places.await;
            assert!(places[0] != crowd && places[1] == crowd, "{places:?} and {crowd}");
        });
        assert_eq!(placement.wanted(), Place::Crowd);
    }
}
