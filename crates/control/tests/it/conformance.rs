//! What every store of configurations must do, whatever is behind it.
//!
//! Each function is one promise, checked against three members that can be stopped, restarted and
//! cut off. A value is a list of tags: who writes adds one to what was read, so the last value
//! tells the whole order of the swaps that took effect.

use std::{collections::BTreeSet, future::Future, sync::Arc, time::Duration};

use antecede_control::{
    Beat, Beats, ConfigurationStore, Revision, StoreError, StoreKey, Stored, Watch,
};
use antecede_model::ids::{Boot, DatacenterId, NodeId};
use tokio::time::{sleep, timeout};

/// How long anything may take that must happen.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// Pause between two looks at a condition.
const LOOK: Duration = Duration::from_millis(20);

/// The members under test.
pub(crate) trait Cluster: Sized {
    /// Starts `count` members.
    async fn start(count: usize) -> Self;
    /// A store of a node that is no member.
    fn client(&self) -> Arc<dyn ConfigurationStore>;
    /// A store of this member's node; of no use once the member was stopped.
    fn store(&self, member: usize) -> Arc<dyn ConfigurationStore>;
    /// The member that leads, as soon as one does that is not cut off.
    async fn leader(&self) -> usize;
    /// Stops a member.
    async fn stop(&mut self, member: usize);
    /// Starts a member again with what is on its disk.
    async fn restart(&mut self, member: usize);
    /// Lets nothing pass between this member and all others, without closing a connection.
    fn cut(&self, member: usize);
    /// Ends all cuts.
    fn heal(&self);
}

/// Waits until `look` finds something.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut look: impl FnMut() -> F,
) -> T {
    let looking = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            sleep(LOOK).await;
        }
    };
    timeout(DEADLINE, looking).await.unwrap_or_else(|_| panic!("{what}: not within {DEADLINE:?}"))
}

pub(crate) fn key(name: &str) -> StoreKey {
    StoreKey::new(name).unwrap()
}

pub(crate) fn data_node(number: u16) -> NodeId {
    NodeId { datacenter: DatacenterId(1), number }
}

fn revision_of(stored: Option<&Stored>) -> Option<Revision> {
    stored.map(|stored| stored.revision)
}

fn with_tag(stored: Option<&Stored>, tag: u64) -> Arc<[u8]> {
    let mut value = stored.map_or_else(Vec::new, |stored| stored.value.to_vec());
    value.extend_from_slice(&tag.to_be_bytes());
    Arc::from(value)
}

fn tags(stored: &Stored) -> Vec<u64> {
    let (chunks, rest) = stored.value.as_chunks::<8>();
    assert!(rest.is_empty(), "a value is a list of tags");
    chunks.iter().map(|chunk| u64::from_be_bytes(*chunk)).collect()
}

/// Reads, for as long as it takes.
pub(crate) async fn read(store: &dyn ConfigurationStore, key: &StoreKey) -> Option<Stored> {
    eventually("a read", || async { store.read(key).await.ok() }).await
}

/// Adds a tag to a key and says where it stands; tries until it is there.
pub(crate) async fn put(store: &dyn ConfigurationStore, key: &StoreKey, tag: u64) -> Revision {
    eventually("a swap", || async {
        let current = read(store, key).await;
        if let Some(stored) = &current
            && let Some(place) = tags(stored).iter().position(|found| *found == tag)
        {
            return Some(Revision(place as u64 + 1)); // It was done although it was unknown.
        }
        let swap = store.compare_and_swap(
            key,
            revision_of(current.as_ref()),
            with_tag(current.as_ref(), tag),
        );
        swap.await.ok()
    })
    .await
}

/// What a writer knows of its swaps.
#[derive(Debug, Default)]
struct Written {
    /// Those that were acknowledged, with their revision.
    done: Vec<(Revision, u64)>,
    /// Those that may have been done.
    unknown: BTreeSet<u64>,
}

/// Adds tags as long as there are some.
async fn write(
    store: Arc<dyn ConfigurationStore>,
    key: StoreKey,
    tags: impl Iterator<Item = u64>,
) -> Written {
    let mut written = Written::default();
    for tag in tags {
        loop {
            let current = read(&*store, &key).await;
            let expected = revision_of(current.as_ref());
            let value = with_tag(current.as_ref(), tag);
            match store.compare_and_swap(&key, expected, value).await {
                Ok(revision) => {
                    written.done.push((revision, tag));
                    break;
                }
                Err(StoreError::Conflict { .. } | StoreError::Unavailable { .. }) => {}
                Err(StoreError::Unknown { .. }) => {
                    written.unknown.insert(tag);
                    break;
                }
                Err(error) => panic!("a swap was refused: {error}"),
            }
        }
    }
    written
}

/// Whether the last value tells of exactly what was acknowledged, and of nothing else but what is
/// unknown.
fn check_order(last: &Stored, written: &[Written]) {
    let order = tags(last);
    assert_eq!(last.revision.0, order.len() as u64, "each swap adds one revision and one tag");
    let distinct: BTreeSet<u64> = order.iter().copied().collect();
    assert_eq!(distinct.len(), order.len(), "no swap took effect twice");
    let mut done_count = 0;
    let mut unknown: BTreeSet<u64> = BTreeSet::new();
    for writer in written {
        for (revision, tag) in &writer.done {
            let place = usize::try_from(revision.0).unwrap() - 1;
            assert_eq!(order.get(place), Some(tag), "{tag} was acknowledged as {revision}");
        }
        done_count += writer.done.len();
        unknown.extend(&writer.unknown);
    }
    let by_chance = order.iter().filter(|tag| unknown.contains(tag)).count();
    assert_eq!(order.len(), done_count + by_chance, "a swap took effect that was refused");
}

/// Swaps of eight writers at once take effect one after the other, each on what it has read.
pub(crate) async fn swaps_of_many_writers_form_one_chain<C: Cluster>() {
    let cluster = C::start(3).await;
    let key = key("chain");
    let mut writers = Vec::new();
    for writer in 0..8_u64 {
        let store = cluster.store(usize::try_from(writer).unwrap() % 3);
        let tags = (0..10).map(move |count| writer * 1000 + count);
        writers.push(tokio::spawn(write(store, key.clone(), tags)));
    }
    let mut written = Vec::new();
    for writer in writers {
        written.push(writer.await.unwrap());
    }
    let last = read(&*cluster.store(0), &key).await.unwrap();
    check_order(&last, &written);
    assert!(written.iter().all(|writer| !writer.done.is_empty()), "every writer came through");
}

/// A read through any member shows what was acknowledged through another one before.
pub(crate) async fn a_read_is_never_older_than_an_acknowledged_swap<C: Cluster>() {
    let cluster = C::start(3).await;
    let key = key("fresh");
    assert_eq!(read(&*cluster.store(0), &key).await, None);
    for turn in 0..20_usize {
        let revision = put(&*cluster.store(turn % 3), &key, turn as u64).await;
        for other in 1..3 {
            let seen = read(&*cluster.store((turn + other) % 3), &key).await;
            assert!(Some(revision) <= revision_of(seen.as_ref()), "{seen:?} after {revision}");
        }
    }
}

/// A leader that is cut off answers no read, no swap and no beat, and does no harm.
pub(crate) async fn a_leader_that_is_cut_off_answers_nothing<C: Cluster>() {
    let cluster = C::start(3).await;
    let key = key("cut");
    put(&*cluster.store(0), &key, 1).await;
    let old = cluster.leader().await;
    let beat = Beat { node: data_node(50), boot: Boot(1), facts: Arc::from(*b"facts") };
    let heard = || async { cluster.store(old).heartbeat(beat.clone()).await.ok() };
    eventually("a beat", heard).await;

    cluster.cut(old);
    let new = cluster.leader().await;
    assert_ne!(old, new);
    let newest = put(&*cluster.store(new), &key, 2).await;

    let alone = cluster.store(old);
    let (read_alone, swapped, beaten, beats) = tokio::join!(
        alone.read(&key),
        alone.compare_and_swap(&key, Some(Revision(1)), Arc::from(*b"lost    ")),
        alone.heartbeat(beat.clone()),
        alone.beats(),
    );
    assert!(matches!(read_alone, Err(StoreError::Unavailable { .. })), "{read_alone:?}");
    let is_refused =
        matches!(swapped, Err(StoreError::Unavailable { .. } | StoreError::Unknown { .. }));
    assert!(is_refused, "{swapped:?}");
    assert!(matches!(beaten, Err(StoreError::Unavailable { .. })), "{beaten:?}");
    assert!(matches!(beats, Err(StoreError::Unavailable { .. })), "{beats:?}");

    cluster.heal();
    let seen = read(&*alone, &key).await.unwrap();
    assert_eq!((seen.revision, tags(&seen)), (newest, vec![1, 2]));
}

/// A watch through every member shows the last value, also when the leader was lost between.
pub(crate) async fn a_watch_shows_the_last_value_across_the_loss_of_the_leader<C: Cluster>() {
    let mut cluster = C::start(3).await;
    let key = key("watched");
    put(&*cluster.store(0), &key, 1).await;
    let leader = cluster.leader().await;
    let others = [cluster.store((leader + 1) % 3), cluster.store((leader + 2) % 3)];
    let mut watches: Vec<(Watch, Option<Revision>)> = Vec::new();
    for store in [cluster.client(), cluster.client()].iter().chain(&others) {
        watches.push((store.watch(&key), None));
    }
    wait_for(&mut watches, Revision(1)).await;

    cluster.stop(leader).await;
    let other = cluster.store((leader + 1) % 3);
    for tag in 2..5 {
        put(&*other, &key, tag).await;
    }
    wait_for(&mut watches, Revision(4)).await;

    cluster.restart(leader).await;
    put(&*cluster.store(leader), &key, 5).await;
    wait_for(&mut watches, Revision(5)).await;
}

async fn wait_for(watches: &mut [(Watch, Option<Revision>)], wanted: Revision) {
    for (member, (watch, last)) in watches.iter_mut().enumerate() {
        while *last < Some(wanted) {
            let next = timeout(DEADLINE, watch.next()).await;
            let stored = next.unwrap_or_else(|_| panic!("watch {member} never showed {wanted}"));
            let revision = revision_of(stored.as_ref());
            assert!(*last < revision, "{revision:?} after {last:?}");
            *last = revision;
        }
    }
}

/// Beats are heard by the leader; an older boot is refused, also by a later leader, which begins
/// to listen anew.
pub(crate) async fn beats_are_heard_and_older_boots_are_refused<C: Cluster>() {
    let mut cluster = C::start(3).await;
    let node = data_node(50);
    let beat = |boot: u64| Beat { node, boot: Boot(boot), facts: Arc::from(boot.to_be_bytes()) };
    let store = cluster.store(0);
    for boot in [4, 5, 5] {
        eventually("a beat", || async { store.heartbeat(beat(boot)).await.ok() }).await;
    }
    check_refused(&*store, beat(4)).await;
    let all = beats(&*store).await;
    let seen = &all.nodes[&node];
    assert_eq!((seen.boot, &*seen.facts), (Boot(5), 5_u64.to_be_bytes().as_slice()));
    assert!(seen.ago <= all.since_leader, "nothing was heard before the leader listened");

    let patience = Duration::from_millis(500);
    let listened = eventually("the leader listens for a while", || async {
        let since = beats(&*store).await.since_leader;
        (patience < since).then_some(since)
    })
    .await;

    let leader = cluster.leader().await;
    cluster.stop(leader).await;
    let store = cluster.store((leader + 1) % 3);
    let all = beats(&*store).await;
    assert!(all.since_leader < listened, "a new leader begins to listen anew: {all:?}");
    assert!(all.nodes.is_empty(), "a new leader has heard nobody: {all:?}");
    check_refused(&*store, beat(4)).await;
    assert!(beats(&*store).await.nodes.is_empty(), "what is refused is not heard");
    eventually("a beat", || async { store.heartbeat(beat(6)).await.ok() }).await;
    assert_eq!(beats(&*store).await.nodes[&node].boot, Boot(6));
}

async fn beats(store: &dyn ConfigurationStore) -> Beats {
    eventually("beats", || async { store.beats().await.ok() }).await
}

async fn check_refused(store: &dyn ConfigurationStore, beat: Beat) {
    let refused = eventually("a refusal", || async {
        match store.heartbeat(beat.clone()).await {
            Err(StoreError::Unavailable { .. }) => None,
            Err(error) => Some(error),
            Ok(renewal) => panic!("an older boot was renewed: {renewal:?}"),
        }
    })
    .await;
    let StoreError::OlderBoot { node, offered, newest } = refused else { panic!("{refused}") };
    assert_eq!((node, offered), (beat.node, beat.boot));
    assert!(offered < newest);
}

/// Without a majority nothing is answered and nothing is lost; with it, everything goes on.
pub(crate) async fn without_a_majority_there_is_no_progress_and_no_damage<C: Cluster>() {
    let mut cluster = C::start(3).await;
    let key = key("minority");
    put(&*cluster.store(0), &key, 1).await;
    cluster.stop(1).await;
    cluster.stop(2).await;
    let store = cluster.store(0);
    let value = with_tag(read_tags(&[1]).as_ref(), 2);
    let swapped = store.compare_and_swap(&key, Some(Revision(1)), value).await;
    let is_unknown =
        matches!(swapped, Err(StoreError::Unavailable { .. } | StoreError::Unknown { .. }));
    assert!(is_unknown, "{swapped:?}");
    let answer = store.read(&key).await;
    assert!(matches!(answer, Err(StoreError::Unavailable { .. })), "{answer:?}");
    let beat = Beat { node: data_node(9), boot: Boot(1), facts: Arc::from(*b"") };
    let renewal = store.heartbeat(beat).await;
    assert!(matches!(renewal, Err(StoreError::Unavailable { .. })), "{renewal:?}");

    cluster.restart(1).await;
    let last = put(&*store, &key, 3).await;
    let seen = read(&*store, &key).await.unwrap();
    assert_eq!(seen.revision, last);
    assert!([vec![1, 3], vec![1, 2, 3]].contains(&tags(&seen)), "{seen:?}");
}

fn read_tags(list: &[u64]) -> Option<Stored> {
    let value = list.iter().flat_map(|tag| tag.to_be_bytes()).collect();
    Some(Stored { revision: Revision(list.len() as u64), value })
}

/// What was acknowledged is there after all members were stopped and started again.
pub(crate) async fn everything_is_there_after_all_members_restarted<C: Cluster>() {
    let mut cluster = C::start(3).await;
    let keys = ["a", "b", "c"].map(key);
    for (tag, key) in (1..).zip(&keys) {
        put(&*cluster.store(0), key, tag).await;
    }
    for _ in 0..2 {
        for member in 0..3 {
            cluster.stop(member).await;
        }
        for member in 0..3 {
            cluster.restart(member).await;
        }
        for (tag, key) in (1..).zip(&keys) {
            assert_eq!(read(&*cluster.store(1), key).await, read_tags(&[tag]));
        }
    }
}

/// What was acknowledged is in the last value, and in its place, however often leaders die.
pub(crate) async fn no_acknowledged_swap_is_lost_while_leaders_are_killed<C: Cluster>() {
    let mut cluster = C::start(3).await;
    let key = key("killed");
    let mut writers = Vec::new();
    let (stopping, stopped) = tokio::sync::watch::channel(false);
    for writer in 0..4_u64 {
        let stopped = stopped.clone();
        let tags = (0..10_000).take_while(move |_| !*stopped.borrow());
        let tags = tags.map(move |count| writer * 100_000 + count);
        writers.push(tokio::spawn(write(cluster.client(), key.clone(), tags)));
    }
    for _ in 0..4 {
        let before = read(&*cluster.client(), &key).await.map_or(0, |stored| stored.revision.0);
        let leader = cluster.leader().await;
        cluster.stop(leader).await;
        let other = cluster.store((leader + 1) % 3);
        eventually("swaps go on", || async {
            let now = read(&*other, &key).await.map_or(0, |stored| stored.revision.0);
            (before + 3 < now).then_some(())
        })
        .await;
        cluster.restart(leader).await;
    }
    stopping.send(true).unwrap();
    let mut written = Vec::new();
    for writer in writers {
        written.push(writer.await.unwrap());
    }
    // One more swap: what is unknown has taken effect before it, or never will.
    put(&*cluster.store(0), &key, u64::MAX).await;
    let last = read(&*cluster.store(1), &key).await.unwrap();
    written.push(Written { done: vec![(last.revision, u64::MAX)], unknown: BTreeSet::new() });
    check_order(&last, &written);
}
