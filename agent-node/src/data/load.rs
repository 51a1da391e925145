//! How busy one instance is.

use std::time::Duration;

use bytes::Bytes;
use mesh_core::id::InstanceId;
use mesh_proto::control;

/// Counts of one instance since it attached.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Load {
    calls: u64,
    errors: u64,
    /// Calls that failed by the plugin's doing.
    failed: u64,
    shed: u64,
    /// Decaying average, in microseconds.
    latency_us: u64,
}

impl Load {
    /// A call was taken.
    pub(super) fn begun(&mut self) {
        self.calls += 1;
    }

    /// A call ended after so long.
    pub(super) fn ended(&mut self, took: Duration, well: bool) {
        if !well {
            // How soon it failed says nothing of how long its calls take.
            self.errors += 1;
            return;
        }
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX / 16);
        // A new value weighs an eighth: the average follows within some ten calls.
        self.latency_us = match self.latency_us {
            0 => took,
            before => before - before / 8 + took / 8,
        };
    }

    /// A call that ended has failed by the plugin's doing.
    pub(super) fn failed(&mut self) {
        self.failed += 1;
    }

    /// A call was shed.
    pub(super) fn shed(&mut self) {
        self.shed += 1;
    }

    /// How long calls take.
    pub(super) fn mean_latency(&self) -> Duration {
        Duration::from_micros(self.latency_us)
    }

    /// As it travels in a beacon; the process's use is filled in by who knows it.
    pub(super) fn report(&self, instance: InstanceId, in_flight: usize) -> control::InstanceLoad {
        control::InstanceLoad {
            instance: Bytes::copy_from_slice(instance.as_bytes()),
            in_flight: u32::try_from(in_flight).unwrap_or(u32::MAX),
            latency_us: self.latency_us,
            calls: self.calls,
            errors: self.errors,
            shed: self.shed,
            memory_bytes: 0,
            cpu_millis: 0,
            unresponsive: false,
            failed: self.failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_average_follows_the_calls() {
        let mut load = Load::default();
        load.ended(Duration::from_millis(8), true);
        assert_eq!(load.mean_latency(), Duration::from_millis(8));
        for _ in 0..60 {
            load.ended(Duration::from_millis(1), true);
        }
        let mean = load.mean_latency();
        assert!((900..1_100).contains(&mean.as_micros()), "{mean:?}");
        for _ in 0..60 {
            load.ended(Duration::ZERO, false);
        }
        assert_eq!((load.mean_latency(), load.errors), (mean, 60));
    }
}
