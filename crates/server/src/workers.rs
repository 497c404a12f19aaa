//! Runs tasks on as many threads as they need, and no more.
//!
//! A runtime with a thread for each core wakes a second thread whenever two tasks are ready. For
//! short tasks that costs more than it gives: a call to the system, a switch on a core that the
//! clients could use, and lines of the cache that move. So all threads but one rest at first. A
//! governor looks every `LOOK_INTERVAL` how long the active ones had nothing to do: if almost
//! never, it doubles them; if one of them could be spared for `patience`, it lets one rest. When
//! that proves wrong, the next try waits twice as long.
//!
//! A thread rests inside of a task that blocks: the runtime counts it as busy, so it neither wakes
//! it nor waits for it, and others take what stands in its queue.
//!
//! Ensures: at least one thread is active; all are when the threads rest for nothing.
//! Limits: work that comes of a sudden runs on too few threads for a look or two.

use std::cell::OnceCell;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::runtime::{Builder, Handle, Runtime};

use crate::clock;

/// How often the governor looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// Of the active threads' time, in thousandths: with less to spare more threads are wanted.
const SPARE_MIN: u64 = 30;
/// Of one thread's time, in thousandths: what a thread more than needed may still have to do.
const SURPLUS_BUSY_MAX: u64 = 400;
/// How long a thread must have been a surplus.
const PATIENCE_MIN: Duration = Duration::from_secs(1);
/// The longest that this grows to.
const PATIENCE_MAX: Duration = Duration::from_secs(60);
/// A thread that is wanted again this soon was not a surplus.
const REGRET: Duration = Duration::from_millis(500);

/// A runtime whose threads are active as far as there is work.
#[derive(Debug)]
pub struct Workers {
    runtime: Option<Runtime>,
    shared: Arc<Shared>,
    governor: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    threads: usize,
    resting: Mutex<Resting>,
    changed: Condvar,
    idle: Mutex<Vec<Arc<IdleTime>>>,
}

/// Which threads rest.
#[derive(Debug, Default)]
struct Resting {
    /// How many do.
    count: usize,
    /// How many may.
    allowed: usize,
    has_ended: bool,
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
    /// Starts as many threads as there are cores; one is active.
    ///
    /// # Errors
    /// When the system gives no threads.
    pub fn start() -> io::Result<Self> {
        let threads = std::thread::available_parallelism()?.get();
        let shared = Arc::new(Shared {
            threads,
            resting: Mutex::default(),
            changed: Condvar::new(),
            idle: Mutex::default(),
        });
        let (parking, unparking) = (Arc::clone(&shared), Arc::clone(&shared));
        let runtime = Builder::new_multi_thread()
            .worker_threads(threads)
            .enable_all()
            .on_thread_park(move || parking.of_this_thread(IdleTime::begin))
            .on_thread_unpark(move || unparking.of_this_thread(IdleTime::end))
            .build()?;
        let governed = Arc::clone(&shared);
        let handle = runtime.handle().clone();
        let governor = if 1 < threads {
            let govern = move || governed.govern(&handle);
            Some(std::thread::Builder::new().name("governor".to_owned()).spawn(govern)?)
        } else {
            None
        };
        Ok(Self { runtime: Some(runtime), shared, governor })
    }

    /// Runs a future to its end; its tasks run on the threads.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.runtime.as_ref().expect("it is there until the end").block_on(future)
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.shared.resting.lock().has_ended = true;
        self.shared.changed.notify_all();
        if let Some(governor) = self.governor.take() {
            // It ends at once; if it has failed, so have the threads that it let rest.
            drop(governor.join());
        }
        drop(self.runtime.take());
    }
}

impl Shared {
    fn of_this_thread(&self, tell: impl FnOnce(&IdleTime)) {
        IDLE.with(|idle| {
            tell(idle.get_or_init(|| {
                let idle = Arc::new(IdleTime::default());
                self.idle.lock().push(Arc::clone(&idle));
                idle
            }));
        });
    }

    fn idle_until(&self, now: u64) -> u64 {
        self.idle.lock().iter().map(|idle| idle.until(now)).sum()
    }

    /// Lets the calling thread rest while that many may.
    fn rest(&self) {
        let mut resting = self.resting.lock();
        resting.count += 1;
        while resting.count <= resting.allowed && !resting.has_ended {
            self.changed.wait(&mut resting);
        }
        resting.count -= 1;
    }

    fn govern(self: Arc<Self>, handle: &Handle) {
        let mut governor = Governor::new(self.threads);
        self.let_rest(handle, governor.threads - governor.active);
        let mut looked = (now(), self.idle_until(now()));
        loop {
            let mut resting = self.resting.lock();
            if !resting.has_ended {
                self.changed.wait_for(&mut resting, LOOK_INTERVAL);
            }
            if resting.has_ended {
                return;
            }
            drop(resting);
            let at = now();
            let idle = self.idle_until(at);
            let elapsed = at.saturating_sub(looked.0);
            if Duration::from_nanos(elapsed) < LOOK_INTERVAL / 2 {
                continue; // Woken without a reason.
            }
            let spare = idle.saturating_sub(looked.1).saturating_mul(1000) / elapsed;
            looked = (at, idle);
            let active = governor.judge(Duration::from_nanos(elapsed), spare);
            self.let_rest(handle, governor.threads - active);
        }
    }

    /// Lets this many threads rest, and no more.
    fn let_rest(self: &Arc<Self>, handle: &Handle, wanted: usize) {
        let mut resting = self.resting.lock();
        let before = std::mem::replace(&mut resting.allowed, wanted);
        drop(resting);
        self.changed.notify_all();
        for _ in before..wanted {
            let shared = Arc::clone(self);
            drop(handle.spawn(async move { shared.rest() }));
        }
    }
}

/// Decides how many threads shall be active.
#[derive(Debug)]
struct Governor {
    threads: usize,
    active: usize,
    /// How long one thread has been a surplus.
    calm: Duration,
    /// How long it has to be.
    patience: Duration,
    /// Since a thread was let rest; `None` if more became active after that.
    since_spared: Option<Duration>,
}

impl Governor {
    const fn new(threads: usize) -> Self {
        Self {
            threads,
            active: 1,
            calm: Duration::ZERO,
            patience: PATIENCE_MIN,
            since_spared: None,
        }
    }

    /// Takes note of how long all active threads together had nothing to do, in thousandths of the
    /// time since it was last told; tells how many shall be active.
    fn judge(&mut self, elapsed: Duration, spare: u64) -> usize {
        if let Some(since) = &mut self.since_spared {
            *since = since.saturating_add(elapsed);
        }
        let active = self.active as u64;
        let busy = (active * 1000).saturating_sub(spare);
        if spare < SPARE_MIN * active {
            self.calm = Duration::ZERO;
            if self.active < self.threads {
                self.activate();
            }
        } else if busy < (active - 1) * (1000 - SPARE_MIN) + SURPLUS_BUSY_MAX && 1 < self.active {
            self.calm = self.calm.saturating_add(elapsed);
            if self.patience <= self.calm {
                self.calm = Duration::ZERO;
                self.active -= 1;
                self.since_spared = Some(Duration::ZERO);
            }
        } else {
            self.calm = Duration::ZERO;
        }
        self.active
    }

    fn activate(&mut self) {
        self.active = self.threads.min(self.active * 2);
        self.patience = match self.since_spared.take() {
            Some(since) if since < REGRET => PATIENCE_MAX.min(self.patience * 2),
            Some(_) | None => PATIENCE_MIN,
        };
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// What a test waits for at most.
    const DEADLINE: Duration = Duration::from_secs(30);

    fn judged(governor: &mut Governor, spares: &[u64]) -> usize {
        spares.iter().map(|spare| governor.judge(LOOK_INTERVAL, *spare)).last().expect("some")
    }

    #[test]
    fn threads_without_a_pause_are_doubled_up_to_all() {
        let mut governor = Governor::new(6);
        assert_eq!(judged(&mut governor, &[900]), 1);
        assert_eq!(judged(&mut governor, &[30]), 1);
        assert_eq!(judged(&mut governor, &[29]), 2);
        assert_eq!(judged(&mut governor, &[59]), 4);
        assert_eq!(judged(&mut governor, &[0]), 6);
        assert_eq!(judged(&mut governor, &[0]), 6);
    }

    #[test]
    fn a_thread_rests_once_it_was_a_surplus_for_long_enough() {
        let mut governor = Governor::new(2);
        assert_eq!(judged(&mut governor, &[0]), 2);
        assert_eq!(judged(&mut governor, &[1500; 9]), 2);
        assert_eq!(judged(&mut governor, &[500]), 2, "busy in between");
        assert_eq!(judged(&mut governor, &[1500; 9]), 2);
        assert_eq!(judged(&mut governor, &[1500]), 1);
        assert_eq!(judged(&mut governor, &[1000; 50]), 1, "the last one stays active");
    }

    #[test]
    fn letting_a_thread_rest_in_vain_makes_the_next_try_later() {
        let mut governor = Governor::new(2);
        judged(&mut governor, &[0]);
        assert_eq!(judged(&mut governor, &[900; 10]), 1);
        assert_eq!(judged(&mut governor, &[0]), 2);
        assert_eq!(judged(&mut governor, &[900; 19]), 2);
        assert_eq!(judged(&mut governor, &[900]), 1);
        assert_eq!(judged(&mut governor, &[500; 10]), 1, "this time it was right");
        assert_eq!(judged(&mut governor, &[0]), 2);
        assert_eq!(judged(&mut governor, &[900; 10]), 1, "as patient as in the beginning");
    }

    #[test]
    fn tasks_that_keep_one_thread_busy_are_joined_by_others() {
        if std::thread::available_parallelism().is_ok_and(|cores| cores.get() < 2) {
            return;
        }
        let workers = Workers::start().expect("threads");
        let (told, heard) = mpsc::sync_channel(1);
        let (answer, answered) = mpsc::sync_channel::<()>(1);
        // Ends only when another task runs beside it.
        let first = async move {
            told.send(()).expect("the test waits");
            answered.recv_timeout(DEADLINE).expect("another thread runs the second task");
        };
        let second = async move {
            answer.send(()).expect("the first task waits");
        };
        workers.block_on(async {
            let first = tokio::spawn(first);
            heard.recv_timeout(DEADLINE).expect("the first task runs");
            let second = tokio::spawn(second);
            first.await.expect("it does not fail");
            second.await.expect("it does not fail");
        });
    }

    #[test]
    fn threads_that_rest_end_with_the_rest() {
        let (told, heard) = mpsc::sync_channel(1);
        let ending = std::thread::spawn(move || {
            let workers = Workers::start().expect("threads");
            workers.block_on(async { tokio::spawn(async {}).await }).expect("it does not fail");
            drop(workers);
            told.send(()).expect("the test waits");
        });
        heard.recv_timeout(DEADLINE).expect("nothing is left to wait for");
        ending.join().expect("it does not fail");
    }
}
