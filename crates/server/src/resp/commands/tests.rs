//! Holds tests.
