//! Everything that is there in one run, and the order in which it begins and ends.

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fastrand::Rng;
use mesh_bus::memory::{Broker, Line};
use mesh_bus::{Bus, BusLimits};
use mesh_core::error::Processed;
use mesh_core::id::{MeshName, NodeId};
use mesh_runtime::Tasks;
use router::{Router, RouterConfig};
use tokio::time::{Instant, sleep, timeout};

use super::agent::AgentSlot;
use super::coordinator::{Coordinator, Tables};
use super::ledger::{End, Ledger};
use super::plan::{Plan, Planted};
use super::plugin::PluginSlot;
use super::trace::Trace;
use super::{Counts, Outcome, caller, check, faults};

/// A gateway: a bus and a router.
#[derive(Debug)]
pub(super) struct Gateway {
    pub(super) bus: Bus,
    pub(super) router: Router,
    pub(super) line: Line,
    pub(super) tables: Arc<Tables>,
}

pub(super) struct World {
    pub(super) plan: Plan,
    pub(super) planted: Planted,
    pub(super) broker: Broker,
    pub(super) tasks: Tasks,
    pub(super) ledger: Mutex<Ledger>,
    pub(super) coordinator: Coordinator,
    pub(super) agents: Vec<Arc<AgentSlot>>,
    pub(super) plugins: Vec<Arc<PluginSlot>>,
    trace: Mutex<Trace>,
    violations: Mutex<Vec<String>>,
    rng: Mutex<Rng>,
    started: Instant,
}

/// Violations that are listed; what comes after the first ones mostly follows from them.
const MOST_VIOLATIONS: usize = 12;

/// All calls have ended by then, or never.
const LONGEST: Duration = Duration::from_secs(300);

pub(super) fn router_config(plan: &Plan, name: NodeId) -> RouterConfig {
    RouterConfig {
        patience: plan.patience,
        ..RouterConfig::new(name)
    }
}

pub(super) fn limits(world: &World) -> BusLimits {
    let mut limits = BusLimits {
        chunk_bytes: world.plan.chunk_bytes,
        ..BusLimits::default()
    };
    if world.planted == Planted::KeepsCredit {
        // New credit is given for half of it.
        limits.initial_credit = u32::MAX;
    }
    limits
}

impl World {
    pub(super) fn new(plan: Plan, planted: Planted, keep: bool) -> Arc<Self> {
        let broker = Broker::new(plan.seed);
        broker.set_delay(plan.delay.clone());
        let agents = (0..plan.agents).map(|number| Arc::new(AgentSlot::new(number)));
        let plugins = (plan.plugins.iter().enumerate())
            .map(|(number, (kind, agent))| Arc::new(PluginSlot::new(number, *kind, *agent)));
        Arc::new(Self {
            ledger: Mutex::new(Ledger::new(&plan.calls)),
            coordinator: Coordinator::new(planted),
            agents: agents.collect(),
            plugins: plugins.collect(),
            trace: Mutex::new(Trace::new(keep)),
            violations: Mutex::default(),
            rng: Mutex::new(Rng::with_seed(plan.seed ^ 0x7073_1e00)),
            started: Instant::now(),
            tasks: Tasks::new(),
            broker,
            plan,
            planted,
        })
    }

    /// A generator of its own for somebody, so that one's draws do not change another's.
    pub(super) fn rng(&self) -> Rng {
        self.rng.lock().unwrap().fork()
    }

    pub(super) fn since_start(&self) -> Duration {
        self.started.elapsed()
    }

    pub(super) fn at(&self, time: Duration) -> Instant {
        self.started + time
    }

    pub(super) fn say(&self, text: &str) {
        self.trace.lock().unwrap().say(self.since_start(), text);
    }

    pub(super) fn violation(&self, text: String) {
        self.say(&format!("VIOLATION: {text}"));
        let mut violations = self.violations.lock().unwrap();
        if violations.len() < MOST_VIOLATIONS {
            violations.push(text);
        }
    }

    /// The work of a call has begun at an instance. Gives how often it was by now.
    pub(super) fn began(&self, key: u64, at: &str) -> usize {
        self.say(&format!("call {key} begins at {at}"));
        let mut ledger = self.ledger.lock().unwrap();
        let Some(record) = ledger.calls.get_mut(&key) else {
            drop(ledger);
            self.violation(format!("a plugin was given call {key}, which nobody made"));
            return 0;
        };
        record.starts.push(at.to_owned());
        let times = record.starts.len();
        if record.starts.len() > 1 && !record.script.again {
            let text = format!(
                "call {key} may not be repeated and was begun {} times: {}",
                record.starts.len(),
                record.starts.join(", ")
            );
            drop(ledger);
            self.violation(text);
        }
        times
    }

    /// A plugin took a message of a call.
    pub(super) fn took_message(&self, key: u64) {
        let mut ledger = self.ledger.lock().unwrap();
        if let Some(record) = ledger.calls.get_mut(&key) {
            record.messages_taken += 1;
        }
    }

    /// A caller was told how its call ended.
    pub(super) fn ended(&self, key: u64, end: End) {
        let text = match &end {
            End::Well => "well".to_owned(),
            End::Failed(_, text) => text.clone(),
            End::GivenUp => "given up".to_owned(),
        };
        self.say(&format!("call {key} ends: {text}"));
        let mut ledger = self.ledger.lock().unwrap();
        let Some(record) = ledger.calls.get_mut(&key) else {
            return;
        };
        record.ends.push((Instant::now(), end));
        if record.ends.len() > 1 {
            drop(ledger);
            self.violation(format!("call {key} ended more than once"));
        }
    }

    pub(super) fn spawn(
        &self,
        name: &'static str,
        future: impl Future<Output = ()> + Send + 'static,
    ) {
        let stop = self.tasks.token();
        self.tasks.spawn(name, async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = future => {}
            }
        });
    }

    async fn gateway(&self, number: usize) -> Gateway {
        let connected = self.broker.connect(MeshName::default(), limits(self));
        let (bus, driver, line) = connected.await.unwrap();
        let stop = self.tasks.token();
        self.tasks
            .spawn("bus", driver.run(stop.clone().cancelled_owned()));
        let tables = Arc::new(Tables::default());
        let name = NodeId::new(&format!("gateway-{number}")).unwrap();
        let config = router_config(&self.plan, name);
        let seen = match self.planted {
            Planted::OldTables => tables.late(self, Duration::from_secs(2)),
            _ => tables.watch(),
        };
        let (router, driver) = Router::new(config, bus.clone(), seen, None);
        self.tasks
            .spawn("router", driver.run(stop.cancelled_owned()));
        Gateway {
            bus,
            router,
            line,
            tables,
        }
    }

    /// Plays the whole run and checks it.
    pub(super) async fn play(self: Arc<Self>) {
        let broker = self.broker.clone();
        self.spawn("broker", async move { broker.run().await });
        let mut gateways = Vec::new();
        for number in 0..self.plan.gateways {
            let gateway = Arc::new(self.gateway(number).await);
            self.coordinator.serve(&self, gateway.tables.clone());
            gateways.push(gateway);
        }
        for agent in &self.agents {
            self.spawn("agent", agent.clone().live(self.clone()));
        }
        for plugin in &self.plugins {
            self.spawn("plugin", plugin.clone().live(self.clone()));
        }
        self.spawn("faults", faults::play(self.clone(), gateways.clone()));
        let calls: Vec<_> = (self.plan.calls.iter())
            .map(|script| {
                let gateway = gateways[script.gateway].clone();
                let call = caller::call(self.clone(), gateway, script.clone());
                self.tasks.spawn("caller", call)
            })
            .collect();
        let all = futures::future::join_all(calls);
        match timeout(LONGEST, all).await {
            Err(_) => self.violation("calls hang: their callers were never told an end".to_owned()),
            Ok(ends) if ends.iter().any(Result::is_err) => {
                self.violation("a caller panicked".to_owned());
            }
            Ok(_) => {}
        }
        check::leftovers(&self, &gateways).await;
        check::ledger(&self);
        self.tasks.cancel();
        for agent in &self.agents {
            agent.stop();
        }
        sleep(Duration::from_millis(10)).await;
        let report = self.tasks.join(Duration::from_secs(5)).await;
        if !report.is_clean() {
            self.violation(format!("tasks did not end in order: {report:?}"));
        }
    }

    pub(super) fn outcome(&self, seed: u64) -> Outcome {
        let ledger = self.ledger.lock().unwrap();
        let mut trace = self.trace.lock().unwrap();
        let mut counts = Counts {
            faults: self.plan.faults.len() as u64,
            messages: self.broker.passed(),
            simulated: self.since_start(),
            ..Counts::default()
        };
        for record in ledger.calls.values() {
            let Some((_, end)) = record.ends.first() else {
                continue;
            };
            counts.calls += 1;
            counts.repeated += u64::from(record.starts.len() > 1);
            let count = match end {
                End::Well => &mut counts.well,
                End::GivenUp => &mut counts.given_up,
                End::Failed(code, _) => match code.processed() {
                    Processed::No => &mut counts.not_processed,
                    Processed::Unknown => &mut counts.unknown,
                    Processed::Yes => &mut counts.failed,
                },
            };
            *count += 1;
        }
        Outcome {
            seed,
            violations: self.violations.lock().unwrap().clone(),
            digest: trace.digest() ^ self.broker.digest(),
            trace: trace.take(),
            counts,
        }
    }
}
