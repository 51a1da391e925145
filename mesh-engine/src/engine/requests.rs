//! Operators' requests: enable, disable, unload. A request becomes wishes, written one after the
//! other, and is answered when the last of them is stored.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::Engine;
use super::event::{Change, Command, Operation, Outcome, RequestId, WriteError};
use super::impact::Loser;
use crate::record::{Key, Record, Wish, WishRecord};
use mesh_core::error::{ErrorCode, MeshError, Place};
use mesh_core::id::PluginName;
use mesh_core::manifest::Manifest;
use mesh_core::revision::Timestamp;

/// How long a request may take, in milliseconds.
const TIMEOUT_MS: u64 = 5_000;
/// How much of what was unloaded is kept to be shown, in bytes of JSON.
const KEPT_BYTES: usize = 512 * 1024;

/// One wish that a request writes; `None`: the wish is taken back.
#[derive(Debug)]
struct Intent {
    plugin: PluginName,
    wish: Option<WishRecord>,
}

#[derive(Debug)]
struct Request {
    /// The first is being written.
    plan: VecDeque<Intent>,
    changed: Vec<PluginName>,
    affected: Vec<PluginName>,
    until: Timestamp,
}

/// What a request did: `changed` and `affected` of its [`Outcome`].
type Done = (Vec<PluginName>, Vec<PluginName>);

#[derive(Debug, Default)]
pub(super) struct Requests {
    open: BTreeMap<RequestId, Request>,
    /// Which request writes the wish of a plugin.
    writing: BTreeMap<PluginName, RequestId>,
    answers: Vec<(RequestId, Result<Done, MeshError>)>,
}

impl Engine {
    pub(super) fn requested(&mut self, id: RequestId, operation: &Operation, now: Timestamp) {
        match self.plan(operation, now) {
            Ok(request) => {
                self.requests.open.insert(id, request);
                self.go_on(id);
            }
            Err(error) => {
                let place = Place {
                    plugin: operation.plugin.to_string(),
                    ..Place::default()
                };
                self.requests.answers.push((id, Err(error.at(place))));
            }
        }
    }

    fn plan(&self, operation: &Operation, now: Timestamp) -> Result<Request, MeshError> {
        if !self.is_current() {
            return Err(unreachable_store());
        }
        let plugin = &operation.plugin;
        let here = self.registry.graph.specs_of(plugin).next().is_some();
        if !here && !self.registry.wishes.contains_key(plugin) {
            let text = format!("there is no plugin {plugin}; list those that are there");
            return Err(MeshError::new(ErrorCode::NotFound, text));
        }
        let losers = self
            .registry
            .losers_without(&BTreeSet::from([plugin.clone()]));
        let mut affected: Vec<PluginName> = losers.iter().map(|it| it.plugin.clone()).collect();
        affected.dedup();
        let plugins = match operation.change {
            Change::Enable => {
                affected.clear();
                vec![plugin.clone()]
            }
            Change::Disable => vec![plugin.clone()],
            Change::Unload { cascade: true } => {
                let plugins = self.registry.cascade(plugin);
                affected.retain(|plugin| !plugins.contains(plugin));
                plugins
            }
            Change::Unload { cascade: false } if losers.is_empty() => vec![plugin.clone()],
            Change::Unload { cascade: false } => return Err(still_required(plugin, &losers)),
        };
        if let Some(busy) = plugins
            .iter()
            .find(|it| self.requests.writing.contains_key(*it))
        {
            let text = format!("another change of {busy} is under way: try again in a moment");
            return Err(MeshError::new(ErrorCode::Unavailable, text));
        }
        let intents = plugins
            .into_iter()
            .filter_map(|it| self.intent(it, operation, now));
        let plan: VecDeque<Intent> = intents.collect();
        if plan.is_empty() {
            // It is as wanted already.
            affected.clear();
        }
        Ok(Request {
            plan,
            changed: Vec::new(),
            affected,
            until: Timestamp(now.0.saturating_add(TIMEOUT_MS)),
        })
    }

    /// The wish that a plugin gets; `None`: it has it already.
    fn intent(&self, plugin: PluginName, operation: &Operation, now: Timestamp) -> Option<Intent> {
        let has = self.registry.wish(&plugin);
        let wish = match (operation.change, has) {
            (Change::Enable, None | Some(Wish::Enabled))
            | (Change::Disable, Some(Wish::Disabled))
            | (Change::Unload { .. }, Some(Wish::Unloaded)) => return None,
            (Change::Enable, Some(Wish::Disabled)) => None,
            (Change::Enable, Some(Wish::Unloaded)) => Some(Wish::Enabled),
            (Change::Disable, _) => Some(Wish::Disabled),
            (Change::Unload { .. }, _) => Some(Wish::Unloaded),
        };
        let wish = wish.map(|wish| WishRecord {
            wish,
            by: operation.by.clone(),
            reason: operation.reason.clone(),
            since: now,
            manifests: match wish {
                Wish::Unloaded => self.kept(&plugin),
                Wish::Enabled | Wish::Disabled => Vec::new(),
            },
        });
        Some(Intent { plugin, wish })
    }

    /// What is kept of a plugin that is unloaded: its manifests, newest version first.
    fn kept(&self, plugin: &PluginName) -> Vec<Arc<Manifest>> {
        let specs = self.registry.graph.specs_of(plugin);
        let mut manifests: Vec<Arc<Manifest>> = specs
            .filter_map(|spec| self.registry.graph.manifest(spec).cloned())
            .collect();
        manifests.sort_by(|a, b| b.version.cmp(&a.version));
        let mut bytes = 0;
        manifests.retain(|manifest| {
            bytes += serde_json::to_vec(manifest).map_or(KEPT_BYTES, |json| json.len());
            bytes <= KEPT_BYTES
        });
        manifests
    }

    /// Writes the next wish of a request, or notes its answer.
    fn go_on(&mut self, id: RequestId) {
        let Some(request) = self.requests.open.get(&id) else {
            return;
        };
        if let Some(next) = request.plan.front() {
            let plugin = next.plugin.clone();
            self.requests.writing.insert(plugin.clone(), id);
            self.mark([Key::Wish(plugin)]);
        } else if let Some(request) = self.requests.open.remove(&id) {
            let answer = Ok((request.changed, request.affected));
            self.requests.answers.push((id, answer));
        }
    }

    /// What the wish of a plugin shall be, if a request is writing it.
    pub(super) fn wish_shall(&self, plugin: &PluginName) -> Option<Option<Record>> {
        let request = self.requests.open.get(self.requests.writing.get(plugin)?)?;
        let intent = request
            .plan
            .front()
            .filter(|intent| intent.plugin == *plugin)?;
        (!self.is_fulfilled(intent)).then(|| intent.wish.clone().map(Record::Wish))
    }

    fn is_fulfilled(&self, intent: &Intent) -> bool {
        let stored = self
            .registry
            .wishes
            .get(&intent.plugin)
            .map(|stored| &stored.record);
        match (&intent.wish, stored) {
            (Some(wish), Some(stored)) => wish.is_same(stored),
            (None, None) => true,
            _ => false,
        }
    }

    pub(super) fn wish_stored(&mut self, plugin: &PluginName) {
        self.sessions.direct_anew = true;
        let Some(id) = self.requests.writing.get(plugin).copied() else {
            return;
        };
        let request = self.requests.open.get(&id);
        let front = request.and_then(|request| request.plan.front());
        if !front.is_some_and(|intent| self.is_fulfilled(intent)) {
            return;
        }
        self.requests.writing.remove(plugin);
        if let Some(request) = self.requests.open.get_mut(&id)
            && let Some(done) = request.plan.pop_front()
        {
            request.changed.push(done.plugin);
        }
        self.go_on(id);
    }

    pub(super) fn wish_failed(&mut self, plugin: &PluginName, error: &WriteError) {
        let (code, why) = match error {
            WriteError::Conflict => return,
            WriteError::Unavailable(why) => (ErrorCode::Disconnected, why),
            WriteError::Unknown(why) => (ErrorCode::OutcomeUnknown, why),
            WriteError::Refused(why) => (ErrorCode::TooLarge, why),
        };
        if let Some(id) = self.requests.writing.get(plugin).copied() {
            let text = format!("the change of {plugin} could not be stored: {why}");
            self.give_up(id, MeshError::new(code, text));
        }
    }

    fn give_up(&mut self, id: RequestId, mut error: MeshError) {
        let Some(request) = self.requests.open.remove(&id) else {
            return;
        };
        self.requests.writing.retain(|_, writer| *writer != id);
        if !request.changed.is_empty() {
            let names: Vec<&str> = request.changed.iter().map(PluginName::as_str).collect();
            error.message = format!("{}; changed already: {}", error.message, names.join(", "));
        }
        self.requests.answers.push((id, Err(error)));
    }

    pub(super) fn tick_requests(&mut self, now: Timestamp) {
        let open = self.requests.open.iter();
        let late = open.filter(|(_, request)| request.until <= now);
        let late: Vec<(RequestId, Option<PluginName>)> = late
            .map(|(id, request)| (*id, request.plan.front().map(|it| it.plugin.clone())))
            .collect();
        for (id, plugin) in late {
            let sent = plugin.is_some_and(|it| self.writes.is_in_flight(&Key::Wish(it)));
            let text = format!("the store did not confirm the change within {TIMEOUT_MS} ms");
            let error = if sent {
                let text = format!("{text}; it may still come: look before you try again");
                MeshError::new(ErrorCode::OutcomeUnknown, text)
            } else {
                MeshError::new(ErrorCode::Unavailable, format!("{text}; try again"))
            };
            self.give_up(id, error);
        }
    }

    pub(super) fn requests_store_lost(&mut self) {
        let open: Vec<RequestId> = self.requests.open.keys().copied().collect();
        for id in open {
            let text = "the registry's store was lost while the change was written: look whether it \
                        holds when the store is back";
            self.give_up(id, MeshError::new(ErrorCode::OutcomeUnknown, text));
        }
    }

    /// The store was told from the start: what was written may have been among it.
    pub(super) fn requests_resynchronised(&mut self) {
        let writing: Vec<PluginName> = self.requests.writing.keys().cloned().collect();
        for plugin in writing {
            self.wish_stored(&plugin);
            self.mark([Key::Wish(plugin)]);
        }
        self.sessions.direct_anew = true;
    }

    pub(super) fn answer(&mut self) {
        let revision = self.latest();
        for (request, result) in std::mem::take(&mut self.requests.answers) {
            let result = result.map(|(changed, affected)| Outcome {
                changed,
                affected,
                revision,
            });
            self.out.push(Command::Reply { request, result });
        }
    }
}

fn unreachable_store() -> MeshError {
    MeshError::new(
        ErrorCode::Disconnected,
        "the registry's store can't be reached, so nothing can be changed now; running plugins go \
         on. Try again when NATS is back",
    )
}

fn still_required(plugin: &PluginName, losers: &[Loser]) -> MeshError {
    let line = |loser: &Loser| format!("{} (needs {})", loser.label, loser.needs.join(", "));
    let lines: Vec<String> = losers.iter().map(line).collect();
    let text = format!(
        "{plugin} can't be unloaded, as it would block {}; unload them too (cascade), or start \
         another version or provider that serves them",
        lines.join(", ")
    );
    let labels: Vec<&str> = losers.iter().map(|loser| loser.label.as_str()).collect();
    let mut error = MeshError::new(ErrorCode::StillRequired, text);
    error.details = Some(serde_json::json!({ "blocked": labels }).to_string());
    error
}
