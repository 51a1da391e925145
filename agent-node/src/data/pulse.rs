//! The task that looks whether plugins with calls give signs of life.

use std::time::Duration;

use mesh_core::error::ErrorCode;
use mesh_proto::attach::PeerInfo;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::begin::cancel_frame;
use super::plane::Plane;
use super::state::{Calls, Session};
use crate::session::refusal::wire_error;
use crate::session::{Beat, Stage};
use crate::supervisor::processor_time;

/// How often it looks.
const LOOK: Duration = Duration::from_millis(250);

/// A look that comes so much too late tells nothing: the plugins' frames wait, too.
const LATE: Duration = Duration::from_millis(500);

/// Looks until `stop` is cancelled.
pub(super) async fn watch(plane: Plane, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = Instant::now();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let now = Instant::now();
        let late = now.saturating_duration_since(last) > LOOK + LATE;
        last = now;
        plane.look_at_plugins(now, late);
    }
}

impl Plane {
    fn look_at_plugins(&self, now: Instant, late: bool) {
        let mut state = self.lock();
        let state = &mut *state;
        for (_, session) in state.sessions.all_mut() {
            if session.machine.stage() != Stage::Ready {
                continue;
            }
            let heard = session.machine.was_heard() || late;
            let works = session.machine.in_flight() > 0;
            let peer = &session.peer;
            match session.pulse.look(now, heard, works, || used_by(peer)) {
                Beat::On => {}
                Beat::Ask => {
                    let frame = session.machine.health_check();
                    session.out.push(frame);
                }
                Beat::GiveUp => {
                    let place = session.machine.place().clone();
                    tracing::warn!(
                        plugin = place.plugin,
                        instance = place.instance,
                        calls = session.machine.in_flight(),
                        "the plugin hangs; its calls are given up"
                    );
                    let text = "the plugin hangs: it sent nothing and did not answer when it was asked \
                                whether it is alive";
                    self.give_up_all(&mut state.calls, session, text);
                }
            }
        }
    }

    /// Ends all calls of a session, as what they are: not processed where the plugin can't have seen them.
    pub(super) fn give_up_all(&self, calls: &mut Calls, session: &mut Session, reason: &str) {
        let place = session.machine.place().clone();
        let machine = &session.machine;
        // What it can't have seen it shall not see, should it ever read on.
        let written = session.out.take_back_all(|id| machine.is_running(id));
        let running: Vec<u64> = machine.running().map(|(id, _)| id).collect();
        for id in running {
            let Some(call) = session.machine.give_up(id) else {
                continue;
            };
            let (code, text) = if id <= written {
                session.out.push(cancel_frame(id, reason));
                let text = format!("{reason}; whether it processed the call is not known");
                (ErrorCode::OutcomeUnknown, text)
            } else {
                let text = format!("{reason}; the call had not reached it");
                (ErrorCode::InstanceGone, text)
            };
            let end = Err(wire_error(code, text, &place));
            self.ended(calls, session, call, end, Instant::now());
        }
    }
}

/// The processor time of the process behind a stream, if it can be told.
fn used_by(peer: &PeerInfo) -> Option<Duration> {
    match peer {
        PeerInfo::Unix { pid: Some(pid), .. } => processor_time(*pid),
        _ => None,
    }
}
