//! A witness: a member of the deployment's agreement that is no node of it, and holds no data.
//!
//! Two datacenters have no majority without both. With a witness in a third place, the one that is
//! left can still give the other one up (PITFALLS B24). It only votes: it decides nothing, and what
//! it keeps are the members of the deployment, a few hundred bytes.
//!
//! Limits: one witness, where the settings of all nodes say that it is (`control.witness`).

use std::path::Path;
use std::time::Duration;

use antecede_control::embedded::{
    EmbeddedStore, GroupId, Listening, Member, MemberOptions, MembershipError, StoreOptions,
};
use tokio::net::TcpListener;
use tracing::{info, warn};

use super::deployment::{
    ATTEMPT_LIMIT, Begin, FILE, LOOK_LIMIT, MARK, REQUEST_LIMIT, TIMING, VOTERS_EVERY,
};
use crate::clock;
use crate::config::Config;
use crate::config::members::{DeploymentStore, WITNESS};
use crate::node::{StartError, open::write_file};

/// A witness that runs.
#[derive(Debug)]
pub struct Witness {
    member: Member,
    store: EmbeddedStore,
    address: String,
}

/// Why a witness cannot start.
#[derive(Debug, thiserror::Error)]
pub enum WitnessError {
    /// The settings have no place for one.
    #[error("{0}")]
    Settings(String),
    /// It cannot be opened.
    #[error(transparent)]
    Start(#[from] StartError),
}

impl Witness {
    /// Starts the witness that the settings of a deployment name, with its file in a folder.
    ///
    /// # Errors
    /// When the settings name none, or its address or file cannot be had.
    pub async fn start(config: &Config, folder: &Path) -> Result<Self, WitnessError> {
        let settings = |why: &str| WitnessError::Settings(why.to_owned());
        let store = config.deployment_store().map_err(WitnessError::Settings)?;
        if store != DeploymentStore::Embedded {
            return Err(settings("a witness goes with control.store = \"embedded\""));
        }
        let address = config.control.witness.clone();
        let address = address.ok_or_else(|| {
            settings("control.witness is missing: say on all nodes where the witness is reached")
        })?;
        let deployment = config.deployment.ok_or_else(|| settings("deployment.id is missing"))?;
        let listener = TcpListener::bind(&address).await.map_err(|source| {
            let (what, address) = ("the deployment's agreement", address.clone());
            StartError::Listen { what, address, source }
        })?;
        let group = GroupId { deployment, datacenter: None };
        let founders = config.deployment_members();
        let options = |request_limit: Duration| StoreOptions {
            group,
            node: WITNESS,
            members: founders.clone(),
            request_limit,
            attempt_limit: ATTEMPT_LIMIT.min(request_limit),
        };
        let store = EmbeddedStore::new(options(REQUEST_LIMIT));
        std::fs::create_dir_all(folder).map_err(|source| StartError::Io {
            what: "make the folder",
            path: folder.to_owned(),
            source,
        })?;
        let begin = Begin { node: WITNESS, founders: founders.clone(), may_found: true };
        let start = begin.start(&store, options(LOOK_LIMIT), folder).await;
        let member = MemberOptions {
            group,
            node: WITNESS,
            path: folder.join(FILE),
            listener: Listening::Socket(listener),
            start,
            timing: TIMING,
            clock: clock::steady,
        };
        let member = Box::pin(Member::open(member)).await.map_err(StartError::from)?;
        write_file(folder, MARK, &format!("{WITNESS}\n"))?;
        info!(address, "the witness is there");
        Ok(Self { member, store, address })
    }

    /// Votes until it cannot go on, and says why.
    pub async fn vote(&self) -> String {
        let failed = self.member.failed();
        tokio::pin!(failed);
        let mut rounds = tokio::time::interval(VOTERS_EVERY);
        loop {
            tokio::select! {
                why = &mut failed => return why,
                _ = rounds.tick() => self.join().await,
            }
        }
    }

    /// Stops it.
    pub async fn stop(self) {
        self.member.stop().await;
    }

    /// Becomes one of those who vote, if it is none.
    async fn join(&self) {
        let Ok(voters) = self.store.members().await else { return };
        if voters.get(&WITNESS).is_some_and(|known| known.votes) {
            return;
        }
        match self.store.add_member(WITNESS, &self.address).await {
            Ok(_) => info!("the witness votes"),
            Err(why @ MembershipError::TooMany) => warn!(%why, "the witness is not needed"),
            Err(why) => warn!(%why, "the witness does not vote yet"),
        }
    }
}
