//! One process of one plugin, over all its starts.

use std::sync::Arc;
use std::time::Duration;

use mesh_core::id::InstanceId;
use mesh_core::state::Phase;
use mesh_runtime::Tasks;
use serde_json::Map;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::backoff::{Backoff, REFUSED};
use super::process::{Process, Surroundings};
use super::{SupervisorConfig, Unwanted};
use crate::config::PluginLaunch;
use crate::drain::Drain;
use crate::launch::Launched;
use crate::roster::{Fact, Roster, new_instance, now};
use crate::run::Stages;

/// A process that did not attach within this time is said so.
const ATTACH_TIME: Duration = Duration::from_secs(30);

/// A process that lives on without its stream for this time hangs, and is ended.
const LOST_TIME: Duration = Duration::from_secs(10);

/// How often it is looked whether a process lives without its stream.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// One process of one plugin.
pub(super) struct Slot {
    config: Arc<SupervisorConfig>,
    launch: PluginLaunch,
    /// The plugin's place in the configuration.
    field: String,
    tasks: Tasks,
    backoff: Backoff,
    /// What the plugin said of itself last.
    known: Option<Arc<Fact>>,
    started_before: bool,
}

/// Why a process is no longer watched.
enum Ended {
    /// It ended by itself (or never began), and how; a coordinator may have refused it.
    Down { reason: String, refused: bool },
    /// Nobody wants it any more, for now.
    Unwanted,
    /// The agent stops.
    Stopping,
}

fn down(reason: String) -> Ended {
    Ended::Down {
        reason,
        refused: false,
    }
}

impl Slot {
    pub(super) fn new(
        config: Arc<SupervisorConfig>,
        launch: PluginLaunch,
        field: String,
        tasks: Tasks,
    ) -> Self {
        Self {
            config,
            launch,
            field,
            tasks,
            backoff: Backoff::default(),
            known: None,
            started_before: false,
        }
    }

    /// Runs until `stop` is cancelled and the process has ended.
    pub(super) async fn run(mut self, mut unwanted: watch::Receiver<Unwanted>, stages: Stages) {
        let stop = stages.processes.clone();
        loop {
            if self.is_unwanted(&mut unwanted) {
                self.backoff.reset();
                tokio::select! {
                    () = stages.restarts.cancelled() => return,
                    changed = unwanted.changed() => match changed {
                        Ok(()) => continue,
                        Err(_) => return,
                    },
                }
            }
            let begun = Instant::now();
            let (instance, ended) = self.once(&mut unwanted, &stop).await;
            let (reason, refused) = match ended {
                Ended::Stopping => return,
                Ended::Unwanted => continue,
                Ended::Down { reason, refused } => (reason, refused),
            };
            if stages.restarts.is_cancelled() {
                return self.roster().remove(instance, &reason);
            }
            let wait = self.down(instance, &reason, refused, begun.elapsed());
            let go_on = tokio::select! {
                () = stages.restarts.cancelled() => false,
                () = tokio::time::sleep(wait) => true,
                () = self.unwanted(&mut unwanted) => true,
            };
            self.roster().remove(instance, &reason);
            if !go_on {
                return;
            }
        }
    }

    /// Waits until nobody wants the plugin any more.
    async fn unwanted(&self, unwanted: &mut watch::Receiver<Unwanted>) {
        while !self.is_unwanted(unwanted) {
            if unwanted.changed().await.is_err() {
                return;
            }
        }
    }

    fn roster(&self) -> &Roster {
        &self.config.drain.roster
    }

    fn is_unwanted(&self, unwanted: &mut watch::Receiver<Unwanted>) -> bool {
        let unwanted = unwanted.borrow_and_update();
        unwanted.contains_key(&self.launch.name)
    }

    /// Starts the process and watches it to its end.
    async fn once(
        &mut self,
        unwanted: &mut watch::Receiver<Unwanted>,
        stop: &CancellationToken,
    ) -> (InstanceId, Ended) {
        let instance = new_instance();
        let added = self.config.book.add(Launched {
            plugin: self.launch.name.clone(),
            config_field: format!("{}.config", self.field),
            config: Map::clone(&self.launch.config),
            instance,
            pid: None,
            refused: None,
        });
        let token = match added {
            Ok(token) => token,
            Err(error) => {
                return (instance, down(format!("no launch token: {error}")));
            }
        };
        self.announce(instance);
        let around = Surroundings {
            launcher: &self.config.launcher,
            agent: &self.config.agent,
            token: &token,
            otlp: self.config.otlp.as_deref(),
        };
        let started = Process::start(&self.launch, &self.field, &around, &self.tasks);
        let (plugin, again) = (self.launch.name.as_str(), self.started_before);
        let process = match started {
            Ok(process) => process,
            Err(error) => {
                tracing::error!(plugin, "{error}");
                self.config.book.remove(&token);
                return (instance, down(error.to_string()));
            }
        };
        if again {
            self.config.metrics.restarted(plugin);
        }
        tracing::info!(plugin, pid = process.id(), again, "started a plugin");
        self.started_before = true;
        let pid = process.id();
        self.config.book.update(&token, |entry| entry.pid = pid);
        let mut ended = self.watch(process, &token, unwanted, stop).await;
        // It may have become another instance when it attached again.
        let last = self.config.book.remove(&token);
        let was_refused = last.as_ref().is_some_and(|last| last.refused.is_some());
        let last = last.map_or(instance, |launched| launched.instance);
        if let Ended::Down { refused, .. } = &mut ended {
            *refused = was_refused;
        }
        // A refused one is not announced again before it has attached again.
        let fact = self.roster().get(last);
        self.known = if was_refused {
            None
        } else {
            fact.or(self.known.take())
        };
        if let Ended::Unwanted | Ended::Stopping = ended {
            self.roster().remove(last, "its process was stopped");
        }
        (last, ended)
    }

    /// Tells the mesh of a process that starts, if it is known what it will be.
    fn announce(&self, instance: InstanceId) {
        if let Some(known) = &self.known {
            let fact = Fact {
                phase: Phase::Starting,
                reason: "its process was started; awaited to attach".to_owned(),
                since: now(),
                ..Fact::clone(known)
            };
            self.roster().set(instance, fact);
        }
    }

    async fn watch(
        &self,
        mut process: Process,
        token: &str,
        unwanted: &mut watch::Receiver<Unwanted>,
        stop: &CancellationToken,
    ) -> Ended {
        let late = tokio::time::sleep_until(process.started + ATTACH_TIME);
        let mut late = std::pin::pin!(late);
        let mut looked = false;
        let mut look = tokio::time::interval(LOOK_EVERY);
        loop {
            tokio::select! {
                end = process.wait() => return down(end),
                _ = look.tick() => if self.is_lost(token) {
                    tracing::warn!(plugin = %self.launch.name, pid = process.id(), "ending a plugin that hangs");
                    let end = process.stop().await;
                    return down(format!(
                        "its process ran without a connection for {} s and was ended: {end}",
                        LOST_TIME.as_secs()
                    ));
                },
                () = stop.cancelled() => {
                    let end = process.stop().await;
                    tracing::debug!(plugin = %self.launch.name, "stopped: {end}");
                    return Ended::Stopping;
                }
                () = &mut late, if !looked => {
                    looked = true;
                    self.look_for_attachment(token);
                }
                changed = unwanted.changed() => {
                    let reason = match changed {
                        Err(_) => None,
                        Ok(()) => unwanted.borrow_and_update().get(&self.launch.name).cloned(),
                    };
                    if let Some(reason) = reason {
                        self.unload(token, &reason).await;
                        let end = process.stop().await;
                        tracing::info!(plugin = %self.launch.name, reason, "unloaded: {end}");
                        return Ended::Unwanted;
                    }
                }
            }
        }
    }

    /// Whether the process was attached, lost its stream and has not come back for long.
    fn is_lost(&self, token: &str) -> bool {
        let Some(launched) = self.config.book.get(token) else {
            return false;
        };
        let limit = u64::try_from(LOST_TIME.as_millis()).unwrap_or(u64::MAX);
        let fact = self.roster().get(launched.instance);
        launched.refused.is_none()
            && fact.is_some_and(|fact| {
                fact.phase == Phase::Failed && now().millis_since(fact.since) >= limit
            })
    }

    /// Says so when the process has not attached.
    fn look_for_attachment(&self, token: &str) {
        let Some(launched) = self.config.book.get(token) else {
            return;
        };
        let fact = self.roster().get(launched.instance);
        let phase = fact.map(|fact| fact.phase);
        if launched.refused.is_some() || phase.is_some_and(|phase| phase != Phase::Starting) {
            return;
        }
        let text = format!(
            "its process runs for {} s but has not attached to {}: it must connect there with the \
             token in PLUGMESH_LAUNCH_TOKEN (any SDK does)",
            ATTACH_TIME.as_secs(),
            self.config.agent
        );
        tracing::warn!(plugin = %self.launch.name, pid = launched.pid, "{text}");
        self.roster()
            .set_phase(launched.instance, Phase::Starting, &text);
    }

    async fn unload(&self, token: &str, reason: &str) {
        if let Some(launched) = self.config.book.get(token) {
            let drain = Drain {
                reason: reason.to_owned(),
                ..self.config.drain.clone()
            };
            drain.instance(launched.instance, false).await;
        }
    }

    /// The process is down: says so and gives how long to wait before it is started again.
    fn down(
        &mut self,
        instance: InstanceId,
        reason: &str,
        refused: bool,
        ran_for: Duration,
    ) -> Duration {
        let mut wait = self.backoff.ended(ran_for);
        if refused {
            wait = REFUSED;
        }
        tracing::warn!(
            plugin = %self.launch.name,
            reason,
            again_in = ?wait,
            "a plugin's process is down"
        );
        let reason = format!("{reason}; it is started again after {wait:?}");
        self.roster().set_phase(instance, Phase::Failed, &reason);
        wait
    }
}
