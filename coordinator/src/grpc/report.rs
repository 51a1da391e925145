//! What agents report, from the wire.

use std::sync::Arc;

use mesh_core::error::{MeshError, Place};
use mesh_core::id::InstanceId;
use mesh_core::revision::Timestamp;
use mesh_engine::engine::{Report, Tally};
use mesh_proto::control;
use mesh_proto::convert::{WireError, draft, instance_phase};

/// An instance that is refused, by the id that its agent gave.
pub(super) type Refused = (String, MeshError);

/// Reads a report.
///
/// # Errors
/// All mistakes of a manifest, or the first field that is wrong.
pub(super) fn report(wire: control::InstanceReport) -> Result<Report, Refused> {
    let id = wire.instance.clone();
    let mut place = Place {
        instance: id.chars().take(80).collect(),
        ..Place::default()
    };
    if let Some(manifest) = &wire.manifest {
        place.plugin = manifest.name.chars().take(80).collect();
        place.version = manifest.version.chars().take(80).collect();
    }
    read(wire).map_err(|error| (id, error.at(place)))
}

fn read(wire: control::InstanceReport) -> Result<Report, MeshError> {
    let instance = instance(&wire.instance)?;
    let phase = instance_phase(wire.phase)?;
    let manifest = wire.manifest;
    let manifest = manifest.ok_or_else(|| WireError::new("manifest", "is missing"))?;
    let manifest = draft(manifest).check().map_err(MeshError::from)?;
    Ok(Report {
        instance,
        manifest: Arc::new(manifest),
        phase,
        reason: wire.reason,
        since: Timestamp(wire.since_ms),
        concurrency: wire.concurrency,
        supervised: wire.supervised,
    })
}

/// What an instance has counted; `None`: the instance can't be read.
pub(super) fn counted(wire: &control::InstanceCounts) -> Option<(InstanceId, Tally)> {
    let counts = Tally {
        calls: wire.calls,
        errors: wire.failed,
    };
    Some((InstanceId::from_bytes(&wire.instance).ok()?, counts))
}

/// Reads an instance's id.
pub(super) fn instance(text: &str) -> Result<InstanceId, WireError> {
    text.parse()
        .map_err(|error| WireError::new("instance", error))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    use super::*;
    use mesh_proto::common;

    fn wire() -> control::InstanceReport {
        control::InstanceReport {
            instance: "01890a5d-ac96-774b-bcce-b302099a8057".into(),
            manifest: Some(common::Manifest {
                name: "time".into(),
                version: "1.0.0".into(),
                ..common::Manifest::default()
            }),
            phase: control::InstancePhase::Ready.into(),
            ..control::InstanceReport::default()
        }
    }

    fn refusal(change: impl FnOnce(&mut control::InstanceReport)) -> String {
        let mut report = wire();
        change(&mut report);
        super::report(report).unwrap_err().1.to_string()
    }

    #[test]
    fn a_good_report_is_read() {
        assert_eq!(report(wire()).unwrap().manifest.name.as_str(), "time");
    }

    #[test]
    fn each_mistake_is_named_with_its_field_and_plugin() {
        let error = refusal(|report| report.instance = "seven".into());
        assert!(error.starts_with("invalid_argument: instance: "), "{error}");
        assert!(
            error.ends_with("(plugin time@1.0.0, instance seven)"),
            "{error}"
        );
        let error = refusal(|report| report.phase = 99);
        assert!(
            error.starts_with("invalid_argument: phase: 99 is not known"),
            "{error}"
        );
        let error = refusal(|report| report.manifest = None);
        assert!(
            error.starts_with("invalid_argument: manifest: is missing"),
            "{error}"
        );
        let error = refusal(|report| {
            let manifest = report.manifest.as_mut().unwrap();
            manifest.name = "Time!".into();
            manifest.version = "one".into();
        });
        assert!(error.starts_with("invalid_manifest: "), "{error}");
        assert!(
            error.contains("name") && error.contains("version"),
            "{error}"
        );
    }
}
