//! A rollout goes forward one step at a time, in terms of the office that only rise, and none is begun over
//! another; it ends when nothing breaks any more.

use crate::record::{Key, Mover, Record, RolloutRecord, RolloutState};
use crate::tests::sim::world::World;
use RolloutState::{Aborted, Done, Returned, Shifting, Waiting};
use mesh_core::state::InstanceState;
use mesh_core::table::InstanceRoute;

#[derive(Default)]
pub struct Rollouts {
    /// Those that came to their last step and were done.
    pub counted: u64,
}

impl Rollouts {
    /// A rollout's record was written over another, which had been there for so long.
    pub fn stored(
        &mut self,
        before: Option<&RolloutRecord>,
        after: Option<&RolloutRecord>,
        stood_ms: u64,
    ) -> Result<(), String> {
        let Some(after) = after else {
            return Err("the record of a rollout is gone".to_owned());
        };
        self.counted += u64::from(after.state == Done);
        let by_operator = matches!(after.moved_by, Mover::Operator(_));
        let broken = |why: &str| Err(format!("{why}: {after:?} after {before:?}"));
        let Some(before) = before.filter(|it| it.is_running()) else {
            return if after.state == Waiting && by_operator {
                Ok(())
            } else {
                broken("a rollout goes on after its end")
            };
        };
        if (before.begun, &before.plan) != (after.begun, &after.plan) {
            return broken("a rollout is begun over another");
        }
        let last = before.plan.steps.len() - 1;
        let is_next = match (before.state, after.state) {
            (_, Aborted) => {
                return if by_operator {
                    Ok(())
                } else {
                    broken("aborted")
                };
            }
            (Shifting, Returned) => true,
            (Waiting, Shifting) => after.step == 0,
            (Shifting, Shifting) => after.step == before.step + 1,
            (Shifting, Done) => before.step == last && after.watched_ms >= after.plan.within_ms,
            _ => false,
        };
        if !is_next || by_operator || after.watched_ms < before.watched_ms {
            return broken("that is not its next step");
        }
        if after.state == Returned {
            return Ok(());
        }
        if after.term < before.term || after.term == 0 {
            return broken("it was taken forward in a term that is over");
        }
        // Clocks differ by less than this.
        if before.state == Shifting && stood_ms < before.plan.interval_ms * 98 / 100 {
            return broken("it was taken forward too soon");
        }
        Ok(())
    }
}

impl World {
    /// Why rollouts have not come to their end yet.
    pub fn rollouts_have_ended(&self) -> Result<(), String> {
        let table = &self.coordinators[0].feed.table;
        for key in self.store.keys() {
            let Some(Record::Rollout(rollout)) = self.store.record(&key) else {
                continue;
            };
            let is_new = |route: &InstanceRoute| {
                let manifest = table.manifest(&route.spec);
                route.state == InstanceState::Active
                    && manifest.is_some_and(|it| {
                        Key::Rollout(it.name.clone()) == key && it.version == rollout.plan.to
                    })
            };
            let waits = rollout.state == Waiting && !table.instances().any(is_new);
            if rollout.is_running() && !waits {
                return Err(format!("a rollout goes on: {rollout:?}"));
            }
        }
        Ok(())
    }
}
