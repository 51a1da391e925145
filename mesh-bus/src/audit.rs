//! The audit: a stream in JetStream of what happened to the registry, kept by size and age.
//!
//! Who tells something never waits: it is queued, and the driver stores it, on a connection of its
//! own, as often as it takes to get an acknowledgement. All coordinators tell the same things; what
//! the newest entry of a subject says already is not stored again, and a new one is stored by
//! compare-and-set. The queue is bounded; overload mode: lossy with a counter.

mod read;
mod write;

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::stream::{Config, DiscardPolicy, StorageType, Stream};
use bytes::Bytes;
use mesh_core::id::MeshName;
use mesh_core::subject::{self, AuditOf, Subject};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::config::BusConfig;
use crate::connect::{Connector, LinkEvents};
use crate::error::BusError;
use crate::stats::add;
use crate::store::bucket::{context, open_stream, text};

/// Notices that wait to be stored.
const QUEUE: usize = 32_768;

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(5);

/// How long what is queued may take to be stored when the driver is stopped.
const LAST: Duration = Duration::from_secs(1);

/// How the audit is kept.
#[derive(Debug, Clone, Copy)]
pub struct AuditConfig {
    /// Copies of the stream in a NATS cluster, 1 to 5; used when the stream is created.
    pub replicas: usize,
    /// The most bytes that are kept; the oldest entries go first.
    pub max_bytes: u64,
    /// How long entries are kept.
    pub max_age: Duration,
    /// Whether the newest stored entry of a subject says already what a new one says: (newest, new).
    pub is_covered: fn(&[u8], &[u8]) -> bool,
}

/// Something to be stored.
#[derive(Debug, Clone)]
pub struct Notice {
    /// Where.
    pub subject: Subject,
    /// What.
    pub payload: Bytes,
}

/// An entry that is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditStored {
    /// Its place in the stream; grows.
    pub sequence: u64,
    /// What was stored.
    pub payload: Bytes,
}

/// Why the audit can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the audit's stream in NATS can't be read: {why}; try again when NATS is back")]
pub struct AuditError {
    /// What NATS says.
    pub why: String,
}

#[derive(Debug, Default)]
struct Counters {
    told: AtomicU64,
    stored: AtomicU64,
    known: AtomicU64,
    dropped: AtomicU64,
    retried: AtomicU64,
}

#[derive(Debug)]
struct AuditShared {
    connector: Connector,
    mesh: MeshName,
    config: AuditConfig,
    /// That of the session at hand; none while there is no session.
    stream: Mutex<Option<Stream>>,
    counters: Counters,
}

impl AuditShared {
    fn stream(&self) -> MutexGuard<'_, Option<Stream>> {
        self.stream.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn layout(&self) -> Config {
        Config {
            name: subject::audit_stream(&self.mesh),
            description: Some("What happened to the registry of a plugmesh".to_owned()),
            subjects: vec![subject::audit_filter(&self.mesh, &AuditOf::default()).to_string()],
            max_bytes: i64::try_from(self.config.max_bytes).unwrap_or(i64::MAX),
            max_age: self.config.max_age,
            discard: DiscardPolicy::Old,
            storage: StorageType::File,
            num_replicas: self.config.replicas.clamp(1, 5),
            ..Config::default()
        }
    }
}

/// The audit. Cheap to clone.
#[derive(Debug, Clone)]
pub struct AuditLog {
    shared: Arc<AuditShared>,
    queue: mpsc::Sender<Notice>,
}

/// The task behind an [`AuditLog`].
#[derive(Debug)]
pub struct AuditDriver {
    shared: Arc<AuditShared>,
    queue: mpsc::Receiver<Notice>,
    /// Taken from the queue, not stored yet.
    pending: Vec<Notice>,
}

impl AuditLog {
    /// Prepares the audit; the connection is made, and the stream when there is none, by the driver.
    ///
    /// # Errors
    /// [`BusError`] when addresses or credentials can't be read.
    pub fn open(bus: BusConfig, config: AuditConfig) -> Result<(Self, AuditDriver), BusError> {
        let shared = Arc::new(AuditShared {
            connector: Connector::new(&bus)?,
            mesh: bus.mesh,
            config,
            stream: Mutex::default(),
            counters: Counters::default(),
        });
        let (queue, receiver) = mpsc::channel(QUEUE);
        let driver = AuditDriver {
            shared: Arc::clone(&shared),
            queue: receiver,
            pending: Vec::new(),
        };
        Ok((Self { shared, queue }, driver))
    }

    /// The mesh whose audit it is.
    #[must_use]
    pub fn mesh(&self) -> &MeshName {
        &self.shared.mesh
    }

    /// Tells something. It is dropped, and counted, when the queue is full.
    pub fn tell(&self, notice: Notice) {
        let counters = &self.shared.counters;
        add(&counters.told, 1);
        if self.queue.try_send(notice).is_err() {
            let before = counters.dropped.fetch_add(1, Ordering::Relaxed);
            // One line for each tenfold; the counter has the rest.
            if before.checked_ilog10() != (before + 1).checked_ilog10() {
                let dropped = before + 1;
                tracing::warn!(dropped, "the audit's queue is full: entries are lost");
            }
        }
    }

    /// All counters: name, what it counts, value.
    #[must_use]
    pub fn counters(&self) -> Vec<(&'static str, &'static str, u64)> {
        let counters = &self.shared.counters;
        [
            (
                "told",
                "Entries that this process had for the audit",
                &counters.told,
            ),
            (
                "stored",
                "Entries of the audit that are stored, by this process or another",
                &counters.stored,
            ),
            (
                "known",
                "Entries of the audit that were found to be stored before they were sent",
                &counters.known,
            ),
            (
                "dropped",
                "Entries for the audit that were lost, as its queue was full",
                &counters.dropped,
            ),
            (
                "retried",
                "Entries of the audit that had to be sent again",
                &counters.retried,
            ),
        ]
        .map(|(name, help, counter)| (name, help, counter.load(Ordering::Relaxed)))
        .into()
    }
}

impl AuditDriver {
    /// Stores what is told until `stop` ends, and for a second what is still queued then.
    pub async fn run(mut self, stop: impl Future<Output = ()>) {
        tokio::select! {
            () = stop => {}
            () = self.sessions() => {}
        }
        self.queue.close();
        if timeout(LAST, self.sessions()).await.is_err() {
            let left = self.pending.len() + self.queue.len();
            add(&self.shared.counters.dropped, left as u64);
            tracing::warn!(left, "the audit is stopped before all of it was stored");
        }
        *self.shared.stream() = None;
    }

    /// Ends when the queue is closed and all of it is stored.
    async fn sessions(&mut self) {
        let mut told = String::new();
        // None begins anew with the server that it lost.
        for turn in fastrand::usize(..1 << 16).. {
            let ended = self.session(turn).await;
            *self.shared.stream() = None;
            let Err(why) = ended else { return };
            // Once for each reason, not for each try.
            if why != told {
                tracing::warn!(%why, "the audit can't be stored; it is kept and tried again");
                told = why;
            }
            tokio::time::sleep(Duration::from_millis(fastrand::u64(100..=250))).await;
        }
    }

    async fn session(&mut self, turn: usize) -> Result<(), String> {
        let shared = Arc::clone(&self.shared);
        let events = Arc::new(LinkEvents::default());
        let connect = shared.connector.connect_now("-audit", events.clone(), turn);
        let client = timeout(CONNECT, connect)
            .await
            .map_err(|_| format!("no connection within {CONNECT:?}"))??;
        let jetstream = context(client);
        let stream = opened(&jetstream, &shared.layout()).await?;
        *shared.stream() = Some(stream.clone());
        tokio::select! {
            stored = self.store(&jetstream, &stream) => stored,
            () = events.broken() => Err("the connection was lost".to_owned()),
        }
    }
}

/// The stream, kept as it is configured now; the number of its copies stays as it was made.
async fn opened(jetstream: &jetstream::Context, wanted: &Config) -> Result<Stream, String> {
    let stream = open_stream(jetstream, wanted).await?;
    let have = &stream.cached_info().config;
    let kept = |config: &Config| {
        let subjects = config.subjects.clone();
        (config.max_bytes, config.max_age, subjects)
    };
    if kept(have) == kept(wanted) {
        return Ok(stream);
    }
    let config = Config {
        num_replicas: have.num_replicas,
        // What the server chose for the old age may be too long for the new one.
        duplicate_window: have.duplicate_window.min(wanted.max_age),
        ..wanted.clone()
    };
    jetstream.update_stream(&config).await.map_err(text)?;
    Ok(stream)
}
