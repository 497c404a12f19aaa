//! Asks the machine for the time, in the one place of this crate that may.
//!
//! Only `crate::SharedLog` needs a time: for the interval between syncs and for their lag.

use std::fmt;
use std::time::{Duration, Instant};

/// A steady time: never goes back; its zero means nothing.
pub trait Clock: fmt::Debug + Send + Sync {
    /// The time since the clock's zero.
    fn now(&self) -> Duration;
}

/// The machine's steady clock, counted from when this value was made.
#[derive(Clone, Copy, Debug)]
pub struct MachineClock {
    zero: Instant,
}

impl MachineClock {
    /// Starts counting.
    #[must_use]
    pub fn start() -> Self {
        Self { zero: machine_now() }
    }
}

impl Clock for MachineClock {
    fn now(&self) -> Duration {
        machine_now().saturating_duration_since(self.zero)
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place here that asks the machine")]
fn machine_now() -> Instant {
    Instant::now()
}
