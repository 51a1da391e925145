//! What this agent knows of every instance on its node: facts, which the coordinator is told.
//!
//! Whoever learns a fact sets it here. Whoever tells others follows the whole as a snapshot, and never
//! a queue of changes: what was missed while a coordinator was gone is seen by comparing.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use mesh_core::id::InstanceId;
use mesh_core::manifest::Manifest;
use mesh_core::revision::Timestamp;
use mesh_core::state::Phase;
use mesh_proto::control;
use tokio::sync::watch;

/// What is known of one instance.
#[derive(Debug, Clone)]
pub(crate) struct Fact {
    /// What it says of itself.
    pub(crate) manifest: Arc<Manifest>,
    /// How it is.
    pub(crate) phase: Phase,
    /// Why, for a person.
    pub(crate) reason: String,
    /// Since when.
    pub(crate) since: Timestamp,
    /// Calls in flight that the host allows.
    pub(crate) concurrency: u32,
    /// The agent started its process and can start it again.
    pub(crate) supervised: bool,
}

impl Fact {
    /// The report of this fact, as it travels.
    pub(crate) fn report(&self, instance: InstanceId) -> control::InstanceReport {
        control::InstanceReport {
            instance: instance.to_string(),
            manifest: Some((&*self.manifest).into()),
            phase: control::InstancePhase::from(self.phase).into(),
            reason: self.reason.clone(),
            since_ms: self.since.0,
            concurrency: self.concurrency,
            supervised: self.supervised,
        }
    }

    /// Whether a report of `other` would say the same.
    pub(crate) fn says_the_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.manifest, &other.manifest)
            && self.phase == other.phase
            && self.reason == other.reason
            && self.concurrency == other.concurrency
            && self.supervised == other.supervised
    }
}

/// All instances at one moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Instances {
    /// Those that are there.
    pub(crate) known: BTreeMap<InstanceId, Arc<Fact>>,
    /// Why the last ones went.
    gone: VecDeque<(InstanceId, String)>,
}

impl Instances {
    /// Reasons of so many gone instances are kept.
    const GONE: usize = 256;

    /// Why an instance is no longer there.
    pub(crate) fn why_gone(&self, instance: InstanceId) -> &str {
        let found = self.gone.iter().rev().find(|(id, _)| *id == instance);
        found.map_or("it is gone", |(_, reason)| reason)
    }
}

/// The roster. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Roster {
    instances: watch::Sender<Arc<Instances>>,
}

impl Default for Roster {
    fn default() -> Self {
        Self {
            instances: watch::Sender::new(Arc::default()),
        }
    }
}

impl Roster {
    /// Follows the whole.
    pub(crate) fn follow(&self) -> watch::Receiver<Arc<Instances>> {
        self.instances.subscribe()
    }

    /// The whole as it is now.
    pub(crate) fn now(&self) -> Arc<Instances> {
        Arc::clone(&self.instances.borrow())
    }

    /// What is known of one instance.
    pub(crate) fn get(&self, instance: InstanceId) -> Option<Arc<Fact>> {
        self.instances.borrow().known.get(&instance).cloned()
    }

    /// An instance is there, or all about it changed.
    pub(crate) fn set(&self, instance: InstanceId, fact: Fact) {
        self.change(|instances| {
            instances.known.insert(instance, Arc::new(fact));
            true
        });
    }

    /// An instance that is there is now otherwise. Nothing happens when it is not there.
    pub(crate) fn set_phase(&self, instance: InstanceId, phase: Phase, reason: &str) {
        self.change(|instances| {
            let Some(fact) = instances.known.get_mut(&instance) else {
                return false;
            };
            if fact.phase == phase && fact.reason == reason {
                return false;
            }
            let mut changed = Fact::clone(fact);
            if changed.phase != phase {
                changed.since = now();
            }
            changed.phase = phase;
            reason.clone_into(&mut changed.reason);
            *fact = Arc::new(changed);
            true
        });
    }

    /// An instance says something else of itself.
    pub(crate) fn set_manifest(&self, instance: InstanceId, manifest: Arc<Manifest>) {
        self.change(|instances| {
            let Some(fact) = instances.known.get_mut(&instance) else {
                return false;
            };
            let mut changed = Fact::clone(fact);
            changed.manifest = manifest;
            *fact = Arc::new(changed);
            true
        });
    }

    /// An instance is no more.
    pub(crate) fn remove(&self, instance: InstanceId, reason: &str) {
        self.change(|instances| {
            if instances.known.remove(&instance).is_none() {
                return false;
            }
            if instances.gone.len() >= Instances::GONE {
                instances.gone.pop_front();
            }
            instances.gone.push_back((instance, reason.to_owned()));
            true
        });
    }

    /// All instances drain, because the agent stops.
    pub(crate) fn drain_all(&self, reason: &str) {
        let drains = |phase| matches!(phase, Phase::Loaded | Phase::Ready | Phase::Unhealthy);
        for (instance, fact) in &self.now().known {
            if drains(fact.phase) {
                self.set_phase(*instance, Phase::Draining, reason);
            }
        }
    }

    fn change(&self, change: impl FnOnce(&mut Instances) -> bool) {
        self.instances
            .send_if_modified(|instances| change(Arc::make_mut(instances)));
    }
}

/// Milliseconds since 1970.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let millis = since.unwrap_or_default().as_millis();
    Timestamp(u64::try_from(millis).unwrap_or(u64::MAX))
}

/// A fresh instance id.
pub(crate) fn new_instance() -> InstanceId {
    let mut random = [0; 10];
    fastrand::fill(&mut random);
    InstanceId::new(now().0, random)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed test may panic")]
mod tests {
    use super::*;
    use mesh_core::manifest::ManifestDraft;

    fn fact(phase: Phase) -> Fact {
        let draft = ManifestDraft {
            name: "time".to_owned(),
            version: "1.0.0".to_owned(),
            ..ManifestDraft::default()
        };
        Fact {
            manifest: Arc::new(draft.check().unwrap()),
            phase,
            reason: String::new(),
            since: Timestamp(1),
            concurrency: 8,
            supervised: true,
        }
    }

    #[test]
    fn only_what_is_new_wakes_those_who_follow() {
        let roster = Roster::default();
        let mut follow = roster.follow();
        let instance = new_instance();
        roster.set_phase(instance, Phase::Failed, "no such instance");
        assert!(!follow.has_changed().unwrap());
        roster.set(instance, fact(Phase::Loaded));
        assert!(follow.has_changed().unwrap());
        follow.mark_unchanged();
        roster.set_phase(instance, Phase::Loaded, "");
        assert!(!follow.has_changed().unwrap());
        roster.set_phase(instance, Phase::Ready, "");
        assert!(follow.has_changed().unwrap());
        assert!(roster.get(instance).unwrap().since > Timestamp(1));
    }

    #[test]
    fn one_that_went_leaves_its_reason() {
        let roster = Roster::default();
        let instance = new_instance();
        roster.set(instance, fact(Phase::Ready));
        roster.remove(instance, "its stream broke");
        assert!(roster.get(instance).is_none());
        assert_eq!(roster.now().why_gone(instance), "its stream broke");
        assert_eq!(roster.now().why_gone(new_instance()), "it is gone");
    }

    #[test]
    fn draining_leaves_out_those_that_do_not_run() {
        let roster = Roster::default();
        let (ready, failed) = (new_instance(), new_instance());
        roster.set(ready, fact(Phase::Ready));
        roster.set(failed, fact(Phase::Failed));
        roster.drain_all("the agent stops");
        assert_eq!(roster.get(ready).unwrap().phase, Phase::Draining);
        assert_eq!(roster.get(failed).unwrap().phase, Phase::Failed);
    }
}
