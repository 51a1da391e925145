//! What clients are told about the gateway's own tools.

use rmcp::model::{JsonObject, Tool, ToolAnnotations};
use serde_json::{Value, json};

/// The tools. Their names are reserved.
#[must_use]
pub fn definitions() -> Vec<Tool> {
    let capability = json!({
        "type": "string",
        "description": "Only plugins that provide this: a kind (tool, resource, resource_template, \
            prompt, service, …; the plural is understood, too) or one capability such as tool:add",
    });
    let status = json!({
        "type": "string",
        "description": "Only plugins with an instance in this state: discovered, loaded, \
            initialized, active, blocked, degraded, draining, unloaded or failed (started, stopped \
            and error are understood, too)",
    });
    let name = json!({ "type": "string", "description": "The plugin's name" });
    let reason = json!({ "type": "string", "description": "Why; kept, and shown to others" });
    let detailed = json!({
        "type": "boolean",
        "description": "Also every instance with its node, load and counts",
    });
    let look = |title| {
        ToolAnnotations::with_title(title)
            .read_only(true)
            .destructive(false)
            .idempotent(true)
            .open_world(false)
    };
    let change = |title, destructive| {
        ToolAnnotations::with_title(title)
            .read_only(false)
            .destructive(destructive)
            .idempotent(true)
            .open_world(false)
    };
    vec![
        tool(
            "list_plugins",
            "Lists the plugins of the mesh with their versions, states and capabilities",
            &json!({ "capability": capability, "status": status }),
            &[],
            look("List plugins"),
        ),
        tool(
            "get_plugin_info",
            "Tells all about one plugin: versions, what it provides and needs, its instances and \
             why they are in their states",
            &json!({ "name": name }),
            &["name"],
            look("Plugin information"),
        ),
        tool(
            "get_plugin_metrics",
            "Counts plugins and their calls, errors, latency, memory and processor use",
            &json!({ "detailed": detailed }),
            &[],
            look("Plugin metrics"),
        ),
        tool(
            "enable_plugin",
            "Lets a plugin take calls again",
            &json!({ "name": name, "reason": reason }),
            &["name"],
            change("Enable a plugin", false),
        ),
        tool(
            "disable_plugin",
            "Takes a plugin out of routing: it gets no more calls until it is enabled again, and \
             those that need it are blocked; its processes go on",
            &json!({ "name": name, "reason": reason }),
            &["name"],
            change("Disable a plugin", true),
        ),
    ]
}

fn tool(
    name: &'static str,
    description: &'static str,
    properties: &Value,
    required: &[&str],
    annotations: ToolAnnotations,
) -> Tool {
    let schema = json!({
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    });
    let schema: JsonObject = schema.as_object().cloned().unwrap_or_default();
    Tool::new(name, description, schema).with_annotations(annotations)
}
