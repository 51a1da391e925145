//! How an instance is taken out of service in order: tell the mesh, refuse what is new, let end what
//! runs, let the plugin tidy up, close.

use std::time::Duration;

use mesh_core::id::InstanceId;
use mesh_core::state::Phase;
use tokio::time::{Instant, timeout, timeout_at};

use crate::data::Plane;
use crate::roster::Roster;

/// Time that a plugin gets to say that it is drained after its last call, at least.
const TIDY_UP: Duration = Duration::from_secs(2);

/// Why and how instances are drained.
#[derive(Debug, Clone)]
pub(crate) struct Drain {
    /// The data path.
    pub(crate) plane: Plane,
    /// Where the mesh is told.
    pub(crate) roster: Roster,
    /// Time that running calls get.
    pub(crate) grace: Duration,
    /// Why, for a person.
    pub(crate) reason: String,
}

impl Drain {
    /// Drains one instance and closes its stream. `reattach`: the plugin shall attach again.
    pub(crate) async fn instance(&self, instance: InstanceId, reattach: bool) {
        let deadline = Instant::now() + self.grace;
        self.begin(instance);
        self.finish(instance, reattach, deadline).await;
    }

    /// It takes no new calls from now on.
    fn begin(&self, instance: InstanceId) {
        if self.plane.drain_instance(instance, &self.reason) {
            self.roster
                .set_phase(instance, Phase::Draining, &self.reason);
        }
    }

    async fn finish(&self, instance: InstanceId, reattach: bool, deadline: Instant) {
        if timeout_at(deadline, self.plane.idle(instance))
            .await
            .is_err()
        {
            tracing::warn!(%instance, grace = ?self.grace, "calls still run at the end of the grace");
        }
        let left = deadline
            .saturating_duration_since(Instant::now())
            .max(TIDY_UP);
        self.plane
            .send_drain(instance, left, &self.reason, reattach);
        if timeout(left, self.plane.drained(instance)).await.is_err() {
            tracing::warn!(%instance, "the plugin did not say that it is drained");
        }
        self.plane.end_stream(instance, None);
        // Its task sees that, ends what still runs and takes the instance off the roster.
        let mut roster = self.roster.follow();
        let gone = roster.wait_for(|instances| !instances.known.contains_key(&instance));
        let _ = timeout(TIDY_UP, gone).await;
    }

    /// Drains all instances at once. Those that the agent did not start may attach again.
    pub(crate) async fn all(&self) {
        let deadline = Instant::now() + self.grace;
        let instances = self.plane.instances(None);
        for (instance, _) in &instances {
            self.begin(*instance);
        }
        // Until all calls have ended, each instance may be needed by those that run at another.
        let idle = instances
            .iter()
            .map(|(instance, _)| self.plane.idle(*instance));
        // Those that do not end in half of the grace leave the other plugins the rest to tidy up.
        let _ = timeout_at(deadline - self.grace / 2, futures::future::join_all(idle)).await;
        let drains = instances
            .into_iter()
            .map(|(instance, supervised)| self.finish(instance, !supervised, deadline));
        futures::future::join_all(drains).await;
    }
}
