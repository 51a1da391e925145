//! The gateway's own tools, by which clients see and change the mesh.
//!
//! Their arguments are those of the systems that this one replaces, and so are the words that they
//! take. What they show is from the table and from what routers know; only changes go to a
//! coordinator.

mod arguments;
mod change;
mod definitions;
mod info;
mod list;
mod stats;

use rmcp::model::{CallToolResult, ContentBlock, ErrorData, JsonObject};
use serde_json::Value;

use self::arguments::Arguments;
pub use self::definitions::definitions;
use crate::mcp::{Shared, errors};

/// Runs one of the tools.
///
/// # Errors
/// -32602 that names the argument, or what the coordinator says.
pub async fn call(
    shared: &Shared,
    name: &str,
    arguments: JsonObject,
) -> Result<CallToolResult, ErrorData> {
    let mut arguments = Arguments::new(name, arguments);
    let value = match name {
        "list_plugins" => {
            let filter = list::Filter::read(&mut arguments)?;
            arguments.finish()?;
            list::plugins(&shared.table(), &filter)
        }
        "get_plugin_info" => {
            let plugin = arguments.plugin()?;
            arguments.finish()?;
            info::plugin(&shared.table(), &shared.catalog(), &plugin)?
        }
        "get_plugin_metrics" => {
            let detailed = arguments.flag("detailed")?.unwrap_or(false);
            arguments.finish()?;
            stats::metrics(&shared.table(), &shared.routers(), detailed)
        }
        "enable_plugin" | "disable_plugin" => {
            let wish = change::read(&mut arguments, name == "enable_plugin")?;
            arguments.finish()?;
            change::make(&shared.coordinators, wish).await?
        }
        _ => return Err(errors::unknown("tool", name, "tools/list", &[])),
    };
    Ok(answer(value))
}

/// The answer as data for programs, and as text for people and older clients.
fn answer(value: Value) -> CallToolResult {
    // A Value holds nothing that JSON can't.
    let text = serde_json::to_string_pretty(&value).unwrap_or_default();
    let mut result = CallToolResult::success(vec![ContentBlock::text(text)]);
    result.structured_content = Some(value);
    result
}

#[cfg(test)]
mod tests;
