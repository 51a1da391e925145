//! The pure decisions of a coordinator: what may run, in which order, and what everybody is told of it.
//!
//! As in `mesh-core`, nothing here does IO, reads a clock or draws a random number. It is a crate of
//! its own because only coordinators, and simulations of them, need it.

pub mod engine;
pub mod record;

#[cfg(test)]
mod tests;
