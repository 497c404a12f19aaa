//! The embedded store: the suite, and what is particular to its members.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use antecede_control::{
    ConfigurationStore, Outage, StoreError,
    embedded::{
        EmbeddedStore, FileError, GroupId, Member, MemberOptions, MembershipError, OpenError, Port,
        Start, StoreOptions, Timing,
    },
};
use antecede_model::ids::NodeId;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{
    conformance::{self, Cluster, DEADLINE, eventually, key, put, read},
    group::{GROUP, Group, TIMING, member_options, node, port, steady},
};

macro_rules! suite {
    ($($name:ident),* $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                conformance::$name::<Group>().await;
            }
        )*
    };
}

suite! {
    swaps_of_many_writers_form_one_chain,
    a_read_is_never_older_than_an_acknowledged_swap,
    a_leader_that_is_cut_off_answers_nothing,
    a_watch_shows_the_last_value_across_the_loss_of_the_leader,
    beats_are_heard_and_older_boots_are_refused,
    without_a_majority_there_is_no_progress_and_no_damage,
    everything_is_there_after_all_members_restarted,
    no_acknowledged_swap_is_lost_while_leaders_are_killed,
}

fn options(group: &Group, place: usize, port: Port, start: Start) -> MemberOptions {
    member_options(node(place), group.path(place), port, start)
}

/// Nobody waits for a leader that says nothing until it is given up: the next one may lead by then,
/// and leases end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_a_silent_leader_asks_the_others_meanwhile() {
    let group = Group::start(3).await;
    put(&*group.store(0), &key("k"), 1).await;
    let old = group.leader().await;
    let members = group.members(0..3);
    let (request_limit, attempt_limit) = (DEADLINE, 10 * DEADLINE);
    let options =
        StoreOptions { group: GROUP, node: node(99), members, request_limit, attempt_limit };
    let store = EmbeddedStore::new(options);
    assert_eq!(read(&store, &key("k")).await.unwrap().revision.0, 1);
    group.cut(old);
    let read = store.read(&key("k")).await.unwrap();
    assert_eq!(read.unwrap().revision.0, 1);
    assert_ne!(group.leader().await, old);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_member_is_enough_and_keeps_its_state() {
    let mut group = Group::start(1).await;
    let first = put(&*group.store(0), &key("k"), 1).await;
    group.stop(0).await;
    group.restart(0).await;
    let second = put(&group.outsider(), &key("k"), 2).await;
    assert_eq!(first.next(), second);
    assert_eq!(read(&*group.store(0), &key("k")).await.unwrap().revision, second);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn survivors_that_are_equally_patient_still_elect_one() {
    // All begin at once, draw the same time, and hear each other late.
    let silence_min = Duration::from_millis(800);
    let silence_max = silence_min + Duration::from_millis(1);
    let timing = Timing { silence_min, silence_max, ..TIMING };
    let mut group = Group::slow(timing, Duration::from_millis(40));
    group.found(3).await;
    for tag in 0..2 {
        let leader = group.leader().await;
        group.stop(leader).await;
        put(&group.outsider(), &key("k"), tag).await;
        group.restart(leader).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_grows_to_three_and_shrinks_again() {
    let mut group = Group::start(1).await;
    put(&*group.store(0), &key("k"), 1).await;
    let store = group.outsider();
    for place in 1..3 {
        group.add_place().await;
        group.open(place, Start::Join).await;
        let address = group.places[place].address.clone();
        let members = store.add_member(node(place), &address).await.unwrap();
        assert!(members[&node(place)].votes);
        let again = store.add_member(node(place), &address).await;
        assert_eq!(again, Err(MembershipError::AlreadyMember { node: node(place), address }));
    }

    // The first member may go now, dead or alive.
    group.stop(0).await;
    put(&store, &key("k"), 2).await;
    let members = eventually("removal", || async { store.remove_member(node(0)).await.ok() }).await;
    assert_eq!(members.keys().copied().collect::<Vec<_>>(), [node(1), node(2)]);
    let missing = store.remove_member(node(0)).await.unwrap_err();
    assert_eq!(missing.to_string(), "node 1.1 is no member; the members are 1.2, 1.3");
    store.remove_member(node(2)).await.unwrap();
    let last = store.remove_member(node(1)).await;
    assert_eq!(last, Err(MembershipError::LastMember { node: node(1) }));
    assert_eq!(put(&store, &key("k"), 3).await.0, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_is_replaced_by_one_that_gets_a_snapshot() {
    let mut group = Group::start(3).await;
    let store = group.outsider();
    put(&store, &key("k"), 1).await;
    // More entries than the log keeps.
    let mut writers = Vec::new();
    for writer in 0..16 {
        let store = group.store(writer % 3);
        writers.push(tokio::spawn(async move {
            for tag in 0..100 {
                put(&*store, &key(&format!("writer {writer}")), tag).await;
            }
        }));
    }
    for writer in writers {
        writer.await.unwrap();
    }
    group.add_place().await;
    group.open(3, Start::Join).await;
    group.stop(1).await;
    let address = group.places[3].address.clone();
    let members = store.replace_member(node(1), node(3), &address).await.unwrap();
    assert_eq!(members.keys().copied().collect::<Vec<_>>(), [node(0), node(2), node(3)]);

    // It counts: with it and one other there is a majority.
    group.stop(0).await;
    assert_eq!(put(&store, &key("k"), 2).await.0, 2);
    for writer in 0..16 {
        let stored = read(&group.beside(3), &key(&format!("writer {writer}"))).await;
        assert_eq!(stored.unwrap().revision.0, 100);
    }
    group.stop(3).await;
    group.open(3, Start::Resume).await;
    let stored = read(&group.beside(3), &key("writer 7")).await;
    assert_eq!(stored.unwrap().revision.0, 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_cannot_be_reached_never_counts() {
    let mut group = Group::start(1).await;
    put(&*group.store(0), &key("k"), 1).await;
    group.add_place().await;
    let address = group.places[1].address.clone();
    let refused = group.outsider().add_member(node(1), &address).await.unwrap_err();
    let MembershipError::NotCaughtUp { node: named, .. } = &refused else { panic!("{refused}") };
    assert_eq!(*named, node(1));
    let members = group.outsider().members().await.unwrap();
    assert_eq!(members.keys().copied().collect::<Vec<_>>(), [node(0)]);
    assert_eq!(put(&*group.store(0), &key("k"), 2).await.0, 2);
}

#[tokio::test]
async fn a_member_begins_only_with_the_file_that_is_its_own() {
    let mut group = Group::start(1).await;
    let members = group.members(0..1);
    let again = options(&group, 0, port().await, Start::Create { members: members.clone() });
    let error = Member::open(again).await.unwrap_err();
    assert!(matches!(error, OpenError::File { source: FileError::Exists { .. }, .. }), "{error}");

    let missing = options(&group, 1, port().await, Start::Resume);
    let error = Member::open(missing).await.unwrap_err();
    assert!(matches!(error, OpenError::File { source: FileError::Missing { .. }, .. }), "{error}");

    let stranger = options(&group, 1, port().await, Start::Create { members });
    let error = Member::open(stranger).await.unwrap_err();
    assert!(matches!(error, OpenError::NotAFounder { .. }), "{error}");

    group.stop(0).await;
    let mut other = options(&group, 1, port().await, Start::Resume);
    other.path = group.path(0);
    let error = Member::open(other).await.unwrap_err();
    assert!(matches!(error, OpenError::File { source: FileError::Foreign { .. }, .. }), "{error}");

    let mut other = options(&group, 0, port().await, Start::Resume);
    other.group = GroupId { datacenter: None, ..GROUP };
    let error = Member::open(other).await.unwrap_err();
    assert!(matches!(error, OpenError::File { source: FileError::Foreign { .. }, .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_of_two_groups_answer_at_one_address_each_for_its_own() {
    let mut group = Group::start(1).await;
    put(&*group.store(0), &key("k"), 1).await;
    let first = group.places[0].member.as_ref().unwrap();
    let address = first.local_address().to_string();
    let all = GroupId { datacenter: None, ..GROUP };
    let members = BTreeMap::from([(node(0), address.clone())]);
    let second = Member::open(MemberOptions {
        group: all,
        node: node(0),
        path: group.path(1),
        port: first.port().clone(),
        start: Start::Create { members: members.clone() },
        timing: TIMING,
        clock: steady,
    });
    let second = second.await.unwrap();
    assert_eq!(second.local_address().to_string(), address);
    let limit = Duration::from_secs(1);
    let options = StoreOptions {
        group: all,
        node: node(1),
        members,
        request_limit: limit,
        attempt_limit: limit,
    };
    let store = EmbeddedStore::new(options);
    assert_eq!(put(&store, &key("k"), 7).await.0, 1, "what the other group has is not here");
    assert_eq!(put(&group.outsider(), &key("k"), 2).await.0, 2);
    second.stop().await;
    let refused = store.read(&key("k")).await.unwrap_err().to_string();
    assert!(refused.contains("the group of datacenter 1"), "{refused}");
    assert_eq!(put(&group.outsider(), &key("k"), 3).await.0, 3, "the first goes on");
    group.stop(0).await;
}

#[tokio::test]
async fn nonsense_ends_a_connection_and_nothing_else() {
    let mut group = Group::start(1).await;
    put(&*group.store(0), &key("k"), 1).await;
    let address = group.places[0].member.as_ref().unwrap().local_address();
    let hello = |to: u16| {
        let mut body = b"antecede\x02".to_vec();
        for number in [9_u16, to] {
            body.extend_from_slice(&NodeId { number, ..node(0) }.to_bits().to_le_bytes());
        }
        body.extend_from_slice(&[7; 16]);
        body.extend_from_slice(&[1, 1, 0]);
        frame(&body)
    };
    let other = frame(&[&[2], node(0).to_bits().to_le_bytes().as_slice()].concat());
    for (greeting, wanted, nonsense) in [
        (vec![], vec![], b"GET / HTTP/1.1\r\nHost: example\r\n\r\n".to_vec()),
        (vec![], vec![], vec![0xff; 64]),
        (vec![], vec![], frame(b"antecede\x02short")),
        (hello(1), frame(&[0]), vec![0xff; 64]),
        (hello(1), frame(&[0]), frame(&[200, 1, 2, 3])),
        (hello(1), frame(&[0]), frame(&[0; 40])),
        (hello(1), frame(&[0]), [1, 0, 0, 0, 1, 2, 3, 4, 8].to_vec()),
        (hello(2), other, vec![]),
    ] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(&greeting).await.unwrap();
        let mut answer = vec![0; wanted.len()];
        timeout(DEADLINE, stream.read_exact(&mut answer)).await.unwrap().unwrap();
        assert_eq!(answer, wanted);
        stream.write_all(&nonsense).await.unwrap();
        // Closed with bytes unread, a connection ends with an error here.
        let end = timeout(DEADLINE, stream.read(&mut [0; 1])).await.unwrap();
        assert!(matches!(end, Ok(0) | Err(_)), "{nonsense:?} was answered: {end:?}");
    }
    assert_eq!(put(&group.outsider(), &key("k"), 2).await.0, 2);
    group.stop(0).await;
}

fn frame(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap().to_le_bytes();
    [&length, crc32c::crc32c(body).to_le_bytes().as_slice(), body].concat()
}

#[tokio::test]
async fn who_cannot_be_asked_is_named_with_the_reason() {
    let mut group = Group::start(1).await;
    let store = group.outsider();
    put(&store, &key("k"), 1).await;
    group.stop(0).await;
    let error = store.compare_and_swap(&key("k"), None, Arc::from(*b"x")).await.unwrap_err();
    let StoreError::Unavailable { outage: Outage::Unreachable { last, .. } } = &error else {
        panic!("{error}")
    };
    assert!(last.starts_with(&group.places[0].address), "{last}");
}

#[tokio::test]
async fn what_is_too_large_is_refused_before_it_is_sent() {
    let group = Group::start(1).await;
    let large: Arc<[u8]> = Arc::from(vec![0; 1024 * 1024 + 1]);
    let refused = group.outsider().compare_and_swap(&key("k"), None, large).await;
    assert!(matches!(refused, Err(StoreError::TooLarge { limit: 0x10_0000, .. })), "{refused:?}");
    let largest: Arc<[u8]> = Arc::from(vec![7; 1024 * 1024]);
    let store = group.store(0);
    eventually("the largest value", || async {
        store.compare_and_swap(&key("k"), None, Arc::clone(&largest)).await.ok()
    })
    .await;
    let stored = read(&group.outsider(), &key("k")).await.unwrap();
    assert_eq!(stored.value, largest);
}

#[test]
fn times_that_do_not_fit_are_refused() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let group = Group::empty(TIMING);
        let members = BTreeMap::from([(node(0), "127.0.0.1:1".to_owned())]);
        let mut options = options(&group, 0, port().await, Start::Create { members });
        options.timing.silence_min = Duration::from_millis(10);
        let error = Member::open(options).await.unwrap_err();
        assert!(matches!(error, OpenError::Timing { .. }), "{error}");
        assert!(!group.path(0).exists(), "nothing is left behind");
    });
}
