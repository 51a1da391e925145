//! What a router knows of its own calls: per plugin, and what it did about failures.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use foldhash::fast::RandomState;
use mesh_bus::Reading;
use mesh_core::id::PluginName;

/// What this router's calls to one plugin came to, since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PluginStats {
    /// Calls that ended; one that was sent again counts once, for the plugin that it ended at.
    pub calls: u64,
    /// Calls that ended with an error.
    pub errors: u64,
    /// Mean time from begin to end of all calls.
    pub mean_latency: Duration,
}

/// What a router did about failures, since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Remedies {
    pub retries: u64,
    pub refused_retries: u64,
    pub ejections: u64,
    pub returns: u64,
}

impl Remedies {
    /// For whoever shows metrics: name, what it counts, value.
    pub fn all(self) -> Vec<Reading> {
        vec![
            (
                "retries",
                "Calls sent again after they failed",
                self.retries,
            ),
            (
                "retries_over_budget",
                "Calls not sent again because the budget of retries was spent",
                self.refused_retries,
            ),
            (
                "outlier_ejections",
                "Instances left out because they failed calls",
                self.ejections,
            ),
            (
                "outlier_returns",
                "Instances that were left out and came back, as a call to them went well",
                self.returns,
            ),
        ]
    }
}

#[derive(Debug, Default)]
struct Sum {
    calls: u64,
    errors: u64,
    time: Duration,
}

#[derive(Debug, Default)]
pub(crate) struct Stats(Mutex<HashMap<PluginName, Sum, RandomState>>);

impl Stats {
    fn lock(&self) -> MutexGuard<'_, HashMap<PluginName, Sum, RandomState>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a call that ended.
    pub fn ended(&self, plugin: &PluginName, ok: bool, took: Duration) {
        let mut all = self.lock();
        let add = |sum: &mut Sum| {
            sum.calls += 1;
            sum.errors += u64::from(!ok);
            sum.time += took;
        };
        // Without a copy of the name but for the first call.
        match all.get_mut(plugin) {
            Some(sum) => add(sum),
            None => add(all.entry(plugin.clone()).or_default()),
        }
    }

    pub fn all(&self) -> BTreeMap<PluginName, PluginStats> {
        self.lock()
            .iter()
            .map(|(plugin, sum)| {
                let calls = u32::try_from(sum.calls).unwrap_or(u32::MAX).max(1);
                let stats = PluginStats {
                    calls: sum.calls,
                    errors: sum.errors,
                    mean_latency: sum.time / calls,
                };
                (plugin.clone(), stats)
            })
            .collect()
    }
}
