//! `antecede nodes`: which nodes of a datacenter hold what; emptying one before it is switched off.
//!
//! Everything is asked of the admin port of one node of the datacenter. A wish is for one node and says
//! how it shall be, so it needs no version: to ask twice is to ask once. Managers move replicas by
//! themselves then; `drain` follows them until the node holds nothing.

use std::io::{BufRead, IsTerminal};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use serde_json::json;

use self::{left_over::LeftOver, told::Nodes};
use crate::{doctor::told::Heard, ending, http, screen};

/// What is left of shards that have lost their data.
pub(crate) mod left_over;
/// What an admin port tells.
mod told;

/// How often the progress is looked at.
const FOLLOW_EVERY: Duration = Duration::from_millis(250);

/// For how long nodes may answer without having heard of the newest configuration.
const HEARD_WITHIN: Duration = Duration::from_secs(10);

/// Which nodes hold what: show, drain, undrain.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Exit status: 0 done; 1 refused or failed; 2 wrong usage.

Examples:
  antecede nodes show --admin 127.0.0.1:7200
  antecede nodes drain 1.3 --plan --admin 127.0.0.1:7200
  antecede nodes drain 1.3 --yes --admin 127.0.0.1:7200
  antecede nodes undrain 1.3 --admin 127.0.0.1:7200
  antecede nodes relight --admin 127.0.0.1:7200
  antecede nodes relight --without 1.3 --yes --admin 127.0.0.1:7200")]
pub(crate) struct NodesOptions {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Clone, Debug, Subcommand)]
enum Chore {
    /// Show what the nodes of a datacenter hold, and which of them shall hold nothing
    Show {
        #[command(flatten)]
        admin: AdminOption,
        /// Print everything as JSON
        #[arg(long)]
        json: bool,
    },
    /// Have a node's replicas copied to others, until it holds nothing and may be switched off
    Drain(Drain),
    /// Let a node hold replicas again; it gets its share by itself
    Undrain {
        /// The node, such as 1.3
        node: String,
        #[command(flatten)]
        admin: AdminOption,
        /// Print what is written down as JSON
        #[arg(long)]
        json: bool,
    },
    /// Let shards that have lost all their data begin again, each with the replica that holds most of
    /// it, which may be nothing; only where there is no other datacenter that has it
    Relight(Relight),
}

#[derive(Clone, Debug, Args)]
struct Relight {
    #[command(flatten)]
    admin: AdminOption,
    /// Nodes that do not answer and are not waited for, separated by commas: what they hold is given up
    #[arg(long, value_delimiter = ',', value_name = "NODE,...")]
    without: Vec<String>,
    /// Do not ask whether to
    #[arg(long)]
    yes: bool,
    /// Print what is written down as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Debug, Args)]
struct Drain {
    /// The node, such as 1.3; it may be down
    node: String,
    #[command(flatten)]
    admin: AdminOption,
    /// Tell what would be done, and what it waits for; changes nothing
    #[arg(long)]
    plan: bool,
    /// Do not ask whether to
    #[arg(long)]
    yes: bool,
    /// Do not wait until it is done
    #[arg(long)]
    no_wait: bool,
    /// Print what is told in the end as JSON
    #[arg(long)]
    json: bool,
}

/// Whom to ask.
#[derive(Clone, Debug, Args)]
struct AdminOption {
    /// Admin port of a node of the datacenter, such as 127.0.0.1:7200; changes are taken from its own
    /// machine only
    #[arg(long, value_name = "URL")]
    admin: String,
}

/// Runs the command.
///
/// # Errors
/// When the admin port does not answer, or refuses.
pub(crate) async fn run(options: &NodesOptions) -> anyhow::Result<ExitCode> {
    match &options.chore {
        Chore::Show { admin, json } => {
            let body = http::get(&admin.admin, "/v1/nodes").await?;
            tell(&body, &admin.admin, *json)
        }
        Chore::Drain(drain) => self::drain(drain).await,
        Chore::Undrain { node, admin, json } => {
            let body = ask(&admin.admin, "/v1/nodes", node, false).await?;
            if *json {
                return tell(&body, &admin.admin, true);
            }
            screen::answer(&format!("{node} may hold replicas again, and gets its share"));
            Ok(ExitCode::SUCCESS)
        }
        Chore::Relight(wanted) => relight(wanted).await,
    }
}

async fn relight(wanted: &Relight) -> anyhow::Result<ExitCode> {
    let Relight { admin: AdminOption { admin }, without, yes, json } = wanted;
    let left = left_over(admin, without).await?;
    let words = left.words();
    if !yes && !is_wanted(&format!("these begin again: {words}; all else is gone for ever"))? {
        screen::note("antecede: nothing was changed");
        return Ok(ExitCode::FAILURE);
    }
    let mut body = String::new();
    for (node, shards) in left.by_node() {
        let wish = json!({ "node": node, "shards": shards });
        body = post(admin, "/v1/nodes/relight", &wish).await?;
    }
    if *json {
        return tell(&body, admin, true);
    }
    screen::answer(&format!("they begin again: {words}"));
    Ok(ExitCode::SUCCESS)
}

/// What is left of shards that have lost their data, once all nodes that hold any of it have heard
/// that it is so, but these.
async fn left_over(admin: &str, without: &[String]) -> anyhow::Result<LeftOver> {
    let mut waited = Duration::ZERO;
    loop {
        let heard = Heard::of(std::slice::from_ref(&admin.to_owned())).await?;
        let told = heard.by_admin.get(admin).and_then(Option::as_ref);
        let told = told.with_context(|| {
            format!("the admin port at {admin} does not tell how it is; is it running?")
        })?;
        let left = LeftOver::of(&heard, &told.datacenter);
        let silent = left.silent_without(without).join(", ");
        if !silent.is_empty() {
            bail!(
                "{silent} may hold more of the shards that have lost their data, and does not \
                 answer: start it first, or give up what it holds (--without {})",
                silent.replace(", ", ",")
            );
        }
        let late = left.late_without(without).join(", ");
        if late.is_empty() {
            if left.is_nothing() {
                bail!("no shard of {} has lost its data: nothing is to be done", told.datacenter);
            }
            return Ok(left);
        }
        if HEARD_WITHIN <= waited {
            bail!(
                "{late} may hold more of the shards that have lost their data, and answers, but has \
                 not heard of that for {} s: see what `antecede doctor` says of it, or give up what \
                 it holds (--without {})",
                HEARD_WITHIN.as_secs(),
                late.replace(", ", ",")
            );
        }
        tokio::time::sleep(FOLLOW_EVERY).await;
        waited += FOLLOW_EVERY;
    }
}

fn tell(body: &str, admin: &str, as_json: bool) -> anyhow::Result<ExitCode> {
    if as_json {
        screen::answer(body.trim_end());
    } else {
        screen::answer(&told(body, admin)?.to_text());
    }
    Ok(ExitCode::SUCCESS)
}

async fn drain(wanted: &Drain) -> anyhow::Result<ExitCode> {
    let Drain { node, admin: AdminOption { admin }, .. } = wanted;
    let planned = ask(admin, "/v1/nodes/plan", node, true).await?;
    let words = told(&planned, admin)?.plan_words(node);
    if wanted.plan {
        if !wanted.json {
            screen::answer(&words);
            screen::answer(&format!("apply:\n  antecede nodes drain {node} --admin {admin}"));
            return Ok(ExitCode::SUCCESS);
        }
        return tell(&planned, admin, true);
    }
    if !wanted.yes && !is_wanted(&words)? {
        screen::note("antecede: nothing was changed");
        return Ok(ExitCode::FAILURE);
    }
    let begun = ask(admin, "/v1/nodes", node, true).await?;
    if wanted.no_wait {
        if wanted.json {
            return tell(&begun, admin, true);
        }
        screen::answer(&told(&begun, admin)?.progress_words(node));
        screen::answer(&format!("antecede nodes show --admin {admin} shows how far it is"));
        return Ok(ExitCode::SUCCESS);
    }
    tokio::select! {
        done = follow(node, admin, wanted.json) => done,
        () = ending::asked() => {
            screen::note(&format!(
                "antecede: it goes on by itself; antecede nodes show --admin {admin} shows how far it is, antecede nodes undrain {node} --admin {admin} ends it"
            ));
            Ok(ExitCode::FAILURE)
        }
    }
}

/// Asks whether to, after it has told what it means.
fn is_wanted(words: &str) -> anyhow::Result<bool> {
    let mut input = std::io::stdin().lock();
    if !input.is_terminal() {
        bail!("nobody is there to be asked; say --yes");
    }
    screen::answer(words);
    screen::answer("Do that? Type yes:");
    let mut line = String::new();
    input.read_line(&mut line).context("cannot read the answer")?;
    Ok(line.trim() == "yes")
}

/// Tells what has changed until the node holds nothing.
async fn follow(node: &str, admin: &str, as_json: bool) -> anyhow::Result<ExitCode> {
    let mut last = String::new();
    loop {
        let asked = http::get(admin, "/v1/nodes").await;
        let words = match asked.and_then(|body| told(&body, admin).map(|now| (body, now))) {
            // What a node knows by itself may be old.
            Ok((_, now)) if !now.is_agreed => "the agreement cannot be reached".to_owned(),
            Ok((body, now)) if now.is_empty(node) => {
                if as_json {
                    return tell(&body, admin, true);
                }
                screen::answer(&format!("{node} holds nothing; it may be switched off"));
                return Ok(ExitCode::SUCCESS);
            }
            Ok((_, now)) if !now.is_drained(node) => {
                screen::note(&format!("antecede: somebody has taken it back: {node} holds on"));
                return Ok(ExitCode::FAILURE);
            }
            Ok((_, now)) => now.progress_words(node),
            Err(error) => format!("{error:#}"),
        };
        if words != last {
            screen::note(&words);
            last = words;
        }
        tokio::time::sleep(FOLLOW_EVERY).await;
    }
}

async fn ask(admin: &str, path: &str, node: &str, is_drained: bool) -> anyhow::Result<String> {
    post(admin, path, &json!({ "node": node, "is_drained": is_drained })).await
}

async fn post(admin: &str, path: &str, wanted: &serde_json::Value) -> anyhow::Result<String> {
    let (status, body) = http::post(admin, path, &wanted.to_string()).await?;
    if status != 200 {
        bail!("{}", body.trim());
    }
    Ok(body)
}

fn told(body: &str, admin: &str) -> anyhow::Result<Nodes> {
    serde_json::from_str(body)
        .with_context(|| format!("{admin} answered something else than what nodes hold"))
}
