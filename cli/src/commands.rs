//! The commands, one file each.

pub mod agent;
pub mod call;
pub mod change;
pub mod completions;
pub mod config;
pub mod coordinator;
pub mod coordinators;
pub mod doctor;
pub mod gateway;
pub mod graph;
pub mod history;
pub mod impact;
pub mod new;
pub mod nodes;
pub mod plugin;
pub mod plugins;
pub mod registry;
pub mod rollout;
pub mod split;
pub mod tools;
pub mod watch;
