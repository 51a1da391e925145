//! The one task that reads a plugin's stream, from the first frame to the last.

use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use mesh_core::error::{ErrorCode, MeshError};
use mesh_core::state::Phase;
use mesh_proto::attach::{AttachFrames, Inbound, PeerInfo};
use mesh_proto::plugin::PluginFrame;
use mesh_proto::status::to_status;
use mesh_runtime::Tasks;
use router::Router;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::begin::credit_frame;
use super::call::InFlight;
use super::held::Charge;
use super::local;
use super::out::{OutQueue, OutStream};
use super::own_calls::OwnCalls;
use super::pace::Pace;
use super::plane::Plane;
use super::reply::{Blocked, Passed};
use super::stalled::Stalled;
use super::state::{Session, SessionKey};
use super::welcome::Door;
use crate::rate_gate::{LOG_LINES, Rate, RateGate};
use crate::session::{Action, Stage};

/// A plugin is asked for its health when it was silent for so long.
const HEALTH_INTERVAL: Duration = Duration::from_secs(10);

/// Time from the opening of a stream to its Hello.
const HELLO_TIME: Duration = Duration::from_secs(10);

/// Frames that are worked on before other streams get their turn.
const BATCH: usize = 64;

/// Each change is checked here and told to the whole mesh.
const CAPABILITY_CHANGES: Rate = Rate {
    per_second: 2,
    burst: 20,
};

/// Frames that are still taken from a stream that has ended.
const LAST_FRAMES: usize = 16_384;

/// The most open streams.
const MAX_STREAMS: usize = 4_096;

/// The most streams whose Hello has not come: nothing else bounds what they make the agent keep.
pub(super) const MAX_STRANGERS: usize = 128;

/// The most of them from one process or address, so that it can't keep others out.
pub(super) const MAX_STRANGERS_OF_PEER: usize = 64;

/// What every stream needs.
#[derive(Debug, Clone)]
pub(crate) struct Streams {
    /// The plane.
    pub(crate) plane: Plane,
    /// Where plugins' own calls go.
    pub(crate) router: Router,
    /// Who may attach.
    pub(crate) door: Door,
    /// Owner of the streams' tasks.
    pub(crate) tasks: Tasks,
    /// Time that a plugin gets to end its calls when it asks to leave.
    pub(crate) grace: Duration,
}

/// Begins a session on a new stream.
///
/// # Errors
/// When there are too many.
pub(crate) fn open(
    streams: &Streams,
    peer: &PeerInfo,
    frames: AttachFrames,
) -> Result<OutStream, Status> {
    let (open, draining) = streams.plane.streams();
    if draining {
        let text = "the agent is stopping; attach again when it is back";
        return Err(to_status(&MeshError::new(ErrorCode::Draining, text)));
    }
    if open >= MAX_STREAMS {
        let text = format!("this agent has {MAX_STREAMS} open streams, which is the most");
        return Err(to_status(&MeshError::new(ErrorCode::Overloaded, text)));
    }
    let (strangers, of_peer) = streams.plane.strangers(peer);
    if strangers >= MAX_STRANGERS || of_peer >= MAX_STRANGERS_OF_PEER {
        let text = format!(
            "too many streams wait for their Hello ({strangers}, {of_peer} of them from {peer}; \
             {MAX_STRANGERS} and {MAX_STRANGERS_OF_PEER} are the most): send Hello at once"
        );
        let error = MeshError::new(ErrorCode::Overloaded, text);
        return Err(to_status(&error.retry_after(Duration::from_secs(1))));
    }
    let stop = CancellationToken::new();
    let (key, out, out_stream) = streams.plane.open(peer, &stop);
    let mut task = StreamTask {
        key,
        streams: streams.clone(),
        peer: peer.to_string(),
        own: OwnCalls::new(
            streams.router.clone(),
            out.clone(),
            streams.plane.shared.held.clone(),
            streams.plane.node(),
        ),
        out,
        stop,
        actions: Vec::new(),
        later: Vec::new(),
        stalled: Stalled::default(),
        charge: Charge::new(&streams.plane.shared.held),
        rooms: FuturesUnordered::new(),
        gate: RateGate::new(LOG_LINES, Instant::now()),
        changes: RateGate::new(CAPABILITY_CHANGES, Instant::now()),
        pace: Pace::new(Instant::now()),
        closing: Closing {
            plane: streams.plane.clone(),
            door: streams.door.clone(),
            key,
            reason: "the agent's task for it was stopped".to_owned(),
        },
    };
    let agent_stop = streams.tasks.token();
    streams.tasks.spawn("plugin stream", async move {
        let reason = tokio::select! {
            biased;
            () = agent_stop.cancelled() => "the agent stopped".to_owned(),
            reason = task.serve(frames) => match reason {
                Ok(()) => "it was closed".to_owned(),
                Err(reason) => reason,
            },
        };
        task.closing.because(reason);
    });
    Ok(out_stream)
}

fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// Waits for a moment; for ever when there is none.
async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// Ends the session whatever happens to the task, so that no call is left hanging.
struct Closing {
    plane: Plane,
    door: Door,
    key: SessionKey,
    reason: String,
}

impl Closing {
    fn because(&mut self, reason: String) {
        self.reason = reason;
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        let Some(session) = self.plane.close(self.key, &self.reason) else {
            return;
        };
        let Some(plugin) = session.plugin else {
            return;
        };
        let place = session.machine.place();
        tracing::info!(
            plugin = place.plugin,
            instance = place.instance,
            reason = self.reason,
            "a plugin's stream has ended"
        );
        let roster = &self.door.roster;
        if plugin.launch_token.is_some() && session.draining.is_none() {
            // Its process may be gone, too: whoever watches that knows better and says so.
            roster.set_phase(plugin.instance, Phase::Failed, &self.reason);
        } else {
            roster.remove(plugin.instance, &self.reason);
        }
    }
}

/// The task.
pub(super) struct StreamTask {
    pub(super) key: SessionKey,
    pub(super) streams: Streams,
    pub(super) peer: String,
    pub(super) out: OutQueue,
    pub(super) own: OwnCalls,
    /// The stream shall end, or its connection is gone.
    stop: CancellationToken,
    actions: Vec<Action<InFlight>>,
    /// Actions that need more than the lock.
    later: Vec<Action<InFlight>>,
    /// Calls whose answers the bus does not take for now.
    pub(super) stalled: Stalled<Blocked>,
    /// For what they hold.
    charge: Charge,
    /// Local callers whose room is awaited, with the ids of their calls.
    rooms: FuturesUnordered<BoxFuture<'static, (u64, u32)>>,
    /// Lines in the agent's log and to the callers.
    pub(super) gate: RateGate,
    /// Changes of its capabilities.
    pub(super) changes: RateGate,
    /// Progress and health.
    pub(super) pace: Pace,
    closing: Closing,
}

/// What a stream gives.
type Frame = Option<Result<Inbound<PluginFrame>, Status>>;

/// Whether the stream goes on; if not, why.
pub(super) type Flow = Result<(), String>;

impl StreamTask {
    async fn serve(&mut self, mut frames: AttachFrames) -> Flow {
        let mut health = tokio::time::interval(HEALTH_INTERVAL);
        health.set_missed_tick_behavior(MissedTickBehavior::Delay);
        health.reset();
        let hello_by = tokio::time::sleep(HELLO_TIME);
        let mut hello_by = std::pin::pin!(hello_by);
        let mut greeted = false;
        let stopped = self.stop.clone().cancelled_owned();
        let mut stopped = std::pin::pin!(stopped);
        loop {
            let due = earlier(self.pace.due(), self.stalled.due());
            // In a fixed order, so that a simulation can repeat it. Frames, which may never end, are last:
            // there is only so much of all else for each of them.
            tokio::select! {
                biased;
                () = &mut stopped => return self.last_words(&mut frames).await,
                () = &mut hello_by, if !greeted => return self.no_hello(),
                _ = health.tick() => self.tick().await?,
                () = until(due), if due.is_some() => {
                    self.on_due();
                    self.unstall().await?;
                }
                ended = self.own.next(), if !self.own.is_empty() => self.own_ended(ended),
                Some((id, chunks)) = self.rooms.next(), if !self.rooms.is_empty() => {
                    self.streams.plane.grant_local(self.key, id, chunks);
                }
                () = self.streams.plane.bus_room(), if !self.stalled.is_empty() => {
                    self.unstall().await?;
                }
                frame = frames.next(), if !self.stalled.is_full() => {
                    self.take_all(frame, &mut frames).await?;
                    greeted = greeted || self.is_greeted();
                }
            }
            self.charge.set(self.stalled.bytes());
            if self.stalled.is_full() {
                self.decide(Instant::now(), |session, _| {
                    session.machine.not_listened_to()
                });
            }
            // A plugin that does not read what it is owed is not listened to until it does.
            tokio::select! {
                biased;
                () = self.out.may_read() => {}
                () = &mut stopped => return self.last_words(&mut frames).await,
            }
        }
    }

    /// The connection may be gone, but what the plugin had sent before still counts.
    async fn last_words(&mut self, frames: &mut AttachFrames) -> Flow {
        let reason = self.why_stopped();
        for _ in 0..LAST_FRAMES {
            let Some(Some(Ok(inbound))) = frames.next().now_or_never() else {
                break;
            };
            self.on_frame(inbound).await?;
        }
        Err(reason)
    }

    /// Works on a frame and on those that are there already, before going back to wait for anything.
    async fn take_all(&mut self, first: Frame, frames: &mut AttachFrames) -> Flow {
        let now = Instant::now();
        let mut frame = first;
        for more in (0..BATCH).rev() {
            match frame {
                Some(Ok(inbound)) => self.decide_frame(inbound, now),
                Some(Err(status)) => return Err(self.broken(&status)),
                None => return Err("the plugin closed its stream".to_owned()),
            }
            // For most frames there is nothing: without a future for each of them.
            if !self.later.is_empty() {
                self.act_later().await?;
            }
            if self.stalled.is_full() {
                return Ok(());
            }
            if more == 0 {
                break;
            }
            frame = match frames.next().now_or_never() {
                Some(next) => next,
                None => return Ok(()),
            };
        }
        tokio::task::yield_now().await;
        Ok(())
    }

    pub(super) async fn on_frame(&mut self, inbound: Inbound<PluginFrame>) -> Flow {
        self.decide_frame(inbound, Instant::now());
        self.act_later().await
    }

    fn decide_frame(&mut self, mut inbound: Inbound<PluginFrame>, now: Instant) {
        if !self.stalled.is_empty() {
            let Some(other) = self.stalled.hold(inbound, now) else {
                return;
            };
            inbound = other;
        }
        self.decide(now, |session, actions| {
            session.machine.on_frame(inbound, actions);
        });
    }

    async fn tick(&mut self) -> Flow {
        self.decide(Instant::now(), |session, actions| {
            session.machine.tick(actions);
        });
        self.act_later().await
    }

    /// Lets the session decide, and does under the same lock what needs nothing else.
    fn decide(
        &mut self,
        now: Instant,
        decide: impl FnOnce(&mut Session, &mut Vec<Action<InFlight>>),
    ) {
        let plane = &self.streams.plane;
        let mut state = plane.lock();
        let state = &mut *state;
        let Some(session) = state.sessions.get(self.key) else {
            return;
        };
        decide(session, &mut self.actions);
        for action in self.actions.drain(..) {
            match action {
                Action::Send(frame) => self.out.push(frame),
                Action::Ended { call, end } => {
                    plane.ended(&mut state.calls, session, call, end, now);
                }
                Action::Chunk { id, chunk } => {
                    let (credit, bytes) = (session.machine.credit(id), chunk.payload.len());
                    let Some(call) = session.machine.call(id) else {
                        continue;
                    };
                    let passed = plane.pass_chunk(&mut call.reply, chunk, credit);
                    call.passed += u64::from(!matches!(passed, Passed::Blocked(_)));
                    match passed {
                        Passed::On { grant: 0 } => {}
                        Passed::On { grant } => {
                            session.machine.grant(id, grant);
                            self.out.push(credit_frame(id, grant));
                        }
                        Passed::Blocked(blocked) => {
                            self.stalled.block(id, blocked, bytes, Instant::now());
                        }
                        Passed::Full(caller) => self
                            .rooms
                            .push(Box::pin(local::room(caller).map(move |n| (id, n)))),
                    }
                }
                Action::Progress { id, progress } => {
                    if let Some(call) = session.machine.call(id)
                        && let Some(wish) = &mut call.progress
                        && let Some(progress) =
                            self.pace.progress(id, wish, progress, Instant::now())
                    {
                        plane.pass_progress(&call.reply, progress);
                    }
                }
                other => self.later.push(other),
            }
        }
    }

    async fn act_later(&mut self) -> Flow {
        if self.later.is_empty() {
            return Ok(());
        }
        for action in std::mem::take(&mut self.later) {
            self.act(action).await?;
        }
        Ok(())
    }

    async fn act(&mut self, action: Action<InFlight>) -> Flow {
        match action {
            Action::Hello(hello) => return self.on_hello(hello).await,
            Action::Ready => self.on_ready(),
            Action::Log { id, log } => self.on_log(id, log),
            Action::UploadCredit { id, chunks } => self.on_upload_credit(id, chunks),
            Action::OwnCall { id, call, payload } => self.on_own_call(id, *call, payload),
            Action::OwnMessage { id, message } => self.on_own_message(id, message),
            Action::OwnCancelled { id } => self.own.cancel(id),
            Action::OwnCredit { id, chunks } => self.own.grant(id, chunks),
            Action::Health(change) => self.on_health(change),
            Action::Capabilities { id, entries } => self.on_capabilities(id, entries),
            Action::DrainRequested { reason } => self.on_drain_request(&reason),
            Action::Drained => self.on_drained(),
            Action::Refused {
                reason,
                text,
                severity,
            } => self.on_refused(reason, &text, severity),
            // Done under the lock.
            Action::Send(_)
            | Action::Ended { .. }
            | Action::Chunk { .. }
            | Action::Progress { .. } => {}
        }
        Ok(())
    }
}

impl StreamTask {
    fn is_greeted(&self) -> bool {
        let mut state = self.streams.plane.lock();
        let session = state.sessions.get(self.key);
        session.is_some_and(|session| session.machine.stage() != Stage::AwaitHello)
    }
}
