//! Shows the anomaly that causal order prevents, on the demo's own nodes (COPS, section 1).
//!
//! Alice uploads a photo in one datacenter. Bob, in a second, sees it and comments on it. Carol, in
//! a third, watches. The link from Alice's datacenter to Carol's is slow, the others are fast, so
//! the comment certainly comes to Carol before the photo. Writes at the level `eventual` carry no
//! dependencies: Carol reads a comment on a photo that is not there. By default the comment waits at
//! Carol's datacenter for the photo that it depends on.
//!
//! Three ordinary client connections, real delays; the delays are put back afterwards.
//!
//! Ensures: shapes of links are as before when `show` returns, with an error too.

use std::time::Duration;

use antecede_server::{LinkShape, clock};
use anyhow::bail;
use serde::Serialize;

use super::world::World;
use crate::client::{Connection, connection::Answer};
use crate::table;

/// Who is where, by datacenter.
const ALICE: usize = 0;
const BOB: usize = 1;
const CAROL: usize = 2;

/// One way from Alice to Carol.
const SLOW: Duration = Duration::from_millis(1200);

/// One way everywhere else.
const FAST: Duration = Duration::from_millis(20);

/// How often Bob and Carol look.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// How long they look at most.
const LOOK_TIMEOUT: Duration = Duration::from_secs(15);

/// How long one request may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// What Carol saw.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Seen {
    /// The level of all three.
    pub(crate) level: &'static str,
    /// How often she looked.
    pub(crate) looks: u32,
    /// How often the comment was there and the photo was not.
    pub(crate) comments_without_photo: u32,
    /// When the comment was there first, in milliseconds after it was written.
    pub(crate) comment_after_ms: u64,
    /// When the photo was there first, in milliseconds after the comment was written.
    pub(crate) photo_after_ms: u64,
}

/// Both runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Photo {
    /// Without dependencies.
    pub(crate) eventual: Seen,
    /// By default.
    pub(crate) causal: Seen,
    /// Whether the first shows the anomaly and the second does not.
    pub(crate) as_expected: bool,
}

/// Runs the story twice.
///
/// # Errors
/// When a node does not answer, or something never arrives.
pub(crate) async fn show(world: &World) -> anyhow::Result<Photo> {
    let names = world.names();
    let shaper = world.shaper();
    let before = shaper.shapes();
    for from in &names {
        for to in names.iter().filter(|to| *to != from) {
            let is_slow = *from == names[ALICE] && *to == names[CAROL];
            let delay = if is_slow { SLOW } else { FAST };
            shaper.set(from, to, LinkShape { delay, jitter: Duration::ZERO, is_cut: false });
        }
    }
    let eventual = tell(world, "eventual").await;
    let causal = match &eventual {
        Ok(_) => tell(world, "linearizable").await,
        Err(_) => Err(anyhow::anyhow!("not begun")),
    };
    for (from, to, shape) in before {
        shaper.set(&from, &to, shape);
    }
    let (eventual, causal) = (eventual?, causal?);
    let as_expected = 0 < eventual.comments_without_photo && causal.comments_without_photo == 0;
    Ok(Photo { eventual, causal, as_expected })
}

/// Tells the story once, all three at one level.
async fn tell(world: &World, level: &'static str) -> anyhow::Result<Seen> {
    let mut people = Vec::new();
    for dc in [ALICE, BOB, CAROL] {
        let mut person = Connection::open(world.client_of(dc), None, CALL_TIMEOUT).await?;
        person.call(&[b"CAUSAL.LEVEL", level.as_bytes()]).await?;
        people.push(person);
    }
    let [alice, bob, carol] = &mut people[..] else { bail!("three people are needed") };
    // New keys each time, so that nothing of an earlier run is seen.
    let run = clock::wall().0;
    let (photo, comment) = (format!("photo:{run}"), format!("comment:{run}"));
    alice.call(&[b"SET", photo.as_bytes(), b"a photo of the sea"]).await?;
    let start = clock::steady().0;
    while !has(bob, &photo).await? {
        if LOOK_TIMEOUT < clock::steady().0.saturating_sub(start) {
            bail!("the photo did not come to Bob within 15s; are all nodes up? try \\dc");
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    bob.call(&[b"SET", comment.as_bytes(), b"what a sea!"]).await?;
    watch(carol, level, &photo, &comment).await
}

/// Carol looks until she has seen both.
async fn watch(
    carol: &mut Connection,
    level: &'static str,
    photo: &str,
    comment: &str,
) -> anyhow::Result<Seen> {
    let start = clock::steady().0;
    let (mut comment_at, mut photo_at) = (None, None);
    let (mut looks, mut comments_without_photo) = (0, 0);
    loop {
        // The comment first: if it is there, what it depends on must be there a moment later.
        let sees_comment = has(carol, comment).await?;
        let sees_photo = has(carol, photo).await?;
        let since = clock::steady().0.saturating_sub(start);
        let millis = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        looks += 1;
        comments_without_photo += u32::from(sees_comment && !sees_photo);
        if sees_comment {
            comment_at.get_or_insert(millis);
        }
        if sees_photo {
            photo_at.get_or_insert(millis);
        }
        if let (Some(comment_after_ms), Some(photo_after_ms)) = (comment_at, photo_at) {
            return Ok(Seen {
                level,
                looks,
                comments_without_photo,
                comment_after_ms,
                photo_after_ms,
            });
        }
        if LOOK_TIMEOUT < since {
            bail!("photo and comment did not both come to Carol within 15s; are all nodes up?");
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn has(person: &mut Connection, key: &str) -> anyhow::Result<bool> {
    Ok(person.call(&[b"GET", key.as_bytes()]).await? != Answer::Nil)
}

impl Photo {
    /// Both runs side by side.
    pub(crate) fn to_text(&self) -> String {
        let both = |what: &str, show: fn(&Seen) -> String| {
            [what.to_owned(), show(&self.eventual), show(&self.causal)]
        };
        let rows = [
            both("Carol sees the comment after", |seen| format!("{} ms", seen.comment_after_ms)),
            both("Carol sees the photo after", |seen| format!("{} ms", seen.photo_after_ms)),
            both("looks", |seen| seen.looks.to_string()),
            both("looks with a comment on nothing", |seen| seen.comments_without_photo.to_string()),
        ];
        let table = table::of(["", "eventual", "causal (default)"], rows, 1);
        let conclusion = if self.as_expected {
            "Without dependencies Carol read a comment on a photo that was not there.\n\
             By default the comment waited for the photo: nobody sees an effect before its cause."
        } else {
            "This is NOT what was to be shown; please report it with this table."
        };
        format!(
            "Alice (eu-west) uploads a photo, Bob (us-east) sees it and comments, Carol (ap-south) \
             watches.\nThe link from eu-west to ap-south takes {} ms, all others {} ms.\n\n\
             {table}\n\n{conclusion}",
            SLOW.as_millis(),
            FAST.as_millis(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::DemoOptions;

    #[tokio::test(flavor = "multi_thread")]
    async fn the_anomaly_shows_without_dependencies_and_not_with_them() {
        let options = DemoOptions {
            base_port: None,
            latency: "10ms".parse().unwrap(),
            jitter: Duration::ZERO,
            data: None,
            memory: true,
            listening_url_file: None,
            exit_after: None,
        };
        let world = World::start(&options, None).await.unwrap();
        world.await_ready(Duration::from_secs(60)).await.unwrap();
        let before = world.shaper().shapes();
        let photo = show(&world).await.unwrap();
        assert!(photo.as_expected, "{photo:?}");
        assert!(photo.causal.photo_after_ms <= photo.causal.comment_after_ms, "{photo:?}");
        assert_eq!(world.shaper().shapes(), before, "delays are put back");
        world.shutdown().await;
    }

    #[test]
    fn the_text_shows_both_runs_and_what_they_mean() {
        let eventual = Seen {
            level: "eventual",
            looks: 50,
            comments_without_photo: 48,
            comment_after_ms: 21,
            photo_after_ms: 1180,
        };
        let causal = Seen { level: "linearizable", comments_without_photo: 0, ..eventual };
        let photo = Photo { eventual, causal, as_expected: true };
        let text = photo.to_text();
        assert!(text.contains("48") && text.contains("1180 ms"), "{text}");
        assert!(text.contains("before its cause"), "{text}");
        let other = Photo { as_expected: false, ..photo };
        assert!(other.to_text().contains("NOT"), "the conclusion follows the result");
    }
}
