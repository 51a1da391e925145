//! `plugmesh plugin NAME`: all versions and instances of one plugin.

use mesh_core::capability::CapabilityKind;
use mesh_core::manifest::Need;
use mesh_proto::admin::GetPluginRequest;
use mesh_runtime::config::nearest;
use serde_json::json;

use crate::admin::Admin;
use crate::args::PluginArgs;
use crate::commands::plugins::list;
use crate::exit::Failure;
use crate::output::{self, Output};
use crate::view::PluginView;

/// Shows a plugin.
///
/// # Errors
/// [`crate::exit::DATA`] with the nearest name when there is no such plugin.
pub async fn run(args: PluginArgs, output: Output) -> Result<(), Failure> {
    let mut admin = Admin::connect(&args.ask).await?;
    let request = Admin::request(GetPluginRequest {
        name: args.name.clone(),
    });
    let versions = match admin.client().get_plugin(request).await {
        Ok(answer) => answer.into_inner().versions,
        Err(status) if status.code() == tonic::Code::NotFound => Vec::new(),
        Err(status) => return Err(admin.failure(&status)),
    };
    if versions.is_empty() {
        return Err(unknown(&mut admin, &args.name).await);
    }
    let versions: Result<Vec<PluginView>, Failure> =
        versions.into_iter().map(PluginView::read).collect();
    let versions = versions?;
    if output == Output::Json {
        return output::json(&json!({ "versions": versions }));
    }
    let shown: Vec<String> = versions.iter().map(show).collect();
    output::line(shown.join("\n\n"))
}

/// That there is no such plugin, with the names that there are.
///
/// # Errors
/// Never; the failure is the result.
pub async fn unknown(admin: &mut Admin, name: &str) -> Failure {
    let known = list(admin, String::new(), String::new()).await;
    let mut names: Vec<String> = known
        .unwrap_or_default()
        .iter()
        .map(|plugin| plugin.name.to_string())
        .collect();
    names.dedup();
    let hint = match nearest(name, names.iter().map(String::as_str)) {
        Some(near) => format!("did you mean {near}?"),
        None if names.is_empty() => "there are none yet".to_owned(),
        None => format!("there are {}", names.join(", ")),
    };
    Failure::data(format!("there is no plugin {name:?}; {hint}"))
}

fn show(plugin: &PluginView) -> String {
    let manifest = &plugin.manifest;
    let mut lines = vec![format!(
        "{} {}  {}",
        manifest.name, manifest.version, plugin.state
    )];
    let mut add = |what: &str, text: String| {
        if !text.is_empty() {
            lines.push(format!("  {what:<12} {text}"));
        }
    };
    add("reason", plugin.trouble().to_owned());
    add("description", manifest.description.clone());
    add("license", manifest.license.clone());
    add("homepage", manifest.homepage.clone());
    let needs: Vec<String> = manifest
        .dependencies
        .iter()
        .map(|(name, need)| need_of(name.as_str(), need))
        .chain(
            manifest
                .requires
                .iter()
                .map(|(capability, need)| need_of(&capability.to_string(), need)),
        )
        .collect();
    add("needs", needs.join(", "));
    for kind in CapabilityKind::ALL {
        add(
            &format!("{}s", kind.as_str()),
            plugin.names(kind).join(", "),
        );
    }
    let head = ["INSTANCE", "NODE", "STATE", "SINCE", "REASON"];
    let rows = plugin.instances.iter().map(|instance| {
        [
            instance.instance.to_string(),
            instance.node.to_string(),
            instance.state.to_string(),
            output::ago(instance.since.0),
            instance.reason.clone(),
        ]
    });
    if !plugin.instances.is_empty() {
        let table = output::table(head, rows);
        lines.extend(table.lines().map(|line| format!("  {line}")));
    }
    lines.join("\n")
}

fn need_of(name: &str, need: &Need) -> String {
    let optional = if need.optional { " (optional)" } else { "" };
    format!("{name} {}{optional}", need.requirement)
}
