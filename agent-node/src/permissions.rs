//! What a plugin may call.

use mesh_core::capability::Capability;
use mesh_core::error::{ErrorCode, MeshError};
use mesh_core::manifest::Manifest;

/// Checks a call of a plugin against the permissions of its manifest. An empty list allows all.
///
/// # Errors
/// PERMISSION_DENIED that names what is missing where.
pub(crate) fn check_call(manifest: &Manifest, capability: &Capability) -> Result<(), MeshError> {
    let allowed = &manifest.permissions.call;
    if allowed.is_empty() || allowed.iter().any(|pattern| covers(pattern, capability)) {
        return Ok(());
    }
    let text = format!(
        "plugin {} may not call {capability}: its manifest allows {}; add it to permissions.call",
        manifest.name,
        allowed.join(", ")
    );
    Err(MeshError::new(ErrorCode::PermissionDenied, text))
}

/// Whether `kind:name`, with `*` at the end for any rest, covers a capability.
fn covers(pattern: &str, capability: &Capability) -> bool {
    let (prefix, open) = match pattern.strip_suffix('*') {
        Some(prefix) => (prefix, true),
        None => (pattern, false),
    };
    match prefix.split_once(':') {
        Some((kind, name)) => {
            let name_fits = if open {
                capability.name.starts_with(name)
            } else {
                *capability.name == *name
            };
            kind == capability.kind.as_str() && name_fits
        }
        // "*" alone, or the beginning of a kind.
        None => open && capability.kind.as_str().starts_with(prefix),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed test may panic")]
mod tests {
    use super::*;
    use mesh_core::manifest::ManifestDraft;

    fn manifest(call: &[&str]) -> Manifest {
        let mut draft = ManifestDraft {
            name: "github".to_owned(),
            version: "1.0.0".to_owned(),
            ..ManifestDraft::default()
        };
        draft.permissions.call = call.iter().map(|text| (*text).to_owned()).collect();
        draft.check().unwrap()
    }

    fn may(call: &[&str], capability: &str) -> bool {
        check_call(&manifest(call), &capability.parse().unwrap()).is_ok()
    }

    #[test]
    fn a_manifest_without_a_list_allows_every_call() {
        assert!(may(&[], "tool:add"));
    }

    #[test]
    fn a_list_allows_what_it_names_and_nothing_else() {
        let list = ["service:embedding.*", "tool:add"];
        for (capability, allowed) in [
            ("service:embedding.embed", true),
            ("service:embedding.", true),
            ("service:embed", false),
            ("tool:add", true),
            ("tool:addition", false),
            ("prompt:add", false),
            ("tool:embedding.embed", false),
        ] {
            assert_eq!(may(&list, capability), allowed, "{capability}");
        }
        assert!(may(&["tool:*"], "tool:anything"));
        assert!(!may(&["tool:*"], "service:anything.at.all"));
    }

    #[test]
    fn a_refusal_names_the_plugin_the_capability_and_the_remedy() {
        let manifest = manifest(&["tool:add"]);
        let error = check_call(&manifest, &"tool:divide".parse().unwrap()).unwrap_err();
        assert_eq!(error.code, ErrorCode::PermissionDenied);
        assert_eq!(
            error.message,
            "plugin github may not call tool:divide: its manifest allows tool:add; add it to \
             permissions.call"
        );
    }
}
