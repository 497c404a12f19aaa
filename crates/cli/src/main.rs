//! The command `antecede`: everything that there is, in one binary.
//!
//! Each subcommand is a module with its options and one function `run`. What they share is small:
//! `screen` prints, `client` speaks the Redis protocol, `http` asks admin ports, `ending` waits for
//! signals.
//!
//! Exit status: 0 done, 1 failed, 2 used wrongly.

/// What is typed behind options.
mod arguments;
/// `antecede bench`.
mod bench;
/// `antecede check`.
mod check;
/// A client of the Redis protocol.
mod client;
/// Ctrl-C and SIGTERM.
mod ending;
/// Questions to admin ports.
mod http;
/// What is printed.
mod screen;

use std::future::Future;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// An active-active, geo-replicated key-value store that speaks the Redis protocol.
///
/// No one ever sees an effect before its cause.
#[derive(Debug, Parser)]
#[command(name = "antecede", version, propagate_version = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
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
    let done = match &arguments.command {
        Command::Bench(options) => with_runtime(bench::run(options)),
        Command::Check(options) => check::run(options),
    };
    done.unwrap_or_else(|error| {
        screen::note(&format!("antecede: {error:#}"));
        ExitCode::from(if error.is::<arguments::UsageError>() { 2 } else { 1 })
    })
}

/// Runs a command on a runtime with one thread for each core.
fn with_runtime<F: Future<Output = anyhow::Result<ExitCode>>>(
    command: F,
) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start a runtime")?;
    runtime.block_on(command)
}
