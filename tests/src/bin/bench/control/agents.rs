//! Simulated agents: each has a connection and a session of its own, made as a real one's, and says and
//! acknowledges what a real one does. It applies nothing: a thousand tables are more than one machine has
//! memory for. So it does not unpack what comes packed either, but for what is to be seen in it: the
//! revision that it acknowledges stands outside.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use hdrhistogram::Histogram;
use mesh_core::id::MeshName;
use mesh_proto::control::agent_sessions_client::AgentSessionsClient;
use mesh_proto::control::{
    AgentFrame, AgentHello, Announce, CoordinatorFrame, Heartbeat, InstanceReport, InstanceState,
    NodeRoute, Revision, TableAck, agent_frame, coordinator_frame,
};
use mesh_proto::convert::SentUpdate;
use mesh_runtime::coordinators::Search;
use prost::Message;
use tokio::sync::{Notify, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

/// The beginning of a table update, which is the same of a packed one.
#[derive(Clone, PartialEq, Message)]
struct Head {
    #[prost(message, optional, tag = "2")]
    to: Option<Revision>,
}

/// An instance that is to be seen in a state by all agents.
struct Watch {
    instance: String,
    state: InstanceState,
    begun: Instant,
    /// Which agents have seen it.
    by: Vec<bool>,
}

/// What all agents see together.
pub struct Seen {
    /// The sequence that each agent has.
    has: RefCell<Vec<u64>>,
    watch: RefCell<Option<Watch>>,
    /// The time until each of them saw what was watched.
    pub times: RefCell<Histogram<u64>>,
    /// What was told of the watched, in bytes.
    pub deltas: RefCell<Histogram<u64>>,
    pub bytes: Cell<u64>,
    /// The greatest update.
    pub largest: Cell<u64>,
    /// The first session that ended, and why.
    lost: RefCell<Option<String>>,
    changed: Notify,
}

impl Seen {
    pub fn new(agents: usize) -> Rc<Self> {
        Rc::new(Self {
            has: RefCell::new(vec![0; agents]),
            watch: RefCell::default(),
            times: RefCell::new(harness::load::histogram()),
            deltas: RefCell::new(harness::load::histogram()),
            bytes: Cell::default(),
            largest: Cell::default(),
            lost: RefCell::default(),
            changed: Notify::new(),
        })
    }

    /// Fails when a session has ended.
    pub fn are_here(&self) -> anyhow::Result<()> {
        match &*self.lost.borrow() {
            Some(why) => bail!("a session has ended: {why}"),
            None => Ok(()),
        }
    }

    /// Waits until something holds of all; fails when it takes too long, or when a session has ended.
    async fn all(
        &self,
        what: &str,
        patience: Duration,
        count: impl Fn() -> usize,
    ) -> anyhow::Result<()> {
        let agents = self.has.borrow().len();
        let waiting = async {
            while count() < agents {
                self.are_here()?;
                self.changed.notified().await;
            }
            Ok(())
        };
        let waited = tokio::time::timeout(patience, waiting).await;
        waited.unwrap_or_else(|_| {
            bail!(
                "{what}: only {} of {agents} agents within {patience:?}",
                count()
            )
        })
    }

    /// Waits until all agents have a sequence.
    pub async fn have(&self, sequence: u64, patience: Duration) -> anyhow::Result<()> {
        let what = format!("sequence {sequence} is everywhere");
        let has = || {
            self.has
                .borrow()
                .iter()
                .filter(|has| **has >= sequence)
                .count()
        };
        self.all(&what, patience, has).await
    }

    /// From now on each agent's time until it sees an instance in a state counts.
    pub fn watch(&self, instance: String, state: InstanceState) {
        let by = vec![false; self.has.borrow().len()];
        *self.watch.borrow_mut() = Some(Watch {
            instance,
            state,
            begun: Instant::now(),
            by,
        });
    }

    /// Waits until all have seen what is watched, and gives how long that took.
    pub async fn arrived(&self, patience: Duration) -> anyhow::Result<Duration> {
        let by = || {
            let watch = self.watch.borrow();
            let watch = watch.as_ref();
            watch.map_or(0, |watch| watch.by.iter().filter(|seen| **seen).count())
        };
        self.all("a change is everywhere", patience, by).await?;
        let watch = self.watch.take().context("it is watched")?;
        Ok(watch.begun.elapsed())
    }

    /// What travels is counted, be it packed.
    fn takes(&self, agent: usize, update: SentUpdate) -> anyhow::Result<Revision> {
        let (SentUpdate::Plain(bytes) | SentUpdate::Packed(bytes)) = &update;
        let size = bytes.len() as u64;
        self.bytes.set(self.bytes.get() + size);
        self.largest.set(self.largest.get().max(size));
        let to = match &mut *self.watch.borrow_mut() {
            Some(watch) if !watch.by[agent] => {
                let update = update.wire()?;
                let mut routes = update.instances.iter();
                let is_it = |state: i32| state == i32::from(watch.state);
                if routes.any(|it| it.instance == watch.instance && is_it(it.state)) {
                    watch.by[agent] = true;
                    let took = u64::try_from(watch.begun.elapsed().as_nanos())?;
                    self.times.borrow_mut().saturating_record(took);
                    self.deltas.borrow_mut().saturating_record(size);
                }
                update.to
            }
            _ => Head::decode(bytes.as_ref())?.to,
        };
        let to = to.context("an update leads to a revision")?;
        self.has.borrow_mut()[agent] = to.sequence;
        self.changed.notify_one();
        Ok(to)
    }
}

/// One agent. Dropping it ends its session.
pub struct Agent {
    frames: mpsc::Sender<AgentFrame>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A connection as agents make it.
pub async fn connect(url: &str) -> anyhow::Result<Channel> {
    let candidate = Search::new(vec![url.to_owned()]).next().await;
    let candidate = candidate.context("an address")?;
    candidate.connect().await.map_err(anyhow::Error::msg)
}

fn frame(body: agent_frame::Body) -> AgentFrame {
    AgentFrame { body: Some(body) }
}

impl Agent {
    /// Joins as a node of that number; it is that place of those who are seen.
    pub async fn join(
        url: &str,
        number: usize,
        (seen, place): (&Rc<Seen>, usize),
    ) -> anyhow::Result<Self> {
        let client = AgentSessionsClient::new(connect(url).await?);
        let (frames, receiver) = mpsc::channel(64);
        let hello = AgentHello {
            mesh: MeshName::default().to_string(),
            node: Some(NodeRoute {
                node: format!("node-{number}"),
                generation: 1,
                ..NodeRoute::default()
            }),
            takes_packed: true,
            ..AgentHello::default()
        };
        frames.send(frame(agent_frame::Body::Hello(hello))).await?;
        let mut client = client.max_decoding_message_size(usize::MAX);
        let answer = client.open(ReceiverStream::new(receiver)).await?;
        let mut incoming = answer.into_inner();
        let welcome = match incoming.message().await?.and_then(|frame| frame.body) {
            Some(coordinator_frame::Body::Welcome(welcome)) => welcome,
            other => bail!("the coordinator answers a hello with {other:?}"),
        };
        let heartbeat = Duration::from_millis(welcome.heartbeat_interval_ms.into());
        let (said, seen) = (frames.clone(), Rc::clone(seen));
        let task = tokio::task::spawn_local(async move {
            let ended = follow(incoming, said, (&seen, place), heartbeat).await;
            let why = ended
                .err()
                .map_or_else(String::new, |error| format!("{error:#}"));
            seen.lost
                .borrow_mut()
                .get_or_insert(format!("agent {number}: {why}"));
            seen.changed.notify_one();
        });
        Ok(Self { frames, task })
    }

    pub async fn announce(&self, instances: Vec<InstanceReport>) -> anyhow::Result<()> {
        let body = agent_frame::Body::Announce(Announce { instances });
        Ok(self.frames.send(frame(body)).await?)
    }

    pub async fn report(&self, report: InstanceReport) -> anyhow::Result<()> {
        let body = agent_frame::Body::Report(report);
        Ok(self.frames.send(frame(body)).await?)
    }
}

async fn follow(
    mut incoming: Streaming<CoordinatorFrame>,
    said: mpsc::Sender<AgentFrame>,
    (seen, place): (&Seen, usize),
    heartbeat: Duration,
) -> anyhow::Result<()> {
    let mut beats = tokio::time::interval(heartbeat);
    loop {
        let next = tokio::select! {
            next = incoming.message() => next?.context("the stream has ended")?,
            _ = beats.tick() => {
                said.send(frame(agent_frame::Body::Heartbeat(Heartbeat::default()))).await?;
                continue;
            }
        };
        let update = match next.body {
            Some(coordinator_frame::Body::Table(update)) => SentUpdate::Plain(update),
            Some(coordinator_frame::Body::PackedTable(update)) => SentUpdate::Packed(update),
            Some(coordinator_frame::Body::Rejected(rejected)) => bail!("refused: {rejected:?}"),
            _ => continue,
        };
        let revision = Some(seen.takes(place, update)?);
        let body = agent_frame::Body::TableAck(TableAck { revision });
        said.send(frame(body)).await?;
    }
}
