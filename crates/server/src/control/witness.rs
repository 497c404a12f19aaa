//! A witness: a member of the deployment's agreement that is no node of it, and holds no data.
//!
//! Two datacenters have no majority without both. With a witness in a third place, the one that is
//! left can still give the other one up (PITFALLS B24). It only votes: it decides nothing, and what
//! it keeps are the members of the deployment, a few hundred bytes.
//!
//! Limits: one witness, where the settings of all nodes say that it is (`control.witness`).

use std::path::Path;

use antecede_control::embedded::{
    EmbeddedStore, GroupId, Member, MembershipError, Port, StoreOptions, Way,
};
use tokio::net::TcpListener;
use tokio::sync::SetOnce;
use tracing::{info, warn};

use super::deployment::{
    ATTEMPT_LIMIT, FILE, LOOK_LIMIT, MARK, REQUEST_LIMIT, TIMING, VOTERS_EVERY,
};
use super::member::Place;
use crate::config::Config;
use crate::config::members::{DeploymentStore, WITNESS};
use crate::node::StartError;

/// A witness that runs.
#[derive(Debug)]
pub struct Witness {
    place: Place,
    /// Set once it may be there.
    member: SetOnce<Member>,
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
    /// Starts the witness that the settings of a deployment name, with its file in a folder;
    /// `at_once` as in `BeginAtOnce`.
    ///
    /// # Errors
    /// When the settings name none, or its address or file cannot be had.
    pub async fn start(
        config: &Config,
        folder: &Path,
        at_once: bool,
    ) -> Result<Self, WitnessError> {
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
        let not_bound = |source| {
            let (what, address) = ("the deployment's agreement", address.clone());
            StartError::Listen { what, address, source }
        };
        let listener = TcpListener::bind(&address).await.map_err(not_bound)?;
        let port = Port::open(listener).map_err(not_bound)?;
        let group = GroupId { deployment, datacenter: None };
        let founders = config.deployment_members();
        let options = StoreOptions {
            group,
            node: WITNESS,
            members: founders.clone(),
            request_limit: REQUEST_LIMIT,
            attempt_limit: ATTEMPT_LIMIT,
        };
        let store = EmbeddedStore::new(options);
        let place = Place {
            group,
            node: WITNESS,
            folder: folder.to_owned(),
            file: FILE,
            mark: MARK,
            way: if at_once { Way::FoundsAtOnce } else { Way::Founds },
            founders: founders.clone(),
            contacts: founders,
            port,
            request_limit: LOOK_LIMIT,
            attempt_limit: ATTEMPT_LIMIT,
            timing: TIMING,
        };
        let member = SetOnce::new();
        if place.goes_on()? {
            drop(member.set(place.open(|_| {}).await?));
        }
        info!(address, "the witness is there");
        Ok(Self { place, member, store, address })
    }

    /// Votes until it cannot go on, and says why.
    pub async fn vote(&self) -> String {
        if self.member.get().is_none() {
            match self.place.open(|_| {}).await {
                // Nobody else opens it.
                Ok(member) => drop(self.member.set(member)),
                Err(error) => return format!("{error}: {:?}", std::error::Error::source(&error)),
            }
        }
        let failed = self.member.wait().await.failed();
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
        if let Some(member) = self.member.into_inner() {
            member.stop().await;
        }
        self.place.port.close().await;
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
