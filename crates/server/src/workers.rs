//! Runs connections on one thread while that is enough, and on all when it is not.
//!
//! A runtime with a thread for each core wakes a second thread whenever two tasks are ready. For
//! turns of a few microseconds that costs more than it gives: a call to the system, a switch on a
//! core that the clients could use, lines of the cache that move. So connections live on a runtime
//! with one thread, the `solo`, until it has almost no time to spare; then they move to the
//! `crowd`, which has a thread for each core and runs everything else anyway. They move back when
//! one thread would have been enough for `patience`. When that proves wrong, the next try waits
//! twice as long.
//!
//! A governor looks every `LOOK_INTERVAL` how long the threads had nothing to do. A connection
//! moves by itself, between two turns, with its socket; one that is silent stays where it is.
//!
//! Limits: work that comes of a sudden runs on one thread for a look or two.

use std::cell::OnceCell;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::runtime::{Builder, Handle, Runtime};

use crate::clock;

/// How often the governor looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// Of the solo's time, in thousandths: with less to spare the crowd takes over.
const SPARE_MIN: u64 = 30;
/// Of one thread's time, in thousandths: with less to do for all threads one may be enough. More
/// than one thread's time, because some of what the crowd does comes of its being many.
const BUSY_MAX: u64 = 1_300;
/// How long that must have been so.
const PATIENCE_MIN: Duration = Duration::from_secs(1);
/// The longest that this grows to.
const PATIENCE_MAX: Duration = Duration::from_secs(60);
/// If the crowd is wanted again this soon, the solo was not enough.
const REGRET: Duration = Duration::from_millis(500);

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

#[derive(Debug, Default)]
struct Shared {
    /// Whether connections belong to the crowd: 0 or 1.
    is_crowd: AtomicU8,
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

impl Placement {
    /// Where connections shall live now.
    pub(crate) fn wanted(&self) -> Place {
        if self.shared.is_crowd.load(Ordering::Relaxed) == 0 { Place::Solo } else { Place::Crowd }
    }

    /// Runs a task there.
    pub(crate) fn spawn<F>(&self, place: Place, task: F) -> tokio::task::JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        match place {
            Place::Solo => self.solo.spawn(task),
            Place::Crowd => self.crowd.spawn(task),
        }
    }

    /// Moves all connections, as the governor does.
    #[cfg(test)]
    pub(crate) fn want(&self, place: Place) {
        self.shared.want(place);
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
            self.want(governor.judge(Duration::from_nanos(elapsed), solo_spare, busy));
        }
    }
}

/// Decides where connections shall live.
#[derive(Debug)]
struct Governor {
    place: Place,
    /// How long one thread would have been enough.
    calm: Duration,
    /// How long that has to be.
    patience: Duration,
    /// Since connections moved back to the solo, if they did.
    since_back: Option<Duration>,
}

impl Governor {
    const fn new() -> Self {
        Self { place: Place::Solo, calm: Duration::ZERO, patience: PATIENCE_MIN, since_back: None }
    }

    /// Takes note of how long the solo had nothing to do and how long all threads together were
    /// busy, in thousandths of the time since it was last told; tells where connections belong.
    fn judge(&mut self, elapsed: Duration, solo_spare: u64, busy: u64) -> Place {
        if let Some(since) = &mut self.since_back {
            *since = since.saturating_add(elapsed);
        }
        match self.place {
            Place::Solo if solo_spare < SPARE_MIN => {
                self.place = Place::Crowd;
                self.calm = Duration::ZERO;
                self.patience = match self.since_back.take() {
                    Some(since) if since < REGRET => PATIENCE_MAX.min(self.patience * 2),
                    Some(_) | None => PATIENCE_MIN,
                };
            }
            Place::Crowd if busy < BUSY_MAX => {
                self.calm = self.calm.saturating_add(elapsed);
                if self.patience <= self.calm {
                    self.place = Place::Solo;
                    self.since_back = Some(Duration::ZERO);
                }
            }
            Place::Crowd => self.calm = Duration::ZERO,
            Place::Solo => {}
        }
        self.place
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(governor: &mut Governor, looks: &[(u64, u64)]) -> Place {
        let judge = |(spare, busy): &(u64, u64)| governor.judge(LOOK_INTERVAL, *spare, *busy);
        looks.iter().map(judge).last().expect("some looks")
    }

    #[test]
    fn a_solo_without_a_pause_hands_over_to_the_crowd() {
        let mut governor = Governor::new();
        assert_eq!(judged(&mut governor, &[(1000, 0), (30, 970)]), Place::Solo);
        assert_eq!(judged(&mut governor, &[(29, 971)]), Place::Crowd);
    }

    #[test]
    fn connections_move_back_once_one_thread_was_enough_for_a_while() {
        let mut governor = Governor::new();
        assert_eq!(judged(&mut governor, &[(0, 1000)]), Place::Crowd);
        assert_eq!(judged(&mut governor, &[(1000, 1299); 9]), Place::Crowd);
        assert_eq!(judged(&mut governor, &[(1000, 1300)]), Place::Crowd, "busy in between");
        assert_eq!(judged(&mut governor, &[(1000, 1000); 9]), Place::Crowd);
        assert_eq!(judged(&mut governor, &[(1000, 1000)]), Place::Solo);
        assert_eq!(judged(&mut governor, &[(100, 900); 50]), Place::Solo);
    }

    #[test]
    fn moving_back_in_vain_makes_the_next_try_later() {
        let mut governor = Governor::new();
        judged(&mut governor, &[(0, 1000)]);
        assert_eq!(judged(&mut governor, &[(1000, 1100); 10]), Place::Solo);
        assert_eq!(judged(&mut governor, &[(0, 1000)]), Place::Crowd);
        assert_eq!(judged(&mut governor, &[(1000, 1100); 19]), Place::Crowd);
        assert_eq!(judged(&mut governor, &[(1000, 1100)]), Place::Solo);
        assert_eq!(judged(&mut governor, &[(500, 500); 10]), Place::Solo, "this time it was right");
        assert_eq!(judged(&mut governor, &[(0, 1000)]), Place::Crowd);
        let back = judged(&mut governor, &[(1000, 1100); 10]);
        assert_eq!(back, Place::Solo, "as patient as in the beginning");
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
            let runtime = async { Handle::current().id() };
            let solo = placement.spawn(Place::Solo, runtime).await.expect("it does not fail");
            let crowd = placement.spawn(Place::Crowd, async { Handle::current().id() });
            let crowd = crowd.await.expect("it does not fail");
            assert_eq!(crowd, Handle::current().id());
            assert_ne!(solo, crowd);
        });
        placement.want(Place::Crowd);
        assert_eq!(placement.wanted(), Place::Crowd);
    }
}
