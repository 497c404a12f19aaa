//! The store on etcd: the suite, and what is particular to it.

use std::{
    collections::BTreeMap,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use antecede_control::{
    Beat, ConfigurationStore, Outage, Revision, StoreError,
    embedded::{EmbeddedStore, Member, MemberOptions, Start, StoreOptions},
    etcd::{ConnectOptions, Credentials, Etcd, EtcdOptions, EtcdStore, OptionsError, Tls},
};
use antecede_model::ids::Boot;
use rustix::process::Signal;
use tokio::{net::TcpListener, time::timeout};

use crate::{
    conformance::{self, Cluster, DEADLINE, data_node, eventually, key, put},
    etcd_group::{EtcdGroup, PREFIX, can_run, connect_options, free_port},
    group::{GROUP, TIMING, node, port, steady},
};

macro_rules! suite {
    ($($name:ident),* $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                if can_run() {
                    conformance::$name::<EtcdGroup>().await;
                }
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

/// The number that counts all changes of etcd.
async fn changes(group: &EtcdGroup) -> u64 {
    let answer = group.call(0, "/v3/kv/range", "{\"key\":\"AA==\"}").await.unwrap();
    let rest = answer.split_once("\"revision\":\"").unwrap().1;
    rest.split_once('"').unwrap().0.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beats_in_quiet_times_write_nothing_to_etcd() {
    if !can_run() {
        return;
    }
    let group = EtcdGroup::start(1).await;
    let store = group.store(0);
    let beat = |number| Beat { node: data_node(number), boot: Boot(1), facts: Arc::from(*b"f") };
    for number in 10..20 {
        eventually("a first beat", || async { store.heartbeat(beat(number)).await.ok() }).await;
    }
    let before = changes(&group).await;
    for _ in 0..20 {
        for number in 10..20 {
            store.heartbeat(beat(number)).await.unwrap();
        }
    }
    assert_eq!(store.beats().await.unwrap().nodes.len(), 10);
    assert_eq!(changes(&group).await, before);
    store.heartbeat(Beat { boot: Boot(2), ..beat(10) }).await.unwrap();
    assert_eq!(changes(&group).await, before + 1, "a new boot is written");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_told_of_beats_was_looked_up_before_etcd_was_asked() {
    if !can_run() {
        return;
    }
    let group = EtcdGroup::start(1).await;
    let store = group.store(0);
    let beat = Beat { node: data_node(10), boot: Boot(1), facts: Arc::from(*b"f") };
    eventually("a beat", || async { store.heartbeat(beat.clone()).await.ok() }).await;
    store.heartbeat(beat.clone()).await.unwrap();
    let span = Duration::from_secs(1);
    group.signal(0, Signal::STOP);
    let begun = steady().0;
    let asking = tokio::spawn(async move { store.beats().await });
    eventually("a while", || async { (span < steady().0 - begun).then_some(()) }).await;
    group.signal(0, Signal::CONT);
    let beats = asking.await.unwrap().unwrap();
    let ago = beats.nodes[&beat.node].ago;
    assert!(ago < span, "another leader may have heard it since: {ago:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_goes_on_although_what_it_missed_was_compacted_away() {
    if !can_run() {
        return;
    }
    let group = EtcdGroup::start(1).await;
    let store = group.store(0);
    put(&*store, &key("k"), 1).await;
    let outsider = group.outsider();
    let mut watch = outsider.watch(&key("k"));
    let first = timeout(DEADLINE, watch.next()).await.unwrap().unwrap();
    assert_eq!(first.revision, Revision(1));
    group.cut_outsider();
    for tag in 2..6 {
        put(&*store, &key("k"), tag).await;
    }
    let body = format!("{{\"revision\":\"{}\",\"physical\":true}}", changes(&group).await);
    group.call(0, "/v3/kv/compaction", &body).await.unwrap();
    group.heal();
    let last = timeout(DEADLINE, watch.next()).await.unwrap().unwrap();
    assert_eq!(last.revision, Revision(5));
    put(&*store, &key("k"), 6).await;
    let next = timeout(DEADLINE, watch.next()).await.unwrap().unwrap();
    assert_eq!(next.revision, Revision(6));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_cluster_than_the_one_that_was_seen_before_is_refused() {
    if !can_run() {
        return;
    }
    let group = EtcdGroup::start(1).await;
    let store = EtcdStore::new(group.options_with(group.connect_options()));
    put(&store, &key("k"), 1).await;
    let cluster = store.etcd().cluster().unwrap();
    let known = ConnectOptions { cluster: Some(cluster), ..group.connect_options() };
    let again = EtcdStore::new(group.options_with(known));
    assert!(again.read(&key("k")).await.unwrap().is_some());
    let other = ConnectOptions { cluster: Some(cluster ^ 1), ..group.connect_options() };
    let stranger = EtcdStore::new(group.options_with(other));
    for refused in [
        stranger.read(&key("k")).await.unwrap_err(),
        stranger.compare_and_swap(&key("new"), None, Arc::from(*b"x")).await.unwrap_err(),
    ] {
        let text = refused.to_string();
        assert!(matches!(refused, StoreError::Unavailable { .. }), "{text}");
        assert!(text.contains(&format!("is of the cluster {cluster:x}")), "{text}");
    }
    assert_eq!(store.read(&key("new")).await, Ok(None), "nothing was written there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_etcd_that_asks_for_a_name_and_a_password_gets_them() {
    if !can_run() {
        return;
    }
    let group = EtcdGroup::start(1).await;
    for (path, body) in [
        ("/v3/auth/user/add", "{\"name\":\"root\",\"password\":\"sesame\"}"),
        ("/v3/auth/role/add", "{\"name\":\"root\"}"),
        ("/v3/auth/user/grant", "{\"user\":\"root\",\"role\":\"root\"}"),
        ("/v3/auth/enable", "{}"),
    ] {
        assert!(group.call(0, path, body).await.is_some(), "{path}");
    }
    let store = |password: Option<&str>| {
        let credentials = password
            .map(|password| Credentials { user: "root".to_owned(), password: password.to_owned() });
        EtcdStore::new(
            group.options_with(ConnectOptions { credentials, ..group.connect_options() }),
        )
    };
    let known = store(Some("sesame"));
    assert_eq!(put(&known, &key("k"), 1).await, Revision(1));
    let mut watch = known.watch(&key("k"));
    assert!(timeout(DEADLINE, watch.next()).await.unwrap().is_some());
    for (password, said) in [(None, "user name is empty"), (Some("guess"), "invalid user ID or")] {
        let refused = store(password).read(&key("k")).await.unwrap_err().to_string();
        assert!(refused.contains(said), "{refused}");
        assert!(!refused.contains("guess"), "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_cannot_be_asked_is_named_with_the_reason() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = nobody.local_addr().unwrap().to_string();
    drop(nobody);
    let mut options = connect_options(vec![address.clone()], None);
    options.request_limit = Duration::from_millis(300);
    let etcd = Etcd::new(options, PREFIX, GROUP, data_node(1)).unwrap();
    let store = EtcdStore::new(EtcdOptions {
        etcd,
        node: data_node(1),
        listeners: BTreeMap::new(),
        request_limit: Duration::from_millis(300),
        attempt_limit: Duration::from_millis(300),
    });
    let read = store.read(&key("k")).await.unwrap_err();
    let swapped = store.compare_and_swap(&key("k"), None, Arc::from(*b"x")).await.unwrap_err();
    let beats = store.beats().await.unwrap_err();
    for error in [read, swapped, beats] {
        let StoreError::Unavailable { outage: Outage::Unreachable { last, .. } } = &error else {
            panic!("{error}")
        };
        assert!(last.starts_with(&address) && last.contains("refused"), "{last}");
    }
    let error = Etcd::new(connect_options(Vec::new(), None), PREFIX, GROUP, data_node(1));
    assert!(matches!(error, Err(OptionsError::NoEndpoint)));
    let error =
        Etcd::new(connect_options(vec!["a b".to_owned()], None), PREFIX, GROUP, data_node(1));
    assert!(error.unwrap_err().to_string().contains("\"a b\" is no address of etcd"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_agree_by_something_else_are_told_so() {
    if !can_run() {
        return;
    }
    let group = EtcdGroup::start(1).await;
    let members = BTreeMap::from([(node(0), group.listener_address(0))]);
    let store = EmbeddedStore::new(StoreOptions {
        group: GROUP,
        node: data_node(9),
        members,
        request_limit: Duration::from_millis(500),
        attempt_limit: Duration::from_millis(500),
    });
    let error = store.read(&key("k")).await.unwrap_err().to_string();
    let said = "node 1.1 has control.store = \"etcd\", node 1.9 has \"embedded\"";
    assert!(error.contains(said), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_leads_beside_others_that_could_decide_among_themselves() {
    if !can_run() {
        return;
    }
    let mut group = EtcdGroup::start(3).await;
    let leader = group.leader().await;
    let store = group.store(leader);
    eventually("beats", || async { store.beats().await.ok() }).await;
    let folder = tempfile::tempdir().unwrap();
    let members: BTreeMap<_, _> =
        (0..3).map(|place| (node(place), group.listener_address(place))).collect();
    let mut strays = Vec::new();
    for place in (0..3).filter(|place| *place != leader) {
        let options = MemberOptions {
            group: GROUP,
            node: node(place),
            path: folder.path().join(place.to_string()),
            port: port().await,
            start: Start::Create { members: members.clone() },
            timing: TIMING,
            clock: steady,
        };
        let stray = Member::open(options).await.unwrap();
        group.replace_listener(place, stray.local_address());
        strays.push(stray);
        if strays.len() == 1 {
            assert!(store.beats().await.is_ok(), "one of three decides nothing");
        }
    }
    eventually("it leads no more", || async { store.beats().await.err() }).await;
    for stray in strays {
        stray.stop().await;
    }
    eventually("it leads again", || async { store.beats().await.ok() }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_to_etcd_are_encrypted_if_asked_for() {
    if !can_run() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let certificates = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/certificates");
    let file = |name: &str| certificates.join(name);
    let (client, peer) = (free_port().await, free_port().await);
    let _alone = Alone(
        Command::new("etcd")
            .args(["--client-cert-auth", "--logger", "zap", "--data-dir"])
            .arg(folder.path())
            .arg("--trusted-ca-file")
            .arg(file("authority.pem"))
            .arg("--cert-file")
            .arg(file("etcd.pem"))
            .arg("--key-file")
            .arg(file("etcd.key"))
            .args(["--listen-client-urls", &format!("https://{client}")])
            .args(["--advertise-client-urls", &format!("https://{client}")])
            .args(["--listen-peer-urls", &format!("http://{peer}")])
            .args(["--initial-advertise-peer-urls", &format!("http://{peer}")])
            .args(["--initial-cluster", &format!("default=http://{peer}")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
    );
    let store = |tls: Option<Tls>| {
        let options = ConnectOptions { tls, ..connect_options(vec![client.to_string()], None) };
        let etcd = Etcd::new(options, PREFIX, GROUP, data_node(1))?;
        let limit = Duration::from_secs(2);
        Ok::<_, OptionsError>(EtcdStore::new(EtcdOptions {
            etcd,
            node: data_node(1),
            listeners: BTreeMap::new(),
            request_limit: limit,
            attempt_limit: limit,
        }))
    };
    let identity = Some((file("node.pem"), file("node.key")));
    let tls = |authority: &str| Tls { authority: file(authority), identity: identity.clone() };
    assert!(store(Some(tls("none.pem"))).unwrap_err().to_string().contains("none.pem"));
    let encrypted = store(Some(tls("authority.pem"))).unwrap();
    assert_eq!(put(&encrypted, &key("k"), 1).await, Revision(1));
    let nameless = Tls { identity: None, ..tls("authority.pem") };
    for (refused, said) in [
        (None, "127.0.0.1"),
        (Some(nameless), "127.0.0.1"),
        (Some(tls("node.pem")), "invalid peer certificate"),
    ] {
        let error = store(refused).unwrap().read(&key("k")).await.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
        assert!(error.to_string().contains(said), "{error}");
    }
}

/// A process that ends with its test.
struct Alone(Child);

impl Drop for Alone {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
