//! Waits for conditions, always with a deadline: the one place that knows the time and pauses.

use std::time::{Duration, Instant};

/// Between two looks at a condition.
const PAUSE: Duration = Duration::from_millis(10);

/// A moment after which nobody waits any longer.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    start: Instant,
    patience: Duration,
}

impl Deadline {
    /// So long from now.
    #[must_use]
    pub fn after(patience: Duration) -> Self {
        #[expect(clippy::disallowed_methods, reason = "the one place that asks for the time")]
        let start = Instant::now();
        Self { start, patience }
    }

    /// How long ago it was set.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// Whether it is over.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.patience <= self.elapsed()
    }
}

fn pause() {
    #[expect(clippy::disallowed_methods, reason = "the one place that pauses between looks")]
    std::thread::sleep(PAUSE);
}

/// Looks until there is something to see, for `patience` at most.
pub fn within<T>(patience: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Deadline::after(patience);
    loop {
        // A last look comes after the deadline, so that a slow machine gets one too.
        let is_last = deadline.is_over();
        if let Some(found) = look() {
            return Some(found);
        }
        if is_last {
            return None;
        }
        pause();
    }
}

/// Looks until there is something to see.
///
/// # Panics
/// After `patience`, with `what` did not come.
pub fn eventually<T>(what: &str, patience: Duration, look: impl FnMut() -> Option<T>) -> T {
    within(patience, look).unwrap_or_else(|| panic!("{what}: not within {patience:?}"))
}

/// Looks for the whole of `span`; how long it really was.
pub fn watch(span: Duration, mut look: impl FnMut()) -> Duration {
    let deadline = Deadline::after(span);
    while !deadline.is_over() {
        look();
        pause();
    }
    deadline.elapsed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_is_found_and_what_does_not_is_given_up() {
        let mut looks = 0;
        let found = within(Duration::from_secs(10), || {
            looks += 1;
            (looks == 3).then_some(looks)
        });
        assert_eq!(found, Some(3));
        assert_eq!(within(Duration::from_millis(1), || None::<()>), None);
    }

    #[test]
    #[should_panic(expected = "the moon falls: not within 1ms")]
    fn the_end_of_patience_names_what_was_waited_for() {
        eventually("the moon falls", Duration::from_millis(1), || None::<()>);
    }
}
