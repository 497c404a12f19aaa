//! Between datacenters: outbox, inbox, dependency checks, cuts.

/// What is applied here, and everywhere.
pub mod cuts;
