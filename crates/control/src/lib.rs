//! The agreement: a small linearizable store in which a datacenter, or the whole deployment, keeps
//! what must be decided once.
//!
//! `store` says what such a store promises; `embedded` keeps the promise with Raft among a few
//! nodes, `etcd` (a feature) with an etcd that runs elsewhere. It is tiny and off the data path: chains go on serving while it is down, until their
//! leases end.
//!
//! Invariant: what is stored are bytes; nothing here knows what a configuration is.

/// What a store of configurations promises, and its errors.
pub mod store;

/// What a leader has heard of nodes.
mod heard;

/// The store among a few nodes of the deployment itself, by Raft.
pub mod embedded;

/// The store on etcd, for those who run one.
#[cfg(feature = "etcd")]
pub mod etcd;

pub use store::{
    Answer, Beat, Beats, ConfigurationStore, Outage, Renewal, Revision, Seen, StoreError, StoreKey,
    Stored, Watch,
};
