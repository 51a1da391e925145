//! `enable_plugin` and `disable_plugin`.

use mesh_core::revision::Revision;
use rmcp::model::ErrorData;
use serde_json::{Value, json};

use super::arguments::Arguments;
use crate::coordinator::{Change, Coordinators};
use crate::mcp::errors::rpc_error;

pub fn read(arguments: &mut Arguments<'_>, enable: bool) -> Result<Change, ErrorData> {
    Ok(Change {
        name: arguments.plugin()?.to_string(),
        reason: arguments.text("reason")?.unwrap_or_default(),
        enable,
    })
}

pub async fn make(coordinators: &Coordinators, change: Change) -> Result<Value, ErrorData> {
    let changed = coordinators.change(&change).await;
    let changed = changed.map_err(|error| rpc_error(&error))?;
    let revision = changed.revision.map(Revision::from).unwrap_or_default();
    Ok(json!({
        "name": change.name,
        "enabled": change.enable,
        "changed": changed.changed,
        "affected": changed.affected,
        "revision": revision.to_string(),
    }))
}
