//! Opens a node's way to the agreement of its datacenter, and its member if it has one.
//!
//! A member begins a group with the members that the configuration names when its folder has never
//! held one, and goes on from its file otherwise. A small file beside it tells that there was one:
//! a member whose file is gone must not begin again, it could vote twice. If the others still decide
//! without it they take it out of the group, and it joins again with an empty file. With etcd a node
//! has no member; what it does there is in `etcd`.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use antecede_control::{
    ConfigurationStore, StoreError, StoreKey,
    embedded::{
        EmbeddedStore, GroupId, Listening, Member, MemberOptions, MembershipError, Start,
        StoreOptions, Timing,
    },
};
use antecede_model::{configuration::Datacenter, ids::NodeId};
use tokio::net::TcpListener;
use tokio::time::interval;
use tracing::{info, warn};

#[cfg(feature = "etcd")]
use super::etcd;
use super::{admission, decoded, deployment::Deployment, encoded};
use crate::clock;
use crate::node::{Node, StartError, open::write_file};

/// How long a request to the agreement may take, all attempts together.
pub(super) const REQUEST_LIMIT: Duration = Duration::from_secs(1);
/// How often a change of what holds is tried while decisions come in between.
const REPLACE_ATTEMPTS: u32 = 10;
/// How long the others may take to say what holds, before this node's own member is opened.
const LOOK_LIMIT: Duration = Duration::from_millis(500);
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
    /// It is a member, and asks as one.
    Member(Member, EmbeddedStore),
    /// It asks etcd, and may listen to beats.
    #[cfg(feature = "etcd")]
    Etcd(etcd::Part),
}

impl Agreement {
    /// Opens it; `None` where nobody decides.
    pub(crate) async fn open(
        node: &Node,
        listener: Option<TcpListener>,
    ) -> Result<Option<Self>, StartError> {
        if !node.config.is_managed() {
            return Ok(None);
        }
        let group = GroupId {
            deployment: node.configuration().deployment,
            datacenter: Some(node.id.datacenter),
        };
        let (store, role) = match &node.config.control.etcd {
            None => Box::pin(embedded(node, group, listener)).await?,
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
            Role::Member(member, _) => Some(member.port()),
            Role::Asks => None,
            #[cfg(feature = "etcd")]
            Role::Etcd(_) => None,
        };
        let deployment = Deployment::of(node, port)?.map(Arc::new);
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
            Role::Member(member, _) => member.leader() == Some(member.node()),
            #[cfg(feature = "etcd")]
            Role::Etcd(part) => part.leads(),
        }
    }

    /// Waits until this node's part cannot go on; for ever where there is nothing that could fail.
    pub(super) async fn failed(&self) -> String {
        match &self.role {
            Role::Asks => std::future::pending().await,
            Role::Member(member, _) => member.failed().await,
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

    /// Makes this node's member one of the group again, if it is none any more.
    pub(super) async fn stay_member(&self, node: &Node) -> Infallible {
        let address = node.config.control_members().get(&node.id).cloned();
        if let (Role::Member(member, store), Some(address)) = (&self.role, address) {
            let mut rounds = interval(JOIN_EVERY);
            loop {
                rounds.tick().await;
                let Ok(members) = store.members().await else { continue };
                if members.get(&member.node()).is_some_and(|known| known.votes) {
                    break;
                }
                match store.add_member(member.node(), &address).await {
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
        if let Role::Member(member, _) = self.role {
            member.stop().await;
        }
    }
}

/// The embedded store, with this node's member if it has one.
async fn embedded(
    node: &Node,
    group: GroupId,
    listener: Option<TcpListener>,
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
    let (Some(listener), Some(folder)) = (listener, config.control_folder()) else {
        let key = StoreKey::new(KEY).expect("the key is short");
        leave_if_lost(node, &options, &key, false).await?;
        return Ok((Arc::new(EmbeddedStore::new(options)), Role::Asks));
    };
    let key = StoreKey::new(KEY).expect("the key is short");
    let has_lost_file = !folder.join(FILE).exists();
    let joins = leave_if_lost(node, &options, &key, has_lost_file).await?;
    let start = if joins { Start::Join } else { start(folder, members) };
    let is_new = start != Start::Resume;
    let path = folder.join(FILE);
    std::fs::create_dir_all(folder).map_err(|source| StartError::Io {
        what: "make the folder",
        path: folder.to_owned(),
        source,
    })?;
    let member = MemberOptions {
        group,
        node: node.id,
        path,
        listener: Listening::Socket(listener),
        start,
        timing: TIMING,
        clock: clock::steady,
    };
    let member = Box::pin(Member::open(member)).await?;
    if is_new {
        write_file(folder, MARK, &format!("{}\n", node.id))?;
    }
    info!(node = %node.id, address = %member.local_address(), is_new, "a member of the agreement");
    let store = EmbeddedStore::beside(options, &member);
    Ok((Arc::new(store.clone()), Role::Member(member, store)))
}

/// Looks, by the word of the other members, whether this node may take part. If it was a member and
/// has lost its file, it is taken out of the group; tells whether it has to join again.
async fn leave_if_lost(
    node: &Node,
    options: &StoreOptions,
    key: &StoreKey,
    has_lost_member: bool,
) -> Result<bool, StartError> {
    let mut others = options.members.clone();
    others.remove(&node.id);
    if others.is_empty() || node.config.storage.folder.is_none() {
        return Ok(false);
    }
    let store = EmbeddedStore::new(StoreOptions {
        members: others,
        request_limit: LOOK_LIMIT,
        ..options.clone()
    });
    let Some(part) = admission::look(node, &store, key).await? else { return Ok(false) };
    if !has_lost_member || !part.boots.contains_key(&node.id) {
        return Ok(false);
    }
    warn!(node = %node.id, "this node's member of the agreement has lost its file: it joins again");
    match store.remove_member(node.id).await {
        Ok(_) | Err(MembershipError::NotMember { .. }) => Ok(true),
        Err(why) => Err(why.into()),
    }
}

/// How the member of a folder begins.
fn start(folder: &Path, members: std::collections::BTreeMap<NodeId, String>) -> Start {
    let is_there = |name: &str| -> bool { folder.join(name).exists() };
    if is_there(FILE) || is_there(MARK) { Start::Resume } else { Start::Create { members } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_begins_once_and_goes_on_from_then_on() {
        let folder = tempfile::tempdir().unwrap();
        let create = Start::Create { members: std::collections::BTreeMap::new() };
        let how = || start(folder.path(), std::collections::BTreeMap::new());
        assert_eq!(how(), create);
        std::fs::write(folder.path().join(FILE), b"rows").unwrap();
        assert_eq!(how(), Start::Resume, "it ended before the mark was there");
        write_file(folder.path(), MARK, "1.1\n").unwrap();
        std::fs::remove_file(folder.path().join(FILE)).unwrap();
        assert_eq!(how(), Start::Resume, "to be told that its file is gone");
    }
}
