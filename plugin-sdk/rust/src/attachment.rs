//! One session with a host, as handlers and callers share it.
//!
//! The session's loop owns the stream; this is what others may touch: the way out, the table of own
//! calls, and what the host said in its welcome. Plugins never see this type.

use std::any::Any;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use crate::calls::{self, CallStream, Peer, Request, Signal, Table, Terms, session_ended};
use crate::definition::Definition;
use crate::error::CallError;
use crate::payload::Payload;
use crate::telemetry::Telemetry;
use crate::wire::{MAX_PART_BYTES, PluginBody, PluginFrame, common, frame, plugin};

/// A configuration read into the type that the plugin declared.
pub(crate) type AnyConfig = Arc<dyn Any + Send + Sync>;

/// What the host said in its welcome.
#[derive(Debug, Clone)]
pub(crate) struct Welcome {
    pub instance: String,
    pub node: String,
    pub mesh: String,
    pub terms: Terms,
    /// Calls that the plugin works on at a time.
    pub concurrency: usize,
}

impl From<plugin::Welcome> for Welcome {
    fn from(wire: plugin::Welcome) -> Self {
        let limits = wire.limits.unwrap_or_default();
        let or = |given: u32, default: u32| if given == 0 { default } else { given };
        Self {
            instance: wire.instance,
            node: wire.node,
            mesh: wire.mesh,
            terms: Terms {
                credit: or(limits.initial_credit, 64),
                max_payload: match limits.max_payload_bytes {
                    0 => 64 << 20,
                    most => most,
                },
                part_bytes: match limits.max_frame_bytes as usize {
                    0 => MAX_PART_BYTES,
                    // A frame holds more than the part.
                    most => (most / 2).clamp(1, MAX_PART_BYTES),
                },
            },
            concurrency: or(limits.concurrency, 1024) as usize,
        }
    }
}

pub(crate) struct Attachment {
    pub definition: Arc<Definition>,
    pub welcome: Welcome,
    pub telemetry: Telemetry,
    pub calls: Table,
    outbound: mpsc::Sender<PluginFrame>,
    /// Frames of those that could not wait; the session's loop sends them. At most two for each own
    /// call.
    late: Mutex<Vec<PluginFrame>>,
    late_came: Notify,
    config: RwLock<Option<AnyConfig>>,
}

impl Attachment {
    pub(crate) fn new(
        definition: Arc<Definition>,
        welcome: Welcome,
        telemetry: Telemetry,
        outbound: mpsc::Sender<PluginFrame>,
        config: Option<AnyConfig>,
    ) -> Self {
        Self {
            definition,
            welcome,
            telemetry,
            calls: Table::new(1),
            outbound,
            late: Mutex::default(),
            late_came: Notify::new(),
            config: RwLock::new(config),
        }
    }

    /// Sends a frame, waiting for room.
    pub(crate) async fn send(&self, frame: PluginFrame) -> Result<(), CallError> {
        // With room there is no need for a future.
        let Err(full) = self.outbound.try_send(frame) else {
            return Ok(());
        };
        match full {
            mpsc::error::TrySendError::Full(frame) => {
                self.outbound.send(frame).await.map_err(|_| session_ended())
            }
            mpsc::error::TrySendError::Closed(_) => Err(session_ended()),
        }
    }

    /// Sends a frame that may be lost: not when it would take the last quarter of the queue, which is
    /// for what may not. Says whether it was sent.
    pub(crate) fn send_lossy(&self, frame: PluginFrame) -> bool {
        let spare = self.outbound.max_capacity() / 4;
        self.outbound.capacity() > spare && self.outbound.try_send(frame).is_ok()
    }

    pub(crate) fn outbound(&self) -> &mpsc::Sender<PluginFrame> {
        &self.outbound
    }

    /// Sends a frame without waiting: as soon as there is room.
    fn send_late(&self, frame: PluginFrame) {
        if let Err(mpsc::error::TrySendError::Full(frame)) = self.outbound.try_send(frame) {
            let mut late = self.late.lock().unwrap_or_else(PoisonError::into_inner);
            late.push(frame);
            drop(late);
            self.late_came.notify_one();
        }
    }

    /// Waits for frames of those that could not wait.
    pub(crate) async fn late(&self) -> Vec<PluginFrame> {
        loop {
            let came = self.late_came.notified();
            let frames = self.take_late();
            if !frames.is_empty() {
                return frames;
            }
            came.await;
        }
    }

    fn take_late(&self) -> Vec<PluginFrame> {
        let mut late = self.late.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut late)
    }

    pub(crate) fn config(&self) -> Option<AnyConfig> {
        let config = self.config.read().unwrap_or_else(PoisonError::into_inner);
        config.clone()
    }

    pub(crate) fn set_config(&self, new: AnyConfig) {
        let mut config = self.config.write().unwrap_or_else(PoisonError::into_inner);
        *config = Some(new);
    }

    /// Begins a call of the plugin.
    pub(crate) async fn begin(
        self: &Arc<Self>,
        mut request: Request,
        payload: Payload,
        deadline: Instant,
    ) -> Result<CallStream, CallError> {
        if request.call.requirement.is_empty() {
            let plugin = &request.call.plugin;
            request.call.requirement = self.definition.requirement_on(plugin);
        }
        calls::begin(self, self.welcome.terms, request, payload, deadline).await
    }
}

impl Peer for Attachment {
    fn table(&self) -> &Table {
        &self.calls
    }

    fn signal(&self, id: u64, signal: Signal) -> BoxFuture<'_, Result<(), CallError>> {
        let body = match signal {
            Signal::Begin(call) => PluginBody::Call(call),
            Signal::Part {
                bytes,
                sequence,
                last,
            } => PluginBody::Chunk(calls::chunk(bytes, sequence, last, true)),
            Signal::Message { bytes, sequence } => {
                PluginBody::Chunk(calls::chunk(bytes, sequence, false, false))
            }
            Signal::Credit(chunks) => PluginBody::Credit(common::Credit::of(chunks)),
        };
        self.send(frame(id, body)).boxed()
    }

    fn end_messages(&self, id: u64, sequence: u64) {
        if self.calls.get(id).is_some() {
            let end = calls::chunk(Bytes::new(), sequence, true, false);
            self.send_late(frame(id, PluginBody::Chunk(end)));
        }
    }

    fn abandon(&self, id: u64, cancel: bool) {
        let known = self.calls.remove(id).is_some();
        if known && cancel {
            let cancel = PluginBody::Cancel(common::Cancel::default());
            self.send_late(frame(id, cancel));
        }
    }
}
