//! Payloads of growing size, echoed: both directions carry them.

use bytes::Bytes;
use harness::load;
use harness::mesh::Mesh;

use crate::caller::Caller;
use crate::parts::{Composition, Grpc, answers};
use crate::report::Figure;
use crate::side::{Bench, Side, plugin_pid};
use crate::{bare, clients};

/// Bytes, how to call them, and how many calls are in flight.
const SIZES: [(usize, &str, usize); 4] = [
    (1 << 10, "1 KiB", 32),
    (64 << 10, "64 KiB", 16),
    (1 << 20, "1 MiB", 4),
    (16 << 20, "16 MiB", 2),
];

pub async fn echo(bench: &mut Bench, mesh: &Mesh) -> anyhow::Result<()> {
    if !bench.wants("payload") {
        return Ok(());
    }
    let folder = bench.folder.path().to_owned();
    let url = mesh.nats.url();
    let own = std::process::id();
    let composition = Composition::start(&folder, &url, bare::COMPOSED[0], 1).await;
    let grpc = Grpc::start(&folder).await;
    let caller = Caller::connect(mesh).await?;
    let probe = plugin_pid(mesh, "probe").await?;
    for (bytes, size, in_flight) in SIZES {
        let payload = Bytes::from(vec![b'x'; bytes]);
        let ours = Side {
            call: caller.echo("probe", payload.clone())?,
            pids: vec![own, mesh.nats.process.pid(), mesh.agents[0].pid(), probe],
        };
        let composition = Side {
            call: clients::nats(&url, &bare::COMPOSED[..1], payload.clone()).await?,
            pids: composition.pids(mesh),
        };
        answers(&composition.call).await;
        let grpc = Side {
            call: clients::grpc_unary(&grpc.address, payload).await?,
            pids: vec![own, grpc.process.pid()],
        };
        let case = format!("{size}, {in_flight} in flight");
        for (id, bare) in [
            ("payload.vs_composition", &composition),
            ("payload.vs_grpc", &grpc),
        ] {
            if !bench.wants(id) {
                continue;
            }
            let (ours, bare) = bench.turns(in_flight, &ours, bare).await;
            let (ours, bare) = (load::median(&ours), load::median(&bare));
            let megabytes = |per_second: f64| per_second * bytes as f64 / 1e6;
            bench.report.add(
                id,
                &case,
                [
                    Figure::beside("p50", "µs", ours.p50_us, bare.p50_us),
                    Figure::beside("throughput", "calls/s", ours.per_second, bare.per_second),
                    Figure::beside(
                        "each way",
                        "MB/s",
                        megabytes(ours.per_second),
                        megabytes(bare.per_second),
                    ),
                    Figure::beside("CPU per call", "µs", ours.cpu_us, bare.cpu_us),
                ],
            );
        }
    }
    Ok(())
}
