//! What the plugins of a test host have in common: who is attached, who serves what, the log.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures::stream::{FuturesUnordered, StreamExt};
use serde_json::Value;
use tokio::sync::{Notify, mpsc};

use super::link::{self, Link};
use super::server::Arrival;
use crate::calls::LogLine;
use crate::check::kind_name;
use crate::code::ErrorCode;
use crate::definition::takes_messages;
use crate::error::{CallError, Error};
use crate::uri_template;
use crate::wire::common::{self, CapabilityKind};

#[derive(Default)]
pub(super) struct Mesh {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    /// Plugins that are ready, in the order in which they became so.
    links: Vec<Arc<Link>>,
    /// Configurations by launch token.
    configs: HashMap<String, Bytes>,
    refusal: Option<CallError>,
    logs: Vec<LogLine>,
    /// Plugins that have attached so far.
    attached: u32,
}

/// Serves the sessions of all plugins.
pub(super) async fn serve(mesh: &Arc<Mesh>, mut arrivals: mpsc::Receiver<Arrival>) {
    let mut sessions = FuturesUnordered::new();
    loop {
        tokio::select! {
            Some(arrival) = arrivals.recv() => sessions.push(link::serve(mesh.clone(), arrival)),
            Some(()) = sessions.next(), if !sessions.is_empty() => {}
            else => return,
        }
    }
}

impl Mesh {
    pub(super) fn set_config(&self, token: &str, config: &Value) {
        let config = Bytes::from(config.to_string());
        self.lock().configs.insert(token.to_owned(), config);
    }

    pub(super) fn config(&self, token: &str) -> Bytes {
        self.lock().configs.get(token).cloned().unwrap_or_default()
    }

    /// The attached plugin that was started with a launch token.
    pub(super) fn started_with(&self, token: &str) -> Option<Arc<Link>> {
        let state = self.lock();
        state.links.iter().find(|link| link.token == token).cloned()
    }

    /// A number for a plugin that attaches.
    pub(super) fn next_instance(&self) -> u32 {
        let mut state = self.lock();
        state.attached += 1;
        state.attached
    }

    pub(super) fn add(&self, link: Arc<Link>) {
        self.lock().links.push(link);
        self.changed.notify_waiters();
    }

    pub(super) fn remove(&self, link: &Arc<Link>) {
        self.lock().links.retain(|other| !Arc::ptr_eq(other, link));
    }

    /// Ends all calls, as nobody works on them any more.
    pub(super) fn close(&self) {
        let links = std::mem::take(&mut self.lock().links);
        for link in links {
            link.close();
        }
    }

    /// A plugin does not want to run.
    pub(super) fn refuse(&self, error: CallError) {
        self.lock().refusal.get_or_insert(error);
        self.changed.notify_waiters();
    }

    pub(super) fn log(&self, line: LogLine) {
        self.lock().logs.push(line);
    }

    pub(super) fn logs(&self) -> Vec<LogLine> {
        self.lock().logs.clone()
    }

    /// Waits until so many plugins are ready.
    pub(super) async fn attached(&self, count: usize) -> Result<(), Error> {
        loop {
            let changed = self.changed.notified();
            {
                let state = self.lock();
                if let Some(error) = &state.refusal {
                    return Err(Error::Refused(error.clone()));
                }
                if state.links.len() >= count {
                    return Ok(());
                }
            }
            changed.await;
        }
    }

    pub(super) fn link(&self, plugin: &str) -> Option<Arc<Link>> {
        let state = self.lock();
        let mut links = state.links.iter();
        links.find(|link| link.manifest.name == plugin).cloned()
    }

    /// The plugin that serves a call. A resource that only a template knows becomes a call of the
    /// template, as the mesh would do.
    pub(super) fn route(&self, call: &mut common::Call) -> Result<Arc<Link>, CallError> {
        let links = self.lock().links.clone();
        let wanted = call.capability.get_or_insert_default();
        let named = |link: &&Arc<Link>| call.plugin.is_empty() || link.manifest.name == call.plugin;
        let mut too_old = None;
        for link in links.iter().filter(named) {
            let Some(found) = provided(&link.manifest, wanted) else {
                continue;
            };
            if fulfils(&link.manifest.version, &call.requirement) {
                if call.messages && !takes_messages(&link.manifest, &found) {
                    let text = format!(
                        "{}:{} of {} takes no messages after the payload: send one payload, or let it \
                         declare client streaming",
                        kind_name(found.kind),
                        found.name,
                        link.manifest.name
                    );
                    return Err(CallError::new(ErrorCode::InvalidArgument, text));
                }
                *wanted = found;
                return Ok(link.clone());
            }
            too_old = Some(link);
        }
        let what = format!("{}:{}", kind_name(wanted.kind), wanted.name);
        Err(match too_old {
            Some(link) => CallError::new(
                ErrorCode::Unavailable,
                format!(
                    "{what} is provided by {} {}, but {} is required",
                    link.manifest.name, link.manifest.version, call.requirement
                ),
            ),
            None => CallError::new(
                ErrorCode::NoProvider,
                format!("no plugin of the test host provides {what}"),
            ),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The capability of a manifest that serves what is wanted.
fn provided(
    manifest: &common::Manifest,
    wanted: &common::Capability,
) -> Option<common::Capability> {
    let own = || {
        manifest
            .capabilities
            .iter()
            .filter_map(|entry| entry.capability.as_ref())
    };
    let template = || {
        let is_resource = wanted.kind == i32::from(CapabilityKind::Resource);
        own().find(|one| {
            is_resource
                && one.kind == i32::from(CapabilityKind::ResourceTemplate)
                && uri_template::matches(&one.name, &wanted.name).is_some()
        })
    };
    own().find(|one| *one == wanted).or_else(template).cloned()
}

fn fulfils(version: &str, requirement: &str) -> bool {
    if requirement.is_empty() {
        return true;
    }
    let version = semver::Version::parse(version);
    let requirement = semver::VersionReq::parse(requirement);
    matches!((version, requirement), (Ok(version), Ok(requirement)) if requirement.matches(&version))
}
