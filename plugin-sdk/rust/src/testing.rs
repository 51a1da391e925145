//! Runs plugins in a test.
