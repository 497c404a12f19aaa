//! Looks whether this node may take part, before it says anything: its folder must be the one that
//! the last run of the node used, and no other process of the node may run.
//!
//! The configuration names the last run of each node that had a place, and a folder the last run
//! that went past this point (`admitted`). A folder that lags behind is an old copy or a backup:
//! what was acknowledged since is not in it, and a replica that serves is believed to hold all of
//! that. Two processes of one node, on a folder and a copy of it, would end each other in turns.
//!
//! A node asks the members of the agreement except itself, so that its own member, which rests on
//! the same folder, takes no part before it is known to be sound. If they do not answer soon it
//! opens its member, and looks again before its first beat.
//!
//! Nor may the agreement be older than the folder: where most of its members began anew with empty
//! folders, the chains would begin with nothing, and this node would copy that.
//!
//! Ensures: a run beats only after its number is in its folder.
//! Limits: a copy that was taken from a folder while its node ran, and is started after that node
//! has ended, cannot be told from the folder itself.

use std::path::Path;
use std::time::Duration;

use antecede_control::{ConfigurationStore, StoreKey};
use antecede_model::{configuration::Datacenter, ids::Boot};
use antecede_protocol::manager::BEAT_EVERY;
use tokio::time::{MissedTickBehavior, interval};
use tracing::error;

use super::{agreement::Agreement, decoded};
use crate::fatal::{self, Fatal};
use crate::node::{
    Node, StartError,
    open::{number_in, write_file},
};

/// The file with the number of the last run that took part.
const FILE: &str = "admitted";
/// A run that was not heard for so long has ended; it beats several times in it.
const SILENCE: Duration = Duration::from_millis(350);
/// For how long a node waits for an earlier run of its own to fall silent.
const PATIENCE: Duration = Duration::from_secs(2);
const _: () = assert!(3 * BEAT_EVERY.as_millis() < SILENCE.as_millis());
const _: () = assert!(SILENCE.as_millis() < PATIENCE.as_millis());

/// Looks at what holds in the datacenter, as those say who answer, if anybody does.
///
/// # Errors
/// Why this node must not take part.
pub(super) async fn look(
    node: &Node,
    store: &dyn ConfigurationStore,
    key: &StoreKey,
) -> Result<(), StartError> {
    let Ok(Some(stored)) = store.read(key).await else { return Ok(()) };
    let Some(part) = decoded(node, &stored.value) else { return Ok(()) };
    check_folder(node, &part)?;
    check_alone(node, store).await
}

/// Waits until this node may beat, and writes down that it does from now on; ends the process if it
/// may not.
pub(super) async fn await_admission(node: &Node, agreement: &Agreement) {
    let mut rounds = interval(BEAT_EVERY);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !node.is_stopping() {
        rounds.tick().await;
        let stored = match agreement.store.read(&agreement.key).await {
            Ok(stored) => stored,
            Err(why) => {
                node.control.on_silence(node, &why);
                continue;
            }
        };
        let part = stored.and_then(|stored| decoded(node, &stored.value));
        let checked = part.map_or(Ok(()), |part| check_folder(node, &part));
        if let Err(why) = checked.and_then(|()| write_down(node)) {
            error!(node = %node.id, %why, "this node must not take part: this process ends");
            fatal::end(Fatal::OldFolder);
        }
        return;
    }
}

/// Writes this run's number down.
fn write_down(node: &Node) -> Result<(), StartError> {
    match &node.config.storage.folder {
        Some(folder) => write_file(folder, FILE, &format!("{}\n", node.boot)),
        None => Ok(()),
    }
}

/// The last run that took part with a folder; `Boot(0)` if none did.
fn last_admitted(folder: &Path) -> Result<Boot, StartError> {
    number_in(&folder.join(FILE)).map(|found| Boot(found.unwrap_or(0)))
}

/// Refuses a folder that the last run of this node did not use. An empty one is fine: it is known
/// to be empty, and the node copies everything.
fn check_folder(node: &Node, part: &Datacenter) -> Result<(), StartError> {
    let Some(folder) = &node.config.storage.folder else { return Ok(()) };
    let found = last_admitted(folder)?;
    let Some(known) = part.boots.get(&node.id) else {
        if node.has_begun_empty() || found == Boot(0) {
            return Ok(());
        }
        return Err(StartError::OldAgreement { path: folder.clone(), node: node.id, found });
    };
    if node.has_begun_empty() || *known <= found {
        return Ok(());
    }
    Err(StartError::OldFolder { path: folder.clone(), node: node.id, found, known: *known })
}

/// Waits until an earlier run of this node is silent; refuses if it does not fall silent.
async fn check_alone(node: &Node, store: &dyn ConfigurationStore) -> Result<(), StartError> {
    let mut rounds = interval(BEAT_EVERY);
    let looks = PATIENCE.as_millis() / BEAT_EVERY.as_millis();
    for _ in 0..looks {
        rounds.tick().await;
        // Nobody who answers has heard of it lately: a new leader starts to listen anew.
        let Ok(beats) = store.beats().await else { return Ok(()) };
        match beats.nodes.get(&node.id) {
            Some(seen) if seen.ago < SILENCE => {}
            Some(_) | None => return Ok(()),
        }
    }
    Err(StartError::Twin { node: node.id })
}
