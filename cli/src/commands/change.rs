//! `plugmesh enable`, `disable` and `unload`: an operator's wishes.

use mesh_core::error::ErrorCode;
use mesh_proto::admin::{
    DisablePluginRequest, EnablePluginRequest, PluginChangeResponse, UnloadPluginRequest,
};
use mesh_proto::status::from_status;
use serde_json::json;
use tonic::{Code, Response, Status};

use crate::admin::Admin;
use crate::args::{ChangeArgs, UnloadArgs};
use crate::commands::plugin::unknown;
use crate::exit::Failure;
use crate::output::{self, Output};

/// Lets a plugin take calls again.
///
/// # Errors
/// What the coordinator says.
pub async fn enable(args: ChangeArgs, output: Output) -> Result<(), Failure> {
    let mut admin = Admin::connect(&args.ask).await?;
    let (name, reason) = (args.name.clone(), args.reason);
    let request = Admin::request(EnablePluginRequest { name, reason });
    let answer = admin.client().enable_plugin(request).await;
    show("enabled", &args.name, &mut admin, answer, output).await
}

/// Takes a plugin out of routing.
///
/// # Errors
/// What the coordinator says.
pub async fn disable(args: ChangeArgs, output: Output) -> Result<(), Failure> {
    let mut admin = Admin::connect(&args.ask).await?;
    let (name, reason) = (args.name.clone(), args.reason);
    let request = Admin::request(DisablePluginRequest { name, reason });
    let answer = admin.client().disable_plugin(request).await;
    show("disabled", &args.name, &mut admin, answer, output).await
}

/// Drains a plugin and ends its processes.
///
/// # Errors
/// What the coordinator says; when others need the plugin, which.
pub async fn unload(args: UnloadArgs, output: Output) -> Result<(), Failure> {
    let change = args.change;
    let mut admin = Admin::connect(&change.ask).await?;
    let request = Admin::request(UnloadPluginRequest {
        name: change.name.clone(),
        reason: change.reason,
        cascade: args.cascade,
    });
    let answer = admin.client().unload_plugin(request).await;
    if let Err(status) = &answer
        && from_status(status).code == ErrorCode::StillRequired
    {
        let mut failure = admin.failure(status);
        failure
            .message
            .push_str("; add --cascade to unload those, too");
        return Err(failure);
    }
    show("unloaded", &change.name, &mut admin, answer, output).await
}

pub(super) async fn show(
    what: &str,
    name: &str,
    admin: &mut Admin,
    answer: Result<Response<PluginChangeResponse>, Status>,
    output: Output,
) -> Result<(), Failure> {
    let answer = match answer {
        Ok(answer) => answer.into_inner(),
        Err(status) if status.code() == Code::NotFound => return Err(unknown(admin, name).await),
        Err(status) => return Err(admin.failure(&status)),
    };
    if output == Output::Json {
        let revision = answer.revision.unwrap_or_default();
        return output::json(&json!({
            "changed": answer.changed,
            "affected": answer.affected,
            "notes": answer.notes,
            "revision": format!("{}.{}", revision.epoch, revision.sequence),
        }));
    }
    for text in &answer.notes {
        output::note(format!("note: {text}"));
    }
    if answer.changed.is_empty() {
        return output::line(format!("{name} was {what} already"));
    }
    output::line(format!("{what}: {}", answer.changed.join(", ")))?;
    if !answer.affected.is_empty() {
        let affected = answer.affected.join(", ");
        output::line(format!("these lose a dependency by it: {affected}"))?;
    }
    Ok(())
}
