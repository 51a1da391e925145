//! What the engine is told, and what it wants done.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::record::{Facts, Key, Parting, RolloutPlan};
use mesh_core::error::MeshError;
use mesh_core::id::{InstanceId, PluginName};
use mesh_core::manifest::Manifest;
use mesh_core::revision::{Revision, Timestamp};
use mesh_core::split::Group;
use mesh_core::state::Phase;
use mesh_core::table::{NodeRoute, TableUpdate};
use semver::Version;

/// One agent's session at this coordinator, unique within its run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u64);

/// One operator's request at this coordinator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// One write of an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WriteId(pub u64);

/// Something happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// The store begins to tell everything from the start.
    StoreReset {
        /// The bucket's creation in milliseconds since 1970.
        epoch: u64,
        /// The sequence of its last change. Deletions are forgotten in time, so there may be no record
        /// of this sequence.
        last: u64,
    },
    /// A record was stored or deleted.
    Stored {
        /// Its key.
        key: String,
        /// The record; `None`: deleted.
        value: Option<Vec<u8>>,
        /// Its sequence.
        sequence: u64,
        /// When, by the store's clock.
        at: Timestamp,
    },
    /// All that was stored until now has been told.
    StoreCurrent,
    /// The store can't be reached.
    StoreLost,
    /// A write of this engine was stored.
    Written {
        /// The write.
        write: WriteId,
        /// Its key.
        key: Key,
        /// Its sequence.
        sequence: u64,
    },
    /// A write of this engine failed.
    WriteFailed {
        /// The write.
        write: WriteId,
        /// Its key.
        key: Key,
        /// Why.
        error: WriteError,
    },
    /// An agent joins.
    AgentOpened {
        /// Its session.
        session: SessionId,
        /// The node.
        node: NodeRoute,
        /// The revision of the table that it has.
        table: Option<Revision>,
    },
    /// An agent tells all its instances; what is not here is gone.
    AgentAnnounced {
        /// Its session.
        session: SessionId,
        /// The instances.
        reports: Vec<Report>,
    },
    /// An agent tells of one instance.
    AgentReported {
        /// Its session.
        session: SessionId,
        /// The instance.
        report: Report,
    },
    /// An instance of an agent is gone.
    AgentGone {
        /// Its session.
        session: SessionId,
        /// The instance.
        instance: InstanceId,
    },
    /// An agent renews its lease.
    AgentHeartbeat {
        /// Its session.
        session: SessionId,
    },
    /// An agent tells of all its instances what they have counted.
    AgentCounted {
        /// Its session.
        session: SessionId,
        /// The counts.
        counts: Vec<(InstanceId, Tally)>,
    },
    /// An agent has applied a table update.
    AgentAcknowledged {
        /// Its session.
        session: SessionId,
        /// The revision that it has now.
        table: Revision,
    },
    /// Somebody who follows the table has it in this revision.
    TableSeen {
        /// The revision.
        table: Revision,
    },
    /// An agent's stream is down.
    AgentClosed {
        /// Its session.
        session: SessionId,
        /// How, as its coordinator saw it; one that was silent before is found to be so.
        parting: Parting,
    },
    /// An operator wants a change.
    Requested {
        /// The request.
        request: RequestId,
        /// What.
        operation: Operation,
    },
    /// Time has passed. Due several times in a lease and in a grace period.
    Tick,
}

/// What an instance has counted since it attached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Calls that ended.
    pub calls: u64,
    /// Those of them that failed.
    pub errors: u64,
}

/// Why a write failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WriteError {
    /// Another change came first. Nothing was written.
    Conflict,
    /// The store can't be reached. Nothing was written.
    Unavailable(String),
    /// It is not known whether it was written.
    Unknown(String),
    /// The store refuses the record itself. Nothing was written.
    Refused(String),
}

/// What an agent tells of an instance.
#[derive(Debug, Clone)]
pub struct Report {
    /// The instance.
    pub instance: InstanceId,
    /// What it says of itself.
    pub manifest: Arc<Manifest>,
    /// How it is.
    pub phase: Phase,
    /// Why, for a person.
    pub reason: String,
    /// Since when, by the agent's clock; 0: not known.
    pub since: Timestamp,
    /// Calls in flight that its host allows; 0: the router's default.
    pub concurrency: u32,
    /// Its agent can start it again.
    pub supervised: bool,
}

impl Report {
    pub(super) fn facts(&self, route: &NodeRoute) -> Facts {
        Facts {
            node: route.node.clone(),
            generation: route.generation,
            phase: self.phase,
            reason: self.reason.clone(),
            since: self.since,
            concurrency: self.concurrency,
            supervised: self.supervised,
        }
    }
}

/// A change that an operator wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// The plugin.
    pub plugin: PluginName,
    /// What shall be done with it.
    pub change: Change,
    /// Who wants it, as far as is known.
    pub by: String,
    /// Why; may be empty.
    pub reason: String,
    /// Only if the registry's record of it is of this revision still (sequence 0: there is none).
    pub expected: Option<Revision>,
}

/// What shall be done with a plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It takes calls again, and is started again after an unload.
    Enable,
    /// It takes no calls; its processes go on.
    Disable,
    /// It is drained and its processes end.
    Unload {
        /// Those who need it are unloaded, too, before it.
        cascade: bool,
    },
    /// Its versions get these shares of its calls.
    Split {
        /// What each version gets, in relation to the others.
        shares: BTreeMap<Version, u32>,
        /// Requests that prefer a version.
        groups: Vec<Group>,
    },
    /// Its newest version gets all calls again.
    ClearSplit,
    /// A new version gets its calls step by step.
    Rollout(RolloutPlan),
    /// Its rollout ends, and the old versions get all calls again.
    AbortRollout,
}

/// What an operator's change did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Plugins that were changed, in the order of the change.
    pub changed: Vec<PluginName>,
    /// Plugins that lost a dependency by it.
    pub affected: Vec<PluginName>,
    /// What a person should know of it, each as a line.
    pub notes: Vec<String>,
    /// The revision from which on it holds.
    pub revision: Revision,
}

/// What an agent shall do with a plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Drain its instances and end their processes; do not start them again.
    Unload,
    /// Start its processes again if the configuration names them.
    Start,
}

/// Something shall be done.
#[derive(Debug, Clone)]
pub enum Command {
    /// Write a record if its sequence is the expected one; answer with `Written` or `WriteFailed`.
    Write {
        /// The write, for its answer.
        write: WriteId,
        /// The key.
        key: Key,
        /// The record; `None`: delete it.
        value: Option<Vec<u8>>,
        /// The sequence that the key must have; 0: there must be none.
        expected: u64,
    },
    /// The table changed.
    Publish(TableUpdate),
    /// The session is accepted.
    Welcome {
        /// The session.
        session: SessionId,
    },
    /// Ask for an announcement of all instances.
    AskAnnounce {
        /// The session.
        session: SessionId,
    },
    /// An instance is refused.
    Reject {
        /// The session.
        session: SessionId,
        /// The instance.
        instance: InstanceId,
        /// Why.
        error: MeshError,
    },
    /// An agent shall do something with a plugin.
    Directive {
        /// The session.
        session: SessionId,
        /// What.
        action: Action,
        /// The plugin.
        plugin: PluginName,
        /// Why, for a person.
        reason: String,
    },
    /// End a session; no event of it is awaited any more.
    CloseSession {
        /// The session.
        session: SessionId,
        /// Why.
        error: MeshError,
    },
    /// Answer an operator.
    Reply {
        /// The request.
        request: RequestId,
        /// What it did.
        result: Result<Outcome, MeshError>,
    },
    /// Tell the log; nothing is lost.
    Warn(String),
}
