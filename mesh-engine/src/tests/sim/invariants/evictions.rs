//! No node is evicted that was alive and reachable: not within one lease after its session was seen by
//! somebody who can write, and not while there was a coordinator that it could have gone to.

use std::collections::BTreeMap;

use crate::record::Holder;
use crate::tests::sim::world::{LEASE, Peer, Way, World};
use mesh_core::id::NodeId;

#[derive(Default)]
pub struct Evictions {
    /// When each node was last in touch.
    touched: BTreeMap<usize, u64>,
    /// Since when each node could have been in touch with each coordinator.
    could: BTreeMap<(usize, usize), u64>,
    pub counted: u64,
}

impl World {
    /// The node has a session at a coordinator that works, and it is recorded.
    fn is_in_touch(&self, number: usize) -> bool {
        let agent = &self.agents[number];
        let stream = agent.stream.filter(|_| agent.up && !agent.stopped);
        let Some((id, stream)) = stream.and_then(|id| Some((id, self.streams.get(&id)?))) else {
            return false;
        };
        let coordinator = &self.coordinators[stream.coordinator];
        let holds =
            |holder: &Holder| holder.coordinator == coordinator.name && holder.session == id;
        stream.coordinator_open
            && self.is_open(Way::Peer(Peer::Agent(number), stream.coordinator))
            && self.is_well(stream.coordinator)
            && self.store.holder(&agent.name).is_some_and(holds)
    }

    /// Notes who is in touch until now. To be called before anything changes.
    pub fn look_at_evictions(&mut self) {
        for number in 0..self.agents.len() {
            if self.is_in_touch(number) {
                self.invariants.evictions.touched.insert(number, self.now);
            }
            let up = self.agents[number].up && !self.agents[number].stopped;
            for coordinator in 0..self.coordinators.len() {
                let way = Way::Peer(Peer::Agent(number), coordinator);
                let could = up && self.is_open(way) && self.is_well(coordinator);
                let key = (number, coordinator);
                if could {
                    let now = self.now;
                    self.invariants.evictions.could.entry(key).or_insert(now);
                } else {
                    self.invariants.evictions.could.remove(&key);
                }
            }
        }
    }

    /// A node's record was deleted.
    pub fn check_eviction(&mut self, node: &NodeId) {
        self.tell(|| format!("{node} is evicted"));
        self.invariants.evictions.counted += 1;
        let number = self.agents.iter().position(|it| it.name == *node);
        let Some(number) = number else {
            return;
        };
        let evictions = &self.invariants.evictions;
        let touched = evictions.touched.get(&number).copied();
        let checked = match touched.map(|at| self.now - at) {
            Some(ago) if ago < LEASE * 98 / 100 => {
                Err(format!("{node} was evicted {ago} ms after it was in touch"))
            }
            _ => {
                let could = evictions.could.iter();
                let could = could.filter(|((agent, _), _)| *agent == number);
                let longest = could.map(|(_, since)| self.now - since).max();
                match longest {
                    Some(time) if time > 5 * LEASE / 2 => Err(format!(
                        "{node} was evicted though it could reach a coordinator for {time} ms"
                    )),
                    _ => Ok(()),
                }
            }
        };
        self.check(checked);
    }
}
