//! What a plugin does for one call: it takes the payload, works, calls others, and answers.

use std::sync::Arc;

use bytes::Bytes;
use mesh_core::error::ErrorCode;
use mesh_proto::common;
use mesh_proto::plugin::{PluginFrame, plugin_frame};
use prost::Message;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::sleep;

use super::ledger::{RESULT, UPLOAD, payload};
use super::own_call::OwnCall;
use super::plan::{Ending, Script};
use super::plugin::{INITIAL_CREDIT, Shared};

/// Largest part of a result that the plugin sends in one frame.
pub(super) const PART: usize = 16 << 10;

/// One call.
pub(super) struct Job {
    pub(super) shared: Arc<Shared>,
    pub(super) id: u64,
    pub(super) script: Arc<Script>,
    /// Which time it is that the call was begun.
    pub(super) begun: usize,
    pub(super) incoming: mpsc::UnboundedReceiver<common::Chunk>,
    pub(super) credit: Arc<Semaphore>,
    /// The place of the next chunk from its caller.
    pub(super) next: u64,
    /// Chunks from its caller that were taken since credit was given.
    pub(super) taken: u64,
    /// Chunks that its caller may send in all.
    pub(super) granted: u64,
    /// Chunks of its answer that were sent.
    pub(super) answered: u64,
}

/// Does what the script says.
pub(super) async fn run(mut job: Job, call: common::Call) {
    job.take_payload(&call).await;
    // Not before: a call whose payload never was whole was not processed.
    let shared = &job.shared;
    job.begun = shared.world.began(job.script.key, &shared.label);
    if call.messages != job.script.messages.is_some() {
        job.violation("whether messages follow is not what was sent");
    }
    let script = job.script.clone();
    sleep(script.work / 2).await;
    job.take_messages().await;
    for number in 0..script.progress {
        let progress = common::Progress {
            progress: f64::from(number),
            ..common::Progress::default()
        };
        job.send(plugin_frame::Body::Progress(progress)).await;
    }
    let nested = job.nested();
    let nested = match nested {
        None => Ok(()),
        Some(nested) => OwnCall::begin(&job.shared, nested).finish().await,
    };
    sleep(script.work / 2).await;
    if let Err(why) = nested {
        return job.fail(&why).await;
    }
    job.answer().await;
}

impl Job {
    fn nested(&self) -> Option<Arc<Script>> {
        let mut ledger = self.shared.world.ledger.lock().unwrap();
        ledger.nested(&self.script, self.begun)
    }

    async fn send(&self, body: plugin_frame::Body) {
        self.shared.send(self.id, body).await;
    }

    fn violation(&self, text: &str) {
        let key = self.script.key;
        self.shared.world.violation(format!("call {key}: {text}"));
    }

    /// The next chunk from the caller. `ends`: whether it ends the messages, which takes no credit.
    async fn next_chunk(&mut self, ends: impl Fn(&common::Chunk) -> bool) -> common::Chunk {
        let Some(chunk) = self.incoming.recv().await else {
            // It is stopped.
            return std::future::pending().await;
        };
        let next = self.next;
        self.next += 1;
        if chunk.sequence != next {
            let sequence = chunk.sequence;
            self.violation(&format!("chunk {sequence} of its caller came as {next}"));
        }
        if next >= self.granted && !ends(&chunk) {
            self.violation("more chunks of its caller came than there was credit for");
        }
        chunk
    }

    /// A chunk was taken: gives credit for another, some at a time.
    async fn took(&mut self) {
        self.taken += 1;
        if self.taken == INITIAL_CREDIT as u64 / 2 {
            let credit = common::Credit {
                chunks: u32::try_from(self.taken).unwrap(),
                ..common::Credit::default()
            };
            self.granted += self.taken;
            self.taken = 0;
            self.send(plugin_frame::Body::Credit(credit)).await;
        }
    }

    /// Takes the payload, the rest of it by chunks for which credit is given.
    async fn take_payload(&mut self, call: &common::Call) {
        let (mut whole, mut more) = (call.payload.to_vec(), call.more);
        while more {
            let chunk = self.next_chunk(|_| false).await;
            if !chunk.fragment {
                self.violation("a message came before its payload was whole");
            }
            whole.extend_from_slice(&chunk.payload);
            more = !chunk.last;
            self.took().await;
        }
        if whole != payload(self.script.key, UPLOAD, self.script.upload) {
            self.violation("its payload is not what was sent");
        }
    }

    /// Takes the messages: each once, whole, in order.
    async fn take_messages(&mut self) {
        let script = self.script.clone();
        let Some(messages) = &script.messages else {
            return;
        };
        for number in 0..messages.enough.unwrap_or(u64::MAX) {
            let chunk = self.next_chunk(|chunk| chunk.last).await;
            if chunk.fragment {
                self.violation("a part of its payload came as a message");
            }
            if chunk.last {
                if number != messages.count || !chunk.payload.is_empty() {
                    let count = messages.count;
                    let text = format!("its messages ended after {number}, {count} were to come");
                    self.violation(&text);
                }
                return;
            }
            self.shared.world.took_message(script.key);
            if number >= messages.count || chunk.payload != messages.one(script.key, number) {
                self.violation(&format!("message {number} is not what was sent"));
            }
            sleep(messages.take_pause).await;
            self.took().await;
            if messages.talks && self.answered < script.chunks {
                self.stream_one().await;
            }
        }
    }

    /// Sends the next chunk of its answer.
    async fn stream_one(&mut self) {
        let number = self.answered;
        let bytes = payload(self.script.key, number, self.script.chunk_bytes);
        self.chunk(number, bytes, false).await;
        self.answered += 1;
    }

    async fn fail(&self, why: &str) {
        let error = common::Error {
            code: ErrorCode::PluginFailed.number(),
            message: why.to_owned(),
            ..common::Error::default()
        };
        self.send(plugin_frame::Body::Error(error.into())).await;
    }

    async fn chunk(&self, sequence: u64, payload: Vec<u8>, fragment: bool) {
        let credit = self.credit.acquire().await;
        credit.unwrap().forget();
        self.chunk_without_credit(sequence, payload, fragment).await;
    }

    async fn chunk_without_credit(&self, sequence: u64, payload: Vec<u8>, fragment: bool) {
        let chunk = common::Chunk {
            payload: payload.into(),
            last: false,
            sequence,
            fragment,
        };
        self.send(plugin_frame::Body::Chunk(chunk)).await;
    }

    async fn answer(&mut self) {
        let script = self.script.clone();
        while self.answered < script.chunks {
            self.stream_one().await;
        }
        let next = script.chunks;
        match script.ending {
            Ending::Well => {}
            Ending::Fails => return self.fail("it is told to fail").await,
            Ending::Never => return std::future::pending().await,
            Ending::Garbage => {
                let (id, body) = (self.id, None);
                let mut bytes = PluginFrame { id, body }.encode_to_vec();
                bytes.extend([0x52, 0x7f]);
                return self.shared.link.push_bytes(&bytes);
            }
            Ending::TooMany => {
                for number in 0..2_000 {
                    let bytes = payload(script.key, next + number, 0);
                    self.chunk_without_credit(next + number, bytes, false).await;
                }
                return self
                    .fail("it sent more chunks than it had credit for")
                    .await;
            }
            Ending::Gap => {
                let bytes = payload(script.key, next + 1, 0);
                self.chunk(next + 1, bytes, false).await;
                return self.fail("it left a chunk out").await;
            }
        }
        let whole = payload(script.key, RESULT, script.result);
        let mut rest = whole.as_slice();
        let mut sequence = next;
        while rest.len() > PART {
            let (part, after) = rest.split_at(PART);
            self.chunk(sequence, part.to_vec(), true).await;
            sequence += 1;
            rest = after;
        }
        let result = common::Result {
            payload: Bytes::copy_from_slice(rest),
            ..common::Result::default()
        };
        self.send(plugin_frame::Body::Result(result)).await;
    }
}
