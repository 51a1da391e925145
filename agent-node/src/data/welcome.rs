//! The handshake: who attaches, and whether it may.

use std::sync::Arc;
use std::time::Duration;

use mesh_core::error::{ErrorCode, MeshError, Place};
use mesh_core::id::{InstanceId, PluginName};
use mesh_core::manifest::Manifest;
use mesh_core::state::Phase;
use mesh_proto::plugin::Hello;
use serde_json::{Map, Value};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::plane::Plane;
use super::state::{Attached, SessionKey};
use crate::launch::LaunchBook;
use crate::roster::{Fact, Roster, now};
use crate::session::handshake::{Accepted, Expected, HostFacts, accept, check_manifest};

/// The checks of a manifest and a configuration take no longer, whatever the plugin made of its
/// schema.
const LONGEST_CHECK: Duration = Duration::from_secs(5);

/// Checks at the same time. One whose time is over goes on until it is through, so this bounds how many
/// can be left behind.
pub(crate) const CHECKS: usize = 4;

/// Who may attach, and as what.
#[derive(Debug, Clone)]
pub(crate) struct Door {
    /// A permit for each check of a schema.
    pub(crate) checks: Arc<Semaphore>,
    /// Processes that this agent started.
    pub(crate) book: LaunchBook,
    /// Configurations of plugins that attach by themselves.
    pub(crate) plugin_config: Arc<std::collections::BTreeMap<PluginName, Map<String, Value>>>,
    /// What is known of all instances.
    pub(crate) roster: Roster,
    /// Draws the id of a new instance.
    pub(crate) draw: fn() -> InstanceId,
}

/// What a Hello is expected to be.
struct Guest {
    expected: Expected,
    launch_token: Option<String>,
}

impl Plane {
    /// Checks a Hello and makes its sender a plugin of this node. Sends Welcome.
    ///
    /// # Errors
    /// Every mistake, as what the stream shall end with.
    pub(super) async fn welcome(
        &self,
        key: SessionKey,
        hello: Box<Hello>,
        door: &Door,
    ) -> Result<(), MeshError> {
        let sdk = hello.sdk.clone();
        let (accepted, launch_token) = self.checked(hello, door).await?;
        let (instance, place) = (accepted.instance, accepted.place.clone());
        let old = launch_token.as_ref().and_then(|token| {
            let mut old = None;
            door.book.update(token, |launched| {
                old = (launched.instance != instance).then_some(launched.instance);
                launched.instance = instance;
                launched.refused = None;
            });
            old
        });
        if let Some(old) = old {
            self.end_stream(old, None);
            door.roster.remove(old, "the plugin attached anew");
        }
        let fact = Fact {
            manifest: Arc::clone(&accepted.manifest),
            phase: Phase::Loaded,
            reason: "attached; awaited to be ready".to_owned(),
            since: now(),
            concurrency: accepted.concurrency,
            supervised: launch_token.is_some(),
        };
        let attached = Attached {
            instance,
            manifest: accepted.manifest,
            concurrency: accepted.concurrency,
            launch_token,
            meters: self.shared.metrics.of_plugin(&place.plugin),
        };
        let mut state = self.lock();
        if state.sessions.key_of(instance).is_some() {
            // Two streams came with the same token at the same time.
            let text = format!("launch_token: another stream just attached as instance {instance}");
            return Err(MeshError::new(ErrorCode::PermissionDenied, text).at(place));
        }
        if let Some(session) = state.sessions.get(key) {
            session
                .machine
                .limit_payloads(self.shared.config.max_payload);
        }
        if !state.sessions.attach(key, attached, place.clone()) {
            return Ok(());
        }
        if let Some(session) = state.sessions.get(key) {
            session.out.push(accepted.welcome);
        }
        drop(state);
        door.roster.set(instance, fact);
        tracing::info!(
            plugin = place.plugin,
            version = place.version,
            instance = place.instance,
            sdk,
            "a plugin attached"
        );
        Ok(())
    }

    async fn checked(
        &self,
        mut hello: Box<Hello>,
        door: &Door,
    ) -> Result<(Accepted, Option<String>), MeshError> {
        let (node, mesh) = (self.node().clone(), self.shared.config.mesh.clone());
        let max_concurrency = self.shared.config.max_per_instance;
        let max_payload = self.shared.config.max_payload;
        let permit = self.permit(&hello, door).await?;
        let door = door.clone();
        let mut check = move || {
            let (manifest, protocol) = check_manifest(&mut hello)?;
            let place = Place {
                plugin: manifest.name.to_string(),
                version: manifest.version.to_string(),
                node: node.to_string(),
                ..Place::default()
            };
            let guest = door
                .guest(&hello, &manifest)
                .map_err(|error| error.at(place))?;
            let facts = HostFacts {
                node: &node,
                mesh: &mesh,
                max_concurrency,
                max_payload,
            };
            let accepted = accept(&hello, manifest, protocol, &facts, guest.expected)?;
            Ok((accepted, guest.launch_token))
        };
        let Some(permit) = permit else {
            return check();
        };
        // Schemas come from plugins and may be made to take long: not on the thread of the data path.
        let check = tokio::task::spawn_blocking(move || {
            // Given back when the work is through, not when nobody waits for it any more.
            let _permit = permit;
            check()
        });
        match tokio::time::timeout(LONGEST_CHECK, check).await {
            Ok(Ok(checked)) => checked,
            Ok(Err(_)) => Err(MeshError::new(
                ErrorCode::Internal,
                "the check of the manifest panicked: this is a bug",
            )),
            Err(_) => Err(MeshError::new(
                ErrorCode::InvalidManifest,
                "config_schema: checking the configuration against it takes too long; simplify its \
                 patterns",
            )),
        }
    }
}

impl Plane {
    /// A permit for the check of a manifest. One without a schema takes no time and needs none, so that
    /// it never waits for others.
    async fn permit(
        &self,
        hello: &Hello,
        door: &Door,
    ) -> Result<Option<OwnedSemaphorePermit>, MeshError> {
        let manifest = hello.manifest.as_ref();
        if manifest.is_none_or(|manifest| manifest.config_schema.is_empty()) {
            return Ok(None);
        }
        let permit = Arc::clone(&door.checks).acquire_owned();
        match tokio::time::timeout(LONGEST_CHECK, permit).await {
            Ok(Ok(permit)) => Ok(Some(permit)),
            Ok(Err(_)) | Err(_) => {
                let text =
                    "this agent is busy with the schemas of other plugins; attach again later";
                let place = Place {
                    node: self.node().to_string(),
                    ..Place::default()
                };
                let error = MeshError::new(ErrorCode::Overloaded, text).at(place);
                Err(error.retry_after(LONGEST_CHECK))
            }
        }
    }
}

impl Door {
    fn guest(&self, hello: &Hello, manifest: &Manifest) -> Result<Guest, MeshError> {
        if hello.launch_token.is_empty() {
            let config = self.plugin_config.get(&manifest.name).cloned();
            return Ok(Guest {
                expected: Expected {
                    plugin: None,
                    instance: (self.draw)(),
                    config: Value::Object(config.unwrap_or_default()),
                    config_field: format!("agent.plugin_config.{}", manifest.name),
                },
                launch_token: None,
            });
        }
        let denied = |text: String| MeshError::new(ErrorCode::PermissionDenied, text);
        let token = &hello.launch_token;
        let launched = self.book.get(token).ok_or_else(|| {
            denied(
                "launch_token: this agent started no process with it, or that process is gone; leave it \
                 out to attach as a plugin that somebody else started"
                    .to_owned(),
            )
        })?;
        let was_refused = launched.refused.is_some();
        if let Some((until, error)) = launched.refused {
            let left = until.saturating_duration_since(Instant::now());
            if !left.is_zero() {
                return Err(error.retry_after(left));
            }
        }
        let instance = if was_refused {
            (self.draw)()
        } else {
            self.next_instance(launched.instance, hello, manifest)?
        };
        Ok(Guest {
            expected: Expected {
                plugin: Some(launched.plugin),
                instance,
                config: Value::Object(launched.config),
                config_field: launched.config_field,
            },
            launch_token: Some(token.clone()),
        })
    }

    /// The instance that a started process becomes: the one drawn at its start, and a new one when it
    /// attaches again.
    fn next_instance(
        &self,
        drawn: InstanceId,
        hello: &Hello,
        manifest: &Manifest,
    ) -> Result<InstanceId, MeshError> {
        let Some(fact) = self.roster.get(drawn) else {
            return Ok(drawn);
        };
        let attached = match fact.phase {
            Phase::Starting => return Ok(drawn),
            Phase::Failed => false,
            Phase::Loaded | Phase::Ready | Phase::Unhealthy | Phase::Draining => true,
        };
        if attached && hello.previous_instance != drawn.to_string() {
            let text = format!(
                "launch_token: the process is attached already as instance {drawn} of {}; give that as \
                 previous_instance to take its place",
                manifest.name
            );
            return Err(MeshError::new(ErrorCode::PermissionDenied, text));
        }
        Ok((self.draw)())
    }
}
