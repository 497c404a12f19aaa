//! Opens a node's way to the agreement of its datacenter, and its member if it has one.
//!
//! A member that has begun goes on from its file. One without a file begins with the members that
//! the configuration names, or joins again if they have begun with a file that it has lost; it may
//! have to wait for them, and the node asks others meanwhile (`member`). With etcd a node has no
//! member; what it does there is in `etcd`.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use antecede_control::{
    ConfigurationStore, StoreError, StoreKey,
    embedded::{EmbeddedStore, GroupId, Member, Port, StoreOptions, Timing, Way, count_of_begun},
};
use antecede_model::configuration::Datacenter;
use tokio::net::TcpListener;
use tokio::sync::SetOnce;
use tokio::time::interval;
use tracing::{error, info, warn};

#[cfg(feature = "etcd")]
use super::etcd;
use super::{
    admission, decoded,
    deployment::Deployment,
    encoded,
    member::{BeginAtOnce, Place},
};
use crate::aside;
use crate::fatal::{self, Fatal};
use crate::node::{Node, StartError};

/// How long a request to the agreement may take, all attempts together.
pub(super) const REQUEST_LIMIT: Duration = Duration::from_secs(1);
/// How often a change of what holds is tried while decisions come in between.
const REPLACE_ATTEMPTS: u32 = 10;
/// How long the others may take to say what holds, before this node's own member is opened.
const LOOK_LIMIT: Duration = Duration::from_millis(500);
/// The same where they are a majority without it: they may have to find a leader first.
const ELECTION_LIMIT: Duration = Duration::from_secs(5);
/// How often a node tries to become a member again.
const JOIN_EVERY: Duration = Duration::from_secs(1);
/// How long one member may take to answer: well below a lease, so that another one is asked in time.
pub(super) const ATTEMPT_LIMIT: Duration = Duration::from_millis(250);
/// How fast the loss of the member that leads is noticed. A leader counts as one for `silence_max`
/// after it was heard last, and only then others wait for their own time before they stand for it:
/// so it is replaced within 400 to 500 ms, mostly before the leases of nodes have ended.
const TIMING: Timing = Timing {
    silence_min: Duration::from_millis(150),
    silence_max: Duration::from_millis(250),
    ..Timing::LOCAL
};
/// The file of a member.
pub(crate) const FILE: &str = "agreement";
/// Tells that a folder has held a member.
pub(crate) const MARK: &str = "member";
/// Where the agreement keeps the datacenter's part.
const KEY: &str = "datacenter";

/// A node's part in the agreement of its datacenter.
#[derive(Debug)]
pub(crate) struct Agreement {
    pub(super) store: Arc<dyn ConfigurationStore>,
    pub(super) key: StoreKey,
    /// The agreement on datacenters; `None` where nobody agrees on them.
    pub(crate) deployment: Option<Arc<Deployment>>,
    role: Role,
}

/// What a node does for the agreement beside asking it.
#[derive(Debug)]
enum Role {
    /// Nothing.
    Asks,
    /// It is a member, or will be, and asks as one.
    Member(Box<Own>),
    /// It asks etcd, and may listen to beats.
    #[cfg(feature = "etcd")]
    Etcd(etcd::Part),
}

/// This node's own member.
#[derive(Debug)]
struct Own {
    store: EmbeddedStore,
    place: Place,
    /// Set once it may be there.
    member: SetOnce<Member>,
}

impl Agreement {
    /// Opens it; `None` where nobody decides. A member that has to wait for others is opened by
    /// [`Agreement::be_member`].
    pub(crate) async fn open(
        node: &Node,
        listener: Option<TcpListener>,
        at_once: BeginAtOnce,
    ) -> Result<Option<Self>, StartError> {
        if !node.config.is_managed() {
            return Ok(None);
        }
        let group = GroupId {
            deployment: node.configuration().deployment,
            datacenter: Some(node.id.datacenter),
        };
        let (store, role) = match &node.config.control.etcd {
            None => Box::pin(embedded(node, group, listener, at_once)).await?,
            #[cfg(feature = "etcd")]
            Some(config) => {
                let (store, part) = etcd::open(node, group, config, listener)?;
                (store, Role::Etcd(part))
            }
            #[cfg(not(feature = "etcd"))]
            Some(_) => unreachable!("such settings were refused"),
        };
        let key = StoreKey::new(KEY).expect("the key is short");
        let port = match &role {
            Role::Member(own) => Some(own.place.port.clone()),
            Role::Asks => None,
            #[cfg(feature = "etcd")]
            Role::Etcd(_) => None,
        };
        let deployment = Deployment::of(node, port, at_once.deployment)?.map(Arc::new);
        Ok(Some(Self { store, key, deployment, role }))
    }

    /// What holds in the datacenter; `None` if nothing does that this build can read.
    pub(crate) async fn read_part(&self, node: &Node) -> Result<Option<Datacenter>, StoreError> {
        let stored = self.store.read(&self.key).await?;
        Ok(stored.and_then(|stored| decoded(node, &stored.value)))
    }

    /// Changes what holds, unless it is so already; what holds then. A decision that comes in
    /// between is no reason to give up: the change is made to what it left.
    pub(crate) async fn replace_part<E>(
        &self,
        node: &Node,
        change: impl Fn(&Datacenter) -> Result<Option<Datacenter>, E>,
    ) -> Result<Option<Result<Datacenter, E>>, StoreError> {
        let mut attempts = REPLACE_ATTEMPTS;
        loop {
            let Some(stored) = self.store.read(&self.key).await? else { return Ok(None) };
            let Some(part) = decoded(node, &stored.value) else { return Ok(None) };
            let next = match change(&part) {
                Ok(Some(next)) => next,
                Ok(None) => return Ok(Some(Ok(part))),
                Err(why) => return Ok(Some(Err(why))),
            };
            attempts -= 1;
            let (expected, value) = (Some(stored.revision), encoded(&next));
            match self.store.compare_and_swap(&self.key, expected, value).await {
                Ok(_) => return Ok(Some(Ok(next))),
                Err(StoreError::Conflict { .. }) if 0 < attempts => {}
                Err(why) => return Err(why),
            }
        }
    }

    /// Whether this node decides, as far as it knows.
    pub(crate) fn leads(&self) -> bool {
        match &self.role {
            Role::Asks => false,
            Role::Member(own) => {
                own.member.get().is_some_and(|member| member.leader() == Some(member.node()))
            }
            #[cfg(feature = "etcd")]
            Role::Etcd(part) => part.leads(),
        }
    }

    /// Waits until this node's part cannot go on; for ever where there is nothing that could fail.
    pub(super) async fn failed(&self) -> String {
        match &self.role {
            Role::Asks => std::future::pending().await,
            Role::Member(own) => own.member.wait().await.failed().await,
            #[cfg(feature = "etcd")]
            Role::Etcd(part) => part.failed().await,
        }
    }

    /// Takes part in the agreement on datacenters, where there is one.
    pub(super) async fn live_in_deployment(&self, node: &Arc<Node>) -> Infallible {
        match &self.deployment {
            Some(deployment) => deployment.live(node, self).await,
            None => std::future::pending().await,
        }
    }

    /// Opens this node's member, if it had to wait for others, and makes it one of the group again,
    /// if it is none any more.
    pub(super) async fn be_member(&self, node: &Node) -> Infallible {
        let address = node.config.control_members().get(&node.id).cloned();
        if let (Role::Member(own), Some(address)) = (&self.role, address) {
            if own.member.get().is_none() {
                own.open(node).await;
            }
            let mut rounds = interval(JOIN_EVERY);
            loop {
                rounds.tick().await;
                let Ok(members) = own.store.members().await else { continue };
                if members.get(&node.id).is_some_and(|known| known.votes) {
                    break;
                }
                match own.store.add_member(node.id, &address).await {
                    Ok(_) => info!(node = %node.id, "a member of the agreement again"),
                    Err(why) => warn!(node = %node.id, %why, "not a member of the agreement yet"),
                }
            }
        }
        std::future::pending().await
    }

    /// Stops the member, if there is one.
    pub(crate) async fn stop(self) {
        if let Some(deployment) = &self.deployment {
            deployment.stop().await;
        }
        if let Role::Member(own) = self.role {
            let Own { place, member, .. } = *own;
            if let Some(member) = member.into_inner() {
                member.stop().await;
            }
            place.port.close().await;
        }
    }
}

impl Own {
    /// Waits until the member may be opened, and opens it; ends the process if that fails.
    async fn open(&self, node: &Node) {
        match self.place.open(|waits| node.control.on_founding(waits)).await {
            Ok(member) => {
                info!(node = %node.id, address = %member.local_address(), "a member of the agreement");
                // Nobody else opens it.
                drop(self.member.set(member));
            }
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                error!(node = %node.id, %error, cause, "this node cannot become a member of the agreement: this process ends");
                fatal::end(Fatal::Disk);
            }
        }
    }
}

/// The embedded store, with this node's member if it has one.
async fn embedded(
    node: &Node,
    group: GroupId,
    listener: Option<TcpListener>,
    at_once: BeginAtOnce,
) -> Result<(Arc<dyn ConfigurationStore>, Role), StartError> {
    let config = &node.config;
    let members = config.control_members();
    let options = StoreOptions {
        group,
        node: node.id,
        members: members.clone(),
        request_limit: REQUEST_LIMIT,
        attempt_limit: ATTEMPT_LIMIT,
    };
    look_around(node, &options).await?;
    let (Some(listener), Some(folder)) = (listener, config.control_folder()) else {
        return Ok((Arc::new(EmbeddedStore::new(options)), Role::Asks));
    };
    let port = Port::open(listener).map_err(|source| StartError::Listen {
        what: "the agreement",
        address: "a socket that was given".to_owned(),
        source,
    })?;
    let store = EmbeddedStore::beside(options, &port);
    let place = Place {
        group,
        node: node.id,
        folder: folder.to_owned(),
        file: FILE,
        mark: MARK,
        way: match (aside::has_new_member(config), at_once.datacenter) {
            (true, _) => Way::IsNew,
            (false, true) => Way::FoundsAtOnce,
            (false, false) => Way::Founds,
        },
        founders: members.clone(),
        contacts: members,
        port,
        request_limit: LOOK_LIMIT,
        attempt_limit: ATTEMPT_LIMIT,
        timing: TIMING,
    };
    let own = Own { store: store.clone(), place, member: SetOnce::new() };
    if own.place.goes_on()? {
        let member = own.place.open(|_| {}).await?;
        info!(node = %node.id, address = %member.local_address(), "a member of the agreement");
        drop(own.member.set(member));
    }
    Ok((Arc::new(store), Role::Member(Box::new(own))))
}

/// Looks, by the word of the other members, whether this node may take part. Its member must not be
/// opened on an old copy of its folder while the others can tell: it may have led them.
async fn look_around(node: &Node, options: &StoreOptions) -> Result<(), StartError> {
    let mut others = options.members.clone();
    others.remove(&node.id);
    if others.is_empty() || node.config.storage.folder.is_none() {
        return Ok(());
    }
    let majority = options.members.len() / 2 + 1;
    let options = StoreOptions { members: others, ..options.clone() };
    let request_limit = match count_of_begun(&options).await {
        0 => return Ok(()),
        answering if answering < majority => LOOK_LIMIT,
        _ => ELECTION_LIMIT,
    };
    let store = EmbeddedStore::new(StoreOptions { request_limit, ..options });
    let key = StoreKey::new(KEY).expect("the key is short");
    admission::look(node, &store, &key).await
}
