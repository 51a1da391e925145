//! One session with a host: handshake, then the loop that reads frames, runs calls and sends answers.
//!
//! All of it is one future. Handlers are polled once where their frame was read; those that must wait
//! join a set that the same loop polls. Nothing is spawned, so handlers need not be `Send`.

mod assembly;
mod frames;
mod handshake;
mod leaving;
mod running;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::task::Poll;

use futures::future::LocalBoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::mpsc;
use tonic::codec::Streaming;

use crate::attachment::Attachment;
use crate::code::ErrorCode;
use crate::context::Context;
use crate::error::CallError;
use crate::run::Runner;
use crate::signals::Stop;
use crate::wire::{HostFrame, PluginFrame};

pub(crate) use assembly::{Assembly, Step};
use leaving::Leaving;

/// Frames that wait for the way out; answers that find it full wait with their calls.
const OUTBOUND: usize = 512;
/// Answers to the host itself that wait; while there are more, nothing is read.
const MAX_OUTBOX: usize = 1024;
/// Frames that are read before the loop looks at everything else.
const BURST: usize = 64;

/// How a session ended.
pub(crate) enum Ended {
    /// The plugin was told to stop, by its user or by its host.
    Stopped,
    /// The host asks to attach again.
    Reattach,
    /// The host did not take the plugin.
    Refused {
        error: CallError,
        /// It would refuse it again whatever others do.
        for_good: bool,
    },
    /// No session came about.
    Unreachable(String),
    /// The session broke.
    Lost(String),
}

/// The state of the loop.
struct Session<'a> {
    runner: &'a Runner,
    attachment: Arc<Attachment>,
    inbound: Streaming<HostFrame>,
    /// Calls whose handlers wait for something; each ends with its id.
    running: FuturesUnordered<LocalBoxFuture<'static, u64>>,
    /// The same calls, for what the host says about them.
    calls: HashMap<u64, Context>,
    /// Calls whose payload is still coming.
    assemblies: HashMap<u64, Assembly>,
    /// The newest call of the host.
    last_id: u64,
    outbox: VecDeque<PluginFrame>,
    leaving: Leaving,
}

/// Runs one session. `previous` is the instance that the plugin was, and then is.
pub(crate) async fn run(runner: &Runner, previous: &mut String, stop: &mut Stop) -> Ended {
    let (sender, receiver) = mpsc::channel(OUTBOUND);
    let begun = tokio::select! {
        begun = handshake::begin(runner, previous, sender, receiver) => begun,
        _ = stop.requested() => return Ended::Stopped,
    };
    let (attachment, inbound) = match begun {
        Ok(begun) => begun,
        Err(ended) => return ended,
    };
    attachment.welcome.instance.clone_into(previous);
    let attachment = Arc::new(attachment);
    runner.log.set(Some(attachment.clone()));
    let mut session = Session {
        runner,
        attachment: attachment.clone(),
        inbound,
        running: FuturesUnordered::new(),
        calls: HashMap::new(),
        assemblies: HashMap::new(),
        last_id: 0,
        outbox: VecDeque::new(),
        leaving: Leaving::No,
    };
    let ended = session.serve(stop).await;
    // Handlers are dropped with the session, but tasks of the plugin's own may wait for calls, too.
    attachment.calls.close(&CallError::new(
        ErrorCode::OutcomeUnknown,
        "the agent was lost after the call was sent: whether it was processed is unknown",
    ));
    ended
}

impl Session<'_> {
    async fn serve(&mut self, stop: &mut Stop) -> Ended {
        let attachment = self.attachment.clone();
        loop {
            if let Some(ended) = self.left().await {
                return ended;
            }
            let has_room = self.outbox.len() < MAX_OUTBOX;
            tokio::select! {
                biased;
                Some(id) = self.running.next(), if !self.running.is_empty() => {
                    self.calls.remove(&id);
                }
                permit = attachment.outbound().reserve(), if !self.outbox.is_empty() => {
                    match (permit, self.outbox.pop_front()) {
                        (Ok(permit), Some(frame)) => permit.send(frame),
                        (Err(_), _) => return Ended::Lost("the stream was closed".to_owned()),
                        (Ok(_), None) => {}
                    }
                }
                frame = self.inbound.next(), if has_room => {
                    if let Some(ended) = self.read(frame).await {
                        return ended;
                    }
                }
                reason = stop.requested(), if self.leaving.may_ask() => self.ask_to_leave(&reason),
                late = attachment.late() => self.outbox.extend(late),
                () = self.leaving.timeout() => self.leaving.time_is_up(),
            }
        }
    }

    /// Works on a frame, and on those that have come behind it.
    async fn read(&mut self, first: Option<Result<HostFrame, tonic::Status>>) -> Option<Ended> {
        let mut next = first;
        let mut read = 0;
        loop {
            match next {
                None => return Some(Ended::Lost("the agent ended the session".to_owned())),
                Some(Err(status)) => return Some(handshake::refusal_or_loss(&status)),
                Some(Ok(frame)) => {
                    if let Some(ended) = self.on_frame(frame).await {
                        return Some(ended);
                    }
                }
            }
            read += 1;
            if read >= BURST || self.outbox.len() >= MAX_OUTBOX {
                return None;
            }
            match futures::poll!(self.inbound.next()) {
                Poll::Ready(frame) => next = frame,
                Poll::Pending => return None,
            }
        }
    }

    /// Sends a frame at once if there is room, else as soon as there is.
    fn reply(&mut self, frame: PluginFrame) {
        if !self.outbox.is_empty() {
            self.outbox.push_back(frame);
            return;
        }
        if let Err(mpsc::error::TrySendError::Full(frame)) =
            self.attachment.outbound().try_send(frame)
        {
            self.outbox.push_back(frame);
        }
    }
}
