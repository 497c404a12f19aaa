//! The stage on which tests of real processes play: the built binary, clients, faults, figures.
//!
//! A test takes a `Stage` first: a folder that is removed at the end, and its turn on this
//! machine. On it it starts `Process`es, which are ended by their id when they go out of scope,
//! and whose output is printed if the test fails. Whatever a test waits for, it waits for with a
//! deadline (`patience`).
//!
//! Assumes: the release binary is built; without it every test fails with the line that builds it.
//! Limits: needs Linux (`/proc`); tests that mount a small file system or make network namespaces
//! need to be root.

/// Where the binary is, and running it to its end.
pub mod binary;
/// Three datacenters in one process.
pub mod demo;
/// One datacenter of one node.
pub mod dev;
/// An etcd of one member.
pub mod etcd;
/// Syncs that fail.
pub mod failing_sync;
/// Questions to admin ports.
pub mod http;
/// What is recorded of a load, and what the judge says of it.
pub mod judged;
/// Load with a history.
pub mod load;
/// A network of namespaces, whose ways can be cut.
pub mod network;
/// Three datacenters of several nodes, a process each.
pub mod nodes;
/// Waiting for conditions.
pub mod patience;
/// Free ports.
pub mod ports;
/// A running binary.
pub mod process;
/// A client that says any bytes.
pub mod resp;
/// What the environment says.
pub mod settings;
/// A small disk that can be filled.
pub mod small_disk;
/// A folder, and a turn on this machine.
pub mod stage;

pub use demo::Demo;
pub use dev::Dev;
pub use network::Network;
pub use nodes::Nodes;
pub use patience::{eventually, watch, within};
pub use process::Process;
pub use resp::{Client, Reply};
pub use small_disk::SmallDisk;
pub use stage::Stage;

/// Prints what was measured, for whoever looks at a run.
pub fn tell(figure: &str) {
    #[expect(clippy::print_stdout, reason = "test runners show it on request")]
    {
        println!("{figure}");
    }
}
