//! `antecede unsent`: what a datacenter that is gone had acknowledged and never sent.
//!
//! It is read from the data folders of its nodes, which do not run and are not changed; nodes of the
//! others tell what of it they have. `list` shows what is left, `replay` executes it again, as new
//! writes, where the key has not been written since.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde::Serialize;

use self::found::{Found, Words};
use crate::{screen, table};

/// Which writes of old folders nobody has.
pub(crate) mod found;
/// Writes that are executed again.
pub(crate) mod replay;

/// What a datacenter that is gone had acknowledged and never sent: list it, execute it again.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Exit status: 0 done; 1 failed, or writes were skipped; 2 wrong usage.

Examples:
  antecede unsent list /var/lib/antecede --admin 10.1.0.1:7200,10.1.0.2:7200
  antecede unsent replay /var/lib/antecede --admin 10.1.0.1:7200 --to 10.1.0.1:6379")]
pub(crate) struct UnsentOptions {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Clone, Debug, Subcommand)]
enum Chore {
    /// Show the writes that no other datacenter has
    List {
        #[command(flatten)]
        source: Source,
        /// Print everything as JSON, with values
        #[arg(long)]
        json: bool,
    },
    /// Execute them again as new writes, where the key has not been written since
    Replay {
        #[command(flatten)]
        source: Source,
        #[command(flatten)]
        how: ReplayOptions,
    },
}

/// Where writes are looked for.
#[derive(Clone, Debug, Args)]
struct Source {
    /// Data folders (storage.folder) of nodes of one datacenter that is gone; one of each chain
    #[arg(required = true, value_name = "FOLDER")]
    folders: Vec<PathBuf>,
    /// Admin ports of all nodes of a datacenter that serves, separated by commas
    #[arg(long, value_delimiter = ',', required = true, value_name = "URL,...")]
    admin: Vec<String>,
}

/// How they are executed.
#[derive(Clone, Debug, Args)]
struct ReplayOptions {
    /// Where a node of the same datacenter takes clients
    #[arg(long, value_name = "HOST:PORT")]
    to: String,
    /// Said with AUTH
    #[arg(long)]
    password: Option<String>,
    /// Execute them also where the key has been written since
    #[arg(long)]
    overwrite: bool,
    /// What became of each key is written to this file, which must not exist
    #[arg(long, value_name = "FILE", default_value = "unsent-journal.jsonl")]
    journal: PathBuf,
}

/// A write as it is listed.
#[derive(Debug, Serialize)]
struct Listed {
    time: String,
    shard: u16,
    stamp: u64,
    is_certain: bool,
    commands: Vec<Words>,
}

/// Runs the command.
///
/// # Errors
/// When a folder cannot be read, or nodes that are needed do not answer.
pub(crate) async fn run(options: &UnsentOptions) -> anyhow::Result<ExitCode> {
    match &options.chore {
        Chore::List { source, json } => {
            let found = Found::in_folders(&source.folders, &source.admin).await?;
            list(&found, *json)?;
            Ok(ExitCode::SUCCESS)
        }
        Chore::Replay { source, how } => {
            let found = Found::in_folders(&source.folders, &source.admin).await?;
            replay::run(&found, &source.admin, how).await
        }
    }
}

fn list(found: &Found, as_json: bool) -> anyhow::Result<()> {
    let listed = found.writes.iter().map(|write| Listed {
        time: found::time_of(write.millis),
        shard: write.shard,
        stamp: write.stamp,
        is_certain: write.is_certain,
        commands: write.effects.iter().filter_map(found::command).collect(),
    });
    let listed: Vec<Listed> = listed.collect();
    if as_json {
        return screen::json(&listed);
    }
    let rows = listed.iter().map(|write| {
        let words = write.commands.iter().map(Words::to_text).collect::<Vec<_>>().join("; ");
        let certain = if write.is_certain { "yes" } else { "perhaps" };
        [write.time.clone(), words, certain.to_owned()]
    });
    let table = table::of(["time", "command", "acknowledged"], rows, usize::MAX);
    let still =
        if found.is_gone { "" } else { "; it is no datacenter that is gone: it may send them yet" };
    screen::answer(&format!(
        "{} writes of datacenter {} are in these folders and nowhere else{still}\n\n{table}",
        listed.len(),
        found.datacenter
    ));
    Ok(())
}
