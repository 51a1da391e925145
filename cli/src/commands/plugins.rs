//! `plugmesh plugins`: the plugins, a row for each version.

use mesh_core::capability::CapabilityKind;
use mesh_core::state::InstanceState;
use mesh_proto::admin::ListPluginsRequest;
use serde_json::json;

use crate::admin::Admin;
use crate::args::PluginsArgs;
use crate::exit::Failure;
use crate::output::{self, Output};
use crate::view::PluginView;

/// Lists the plugins.
///
/// # Errors
/// A wrong filter, or what the coordinator says.
pub async fn run(args: PluginsArgs, output: Output) -> Result<(), Failure> {
    check(&args)?;
    let mut admin = Admin::connect(&args.ask).await?;
    let plugins = list(&mut admin, args.capability, args.status).await?;
    if output == Output::Json {
        return output::json(&json!({ "plugins": plugins }));
    }
    if plugins.is_empty() {
        output::note("no plugins; make one with `plugmesh new NAME`");
        return Ok(());
    }
    let head = [
        "NAME",
        "VERSION",
        "STATE",
        "INSTANCES",
        "NODES",
        "PROVIDES",
        "REASON",
    ];
    let rows = plugins.iter().map(|plugin| {
        [
            plugin.name.to_string(),
            plugin.version.to_string(),
            plugin.state.clone(),
            plugin.instances.len().to_string(),
            plugin.nodes().join(","),
            plugin.provides(),
            plugin.trouble().to_owned(),
        ]
    });
    output::line(output::table(head, rows))
}

/// What the coordinator lists.
///
/// # Errors
/// What the coordinator says.
pub async fn list(
    admin: &mut Admin,
    capability: String,
    status: String,
) -> Result<Vec<PluginView>, Failure> {
    let request = Admin::request(ListPluginsRequest { capability, status });
    let listed = admin.client().list_plugins(request).await;
    let listed = listed.map_err(|status| admin.failure(&status))?;
    let plugins = listed.into_inner().plugins;
    plugins.into_iter().map(PluginView::read).collect()
}

/// The filters, so that a mistyped one is said before anybody is asked.
fn check(args: &PluginsArgs) -> Result<(), Failure> {
    if !args.status.is_empty()
        && let Err(error) = args.status.parse::<InstanceState>()
    {
        return Err(Failure::data(format!("--status: {error}")));
    }
    let kind = args.capability.split(':').next().unwrap_or_default();
    if !kind.is_empty()
        && let Err(error) = kind.parse::<CapabilityKind>()
    {
        return Err(Failure::data(format!("--capability: {error}")));
    }
    Ok(())
}
