//! The supervisor: starts the plugins that the configuration names, watches them, starts them again.
//!
//! One task per process. What people want of a plugin (run, or be unloaded) is a state that these tasks
//! follow. It must not know frames: whether a plugin is attached it reads from the roster.

mod backoff;
mod lines;
mod process;
mod slot;
mod usage;

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh_core::error::MeshError;
use mesh_core::id::{InstanceId, PluginName};
use mesh_runtime::Tasks;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::config::PluginLaunch;
use crate::drain::Drain;
use crate::launch::LaunchBook;
use crate::metrics::AgentMetrics;
use crate::run::Stages;

pub(crate) use usage::{Usage, UsageMeter, processor_time};

/// What the supervisor works with.
#[derive(Debug)]
pub(crate) struct SupervisorConfig {
    /// The plugins.
    pub(crate) plugins: Vec<PluginLaunch>,
    /// What stands before each command.
    pub(crate) launcher: Vec<String>,
    /// Where plugins attach, as they are told.
    pub(crate) agent: String,
    /// Where spans go.
    pub(crate) otlp: Option<String>,
    /// Launch tokens.
    pub(crate) book: LaunchBook,
    /// How instances are drained; the reason is replaced.
    pub(crate) drain: Drain,
    /// Counts.
    pub(crate) metrics: AgentMetrics,
}

/// Plugins that shall not run, and why.
type Unwanted = Arc<BTreeMap<PluginName, String>>;

/// The supervisor. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Supervisor {
    config: Arc<SupervisorConfig>,
    unwanted: watch::Sender<Unwanted>,
}

impl Supervisor {
    pub(crate) fn new(config: SupervisorConfig) -> Self {
        Self {
            config: Arc::new(config),
            unwanted: watch::Sender::new(Arc::default()),
        }
    }

    /// Starts all plugins; their tasks end when the stage of processes is over and they have ended.
    pub(crate) fn start(&self, tasks: &Tasks, stages: &Stages) {
        for (number, plugin) in self.config.plugins.iter().enumerate() {
            for _ in 0..plugin.instances {
                let slot = slot::Slot::new(
                    Arc::clone(&self.config),
                    plugin.clone(),
                    format!("agent.plugins[{number}]"),
                    tasks.clone(),
                );
                let (unwanted, stages) = (self.unwanted.subscribe(), stages.clone());
                tasks.spawn("plugin process", slot.run(unwanted, stages));
            }
        }
    }

    /// A plugin's processes shall drain and end, and stay so.
    pub(crate) fn unload(&self, plugin: &PluginName, reason: &str) {
        self.unwanted.send_if_modified(|unwanted| {
            let unwanted = Arc::make_mut(unwanted);
            unwanted.insert(plugin.clone(), reason.to_owned()).is_none()
        });
    }

    /// A plugin's processes may run again. False: this agent has none of it.
    pub(crate) fn allow(&self, plugin: &PluginName) -> bool {
        self.unwanted
            .send_if_modified(|unwanted| Arc::make_mut(unwanted).remove(plugin).is_some());
        self.config.plugins.iter().any(|it| it.name == *plugin)
    }

    /// A coordinator refused an instance: its process may not attach for a while. False: this agent
    /// did not start it.
    pub(crate) fn refused(&self, instance: InstanceId, error: &MeshError) -> bool {
        let until = Instant::now() + backoff::REFUSED;
        self.config.book.refuse(instance, until, error)
    }
}
