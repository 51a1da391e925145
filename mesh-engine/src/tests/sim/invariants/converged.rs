//! When nothing breaks any more, everybody has the table that follows from the store alone, and it says
//! what the agents say.

use std::collections::BTreeSet;
use std::time::Duration;

use super::forward::is_same;
use crate::engine::{Command, Engine, EngineConfig, Event};
use crate::tests::sim::world::{GRACE, LEASE, World};
use mesh_core::id::InstanceId;
use mesh_core::revision::Timestamp;
use mesh_core::table::Table;

impl World {
    /// Why it is not so yet.
    pub fn has_converged(&self) -> Result<(), String> {
        let table = &self.coordinators[0].feed.table;
        for coordinator in &self.coordinators {
            if !is_same(&coordinator.feed.table, table) {
                return Err(format!(
                    "{} has revision {} and {} has {}",
                    coordinator.name,
                    coordinator.feed.table.revision(),
                    self.coordinators[0].name,
                    table.revision()
                ));
            }
        }
        if !is_same(&self.what_follows()?, table) {
            return Err("the tables are not what follows from the store".to_owned());
        }
        let agents = self.agents.iter().filter(|agent| agent.up);
        let followers = agents
            .clone()
            .map(|agent| (agent.name.as_str(), &agent.table));
        let gateways = self.gateways.iter().map(|it| ("a gateway", &it.table));
        for (who, follower) in followers.chain(gateways) {
            if !is_same(follower, table) {
                let (has, newest) = (follower.revision(), table.revision());
                return Err(format!("{who} has table {has} and the newest is {newest}"));
            }
        }
        let here: BTreeSet<&str> = table.nodes().map(|node| node.node.as_str()).collect();
        let up: BTreeSet<&str> = agents.clone().map(|agent| agent.name.as_str()).collect();
        if here != up {
            return Err(format!("the table has nodes {here:?}, and {up:?} run"));
        }
        let here: BTreeSet<InstanceId> = table.instances().map(|it| it.instance).collect();
        let run: BTreeSet<InstanceId> = agents.flat_map(|it| it.says.keys()).copied().collect();
        if here != run {
            return Err(format!("the table has instances {here:?}, and {run:?} run"));
        }
        Ok(())
    }

    /// The table of a coordinator that knows nothing but the store.
    fn what_follows(&self) -> Result<Table, String> {
        let now = Timestamp(self.now);
        let config = EngineConfig {
            name: "scratch".parse().expect("a name"),
            run: 1,
            lease: Duration::from_millis(LEASE),
            grace: Duration::from_millis(GRACE),
        };
        let mut engine = Engine::new(config, now);
        let mut table = Table::default();
        let (epoch, last) = (self.store.epoch, self.store.last());
        let entries = self.store.snapshot(last).into_iter();
        let entries = entries.map(|entry| Event::Stored {
            key: entry.key,
            value: entry.value,
            sequence: entry.sequence,
            at: Timestamp(entry.at),
        });
        let events = [Event::StoreReset { epoch, last }]
            .into_iter()
            .chain(entries);
        for event in events.chain([Event::StoreCurrent]) {
            for command in engine.step(event, now) {
                if let Command::Publish(update) = command {
                    table = table.apply(&update).map_err(|error| error.to_string())?;
                }
            }
        }
        Ok(table)
    }
}
