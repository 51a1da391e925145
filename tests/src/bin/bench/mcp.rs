//! MCP `tools/call` through the gateway to a plugin, beside a bare rmcp server with the same tool.

use harness::mesh::Mesh;
use harness::ports;

use crate::clients;
use crate::side::{Bench, IN_FLIGHT, PAYLOAD, Side, Targets, listens, plugin_pid, serve};

pub async fn tools_call(bench: &mut Bench, mesh: &Mesh) -> anyhow::Result<()> {
    let id = "mcp.tools_call";
    if !bench.wants(id) {
        return Ok(());
    }
    let address = format!("127.0.0.1:{}", ports::free());
    let rmcp = serve(bench.folder.path(), &["rmcp", &address]);
    listens(&address).await;
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
        call: clients::mcp(&format!("http://{address}/mcp"), "echo", &text),
        pids: vec![own, rmcp.pid()],
    };
    for in_flight in IN_FLIGHT {
        bench
            .compare(id, in_flight, &ours, &bare, Targets::default())
            .await;
    }
    Ok(())
}
