//! Whether a plugin is well, hung or busy.
//!
//! Any frame is a sign of life, so a busy plugin whose calls make progress is never asked. One that
//! has been silent for a whole interval is asked, and counts as hung when it stays silent over
//! several intervals.

use mesh_proto::plugin::{Health, HealthStatus};

use super::limits::MAX_MISSED_CHECKS;

/// A change of a plugin's health.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum HealthChange {
    /// It is well again.
    Healthy,
    /// It is hung, or says itself that it is not well.
    Unhealthy {
        /// Why, for a person.
        reason: String,
    },
}

/// What a tick asks for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Tick {
    /// Send a health check.
    pub(crate) ask: bool,
    /// The plugin's health changed.
    pub(crate) change: Option<HealthChange>,
}

/// Watches one plugin.
#[derive(Debug, Default)]
pub(crate) struct HealthWatch {
    /// Frames came since the last tick.
    heard: bool,
    /// Checks whose answers have not come.
    asked: Vec<u64>,
    /// A check was sent, and nothing at all came since.
    waiting: bool,
    /// Ticks in a row at which a check was unanswered.
    missed: u32,
    /// What the plugin says of itself; `None`: well.
    says: Option<String>,
    /// What was told last; `None`: well.
    told: Option<String>,
}

impl HealthWatch {
    /// Checks whose late answers are still known.
    const REMEMBERED: usize = 8;

    /// A frame came. Gives a change when the plugin had counted as hung.
    pub(crate) fn heard(&mut self) -> Option<HealthChange> {
        self.heard = true;
        self.waiting = false;
        if self.missed == 0 {
            return None;
        }
        self.missed = 0;
        self.change(None)
    }

    /// Called once per interval with the calls that the plugin works on.
    pub(crate) fn tick(&mut self, in_flight: usize) -> Tick {
        if std::mem::take(&mut self.heard) {
            return Tick::default();
        }
        if self.waiting {
            self.missed = self.missed.saturating_add(1);
        }
        let hung = (self.missed >= MAX_MISSED_CHECKS).then(|| {
            format!(
                "hung: no frame came and {} health checks in a row were not answered ({in_flight} \
                 calls in flight)",
                self.missed
            )
        });
        Tick {
            // A plugin that reads nothing would only gather them.
            ask: self.missed < MAX_MISSED_CHECKS,
            change: hung
                .filter(|_| self.missed == MAX_MISSED_CHECKS)
                .and_then(|reason| self.change(Some(reason))),
        }
    }

    /// A check was sent.
    pub(crate) fn asked(&mut self, id: u64) {
        self.waiting = true;
        if self.asked.len() >= Self::REMEMBERED {
            self.asked.remove(0);
        }
        self.asked.push(id);
    }

    /// Whether an id is that of a check; it is answered now.
    pub(crate) fn answered(&mut self, id: u64) -> bool {
        let before = self.asked.len();
        self.asked.retain(|asked| *asked != id);
        self.asked.len() < before
    }

    /// The plugin says how it is.
    pub(crate) fn says(&mut self, health: &Health) -> Option<HealthChange> {
        let text = |word: &str| {
            if health.message.is_empty() {
                format!("reports that it is {word}")
            } else {
                format!("reports that it is {word}: {}", health.message)
            }
        };
        self.says = match health.status() {
            HealthStatus::Unspecified | HealthStatus::Healthy => None,
            HealthStatus::Degraded => Some(text("degraded")),
            HealthStatus::Unhealthy => Some(text("unhealthy")),
        };
        self.change(None)
    }

    /// What is to be told, if it is not what was told last.
    fn change(&mut self, hung: Option<String>) -> Option<HealthChange> {
        let now = hung.or_else(|| self.says.clone());
        if now == self.told {
            return None;
        }
        self.told.clone_from(&now);
        Some(match now {
            Some(reason) => HealthChange::Unhealthy { reason },
            None => HealthChange::Healthy,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn silent_ticks(watch: &mut HealthWatch, ticks: u64) -> Vec<Tick> {
        (0..ticks)
            .map(|number| {
                let tick = watch.tick(1);
                if tick.ask {
                    watch.asked(number * 2);
                }
                tick
            })
            .collect()
    }

    #[test]
    fn a_plugin_whose_calls_make_progress_is_busy_and_not_asked() {
        let mut watch = HealthWatch::default();
        for _ in 0..20 {
            assert_eq!(watch.heard(), None);
            assert_eq!(watch.tick(5), Tick::default());
        }
    }

    #[test]
    fn a_plugin_that_leaves_three_checks_unanswered_is_hung_until_it_is_heard() {
        let mut watch = HealthWatch::default();
        let ticks = silent_ticks(&mut watch, 6);
        assert_eq!(
            ticks.iter().map(|tick| tick.ask).collect::<Vec<_>>(),
            [true, true, true, false, false, false]
        );
        let changes: Vec<_> = ticks
            .iter()
            .filter_map(|tick| tick.change.as_ref())
            .collect();
        assert!(
            matches!(changes.as_slice(), [HealthChange::Unhealthy { reason }]
                if reason.starts_with("hung: ") && reason.contains("1 calls in flight")),
            "{changes:?}"
        );
        assert_eq!(watch.heard(), Some(HealthChange::Healthy));
        assert_eq!(watch.tick(0).change, None);
    }

    #[test]
    fn what_a_plugin_says_of_itself_is_told_once() {
        let mut watch = HealthWatch::default();
        let sick = Health {
            status: HealthStatus::Degraded.into(),
            message: "the disk is full".to_owned(),
        };
        assert_eq!(
            watch.says(&sick),
            Some(HealthChange::Unhealthy {
                reason: "reports that it is degraded: the disk is full".to_owned()
            })
        );
        assert_eq!(watch.says(&sick), None);
        assert_eq!(watch.says(&Health::default()), Some(HealthChange::Healthy));
    }

    #[test]
    fn an_answer_names_its_check() {
        let mut watch = HealthWatch::default();
        watch.asked(8);
        assert!(!watch.answered(6));
        assert!(watch.answered(8));
        assert!(!watch.answered(8));
    }
}
