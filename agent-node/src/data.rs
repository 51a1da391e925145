//! The data path: calls from the bus to plugins and back, and plugins' own calls to the router.
//!
//! All of it runs on one thread. A call costs no task: one task takes requests from the bus, one per
//! stream takes frames from its plugin, and the transport takes frames from each plugin's queue. What
//! they share is the [`Plane`], behind a lock that is held for one frame and never across an await.

mod acts;
mod admission;
mod begin;
mod call;
mod held;
mod inbox;
mod load;
mod local;
mod out;
mod own_calls;
mod pace;
mod path;
mod plane;
mod pulse;
mod reply;
mod stalled;
mod state;
mod stream;
mod sweep;
mod welcome;

pub(crate) use out::OutStream;
pub(crate) use path::DataPath;
pub(crate) use plane::{Plane, PlaneConfig};
pub(crate) use stream::{Streams, open};
pub(crate) use welcome::{CHECKS, Door};

#[cfg(test)]
pub(crate) mod tests;
