//! The keys of one shard: committed state, dirty states above it, and what actions do to them.
