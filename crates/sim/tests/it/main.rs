//! Tests of the simulator itself: that a seed says everything, and that deliberate bugs are caught.

/// The same seed gives the same trace.
mod determinism;

/// A stalled shard does not delay others.
mod visibility;

/// A crash at every output.
mod script;
