//! Opens this node's members: of the agreement of its datacenter, and of the deployment's.
//!
//! A member that has begun goes on from its file at once. Without a file it begins with the other
//! founders, or joins, and may have to wait for them (`antecede_control::embedded::founding`). A
//! small file beside it tells that there was one, so that a node whose file alone is gone is not
//! taken for a new one.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use antecede_control::embedded::{
    BeginOptions, FileError, GroupId, Member, MemberOptions, OpenError, Port, Timing, Way, begin,
    has_begun,
};
use antecede_model::ids::NodeId;
use tokio::time::Instant;
use tracing::warn;

use crate::clock;
use crate::node::{StartError, open::write_file};

/// How long a start may wait for others before it is worth a line in the log.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often it is said again.
const SAY_EVERY: Duration = Duration::from_secs(30);

/// What a node with nothing in its folder begins without hearing from the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BeginAtOnce {
    /// To take part in the agreement of its datacenter.
    pub datacenter: bool,
    /// To take part in the deployment's.
    pub deployment: bool,
    /// To serve its shards, where nobody decides who serves.
    pub data: bool,
}

/// Where a member is, or will be.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) group: GroupId,
    pub(super) node: NodeId,
    pub(super) folder: PathBuf,
    pub(super) file: &'static str,
    /// The file that tells that there was one.
    pub(super) mark: &'static str,
    pub(super) way: Way,
    pub(super) founders: BTreeMap<NodeId, String>,
    /// Who may know the group if it has begun.
    pub(super) contacts: BTreeMap<NodeId, String>,
    pub(super) port: Port,
    pub(super) request_limit: Duration,
    pub(super) attempt_limit: Duration,
    pub(super) timing: Timing,
}

impl Place {
    /// Whether the member is opened without waiting for others.
    pub(super) fn goes_on(&self) -> Result<bool, StartError> {
        let is_alone = self.way == Way::Founds && self.founders.keys().eq([&self.node]);
        let begun = has_begun(&self.folder.join(self.file), self.group, self.node);
        Ok(is_alone || self.way == Way::IsNew || begun.map_err(|source| self.failed(source))?)
    }

    /// Opens the member as soon as it may be. `told` hears what it waits for, and `None` at the end.
    pub(super) async fn open(
        &self,
        mut told: impl FnMut(Option<String>),
    ) -> Result<Member, StartError> {
        std::fs::create_dir_all(&self.folder).map_err(|source| StartError::Io {
            what: "make the folder",
            path: self.folder.clone(),
            source,
        })?;
        let path = self.folder.join(self.file);
        let options = BeginOptions {
            group: self.group,
            node: self.node,
            path: path.clone(),
            had_file: self.folder.join(self.mark).exists(),
            way: self.way,
            founders: self.founders.clone(),
            contacts: self.contacts.clone(),
            port: self.port.clone(),
            request_limit: self.request_limit,
            attempt_limit: self.attempt_limit,
        };
        let mut say_at = Instant::now() + PATIENCE;
        let on_wait = |waiting| {
            let text = format!("{waiting}");
            if say_at <= Instant::now() {
                warn!(node = %self.node, "{text}");
                say_at = Instant::now() + SAY_EVERY;
            }
            told(Some(text));
        };
        let start = begin(options, on_wait).await.map_err(|source| self.failed(source))?;
        let options = MemberOptions {
            group: self.group,
            node: self.node,
            path,
            port: self.port.clone(),
            start,
            timing: self.timing,
            clock: clock::steady,
        };
        let member = Box::pin(Member::open(options)).await?;
        if !self.folder.join(self.mark).exists() {
            write_file(&self.folder, self.mark, &format!("{}\n", self.node))?;
        }
        told(None);
        Ok(member)
    }

    fn failed(&self, source: FileError) -> StartError {
        OpenError::File { node: self.node, source }.into()
    }
}
