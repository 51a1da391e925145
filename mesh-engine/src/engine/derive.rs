//! Where one instance stands: its agent's word, its description's needs and the operators' wishes,
//! put together.

use std::collections::BTreeSet;

use super::registry::{Slot, SpecState};
use crate::record::{RolloutRecord, Stand, WishRecord};
use mesh_core::id::InstanceId;
use mesh_core::revision::Timestamp;
use mesh_core::state::{InstanceState, Phase};
use mesh_core::table::InstanceRoute;

/// Where an instance stands, as the table shows it and as it is noted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Derived {
    pub route: InstanceRoute,
    /// What shall be noted of it; `None` while it is not ready.
    pub stand: Option<Stand>,
}

/// Whether operators keep a plugin from taking calls.
#[derive(Debug)]
pub(super) enum Hold<'a> {
    /// They don't.
    None,
    /// It is disabled.
    Disabled(&'a WishRecord),
    /// It is being unloaded.
    Unloading(&'a WishRecord),
    /// A rollout has replaced this version.
    Replaced(&'a RolloutRecord),
    /// It will be unloaded when those (`name@version`) have stopped who need it.
    Waiting(BTreeSet<String>),
}

impl Hold<'_> {
    pub fn is_held(&self) -> bool {
        matches!(
            self,
            Self::Disabled(_) | Self::Unloading(_) | Self::Replaced(_)
        )
    }
}

struct Place {
    state: InstanceState,
    stand: Option<Stand>,
    reason: String,
    /// Since when, unless it is noted otherwise.
    since: Timestamp,
}

pub(super) fn derive(id: InstanceId, slot: &Slot, spec: &SpecState, hold: &Hold<'_>) -> Derived {
    let record = &slot.stored.record;
    let place = place(slot, spec, hold);
    let noted = record
        .standing
        .filter(|noted| Some(noted.stand) == place.stand);
    Derived {
        route: InstanceRoute {
            instance: id,
            spec: slot.spec.clone(),
            node: record.facts.node.clone(),
            generation: record.facts.generation,
            state: place.state,
            reason: place.reason,
            since: noted.map_or(place.since, |noted| noted.since),
            concurrency: record.facts.concurrency,
        },
        stand: place.stand,
    }
}

fn place(slot: &Slot, spec: &SpecState, hold: &Hold<'_>) -> Place {
    let facts = &slot.stored.record.facts;
    let given = |otherwise: &str| match facts.reason.as_str() {
        "" => otherwise.to_owned(),
        reason => reason.to_owned(),
    };
    // The agent's own time of the phase, where it gave one.
    let since = if facts.since == Timestamp::default() {
        slot.stored.at
    } else {
        facts.since
    };
    let plain = |state, reason| Place {
        state,
        stand: None,
        reason,
        since,
    };
    let (phase, ready) = match facts.phase {
        Phase::Starting => (
            InstanceState::Discovered,
            "it is started and has not attached yet",
        ),
        Phase::Failed => (InstanceState::Failed, "it broke"),
        Phase::Draining => (InstanceState::Draining, "it ends what runs"),
        Phase::Loaded => (InstanceState::Loaded, "it is attached and not ready yet"),
        Phase::Ready | Phase::Unhealthy => (InstanceState::Active, ""),
    };
    match (phase, hold) {
        (InstanceState::Loaded | InstanceState::Active, Hold::Unloading(wish)) => Place {
            state: InstanceState::Draining,
            stand: (phase == InstanceState::Active).then_some(Stand::Held),
            reason: wished("unloaded", wish),
            since: wish.since,
        },
        (InstanceState::Active, Hold::Disabled(wish)) => Place {
            state: InstanceState::Initialized,
            stand: Some(Stand::Held),
            reason: wished("disabled", wish),
            since: wish.since,
        },
        (InstanceState::Active, Hold::Replaced(rollout)) => Place {
            state: InstanceState::Initialized,
            stand: Some(Stand::Held),
            reason: format!("a rollout has replaced it by {}", rollout.plan.to),
            since: rollout.since,
        },
        (InstanceState::Active, _) => when_ready(slot, spec, hold),
        _ => plain(phase, given(ready)),
    }
}

fn when_ready(slot: &Slot, spec: &SpecState, hold: &Hold<'_>) -> Place {
    let record = &slot.stored.record;
    let in_use = record.standing.is_some_and(|noted| noted.stand.is_in_use());
    let unhealthy = record.facts.phase == Phase::Unhealthy;
    let (state, stand, reason) = match (&spec.ring, hold) {
        _ if spec.met && unhealthy => {
            let reason = match record.facts.reason.as_str() {
                "" => "its health check fails".to_owned(),
                reason => format!("its health is failing: {reason}"),
            };
            (InstanceState::Degraded, Stand::Unhealthy, reason)
        }
        (_, Hold::Waiting(users)) if spec.met => {
            let users: Vec<&str> = users.iter().map(String::as_str).collect();
            let reason = format!("it will be unloaded when {} has stopped", users.join(", "));
            (InstanceState::Active, Stand::Active, reason)
        }
        _ if spec.met => (
            InstanceState::Active,
            Stand::Active,
            "it takes calls".to_owned(),
        ),
        _ if in_use => {
            let reason = format!("it lost a dependency: {}", spec.unmet);
            (InstanceState::Degraded, Stand::Losing, reason)
        }
        (Some(path), _) => {
            let reason = format!("it closes a cycle of dependencies: {path}");
            (InstanceState::Failed, Stand::Blocked, reason)
        }
        _ => (InstanceState::Blocked, Stand::Blocked, spec.unmet.clone()),
    };
    Place {
        state,
        stand: Some(stand),
        reason,
        since: slot.stored.at,
    }
}

fn wished(done: &str, wish: &WishRecord) -> String {
    let by = if wish.by.is_empty() {
        "an operator"
    } else {
        &wish.by
    };
    match wish.reason.as_str() {
        "" => format!("{done} by {by}"),
        reason => format!("{done} by {by}: {reason}"),
    }
}
