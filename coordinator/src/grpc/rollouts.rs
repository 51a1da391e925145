//! Operators' rollouts.

use mesh_core::error::MeshError;
use mesh_core::id::PluginName;
use mesh_engine::engine::{Change, Engine, Outcome};
use mesh_engine::record;
use mesh_proto::admin::{
    AbortRolloutRequest, ListRolloutsRequest, ListRolloutsResponse, RolloutPlan, RolloutState,
    RolloutView, StartRolloutRequest,
};
use mesh_proto::control::VersionShare;
use mesh_proto::convert::WireError;

use super::Services;
use super::admin::field;

impl Services {
    pub(super) async fn begin_rollout(
        &self,
        request: StartRolloutRequest,
        by: String,
    ) -> Result<Outcome, MeshError> {
        let StartRolloutRequest { name, plan, reason } = request;
        let plan = plan.ok_or_else(|| WireError::new("plan", "is missing"))?;
        let plan = record::RolloutPlan {
            to: field("plan.to", &plan.to)?,
            steps: plan.steps,
            interval_ms: plan.interval_ms,
            max_errors: plan.max_errors_ppm,
            within_ms: plan.within_ms,
        };
        self.carry_out("name", &name, Change::Rollout(plan), reason, by)
            .await
    }

    pub(super) async fn end_rollout(
        &self,
        request: AbortRolloutRequest,
        by: String,
    ) -> Result<Outcome, MeshError> {
        let AbortRolloutRequest { name, reason } = request;
        self.carry_out("name", &name, Change::AbortRollout, reason, by)
            .await
    }

    pub(super) async fn rollouts(
        &self,
        request: ListRolloutsRequest,
    ) -> Result<ListRolloutsResponse, MeshError> {
        let look = |engine: &Engine, plugin: Option<&PluginName>| engine.rollouts(plugin);
        let (rollouts, revision) = self.look_at(&request.plugin, look).await?;
        Ok(ListRolloutsResponse {
            rollouts: rollouts.into_iter().map(view).collect(),
            revision: Some(revision.into()),
        })
    }
}

/// A rollout on the wire.
pub(super) fn view(own: record::RolloutRecord) -> RolloutView {
    let state = match own.state {
        record::RolloutState::Waiting => RolloutState::Waiting,
        record::RolloutState::Shifting => RolloutState::Shifting,
        record::RolloutState::Done => RolloutState::Done,
        record::RolloutState::Returned => RolloutState::Returned,
        record::RolloutState::Aborted => RolloutState::Aborted,
    };
    RolloutView {
        percent: own.percent(),
        plugin: own.plugin.to_string(),
        before: own
            .before
            .iter()
            .map(|(version, weight)| VersionShare {
                version: version.to_string(),
                weight: *weight,
            })
            .collect(),
        state: state.into(),
        retired: own.retired.iter().map(ToString::to_string).collect(),
        plan: Some(RolloutPlan {
            to: own.plan.to.to_string(),
            steps: own.plan.steps,
            interval_ms: own.plan.interval_ms,
            max_errors_ppm: own.plan.max_errors,
            within_ms: own.plan.within_ms,
        }),
        reason: own.reason,
        by: own.by,
        why: own.why,
        begun_ms: own.begun.0,
        since_ms: own.since.0,
    }
}
