//! What is said when no instance takes a call.

use super::{Wish, fits};
use crate::error::{ErrorCode, MeshError, Place};
use crate::table::Provider;

/// Most instances whose reasons an error lists.
const MOST_REASONS: usize = 4;

/// Says why nothing was chosen.
pub(super) fn refusal(wish: &Wish<'_>, rows: &[Provider]) -> MeshError {
    let (target, avoid) = (&wish.target, wish.avoid);
    let capability = target.capability;
    let place = Place {
        plugin: target.plugin.map(ToString::to_string).unwrap_or_default(),
        ..Place::default()
    };
    let of_plugin = |row: &&Provider| target.plugin.is_none_or(|name| *name == row.manifest.name);
    let fitting: Vec<&Provider> = rows.iter().filter(|row| fits(target, row)).collect();
    if fitting.is_empty() {
        let mut versions: Vec<String> = rows
            .iter()
            .filter(of_plugin)
            .map(|row| format!("{}@{}", row.manifest.name, row.manifest.version))
            .collect();
        versions.dedup();
        let text = match (versions.is_empty(), target.plugin, target.requirement) {
            (false, _, Some(requirement)) => format!(
                "no version {requirement} of a plugin provides {capability}, only {}: start a \
                 matching version or loosen the requirement",
                versions.join(", ")
            ),
            (_, Some(plugin), _) => format!(
                "no plugin {plugin} that provides {capability} is in the mesh: start it, or check \
                 both names"
            ),
            _ => format!("no plugin provides {capability}: start one that does, or check the name"),
        };
        return MeshError::new(ErrorCode::NoProvider, text).at(place);
    }
    let reason = |row: &&Provider| {
        let (manifest, route) = (&row.manifest, &row.route);
        let why = if avoid.contains(&route.instance) {
            "has failed this call already".to_owned()
        } else if route.reason.is_empty() {
            route.state.to_string()
        } else {
            format!("{}, {}", route.state, route.reason)
        };
        format!(
            "{}@{} on {}: {why}",
            manifest.name, manifest.version, route.node
        )
    };
    let mut reasons: Vec<String> = fitting.iter().take(MOST_REASONS).map(reason).collect();
    if fitting.len() > MOST_REASONS {
        reasons.push(format!("and {} more", fitting.len() - MOST_REASONS));
    }
    let instances = match fitting.len() {
        1 => "1 instance provides".to_owned(),
        many => format!("{many} instances provide"),
    };
    let text = format!(
        "{instances} {capability}, none takes this call now: {}",
        reasons.join("; ")
    );
    MeshError::new(ErrorCode::Unavailable, text).at(place)
}
