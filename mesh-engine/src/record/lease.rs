//! The record of the one coordinator that may evict nodes.

use std::collections::BTreeMap;

use mesh_core::id::NodeId;
use mesh_core::revision::Timestamp;
use serde::{Deserialize, Serialize};

/// Who may evict nodes, and what it has decided. It is written by compare-and-set like all records: who
/// has not seen the newest one can't decide anything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseRecord {
    /// The coordinator that holds it.
    pub holder: NodeId,
    /// When that coordinator was started, in milliseconds since 1970.
    pub run: u64,
    /// How often it was taken.
    pub term: u64,
    /// When it was taken last, by the holder's clock; 0: not known.
    #[serde(default)]
    pub since: Timestamp,
    /// Number of this write, unique within the run: it shows when it was sent.
    pub write: u64,
    /// How long it lasts, in milliseconds.
    pub lease_ms: u64,
    /// Nodes that are evicted, each with the sequence of the record that is to be deleted: one that has
    /// changed since is another's.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub evicted: BTreeMap<NodeId, u64>,
}
