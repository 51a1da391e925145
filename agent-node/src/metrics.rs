//! What the agent counts: `plugmesh_agent_…`.

use mesh_runtime::Metrics;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

/// Upper bounds of the histogram of calls, in seconds.
const SECONDS: [f64; 10] = [
    0.000_1, 0.000_5, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 10.0,
];

/// The most plugins that get labels of their own. What attaches chooses its own name, so the number
/// must have a bound.
const MAX_PLUGINS: usize = 1_000;

/// The label of plugins beyond the bound.
const OTHERS: &str = "_others";

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PluginOutcome {
    plugin: String,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfPlugin {
    plugin: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfState {
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfReason {
    reason: &'static str,
}

type Histograms = Family<OfPlugin, Histogram, fn() -> Histogram>;

/// The agent's counters. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct AgentMetrics {
    calls: Family<PluginOutcome, Counter>,
    in_flight: Family<OfPlugin, Gauge>,
    seconds: Histograms,
    shed: Counter,
    plugins: Family<OfState, Gauge>,
    restarts: Family<OfPlugin, Counter>,
    streams: Gauge,
    refused: Family<OfReason, Counter>,
    labels: std::sync::Arc<std::sync::Mutex<std::collections::BTreeSet<String>>>,
}

/// The counters of one plugin that the hot path touches, looked up once.
#[derive(Debug, Clone)]
pub(crate) struct PluginMeters {
    plugin: String,
    calls: Family<PluginOutcome, Counter>,
    ok: Counter,
    in_flight: Gauge,
    seconds: Histogram,
}

impl PluginMeters {
    /// A call was taken.
    pub(crate) fn begun(&self) {
        self.in_flight.inc();
    }

    /// A call ended well (`None`) or with an error's code.
    pub(crate) fn ended(&self, outcome: Option<&'static str>, seconds: f64) {
        self.in_flight.dec();
        self.seconds.observe(seconds);
        self.count(outcome);
    }

    /// A call was refused before it began.
    pub(crate) fn refused(&self, outcome: &'static str) {
        self.count(Some(outcome));
    }

    fn count(&self, outcome: Option<&'static str>) {
        match outcome {
            None => self.ok.inc(),
            Some(outcome) => self
                .calls
                .get_or_create(&PluginOutcome {
                    plugin: self.plugin.clone(),
                    outcome,
                })
                .inc(),
        };
    }
}

impl AgentMetrics {
    /// Makes and registers them.
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let own = Self {
            calls: Family::default(),
            in_flight: Family::default(),
            seconds: Family::new_with_constructor(|| Histogram::new(SECONDS)),
            shed: Counter::default(),
            plugins: Family::default(),
            restarts: Family::default(),
            streams: Gauge::default(),
            refused: Family::default(),
            labels: std::sync::Arc::default(),
        };
        metrics.register(|registry| {
            let registry = registry.sub_registry_with_prefix("agent");
            let text =
                "Calls to plugins of this node, by plugin and outcome (ok or an error's code)";
            registry.register("calls", text, own.calls.clone());
            let text = "Calls that plugins of this node work on";
            registry.register("in_flight", text, own.in_flight.clone());
            let text = "Time from the arrival of a call to its end";
            registry.register("call_seconds", text, own.seconds.clone());
            let text = "Calls that were shed because a limit was reached";
            registry.register("shed", text, own.shed.clone());
            let text = "Instances of plugins on this node, by phase";
            registry.register("plugins", text, own.plugins.clone());
            let text = "Starts of plugins' processes after the first";
            registry.register("restarts", text, own.restarts.clone());
            let text = "Streams of plugins that are open";
            registry.register("attach_streams", text, own.streams.clone());
            let text = "Frames of plugins that were refused, by reason";
            registry.register("frames_refused", text, own.refused.clone());
        });
        own
    }

    /// The counters of one plugin.
    pub(crate) fn of_plugin(&self, plugin: &str) -> PluginMeters {
        let plugin = self.label(plugin);
        let of_plugin = OfPlugin {
            plugin: plugin.clone(),
        };
        let ok = PluginOutcome {
            plugin: plugin.clone(),
            outcome: "ok",
        };
        PluginMeters {
            plugin,
            calls: self.calls.clone(),
            ok: self.calls.get_or_create_owned(&ok),
            in_flight: self.in_flight.get_or_create_owned(&of_plugin),
            seconds: self.seconds.get_or_create_owned(&of_plugin),
        }
    }

    fn label(&self, plugin: &str) -> String {
        let labels = self.labels.lock();
        let mut labels = labels.unwrap_or_else(std::sync::PoisonError::into_inner);
        if labels.contains(plugin) {
            return plugin.to_owned();
        }
        if labels.len() >= MAX_PLUGINS {
            return OTHERS.to_owned();
        }
        labels.insert(plugin.to_owned());
        plugin.to_owned()
    }

    /// A call was shed.
    pub(crate) fn shed(&self) {
        self.shed.inc();
    }

    /// A stream was opened.
    pub(crate) fn stream_opened(&self) {
        self.streams.inc();
    }

    /// A stream was closed.
    pub(crate) fn stream_closed(&self) {
        self.streams.dec();
    }

    /// A frame was refused.
    pub(crate) fn frame_refused(&self, reason: &'static str) {
        self.refused.get_or_create(&OfReason { reason }).inc();
    }

    /// A plugin's process is started again.
    pub(crate) fn restarted(&self, plugin: &str) {
        let plugin = self.label(plugin);
        self.restarts.get_or_create(&OfPlugin { plugin }).inc();
    }

    /// How many instances are in each phase.
    pub(crate) fn plugins(&self, counts: &[(&'static str, i64)]) {
        for (state, count) in counts {
            self.plugins.get_or_create(&OfState { state }).set(*count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_are_those_of_the_documentation() {
        let metrics = Metrics::new();
        let own = AgentMetrics::new(&metrics);
        let time = own.of_plugin("time");
        time.begun();
        time.ended(None, 0.002);
        time.begun();
        time.ended(Some("plugin_failed"), 0.3);
        own.shed();
        own.restarted("time");
        own.stream_opened();
        own.frame_refused("malformed");
        own.plugins(&[("ready", 2)]);
        let text = metrics.render();
        for line in [
            "plugmesh_agent_calls_total{plugin=\"time\",outcome=\"ok\"} 1",
            "plugmesh_agent_calls_total{plugin=\"time\",outcome=\"plugin_failed\"} 1",
            "plugmesh_agent_in_flight{plugin=\"time\"} 0",
            "plugmesh_agent_call_seconds_count{plugin=\"time\"} 2",
            "plugmesh_agent_shed_total 1",
            "plugmesh_agent_restarts_total{plugin=\"time\"} 1",
            "plugmesh_agent_attach_streams 1",
            "plugmesh_agent_frames_refused_total{reason=\"malformed\"} 1",
            "plugmesh_agent_plugins{state=\"ready\"} 2",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
    }

    #[test]
    fn plugins_beyond_the_bound_share_one_label() {
        let own = AgentMetrics::new(&Metrics::new());
        for number in 0..MAX_PLUGINS {
            assert_eq!(own.label(&format!("p{number}")), format!("p{number}"));
        }
        assert_eq!(own.label("one-more"), OTHERS);
        assert_eq!(own.label("p0"), "p0");
    }
}
