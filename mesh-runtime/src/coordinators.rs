//! The way to a coordinator, the same for agents and gateways: whom to try next and when, and what is
//! said while there is none.
//!
//! It knows addresses and nothing of what is said there.

mod pace;
mod search;
mod standing;

pub use search::{Candidate, Search, candidates};
pub use standing::TableStanding;
