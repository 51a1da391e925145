//! What the mesh costs beside the bare parts that it is made of, measured side by side in one run.
//!
//! `make bench` runs all; `make bench ONLY=call` runs the comparisons whose id begins so. Each figure
//! is the median of several rounds in which ours and bare alternate, so that both see the same
//! machine.
#![allow(
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "it prints tables, and a benchmark that meets the unexpected has failed"
)]

mod bare;
mod clients;
mod report;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use clients::Call;
use harness::load::{self, Figures};
use harness::mesh::{Mesh, Plan};
use harness::process::{self, Process};
use harness::{ports, wait};
use report::{Case, Report};
use serde_json::json;

const PAYLOAD: usize = 128;
const IN_FLIGHT: [usize; 3] = [1, 32, 256];

/// What was asked for.
struct Options {
    only: String,
    rounds: usize,
    time: Duration,
}

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    if let ["serve", kind, address] = words.as_slice() {
        return runtime.block_on(bare::serve(kind, address));
    }
    let options = options(&words)?;
    tokio::task::LocalSet::new().block_on(&runtime, bench(&options))
}

fn options(words: &[&str]) -> anyhow::Result<Options> {
    let mut options = Options {
        only: String::new(),
        rounds: 5,
        time: Duration::from_secs(1),
    };
    for pair in words.chunks(2) {
        match pair {
            ["--only", id] => options.only = (*id).to_owned(),
            ["--rounds", count] => options.rounds = count.parse().context("--rounds: a number")?,
            ["--seconds", time] => {
                options.time =
                    Duration::try_from_secs_f64(time.parse().context("--seconds: a number")?)?;
            }
            _ => bail!("{pair:?}: use --only ID, --rounds N (default 5), --seconds S (default 1)"),
        }
    }
    if options.rounds == 0 {
        bail!("--rounds: at least 1");
    }
    Ok(options)
}

/// One side of a comparison: the call and the processes that take part in it.
struct Side {
    call: Call,
    pids: Vec<u32>,
}

async fn bench(options: &Options) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut report = Report::default();
    let mesh = Plan::new()
        .quiet()
        .agent("node-a")
        .plugin("probe")
        .plugin_as("caller", &["probe"], &[("PROBE_NAME", "caller")])
        .start()
        .await;
    mesh.wait_state("probe", "active").await;
    mesh.wait_state("caller", "active").await;
    mesh.wait_tool("probe_echo").await;
    mesh.wait_tool("caller_load").await;
    Report::print_head();
    if "call.cross_node".starts_with(&options.only) || options.only.starts_with("call.cross_node") {
        cross_node(&mesh, folder.path(), options, &mut report).await?;
    }
    if "call.neighbour".starts_with(&options.only) {
        neighbour(&mesh, folder.path(), options, &mut report).await?;
    }
    if "mcp.tools_call".starts_with(&options.only) {
        tools_call(&mesh, folder.path(), options, &mut report).await?;
    }
    let target: PathBuf = process::binaries()
        .parent()
        .context("the target folder")?
        .to_owned();
    report.write(&target)
}

/// Starts one bare responder and waits until it answers.
async fn responder(kind: &str, folder: &Path) -> (Process, u16) {
    let port = ports::free();
    let address = format!("127.0.0.1:{port}");
    let program = process::binary("bench");
    let args = ["serve", kind, &address];
    let process = Process::start(&format!("bare-{kind}"), folder, &program, &args, &[]);
    wait::until("the responder listens", Duration::from_secs(10), || async {
        tokio::net::TcpStream::connect(&address).await.map(drop)
    })
    .await;
    (process, port)
}

/// The process id of a plugin, from its own tool.
async fn plugin_pid(mesh: &Mesh, plugin: &str) -> anyhow::Result<u32> {
    let answer = mesh.call_tool(&format!("{plugin}_pid"), json!({})).await?;
    let text = answer["result"]["content"][0]["text"].as_str();
    text.and_then(|text| text.parse().ok())
        .with_context(|| answer.to_string())
}

async fn compare(case: &Case<'_>, ours: &Side, bare: &Side, time: Duration, report: &mut Report) {
    let (mut our_runs, mut bare_runs) = (Vec::new(), Vec::new());
    for _ in 0..case.rounds {
        for (side, runs) in [(ours, &mut our_runs), (bare, &mut bare_runs)] {
            let call = side.call.clone();
            let figures = load::run(case.in_flight, time, &side.pids, move || call()).await;
            runs.push(figures);
        }
    }
    report.add(case, &load::median(&our_runs), &load::median(&bare_runs));
}

/// A call from this process through router, NATS, agent and plugin, beside each bare part.
async fn cross_node(
    mesh: &Mesh,
    folder: &Path,
    options: &Options,
    report: &mut Report,
) -> anyhow::Result<()> {
    let own = std::process::id();
    let payload = Bytes::from(vec![b'x'; PAYLOAD]);
    let nats_pid = mesh.nats.process.pid();
    let ours = Side {
        call: clients::mesh(&mesh.nats.url(), &mesh.coordinator_url(), payload.clone()).await?,
        pids: vec![
            own,
            nats_pid,
            mesh.agents[0].pid(),
            plugin_pid(mesh, "probe").await?,
        ],
    };
    let args = ["serve", "nats", &mesh.nats.url()];
    let nats_responder = Process::start("bare-nats", folder, &process::binary("bench"), &args, &[]);
    let nats_call = clients::nats(&mesh.nats.url(), payload.clone()).await?;
    wait::until(
        "the NATS responder answers",
        Duration::from_secs(10),
        || nats_call(),
    )
    .await;
    let (grpc_process, grpc_port) = responder("grpc", folder).await;
    let grpc_url = format!("http://127.0.0.1:{grpc_port}");
    let (http_process, http_port) = responder("http", folder).await;
    let http_url = format!("http://127.0.0.1:{http_port}/");
    let bare = [
        (
            "call.cross_node",
            Side {
                call: nats_call,
                pids: vec![own, nats_pid, nats_responder.pid()],
            },
        ),
        (
            "call.cross_node.vs_grpc",
            Side {
                call: clients::grpc_unary(&grpc_url, payload.clone()).await?,
                pids: vec![own, grpc_process.pid()],
            },
        ),
        (
            "call.cross_node.vs_http",
            Side {
                call: clients::http(&http_url, payload),
                pids: vec![own, http_process.pid()],
            },
        ),
    ];
    for (id, bare) in &bare {
        for in_flight in IN_FLIGHT {
            let case = Case {
                id,
                in_flight,
                payload: PAYLOAD,
                rounds: options.rounds,
            };
            compare(&case, &ours, bare, options.time, report).await;
        }
    }
    Ok(())
}

/// A plugin that calls a plugin of its own node, beside frames on a bare gRPC stream.
async fn neighbour(
    mesh: &Mesh,
    folder: &Path,
    options: &Options,
    report: &mut Report,
) -> anyhow::Result<()> {
    let (process, port) = responder("grpc", folder).await;
    let payload = Bytes::from(vec![b'x'; PAYLOAD]);
    let bare = Side {
        call: clients::grpc_stream(&format!("http://127.0.0.1:{port}"), payload).await?,
        pids: vec![std::process::id(), process.pid()],
    };
    let pids = [
        mesh.agents[0].pid(),
        plugin_pid(mesh, "probe").await?,
        plugin_pid(mesh, "caller").await?,
    ];
    for in_flight in IN_FLIGHT {
        let (mut our_runs, mut bare_runs) = (Vec::new(), Vec::new());
        for _ in 0..options.rounds {
            our_runs.push(run_in_caller(mesh, in_flight, options.time, &pids).await?);
            let call = bare.call.clone();
            bare_runs.push(load::run(in_flight, options.time, &bare.pids, move || call()).await);
        }
        let case = Case {
            id: "call.neighbour",
            in_flight,
            payload: PAYLOAD,
            rounds: options.rounds,
        };
        report.add(&case, &load::median(&our_runs), &load::median(&bare_runs));
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

/// MCP `tools/call` through the gateway to a plugin, beside a bare rmcp server with the same tool.
async fn tools_call(
    mesh: &Mesh,
    folder: &Path,
    options: &Options,
    report: &mut Report,
) -> anyhow::Result<()> {
    let (process, port) = responder("rmcp", folder).await;
    let text = "x".repeat(PAYLOAD);
    let own = std::process::id();
    let ours = Side {
        call: clients::mcp(&mesh.mcp_url(), "probe_echo", &text),
        pids: vec![
            own,
            mesh.gateway.pid(),
            mesh.nats.process.pid(),
            mesh.agents[0].pid(),
            plugin_pid(mesh, "probe").await?,
        ],
    };
    let bare = Side {
        call: clients::mcp(&format!("http://127.0.0.1:{port}/mcp"), "echo", &text),
        pids: vec![own, process.pid()],
    };
    for in_flight in IN_FLIGHT {
        let case = Case {
            id: "mcp.tools_call",
            in_flight,
            payload: PAYLOAD,
            rounds: options.rounds,
        };
        compare(&case, &ours, &bare, options.time, report).await;
    }
    Ok(())
}
