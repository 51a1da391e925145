//! The pure decisions of Plugmesh: what is valid, what may run, where a call goes.
//!
//! Nothing here does IO, reads a clock or draws a random number: time and seeds are arguments, and
//! policy is a function from an event to new state and commands.

pub mod budget;
pub mod call;
pub mod capability;
pub mod error;
pub mod hash;
pub mod id;
pub mod manifest;
pub mod outlier;
pub mod revision;
pub mod select;
pub mod split;
pub mod state;
pub mod subject;
pub mod table;
pub mod uri_template;
pub mod version;
