//! Breaks ties between members that want to lead, by letting each step aside for a random time.
//!
//! The library draws the time after which a member misses its leader once, when it starts. Two
//! survivors that drew nearly the same stand for election together, each with its own vote, and
//! would do so again and again. A member that stands here does not stand again before a pause that
//! is drawn anew each time; meanwhile it may still win, and it still votes for others.
//!
//! Ensures: of two members with a tie, one soon stands alone. Who leads is decided by the library;
//! this changes only when a member stands.

use std::time::Duration;

use openraft::ServerState;
use tokio::time::sleep;

use super::raft::Raft;

/// Steps aside after each time that the member has stood, until the member stops.
pub(super) async fn step_aside(raft: Raft, longest: Duration) {
    let mut metrics = raft.metrics();
    loop {
        let stands = metrics.wait_for(|now| now.state == ServerState::Candidate).await;
        let Ok(term) = stands.map(|now| now.current_term) else { return };
        raft.runtime_config().elect(false);
        sleep(part_of(longest)).await;
        raft.runtime_config().elect(true);
        let stands_again = metrics
            .wait_for(|now| now.state != ServerState::Candidate || now.current_term != term)
            .await;
        if stands_again.is_err() {
            return;
        }
    }
}

/// A random part of a time; half of it if the machine has no chance to offer.
fn part_of(whole: Duration) -> Duration {
    let mut bytes = [0; 2];
    let drawn = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    let part = drawn.map_or(u16::MAX / 2, |_| u16::from_le_bytes(bytes));
    whole * u32::from(part) / u32::from(u16::MAX)
}
