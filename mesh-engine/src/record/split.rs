//! The record of a plugin's traffic split.

use mesh_core::revision::Timestamp;
use mesh_core::split::Split;
use serde::{Deserialize, Serialize};

/// Which versions get which shares of a plugin's calls, who says so, why and since when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitRecord {
    /// The shares and test groups; without shares it was cleared.
    pub split: Split,
    /// Who, as far as is known.
    pub by: String,
    /// Why; may be empty.
    pub reason: String,
    /// Since when, by the clock of the coordinator that took it.
    pub since: Timestamp,
}

impl SplitRecord {
    /// The split, if there is one.
    #[must_use]
    pub fn split(&self) -> Option<Split> {
        (!self.split.shares.is_empty()).then(|| self.split.clone())
    }
}
