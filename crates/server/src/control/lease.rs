//! Keeps this node's lease: says that it lives, and takes over what holds.
//!
//! A lease is counted from before the beat, and lasts half as long as it takes a manager to give a
//! silent node up. So whoever renews before the last lease has ended was heard before anybody could
//! have found it silent for too long. Whoever comes later may have been: a decision that gives its
//! place away may be on its way to the agreement. So it first writes the state that it has read
//! back, unchanged. That makes a new revision: a decision that was made from an older one can take
//! effect no more, and one from this revision rests on a look at beats after this one.
//!
//! A node that leaves has given its lease up, and takes none any more.
//!
//! Assumes: a manager reads the state before it looks at beats, and swaps only what it has read.

use std::sync::Arc;
use std::time::Duration;

use antecede_control::{Beat, StoreError};
use antecede_model::{clock::Steady, configuration::Datacenter, ids::Epoch};
use antecede_protocol::{
    machine::Lease,
    manager::{BEAT_EVERY, LEASE},
};
use tokio::runtime::Handle;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::{error, info, warn};

use super::{admission, agreement::Agreement, decoded};
use crate::clock;
use crate::fatal::{self, Fatal};
use crate::node::{Node, Work};

/// For how long a beat waits for what is measured at the replicas; past it, it tells again what was
/// measured last: replicas may be busy for longer than a lease lasts.
const MEASURE_LIMIT: Duration = Duration::from_millis(30);

/// What a node tells of its replicas, measured where their work is done: whoever looks at a replica
/// may wait for it, and the agreement's thread must not.
#[derive(Debug)]
struct Measured {
    workers: Handle,
    last: Option<Arc<[u8]>>,
    under_way: Option<JoinHandle<Arc<[u8]>>>,
}

impl Measured {
    /// Nothing is measured yet.
    const fn new(workers: Handle) -> Self {
        Self { workers, last: None, under_way: None }
    }

    /// What is so now, or was when it was measured last.
    async fn facts(&mut self, node: &Arc<Node>) -> Arc<[u8]> {
        let mut measuring = self.under_way.take().unwrap_or_else(|| {
            let node = Arc::clone(node);
            self.workers.spawn(async move { node.facts().encoded() })
        });
        if let Some(last) = &self.last {
            match timeout(MEASURE_LIMIT, &mut measuring).await {
                Ok(measured) => self.last = Some(outcome(measured).await),
                Err(_) => {
                    self.under_way = Some(measuring);
                    return Arc::clone(last);
                }
            }
        } else {
            self.last = Some(outcome(measuring.await).await);
        }
        self.last.clone().expect("it was just measured")
    }
}

/// What a task came to. A panic goes on in whoever waits for it; a task that was ended means that
/// everything ends.
async fn outcome<T>(ended: Result<T, JoinError>) -> T {
    match ended.map_err(JoinError::try_into_panic) {
        Ok(outcome) => outcome,
        Err(Ok(panic)) => std::panic::resume_unwind(panic),
        Err(Err(_)) => std::future::pending().await,
    }
}

/// Renews the lease until the node stops.
pub(super) async fn keep(node: &Arc<Node>, agreement: &Agreement, workers: &Handle) {
    let mut measured = Measured::new(workers.clone());
    admission::await_admission(node, agreement).await;
    let mut rounds = interval(BEAT_EVERY);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut misfit: Option<Epoch> = None;
    while !node.is_stopping() {
        tokio::select! {
            _ = rounds.tick() => {}
            () = node.control.hurry.notified() => {}
        }
        let sent = clock::steady();
        let had_lease = node.has_lease(sent);
        match Box::pin(renew(node, agreement, sent, &mut measured)).await {
            Ok(Renewed::Granted) if !had_lease => info!(node = %node.id, "this node has a lease"),
            Ok(Renewed::Granted | Renewed::NotYet) => {}
            Ok(Renewed::DoesNotFit(epoch)) => {
                if misfit.replace(epoch) != Some(epoch) {
                    error!(node = %node.id, %epoch, "the agreement holds a configuration of other nodes or shards than the settings of this node: give all nodes the same settings");
                }
            }
            Err(StoreError::OlderBoot { newest, .. }) => {
                error!(node = %node.id, boot = %node.boot, %newest, "a newer run of this node is there: this process ends; see that only one is started, on one folder");
                fatal::end(Fatal::NewerRun);
            }
            Err(StoreError::Conflict { .. }) => {} // What holds has changed: the next beat sees it.
            Err(why) => node.control.on_silence(node, &why),
        }
    }
}

/// What came of a beat.
enum Renewed {
    /// This node may answer.
    Granted,
    /// Nothing holds yet that gives this run a place.
    NotYet,
    /// What holds does not fit the settings of this node.
    DoesNotFit(Epoch),
}

async fn renew(
    node: &Arc<Node>,
    agreement: &Agreement,
    sent: Steady,
    measured: &mut Measured,
) -> Result<Renewed, StoreError> {
    let Agreement { store, key, .. } = agreement;
    let facts = measured.facts(node).await;
    let beat = Beat { node: node.id, boot: node.boot, facts };
    let (renewal, stored) = tokio::try_join!(store.heartbeat(beat), store.read(key))?;
    node.control.on_heard(node, renewal.leader, sent);
    let Some(stored) = stored else { return Ok(Renewed::NotYet) };
    let Some(part) = decoded(node, &stored.value) else { return Ok(Renewed::NotYet) };
    if !take_over(node, &part, measured).await {
        return Ok(Renewed::DoesNotFit(part.epoch));
    }
    if part.boots.get(&node.id) != Some(&node.boot) || node.current.has_given_up_lease() {
        return Ok(Renewed::NotYet);
    }
    if !node.has_lease(clock::steady()) {
        store.compare_and_swap(key, Some(stored.revision), stored.value).await?;
    }
    node.current.extend_lease(Steady(sent.0 + LEASE));
    Ok(Renewed::Granted)
}

/// Takes over what holds; tells whether it is what this node has now.
async fn take_over(node: &Arc<Node>, part: &Datacenter, measured: &mut Measured) -> bool {
    let here = node.id.datacenter;
    if node.configuration().epoch(here) < part.epoch {
        let (adopter, part) = (Arc::clone(node), part.clone());
        measured.under_way = None; // What is being measured is of what held before.
        let adopting = measured.workers.spawn(async move {
            let mut work = Work::begin();
            adopter.adopt(here, &part, &mut work);
            adopter.finish(&mut work);
        });
        outcome(adopting.await).await;
        // Whoever decides may wait for this node's word: it does not wait for the next beat.
        node.control.hurry.notify_one();
    }
    let known = node.configuration().epoch(here);
    if part.epoch < known {
        warn!(node = %node.id, %known, found = %part.epoch, "the agreement went back to an older epoch; was its folder restored from a copy?");
    }
    known == part.epoch
}

impl Node {
    /// For how long this node may still answer; for ever without a lease that ends.
    pub(crate) fn lease_left(&self, at: Steady) -> Duration {
        match self.current.lease() {
            Lease::Unbounded => Duration::MAX,
            Lease::Until(end) => end.0.saturating_sub(at.0),
        }
    }

    /// Whether this node may answer at a moment.
    pub(crate) fn has_lease(&self, at: Steady) -> bool {
        !self.lease_left(at).is_zero()
    }
}

#[cfg(test)]
mod tests {
    use antecede_control::{Stored, store::Revision};

    use super::super::member::BeginAtOnce;
    use super::*;
    use crate::config::{Config, Layers};
    use crate::control::manage;
    use crate::node::open::{Parts, open};

    const FILE: &str = "\
[deployment]
id = \"5b0c6e0e8f5c4b7a9d3e2f1a0b9c8d7e\"
shards = 4

[[datacenter]]
id = 1
name = \"here\"
node = [
  { number = 1, client = \"127.0.0.1:0\", peer = \"127.0.0.1:0\", control = \"127.0.0.1:0\" },
  { number = 2, client = \"127.0.0.1:0\", peer = \"127.0.0.1:0\" },
]

[node]
datacenter = \"here\"
number = 1

[storage]
memory = true

[control]
store = \"embedded\"
members = 1
";

    /// Tries until it is so.
    async fn until<T>(what: &str, mut attempt: impl AsyncFnMut() -> Option<T>) -> T {
        let tries = async {
            loop {
                if let Some(found) = attempt().await {
                    return found;
                }
                tokio::task::yield_now().await;
            }
        };
        let waited = timeout(Duration::from_secs(30), tries).await;
        waited.unwrap_or_else(|_| panic!("{what}: not within 30 s"))
    }

    async fn stored(agreement: &Agreement) -> Stored {
        agreement.store.read(&agreement.key).await.unwrap().unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn who_renews_too_late_undoes_what_may_be_under_way_and_who_renews_in_time_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let flags = vec![("control.folder".to_owned(), folder.path().display().to_string())];
        let file = Some(("node.toml".into(), FILE.to_owned()));
        let config = Config::load(&Layers { file, flags, ..Layers::default() }).unwrap();
        let parts = Parts {
            config: Arc::new(config),
            memory_figure: None,
            shaper: crate::LinkShaper::default(),
        };
        let node = open(parts).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let agreement =
            Agreement::open(&node, Some(listener), BeginAtOnce::default()).await.unwrap().unwrap();
        let renewed = async || {
            let mut measured = Measured::new(Handle::current());
            renew(&node, &agreement, clock::steady(), &mut measured).await
        };
        until("the first lease", async || {
            drop(manage::look(&node, &agreement).await);
            let granted = matches!(renewed().await, Ok(Renewed::Granted));
            // The other node is never heard of: it is given up, and this one serves alone.
            let here = node.configuration();
            let serves = here.chain(node.id.datacenter, antecede_model::ids::ShardId(0)).len() == 1;
            (granted && serves).then_some(())
        })
        .await;
        let before = stored(&agreement).await;
        assert!(matches!(renewed().await, Ok(Renewed::Granted)));
        assert_eq!(stored(&agreement).await, before, "in time: nothing is written");
        until("the end of the lease", async || (!node.has_lease(clock::steady())).then_some(()))
            .await;
        assert!(matches!(renewed().await, Ok(Renewed::Granted)));
        assert!(node.has_lease(clock::steady()));
        let after = stored(&agreement).await;
        assert_eq!(after.value, before.value);
        assert!(before.revision < after.revision, "too late: a new revision");
        let old: Option<Revision> = Some(before.revision);
        let late = agreement.store.compare_and_swap(&agreement.key, old, before.value).await;
        assert!(matches!(late, Err(StoreError::Conflict { .. })), "{late:?}");
        agreement.stop().await;
    }
}
