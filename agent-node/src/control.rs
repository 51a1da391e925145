//! The control side: the session with a coordinator, and what it brings.
//!
//! Losing the coordinator changes nothing on this node: the table stays as it is, plugins go on, and
//! what happened meanwhile is told by the next session's announcement.

mod beacon;
mod report;
mod session;
mod states;

pub(crate) use beacon::Beacons;
pub(crate) use session::{Control, follow_coordinators};
