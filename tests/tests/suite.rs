//! All suites in one binary: linking is the dearest part of a build.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::type_complexity,
    reason = "tests fail by panicking, with the reason in the message"
)]

mod suite {
    mod attach_frames;
    mod audit;
    mod bad_input;
    mod chaos;
    mod cli;
    mod control_plane;
    mod dev;
    mod drain;
    mod end_to_end;
    mod faults;
    mod graph;
    mod impact;
    mod liveness;
    mod nested_drain;
    mod new_plugin;
    mod operations;
    mod overload;
    mod registry;
    mod rollout;
    mod simulation;
    mod split;
    mod streams;
    mod trace;
}
