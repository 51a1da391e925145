//! A call that a plugin makes itself for one that it works on.

use std::sync::Arc;

use mesh_proto::common;
use mesh_proto::plugin::{host_frame, plugin_frame};
use router::CallOutput;
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::caller::{check_chunk, check_end, request};
use super::job::PART;
use super::ledger::End;
use super::messages::Feed;
use super::plan::Script;
use super::plugin::{INITIAL_CREDIT, Shared};

/// A call that the plugin makes itself.
pub(super) struct OwnCall {
    shared: Arc<Shared>,
    id: u64,
    script: Arc<Script>,
    answers: mpsc::UnboundedReceiver<host_frame::Body>,
    ended: bool,
}

impl OwnCall {
    pub(super) fn begin(shared: &Arc<Shared>, script: Arc<Script>) -> Self {
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

    async fn send_request(&self) -> Feed {
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
            messages: self.script.messages.is_some(),
            time_left_us: u64::try_from(self.script.timeout.as_micros()).unwrap(),
            affinity_key: asked.affinity_key,
            want_progress: asked.want_progress,
            ..common::Call::default()
        };
        self.shared
            .send(self.id, plugin_frame::Body::Call(Box::new(call)))
            .await;
        Feed::new(&self.shared, self.id, &self.script, (rest, size))
    }

    /// Waits for the end, and gives credit for what is taken.
    pub(super) async fn finish(mut self) -> Result<(), String> {
        let mut feed = self.send_request().await;
        let (mut chunks, mut next, mut taken) = (0, 0, 0);
        let mut granted = INITIAL_CREDIT as u64;
        let mut fragments = Vec::new();
        loop {
            let body = tokio::select! {
                biased;
                body = self.answers.recv() => body,
                () = feed.send_next(), if feed.may_send() => continue,
            };
            let Some(body) = body else {
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
                host_frame::Body::Credit(more) => feed.grant(more.chunks),
                host_frame::Body::Error(error) => return self.failed(*error),
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
