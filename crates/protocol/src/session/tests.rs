//! Tests of the session against a small imitation of shards.
