//! Tests with real processes live in `tests/it`.
