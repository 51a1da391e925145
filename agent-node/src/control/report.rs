//! What a coordinator is told of the instances: the difference to what it was told before.

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh_core::id::InstanceId;
use mesh_proto::control::{AgentFrame, Announce, InstanceGone, agent_frame};

use crate::roster::{Fact, Instances};

/// What one coordinator was told.
#[derive(Debug, Default)]
pub(super) struct Told {
    instances: BTreeMap<InstanceId, Arc<Fact>>,
}

impl Told {
    /// Everything, as one frame.
    pub(super) fn announce(&mut self, now: &Instances) -> AgentFrame {
        self.instances.clone_from(&now.known);
        let reports = now.known.iter();
        let reports = reports.map(|(instance, fact)| fact.report(*instance));
        frame(agent_frame::Body::Announce(Announce {
            instances: reports.collect(),
        }))
    }

    /// What changed since, as one frame each.
    pub(super) fn changes(&mut self, now: &Instances) -> Vec<AgentFrame> {
        let mut frames = Vec::new();
        for instance in self.instances.keys() {
            if !now.known.contains_key(instance) {
                frames.push(frame(agent_frame::Body::Gone(InstanceGone {
                    instance: instance.to_string(),
                    reason: now.why_gone(*instance).to_owned(),
                })));
            }
        }
        for (instance, fact) in &now.known {
            let before = self.instances.get(instance);
            if before.is_none_or(|before| !before.says_the_same(fact)) {
                let report = fact.report(*instance);
                frames.push(frame(agent_frame::Body::Report(report)));
            }
        }
        self.instances.clone_from(&now.known);
        frames
    }
}

pub(super) fn frame(body: agent_frame::Body) -> AgentFrame {
    AgentFrame { body: Some(body) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "a failed test may panic")]
mod tests {
    use super::*;
    use crate::roster::{Roster, new_instance, now};
    use mesh_core::manifest::ManifestDraft;
    use mesh_core::state::Phase;

    fn fact() -> Fact {
        let draft = ManifestDraft {
            name: "time".to_owned(),
            version: "1.0.0".to_owned(),
            ..ManifestDraft::default()
        };
        Fact {
            manifest: Arc::new(draft.check().unwrap()),
            phase: Phase::Loaded,
            reason: String::new(),
            since: now(),
            concurrency: 8,
            supervised: false,
        }
    }

    fn kinds(frames: &[AgentFrame]) -> Vec<String> {
        let kind = |frame: &AgentFrame| match frame.body.as_ref().unwrap() {
            agent_frame::Body::Report(report) => format!("report {:?}", report.phase()),
            agent_frame::Body::Gone(gone) => format!("gone {}", gone.reason),
            other => panic!("{other:?}"),
        };
        frames.iter().map(kind).collect()
    }

    #[test]
    fn only_differences_are_told_and_missed_steps_are_left_out() {
        let roster = Roster::default();
        let (first, second) = (new_instance(), new_instance());
        roster.set(first, fact());
        let mut told = Told::default();
        match told.announce(&roster.now()).body {
            Some(agent_frame::Body::Announce(announce)) => {
                assert_eq!(announce.instances.len(), 1);
            }
            other => panic!("{other:?}"),
        }
        assert!(told.changes(&roster.now()).is_empty());
        roster.set_phase(first, Phase::Ready, "");
        roster.set_phase(first, Phase::Draining, "the agent stops");
        roster.set(second, fact());
        roster.remove(second, "it came and went unseen");
        assert_eq!(kinds(&told.changes(&roster.now())), ["report Draining"]);
        roster.remove(first, "its stream broke");
        assert_eq!(
            kinds(&told.changes(&roster.now())),
            ["gone its stream broke"]
        );
        assert!(told.changes(&roster.now()).is_empty());
    }
}
