//! What the bus, its driver and its calls share.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Wake, Waker};

use async_nats::Subject;
use mesh_core::id::MeshName;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::connect::LinkEvents;
use crate::link::{Link, Refused};
use crate::outbox::{Credit, Frame, Outbox, Sender};
use crate::slots::{Effects, Slots};
use crate::stats::{BusStats, add};

pub(crate) struct Shared {
    pub mesh: MeshName,
    pub link: Link,
    pub outbox: Outbox,
    pub stats: BusStats,
    pub events: Arc<LinkEvents>,
    /// The driver's timer is to be set again.
    pub timer: Notify,
    /// Counts up whenever a node with calls in flight is lost or found again.
    pub lost_changes: Arc<AtomicU64>,
    slots: Mutex<Slots>,
    up: AtomicBool,
    up_sender: watch::Sender<bool>,
    started: Instant,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bus")
            .field("mesh", &self.mesh)
            .field("connected", &self.is_up())
            .finish_non_exhaustive()
    }
}

impl Shared {
    pub fn new(mesh: MeshName, link: Link, events: Arc<LinkEvents>, slots: Slots) -> Self {
        Self {
            mesh,
            outbox: Outbox::new(link.clone()),
            link,
            stats: BusStats::default(),
            events,
            timer: Notify::new(),
            lost_changes: slots.peers.changes(),
            slots: Mutex::new(slots),
            up: AtomicBool::new(false),
            up_sender: watch::Sender::new(false),
            started: Instant::now(),
        }
    }

    pub fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A time as the slots count it.
    pub fn micros(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.started).as_micros();
        // 500,000 years fit.
        u64::try_from(since).unwrap_or(u64::MAX - 1)
    }

    /// The time that the slots call so.
    pub fn instant(&self, micros: u64) -> Instant {
        // A deadline that is too far away to be told is as good as a year.
        const YEAR: u64 = 365 * 86_400 * 1_000_000;
        self.started + std::time::Duration::from_micros(micros.min(YEAR))
    }

    pub fn is_up(&self) -> bool {
        self.up.load(Ordering::Acquire)
    }

    pub fn set_up(&self, up: bool) {
        self.up.store(up, Ordering::Release);
        self.up_sender
            .send_if_modified(|shown| std::mem::replace(shown, up) != up);
    }

    pub fn watch_up(&self) -> watch::Receiver<bool> {
        self.up_sender.subscribe()
    }

    /// Sends a frame behind all others.
    pub fn send(&self, frame: Frame) -> Result<(), Refused> {
        let waits = self.outbox.send(frame)?;
        if waits {
            add(&self.stats.queued, 1);
        }
        Ok(())
    }

    /// Sends credit for a call's payload; see [`Outbox::send_credit`].
    pub fn send_credit(&self, to: &Subject, credit: Credit) -> Result<(), Refused> {
        if self.outbox.send_credit(to, credit)? {
            add(&self.stats.queued, 1);
        }
        Ok(())
    }

    /// Wakes a call that waits for a message to send. The slots must not be locked when it is woken.
    pub fn message_waker(self: &Arc<Self>, index: usize, call_id: u64) -> Waker {
        let bus = Arc::downgrade(self);
        Arc::new(MessageWaker {
            bus,
            index,
            call_id,
        })
        .into()
    }

    /// Carries over what waits to be sent. For the driver only.
    pub async fn carry(&self) {
        let time_left = |sender: Sender| {
            let now = self.micros(Instant::now());
            self.slots().time_left(sender.index, sender.call_id, now)
        };
        self.outbox.carry(time_left).await;
    }

    /// Carries out what the slots asked for. They must not be locked.
    pub fn carry_out(&self, effects: &mut Effects) {
        for waker in effects.wake.drain(..) {
            waker.wake();
        }
        for frame in effects.send.drain(..) {
            // A closed connection: the driver ends all calls.
            let _ = self.send(frame);
        }
        if std::mem::take(&mut effects.upload) {
            self.outbox.work.notify_one();
        }
        let stats = &self.stats;
        for (counter, value) in [
            (&stats.timeouts, &mut effects.timeouts),
            (&stats.outcome_unknown, &mut effects.unknown),
            (&stats.no_responders, &mut effects.no_responders),
            (&stats.late_replies, &mut effects.late),
            (&stats.malformed, &mut effects.malformed),
            (&stats.notices_dropped, &mut effects.notices_dropped),
        ] {
            if *value > 0 {
                add(counter, std::mem::take(value));
            }
        }
    }

    /// Ends everything: the driver is gone.
    pub fn close(&self) {
        self.set_up(false);
        let mut effects = Effects::default();
        let mut slots = self.slots();
        slots.closed = true;
        slots.end_where(
            "the bus was shut down while the call was in flight",
            |_| true,
            &mut effects,
        );
        drop(slots);
        self.carry_out(&mut effects);
    }
}

/// Tells the driver that a call has a message to send.
struct MessageWaker {
    bus: Weak<Shared>,
    index: usize,
    call_id: u64,
}

impl Wake for MessageWaker {
    fn wake(self: Arc<Self>) {
        if let Some(shared) = self.bus.upgrade() {
            shared.slots().has_message(self.index, self.call_id);
            shared.outbox.work.notify_one();
        }
    }
}
