//! `antecede serve` and `antecede dev`: one node until somebody ends it; `antecede witness`: none.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use antecede_server::config::{Config, Layers};
use antecede_server::{
    BeginAtOnce, LinkShaper, Placement, RunningServer, Server, ServerOptions, Witness,
};
use anyhow::{Context, anyhow};
use clap::{Args, ValueEnum};

use crate::{ending, memory, screen};

/// What was never sent is executed again by the node that is back.
mod again;

/// How often a starting node is asked whether it is ready.
const READY_POLL: Duration = Duration::from_millis(5);

/// One node of a deployment, as a configuration file says.
///
/// Later layers override earlier ones: defaults, the file, ANTECEDE_* variables of the environment,
/// --set. Ends on SIGTERM or Ctrl-C after the requests under way are answered.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Exit status: 0 asked to end; 1 cannot start; 2 wrong usage; 3 the disk
has failed, start it again once that is seen to; 4 a newer run of this node is there, do not.

See antecede config for files: example, generate, check, show.")]
pub(crate) struct ServeOptions {
    /// The configuration file
    #[arg(long, short, value_name = "FILE")]
    config: PathBuf,
    /// Override one key, such as limits.maxmemory=1GiB; may be given several times
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = setting)]
    settings: Vec<(String, String)>,
    /// Begin with an empty folder without hearing from others
    ///
    /// A member of an agreement that has no file begins, and votes, only once all with whom the
    /// agreement begins are there: it may have voted before and lost that. With this it does so
    /// at once. Only when most members have lost their folders, so that what these alone had
    /// decided is lost anyhow, or when one of them will never run. Where nobody decides who serves,
    /// a node with a new folder serves only once all others have said that they do not know it:
    /// with this it serves at once, and ends when one says that it had another folder. May be given
    /// several times.
    #[arg(long, value_name = "WHAT", value_enum)]
    begin_at_once: Vec<Begin>,
}

/// What begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Begin {
    /// The agreement on the chains of the node's datacenter
    Datacenter,
    /// The agreement on which datacenters there are
    Deployment,
    /// The shards of the node, with control.store = "none"
    Data,
}

/// A witness: it votes where datacenters are agreed on, and holds no data.
///
/// Two datacenters have no majority without both; run it in a third place, at the address that
/// control.witness names in the settings of all nodes.
#[derive(Clone, Debug, Args)]
pub(crate) struct WitnessOptions {
    /// The configuration file of any node of the deployment
    #[arg(long, short, value_name = "FILE")]
    config: PathBuf,
    /// The folder of the witness itself
    #[arg(long, value_name = "FOLDER")]
    folder: PathBuf,
    /// Begin as an empty member without the other founders; see antecede serve --help
    #[arg(long)]
    begin_at_once: bool,
}

/// When written records are synced to disk.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum FsyncChoice {
    /// Before a write is acknowledged
    Always,
    /// Every second
    Interval,
    /// When the system likes
    Never,
}

impl FsyncChoice {
    /// As the configuration calls it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Always => "always",
            Self::Interval => "interval",
            Self::Never => "never",
        }
    }
}

/// One datacenter of one node, for a desk: any Redis client can use it at once.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  antecede dev
  antecede dev --port 7000 --data --fsync interval

Keys of the configuration can be set by ANTECEDE_* variables of the environment too.")]
pub(crate) struct DevOptions {
    /// Port for clients, on this machine only; 0 takes a free one
    #[arg(long, short, default_value_t = 6379)]
    port: u16,
    /// Keep data in this folder; without it everything is in memory only
    #[arg(long, value_name = "FOLDER", num_args = 0..=1, default_missing_value = "./data")]
    data: Option<PathBuf>,
    /// When written records are synced to disk
    #[arg(long, value_enum, requires = "data")]
    fsync: Option<FsyncChoice>,
    /// Memory beyond which writes are refused, such as 512MiB
    #[arg(long, value_name = "SIZE")]
    maxmemory: Option<String>,
    /// Clients must say this with AUTH
    #[arg(long)]
    password: Option<String>,
    /// Port for /metrics, /healthz and /v1/status; 0 takes a free one
    #[arg(long, value_name = "PORT")]
    admin_port: Option<u16>,
}

/// A key and its value.
pub(crate) fn setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => {
            Ok((key.trim().to_owned(), value.trim().to_owned()))
        }
        Some(_) | None => Err("give KEY=VALUE such as limits.maxmemory=1GiB".to_owned()),
    }
}

/// Runs `serve`.
///
/// # Errors
/// When the configuration is wrong, or the node cannot start.
pub(crate) async fn serve(
    options: &ServeOptions,
    placement: Option<Placement>,
) -> anyhow::Result<ExitCode> {
    let layers = Layers::of_process(Some(&options.config), options.settings.clone())?;
    let mut config = Config::load(&layers)?;
    // The same for as long as the process runs: what was shaped stays so, and nothing is missed.
    let shaper = LinkShaper::default();
    let asked = ending::asked();
    tokio::pin!(asked);
    let mut begin_at_once = BeginAtOnce {
        datacenter: options.begin_at_once.contains(&Begin::Datacenter),
        deployment: options.begin_at_once.contains(&Begin::Deployment),
        data: options.begin_at_once.contains(&Begin::Data),
    };
    loop {
        let server = start(config, placement.clone(), shaper.clone(), begin_at_once).await?;
        begin_at_once = BeginAtOnce::default();
        tracing::info!(client = %server.client_address(), "serving");
        let lapse = tokio::select! {
            () = &mut asked => return end(server).await,
            lapse = server.lapsed() => lapse,
            never = again::replay(&server) => match never {},
        };
        let present = server.config().clone();
        server.shutdown().await;
        let next = lapse.put_aside(&present);
        config =
            next.context("cannot put aside what belongs to the old number of its datacenter")?;
    }
}

/// Runs `dev`.
///
/// # Errors
/// When the node cannot start.
pub(crate) async fn dev(
    options: &DevOptions,
    placement: Option<Placement>,
) -> anyhow::Result<ExitCode> {
    let layers = Layers::of_process(None, dev_settings(options))?;
    let server =
        start(Config::load(&layers)?, placement, LinkShaper::default(), BeginAtOnce::default())
            .await?;
    let address = server.client_address();
    let keeping = match &server.config().storage.folder {
        Some(folder) => format!("data in {}", folder.display()),
        None => "data in memory only, lost at the end (--data keeps it)".to_owned(),
    };
    screen::answer(&format!("antecede dev: listening on {address}, {keeping}"));
    if let Some(admin) = server.admin_address() {
        screen::answer(&format!("admin port: http://{admin}/v1/status"));
    }
    screen::answer(&format!("try: redis-cli -p {} SET hello world", address.port()));
    until_asked(server).await
}

/// Runs `witness`.
///
/// # Errors
/// When the configuration is wrong, or the witness cannot start or go on.
pub(crate) async fn witness(options: &WitnessOptions) -> anyhow::Result<ExitCode> {
    let config = Config::load(&Layers::of_process(Some(&options.config), Vec::new())?)?;
    let witness = Witness::start(&config, &options.folder, options.begin_at_once)
        .await
        .context("cannot start the witness")?;
    tokio::select! {
        why = witness.vote() => Err(anyhow!("the witness cannot go on: {why}")),
        () = ending::asked() => {
            witness.stop().await;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// The options as keys of the configuration.
fn dev_settings(options: &DevOptions) -> Vec<(String, String)> {
    let mut settings = vec![("listen.client", format!("127.0.0.1:{}", options.port))];
    if let Some(port) = options.admin_port {
        settings.push(("listen.admin", format!("127.0.0.1:{port}")));
    }
    if let Some(folder) = &options.data {
        settings.push(("storage.folder", folder.display().to_string()));
    }
    if let Some(fsync) = options.fsync {
        settings.push(("storage.fsync", fsync.name().to_owned()));
    }
    if let Some(size) = &options.maxmemory {
        settings.push(("limits.maxmemory", size.clone()));
    }
    if let Some(password) = &options.password {
        settings.push(("security.password", password.clone()));
    }
    settings.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

async fn start(
    config: Config,
    placement: Option<Placement>,
    shaper: LinkShaper,
    begin_at_once: BeginAtOnce,
) -> anyhow::Result<RunningServer> {
    let memory_figure = memory::figure();
    let options =
        ServerOptions { memory_figure, shaper, listeners: None, placement, begin_at_once };
    let is_alone = config.peers().next().is_none();
    let server = Server::start(config, options).await.context("cannot start the node")?;
    // With peers, readiness waits for them; whoever starts several nodes asks /readyz.
    if is_alone {
        await_ready(&[&server], Duration::from_secs(60)).await?;
    }
    Ok(server)
}

/// Waits until all of `servers` answer clients.
///
/// # Errors
/// When they take longer than `timeout`.
pub(crate) async fn await_ready(
    servers: &[&RunningServer],
    timeout: Duration,
) -> anyhow::Result<()> {
    let ready = async {
        while !servers.iter().all(|server| server.is_ready()) {
            tokio::time::sleep(READY_POLL).await;
        }
    };
    tokio::time::timeout(timeout, ready).await.map_err(|_| {
        let waiting = servers.iter().filter(|server| !server.is_ready()).count();
        let timeout = humantime::format_duration(timeout);
        anyhow!("{waiting} nodes are not ready after {timeout}; run again with -v to see why")
    })
}

async fn until_asked(server: RunningServer) -> anyhow::Result<ExitCode> {
    ending::asked().await;
    end(server).await
}

async fn end(server: RunningServer) -> anyhow::Result<ExitCode> {
    // Whoever asks twice does not want to wait.
    tokio::select! {
        () = server.leave() => {}
        () = ending::asked() => {}
    }
    server.shutdown().await;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_a_key_and_a_value() {
        let wanted = ("limits.maxmemory".to_owned(), "a=b".to_owned());
        assert_eq!(setting("limits.maxmemory = a=b"), Ok(wanted));
        assert!(setting("limits.maxmemory").is_err());
        assert!(setting("=1").is_err());
    }

    #[test]
    fn every_option_of_dev_is_a_key_that_there_is() {
        let options = DevOptions {
            port: 0,
            data: Some(PathBuf::from("folder")),
            fsync: Some(FsyncChoice::Interval),
            maxmemory: Some("1GiB".to_owned()),
            password: Some("secret".to_owned()),
            admin_port: Some(0),
        };
        let layers = Layers { flags: dev_settings(&options), ..Layers::default() };
        let config = Config::load(&layers).unwrap();
        assert_eq!(config.limits.memory_bytes_max, 1 << 30);
        assert_eq!(config.password.as_deref(), Some("secret"));
        assert_eq!(config.listen.admin.as_deref(), Some("127.0.0.1:0"));
        assert_eq!(config.storage.folder, Some(PathBuf::from("folder")));
    }
}
