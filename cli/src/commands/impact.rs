//! `plugmesh impact`: what would follow from a change or a loss. Nothing is done.

use std::fmt::Write;

use mesh_proto::admin::get_impact_request::Supposition;
use mesh_proto::admin::{Affected, GetImpactRequest, GetImpactResponse, Upgrade};
use serde_json::{Value, json};
use tonic::Code;

use crate::admin::Admin;
use crate::args::{ImpactArgs, ImpactOf};
use crate::commands::plugin::unknown;
use crate::exit::Failure;
use crate::output::{self, Output};

/// Shows what would follow.
///
/// # Errors
/// What the coordinator says.
pub async fn run(args: ImpactArgs, output: Output) -> Result<(), Failure> {
    let mut admin = Admin::connect(&args.ask).await?;
    let (plugin, supposition) = match args.of {
        ImpactOf::Unload { name } => (Some(name.clone()), Supposition::Unload(name)),
        ImpactOf::Disable { name } => (Some(name.clone()), Supposition::Disable(name)),
        ImpactOf::Upgrade { name, version } => {
            let upgrade = Upgrade {
                name: name.clone(),
                version,
            };
            (Some(name), Supposition::Upgrade(upgrade))
        }
        ImpactOf::Node { name } => (None, Supposition::LoseNode(name)),
    };
    let request = Admin::request(GetImpactRequest {
        supposition: Some(supposition),
    });
    let impact = match (admin.client().get_impact(request).await, plugin) {
        (Ok(answer), _) => answer.into_inner(),
        (Err(status), Some(plugin)) if status.code() == Code::NotFound => {
            return Err(unknown(&mut admin, &plugin).await);
        }
        (Err(status), _) => return Err(admin.failure(&status)),
    };
    match output {
        Output::Json => output::json(&as_json(&impact)),
        Output::Table | Output::Dot => output::line(for_people(&impact)),
    }
}

fn as_json(impact: &GetImpactResponse) -> Value {
    let affected = |all: &[Affected]| -> Vec<Value> {
        let one = |it: &Affected| json!({ "id": it.id, "why": it.why });
        all.iter().map(one).collect()
    };
    let revision = impact.revision.unwrap_or_default();
    json!({
        "gone": impact.gone,
        "blocked": affected(&impact.blocked),
        "degraded": affected(&impact.degraded),
        "unaffected": impact.unaffected,
        "stops": impact.stops,
        "starts": impact.starts,
        "modelled_on": impact.modelled_on,
        "revision": format!("{}.{}", revision.epoch, revision.sequence),
    })
}

fn for_people(impact: &GetImpactResponse) -> String {
    let mut text = String::new();
    // Writing to a String can't fail.
    let mut list = |what: &str, all: &[String]| {
        let all = if all.is_empty() {
            "none".to_owned()
        } else {
            all.join(", ")
        };
        let _ = writeln!(text, "{what:<12}{all}");
    };
    let affected = |all: &[Affected]| -> Vec<String> {
        let one = |it: &Affected| format!("{} ({})", it.id, it.why.join("; "));
        all.iter().map(one).collect()
    };
    list("gone", &impact.gone);
    list("blocked", &affected(&impact.blocked));
    list("degraded", &affected(&impact.degraded));
    list("unaffected", &impact.unaffected);
    list("stops", &impact.stops);
    list("starts", &impact.starts);
    if !impact.modelled_on.is_empty() {
        let _ = writeln!(
            text,
            "that version is not here: it is taken to need and provide what {} does",
            impact.modelled_on
        );
    }
    text.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_list_is_a_line_and_an_empty_one_says_so() {
        let impact = GetImpactResponse {
            gone: vec!["base@1.2.0".into()],
            blocked: vec![Affected {
                id: "top@1.0.0".into(),
                why: vec!["it needs base ^1".into()],
            }],
            modelled_on: "base@1.2.0".into(),
            ..GetImpactResponse::default()
        };
        let text = for_people(&impact);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines,
            [
                "gone        base@1.2.0",
                "blocked     top@1.0.0 (it needs base ^1)",
                "degraded    none",
                "unaffected  none",
                "stops       none",
                "starts      none",
                "that version is not here: it is taken to need and provide what base@1.2.0 does",
            ]
        );
    }
}
