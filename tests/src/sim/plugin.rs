//! The plugins: programs that speak the plugin protocol frame by frame, and do what scripts say.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fastrand::Rng;
use futures::future::{AbortHandle, Abortable, BoxFuture};
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use mesh_core::id::InstanceId;
use mesh_proto::common;
use mesh_proto::plugin::{
    DrainRequest, Drained, Health, Hello, HostFrame, PluginFrame, Ready, host_frame, plugin_frame,
};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::sleep;
use tonic::Status;

use super::agent::AgentUp;
use super::caller::plugin_name;
use super::job::{self, Job};
use super::ledger::key_of;
use super::pipe::{Downlink, Uplink, uplink};
use super::plan::millis;
use super::world::World;

/// Chunks that may be sent before the first Credit, as the protocol has it.
pub(super) const INITIAL_CREDIT: usize = 64;

/// What a fault does to a plugin.
#[derive(Debug, Clone, Copy)]
pub(super) enum Order {
    Crash,
    Hang(Duration),
    Flood,
    Garbage,
    Leave,
}

/// One plugin's program, which is started again when it has ended.
pub(super) struct PluginSlot {
    number: usize,
    pub(super) kind: usize,
    pub(super) agent: usize,
    orders: mpsc::UnboundedSender<Order>,
    inbox: Mutex<Option<mpsc::UnboundedReceiver<Order>>>,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    instance: Option<InstanceId>,
    working: usize,
}

impl PluginSlot {
    pub(super) fn new(number: usize, kind: usize, agent: usize) -> Self {
        let (orders, inbox) = mpsc::unbounded_channel();
        Self {
            number,
            kind,
            agent,
            orders,
            inbox: Mutex::new(Some(inbox)),
            seen: Mutex::default(),
        }
    }

    pub(super) fn order(&self, order: Order) {
        // The run is over otherwise.
        let _ = self.orders.send(order);
    }

    pub(super) fn label(&self) -> String {
        format!("plugin {} at agent {}", self.number, self.agent)
    }

    pub(super) fn instance(&self) -> Option<InstanceId> {
        self.seen.lock().unwrap().instance
    }

    pub(super) fn working(&self) -> usize {
        self.seen.lock().unwrap().working
    }

    /// Attaches, works, and attaches again.
    pub(super) async fn live(self: Arc<Self>, world: Arc<World>) {
        let Some(mut orders) = self.inbox.lock().unwrap().take() else {
            return;
        };
        let mut rng = world.rng();
        for run in 1.. {
            let agent = world.agents[self.agent].wait().await;
            sleep(millis(&mut rng, 0..=30)).await;
            while orders.try_recv().is_ok() {}
            let label = format!("{}, run {run}", self.label());
            let why = self
                .run(&world, &agent, &mut orders, rng.fork(), label.clone())
                .await;
            *self.seen.lock().unwrap() = Seen::default();
            world.say(&format!("{label} ends: {why}"));
            // Not at once again at an agent that is about to be gone.
            sleep(millis(&mut rng, 20..=800)).await;
        }
    }

    async fn run(
        &self,
        world: &Arc<World>,
        up: &AgentUp,
        orders: &mut mpsc::UnboundedReceiver<Order>,
        mut rng: Rng,
        label: String,
    ) -> String {
        let (link, frames) = uplink(rng.fork(), &up.gate);
        let host = match up.agent.attach(frames) {
            Ok(host) => host,
            Err(status) => return format!("refused: {}", status.message()),
        };
        let mut host = Downlink::new(host, rng.fork(), &up.gate);
        let mut run = Run {
            shared: Arc::new(Shared {
                world: world.clone(),
                link,
                own: Mutex::default(),
                label,
            }),
            calls: BTreeMap::new(),
            jobs: FuturesUnordered::new(),
            last_id: 0,
            rude: false,
            draining: false,
            rng,
        };
        run.greet(self.kind);
        loop {
            self.seen.lock().unwrap().working = run.calls.len();
            run.say_drained();
            tokio::select! {
                biased;
                Some(order) = orders.recv() => if let Some(why) = run.order(order).await {
                    return why;
                },
                Some(id) = run.jobs.next(), if !run.jobs.is_empty() => {
                    if let Some(id) = id {
                        run.calls.remove(&id);
                    }
                }
                frame = host.next() => match run.on_host(frame).await {
                    Ok(Some(instance)) => self.seen.lock().unwrap().instance = Some(instance),
                    Ok(None) => {}
                    Err(why) => {
                        run.shared.link.end(false);
                        return why;
                    }
                },
            }
        }
    }
}

/// What all jobs of one run share.
pub(super) struct Shared {
    pub(super) world: Arc<World>,
    pub(super) link: Uplink,
    pub(super) own: Mutex<Own>,
    pub(super) label: String,
}

/// The plugin's own calls.
#[derive(Default)]
pub(super) struct Own {
    pub(super) last_id: u64,
    /// Who waits for the answer; `None`: cancelled, its last word is to come.
    pub(super) calls: BTreeMap<u64, Option<mpsc::UnboundedSender<host_frame::Body>>>,
}

impl Shared {
    pub(super) fn push(&self, id: u64, body: plugin_frame::Body) {
        let body = Some(body);
        self.link.push(&PluginFrame { id, body });
    }

    pub(super) async fn send(&self, id: u64, body: plugin_frame::Body) {
        let body = Some(body);
        self.link.send(&PluginFrame { id, body }).await;
    }

    fn violation(&self, text: &str) {
        self.world.violation(format!("{}: {text}", self.label));
    }
}

/// A call that the plugin works on.
struct Working {
    chunks: mpsc::UnboundedSender<common::Chunk>,
    credit: Arc<Semaphore>,
    stop: AbortHandle,
}

type Jobs = FuturesUnordered<BoxFuture<'static, Option<u64>>>;

struct Run {
    shared: Arc<Shared>,
    calls: BTreeMap<u64, Working>,
    jobs: Jobs,
    last_id: u64,
    /// It has broken the protocol, so the host may complain.
    rude: bool,
    draining: bool,
    rng: Rng,
}

impl Run {
    fn greet(&mut self, kind: usize) {
        let entry = |name: &str, idempotent, client_streaming| common::CapabilityEntry {
            capability: Some(common::Capability {
                kind: common::CapabilityKind::Service.into(),
                name: name.to_owned(),
            }),
            idempotent,
            streaming: true,
            client_streaming,
            ..common::CapabilityEntry::default()
        };
        let manifest = common::Manifest {
            name: plugin_name(kind),
            version: "1.0.0".to_owned(),
            capabilities: vec![
                entry("once", false, false),
                entry("again", true, false),
                entry("once-open", false, true),
                entry("again-open", true, true),
            ],
            ..common::Manifest::default()
        };
        let hello = Hello {
            min_protocol: 1,
            max_protocol: 1,
            manifest: Some(manifest),
            sdk: "simulation".to_owned(),
            ..Hello::default()
        };
        self.shared
            .push(0, plugin_frame::Body::Hello(Box::new(hello)));
        let shared = self.shared.clone();
        let wait = millis(&mut self.rng, 5..=40);
        self.jobs.push(
            async move {
                sleep(wait).await;
                shared.push(0, plugin_frame::Body::Ready(Ready {}));
                None
            }
            .boxed(),
        );
    }

    /// Says that it has drained, once it works on nothing any more.
    fn say_drained(&mut self) {
        if self.draining && self.calls.is_empty() {
            self.draining = false;
            self.shared.push(0, plugin_frame::Body::Drained(Drained {}));
        }
    }

    /// What a fault does; a reason when the run is over.
    async fn order(&mut self, order: Order) -> Option<String> {
        match order {
            Order::Crash => {
                self.shared.link.end(self.rng.bool());
                return Some("it crashed".to_owned());
            }
            Order::Hang(time) => {
                // Nothing is read, nothing is worked on.
                sleep(time).await;
            }
            Order::Flood => {
                let ids: Vec<u64> = self.calls.keys().copied().collect();
                for number in 0..400 {
                    let log = common::Log {
                        message: format!("line {number}"),
                        ..common::Log::default()
                    };
                    let id = ids.get(number % ids.len().max(1)).copied().unwrap_or(0);
                    self.shared.push(id, plugin_frame::Body::Log(log.into()));
                    let progress = common::Progress {
                        progress: number as f64,
                        ..common::Progress::default()
                    };
                    if id > 0 {
                        let progress = plugin_frame::Body::Progress(progress);
                        self.shared.push(id, progress);
                    }
                }
            }
            Order::Garbage => {
                self.rude = true;
                for _ in 0..self.rng.usize(1..=8) {
                    let mut bytes: Vec<u8> = (0..self.rng.usize(0..=40))
                        .map(|_| self.rng.u8(..))
                        .collect();
                    // Of the session, not of a call that would then rightly end.
                    bytes.splice(0..0, [0x10 | 2, 0xff]);
                    self.shared.link.push_bytes(&bytes);
                }
            }
            Order::Leave => {
                let request = DrainRequest {
                    reason: "it is told to".to_owned(),
                };
                self.shared
                    .push(0, plugin_frame::Body::DrainRequest(request));
            }
        }
        None
    }

    /// Takes what the host sent. Gives the instance that the plugin has become.
    async fn on_host(
        &mut self,
        frame: Option<Result<HostFrame, Status>>,
    ) -> Result<Option<InstanceId>, String> {
        let frame = match frame {
            None => return Err("the host ended the stream".to_owned()),
            Some(Err(status)) => return Err(format!("the stream broke: {}", status.message())),
            Some(Ok(frame)) => frame,
        };
        let Some(body) = frame.body else {
            self.shared.violation("the host sent an empty frame");
            return Ok(None);
        };
        let id = frame.id;
        if id % 2 == 1 {
            self.on_own(id, body);
            return Ok(None);
        }
        match body {
            host_frame::Body::Welcome(welcome) => return Ok(welcome.instance.parse().ok()),
            host_frame::Body::Invoke(call) => self.on_invoke(id, *call),
            host_frame::Body::Chunk(chunk) => {
                if let Some(working) = self.calls.get(&id) {
                    // The job may be through with the payload.
                    let _ = working.chunks.send(chunk);
                } else if id > self.last_id {
                    self.shared
                        .violation(&format!("a chunk came for call {id}, which never was"));
                }
            }
            host_frame::Body::Credit(credit) => {
                if let Some(working) = self.calls.get(&id) {
                    working.credit.add_permits(credit.chunks as usize);
                }
            }
            host_frame::Body::Cancel(_) => {
                if let Some(working) = self.calls.remove(&id) {
                    working.stop.abort();
                }
            }
            host_frame::Body::HealthCheck(_) => {
                self.shared
                    .push(id, plugin_frame::Body::Health(Health::default()));
            }
            host_frame::Body::Drain(_) => self.draining = true,
            host_frame::Body::Error(error) if !self.rude => {
                let text = format!("the host complains about id {id}: {}", error.message);
                self.shared.violation(&text);
            }
            _ => {}
        }
        Ok(None)
    }

    fn on_invoke(&mut self, id: u64, call: common::Call) {
        if id <= self.last_id {
            let text = format!("call {id} came after call {}", self.last_id);
            self.shared.violation(&text);
        }
        self.last_id = id;
        let script = key_of(&call.payload)
            .and_then(|key| self.shared.world.ledger.lock().unwrap().script(key));
        let Some(script) = script else {
            return self
                .shared
                .violation("a call came with a payload that nobody sent");
        };
        self.rude |= script.is_rude();
        let (chunks, incoming) = mpsc::unbounded_channel();
        let credit = Arc::new(Semaphore::new(INITIAL_CREDIT));
        let job = Job {
            shared: self.shared.clone(),
            id,
            script,
            begun: 0,
            incoming,
            credit: credit.clone(),
            next: 0,
            taken: 0,
            granted: INITIAL_CREDIT as u64,
            answered: 0,
        };
        let (stop, registration) = AbortHandle::new_pair();
        let work = Abortable::new(job::run(job, call), registration);
        self.jobs.push(work.map(move |_| Some(id)).boxed());
        self.calls.insert(
            id,
            Working {
                chunks,
                credit,
                stop,
            },
        );
    }

    /// Something came for one of the plugin's own calls.
    fn on_own(&mut self, id: u64, body: host_frame::Body) {
        let last = matches!(
            body,
            host_frame::Body::Result(_) | host_frame::Body::Error(_)
        );
        let mut own = self.shared.own.lock().unwrap();
        let Some(waiting) = own.calls.get(&id) else {
            let was = if id <= own.last_id {
                "has ended"
            } else {
                "never was"
            };
            drop(own);
            let text = format!("the host sent a frame for own call {id}, which {was}");
            return self.shared.violation(&text);
        };
        if let Some(waiting) = waiting {
            // Its job may just have been stopped.
            let _ = waiting.send(body);
        }
        if last {
            own.calls.remove(&id);
        }
    }
}
