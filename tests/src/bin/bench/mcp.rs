//! MCP `tools/call` through the gateway to a plugin, beside a bare rmcp server with the same tool.

use harness::mesh::Mesh;
use harness::ports;

use crate::clients;
use crate::parts::{listens, serve};
use crate::side::{Bench, IN_FLIGHT, PAYLOAD, Side, Targets, plugin_pid};

pub async fn tools_call(bench: &mut Bench, mesh: &Mesh) -> anyhow::Result<()> {
    let id = "mcp.tools_call";
    if !bench.wants("mcp") {
        return Ok(());
    }
    let address = format!("127.0.0.1:{}", ports::free());
    let rmcp = serve(bench.folder.path(), &["rmcp", &address]);
    listens(&address).await;
    let text = "x".repeat(PAYLOAD);
    let own = std::process::id();
    let ours = Side {
        call: clients::mcp_echo(&mesh.mcp_url(), "probe_echo", &text),
        pids: vec![
            own,
            mesh.gateway.pid(),
            mesh.nats.process.pid(),
            mesh.agents[0].pid(),
            plugin_pid(mesh, "probe").await?,
        ],
    };
    let bare = Side {
        call: clients::mcp_echo(&format!("http://{address}/mcp"), "echo", &text),
        pids: vec![own, rmcp.pid()],
    };
    for in_flight in IN_FLIGHT {
        if bench.wants(id) {
            bench
                .compare(id, in_flight, &ours, &bare, Targets::default())
                .await;
        }
    }
    // Once more with the processor time of the two servers alone.
    let ours = Side {
        call: ours.call,
        pids: vec![mesh.gateway.pid()],
    };
    let bare = Side {
        call: bare.call,
        pids: vec![rmcp.pid()],
    };
    let id = "mcp.gateway_cpu";
    for in_flight in [1, 32] {
        if bench.wants(id) {
            bench
                .compare(id, in_flight, &ours, &bare, Targets::default())
                .await;
        }
    }
    Ok(())
}
