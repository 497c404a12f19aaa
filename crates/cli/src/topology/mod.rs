//! `antecede topology`: which datacenters there are; adding, removing and letting go of them.
//!
//! Everything is asked of one node's admin port, of whichever datacenter. `show` tells what is agreed
//! on, `plan` what a change would do, `apply` makes it, for the version that was planned for, and
//! follows it until it is done. What was begun goes on by itself.

use std::collections::BTreeMap;
use std::io::{BufRead, IsTerminal};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use self::told::Topology;
use crate::{ending, http, screen};

/// What a change does, costs and loses.
mod plan;
/// What an admin port tells.
mod told;

/// How often the progress is looked at.
const FOLLOW_EVERY: Duration = Duration::from_millis(500);
/// The exit status of `apply` for a version that is not the present one.
const OUTDATED: u8 = 5;
/// What an admin port answers then.
const PRECONDITION_FAILED: u16 = 412;

/// Which datacenters there are: show, add, remove, let go of one that is far behind.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Exit status: 0 done; 1 refused or failed; 2 wrong usage; 5 the members have
changed since the plan was made, plan again.

Examples:
  antecede topology show --admin 127.0.0.1:7200
  antecede topology plan add ap --id 4 --node 4.1=10.3.0.1:16379 --admin 127.0.0.1:7200
  antecede topology apply add ap --id 4 --node 4.1=10.3.0.1:16379 --version 1 --admin 127.0.0.1:7200
  antecede topology plan remove us --lost --admin 127.0.0.1:7200
  antecede topology plan lapse us --admin 127.0.0.1:7200"
)]
pub(crate) struct TopologyOptions {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Clone, Debug, Subcommand)]
enum Chore {
    /// Show the datacenters, and how far a change has come
    Show {
        #[command(flatten)]
        admin: AdminOption,
        /// Print everything as JSON
        #[arg(long)]
        json: bool,
    },
    /// Tell what a change would do, what it costs and what it loses; changes nothing
    Plan {
        #[command(subcommand)]
        change: PlannedChange,
    },
    /// Make a change that was planned, and follow it until it is done
    Apply {
        #[command(subcommand)]
        change: AppliedChange,
    },
}

/// Whom to ask.
#[derive(Clone, Debug, Args)]
struct AdminOption {
    /// Admin port of a node, such as 127.0.0.1:7200; changes are taken from its own machine only
    #[arg(long, value_name = "URL")]
    admin: String,
}

#[derive(Clone, Debug, Subcommand)]
enum PlannedChange {
    /// Another datacenter
    Add {
        #[command(flatten)]
        wanted: Addition,
        #[command(flatten)]
        admin: AdminOption,
    },
    /// One less
    Remove {
        #[command(flatten)]
        wanted: Removal,
        #[command(flatten)]
        admin: AdminOption,
    },
    /// Let go of one that is far behind, which comes back by itself
    Lapse {
        #[command(flatten)]
        wanted: Lapse,
        #[command(flatten)]
        admin: AdminOption,
    },
}

#[derive(Clone, Debug, Subcommand)]
enum AppliedChange {
    /// Another datacenter
    Add {
        #[command(flatten)]
        wanted: Addition,
        #[command(flatten)]
        how: ApplyOptions,
    },
    /// One less
    Remove {
        #[command(flatten)]
        wanted: Removal,
        #[command(flatten)]
        how: ApplyOptions,
    },
    /// Let go of one that is far behind, which comes back by itself
    Lapse {
        #[command(flatten)]
        wanted: Lapse,
        #[command(flatten)]
        how: ApplyOptions,
    },
}

/// A datacenter that shall be there.
#[derive(Clone, Debug, Args)]
struct Addition {
    /// What people call it
    name: String,
    /// Its number, never used before
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    id: u16,
    /// A node and where other nodes reach it, such as 4.1=10.3.0.1:16379; once for each
    #[arg(long = "node", value_name = "NODE=HOST:PORT", required = true, value_parser = node)]
    nodes: Vec<(u16, u16, String)>,
    /// The datacenter whose data it copies, if not the first that serves
    #[arg(long, value_name = "NAME")]
    from: Option<String>,
}

/// A datacenter that shall be there no more.
#[derive(Clone, Debug, Args)]
struct Removal {
    /// What people call it
    name: String,
    /// It is lost for ever: what it has not sent is given up
    #[arg(long)]
    lost: bool,
}

/// A datacenter that is too far behind.
#[derive(Clone, Debug, Args)]
struct Lapse {
    /// What people call it
    name: String,
}

#[derive(Clone, Debug, Args)]
struct ApplyOptions {
    #[command(flatten)]
    admin: AdminOption,
    /// The version that the plan was made for
    #[arg(long)]
    version: u64,
    /// Do not ask whether to
    #[arg(long)]
    yes: bool,
    /// Do not wait until it is done
    #[arg(long)]
    no_wait: bool,
}

/// A change of the members.
#[derive(Clone, Debug)]
enum Change {
    Add(Addition),
    Remove(Removal),
    Lapse(Lapse),
}

impl Change {
    /// The name of the datacenter that it is about.
    fn name(&self) -> &str {
        match self {
            Self::Add(wanted) => &wanted.name,
            Self::Remove(wanted) => &wanted.name,
            Self::Lapse(wanted) => &wanted.name,
        }
    }

    /// As an admin port takes it.
    ///
    /// # Errors
    /// When nodes are of another datacenter, or one stands there twice.
    fn to_json(&self, version: Option<u64>) -> anyhow::Result<Value> {
        let change = match self {
            Self::Add(wanted) => {
                let mut nodes = BTreeMap::new();
                for (datacenter, number, address) in &wanted.nodes {
                    if *datacenter != wanted.id {
                        bail!(
                            "node {datacenter}.{number} is none of datacenter {}; name its own",
                            wanted.id
                        );
                    }
                    if nodes.insert(number.to_string(), address.clone()).is_some() {
                        bail!("node {datacenter}.{number} is there twice; name it once");
                    }
                }
                let Addition { id, name, from, .. } = wanted;
                json!({ "add": { "id": id, "name": name, "nodes": nodes, "from": from } })
            }
            Self::Remove(Removal { name, lost: false }) => json!({ "remove": { "name": name } }),
            Self::Remove(Removal { name, lost: true }) => {
                json!({ "remove_lost": { "name": name } })
            }
            Self::Lapse(Lapse { name }) => json!({ "lapse": { "name": name } }),
        };
        Ok(json!({ "version": version, "change": change }))
    }

    /// The words behind `plan` and `apply` that say it.
    fn to_words(&self) -> String {
        match self {
            Self::Add(wanted) => {
                let node = |(datacenter, number, address): &(u16, u16, String)| {
                    format!(" --node {datacenter}.{number}={address}")
                };
                let nodes: String = wanted.nodes.iter().map(node).collect();
                let from = wanted.from.as_ref().map(|from| format!(" --from {from}"));
                let Addition { name, id, .. } = wanted;
                format!("add {name} --id {id}{nodes}{}", from.unwrap_or_default())
            }
            Self::Remove(Removal { name, lost: false }) => format!("remove {name}"),
            Self::Remove(Removal { name, lost: true }) => format!("remove {name} --lost"),
            Self::Lapse(Lapse { name }) => format!("lapse {name}"),
        }
    }
}

/// A node and its address.
fn node(text: &str) -> Result<(u16, u16, String), String> {
    let parts = text.split_once('=').and_then(|(node, address)| {
        let (datacenter, number) = node.split_once('.')?;
        Some((datacenter.parse().ok()?, number.parse().ok()?, address.to_owned()))
    });
    parts.ok_or_else(|| "give a node and its address such as 4.1=10.3.0.1:16379".to_owned())
}

/// Runs the command.
///
/// # Errors
/// When the admin port does not answer, or refuses.
pub(crate) async fn run(options: &TopologyOptions) -> anyhow::Result<ExitCode> {
    match options.chore.clone() {
        Chore::Show { admin, json } => show(&admin.admin, json).await,
        Chore::Plan { change } => {
            let (change, admin) = match change {
                PlannedChange::Add { wanted, admin } => (Change::Add(wanted), admin),
                PlannedChange::Remove { wanted, admin } => (Change::Remove(wanted), admin),
                PlannedChange::Lapse { wanted, admin } => (Change::Lapse(wanted), admin),
            };
            plan(&change, &admin.admin).await
        }
        Chore::Apply { change } => {
            let (change, how) = match change {
                AppliedChange::Add { wanted, how } => (Change::Add(wanted), how),
                AppliedChange::Remove { wanted, how } => (Change::Remove(wanted), how),
                AppliedChange::Lapse { wanted, how } => (Change::Lapse(wanted), how),
            };
            apply(&change, &how).await
        }
    }
}

async fn show(admin: &str, as_json: bool) -> anyhow::Result<ExitCode> {
    let body = http::get(admin, "/v1/topology").await?;
    if as_json {
        screen::answer(body.trim_end());
        return Ok(ExitCode::SUCCESS);
    }
    screen::answer(&told(&body, admin)?.to_text());
    Ok(ExitCode::SUCCESS)
}

async fn plan(change: &Change, admin: &str) -> anyhow::Result<ExitCode> {
    let now = topology(admin).await?;
    let wanted = change.to_json(Some(now.version))?;
    let (status, body) = http::post(admin, "/v1/topology/plan", &wanted.to_string()).await?;
    if status != 200 {
        screen::note(&format!("antecede: {}", body.trim()));
        return Ok(ExitCode::from(if status == PRECONDITION_FAILED { OUTDATED } else { 1 }));
    }
    screen::answer(&plan::words_of(change, &now, admin));
    Ok(ExitCode::SUCCESS)
}

async fn apply(change: &Change, how: &ApplyOptions) -> anyhow::Result<ExitCode> {
    let admin = &how.admin.admin;
    let wanted = change.to_json(Some(how.version))?;
    if !how.yes && !is_wanted(change, &topology(admin).await?, admin)? {
        screen::note("antecede: nothing was changed");
        return Ok(ExitCode::FAILURE);
    }
    let (status, body) = http::post(admin, "/v1/topology", &wanted.to_string()).await?;
    if status != 200 {
        screen::note(&format!("antecede: {}", body.trim()));
        return Ok(ExitCode::from(if status == PRECONDITION_FAILED { OUTDATED } else { 1 }));
    }
    let begun = told(&body, admin)?;
    screen::answer(&format!("version {}: {}", begun.version, begun.change_words()));
    if how.no_wait {
        screen::answer(&format!("antecede topology show --admin {admin} shows how far it is"));
        return Ok(ExitCode::SUCCESS);
    }
    tokio::select! {
        done = follow(change, begun.version, admin) => done,
        () = ending::asked() => {
            screen::note(&format!(
                "antecede: it goes on by itself; antecede topology show --admin {admin} shows how far it is"
            ));
            Ok(ExitCode::FAILURE)
        }
    }
}

/// Asks whether to, after it has told what it means.
fn is_wanted(change: &Change, now: &Topology, admin: &str) -> anyhow::Result<bool> {
    let mut input = std::io::stdin().lock();
    if !input.is_terminal() {
        bail!("nobody is there to be asked; say --yes");
    }
    screen::answer(&plan::words_of(change, now, admin));
    screen::answer("Do that? Type yes:");
    let mut line = String::new();
    input.read_line(&mut line).context("cannot read the answer")?;
    Ok(line.trim() == "yes")
}

/// Tells what has changed until nothing of a change is under way any more that began with a version.
async fn follow(change: &Change, begun: u64, admin: &str) -> anyhow::Result<ExitCode> {
    let mut last = String::new();
    loop {
        match topology(admin).await {
            // What a node knows by itself may be old; it is no reason to stop.
            Ok(now) if now.is_agreed => {
                let words = now.progress_words();
                if let Some(words) = end_of(change, begun, &now) {
                    screen::answer(&words);
                    return Ok(ExitCode::SUCCESS);
                }
                if words != last {
                    screen::answer(&words);
                    last = words;
                }
            }
            Ok(now) => tell_once(&mut last, now.unchangeable.unwrap_or_default()),
            Err(error) => tell_once(&mut last, format!("{error:#}")),
        }
        tokio::time::sleep(FOLLOW_EVERY).await;
    }
}

/// How a change has ended; `None` while it is under way. One that has lapsed may be on its way back
/// before anybody looks, and that may take as long as its nodes are away.
fn end_of(change: &Change, begun: u64, now: &Topology) -> Option<String> {
    let name = change.name();
    if let Change::Lapse(_) = change {
        let (version, words) = now.lapse_words(name, begun)?;
        return (now.is_done() || now.change.is_some())
            .then(|| format!("version {version}: {words}"));
    }
    now.is_done().then(|| format!("version {}: {}", now.version, now.end_words(name)))
}

fn tell_once(last: &mut String, words: String) {
    if *last != words {
        screen::note(&format!("antecede: {words}; still trying"));
        *last = words;
    }
}

async fn topology(admin: &str) -> anyhow::Result<Topology> {
    told(&http::get(admin, "/v1/topology").await?, admin)
}

fn told(body: &str, admin: &str) -> anyhow::Result<Topology> {
    serde_json::from_str(body)
        .with_context(|| format!("{admin} answered something else than a topology"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addition() -> Addition {
        Addition {
            name: "ap".to_owned(),
            id: 4,
            nodes: vec![node("4.1=host:1").unwrap(), node("4.2=host:2").unwrap()],
            from: Some("eu".to_owned()),
        }
    }

    #[test]
    fn a_lapse_has_ended_although_the_datacenter_is_on_its_way_back() {
        let change = Change::Lapse(Lapse { name: "old".to_owned() });
        let mut now = told::tests::three();
        assert!(now.change.is_some());
        assert_eq!(end_of(&change, 2, &now), None, "it is lost");
        now.gone[0].successor = Some(7);
        assert!(end_of(&change, 2, &now).unwrap().starts_with("version 2: datacenter old has"));
        assert_eq!(end_of(&change, 3, &now), None, "that was an earlier one");
        let other = Change::Remove(Removal { name: "old".to_owned(), lost: true });
        assert_eq!(end_of(&other, 2, &now), None, "another change is under way");
    }

    #[test]
    fn a_node_is_a_number_and_an_address() {
        assert_eq!(node("4.1=a:b:1"), Ok((4, 1, "a:b:1".to_owned())));
        for wrong in ["4.1", "4=host:1", "4.x=host:1", "=host:1"] {
            assert!(node(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_change_is_told_as_it_was_asked_for() {
        let change = Change::Add(addition());
        assert_eq!(
            change.to_words(),
            "add ap --id 4 --node 4.1=host:1 --node 4.2=host:2 --from eu"
        );
        let json = change.to_json(Some(3)).unwrap();
        assert_eq!(json["change"]["add"]["nodes"]["2"], "host:2");
        assert_eq!(json["version"], 3);
        let lost = Change::Remove(Removal { name: "us".to_owned(), lost: true });
        assert_eq!(lost.to_words(), "remove us --lost");
        assert_eq!(lost.to_json(None).unwrap()["change"]["remove_lost"]["name"], "us");
        let lapse = Change::Lapse(Lapse { name: "us".to_owned() });
        assert_eq!(lapse.to_words(), "lapse us");
        assert_eq!(lapse.to_json(None).unwrap()["change"]["lapse"]["name"], "us");
    }

    #[test]
    fn nodes_of_another_datacenter_are_refused() {
        let foreign = Addition { nodes: vec![node("3.1=host:1").unwrap()], ..addition() };
        assert!(Change::Add(foreign).to_json(None).is_err());
        let twice = vec![node("4.1=host:1").unwrap(), node("4.1=host:2").unwrap()];
        assert!(Change::Add(Addition { nodes: twice, ..addition() }).to_json(None).is_err());
    }
}
