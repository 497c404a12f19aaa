//! Runs the simulator from the command line: fresh seeds, known seeds, replays, shrinking.
//!
//! Seeds run in processes of their own, so that a broken assertion, which ends a process, still
//! tells its seed.

use std::{
    collections::BTreeSet,
    hash::{BuildHasher, Hasher, RandomState},
    io::Write,
    process::ExitCode,
};

use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand};
use sim::{
    plan::{Checkpoints, Control, Cutback, Members, Memory, Plan},
    profiles::Profile,
    run, script,
    trace::Trace,
};

/// An eighth of the time would go to the system's allocator.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Where seeds are handed to processes.
mod work;

/// Takes away what a failure does not need.
mod shrink;

/// Whole deployments in virtual time, from one seed.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    /// The first seed; drawn if it is not given.
    #[arg(long)]
    seed: Option<u64>,
    /// How many seeds to run.
    #[arg(long)]
    seeds: Option<u64>,
    /// For how many minutes to run seeds.
    #[arg(long, conflicts_with = "seeds")]
    minutes: Option<u64>,
    /// How many processes to run them in.
    #[arg(long, default_value_t = 1)]
    jobs: u64,
    /// Go on after a failure, and tell all failing seeds in the end.
    #[arg(long)]
    keep_going: bool,
    #[command(flatten)]
    choice: Choice,
}

/// What is run, apart from the seed.
#[derive(Clone, Debug, Default, Args)]
struct Choice {
    /// Seek one kind of trouble, whatever the seed says: mixed, gc-race, ticks, ...
    #[arg(long, global = true)]
    profile: Option<String>,
    /// Who says which replicas serve: drawn, fixed (nobody), managed, leases (managed, with nothing
    /// but nodes that fall silent), moves (that, and many nodes that shall hold nothing for a while).
    #[arg(long, global = true, default_value = "drawn")]
    control: String,
    /// Whether nodes take checkpoints: drawn, off, on.
    #[arg(long, global = true, default_value = "drawn")]
    checkpoints: String,
    /// Whether datacenters are added, removed or lost: drawn, off, on, late (and some
    /// nodes hear late of it), grown (all but the first are added).
    #[arg(long, global = true, default_value = "drawn")]
    members: String,
    /// Whether nodes that take checkpoints keep some values on disk only: drawn, off, on.
    #[arg(long, global = true, default_value = "drawn")]
    memory: String,
    /// Leave out these faults, by number.
    #[arg(long, global = true, value_delimiter = ',')]
    without_faults: Vec<usize>,
    /// Leave out these clients, by number.
    #[arg(long, global = true, value_delimiter = ',')]
    without_clients: Vec<u32>,
    /// Let each client send at most so many commands.
    #[arg(long, global = true)]
    operations: Option<u32>,
    /// Switch on a deliberate bug.
    #[cfg(feature = "mutations")]
    #[arg(long, global = true)]
    mutation: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Shows what a seed's run does, line by line.
    Replay {
        /// The seed.
        seed: u64,
    },
    /// Runs each seed twice and compares the traces byte for byte.
    Twice {
        /// The seeds.
        #[arg(required = true)]
        seeds: Vec<u64>,
    },
    /// Takes away faults, clients and commands for as long as the run still fails.
    Shrink {
        /// The seed.
        seed: u64,
    },
    /// Runs the seeds that once found something.
    Seeds,
    /// Crashes each node of a short script at each of its outputs, one run for each.
    Crashes {
        /// What the script is drawn from.
        seed: u64,
        /// Take one output of so many.
        #[arg(long, default_value_t = 1)]
        every: usize,
    },
    /// Shows what a seed's run consists of.
    Plan {
        /// The seed.
        seed: u64,
    },
    /// Runs seeds one after the other; for the processes of the simulator itself.
    #[command(hide = true)]
    Work {
        /// The first seed.
        #[arg(long)]
        first: u64,
        /// How far apart the seeds are.
        #[arg(long)]
        every: u64,
        /// How many.
        #[arg(long)]
        count: u64,
    },
    /// Runs every deliberate bug against its scenario.
    #[cfg(feature = "mutations")]
    Mutations {
        /// Only this one.
        name: Option<String>,
    },
}

/// The seeds that once found something, a number a line, then what it found.
const KNOWN_SEEDS: &str = include_str!("../seeds.txt");

fn main() -> anyhow::Result<ExitCode> {
    let cli = Cli::parse();
    let choice = cli.choice;
    match cli.command {
        None => work::fresh(
            &choice,
            &work::Extent {
                first: cli.seed.unwrap_or_else(draw_seed),
                count: cli
                    .seeds
                    .unwrap_or_else(|| if cli.minutes.is_some() { u64::MAX } else { 1 }),
                minutes: cli.minutes,
                jobs: cli.jobs.max(1),
                keeps_going: cli.keep_going,
            },
        ),
        Some(Command::Replay { seed }) => replay(&choice, seed),
        Some(Command::Twice { seeds }) => twice(&choice, &seeds),
        Some(Command::Shrink { seed }) => shrink::shrink(&choice, seed),
        Some(Command::Seeds) => known(&choice),
        Some(Command::Crashes { seed, every }) => crashes(seed, every.max(1)),
        Some(Command::Plan { seed }) => {
            say(&format!("{:#?}", choice.plan(seed)?));
            Ok(ExitCode::SUCCESS)
        }
        Some(Command::Work { first, every, count }) => work::work(&choice, first, every, count),
        #[cfg(feature = "mutations")]
        Some(Command::Mutations { name }) => mutations(name.as_deref()),
    }
}

/// Prints a line; where nobody listens any more there is nobody to tell.
fn say(line: &str) {
    drop(writeln!(std::io::stdout().lock(), "{line}"));
}

/// A seed that nobody has chosen.
fn draw_seed() -> u64 {
    RandomState::new().build_hasher().finish() >> 24
}

impl Choice {
    /// The plan of a seed.
    fn plan(&self, seed: u64) -> anyhow::Result<Plan> {
        let control = match self.control.as_str() {
            "drawn" | "" => Control::Drawn,
            "fixed" => Control::Fixed,
            "managed" => Control::Managed,
            "leases" => Control::Leases,
            "moves" => Control::Moves,
            other => {
                bail!(
                    "there is no control `{other}`; there are drawn, fixed, managed, leases, moves"
                )
            }
        };
        let profile = match &self.profile {
            None => Plan::profile_of(seed),
            Some(name) => named(name)?,
        };
        let checkpoints = match self.checkpoints.as_str() {
            "drawn" | "" => Checkpoints::Drawn,
            "off" => Checkpoints::Off,
            "on" => Checkpoints::On,
            other => bail!("there are no checkpoints `{other}`; there are drawn, off, on"),
        };
        let members = match self.members.as_str() {
            "drawn" | "" => Members::Drawn,
            "off" => Members::Off,
            "on" => Members::On,
            "late" => Members::Late,
            "grown" => Members::Grown,
            other => bail!("there are no members `{other}`; there are drawn, off, on, late, grown"),
        };
        let mut plan = Plan::drawn(seed, profile, control);
        plan.draw_checkpoints(checkpoints);
        plan.draw_members(members);
        plan.draw_memory(match self.memory.as_str() {
            "drawn" | "" => Memory::Drawn,
            "off" => Memory::Off,
            "on" => Memory::On,
            other => bail!("there is no memory `{other}`; there are drawn, off, on"),
        });
        #[cfg(feature = "mutations")]
        let plan = match &self.mutation {
            None => plan,
            Some(name) => sim::mutations::with(plan, name)
                .with_context(|| format!("there is no deliberate bug `{name}`"))?,
        };
        Ok(plan.cut_back(&self.cutback()))
    }

    fn cutback(&self) -> Cutback {
        Cutback {
            faults: self.without_faults.iter().copied().collect::<BTreeSet<_>>(),
            clients: self.without_clients.iter().copied().collect::<BTreeSet<_>>(),
            operations: self.operations,
        }
    }

    /// The same choice as arguments of a command.
    fn arguments(&self) -> Vec<String> {
        let mut arguments = Vec::new();
        let mut add = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                arguments.push(format!("--{name}={value}"));
            }
        };
        fn list<T: ToString>(items: &[T]) -> Option<String> {
            let texts: Vec<String> = items.iter().map(T::to_string).collect();
            (!texts.is_empty()).then(|| texts.join(","))
        }
        add("profile", self.profile.clone());
        add("control", Some(self.control.clone()).filter(|control| !control.is_empty()));
        add("checkpoints", Some(self.checkpoints.clone()).filter(|word| !word.is_empty()));
        add("members", Some(self.members.clone()).filter(|word| !word.is_empty()));
        add("memory", Some(self.memory.clone()).filter(|word| !word.is_empty()));
        add("without-faults", list(&self.without_faults));
        add("without-clients", list(&self.without_clients));
        add("operations", self.operations.map(|most| most.to_string()));
        #[cfg(feature = "mutations")]
        add("mutation", self.mutation.clone());
        arguments
    }
}

fn named(name: &str) -> anyhow::Result<Profile> {
    let names: Vec<&str> = Profile::ALL.iter().map(|profile| profile.name()).collect();
    Profile::named(name)
        .with_context(|| format!("there is no profile `{name}`; there are {}", names.join(", ")))
}

fn replay(choice: &Choice, seed: u64) -> anyhow::Result<ExitCode> {
    let plan = choice.plan(seed)?;
    say(&format!("seed {seed}, profile {}, {:?}", plan.profile.name(), plan.shape));
    let outcome = run::run(plan, Trace::Printed);
    tell(seed, &outcome);
    Ok(if outcome.failure.is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn tell(seed: u64, outcome: &run::Outcome) {
    let tally = &outcome.tally;
    let counts = format!(
        "{} operations ({} served), {} faults, {} epochs, {} checkpoints, {} values \
         forgotten ({} loaded), {} rounds held up, {} returned, {} writes given up, \
         {} bits changed on disks ({} refused, {} taken for a torn end, {} of them in what was synced; {} folders \
         set aside, {} restored), {} messages, {} records, {} virtual seconds",
        tally.operations,
        tally.served,
        tally.faults,
        tally.epochs,
        tally.checkpoints,
        tally.forgotten,
        tally.loads,
        tally.held_up,
        tally.returned,
        tally.given_up,
        tally.rotten,
        tally.refused,
        tally.torn,
        tally.cut_short,
        tally.set_aside,
        tally.restored,
        tally.messages,
        tally.records,
        tally.virtual_time / sim::moment::SECOND
    );
    match &outcome.failure {
        None => say(&format!("seed {seed} passed: {counts}")),
        Some(failure) => say(&format!("seed {seed} FAILED {failure}\n({counts})")),
    }
}

fn twice(choice: &Choice, seeds: &[u64]) -> anyhow::Result<ExitCode> {
    for seed in seeds {
        let once = run::run(choice.plan(*seed)?, Trace::Kept(String::new()));
        let again = run::run(choice.plan(*seed)?, Trace::Kept(String::new()));
        if once.trace.is_empty() {
            bail!("seed {seed} left no trace");
        }
        if once.trace != again.trace {
            let differs = once.trace.lines().zip(again.trace.lines()).find(|(one, two)| one != two);
            say(&format!("seed {seed} ran differently the second time: {differs:?}"));
            return Ok(ExitCode::FAILURE);
        }
        say(&format!("seed {seed}: two traces of {} bytes are the same", once.trace.len()));
    }
    Ok(ExitCode::SUCCESS)
}

fn crashes(seed: u64, every: usize) -> anyhow::Result<ExitCode> {
    let outputs = script::outputs(seed).map_err(|failure| anyhow::anyhow!("{failure}"))?;
    for (node, count) in outputs {
        let mut taken = 0_u64;
        for output in (1..=count).step_by(every) {
            if let Err(failure) = script::crash_at(seed, node, output) {
                say(&format!("{node} crashes at its output {output}: FAILED {failure}"));
                return Ok(ExitCode::FAILURE);
            }
            taken += 1;
        }
        say(&format!("{node}: {taken} of {count} outputs passed"));
    }
    Ok(ExitCode::SUCCESS)
}

fn known(choice: &Choice) -> anyhow::Result<ExitCode> {
    for line in KNOWN_SEEDS.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'))
    {
        let word = line.split_whitespace().next().unwrap_or_default();
        let seed: u64 = word.parse().with_context(|| format!("`{word}` is no seed"))?;
        let extent =
            work::Extent { first: seed, count: 1, minutes: None, jobs: 1, keeps_going: false };
        // What a seed means changes when there is more to draw; without managers it changes less.
        let choices = [
            ("fixed", "off", "off"),
            ("managed", "off", "off"),
            ("managed", "on", "off"),
            ("managed", "on", "on"),
        ];
        for (control, checkpoints, members) in choices {
            let memory = checkpoints.to_owned();
            let [control, checkpoints, members] =
                [control, checkpoints, members].map(str::to_owned);
            let choice = Choice { control, checkpoints, members, memory, ..choice.clone() };
            let code = work::fresh(&choice, &extent)?;
            if code != ExitCode::SUCCESS {
                return Ok(code);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(feature = "mutations")]
fn mutations(name: Option<&str>) -> anyhow::Result<ExitCode> {
    let mut code = ExitCode::SUCCESS;
    for row in sim::mutations::TABLE.iter().filter(|row| name.is_none_or(|name| row.name == name)) {
        let found = work::first_failure(row)?;
        match found {
            Some((caught, None)) => {
                let (seed, why) = (caught.seed, &caught.why);
                let why: String = why.chars().take(100).collect();
                say(&format!("{:<30} caught at seed {seed}: {why}", row.name));
            }
            Some((caught, Some(without))) => {
                say(&format!(
                    "{:<30} seed {} fails without it, too: {}",
                    row.name, caught.seed, without.why
                ));
                code = ExitCode::FAILURE;
            }
            None => {
                say(&format!("{:<28} NOT CAUGHT in {} seeds", row.name, row.seeds));
                code = ExitCode::FAILURE;
            }
        }
    }
    Ok(code)
}
