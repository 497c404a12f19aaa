//! The command `antecede`: everything that there is, in one binary.
//!
//! Each subcommand is a module with its options and one function `run`. What they share is small:
//! `screen` prints, `client` speaks the Redis protocol, `http` asks admin ports, `ending` waits for
//! signals.
//!
//! Exit status: 0 done, 1 failed, 2 used wrongly; a node that must not go on ends with 3 (its disk has
//! failed: start it again) or 4 (a newer run of it is there: do not); `topology apply` with 5 if the
//! members have changed since the plan was made.

/// What is typed behind options.
mod arguments;
/// `antecede bench`.
mod bench;
/// `antecede check`.
mod check;
/// A client of the Redis protocol.
mod client;
/// `antecede demo`.
mod demo;
/// Nodes laid out on this machine.
mod deployment;
/// `antecede doctor`.
mod doctor;
/// Ctrl-C and SIGTERM.
mod ending;
/// Questions to admin ports.
mod http;
/// Memory in use.
mod memory;
/// `antecede nodes`.
mod nodes;
/// What is printed.
mod screen;
/// `antecede serve`, `antecede dev` and `antecede witness`.
mod serve;
/// `antecede config`.
mod settings;
/// `antecede status`.
mod status;
/// Words in columns.
mod table;
/// Log lines.
mod telemetry;
/// `antecede topology`.
mod topology;
/// `antecede unsent`.
mod unsent;

use std::future::Future;
use std::process::ExitCode;

use antecede_server::{Placement, Workers};
use anyhow::Context;
use clap::{ArgAction, Parser, Subcommand};
use tracing::level_filters::LevelFilter;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// An active-active, geo-replicated key-value store that speaks the Redis protocol.
///
/// No one ever sees an effect before its cause.
#[derive(Debug, Parser)]
#[command(name = "antecede", version, propagate_version = true)]
struct Arguments {
    /// Log more to standard error; -vv still more. ANTECEDE_LOG says it in detail
    #[arg(long, short, global = true, action = ArgAction::Count)]
    verbose: u8,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run three datacenters in this process, to try what active-active means
    Demo(demo::DemoOptions),
    /// Run one datacenter of one node, for a desk
    Dev(serve::DevOptions),
    /// Run one node of a deployment
    Serve(serve::ServeOptions),
    /// Vote in a third place on which datacenters there are
    Witness(serve::WitnessOptions),
    /// Show how a deployment is
    Status(status::StatusOptions),
    /// Tell what is wrong with a deployment, and what mends it
    Doctor(doctor::DoctorOptions),
    /// Show, add and remove datacenters
    Topology(topology::TopologyOptions),
    /// List what a datacenter that is gone never sent, and execute it again
    Unsent(unsent::UnsentOptions),
    /// Show what nodes hold, and empty one before it is switched off
    Nodes(nodes::NodesOptions),
    /// Write, check and show configuration files
    Config(settings::ConfigOptions),
    /// Measure servers that speak the Redis protocol, and record what they answer
    Bench(Box<bench::options::BenchOptions>),
    /// Judge a recorded history by the consistency models
    Check(check::CheckOptions),
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let code = u8::try_from(error.exit_code()).unwrap_or(2);
            drop(error.print());
            return ExitCode::from(code);
        }
    };
    let usual = match arguments.command {
        Command::Serve(_) | Command::Witness(_) => LevelFilter::INFO,
        Command::Demo(_) => LevelFilter::ERROR,
        Command::Dev(_)
        | Command::Status(_)
        | Command::Doctor(_)
        | Command::Topology(_)
        | Command::Unsent(_)
        | Command::Nodes(_)
        | Command::Config(_)
        | Command::Bench(_)
        | Command::Check(_) => LevelFilter::WARN,
    };
    telemetry::begin(usual, arguments.verbose);
    let done = match &arguments.command {
        Command::Demo(options) => with_runtime(|placement| demo::run(options, placement)),
        Command::Dev(options) => with_runtime(|placement| serve::dev(options, placement)),
        Command::Serve(options) => with_runtime(|placement| serve::serve(options, placement)),
        Command::Witness(options) => with_runtime(|_| serve::witness(options)),
        Command::Status(options) => with_runtime(|_| status::run(options)),
        Command::Doctor(options) => with_runtime(|_| doctor::run(options)),
        Command::Topology(options) => with_runtime(|_| topology::run(options)),
        Command::Unsent(options) => with_runtime(|_| unsent::run(options)),
        Command::Nodes(options) => with_runtime(|_| nodes::run(options)),
        Command::Config(options) => settings::run(options),
        Command::Bench(options) => with_runtime(|_| bench::run(options)),
        Command::Check(options) => check::run(options),
    };
    done.unwrap_or_else(|error| {
        screen::note(&format!("antecede: {error:#}"));
        ExitCode::from(if error.is::<arguments::UsageError>() { 2 } else { 1 })
    })
}

/// Runs a command on threads of its own.
fn with_runtime<F: Future<Output = anyhow::Result<ExitCode>>>(
    command: impl FnOnce(Option<Placement>) -> F,
) -> anyhow::Result<ExitCode> {
    let workers = Workers::start().context("cannot start threads")?;
    workers.block_on(command(workers.placement()))
}
