//! The task behind a bus: it reads the inbox, keeps deadlines, carries over what had to wait, and
//! watches the connection.
//!
//! The parts are futures of one task, so a reply is dispatched without a hop, and no lock is ever
//! waited for.

use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use async_nats::Subject;
use futures::StreamExt;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::link::Subscriber;
use crate::outbox::Frame;
use crate::shared::Shared;
use crate::slots::Effects;
use crate::stats::add;

/// Replies that are dispatched before other tasks get their turn.
const BATCH: usize = 256;

/// Deadlines are kept to within this.
const SWEEP: Duration = Duration::from_millis(5);

/// The library's events may get lost, so the state is looked at this often, too.
const LOOK: Duration = Duration::from_millis(100);

/// How long a message to oneself may take.
const PROBE: Duration = Duration::from_millis(500);

/// How long the parts of large payloads are held back at a time.
const HOLD_BACK: Duration = Duration::from_millis(1);

/// How long frames may take to leave when the driver is stopped.
const LEAVE: Duration = Duration::from_secs(1);

/// The task behind a [`crate::Bus`]: dispatches replies, keeps deadlines, sends what had to wait.
#[derive(Debug)]
pub struct BusDriver {
    pub(crate) shared: Closer,
    pub(crate) inbox: Subscriber,
    pub(crate) probe: Subscriber,
    pub(crate) probe_subject: Subject,
}

/// Ends all calls when the driver is gone, whichever way it went.
#[derive(Debug)]
pub(crate) struct Closer(pub Arc<Shared>);

impl Drop for Closer {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl BusDriver {
    /// Runs until `stop` ends, sends what is still to be sent (for a second at most), and ends the
    /// calls that are still in flight with OUTCOME_UNKNOWN.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let Self {
            shared: closer,
            mut inbox,
            mut probe,
            probe_subject,
        } = self;
        let shared = &*closer.0;
        let parts = async {
            tokio::join!(
                dispatch(shared, &mut inbox),
                carry(shared),
                sweep(shared),
                watch(shared, &mut probe, &probe_subject),
            )
        };
        tokio::select! {
            biased;
            () = stop => {}
            _ = parts => {}
        }
        shared.close();
        let leave = async {
            shared.carry().await;
            shared.link.flush().await
        };
        if !matches!(timeout(LEAVE, leave).await, Ok(true)) {
            tracing::debug!("the bus was closed before all frames had left");
        }
    }
}

/// Reads the inbox.
async fn dispatch(shared: &Shared, inbox: &mut Subscriber) {
    let mut effects = Effects::default();
    poll_fn(|cx| poll_dispatch(shared, inbox, &mut effects, cx)).await;
}

fn poll_dispatch(
    shared: &Shared,
    inbox: &mut Subscriber,
    effects: &mut Effects,
    cx: &mut Context<'_>,
) -> Poll<()> {
    let mut first = match inbox.poll_next_unpin(cx) {
        Poll::Ready(Some(message)) => Some(message),
        Poll::Ready(None) => return Poll::Ready(()),
        Poll::Pending => return Poll::Pending,
    };
    let now = shared.micros(Instant::now());
    let mut slots = shared.slots();
    let next_due = slots.next_due();
    let mut state = Poll::Ready(());
    for _ in 0..BATCH {
        let message = match first.take() {
            Some(message) => message,
            None => match inbox.poll_next_unpin(cx) {
                Poll::Ready(Some(message)) => message,
                Poll::Ready(None) => break,
                Poll::Pending => {
                    state = Poll::Pending;
                    break;
                }
            },
        };
        slots.on_message(message, now, effects);
    }
    let earlier = slots.next_due() < next_due;
    drop(slots);
    if earlier {
        shared.timer.notify_one();
    }
    shared.carry_out(effects);
    if state.is_ready() {
        // There is more; others first.
        cx.waker().wake_by_ref();
    }
    Poll::Pending
}

/// Carries over what had to wait, then parts of large payloads, one at a time.
async fn carry(shared: &Shared) {
    loop {
        shared.carry().await;
        if shared.slots().uploads() && shared.outbox.full_of_bulk() {
            // Not longer: what comes to wait meanwhile must be carried over.
            sleep(HOLD_BACK).await;
            continue;
        }
        let next = shared.slots().next_upload();
        match next {
            Some(frame) => shared.outbox.send_later(frame),
            None => shared.outbox.work.notified().await,
        }
    }
}

/// Keeps deadlines.
async fn sweep(shared: &Shared) {
    let mut effects = Effects::default();
    loop {
        let due = shared.slots().next_due();
        tokio::select! {
            biased;
            // Waiting a little longer makes one sweep of many deadlines.
            () = sleep_until(shared.instant(due) + SWEEP), if due != u64::MAX => {}
            () = shared.timer.notified() => continue,
        }
        let now = shared.micros(Instant::now());
        let up = shared.is_up();
        shared.slots().sweep(now, up, &mut effects);
        shared.carry_out(&mut effects);
    }
}

/// Watches the connection.
async fn watch(shared: &Shared, probe: &mut Subscriber, subject: &Subject) {
    let mut before = false;
    loop {
        while !shared.link.is_connected() {
            look(shared).await;
        }
        let changes = shared.events.changes();
        if !prove(shared, probe, subject, changes).await {
            continue;
        }
        went_up(shared, before);
        before = true;
        let mut dropped = shared.events.dropped.load(Ordering::Relaxed);
        while shared.events.changes() == changes && shared.link.is_connected() {
            look(shared).await;
            let now = shared.events.dropped.load(Ordering::Relaxed);
            if now != dropped {
                dropped = now;
                shared.stats.slow_consumer.store(now, Ordering::Relaxed);
                // Replies may have been among what was dropped.
                verify(shared);
            }
        }
        went_down(shared);
    }
}

async fn look(shared: &Shared) {
    tokio::select! {
        biased;
        () = shared.events.changed.notified() => {}
        () = sleep(LOOK) => {}
    }
}

/// Sends messages to oneself until one comes back: the library's `flush` does not prove that
/// subscriptions have landed, this does. False when the connection changes meanwhile.
async fn prove(shared: &Shared, probe: &mut Subscriber, subject: &Subject, changes: u64) -> bool {
    let mut tries = 0_u32;
    loop {
        let nonce = fastrand::u64(..).to_be_bytes();
        let there_and_back = async {
            if shared.send(Frame::to(subject, nonce.to_vec())).is_err() {
                std::future::pending::<()>().await;
            }
            while let Some(message) = probe.next().await {
                if message.payload == nonce.as_slice() {
                    return;
                }
            }
            std::future::pending().await
        };
        let back = timeout(PROBE, there_and_back).await.is_ok();
        if shared.events.changes() != changes || !shared.link.is_connected() {
            return false;
        }
        if back {
            return true;
        }
        tries += 1;
        if tries.is_multiple_of(10) {
            tracing::warn!(
                %subject,
                "connected to NATS, but a message to oneself does not come back; may this user \
                 publish and subscribe in the mesh's subjects?"
            );
        }
    }
}

fn went_up(shared: &Shared, before: bool) {
    tracing::info!(again = before, "connected to NATS");
    shared.set_up(true);
    if before {
        add(&shared.stats.reconnects, 1);
        verify(shared);
    }
}

/// Frames may have been lost: calls that gave no sign of life for a second from now on end.
fn verify(shared: &Shared) {
    let now = shared.micros(Instant::now());
    shared.slots().verify_all(now);
    shared.timer.notify_one();
}

fn went_down(shared: &Shared) {
    tracing::warn!("the connection to NATS is lost; calls are refused until it is back");
    shared.set_up(false);
    let mut effects = Effects::default();
    let taken_back = shared.outbox.take_back();
    let mut slots = shared.slots();
    for sender in taken_back.iter().filter(|sender| sender.begins) {
        slots.end_unsent(sender.index, sender.call_id, &mut effects);
    }
    drop(slots);
    shared.carry_out(&mut effects);
}
