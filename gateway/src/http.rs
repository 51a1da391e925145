//! The transport under MCP: connections, what is checked before a request reaches the MCP library,
//! and errors that say in one line what was wrong.

pub mod body;
mod cors;
pub mod envelope;
pub mod front;
pub mod intake;
pub mod listener;
pub mod origin;
pub mod refusal;
pub mod room;
