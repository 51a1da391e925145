//! What breaks, and when it works again.

use super::store::Bucket;
use super::streams::Side;
use super::world::{Happening, LEASE, Peer, ToCoordinator, Way, World};

/// Something that is broken.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    Cut(Way),
    StoreDown,
    CoordinatorDown(usize, u64),
    CoordinatorStopped(usize, u64),
    AgentDown(usize, u64),
    AgentStopped(usize, u64),
    GatewayDown(usize, u64),
}

impl World {
    /// Breaks something.
    pub fn fails(&mut self) {
        if self.quiet {
            return;
        }
        let pause = self.chance.within(500..20_000);
        self.after(pause, Happening::Fails);
        let coordinator = self.chance.index(self.coordinators.len());
        let agent = self.chance.index(self.agents.len());
        let gateway = self.chance.index(self.gateways.len());
        let length = match self.chance.within(0..3) {
            0 => self.chance.within(10..2_000),
            1 => self.chance.within(1_000..LEASE),
            _ => self.chance.within(LEASE..5 * LEASE),
        };
        match self.chance.within(0..16) {
            0 | 1 => self.cut(Way::Store(coordinator), length),
            2 => {
                self.store.up = false;
                self.mend_after(length.min(15_000), Fault::StoreDown);
            }
            3 => {
                // Without any error, and longer than anybody expects.
                let deaf = self.now + self.chance.within(10_000..85_000);
                self.coordinators[coordinator].deaf_until = deaf;
                self.tell(|| format!("coordinator {coordinator} is deaf"));
            }
            4 | 5 => {
                self.coordinators[coordinator].slow_until = self.now + length;
                self.tell(|| format!("writes of coordinator {coordinator} are slow"));
            }
            6 | 7 => self.coordinator_dies(coordinator, length),
            8 | 9 => self.coordinator_stands_still(coordinator, length),
            10 => {
                for coordinator in 0..self.coordinators.len() {
                    self.coordinator_dies(coordinator, length);
                }
            }
            11 => self.agent_dies(agent, length),
            12 => self.agent_stands_still(agent, length),
            13 => {
                for coordinator in 0..self.coordinators.len() {
                    if self.chance.percent(60) {
                        self.cut(Way::Peer(Peer::Agent(agent), coordinator), length);
                    }
                }
            }
            14 => {
                self.cut(Way::Peer(Peer::Gateway(gateway), coordinator), length);
                if self.gateways[gateway].up && self.chance.percent(30) {
                    self.stop_gateway(gateway);
                    let life = self.gateways[gateway].life;
                    self.mend_after(length, Fault::GatewayDown(gateway, life));
                }
            }
            _ => {
                // It moves, for no reason that anybody knows.
                if let Some(stream) = self.agents[agent].stream {
                    self.finds_gone(stream, Side::Peer);
                }
            }
        }
    }

    fn mend_after(&mut self, length: u64, fault: Fault) {
        self.tell(|| format!("{fault:?} for {length} ms"));
        self.after(length, Happening::Mends(fault));
    }

    fn cut(&mut self, way: Way, length: u64) {
        if !self.cuts.insert(way) {
            return;
        }
        self.mend_after(length, Fault::Cut(way));
        if let Way::Peer(peer, coordinator) = way {
            let over = self.streams.iter();
            let over = over.filter(|(_, it)| it.peer == peer && it.coordinator == coordinator);
            let over: Vec<u64> = over.map(|(number, _)| *number).collect();
            for stream in over {
                self.falls_silent(stream, Side::Peer);
                self.falls_silent(stream, Side::Coordinator);
            }
        }
    }

    fn coordinator_dies(&mut self, number: usize, length: u64) {
        if self.coordinators[number].up {
            let life = self.coordinators[number].life;
            self.stop_coordinator(number);
            self.mend_after(length, Fault::CoordinatorDown(number, life));
        }
    }

    fn coordinator_stands_still(&mut self, number: usize, length: u64) {
        let coordinator = &mut self.coordinators[number];
        if !coordinator.up || coordinator.stopped {
            return;
        }
        coordinator.stopped = true;
        let life = coordinator.life;
        self.mend_after(length, Fault::CoordinatorStopped(number, life));
        for stream in self.streams_of(number) {
            self.falls_silent(stream, Side::Peer);
        }
    }

    fn agent_dies(&mut self, number: usize, length: u64) {
        if !self.agents[number].up {
            return;
        }
        let life = self.agents[number].life;
        let others = self.agents.iter().filter(|agent| !agent.lost).count();
        self.agents[number].lost = others > 2 && self.chance.percent(30);
        self.stop_agent(number);
        self.mend_after(length, Fault::AgentDown(number, life));
    }

    fn agent_stands_still(&mut self, number: usize, length: u64) {
        let agent = &mut self.agents[number];
        if !agent.up || agent.stopped {
            return;
        }
        agent.stopped = true;
        let life = agent.life;
        let stream = agent.stream.filter(|_| self.chance.percent(50));
        if let Some(stream) = stream {
            self.falls_silent(stream, Side::Coordinator);
        }
        self.mend_after(length, Fault::AgentStopped(number, life));
    }

    pub fn mends(&mut self, fault: Fault) {
        self.tell(|| format!("{fault:?} is over"));
        match fault {
            Fault::Cut(way) => drop(self.cuts.remove(&way)),
            Fault::StoreDown => self.store.up = true,
            Fault::CoordinatorDown(number, life) => {
                let coordinator = &self.coordinators[number];
                if coordinator.life == life && !coordinator.up {
                    self.start_coordinator(number);
                }
            }
            Fault::CoordinatorStopped(number, life) => {
                let coordinator = &self.coordinators[number];
                if coordinator.life == life && coordinator.stopped {
                    self.wake_coordinator(number);
                }
            }
            Fault::AgentDown(number, life) => {
                let agent = &self.agents[number];
                if agent.life == life && !agent.up && !agent.lost {
                    self.start_agent(number);
                }
            }
            Fault::AgentStopped(number, life) => {
                if self.agents[number].life == life {
                    self.agents[number].stopped = false;
                }
            }
            Fault::GatewayDown(number, life) => {
                let gateway = &self.gateways[number];
                if gateway.life == life && !gateway.up {
                    self.start_gateway(number);
                }
            }
        }
    }

    /// The store is replaced by a copy that was made a while ago. Coordinators lose it for a moment.
    pub fn store_goes_back(&mut self) {
        let most = self.store.last().min(30);
        let to = self.store.last() - self.chance.within(0..most + 1);
        self.tell(|| format!("the store goes back to {to}"));
        self.store.go_back(to);
        self.went_back = true;
        self.store_replaced();
    }

    /// The store is gone with all that was in it; there is a new one.
    pub fn store_is_lost(&mut self) {
        self.tell(|| "the store is lost".to_owned());
        self.store = Bucket::new(self.now);
        self.store_replaced();
    }

    fn store_replaced(&mut self) {
        self.invariants.store_replaced(&self.store);
        self.store.up = false;
        self.mend_after(6_000, Fault::StoreDown);
        for number in 0..self.coordinators.len() {
            self.later(number, 0, ToCoordinator::Breaks);
        }
    }

    /// Somebody deletes every key of the store.
    pub fn store_is_emptied(&mut self) {
        self.tell(|| "the store is emptied".to_owned());
        for key in self.store.keys() {
            let deleted = self.store.write(&key, None, None, self.now).cloned();
            let deleted = deleted.expect("it is not compared");
            self.changed(&key, &deleted);
        }
        self.invariants.office_deleted();
    }
}
