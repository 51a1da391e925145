//! Operators' requests: enable, disable, unload, split, rollout. A request becomes records, written one after
//! the other, and is answered when the last of them is stored.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::Engine;
use super::event::{Change, Command, Operation, Outcome, RequestId, WriteError};
use super::impact::Loser;
use crate::record::{Key, Record, Wish, WishRecord};
use mesh_core::error::{ErrorCode, MeshError, Place};
use mesh_core::id::PluginName;
use mesh_core::manifest::Manifest;
use mesh_core::revision::{Revision, Timestamp};
use mesh_core::split::Split;

/// How long a request may take, in milliseconds.
const TIMEOUT_MS: u64 = 5_000;
/// How much of what was unloaded is kept to be shown, in bytes of JSON.
const KEPT_BYTES: usize = 512 * 1024;

/// One record that a request writes.
#[derive(Debug)]
pub(super) struct Intent {
    pub key: Key,
    pub record: Record,
}

#[derive(Debug)]
struct Request {
    /// The revision that a record must have until it is written.
    expected: Option<(Key, Revision)>,
    /// The first is being written.
    plan: VecDeque<Intent>,
    changed: Vec<PluginName>,
    affected: Vec<PluginName>,
    notes: Vec<String>,
    until: Timestamp,
}

#[derive(Debug, Default)]
pub(super) struct Requests {
    open: BTreeMap<RequestId, Request>,
    /// Which request writes a key.
    writing: BTreeMap<Key, RequestId>,
    answers: Vec<(RequestId, Result<Request, MeshError>)>,
}

impl Engine {
    pub(super) fn requested(&mut self, id: RequestId, operation: Operation, now: Timestamp) {
        match self.plan(&operation, now) {
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
        if !self.registry.is_known(plugin) {
            let text = format!("there is no plugin {plugin}; list those that are there");
            return Err(MeshError::new(ErrorCode::NotFound, text));
        }
        let key = match operation.change {
            Change::Split { .. } | Change::ClearSplit => Key::Split(plugin.clone()),
            Change::Rollout(_) | Change::AbortRollout => Key::Rollout(plugin.clone()),
            _ => Key::Wish(plugin.clone()),
        };
        let expected = operation.expected.map(|revision| (key, revision));
        if self.is_overtaken(&expected) {
            return Err(overtaken(plugin));
        }
        let mut request = Request {
            expected,
            plan: VecDeque::new(),
            changed: Vec::new(),
            affected: Vec::new(),
            notes: Vec::new(),
            until: Timestamp(now.0.saturating_add(TIMEOUT_MS)),
        };
        match &operation.change {
            Change::Enable | Change::Disable | Change::Unload { .. } => {
                self.plan_wishes(operation, &mut request, now)?;
            }
            Change::Split { shares, groups } => {
                let split = Split {
                    shares: shares.clone(),
                    groups: groups.clone(),
                    ..Split::none(plugin.clone())
                };
                request.notes = self.registry.check_split(&split)?;
                let intent = self.split_intent(split, operation, now)?;
                request.plan.extend(intent);
            }
            Change::ClearSplit => {
                let none = Split::none(plugin.clone());
                let intent = self.split_intent(none, operation, now)?;
                request.plan.extend(intent);
            }
            Change::Rollout(plan) => {
                let intent = self.rollout_intent(plan, operation, now)?;
                // Of two who begin one at the same time one is refused.
                request.expected = Some(self.as_decided(&intent.key));
                request.plan.push_back(intent);
            }
            Change::AbortRollout => {
                let intent = self.abort_intent(operation, now)?;
                // It may end by itself, or go on, in the same moment.
                request.expected = Some(self.as_decided(&intent.key));
                request.plan.push_back(intent);
            }
        }
        let planned = |it: &PluginName| {
            it == plugin || request.plan.iter().any(|to| to.key.wished() == Some(it))
        };
        let mut busy = self.requests.writing.keys().filter_map(Key::wished);
        if let Some(busy) = busy.find(|busy| planned(busy)) {
            let text = format!("another change of {busy} is under way: try again in a moment");
            return Err(MeshError::new(ErrorCode::Unavailable, text));
        }
        Ok(request)
    }

    fn plan_wishes(
        &self,
        operation: &Operation,
        request: &mut Request,
        now: Timestamp,
    ) -> Result<(), MeshError> {
        let plugin = &operation.plugin;
        let losers = self
            .registry
            .losers_without(&BTreeSet::from([plugin.clone()]));
        let mut affected: Vec<PluginName> = losers.iter().map(|it| it.plugin.clone()).collect();
        affected.dedup();
        let plugins = match operation.change {
            Change::Unload { cascade: true } => {
                let plugins = self.registry.cascade(plugin);
                affected.retain(|plugin| !plugins.contains(plugin));
                plugins
            }
            Change::Unload { cascade: false } if !losers.is_empty() => {
                return Err(still_required(plugin, &losers));
            }
            Change::Enable => {
                affected.clear();
                vec![plugin.clone()]
            }
            _ => vec![plugin.clone()],
        };
        let intents = plugins
            .into_iter()
            .filter_map(|it| self.intent(it, operation, now));
        request.plan.extend(intents);
        // Else it is as wanted already.
        if !request.plan.is_empty() {
            request.affected = affected;
        }
        Ok(())
    }

    /// By which record it is decided now what a key stands for.
    fn as_decided(&self, key: &Key) -> (Key, Revision) {
        let (epoch, sequence) = (self.latest().epoch, self.registry.decided(key));
        (key.clone(), Revision { epoch, sequence })
    }

    fn is_overtaken(&self, expected: &Option<(Key, Revision)>) -> bool {
        expected.as_ref().is_some_and(|(key, revision)| {
            let sequence = self.registry.decided(key);
            (self.latest().epoch, sequence) != (revision.epoch, revision.sequence)
        })
    }

    /// The wish that a plugin gets; `None`: it has it already.
    fn intent(&self, plugin: PluginName, operation: &Operation, now: Timestamp) -> Option<Intent> {
        let has = self.registry.wish(&plugin);
        let wish = match (&operation.change, has) {
            (Change::Enable, None | Some(Wish::Enabled))
            | (Change::Disable, Some(Wish::Disabled))
            | (Change::Unload { .. }, Some(Wish::Unloaded)) => return None,
            // The record stays, so that it is known who enabled it, and why.
            (Change::Enable, Some(Wish::Disabled | Wish::Unloaded)) => Wish::Enabled,
            (Change::Disable, _) => Wish::Disabled,
            (Change::Unload { .. }, _) => Wish::Unloaded,
            _ => return None,
        };
        let record = WishRecord {
            wish,
            by: operation.by.clone(),
            reason: operation.reason.clone(),
            since: now,
            manifests: match wish {
                Wish::Unloaded => self.kept(&plugin),
                Wish::Enabled | Wish::Disabled => Vec::new(),
            },
        };
        Some(Intent {
            key: Key::Wish(plugin),
            record: Record::Wish(record),
        })
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

    /// Writes the next record of a request, or notes its answer.
    fn go_on(&mut self, id: RequestId) {
        let Some(request) = self.requests.open.get(&id) else {
            return;
        };
        if let Some(next) = request.plan.front() {
            let key = next.key.clone();
            self.requests.writing.insert(key.clone(), id);
            self.mark([key]);
        } else if let Some(request) = self.requests.open.remove(&id) {
            self.requests.answers.push((id, Ok(request)));
        }
    }

    /// Whether a request is writing a key.
    pub(super) fn is_asked_for(&self, key: &Key) -> bool {
        self.requests.writing.contains_key(key)
    }

    /// What the record of a key shall be, if a request is writing it.
    pub(super) fn wished_shall(&self, key: &Key) -> Option<Record> {
        let request = self.requests.open.get(self.requests.writing.get(key)?)?;
        let intent = request.plan.front().filter(|intent| intent.key == *key)?;
        (!self.is_fulfilled(intent)).then(|| intent.record.clone())
    }

    fn is_fulfilled(&self, intent: &Intent) -> bool {
        match (&intent.key, &intent.record) {
            (Key::Wish(plugin), Record::Wish(wish)) => {
                let stored = self.registry.wishes.get(plugin);
                stored.is_some_and(|stored| wish.is_same(&stored.record))
            }
            (Key::Split(plugin), Record::Split(split)) => {
                let stored = self.registry.splits.get(plugin);
                stored.is_some_and(|stored| *split == stored.record)
            }
            (Key::Rollout(plugin), Record::Rollout(rollout)) => {
                let stored = self.registry.rollouts.get(plugin);
                stored.is_some_and(|stored| **rollout == stored.record)
            }
            _ => true,
        }
    }

    /// A record was stored, or deleted, that operators may have asked for.
    pub(super) fn wished_stored(&mut self, key: &Key) {
        self.sessions.direct_anew |= matches!(key, Key::Wish(_));
        let Some(id) = self.requests.writing.get(key).copied() else {
            return;
        };
        let request = self.requests.open.get(&id);
        let front = request.and_then(|request| request.plan.front());
        if !front.is_some_and(|intent| self.is_fulfilled(intent)) {
            if request.is_some_and(|request| self.is_overtaken(&request.expected))
                && let Some(plugin) = key.wished()
            {
                self.give_up(id, overtaken(plugin));
            }
            return;
        }
        self.requests.writing.remove(key);
        if let Some(request) = self.requests.open.get_mut(&id)
            && let Some(done) = request.plan.pop_front()
            && let Some(plugin) = done.key.wished()
            && request.changed.last() != Some(plugin)
        {
            request.changed.push(plugin.clone());
        }
        self.go_on(id);
    }

    pub(super) fn wished_failed(&mut self, key: &Key, error: &WriteError) {
        let (code, why) = match error {
            WriteError::Conflict => return,
            WriteError::Unavailable(why) => (ErrorCode::Disconnected, why),
            WriteError::Unknown(why) => (ErrorCode::OutcomeUnknown, why),
            WriteError::Refused(why) => (ErrorCode::TooLarge, why),
        };
        if let (Some(plugin), Some(id)) = (key.wished(), self.requests.writing.get(key).copied()) {
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
        let late: Vec<(RequestId, Option<Key>)> = late
            .map(|(id, request)| (*id, request.plan.front().map(|it| it.key.clone())))
            .collect();
        for (id, key) in late {
            let sent = key.is_some_and(|key| self.writes.is_in_flight(&key));
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
        let writing: Vec<Key> = self.requests.writing.keys().cloned().collect();
        for key in writing {
            self.wished_stored(&key);
            self.mark([key]);
        }
        self.sessions.direct_anew = true;
    }

    pub(super) fn answer(&mut self) {
        let revision = self.latest();
        for (request, result) in std::mem::take(&mut self.requests.answers) {
            let result = result.map(|done| Outcome {
                changed: done.changed,
                affected: done.affected,
                notes: done.notes,
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

fn overtaken(plugin: &PluginName) -> MeshError {
    let text = format!(
        "expected: what operators want of {plugin} has changed meanwhile: look at it and decide again"
    );
    MeshError::new(ErrorCode::InvalidArgument, text)
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
