//! `plugmesh tools`: what the gateway serves.

use serde_json::Value;

use crate::args::ToolsArgs;
use crate::exit::Failure;
use crate::mcp::Mcp;
use crate::output::{self, Output};

/// Lists the tools.
///
/// # Errors
/// What the gateway says.
pub async fn run(args: ToolsArgs, output: Output) -> Result<(), Failure> {
    let mcp = Mcp::new(&args.ask)?;
    let tools = mcp.tools().await?;
    if output == Output::Json {
        return output::json(&tools);
    }
    let head = ["NAME", "ARGUMENTS", "DESCRIPTION"];
    let rows = tools.iter().map(|tool| {
        let description = text(tool, "description");
        let first = description.lines().next().unwrap_or_default();
        [
            text(tool, "name").to_owned(),
            arguments(tool),
            first.to_owned(),
        ]
    });
    output::line(output::table(head, rows))
}

/// A text of a tool's entry.
pub fn text<'a>(tool: &'a Value, key: &str) -> &'a str {
    tool.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// The names of the arguments; those that may be left out end with a question mark.
fn arguments(tool: &Value) -> String {
    let schema = tool.get("inputSchema").unwrap_or(&Value::Null);
    let required: Vec<&str> = schema
        .get("required")
        .and_then(Value::as_array)
        .map(|names| names.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default();
    let properties = schema.get("properties").and_then(Value::as_object);
    let names: Vec<String> = properties
        .into_iter()
        .flatten()
        .map(|(name, _)| {
            let optional = if required.contains(&name.as_str()) {
                ""
            } else {
                "?"
            };
            format!("{name}{optional}")
        })
        .collect();
    names.join(" ")
}
