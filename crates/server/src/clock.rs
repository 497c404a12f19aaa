//! Asks the machine for the time, in the one place that may.
//!
//! The steady clock is CLOCK_BOOTTIME: it goes on while the machine sleeps, so that nothing that
//! counts on a peer's silence is fooled by a pause. Both clocks are read once for each batch.
//! The wall clock is asked for by way of the system's library, where tests can put another one.

use std::time::{Duration, SystemTime};

use antecede_model::clock::{Now, Steady, Wall};

/// Both clocks, read now.
#[must_use]
pub fn now() -> Now {
    Now { steady: steady(), wall: wall() }
}

/// The steady clock.
#[must_use]
pub fn steady() -> Steady {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    // It is at or after zero, and its nanoseconds are fewer than a second has.
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
    Steady(Duration::new(seconds, nanos))
}

/// The wall clock.
#[must_use]
pub fn wall() -> Wall {
    #[expect(clippy::disallowed_methods, reason = "the one place that asks for the time")]
    let now = SystemTime::now();
    let since_1970 = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Wall(u64::try_from(since_1970.as_micros()).unwrap_or(u64::MAX))
}

/// The steady clock as the log wants it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LogClock;

impl antecede_storage::Clock for LogClock {
    fn now(&self) -> Duration {
        steady().0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_steady_clock_does_not_go_back_and_the_wall_clock_is_after_2020() {
        let before = now();
        let after = now();
        assert!(before.steady <= after.steady);
        assert!(1_577_836_800_000 < after.wall.millis());
    }
}
