//! Installs what the gate needs and this machine lacks, each thing with its version.
//!
//! `NEEDS` is the table: how to see that a thing is there, and the commands that bring it. The same
//! table tells the gate what to print when something is missing. Nothing that is there already is
//! touched, whatever its version: a machine that somebody keeps is theirs.

use std::path::Path;
use std::process::Command;

use anyhow::ensure;

use crate::{machine, say};

/// A thing outside this repository that the gate needs.
#[derive(Debug)]
pub(crate) struct Need {
    pub(crate) name: &'static str,
    /// Ends well when the thing is there.
    probe: &'static [&'static str],
    /// The commands that bring it, in order; run in the root of the checkout.
    install: &'static [&'static str],
}

/// The virtual environment of the Python clients.
pub(crate) const PYTHON: &str = "target/python/bin/python";

pub(crate) const RUSTFMT: Need = Need {
    name: "rustfmt",
    probe: &["cargo", "fmt", "--version"],
    install: &["rustup component add rustfmt"],
};

pub(crate) const CLIPPY: Need = Need {
    name: "clippy",
    probe: &["cargo", "clippy", "--version"],
    install: &["rustup component add clippy"],
};

pub(crate) const NEXTEST: Need = Need {
    name: "cargo-nextest",
    probe: &["cargo", "nextest", "--version"],
    install: &["cargo install --locked cargo-nextest --version 0.9.143"],
};

pub(crate) const CHRT: Need = Need {
    name: "chrt (Debian's util-linux)",
    probe: &["chrt", "--version"],
    install: &["apt-get update -qq && apt-get install -y -qq --no-install-recommends util-linux"],
};

pub(crate) const REDIS: Need = Need {
    name: "redis-server and redis-tools (Debian, 7.0)",
    probe: &[
        "sh",
        "-c",
        "redis-server --version && redis-cli --version && redis-benchmark --version",
    ],
    install: &[INSTALL_REDIS],
};

pub(crate) const ETCD: Need = Need {
    name: "etcd-server (Debian, 3.4)",
    probe: &["etcd", "--version"],
    install: &[INSTALL_ETCD],
};

/// Installs packages of Debian that hold servers. Debian starts a server when it is installed;
/// `policy-rc.d` is Debian's own way to say no, so nothing has to be stopped afterwards. A machine
/// that has such a policy keeps its own.
macro_rules! install_servers {
    ($packages:literal) => {
        concat!(
            "set -e; ",
            "policy=/usr/sbin/policy-rc.d; ",
            "if [ ! -e $policy ]; then ",
            "printf '#!/bin/sh\\nexit 101\\n' > $policy; chmod +x $policy; ",
            "trap 'rm -f $policy' EXIT; ",
            "fi; ",
            "export DEBIAN_FRONTEND=noninteractive; ",
            "apt-get update -qq; ",
            "apt-get install -y -qq --no-install-recommends ",
            $packages
        )
    };
}

const INSTALL_REDIS: &str = install_servers!("redis-server redis-tools");

const INSTALL_ETCD: &str = install_servers!("etcd-server");

pub(crate) const PYTHON_VENV: Need = Need {
    name: "virtual environments of Python",
    probe: &["python3", "-c", "import ensurepip, venv"],
    install: &["apt-get update -qq && apt-get install -y -qq --no-install-recommends python3-venv"],
};

pub(crate) const REDIS_CLIENT_OF_PYTHON: Need = Need {
    name: "redis-py 8.1.0 in target/python",
    probe: &[PYTHON, "-c", "import redis; assert redis.__version__ == '8.1.0'"],
    install: &["python3 -m venv target/python", "target/python/bin/pip install -q redis==8.1.0"],
};

/// The versions stand in `package.json` and its lock file.
pub(crate) const REDIS_CLIENTS_OF_NODE: Need = Need {
    name: "ioredis and node-redis in tests/redis/node_modules",
    probe: &["sh", "-c", "cd tests/redis && npm ls --silent"],
    install: &["npm ci --no-audit --no-fund --prefix tests/redis"],
};

/// Everything, in the order in which it is installed.
const NEEDS: &[&Need] = &[
    &RUSTFMT,
    &CLIPPY,
    &NEXTEST,
    &CHRT,
    &REDIS,
    &ETCD,
    &PYTHON_VENV,
    &REDIS_CLIENT_OF_PYTHON,
    &REDIS_CLIENTS_OF_NODE,
];

impl Need {
    /// Whether the thing is there.
    pub(crate) fn is_met(&self, root: &Path) -> bool {
        let [program, arguments @ ..] = self.probe else { return false };
        machine::succeeds(Command::new(program).args(arguments).current_dir(root))
    }

    /// The lines that install it, as a person would type them.
    pub(crate) fn advice(&self) -> String {
        let lines = self.install.join("` and `");
        format!("{} is missing: run `cargo xtask setup`, or `{lines}`", self.name)
    }
}

/// Installs everything that is not there.
pub(crate) fn run() -> anyhow::Result<()> {
    let root = machine::workspace()?;
    for need in NEEDS {
        if need.is_met(&root) {
            say::line(&format!("setup: {} is here", need.name));
            continue;
        }
        for line in need.install {
            say::line(&format!("setup: {}: {line}", need.name));
            let mut command = Command::new("sh");
            command.args(["-c", line]).current_dir(&root).stdin(std::process::Stdio::null());
            let status = command.status()?;
            ensure!(status.success(), "cannot install {}: `{line}` ended with {status}", need.name);
        }
        ensure!(need.is_met(&root), "{} was installed but does not answer", need.name);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thing_that_does_not_answer_is_missing() {
        let here = Path::new(".");
        let gone = Need { name: "x", probe: &["no-such-program-here"], install: &[] };
        let broken = Need { name: "x", probe: &["false"], install: &[] };
        let there = Need { name: "x", probe: &["true"], install: &[] };
        assert!(!gone.is_met(here) && !broken.is_met(here) && there.is_met(here));
    }
}
