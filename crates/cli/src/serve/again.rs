//! Executes again what a node's datacenter had never sent when it lapsed, once it is back.
//!
//! It is what `antecede unsent replay` does, through the ports of the node itself and those of the
//! other nodes of its datacenter, for the shards whose newest end lies in the quarantine of this
//! node. A mark in the quarantine tells that it is done. A node that ends before that begins anew
//! with its next start, and adds to the same journal: what was executed is skipped then, as written
//! since.
//!
//! Limits: without an admin port at each node of its datacenter nothing is done by itself.

use std::convert::Infallible;
use std::fs::OpenOptions;
use std::time::Duration;

use antecede_server::{Quarantine, RunningServer};
use anyhow::{Context, bail};

use crate::unsent::found::Found;
use crate::unsent::replay::{Target, execute};

/// How often it is tried.
const TRY_EVERY: Duration = Duration::from_secs(1);

/// Executes again all that is in quarantine; then, or if nothing is, it waits until it is dropped.
pub(super) async fn replay(server: &RunningServer) -> Infallible {
    let own = |found: &Quarantine| !found.is_replayed && !found.newest.is_empty();
    for quarantine in server.quarantines().iter().filter(|found| own(found)) {
        let (node, folder) = (server.node(), quarantine.folder.display());
        let mut last = String::new();
        loop {
            if server.is_ready() {
                match one(server, quarantine).await {
                    Ok(words) => {
                        tracing::info!(%node, "what was never sent, in {folder}, is executed again: {words}");
                        break;
                    }
                    Err(error) if last != format!("{error:#}") => {
                        last = format!("{error:#}");
                        tracing::warn!(%node, "what was never sent, in {folder}, cannot be executed again yet: {last}");
                    }
                    Err(_) => {}
                }
            }
            tokio::time::sleep(TRY_EVERY).await;
        }
    }
    std::future::pending().await
}

async fn one(server: &RunningServer, quarantine: &Quarantine) -> anyhow::Result<String> {
    let admins = admins_of(server)?;
    let found = Found::in_folders(std::slice::from_ref(&quarantine.folder), &admins).await?;
    if !found.is_gone {
        bail!("not all nodes know yet that datacenter {} is gone", quarantine.number);
    }
    let found = found.of_shards(&quarantine.newest);
    let path = quarantine.journal();
    let journal = OpenOptions::new().append(true).create(true).open(&path);
    let mut journal = journal.with_context(|| format!("cannot write {}", path.display()))?;
    let to = server.client_address().to_string();
    let at = Target { to: &to, password: server.config().password.as_deref(), admins: &admins };
    let counts = execute(&found, &at, false, &mut journal).await?;
    quarantine.set_replayed().context("cannot note that it is done")?;
    Ok(format!("{}; what became of each is in {}", counts.to_text(), path.display()))
}

/// The admin ports of all nodes of the datacenter.
fn admins_of(server: &RunningServer) -> anyhow::Result<Vec<String>> {
    let (config, own) = (server.config(), server.node());
    let here = config.nodes().filter(|(node, _)| node.datacenter == own.datacenter);
    let admin = |(node, addresses): (_, &antecede_server::config::NodeAddresses)| {
        let running = server.admin_address().filter(|_| node == own).map(|at| at.to_string());
        let admin = running.or_else(|| addresses.admin.clone());
        admin.with_context(|| {
            format!(
                "node {node} has no admin port: give all nodes of the datacenter one, or run antecede \
                 unsent replay"
            )
        })
    };
    here.map(admin).collect()
}
