//! What a plugin does for one call: it takes the payload, works, calls others, and answers.

use std::sync::Arc;

use bytes::Bytes;
use mesh_core::error::ErrorCode;
use mesh_proto::common;
use mesh_proto::plugin::{PluginFrame, host_frame, plugin_frame};
use prost::Message;
use router::CallOutput;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::sleep;

use super::caller::{check_chunk, check_end, request};
use super::ledger::{End, RESULT, UPLOAD, payload};
use super::plan::{Ending, Script};
use super::plugin::{INITIAL_CREDIT, Shared};

/// Largest part of a result that the plugin sends in one frame.
const PART: usize = 16 << 10;

/// One call.
pub(super) struct Job {
    pub(super) shared: Arc<Shared>,
    pub(super) id: u64,
    pub(super) script: Arc<Script>,
    /// Which time it is that the call was begun.
    pub(super) begun: usize,
    pub(super) incoming: mpsc::UnboundedReceiver<common::Chunk>,
    pub(super) credit: Arc<Semaphore>,
}

/// Does what the script says.
pub(super) async fn run(mut job: Job, call: common::Call) {
    job.take_payload(call).await;
    let script = job.script.clone();
    sleep(script.work / 2).await;
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

    /// Takes the payload, the rest of it by chunks for which credit is given.
    async fn take_payload(&mut self, call: common::Call) {
        let (mut whole, mut more) = (call.payload.to_vec(), call.more);
        let (mut next, mut taken, mut granted) = (0, 0, INITIAL_CREDIT as u64);
        while more {
            let Some(chunk) = self.incoming.recv().await else {
                return;
            };
            if chunk.sequence != next {
                self.violation(&format!(
                    "chunk {} of its payload came as {next}",
                    chunk.sequence
                ));
            }
            next += 1;
            if next > granted {
                self.violation("more chunks of its payload came than there was credit for");
            }
            whole.extend_from_slice(&chunk.payload);
            more = !chunk.last;
            taken += 1;
            if taken == INITIAL_CREDIT as u64 / 2 {
                let credit = common::Credit {
                    chunks: u32::try_from(taken).unwrap(),
                    ..common::Credit::default()
                };
                granted += taken;
                taken = 0;
                self.send(plugin_frame::Body::Credit(credit)).await;
            }
        }
        if whole != payload(self.script.key, UPLOAD, self.script.upload) {
            self.violation("its payload is not what was sent");
        }
    }

    async fn fail(&self, why: &str) {
        let error = common::Error {
            code: ErrorCode::PluginFailed.number(),
            message: why.to_owned(),
            ..common::Error::default()
        };
        self.send(plugin_frame::Body::Error(error)).await;
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

    async fn answer(&self) {
        let script = &self.script;
        for number in 0..script.chunks {
            let bytes = payload(script.key, number, script.chunk_bytes);
            self.chunk(number, bytes, false).await;
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
            content_type: String::new(),
        };
        self.send(plugin_frame::Body::Result(result)).await;
    }
}

/// A call that the plugin makes itself.
struct OwnCall {
    shared: Arc<Shared>,
    id: u64,
    script: Arc<Script>,
    answers: mpsc::UnboundedReceiver<host_frame::Body>,
    ended: bool,
}

impl OwnCall {
    fn begin(shared: &Arc<Shared>, script: Arc<Script>) -> Self {
        let (sender, answers) = mpsc::unbounded_channel();
        let mut own = shared.own.lock().unwrap();
        own.last_id += if own.last_id == 0 { 1 } else { 2 };
        let id = own.last_id;
        own.calls.insert(id, Some(sender));
        drop(own);
        let text = format!(
            "call {} is made by {}: {}",
            script.key,
            shared.label,
            script.words()
        );
        shared.world.say(&text);
        Self {
            shared: shared.clone(),
            id,
            script,
            answers,
            ended: false,
        }
    }

    async fn send_request(&mut self) -> Option<common::Error> {
        let asked = request(&self.script);
        let mut rest = asked.payload;
        let size = self.shared.world.plan.chunk_bytes.min(PART);
        let first = rest.split_to(rest.len().min(size));
        let call = common::Call {
            plugin: asked
                .plugin
                .map(|name| name.to_string())
                .unwrap_or_default(),
            capability: Some((&asked.capability).into()),
            payload: first,
            more: !rest.is_empty(),
            time_left_us: u64::try_from(self.script.timeout.as_micros()).unwrap(),
            affinity_key: asked.affinity_key,
            want_progress: asked.want_progress,
            ..common::Call::default()
        };
        self.shared
            .send(self.id, plugin_frame::Body::Call(Box::new(call)))
            .await;
        let (mut sequence, mut credit) = (0, INITIAL_CREDIT);
        while !rest.is_empty() {
            while credit == 0 {
                match self.answers.recv().await? {
                    host_frame::Body::Credit(more) => credit += more.chunks as usize,
                    host_frame::Body::Error(error) => return Some(error),
                    _ => {}
                }
            }
            let part = rest.split_to(rest.len().min(size));
            let chunk = common::Chunk {
                payload: part,
                last: rest.is_empty(),
                sequence,
                fragment: false,
            };
            sequence += 1;
            credit -= 1;
            self.shared
                .send(self.id, plugin_frame::Body::Chunk(chunk))
                .await;
        }
        None
    }

    /// Waits for the end, and gives credit for what is taken.
    async fn finish(mut self) -> Result<(), String> {
        if let Some(error) = self.send_request().await {
            return self.failed(error);
        }
        let (mut chunks, mut next, mut taken) = (0, 0, 0);
        let mut granted = INITIAL_CREDIT as u64;
        let mut fragments = Vec::new();
        loop {
            let Some(body) = self.answers.recv().await else {
                return std::future::pending().await;
            };
            match body {
                host_frame::Body::Chunk(chunk) => {
                    if chunk.sequence != next || next >= granted {
                        let text = format!(
                            "call {}: chunk {} of the answer came as {next}, with credit for {granted}",
                            self.script.key, chunk.sequence
                        );
                        self.shared.world.violation(text);
                    }
                    next += 1;
                    if chunk.fragment {
                        fragments.extend_from_slice(&chunk.payload);
                    } else {
                        check_chunk(&self.shared.world, &self.script, chunks, &chunk.payload);
                        chunks += 1;
                        sleep(self.script.read_pause).await;
                    }
                    taken += 1;
                    if taken == INITIAL_CREDIT / 2 {
                        let credit = common::Credit {
                            chunks: u32::try_from(taken).unwrap(),
                            ..common::Credit::default()
                        };
                        granted += taken as u64;
                        taken = 0;
                        self.shared
                            .send(self.id, plugin_frame::Body::Credit(credit))
                            .await;
                    }
                }
                host_frame::Body::Result(result) => {
                    fragments.extend_from_slice(&result.payload);
                    let output = CallOutput {
                        payload: fragments.into(),
                        content_type: result.content_type,
                    };
                    check_end(&self.shared.world, &self.script, chunks, &Ok(output));
                    self.end(End::Well);
                    return Ok(());
                }
                host_frame::Body::Error(error) => return self.failed(error),
                _ => {}
            }
        }
    }

    fn failed(&mut self, error: common::Error) -> Result<(), String> {
        let error = mesh_core::error::MeshError::from(error);
        self.end(End::from(&error));
        Err(format!("its own call failed: {error}"))
    }

    fn end(&mut self, end: End) {
        self.ended = true;
        self.shared.world.ended(self.script.key, end);
    }
}

impl Drop for OwnCall {
    /// Its job was stopped, so it is cancelled; or the plugin is gone, and nobody hears of it.
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        self.shared.world.ended(self.script.key, End::GivenUp);
        let mut own = self.shared.own.lock().unwrap();
        let Some(waiting) = own.calls.get_mut(&self.id) else {
            // The end had come and was not read yet.
            return;
        };
        *waiting = None;
        drop(own);
        let cancel = common::Cancel {
            reason: "its job was stopped".to_owned(),
        };
        self.shared
            .push(self.id, plugin_frame::Body::Cancel(cancel));
    }
}
