//! What is said once the mesh is up: what runs where, and what to do with it.

use serde_json::{Value, json};

use super::console::Console;
use super::mesh::Mesh;
use super::plan::{Plan, reached};
use crate::args::{DEFAULT_COORDINATOR, DEFAULT_GATEWAY};
use crate::exit::Failure;
use crate::output;
use crate::view::PluginView;

/// Says it: for people or as one line of JSON.
///
/// # Errors
/// When stdout, which a program reads, can't be written.
pub fn show(
    console: Console,
    plan: &Plan,
    mesh: &Mesh<'_>,
    plugins: &[PluginView],
) -> Result<(), Failure> {
    if console.is_json() {
        return console.json_line(&state(plan, mesh, plugins));
    }
    console.say(table(plan, mesh, plugins));
    console.say(hints(plan));
    Ok(())
}

/// All addresses and process ids, for programs.
pub fn state(plan: &Plan, mesh: &Mesh<'_>, plugins: &[PluginView]) -> Value {
    let agents: Vec<Value> = plan
        .agents
        .iter()
        .map(|agent| {
            json!({
                "node": agent.name,
                "pid": mesh.pid(&agent.name),
                "attach_tcp": format!("http://{}", reached(agent.attach_tcp)),
                "attach_unix": format!("unix://{}", agent.attach_unix.display()),
                "admin": format!("http://{}", agent.admin),
                "log": plan.log(&agent.name),
            })
        })
        .collect();
    let plugins: Vec<Value> = plugins
        .iter()
        .map(|plugin| {
            json!({
                "name": plugin.name,
                "version": plugin.version,
                "state": plugin.state,
                "reason": plugin.reason,
                "nodes": plugin.nodes(),
            })
        })
        .collect();
    json!({
        "ready": true,
        "pid": std::process::id(),
        "data": plan.data,
        "mcp": plan.mcp(),
        "nats": {
            "url": format!("nats://{}", plan.nats),
            "version": plan.server.version,
            "pid": mesh.pid("nats-server"),
            "log": plan.log("nats-server"),
        },
        "coordinator": {
            "url": plan.coordinator_url(),
            "admin": format!("http://{}", plan.coordinator_admin),
            "pid": mesh.pid("coordinator"),
            "log": plan.log("coordinator"),
        },
        "agents": agents,
        "gateway": {
            "url": format!("http://{}", reached(plan.gateway)),
            "admin": format!("http://{}", reached(plan.gateway)),
            "pid": mesh.pid("gateway"),
            "log": plan.log("gateway"),
        },
        "plugins": plugins,
    })
}

fn table(plan: &Plan, mesh: &Mesh<'_>, plugins: &[PluginView]) -> String {
    let pid = |name: &str| {
        mesh.pid(name)
            .map_or_else(|| "-".to_owned(), |pid| pid.to_string())
    };
    let row = |name: &str, what: String| [name.to_owned(), what, pid(name)];
    let mut rows = vec![
        row("nats-server", format!("nats://{}", plan.nats)),
        row("coordinator", plan.coordinator_url()),
    ];
    for agent in &plan.agents {
        rows.push(row(
            &agent.name,
            format!("http://{}", reached(agent.attach_tcp)),
        ));
    }
    rows.push(row("gateway", plan.mcp()));
    let processes = output::table(["PROCESS", "ADDRESS", "PID"], rows);
    let rows = plugins.iter().map(|plugin| {
        [
            format!("{} {}", plugin.name, plugin.version),
            plugin.nodes().join(","),
            plugin.state.clone(),
            if plugin.is_active() {
                plugin.provides()
            } else {
                plugin.reason.clone()
            },
        ]
    });
    if plugins.is_empty() {
        return format!("\n{processes}\n");
    }
    let plugins = output::table(["PLUGIN", "NODE", "STATE", "PROVIDES"], rows);
    format!("\n{processes}\n\n{plugins}\n")
}

fn hints(plan: &Plan) -> String {
    let mcp = plan.mcp();
    let curl = gateway::example_curl(plan.gateway);
    let client = json!({ "mcpServers": { "plugmesh": { "type": "http", "url": mcp } } });
    let socket = plan
        .agents
        .first()
        .map(|agent| format!("unix://{}", agent.attach_unix.display()))
        .unwrap_or_default();
    let logs = plan.data.join("logs");
    let coordinator = plan.coordinator_url();
    let elsewhere = coordinator != DEFAULT_COORDINATOR || mcp != DEFAULT_GATEWAY;
    let commands = if elsewhere {
        format!(
            "Let commands such as `plugmesh plugins` ask this mesh:\n  \
             export PLUGMESH_COORDINATOR={coordinator} PLUGMESH_GATEWAY={mcp}\n\n"
        )
    } else {
        String::new()
    };
    format!(
        "MCP address: {mcp}\n\n\
         {commands}Call a tool:\n  {curl}\n\n\
         Connect an MCP client by its configuration:\n  {client}\n\
         or from Python (pip install mcp):\n  async with mcp.Client(\"{mcp}\") as client: \
         print(await client.call_tool(\"calculator_add\", {{\"a\": 20, \"b\": 22}}))\n\n\
         Attach a plugin of your own (`plugmesh new NAME` makes one):\n  \
         PLUGMESH_AGENT={socket} cargo run\n\n\
         Logs are in {}; Ctrl-C stops everything.",
        logs.display()
    )
}
