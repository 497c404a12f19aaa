//! Checks that a request with an id takes effect once, and is answered the same whenever it is.
//!
//! Values are never given twice by clients, so that a value that two committed writes have, or that
//! one has twice, was written by one request twice.

use antecede_model::{response::Response, version::Version};

use super::Failure;
use crate::workload::AskId;

/// Judges a value that a datacenter has committed; `known` is an earlier write that has it.
///
/// # Errors
/// When a request has taken effect twice.
pub fn at_commit(value: &[u8], version: Version, known: Option<Version>) -> Result<(), Failure> {
    let shown = String::from_utf8_lossy(value);
    if let Some(known) = known.filter(|known| *known != version) {
        let what = format!("{shown} was written by {known:?} and again by {version:?}");
        return Err(Failure::new("retries", what));
    }
    let mut parts: Vec<&str> = shown.split_terminator(';').collect();
    parts.sort_unstable();
    if parts.windows(2).any(|pair| pair.first() == pair.last()) {
        let what = format!("{shown}, written by {version:?}, has a part twice");
        return Err(Failure::new("retries", what));
    }
    Ok(())
}

/// Judges an answer to a request whose id was answered before.
///
/// # Errors
/// When it is another one.
pub fn at_answer(id: &AskId, first: &Response, now: &Response) -> Result<(), Failure> {
    if first == now {
        return Ok(());
    }
    let what = format!("{id:?} was answered {first:?}, and later {now:?}");
    Err(Failure::new("retries", what))
}

#[cfg(test)]
mod tests {
    use antecede_model::{clock::Timestamp, ids::DatacenterId};

    use super::*;

    fn version(stamp: u64) -> Version {
        Version { timestamp: Timestamp(stamp), origin: DatacenterId(1) }
    }

    #[test]
    fn a_value_of_two_writes_or_with_a_part_twice_is_refused() {
        assert_eq!(at_commit(b"1.2.3;1.2.4;", version(1), None), Ok(()));
        assert_eq!(at_commit(b"1.2.3;", version(1), Some(version(1))), Ok(()));
        assert!(at_commit(b"1.2.3;", version(2), Some(version(1))).is_err());
        assert!(at_commit(b"1.2.3;1.2.4;1.2.3;", version(1), None).is_err());
    }

    #[test]
    fn another_answer_to_the_same_id_is_refused() {
        let (place, client) = ("dc1".to_owned(), "c1".to_owned());
        let id = AskId { datacenter: DatacenterId(1), place, client, number: 5 };
        assert_eq!(at_answer(&id, &Response::Ok, &Response::Ok), Ok(()));
        assert!(at_answer(&id, &Response::Ok, &Response::Nil).is_err());
    }
}
