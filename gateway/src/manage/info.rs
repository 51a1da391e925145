//! `get_plugin_info`.

use mesh_core::error::{ErrorCode, MeshError};
use mesh_core::id::PluginName;
use mesh_core::manifest::{Manifest, Need};
use mesh_core::table::{InstanceRoute, Table};
use rmcp::model::ErrorData;
use serde_json::{Value, json};

use super::list::{VersionView, versions};
use crate::composite::{Catalog, Section, Serves, nearest};
use crate::mcp::errors::rpc_error;

pub fn plugin(table: &Table, catalog: &Catalog, name: &PluginName) -> Result<Value, ErrorData> {
    let all = versions(table);
    let own: Vec<&VersionView<'_>> = all
        .iter()
        .filter(|version| version.spec.plugin().as_ref() == Some(name))
        .collect();
    if own.is_empty() {
        let near = nearest(name.as_str(), table.plugins().map(PluginName::as_str));
        let hint = match near.as_slice() {
            [] => "list_plugins shows which there are".to_owned(),
            near => format!("did you mean {}?", near.join(", ")),
        };
        let text = format!("get_plugin_info: argument name: there is no plugin {name}: {hint}");
        return Err(rpc_error(&MeshError::new(ErrorCode::NotFound, text)));
    }
    let problems: Vec<String> = catalog
        .problems
        .iter()
        .filter(|problem| problem.plugin == *name)
        .map(ToString::to_string)
        .collect();
    let best = own
        .iter()
        .filter_map(|version| version.best())
        .min_by_key(|best| best.state.rank());
    Ok(json!({
        "name": name,
        "status": best.map(|best| best.state.as_str()),
        "versions": own.iter().map(|version| one(version)).collect::<Vec<_>>(),
        "mcp": {
            "tools": keys(&catalog.tools, name),
            "resources": keys(&catalog.resources, name),
            "resource_templates": keys(&catalog.templates, name),
            "prompts": keys(&catalog.prompts, name),
            "problems": problems,
        },
        "revision": table.revision().to_string(),
    }))
}

/// The names by which clients reach a plugin's entries.
fn keys<T>(section: &Section<T>, plugin: &PluginName) -> Vec<String> {
    let of_plugin =
        |serves: &Serves| matches!(serves, Serves::Plugin(route) if route.plugin == *plugin);
    let own = section
        .items()
        .iter()
        .filter(|item| of_plugin(&item.serves));
    own.map(|item| item.key.to_string()).collect()
}

fn one(version: &VersionView<'_>) -> Value {
    let best = version.best();
    let mut value = json!({
        "status": best.map(|best| best.state.as_str()),
        "reason": best.map(|best| &best.reason),
        "capabilities": version.kinds(),
        "instances": version.instances.iter().map(|one| instance(one)).collect::<Vec<_>>(),
    });
    if let (Some(manifest), Some(fields)) = (version.manifest, value.as_object_mut()) {
        for (field, value) in described(manifest) {
            fields.insert(field.to_owned(), value);
        }
    }
    value
}

fn described(manifest: &Manifest) -> [(&'static str, Value); 9] {
    let need = |(what, need): (String, &Need)| json!({ "on": what, "requirement": need.requirement.to_string(), "optional": need.optional });
    let plugins = manifest
        .dependencies
        .iter()
        .map(|(name, need)| (name.to_string(), need));
    let capabilities = manifest
        .requires
        .iter()
        .map(|(name, need)| (name.to_string(), need));
    let provides: Vec<String> = manifest
        .capabilities
        .iter()
        .map(|entry| entry.capability.to_string())
        .collect();
    [
        ("version", json!(manifest.version.to_string())),
        ("description", json!(manifest.description)),
        ("authors", json!(manifest.authors)),
        ("license", json!(manifest.license)),
        ("homepage", json!(manifest.homepage)),
        ("tags", json!(manifest.tags)),
        ("dependencies", json!(plugins.map(need).collect::<Vec<_>>())),
        (
            "requires",
            json!(capabilities.map(need).collect::<Vec<_>>()),
        ),
        ("provides", json!(provides)),
    ]
}

fn instance(route: &InstanceRoute) -> Value {
    json!({
        "instance": route.instance.to_string(),
        "node": route.node,
        "status": route.state.as_str(),
        "reason": route.reason,
        "since_ms": route.since.0,
    })
}
