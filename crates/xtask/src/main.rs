//! Runs the project's chores: `cargo xtask tidy`, `docs`, `ci`, `setup`, `compare`,
//! `visibility`.
//!
//! Every chore is a folder of its own. What they share is small: `machine` starts processes and is
//! the one place that asks for the time; `say` prints.
//!
//! Nothing here is part of the product, and no crate of the product depends on it.

/// The gate: a table of steps, cheapest first.
mod ci;
/// Speed and memory beside Redis and Valkey, as ratios of one run.
mod compare;
/// The reference, made from the code.
mod docs;
/// Processes, ports and the clock.
mod machine;
/// Lines for the person at the terminal.
mod say;
/// Installs what a bare machine lacks, each with its version.
mod setup;
/// The rules that no compiler knows: start here when `cargo xtask tidy` says no.
mod tidy;
/// How long a write takes until other datacenters show it.
mod visibility;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "Chores of the project", disable_version_flag = true)]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Debug, Subcommand)]
enum Chore {
    /// Check the rules that no compiler knows, and list everything that breaks one.
    Tidy,
    /// Write the reference and the example of a configuration from the code.
    Docs(docs::DocsOptions),
    /// Run the gate: everything that must hold before a change lands.
    Ci(ci::CiOptions),
    /// Install what the gate needs and this machine lacks.
    Setup,
    /// Measure speed and memory beside Redis and Valkey on this machine.
    Compare(compare::CompareOptions),
    /// Measure how long a write takes until other datacenters show it.
    Visibility(visibility::VisibilityOptions),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().chore {
        Chore::Tidy => tidy::run(),
        Chore::Docs(options) => docs::run(&options),
        Chore::Ci(options) => ci::run(&options),
        Chore::Setup => setup::run(),
        Chore::Compare(options) => compare::run(&options),
        Chore::Visibility(options) => visibility::run(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say::line(&format!("xtask: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
