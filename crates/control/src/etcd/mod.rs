//! The store on etcd: its keys and swaps are etcd's, its beats are heard by one of our own nodes.
//!
//! **Keys.** A key of ours is a key of etcd below a prefix that names the deployment and the
//! datacenter. Its revision is etcd's *version* of the key, which is 1 when it is made and grows by
//! one with each write. A read is linearizable, as etcd's are unless one asks for less: the member
//! that answers has asked a majority first. A swap is a transaction: it compares the version, and
//! writes, or reads what is there. A watch reads, then follows from the revision of what it read;
//! it begins anew when its stream ends, is canceled (as one is whose revision was compacted away),
//! or is silent for a while, so it needs nothing of etcd's history.
//!
//! **Outcomes.** What has no effect when it is repeated is asked of the next member after a lost
//! answer. A swap is not: only where a connection could not be opened, or where etcd says that it
//! refused before it proposed anything, is it tried again. Everything else is an unknown outcome.
//!
//! **Beats.** A write to etcd for each beat would be a synced write of all its members, ten times a
//! second and node; leases of etcd are counted in whole seconds, two at least, and an old leader of
//! etcd that does not know of the new one extends them. So beats do not go through etcd. One of our
//! nodes *listens* (`listener`): which one, says a key, `leader`, that only a swap changes. Its
//! version is the term. A node sends its beat to the listener over the same connections as members
//! of the embedded store use. The listener notes when the beat came, then reads the key `leader`
//! from etcd, linearizable, and confirms the beat only if that still names its own term. In quiet
//! times etcd sees reads only, which touch no disk: one for many beats.
//!
//! What is assumed of a store, and why it holds:
//!
//! - *A lease counted from before the call ends before a later leader can have listened for as
//!   long.* The beat began before the listener's read of the key, which found its own term; so a
//!   later leader's swap of that key comes after it, and it counts its listening from after that.
//! - *What was looked up of beats is still all there was.* It is looked up first and confirmed
//!   after, so no later leader had heard anybody by then.
//! - *An older boot is refused by every later leader.* The newest boot of a node is a key of etcd,
//!   written before the first beat of that boot is confirmed, and read by each leader in its own
//!   term before it confirms anything of that node.
//! - *Time.* No clock of etcd is used, and no two clocks of ours are compared: the listener
//!   subtracts two moments of its own steady clock.
//! - *Who leads is a question of speed only.* Any listener may take the key at any time; then
//!   everybody is heard anew for a whole time before anybody is given up.
//!
//! Assumes: nobody else writes or deletes below the prefix, and etcd is not set back to a copy
//! while nodes run. Deleting a key begins its versions anew.
//! Ensures: what is promised in `store`. All answers come from one cluster of etcd: its number is
//! asked when a connection is opened, and another one is refused.
//! Limits: all keys together are bounded by etcd's own quota; beyond it a swap is refused.

/// What a node asks through.
pub mod client;
/// Connections to etcd's members, and requests over them.
mod connection;
/// A group's keys in etcd.
mod keys;
/// Who hears beats, and is followed by another one.
pub mod listener;
/// etcd's messages.
mod message;

pub use client::{EtcdOptions, EtcdStore};
pub use connection::{ConnectOptions, Credentials, OptionsError, Tls};
pub use keys::Etcd;
pub use listener::{Listener, ListenerOptions, OpenError};
