//! `antecede demo`: three datacenters of three nodes in this process, with real ports and real
//! delays between them.
//!
//! Nodes are those of `serve`: they meet over sockets on this machine, and what a link between two
//! datacenters sends is held back as long as it would be under way. Verbs typed at the prompt cut
//! and delay links, and show what comes of it.

/// Lines that are typed or piped.
mod lines;
/// The anomaly that causal order prevents.
pub(crate) mod photo;
/// Where the nodes are.
mod places;
/// Delays between regions.
mod regions;
/// What a line means.
mod verb;
/// The nodes of this process.
mod world;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use antecede_server::Placement;
use anyhow::Context;
use clap::Args;

use crate::{arguments, ending, screen};
use lines::{Line, Lines};
use regions::Latencies;
use verb::Verb;
use world::World;

/// How long all nodes together may take to be ready.
const READY_TIMEOUT: Duration = Duration::from_secs(60);

/// Three datacenters of three nodes in one process, to try what active-active means.
///
/// Every node takes any Redis client. Links between the datacenters eu-west, us-east and ap-south
/// are as slow as between real regions. Verbs at the prompt cut and delay them: \help.
///
/// Reads verbs from a pipe too. Ends with \quit, Ctrl-C, SIGTERM, --exit-after, or when a pipe that
/// held verbs ends.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  antecede demo
  echo '\\photo' | antecede demo --base-port 7000
  antecede demo --latency 300ms --jitter 20ms --listening-url-file urls.json --exit-after 10m")]
pub(crate) struct DemoOptions {
    /// First port of the first datacenter, the next ones 1000 and 2000 above; by default 6379, or
    /// free ones where these are taken
    #[arg(long, value_name = "PORT")]
    base_port: Option<u16>,
    /// Round trips eu-west/us-east, eu-west/ap-south, us-east/ap-south, or one for all
    #[arg(long, value_name = "TIME[/TIME/TIME]", default_value = "80ms/140ms/180ms")]
    latency: Latencies,
    /// One-way delays vary by at most so much
    #[arg(long, value_parser = arguments::time, default_value = "0ms", value_name = "TIME")]
    jitter: Duration,
    /// Keep data in this folder, one folder for each node; without it everything is in memory
    #[arg(long, value_name = "FOLDER", conflicts_with = "memory")]
    data: Option<PathBuf>,
    /// Keep everything in memory (the default)
    #[arg(long)]
    memory: bool,
    /// When everything is ready write the addresses of all nodes as JSON to this file
    #[arg(long, value_name = "FILE")]
    listening_url_file: Option<PathBuf>,
    /// End after this time
    #[arg(long, value_parser = arguments::time, value_name = "TIME")]
    exit_after: Option<Duration>,
}

/// Runs the command.
///
/// # Errors
/// When the nodes cannot start.
pub(crate) async fn run(
    options: &DemoOptions,
    placement: Option<Placement>,
) -> anyhow::Result<ExitCode> {
    let world = World::start(options, placement).await?;
    let done = present(&world, options).await;
    world.shutdown().await;
    done.map(|()| ExitCode::SUCCESS)
}

async fn present(world: &World, options: &DemoOptions) -> anyhow::Result<()> {
    world.await_ready(READY_TIMEOUT).await?;
    screen::answer(&world.introduction(options.data.as_deref()));
    if let Some(file) = &options.listening_url_file {
        world.write_addresses(file)?;
    }
    let mut lines = Lines::begin().context("cannot read lines")?;
    let end = async {
        match options.exit_after {
            Some(time) => tokio::time::sleep(time).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(end);
    let asked = ending::asked();
    tokio::pin!(asked);
    loop {
        let line = tokio::select! {
            line = lines.next() => line,
            () = &mut end => return Ok(()),
            () = &mut asked => return Ok(()),
        };
        match line {
            Line::Text(text) => {
                let stays = tokio::select! {
                    stays = obey(world, &text) => stays,
                    () = &mut end => return Ok(()),
                    () = &mut asked => return Ok(()),
                };
                if !stays {
                    return Ok(());
                }
                lines.answered();
            }
            Line::End => return Ok(()),
        }
    }
}

/// Does what a line says; whether the demo goes on.
async fn obey(world: &World, text: &str) -> bool {
    match verb::read(text, &world.names()) {
        Ok(None) => {}
        Ok(Some(Verb::Quit)) => return false,
        Ok(Some(verb)) => match world.obey(&verb).await {
            Ok(answer) => screen::answer(&answer),
            Err(error) => screen::note(&format!("{error:#}")),
        },
        Err(message) => screen::note(&message),
    }
    true
}
