//! Numbers that somebody else counts, read whenever the metrics are shown.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// A number as it is now: its name, what it says, its value.
pub type Reading = (&'static str, &'static str, u64);

type Read = Box<dyn Fn() -> Vec<Reading> + Send + Sync>;

/// What the numbers of a group are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Counters,
    Gauges,
}

/// A group of numbers with one or more sources; those of equal name are added up.
#[derive(Clone)]
pub(super) struct Group {
    kind: Kind,
    sources: Arc<Mutex<Vec<Read>>>,
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group")
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

impl Group {
    pub(super) fn new(kind: Kind) -> Self {
        Self {
            kind,
            sources: Arc::default(),
        }
    }

    pub(super) fn add(&self, read: Read) {
        self.sources
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(read);
    }

    fn sums(&self) -> BTreeMap<&'static str, (&'static str, u64)> {
        let sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        let mut sums = BTreeMap::new();
        for (name, help, value) in sources.iter().flat_map(|read| read()) {
            sums.entry(name).or_insert((help, 0)).1 += value;
        }
        sums
    }
}

impl Collector for Group {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for (name, (help, value)) in self.sums() {
            // As the registry does.
            let help = format!("{help}.");
            match self.kind {
                Kind::Counters => {
                    let counter = ConstCounter::new(value);
                    let kind = counter.metric_type();
                    counter.encode(encoder.encode_descriptor(name, &help, None, kind)?)?;
                }
                Kind::Gauges => {
                    let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
                    let kind = gauge.metric_type();
                    gauge.encode(encoder.encode_descriptor(name, &help, None, kind)?)?;
                }
            }
        }
        Ok(())
    }
}
