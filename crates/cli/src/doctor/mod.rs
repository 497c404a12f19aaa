//! `antecede doctor`: what is wrong with a deployment, and the command or action that mends it.
//!
//! `told` asks the admin ports, also of nodes that only other nodes name; `findings` says what that
//! means. What a datacenter can still lose is told beside it, since it is wrong only with the next
//! loss.

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use self::{findings::Finding, told::Heard};
use crate::screen;

/// What is wrong, and what to do.
mod findings;
/// What nodes tell.
pub(crate) mod told;

#[cfg(test)]
mod tests;

/// What is wrong with a deployment, and what mends it.
///
/// Asks the admin port of each node (listen.admin in its configuration); one that answers is enough to
/// find the others.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Exit status: 0 nothing is wrong; 1 something is; 2 no node answers, so that \
nobody can tell, or wrong usage."
)]
pub(crate) struct DoctorOptions {
    /// Admin ports, such as 127.0.0.1:7200, separated by commas
    #[arg(long, value_delimiter = ',', required = true, value_name = "URL,...")]
    admin: Vec<String>,
    /// Print everything as JSON
    #[arg(long)]
    json: bool,
}

/// How it is, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Health {
    NothingWrong,
    SomethingWrong,
    Unknown,
}

/// Everything, as `--json` prints it.
#[derive(Clone, Debug, Serialize)]
struct Report {
    health: Health,
    /// How many nodes answered.
    answering: usize,
    /// How many were asked.
    asked: usize,
    findings: Vec<Finding>,
    /// What each datacenter can still lose.
    can_lose: Vec<String>,
}

/// Runs the command.
///
/// # Errors
/// When the answer has no form in JSON.
pub(crate) async fn run(options: &DoctorOptions) -> anyhow::Result<ExitCode> {
    let report = Report::of(&Heard::of(&options.admin).await?);
    if options.json {
        screen::json(&report)?;
    } else {
        screen::answer(&report.to_text());
    }
    Ok(match report.health {
        Health::NothingWrong => ExitCode::SUCCESS,
        Health::SomethingWrong => ExitCode::from(1),
        Health::Unknown => ExitCode::from(2),
    })
}

impl Report {
    fn of(heard: &Heard) -> Self {
        let findings = findings::of(heard);
        let (answering, asked) = (heard.told().count(), heard.by_admin.len());
        let health = match (answering, findings.len()) {
            (0, _) => Health::Unknown,
            (_, 0) => Health::NothingWrong,
            (_, _) => Health::SomethingWrong,
        };
        let can_lose = heard.newest().into_iter().filter_map(|(name, told)| {
            let count = told.can_lose?;
            let (count, nodes) = match count {
                0 => ("no".to_owned(), "node"),
                1 => ("1".to_owned(), "node"),
                _ => (count.to_string(), "nodes"),
            };
            Some(format!("{name} can lose {count} more {nodes}"))
        });
        Self { health, answering, asked, can_lose: can_lose.collect(), findings }
    }

    fn to_text(&self) -> String {
        let Self { answering, asked, .. } = self;
        let mut lines = vec![match self.health {
            Health::NothingWrong => {
                format!("nothing is wrong: {answering} of {asked} nodes answer")
            }
            Health::SomethingWrong => {
                let count = self.findings.len();
                let things = if count == 1 { "thing is" } else { "things are" };
                format!("{count} {things} wrong; {answering} of {asked} nodes answer")
            }
            Health::Unknown => {
                "cannot tell: no node answers; ask from a machine that reaches their admin ports, \
                 or start them"
                    .to_owned()
            }
        }];
        for Finding { kind: _, place, what, action } in &self.findings {
            lines.push(format!("\n{place}: {what}\n  -> {action}"));
        }
        if !self.can_lose.is_empty() {
            lines.push(format!("\n{}", self.can_lose.join("\n")));
        }
        lines.join("\n")
    }
}
