//! Where an instance stands in its life.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What an agent knows of an instance by itself: a fact, from which the state is derived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Its process was started, or is awaited; not yet attached.
    Starting,
    /// Attached, not yet ready.
    Loaded,
    /// Ready to take calls.
    Ready,
    /// Its health check fails or says so; still takes calls.
    Unhealthy,
    /// Ends what runs.
    Draining,
    /// Broke and is not (yet) back.
    Failed,
}

/// Where an instance stands, derived from facts, the graph and operators' wishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InstanceState {
    /// Known, not yet attached.
    Discovered,
    /// Attached, manifest accepted.
    Loaded,
    /// Ready to take calls, but not (yet, or no longer) allowed to.
    Initialized,
    /// Takes calls.
    Active,
    /// A dependency is missing; takes no calls.
    Blocked,
    /// A dependency was lost or health is failing; still takes calls.
    Degraded,
    /// Ends what runs, takes no new calls.
    Draining,
    /// Went in order.
    Unloaded,
    /// Broke, or was refused.
    Failed,
}

impl InstanceState {
    /// All states, in the order of their declaration.
    pub const ALL: [Self; 9] = [
        Self::Discovered,
        Self::Loaded,
        Self::Initialized,
        Self::Active,
        Self::Blocked,
        Self::Degraded,
        Self::Draining,
        Self::Unloaded,
        Self::Failed,
    ];

    /// The state as written in tables, logs and JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Discovered => "discovered",
            Self::Loaded => "loaded",
            Self::Initialized => "initialized",
            Self::Active => "active",
            Self::Blocked => "blocked",
            Self::Degraded => "degraded",
            Self::Draining => "draining",
            Self::Unloaded => "unloaded",
            Self::Failed => "failed",
        }
    }

    /// How well off an instance in this state is; less is better.
    #[must_use]
    pub fn rank(self) -> u8 {
        match self {
            Self::Active => 0,
            Self::Degraded => 1,
            Self::Initialized => 2,
            Self::Blocked => 3,
            Self::Loaded => 4,
            Self::Discovered => 5,
            Self::Draining => 6,
            Self::Failed => 7,
            Self::Unloaded => 8,
        }
    }

    /// Whether calls are routed to an instance in this state.
    #[must_use]
    pub fn takes_calls(self) -> bool {
        matches!(self, Self::Active | Self::Degraded)
    }
}

impl fmt::Display for InstanceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Why a text names no state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "status {0:?} is not known: use discovered, loaded, initialized, active, blocked, degraded, \
     draining, unloaded or failed"
)]
pub struct StateError(pub String);

impl FromStr for InstanceState {
    type Err = StateError;
    fn from_str(text: &str) -> Result<Self, StateError> {
        // The words of a reference system that this one replaces.
        let text = match text {
            "started" => "active",
            "stopped" => "unloaded",
            "error" => "failed",
            other => other,
        };
        Self::ALL
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or_else(|| StateError(text.chars().take(80).collect()))
    }
}
