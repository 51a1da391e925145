//! Tells clients that lists changed.
//!
//! Sessions (2025-11-25 and older) are told by one task, which waits for none of them: each has at
//! most one notification on its way, and what changes meanwhile is told once, afterwards. A
//! subscription (2026-07-28) is its client's own request, and told from there.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use rmcp::RoleServer;
use rmcp::service::{Peer, SubscriptionContext};
use tokio::sync::{Notify, watch};
use tokio::time::{Duration, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::Shared;
use crate::composite::{Catalog, Changes};

/// How often sessions that are gone are forgotten.
const SWEEP: Duration = Duration::from_secs(30);

/// New sessions on their way to the task that tells them. Cheap to clone.
#[derive(Clone, Default)]
pub struct Notifier {
    inner: Arc<Arrivals>,
}

#[derive(Default)]
struct Arrivals {
    // Bounded by the number of sessions.
    peers: Mutex<Vec<Peer<RoleServer>>>,
    wake: Notify,
}

impl Notifier {
    /// From now on the session of this peer is told of changes.
    pub fn register(&self, peer: Peer<RoleServer>) {
        let mut peers = self
            .inner
            .peers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        peers.push(peer);
        drop(peers);
        self.inner.wake.notify_one();
    }

    fn take(&self) -> Vec<Peer<RoleServer>> {
        let mut peers = self
            .inner
            .peers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *peers)
    }

    /// Tells all sessions, until `stop`.
    pub async fn run(self, mut catalog: watch::Receiver<Arc<Catalog>>, stop: CancellationToken) {
        let mut fan_out = FanOut::default();
        let mut known = Arc::clone(&catalog.borrow_and_update());
        let mut sweep = interval(SWEEP);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                changed = catalog.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    fan_out.add(self.take());
                    let now = Arc::clone(&catalog.borrow_and_update());
                    fan_out.tell(now.changes_since(&known));
                    known = now;
                }
                () = self.inner.wake.notified() => fan_out.add(self.take()),
                Some((id, told)) = fan_out.sending.next() => fan_out.sent(id, told),
                _ = sweep.tick() => fan_out.forget_closed(),
            }
        }
    }
}

/// One session as the task sees it.
struct Listener {
    id: u64,
    peer: Peer<RoleServer>,
    /// What it has not been told yet.
    owed: Changes,
    /// A notification is on its way to it.
    busy: bool,
}

/// All sessions, and the notifications on their way.
#[derive(Default)]
struct FanOut {
    next: u64,
    listeners: Vec<Listener>,
    sending: FuturesUnordered<BoxFuture<'static, (u64, bool)>>,
}

impl FanOut {
    fn add(&mut self, peers: Vec<Peer<RoleServer>>) {
        for peer in peers {
            self.next += 1;
            self.listeners.push(Listener {
                id: self.next,
                peer,
                owed: Changes::default(),
                busy: false,
            });
        }
    }

    fn tell(&mut self, changes: Changes) {
        if !changes.any() {
            return;
        }
        for listener in &mut self.listeners {
            listener.owed = listener.owed.and(changes);
            if !listener.busy {
                self.sending.push(listener.send());
            }
        }
    }

    fn sent(&mut self, id: u64, told: bool) {
        let Ok(at) = self
            .listeners
            .binary_search_by_key(&id, |listener| listener.id)
        else {
            return;
        };
        if !told {
            self.listeners.remove(at);
            return;
        }
        let Some(listener) = self.listeners.get_mut(at) else {
            return;
        };
        listener.busy = false;
        if listener.owed.any() {
            self.sending.push(listener.send());
        }
    }

    fn forget_closed(&mut self) {
        self.listeners
            .retain(|listener| !listener.peer.is_transport_closed());
    }
}

impl Listener {
    fn send(&mut self) -> BoxFuture<'static, (u64, bool)> {
        self.busy = true;
        let owed = std::mem::take(&mut self.owed);
        let (id, peer) = (self.id, self.peer.clone());
        Box::pin(async move {
            let told = async {
                if owed.tools {
                    peer.notify_tool_list_changed().await?;
                }
                if owed.resources {
                    peer.notify_resource_list_changed().await?;
                }
                if owed.prompts {
                    peer.notify_prompt_list_changed().await?;
                }
                Ok::<_, rmcp::ServiceError>(())
            };
            (id, told.await.is_ok())
        })
    }
}

/// Serves one subscription until its client ends it, or the gateway stops.
pub async fn listen(shared: &Shared, context: &SubscriptionContext) {
    let _open = Open::new(shared);
    let accepted = context.accepted();
    let wants = Changes {
        tools: accepted.tools_list_changed == Some(true),
        resources: accepted.resources_list_changed == Some(true),
        prompts: accepted.prompts_list_changed == Some(true),
    };
    let mut catalog = shared.catalog.clone();
    let mut known = Arc::clone(&catalog.borrow_and_update());
    loop {
        tokio::select! {
            () = context.cancelled() => return,
            () = shared.stopping.cancelled() => return,
            changed = catalog.changed() => {
                if changed.is_err() {
                    return;
                }
            }
        }
        let now = Arc::clone(&catalog.borrow_and_update());
        let changes = now.changes_since(&known);
        known = now;
        let sink = context.sink();
        let told = async {
            if changes.tools && wants.tools {
                sink.notify_tool_list_changed().await?;
            }
            if changes.resources && wants.resources {
                sink.notify_resource_list_changed().await?;
            }
            if changes.prompts && wants.prompts {
                sink.notify_prompt_list_changed().await?;
            }
            Ok::<_, rmcp::service::SubscriptionSendError>(())
        };
        // A client that takes nothing holds only its own subscription, until it is disconnected.
        let told = tokio::select! {
            told = told => told,
            () = context.cancelled() => return,
            () = shared.stopping.cancelled() => return,
        };
        if told.is_err() {
            return;
        }
    }
}

/// Counts a subscription while it is open.
struct Open<'a>(&'a Shared);

impl<'a> Open<'a> {
    fn new(shared: &'a Shared) -> Self {
        shared.open_subscriptions.fetch_add(1, Ordering::Relaxed);
        shared.metrics.subscriptions.inc();
        Self(shared)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.open_subscriptions.fetch_sub(1, Ordering::Relaxed);
        self.0.metrics.subscriptions.dec();
    }
}
