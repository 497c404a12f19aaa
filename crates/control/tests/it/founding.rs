//! How a group begins, and members that have lost their files.

use std::sync::Arc;

use antecede_control::{
    ConfigurationStore, Outage, StoreError,
    embedded::{BeginOptions, EmbeddedStore, FileError, Member, Port, Start, Waiting, Way, begin},
};
use tokio::{sync::watch, task::JoinHandle, time::timeout};

use crate::{
    conformance::{Cluster, DEADLINE, eventually, key, put, read},
    group::{Group, TIMING, member_options, node, port},
};

/// A member that may have to wait before it begins, and is opened then.
struct Beginning {
    place: usize,
    port: Port,
    waits: watch::Receiver<Option<Waiting>>,
    task: JoinHandle<Result<(Start, Member), FileError>>,
}

impl Beginning {
    async fn at(group: &Group, place: usize, way: Way) -> Self {
        Self::with(place, group.begin_options(place, way).await)
    }

    fn with(place: usize, options: BeginOptions) -> Self {
        let (said, waits) = watch::channel(None);
        let port = options.port.clone();
        let on_wait = move |waiting| {
            said.send_replace(Some(waiting));
        };
        let task = tokio::spawn(async move {
            let (node, path, port) = (options.node, options.path.clone(), options.port.clone());
            let start = begin(options, on_wait).await?;
            let options = member_options(node, path, port, start.clone());
            Ok((start, Member::open(options).await.unwrap()))
        });
        Self { place, port, waits, task }
    }

    /// Waits until it has found out several times that it cannot begin, and says why not.
    async fn waits(&mut self) -> Waiting {
        for _ in 0..5 {
            timeout(DEADLINE, self.waits.changed()).await.unwrap().expect("it waits");
        }
        self.waits.borrow().clone().unwrap()
    }

    /// Waits until it has begun; how.
    async fn end(self, group: &mut Group) -> Start {
        let ended = timeout(DEADLINE, self.task).await.expect("it begins");
        let (start, member) = ended.unwrap().unwrap();
        group.settle(self.place, member);
        start
    }
}

/// A group whose three founders began together.
async fn three() -> Group {
    let mut group = Group::empty(TIMING);
    let mut founders = Vec::new();
    for place in 0..3 {
        group.add_place().await;
        assert_eq!(group.places.len(), place + 1);
    }
    for place in 0..3 {
        founders.push(Beginning::at(&group, place, Way::Founds).await);
    }
    for founder in founders {
        assert_eq!(founder.end(&mut group).await, Start::Resume);
    }
    put(&group.outsider(), &key("k"), 1).await;
    group
}

async fn lose_file(group: &mut Group, place: usize) {
    group.stop(place).await;
    std::fs::remove_file(group.path(place)).unwrap();
}

/// Nobody decides anything.
async fn is_without_majority(store: &EmbeddedStore) {
    let answer = store.compare_and_swap(&key("other"), None, Arc::from(*b"x")).await;
    assert!(answer.is_err(), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_begins_when_all_its_founders_are_there() {
    let mut group = Group::empty(TIMING);
    for _ in 0..3 {
        group.add_place().await;
    }
    let mut first = Beginning::at(&group, 0, Way::Founds).await;
    let mut second = Beginning::at(&group, 1, Way::Founds).await;
    let Waiting::Founders(_, absent) = second.waits().await else { panic!("it has begun") };
    assert_eq!(absent.iter().map(|(node, ..)| *node).collect::<Vec<_>>(), [node(2)]);
    let text = first.waits().await.to_string();
    assert!(text.contains("begins once all its founders are there; node 1.3 at 127."), "{text}");
    assert!(!group.path(0).exists(), "it may not be the first start");
    let asked = group.outsider().read(&key("k")).await.unwrap_err();
    let StoreError::Unavailable { outage } = asked else { panic!("{asked}") };
    assert!(matches!(outage, Outage::NotBegun { .. } | Outage::Unreachable { .. }), "{outage}");

    let third = Beginning::at(&group, 2, Way::Founds).await;
    for founder in [first, second, third] {
        assert_eq!(founder.end(&mut group).await, Start::Resume);
    }
    put(&group.outsider(), &key("k"), 1).await;
    // Whoever has begun goes on without asking.
    group.stop(2).await;
    group.stop(1).await;
    let again = Beginning::at(&group, 1, Way::Founds).await;
    assert_eq!(again.end(&mut group).await, Start::Resume);
    put(&group.outsider(), &key("k"), 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_founder_that_is_ready_and_ends_goes_on_from_there() {
    let mut group = Group::empty(TIMING);
    for _ in 0..3 {
        group.add_place().await;
    }
    let first = Beginning::at(&group, 0, Way::Founds).await;
    let second = Beginning::at(&group, 1, Way::Founds).await;
    // The third says that it is there, and makes no file.
    eventually("files of the first two", || async {
        let options = group.begin_options(2, Way::Founds).await;
        let third = Beginning::with(2, BeginOptions { had_file: true, ..options });
        timeout(DEADLINE, third.task).await.unwrap().unwrap().unwrap_err();
        (group.path(0).exists() && group.path(1).exists()).then_some(())
    })
    .await;
    for ended in [first, second] {
        assert!(!ended.task.is_finished(), "the third is not ready");
        ended.task.abort();
        drop(ended.task.await);
        ended.port.close().await;
    }
    let early = member_options(node(0), group.path(0), port().await, Start::Resume);
    let error = Member::open(early).await.unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("had not begun"), "{source}");
    let mut founders = Vec::new();
    for place in 0..3 {
        founders.push(Beginning::at(&group, place, Way::Founds).await);
    }
    for founder in founders {
        assert_eq!(founder.end(&mut group).await, Start::Resume);
    }
    put(&group.outsider(), &key("k"), 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_founder_that_lost_its_file_decides_nothing_with_those_that_know_less() {
    let mut group = three().await;
    // The third misses what the first two decide; then one of these is away, the other one empty.
    group.cut(2);
    let leads = eventually("a leader", || async {
        let leader = group.leader().await;
        (leader != 2).then_some(leader)
    })
    .await;
    let decided = put(&group.outsider(), &key("k"), 2).await;
    let (away, empty) = (leads, 1 - leads);
    group.stop(away).await;
    lose_file(&mut group, empty).await;
    group.heal();
    let mut returning = Beginning::at(&group, empty, Way::Founds).await;
    let waits = returning.waits().await;
    assert!(matches!(waits, Waiting::ToLeave(..)), "{waits}");
    is_without_majority(&group.outsider()).await;
    assert!(!group.path(empty).exists());

    group.open(away, Start::Resume).await;
    assert_eq!(returning.end(&mut group).await, Start::Join);
    let address = group.places[empty].address.clone();
    let store = group.outsider();
    eventually("its return", || async { store.add_member(node(empty), &address).await.ok() }).await;
    let stored = read(&store, &key("k")).await.unwrap();
    assert_eq!(stored.revision, decided, "what was decided holds");
    group.stop(2).await;
    put(&store, &key("k"), 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_later_member_that_lost_its_file_waits_for_the_group() {
    let mut group = three().await;
    let store = group.outsider();
    let place = group.add_place().await;
    let joining = Beginning::at(&group, place, Way::Joins).await;
    assert_eq!(joining.end(&mut group).await, Start::Join);
    let address = group.places[place].address.clone();
    let replaced = store.replace_member(node(2), node(place), &address).await.unwrap();
    assert!(replaced[&node(place)].votes && !replaced.contains_key(&node(2)));
    group.stop(2).await;
    eventually("a leader", || async { store.members().await.ok() }).await;
    lose_file(&mut group, place).await;
    group.stop(1).await;
    let mut returning = Beginning::at(&group, place, Way::Joins).await;
    let waits = returning.waits().await;
    assert!(matches!(waits, Waiting::ToJoin(..)), "{waits}");
    is_without_majority(&group.outsider()).await;
    group.open(1, Start::Resume).await;
    assert_eq!(returning.end(&mut group).await, Start::Join);
    let store = group.outsider();
    let members = eventually("the members", || async { store.members().await.ok() }).await;
    assert!(!members.contains_key(&node(place)), "it has left: {members:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_may_let_an_empty_founder_begin() {
    let mut group = three().await;
    for place in [1, 2] {
        lose_file(&mut group, place).await;
    }
    let mut second = Beginning::at(&group, 1, Way::Founds).await;
    let waits = second.waits().await;
    assert!(matches!(waits, Waiting::ToLeave(..)), "{waits}");
    second.task.abort();
    drop(second.task.await);
    let second = Beginning::at(&group, 1, Way::FoundsAtOnce).await;
    let start = second.end(&mut group).await;
    assert!(matches!(start, Start::Create { .. }), "{start:?}");
    let store = group.outsider();
    assert_eq!(eventually("k", || async { read(&store, &key("k")).await }).await.revision.0, 1);
    let third = Beginning::at(&group, 2, Way::Founds).await;
    assert_eq!(third.end(&mut group).await, Start::Join, "there is a majority to ask");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_known_to_have_been_there_is_never_made_anew() {
    let mut group = Group::empty(TIMING);
    for _ in 0..3 {
        group.add_place().await;
    }
    let options = group.begin_options(0, Way::Founds).await;
    let first = Beginning::with(0, BeginOptions { had_file: true, ..options });
    let mut second = Beginning::at(&group, 1, Way::Founds).await;
    let _third = Beginning::at(&group, 2, Way::Founds).await;
    let error = timeout(DEADLINE, first.task).await.unwrap().unwrap().unwrap_err();
    assert!(matches!(error, FileError::Missing { .. }), "{error}");
    let waits = second.waits().await;
    assert!(matches!(waits, Waiting::Founders(..)), "{waits}");
}
