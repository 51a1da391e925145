//! The task behind a router.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use mesh_core::id::{Generation, InstanceId, NodeId};
use mesh_core::table::Table;
use mesh_proto::control::LoadBeacon;
use tokio::time::{Instant, sleep};

use crate::flight::Report;
use crate::router::{BEACON_LIFE, Inner, NodeLoad};

/// How often silent nodes are looked for.
const LOOK: Duration = Duration::from_millis(250);

/// Time between the beacons of agents that do not say it.
const UNSAID: Duration = Duration::from_secs(1);

/// The task behind a [`crate::Router`]: ends calls to instances that are gone, listens to loads.
#[derive(Debug)]
pub struct RouterDriver {
    inner: Arc<Inner>,
}

impl RouterDriver {
    pub(crate) fn new(inner: Arc<Inner>) -> Self {
        Self { inner }
    }

    /// Runs until `stop` ends. Without it calls go on, but those to vanished instances last until
    /// their deadline.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let inner = &self.inner;
        let work =
            async { tokio::join!(follow_table(inner), hear_loads(inner), watch_silence(inner)) };
        tokio::select! {
            biased;
            () = stop => {}
            _ = work => {}
        }
    }
}

/// Ends calls to instances that the table no longer has, or has at another generation of their
/// node: the coordinator has evicted them, or their agent has told that they are gone.
async fn follow_table(inner: &Inner) {
    let mut tables = inner.table.clone();
    loop {
        let table = tables.borrow_and_update().clone();
        inner
            .bus
            .end_calls(|node, generation, instance| is_gone(&table, node, generation, instance));
        inner.flights.keep(&table);
        if tables.changed().await.is_err() {
            // No table will come any more; calls go on with the last one.
            return;
        }
    }
}

/// While the node is there its agent ends the calls of a vanished instance, and knows which of them
/// never reached it.
fn is_gone(table: &Table, node: &NodeId, generation: Generation, instance: InstanceId) -> bool {
    let Some(route) = table.instance(instance) else {
        let known = table.node(node).map(|node| node.generation);
        return known != Some(generation);
    };
    let newer = |known: Generation| known > generation;
    newer(route.generation) || table.node(node).is_some_and(|node| newer(node.generation))
}

/// Listens to load beacons.
async fn hear_loads(inner: &Inner) {
    loop {
        let Ok(mut loads) = inner.bus.loads().await else {
            return;
        };
        while let Some(beacon) = loads.next().await {
            heard(inner, beacon);
        }
        sleep(Duration::from_secs(1)).await;
    }
}

/// Notes which nodes have fallen silent, so that no call has to look at a clock.
async fn watch_silence(inner: &Inner) {
    loop {
        sleep(LOOK).await;
        inner.flights.note_silence(Instant::now());
    }
}

fn heard(inner: &Inner, beacon: LoadBeacon) {
    let mut loads = inner.loads();
    let older = |known: &NodeLoad| known.beacon.generation > beacon.generation;
    if loads.get(&beacon.node).is_some_and(older) {
        // A ghost.
        return;
    }
    let interval = match beacon.interval_ms {
        0 => UNSAID,
        ms => Duration::from_millis(ms.into()),
    };
    for load in &beacon.instances {
        if let Ok(instance) = InstanceId::from_bytes(&load.instance) {
            let report = Report {
                in_flight: load.in_flight,
                latency: Duration::from_micros(load.latency_us),
                calls: load.calls,
                unresponsive: load.unresponsive,
                interval,
            };
            inner.flights.heard(instance, report);
        }
    }
    loads.retain(|_, load| load.heard.elapsed() < BEACON_LIFE);
    let heard = Instant::now();
    loads.insert(beacon.node.clone(), NodeLoad { beacon, heard });
}
