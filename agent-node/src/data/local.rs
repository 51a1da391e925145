//! Calls that stay on the node: from the router of this agent to a plugin beside the caller.

use std::sync::{Arc, OnceLock};
use std::task::Wake;

use bytes::BytesMut;
use mesh_bus::Upload;
use mesh_core::error::{ErrorCode, MeshError};
use mesh_core::id::InstanceId;
use mesh_proto::common;
use mesh_proto::plugin::{HostFrame, host_frame};
use router::{CallEvent, CallInput, CallOutput, LocalCall, LocalHost};
use tokio::sync::mpsc::{self, OwnedPermit, Sender};
use tokio::time::Instant;

use super::begin::queue_full;
use super::call::{ReplyPath, Taken};
use super::held::Charge;
use super::out::OutQueue;
use super::plane::Plane;
use super::state::SessionKey;
use crate::session::limits::{INITIAL_CREDIT, PART_BYTES};

/// Events beside chunks that may wait for the caller; further ones are left out.
const SIDE_EVENTS: usize = 32;

/// Chunks that may wait for the caller: no more than the plugin has credit for.
const CHUNKS: usize = INITIAL_CREDIT as usize;

/// Chunks that are granted at a time.
const GRANT: u32 = INITIAL_CREDIT / 2;

/// The way back of a local call.
#[derive(Debug)]
pub(super) struct LocalReply {
    events: Sender<CallEvent>,
    /// Room for the end, kept from the beginning: the end is never lost.
    end: OwnedPermit<CallEvent>,
    /// Fragments of a large result, until it is whole.
    fragments: BytesMut,
    /// For the fragments.
    charge: Charge,
    /// What goes to the plugin as its credit allows.
    upload: Option<Upload>,
}

/// What became of a chunk.
#[derive(Debug)]
pub(super) enum ChunkTaken {
    /// The plugin may send so many more.
    Granting(u32),
    /// The plugin has no credit left and the caller no room.
    Full(Sender<CallEvent>),
}

impl LocalReply {
    pub(super) fn chunk(&mut self, chunk: common::Chunk, credit: u64) -> ChunkTaken {
        if chunk.fragment {
            self.fragments.extend_from_slice(&chunk.payload);
            self.charge.add(chunk.payload.len());
        } else {
            // There is room for every chunk that credit allows; without it nobody listens.
            let _ = self.events.try_send(CallEvent::Chunk(chunk.payload));
        }
        if credit > u64::from(GRANT) {
            return ChunkTaken::Granting(0);
        }
        let free = self.events.capacity() as u64;
        if free >= credit + u64::from(GRANT) + SIDE_EVENTS as u64 {
            return ChunkTaken::Granting(GRANT);
        }
        if credit > 0 || self.events.is_closed() {
            return ChunkTaken::Granting(0);
        }
        ChunkTaken::Full(self.events.clone())
    }

    /// An event that may be left out.
    pub(super) fn side(&self, event: CallEvent) {
        if self.events.capacity() > CHUNKS {
            let _ = self.events.try_send(event);
        }
    }

    pub(super) fn end(self, end: Result<CallOutput, MeshError>) {
        let Self {
            end: permit,
            mut fragments,
            ..
        } = self;
        let end = end.map(|output| {
            if fragments.is_empty() {
                return output;
            }
            fragments.extend_from_slice(&output.payload);
            CallOutput {
                payload: fragments.freeze(),
                ..output
            }
        });
        permit.send(CallEvent::End(end));
    }

    /// Sends as much of the payload and the messages as credit allows. An error: the plugin's queue takes
    /// no more, and the call ends with this.
    pub(super) fn pump(
        &mut self,
        id: u64,
        granted: u32,
        out: &OutQueue,
    ) -> Result<(), (ErrorCode, String)> {
        let Some(upload) = &mut self.upload else {
            return Ok(());
        };
        upload.grant(granted);
        while let Some(chunk) = upload.next_chunk() {
            let full = queue_full(&chunk);
            let body = Some(host_frame::Body::Chunk(chunk));
            if !out.push_part(HostFrame { id, body }) {
                return Err(full);
            }
        }
        Ok(())
    }
}

/// Waits until the caller has room for as many chunks as are granted at a time.
pub(super) async fn room(events: Sender<CallEvent>) -> u32 {
    // An error means that the caller is gone: then its call is cancelled anyway.
    let _ = events.reserve_many(GRANT as usize + SIDE_EVENTS).await;
    GRANT
}

/// Sends a call's message that came after there was none. Must not be woken under the plane's lock.
struct MessageWaker {
    plane: Plane,
    call: OnceLock<(SessionKey, u64)>,
}

impl Wake for MessageWaker {
    fn wake(self: Arc<Self>) {
        if let Some((key, id)) = self.call.get() {
            self.plane.pump_local(*key, *id, 0);
        }
    }
}

impl LocalHost for Plane {
    fn is_stopping(&self) -> bool {
        self.lock().draining
    }

    fn begin(
        &self,
        instance: InstanceId,
        mut call: common::Call,
        input: CallInput,
        deadline: Instant,
    ) -> Result<LocalCall, MeshError> {
        let (events, receiver) = mpsc::channel(CHUNKS + SIDE_EVENTS + 1);
        let end = events.clone().try_reserve_owned().map_err(|_| {
            MeshError::new(
                ErrorCode::Internal,
                "a new queue has no room: this is a bug",
            )
        })?;
        let waker = Arc::new(MessageWaker {
            plane: self.clone(),
            call: OnceLock::new(),
        });
        let upload = Upload::begin(&mut call, input, PART_BYTES, INITIAL_CREDIT, || {
            Arc::clone(&waker).into()
        });
        let reply = LocalReply {
            events,
            end,
            fragments: BytesMut::new(),
            charge: Charge::new(&self.shared.held),
            upload,
        };
        let reply = ReplyPath::Local(Box::new(reply));
        let begun = self.begin_call(
            instance,
            Taken::Whole(Box::new(call)),
            reply,
            (Instant::now(), deadline),
        );
        let (key, id) = begun.map_err(|refused| refused.error)?;
        // It is set once, here.
        let _ = waker.call.set((key, id));
        self.pump_local(key, id, 0);
        let plane = self.clone();
        Ok(LocalCall::new(receiver, move || {
            plane.cancel(key, id, "the caller no longer wants the answer");
        }))
    }
}
