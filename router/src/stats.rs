//! What a router knows of its own calls, per plugin.

use std::time::Duration;

/// What this router's calls to one plugin came to, since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PluginStats {
    /// Calls that ended.
    pub calls: u64,
    /// Calls that ended with an error.
    pub errors: u64,
    /// Mean time from begin to end of all calls.
    pub mean_latency: Duration,
}
