//! Small calls: across nodes and to a neighbour.

use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use harness::load::Figures;
use harness::mesh::Mesh;
use harness::ports;
use serde_json::json;

use crate::caller::Caller;
use crate::parts::{Composition, Grpc, answers, listens, serve};
use crate::report::Target;
use crate::side::{Bench, IN_FLIGHT, PAYLOAD, Side, Targets, plugin_pid};
use crate::{bare, clients};

fn payload() -> Bytes {
    Bytes::from(vec![b'x'; PAYLOAD])
}

/// A call from this process through router, NATS, agent and plugin, beside each bare part.
pub async fn cross_node(bench: &mut Bench, mesh: &Mesh) -> anyhow::Result<()> {
    if !bench.wants("call.cross_node") {
        return Ok(());
    }
    let own = std::process::id();
    let nats_pid = mesh.nats.process.pid();
    let url = mesh.nats.url();
    let ours = Side {
        call: Caller::connect(mesh).await?.echo("probe", payload())?,
        pids: vec![
            own,
            nats_pid,
            mesh.agents[0].pid(),
            plugin_pid(mesh, "probe").await?,
        ],
    };
    let folder = bench.folder.path().to_owned();

    if bench.wants("call.cross_node.vs_composition") {
        let parts = Composition::start(&folder, &url, bare::COMPOSED[0], 1).await;
        let composition = Side {
            call: clients::nats(&url, &bare::COMPOSED[..1], payload()).await?,
            pids: parts.pids(mesh),
        };
        answers(&composition.call).await;
        for in_flight in IN_FLIGHT {
            let alone = in_flight == 1;
            let targets = Targets {
                p50: alone.then_some(Target::RatioAtMost(1.15)),
                throughput: (!alone).then_some(Target::RatioAtLeast(0.8)),
                cpu: Some(Target::RatioAtMost(1.3)),
            };
            let id = "call.cross_node.vs_composition";
            bench
                .compare(id, in_flight, &ours, &composition, targets)
                .await;
        }
    }

    let nats = serve(&folder, &["nats", &url]);
    let grpc = Grpc::start_tcp(&folder).await;
    let http_address = format!("127.0.0.1:{}", ports::free());
    let http = serve(&folder, &["http", &http_address]);
    listens(&http_address).await;
    let nats = Side {
        call: clients::nats(&url, &bare::ECHO, payload()).await?,
        pids: vec![own, nats_pid, nats.pid()],
    };
    answers(&nats.call).await;
    let grpc = Side {
        call: clients::grpc_unary(&grpc.address, payload()).await?,
        pids: vec![own, grpc.process.pid()],
    };
    let http = Side {
        call: clients::http(&format!("http://{http_address}/"), payload()),
        pids: vec![own, http.pid()],
    };
    for (id, bare) in [
        ("call.cross_node.vs_nats", &nats),
        ("call.cross_node.vs_grpc", &grpc),
        ("call.cross_node.vs_http", &http),
    ] {
        for in_flight in IN_FLIGHT {
            if bench.wants(id) {
                bench
                    .compare(id, in_flight, &ours, bare, Targets::default())
                    .await;
            }
        }
    }
    Ok(())
}

/// A plugin that calls a plugin of its own node, beside frames on a bare gRPC stream.
pub async fn neighbour(bench: &mut Bench, mesh: &Mesh) -> anyhow::Result<()> {
    let id = "call.neighbour";
    if !bench.wants(id) {
        return Ok(());
    }
    let folder = bench.folder.path().to_owned();
    let echo = Grpc::start(&folder).await;
    let bare = Side {
        call: clients::grpc_stream(&echo.address, payload()).await?,
        pids: vec![std::process::id(), echo.process.pid()],
    };
    let pids = [
        mesh.agents[0].pid(),
        plugin_pid(mesh, "probe").await?,
        plugin_pid(mesh, "caller").await?,
    ];
    for in_flight in IN_FLIGHT {
        let (mut our_runs, mut bare_runs) = (Vec::new(), Vec::new());
        for _ in 0..bench.rounds {
            our_runs.push(run_in_caller(mesh, in_flight, bench.time, &pids).await?);
            bare_runs.push(bare.run(in_flight, bench.time).await);
        }
        let case = format!("{in_flight} in flight");
        bench.calls(id, &case, &our_runs, &bare_runs, Targets::default());
    }
    Ok(())
}

/// The plugin `caller` makes the calls and tells what it saw.
async fn run_in_caller(
    mesh: &Mesh,
    in_flight: usize,
    time: Duration,
    pids: &[u32],
) -> anyhow::Result<Figures> {
    let millis = u64::try_from(time.as_millis())?;
    let arguments = json!({
        "plugin": "probe", "in_flight": in_flight, "ms": millis, "bytes": PAYLOAD, "pids": pids,
    });
    let answer = mesh.call_tool("caller_load", arguments).await?;
    let figures = answer["result"]["structuredContent"].clone();
    serde_json::from_value(figures).with_context(|| answer.to_string())
}
