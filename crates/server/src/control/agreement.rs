//! Opens a node's way to the agreement of its datacenter, and its member if it has one.
//!
//! A member begins a group with the members that the configuration names when its folder has never
//! held one, and goes on from its file otherwise. A small file beside it tells that there was one:
//! a member whose file is gone must not begin again, it could vote twice. With etcd a node has no
//! member; what it does there is in `etcd`.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use antecede_control::{
    ConfigurationStore, StoreKey,
    embedded::{EmbeddedStore, GroupId, Member, MemberOptions, Start, StoreOptions, Timing},
};
use antecede_model::ids::NodeId;
use tokio::net::TcpListener;
use tracing::info;

#[cfg(feature = "etcd")]
use super::etcd;
use crate::clock;
use crate::node::{Node, StartError, open::write_file};

/// How long a request to the agreement may take, all attempts together.
pub(super) const REQUEST_LIMIT: Duration = Duration::from_secs(1);
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
const FILE: &str = "agreement";
/// Tells that a folder has held a member.
const MARK: &str = "member";
/// Where the agreement keeps the datacenter's part.
const KEY: &str = "datacenter";

/// A node's part in the agreement of its datacenter.
#[derive(Debug)]
pub(crate) struct Agreement {
    pub(super) store: Arc<dyn ConfigurationStore>,
    pub(super) key: StoreKey,
    role: Role,
}

/// What a node does for the agreement beside asking it.
#[derive(Debug)]
enum Role {
    /// Nothing.
    Asks,
    /// It is a member.
    Member(Member),
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
        Ok(Some(Self { store, key, role }))
    }

    /// Whether this node decides, as far as it knows.
    pub(crate) fn leads(&self) -> bool {
        match &self.role {
            Role::Asks => false,
            Role::Member(member) => member.leader() == Some(member.node()),
            #[cfg(feature = "etcd")]
            Role::Etcd(part) => part.leads(),
        }
    }

    /// Waits until this node's part cannot go on; for ever where there is nothing that could fail.
    pub(super) async fn failed(&self) -> String {
        match &self.role {
            Role::Asks => std::future::pending().await,
            Role::Member(member) => member.failed().await,
            #[cfg(feature = "etcd")]
            Role::Etcd(part) => part.failed().await,
        }
    }

    /// Stops the member, if there is one.
    pub(crate) async fn stop(self) {
        if let Role::Member(member) = self.role {
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
        return Ok((Arc::new(EmbeddedStore::new(options)), Role::Asks));
    };
    let start = start(folder, members);
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
        listener,
        start,
        timing: TIMING,
        clock: clock::steady,
    };
    let member = Box::pin(Member::open(member)).await?;
    if is_new {
        write_file(folder, MARK, &format!("{}\n", node.id))?;
    }
    info!(node = %node.id, address = %member.local_address(), is_new, "a member of the agreement");
    Ok((Arc::new(EmbeddedStore::beside(options, &member)), Role::Member(member)))
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
