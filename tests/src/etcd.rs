//! Runs an etcd beside the test, of one member.
//!
//! Ensures: the process is ended by its id and waited for when this goes out of scope.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::ports::base_with_free;
use crate::{Stage, eventually};

/// How long it may take to begin.
const PATIENCE: Duration = Duration::from_secs(30);

/// An etcd.
#[derive(Debug)]
pub struct Etcd {
    /// Where it answers clients.
    pub address: String,
    peer: String,
    folder: std::path::PathBuf,
    child: Option<Child>,
}

/// Whether there is an etcd on this machine.
#[must_use]
pub fn can_run() -> bool {
    let mut command = Command::new("etcd");
    let status = command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

impl Etcd {
    /// Starts it.
    ///
    /// # Panics
    /// If there is none on this machine.
    #[must_use]
    pub fn start(stage: &Stage) -> Self {
        let port = base_with_free(&[0, 1]);
        let at = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port)).to_string();
        let folder = stage.path("etcd");
        let mut etcd = Self { address: at(port), peer: at(port + 1), folder, child: None };
        etcd.restart();
        etcd
    }

    /// Ends it as `kill -9` does.
    pub fn crash(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill()); // It may have ended by itself.
            drop(child.wait());
        }
    }

    /// Starts it again, on the same folder, after it has ended.
    ///
    /// # Panics
    /// If there is none on this machine.
    pub fn restart(&mut self) {
        let (client, peer) = (format!("http://{}", self.address), format!("http://{}", self.peer));
        let child = Command::new("etcd")
            .args(["--logger", "zap", "--data-dir"])
            .arg(&self.folder)
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("default={peer}")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let missing = "there is no etcd; install it with: apt-get install etcd-server";
        self.child = Some(child.unwrap_or_else(|error| panic!("{missing} ({error})")));
        // Until it has its ports, somebody else could be given them.
        eventually("etcd listens", PATIENCE, || {
            [&self.address, &self.peer]
                .into_iter()
                .try_for_each(|address| TcpStream::connect(address).ok().map(drop))
        });
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.crash();
    }
}
