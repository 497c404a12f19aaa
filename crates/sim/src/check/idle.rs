//! Checks that a deployment in which nothing happens writes nothing.

use super::Failure;
use crate::moment::SECOND;

/// Virtual time in which the last ticks may still be written after everything has come to rest. A key
/// may expire just then; where nodes sync once a second the last promises for its hiding come up to six
/// seconds later.
pub const LAST_WRITES_WITHIN: u64 = 8 * SECOND;
/// Virtual time for which nothing may be written afterwards.
pub const IDLE_FOR: u64 = 4 * SECOND;

/// Judges how many records all logs together had at the beginning and at the end of the idle time.
///
/// # Errors
/// When there are more in the end.
pub fn check(before: u64, after: u64) -> Result<(), Failure> {
    if before == after {
        return Ok(());
    }
    let seconds = IDLE_FOR / SECOND;
    let what = format!("{} records were written in {seconds} idle seconds", after - before);
    Err(Failure::new("idle", what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_record_is_too_many() {
        assert!(check(5, 5).is_ok());
        assert!(check(5, 6).is_err());
    }
}
