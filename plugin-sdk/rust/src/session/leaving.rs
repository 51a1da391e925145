//! How a plugin leaves: it asks its host, or is told; ends what runs; says so.

use std::time::Duration;

use futures::stream::StreamExt;
use tokio::time::Instant;

use super::{Ended, Session};
use crate::wire::{PluginBody, frame, plugin};

/// How long the host may take to answer a wish to leave. Until then calls are still taken, so that none
/// is refused that was on its way.
const PATIENCE: Duration = Duration::from_secs(2);
/// Time for running calls when the host names none.
const GRACE: Duration = Duration::from_secs(30);
/// Time for the host to hear the last word and to end the session.
const FAREWELL: Duration = Duration::from_secs(1);

/// Where the plugin stands on its way out.
pub(super) enum Leaving {
    /// It stays.
    No,
    /// It has asked for it.
    Asked {
        /// When it goes without the host's leave.
        until: Instant,
    },
    /// It takes no calls and waits for those that run.
    Draining {
        /// When it goes whatever still runs.
        until: Instant,
        reattach: bool,
    },
    /// It waits no longer.
    Now { reattach: bool },
}

impl Leaving {
    pub(super) fn may_ask(&self) -> bool {
        matches!(self, Self::No)
    }

    pub(super) fn takes_calls(&self) -> bool {
        matches!(self, Self::No | Self::Asked { .. })
    }

    /// Waits until patience with the host or with running calls is at its end.
    pub(super) async fn timeout(&self) {
        match self {
            Self::Asked { until } | Self::Draining { until, .. } => {
                tokio::time::sleep_until(*until).await;
            }
            Self::No | Self::Now { .. } => std::future::pending().await,
        }
    }

    pub(super) fn time_is_up(&mut self) {
        *self = match self {
            Self::Asked { .. } => Self::Draining {
                until: Instant::now() + GRACE,
                reattach: false,
            },
            Self::Draining { reattach, .. } => Self::Now {
                reattach: *reattach,
            },
            Self::No | Self::Now { .. } => return,
        };
    }
}

impl Session<'_> {
    /// The user wants the plugin to stop.
    pub(super) fn ask_to_leave(&mut self, reason: &str) {
        self.leaving = Leaving::Asked {
            until: Instant::now() + PATIENCE,
        };
        let request = plugin::DrainRequest {
            reason: reason.to_owned(),
        };
        self.reply(frame(0, PluginBody::DrainRequest(request)));
    }

    /// The host wants the plugin to leave.
    pub(super) fn on_drain(&mut self, drain: &plugin::Drain) {
        let grace = match drain.grace_ms {
            0 => GRACE,
            millis => Duration::from_millis(millis.into()),
        };
        // Who asked to stop does not come back.
        let reattach = drain.reattach && matches!(self.leaving, Leaving::No);
        self.leaving = Leaving::Draining {
            until: Instant::now() + grace,
            reattach,
        };
    }

    /// Ends the session when nothing runs any more.
    pub(super) async fn left(&mut self) -> Option<Ended> {
        let reattach = match self.leaving {
            Leaving::Now { reattach } => reattach,
            Leaving::Draining { reattach, .. } if self.is_idle() => reattach,
            _ => return None,
        };
        self.running.clear();
        let drained = frame(0, PluginBody::Drained(plugin::Drained {}));
        let (attachment, inbound) = (&self.attachment, &mut self.inbound);
        let farewell = async {
            if attachment.send(drained).await.is_ok() {
                // What is still on its way belongs to calls that have ended.
                while let Some(Ok(_)) = inbound.next().await {}
            }
        };
        // A host that takes nothing keeps nobody.
        let _ = tokio::time::timeout(FAREWELL, farewell).await;
        Some(if reattach {
            Ended::Reattach
        } else {
            Ended::Stopped
        })
    }

    fn is_idle(&self) -> bool {
        self.running.is_empty() && self.assemblies.is_empty() && self.outbox.is_empty()
    }
}
