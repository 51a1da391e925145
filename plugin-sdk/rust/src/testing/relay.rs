//! A call from one plugin of a test host to another.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::{AbortHandle, BoxFuture, Either, abortable, select};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;

use super::TIMEOUT;
use super::link::{Link, TERMS};
use super::mesh::Mesh;
use crate::calls::{
    self, CallEvent, CallStream, Request, RequestSender, add_credit, session_ended,
};
use crate::error::CallError;
use crate::payload::Payload;
use crate::session::{Assembly, Step};
use crate::wire::{HostBody, common};

/// Dropping it cancels the call.
pub(super) struct Relay {
    assembly: Option<Assembly>,
    /// Messages that follow the payload, until the last has come. They wait here: no more than the caller
    /// has credit for.
    messages: Option<mpsc::Sender<Bytes>>,
    /// Chunks of the answer that the caller takes.
    credit: Arc<Semaphore>,
    abort: AbortHandle,
}

/// What a part of the payload leads to.
pub(super) enum Part {
    /// So much credit is to be given.
    More(u32),
    /// The call is whole.
    Whole(Box<common::Call>),
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.abort.abort();
    }
}

impl Relay {
    /// A call whose payload is still coming.
    pub(super) fn assembling(call: Box<common::Call>) -> Self {
        Self {
            assembly: Some(Assembly::new(call)),
            messages: None,
            credit: Arc::new(Semaphore::new(0)),
            abort: AbortHandle::new_pair().0,
        }
    }

    /// A call that is whole, and the future that carries it out; it ends with the id.
    pub(super) fn start(
        mesh: Arc<Mesh>,
        caller: Arc<Link>,
        id: u64,
        call: common::Call,
    ) -> (Self, BoxFuture<'static, u64>) {
        let credit = Arc::new(Semaphore::new(TERMS.credit as usize));
        let (sender, messages) = mpsc::channel(TERMS.credit as usize);
        let sender = call.messages.then_some(sender);
        let (work, abort) = abortable(carry_out(mesh, caller, id, call, messages, credit.clone()));
        let relay = Self {
            assembly: None,
            messages: sender,
            credit,
            abort,
        };
        (relay, work.map(move |_| id).boxed())
    }

    pub(super) fn part(&mut self, chunk: common::Chunk) -> Result<Part, CallError> {
        let Some(assembly) = &mut self.assembly else {
            if chunk.last {
                self.messages = None;
            } else if let Some(messages) = &self.messages {
                // It is full, or its receiver gone, only when the caller breaks the rules or the call ends.
                let _ = messages.try_send(chunk.payload);
            }
            return Ok(Part::More(0));
        };
        match assembly.add(&chunk, TERMS.max_payload, TERMS.credit)? {
            Step::More(chunks) => Ok(Part::More(chunks)),
            Step::Whole(payload) => {
                let call = self.assembly.take().map(|assembly| assembly.call);
                Ok(Part::Whole(Box::new(common::Call {
                    payload,
                    ..*call.unwrap_or_default()
                })))
            }
        }
    }

    pub(super) fn credit(&self, chunks: u32) {
        add_credit(&self.credit, chunks);
    }
}

async fn carry_out(
    mesh: Arc<Mesh>,
    caller: Arc<Link>,
    id: u64,
    call: common::Call,
    messages: mpsc::Receiver<Bytes>,
    credit: Arc<Semaphore>,
) {
    let carried = events(&mesh, &caller, id, call, messages, &credit).await;
    if let Err(error) = carried {
        // It fails when the caller is gone.
        let _ = caller.send(id, HostBody::Error(error.into())).await;
    }
}

async fn events(
    mesh: &Mesh,
    caller: &Link,
    id: u64,
    mut call: common::Call,
    messages: mpsc::Receiver<Bytes>,
    credit: &Semaphore,
) -> Result<(), CallError> {
    let provider = mesh.route(&mut call)?;
    call.caller = Some(common::Caller {
        plugin: caller.manifest.name.clone(),
        instance: caller.instance.clone(),
        node: "test-node".to_owned(),
    });
    let left = match call.time_left_us {
        0 => TIMEOUT,
        micros => Duration::from_micros(micros),
    };
    let payload = Payload::new(
        std::mem::take(&mut call.payload),
        std::mem::take(&mut call.content_type),
    );
    let request = Request {
        call,
        timeout: None,
    };
    let deadline = Instant::now() + left.min(TIMEOUT);
    let streams = request.call.messages;
    let mut stream = calls::begin(&provider, TERMS, request, payload, deadline).await?;
    let sender = streams.then(|| stream.messages(TERMS.part_bytes));
    let forwarded = async {
        if let Some(sender) = sender {
            forward(caller, id, messages, sender).await;
        }
    };
    let answered = answer(caller, id, &mut stream, credit);
    // The answer may end the call while messages are still to come.
    match select(pin!(forwarded), pin!(answered)).await {
        Either::Left(((), answered)) => answered.await,
        Either::Right((answered, _)) => answered,
    }
}

/// Passes the caller's messages on.
async fn forward(
    caller: &Link,
    id: u64,
    mut messages: mpsc::Receiver<Bytes>,
    mut sender: RequestSender,
) {
    let mut taken = 0;
    while let Some(message) = messages.recv().await {
        if sender.send(message).await.is_err() {
            return;
        }
        taken += 1;
        if taken >= TERMS.credit / 2 {
            let credit = HostBody::Credit(common::Credit::of(taken));
            taken = 0;
            if caller.send(id, credit).await.is_err() {
                return;
            }
        }
    }
}

/// Passes on what comes of a call.
async fn answer(
    caller: &Link,
    id: u64,
    stream: &mut CallStream,
    credit: &Semaphore,
) -> Result<(), CallError> {
    let mut sequence = 0;
    let mut chunk = async |bytes, fragment| {
        let permit = credit.acquire().await.map_err(|_| session_ended())?;
        permit.forget();
        let chunk = common::Chunk {
            payload: bytes,
            last: false,
            sequence,
            fragment,
        };
        sequence += 1;
        caller.send(id, HostBody::Chunk(chunk)).await
    };
    while let Some(event) = stream.next().await {
        match event {
            CallEvent::Chunk(bytes) => chunk(bytes, false).await?,
            CallEvent::Progress(progress) => {
                let progress = common::Progress {
                    progress: progress.done,
                    total: progress.total.unwrap_or_default(),
                    message: progress.message,
                };
                caller.send(id, HostBody::Progress(progress)).await?;
            }
            CallEvent::Log(line) => {
                let log = common::Log {
                    level: line.level.number(),
                    message: line.message,
                    logger: line.logger,
                    fields: serde_json::Value::Object(line.fields).to_string().into(),
                    trace: None,
                };
                caller.send(id, HostBody::Log(log.into())).await?;
            }
            CallEvent::End(end) => {
                let Payload {
                    mut bytes,
                    content_type,
                    failed,
                } = end?;
                while bytes.len() > TERMS.part_bytes {
                    chunk(bytes.split_to(TERMS.part_bytes), true).await?;
                }
                let result = common::Result {
                    payload: bytes,
                    content_type,
                    failed,
                };
                caller.send(id, HostBody::Result(result)).await?;
            }
        }
    }
    Ok(())
}
