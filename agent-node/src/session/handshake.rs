//! The checks of a Hello. All mistakes are found before anything is said.

use std::sync::Arc;

use mesh_core::error::{ErrorCode, MeshError, Place};
use mesh_core::id::{InstanceId, MeshName, NodeId};
use mesh_core::manifest::Manifest;
use mesh_proto::convert;
use mesh_proto::plugin::{Hello, HostFrame, SessionLimits, Welcome, host_frame};
use serde_json::Value;

use super::limits::{FEATURES, INITIAL_CREDIT, MAX_FRAME_BYTES, MAX_PROTOCOL, MIN_PROTOCOL};
use super::schema;

/// What the host knows before a Hello.
pub(crate) struct HostFacts<'a> {
    /// The node.
    pub(crate) node: &'a NodeId,
    /// The mesh.
    pub(crate) mesh: &'a MeshName,
    /// The most calls in flight to one plugin.
    pub(crate) max_concurrency: u32,
    /// Largest payload of a call.
    pub(crate) max_payload: usize,
}

/// What the host knows of the plugin's start and configuration.
#[derive(Debug, Clone)]
pub(crate) struct Expected {
    /// The plugin that the host started under the token; `None`: somebody else started it.
    pub(crate) plugin: Option<mesh_core::id::PluginName>,
    /// The instance's id.
    pub(crate) instance: InstanceId,
    /// The configuration: a JSON object.
    pub(crate) config: Value,
    /// Which setting the configuration comes from, for error texts.
    pub(crate) config_field: String,
}

/// An accepted Hello.
#[derive(Debug)]
pub(crate) struct Accepted {
    /// The manifest.
    pub(crate) manifest: Arc<Manifest>,
    /// Calls in flight to this plugin.
    pub(crate) concurrency: u32,
    /// Where this is.
    pub(crate) place: Place,
    /// The instance.
    pub(crate) instance: InstanceId,
    /// The answer.
    pub(crate) welcome: HostFrame,
}

/// Checks what a Hello says of itself: versions and manifest. Comes before what the host expects can
/// be looked up, since that needs the plugin's name.
///
/// # Errors
/// Every mistake in one error.
pub(crate) fn check_manifest(hello: &mut Hello) -> Result<(Arc<Manifest>, u32), MeshError> {
    let protocol = negotiate(hello.min_protocol, hello.max_protocol)?;
    let wire = hello.manifest.take().ok_or_else(|| {
        MeshError::new(
            ErrorCode::InvalidManifest,
            "manifest: it is missing from Hello",
        )
    })?;
    let manifest = convert::draft(wire)
        .check()
        .map_err(|mistakes| MeshError::new(ErrorCode::InvalidManifest, mistakes.to_string()))?;
    Ok((Arc::new(manifest), protocol))
}

/// Checks a Hello against what the host expects, and makes the answer.
///
/// # Errors
/// Every mistake in one error.
pub(crate) fn accept(
    hello: &Hello,
    manifest: Arc<Manifest>,
    protocol: u32,
    facts: &HostFacts<'_>,
    expected: Expected,
) -> Result<Accepted, MeshError> {
    let place = Place {
        plugin: manifest.name.to_string(),
        version: manifest.version.to_string(),
        instance: expected.instance.to_string(),
        node: facts.node.to_string(),
    };
    if let Some(plugin) = expected.plugin.filter(|plugin| *plugin != manifest.name) {
        let text = format!(
            "the process was started as plugin {plugin}, but its manifest says {}: give the plugin \
             that name in agent.plugins, or start its own program there",
            manifest.name
        );
        return Err(MeshError::new(ErrorCode::InvalidManifest, text).at(place));
    }
    check_config(&manifest, &expected.config, &expected.config_field)
        .map_err(|error| error.at(place.clone()))?;
    let concurrency = match manifest.limits.concurrency {
        0 => facts.max_concurrency,
        asked => asked.min(facts.max_concurrency),
    };
    let features = FEATURES
        .iter()
        .filter(|known| hello.features.iter().any(|feature| feature == *known))
        .map(|known| (*known).to_owned())
        .collect();
    let welcome = Welcome {
        instance: place.instance.clone(),
        config: expected.config.to_string().into(),
        protocol,
        features,
        limits: Some(SessionLimits {
            max_frame_bytes: u32::try_from(MAX_FRAME_BYTES).unwrap_or(u32::MAX),
            max_payload_bytes: facts.max_payload as u64,
            concurrency,
            initial_credit: INITIAL_CREDIT,
        }),
        node: facts.node.to_string(),
        mesh: facts.mesh.to_string(),
    };
    Ok(Accepted {
        manifest,
        concurrency,
        place,
        instance: expected.instance,
        welcome: HostFrame {
            id: 0,
            body: Some(host_frame::Body::Welcome(welcome.into())),
        },
    })
}

/// The newest version that both speak.
fn negotiate(min: u32, max: u32) -> Result<u32, MeshError> {
    // Version 0 does not exist; a plugin that leaves both out speaks the first.
    let (min, max) = (min.max(1), if max == 0 { min.max(1) } else { max });
    let text = if min > max {
        format!("Hello: min_protocol {min} is greater than max_protocol {max}")
    } else if min > MAX_PROTOCOL || max < MIN_PROTOCOL {
        format!(
            "the plugin speaks versions {min} to {max} of the plugin protocol, this host {MIN_PROTOCOL} \
             to {MAX_PROTOCOL}: update the older of the two"
        )
    } else {
        return Ok(max.min(MAX_PROTOCOL));
    };
    Err(MeshError::new(ErrorCode::Unsupported, text))
}

/// Checks a configuration against the manifest's schema; every mistake is listed.
fn check_config(manifest: &Manifest, config: &Value, field: &str) -> Result<(), MeshError> {
    let Some(schema) = &manifest.config_schema else {
        return Ok(());
    };
    let bad_schema = |why: String| {
        let text = format!("config_schema: {why}; give a JSON Schema without outside references");
        MeshError::new(ErrorCode::InvalidManifest, text)
    };
    let schema = schema::check(schema.get()).map_err(bad_schema)?;
    let validator =
        jsonschema::validator_for(&schema).map_err(|error| bad_schema(error.to_string()))?;
    let mistakes: Vec<String> = validator
        .iter_errors(config)
        .map(|error| {
            let path = error.instance_path().as_str().replace('/', ".");
            format!("{field}{path}: {error}")
        })
        .collect();
    if mistakes.is_empty() {
        return Ok(());
    }
    Err(MeshError::new(
        ErrorCode::InvalidConfig,
        mistakes.join("\n"),
    ))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "a failed test may panic")]
mod tests {
    use super::*;
    use mesh_proto::common;
    use serde_json::json;

    fn hello() -> Hello {
        Hello {
            min_protocol: 1,
            max_protocol: 1,
            manifest: Some(common::Manifest {
                name: "time".to_owned(),
                version: "1.0.0".to_owned(),
                ..common::Manifest::default()
            }),
            features: vec!["credits".to_owned(), "telepathy".to_owned()],
            ..Hello::default()
        }
    }

    fn expected(config: Value) -> Expected {
        Expected {
            plugin: None,
            instance: crate::roster::new_instance(),
            config,
            config_field: "agent.plugin_config.time".to_owned(),
        }
    }

    fn greet(mut hello: Hello, expected: Expected) -> Result<Accepted, MeshError> {
        let (manifest, protocol) = check_manifest(&mut hello)?;
        let (node, mesh) = ("node-1".parse().unwrap(), MeshName::default());
        let facts = HostFacts {
            node: &node,
            mesh: &mesh,
            max_concurrency: 100,
            max_payload: crate::session::limits::MAX_PAYLOAD_BYTES,
        };
        accept(&hello, manifest, protocol, &facts, expected)
    }

    #[test]
    fn a_good_hello_is_welcomed_with_configuration_features_and_limits() {
        let accepted = greet(hello(), expected(json!({"zone": "UTC"}))).unwrap();
        assert_eq!(accepted.concurrency, 100);
        match accepted.welcome.body {
            Some(host_frame::Body::Welcome(welcome)) => {
                assert_eq!(welcome.config, r#"{"zone":"UTC"}"#);
                assert_eq!(welcome.features, ["credits"]);
                assert_eq!(welcome.protocol, 1);
                assert_eq!(welcome.instance, accepted.instance.to_string());
                assert_eq!(welcome.limits.unwrap().concurrency, 100);
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_smaller_of_the_two_limits_on_calls_counts() {
        let mut hello = hello();
        hello.manifest.as_mut().unwrap().limits = Some(common::Limits {
            concurrency: 7,
            ..common::Limits::default()
        });
        assert_eq!(greet(hello, expected(json!({}))).unwrap().concurrency, 7);
    }

    #[test]
    fn neighbouring_protocols_meet_at_the_newest_that_both_speak() {
        assert_eq!(negotiate(1, 9), Ok(1));
        assert_eq!(negotiate(0, 0), Ok(1));
        let error = negotiate(2, 3).unwrap_err();
        assert_eq!(error.code, ErrorCode::Unsupported);
        assert!(error.message.contains("versions 2 to 3"), "{error}");
        assert!(negotiate(3, 2).unwrap_err().message.contains("greater"));
    }

    #[test]
    fn every_mistake_of_a_manifest_is_in_the_one_error() {
        let mut hello = hello();
        let manifest = hello.manifest.as_mut().unwrap();
        manifest.name = "Bad Name".to_owned();
        manifest.version = "one".to_owned();
        let error = greet(hello, expected(json!({}))).unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidManifest);
        assert!(error.message.contains("name: "), "{error}");
        assert!(error.message.contains("version: "), "{error}");
        let error = greet(Hello::default(), expected(json!({}))).unwrap_err();
        assert!(error.message.starts_with("manifest: "), "{error}");
    }

    #[test]
    fn every_mistake_of_a_configuration_is_in_the_one_error_with_its_field() {
        let mut hello = hello();
        let schema = json!({
            "type": "object",
            "properties": {"zone": {"type": "string"}, "depth": {"maximum": 3}},
            "required": ["key"],
        });
        hello.manifest.as_mut().unwrap().config_schema = schema.to_string().into();
        let config = json!({"zone": 5, "depth": 4});
        let error = greet(hello, expected(config)).unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidConfig);
        assert_eq!(error.place.plugin, "time");
        for line in [
            "agent.plugin_config.time.zone: ",
            "agent.plugin_config.time.depth: ",
            "agent.plugin_config.time: \"key\" is a required property",
        ] {
            assert!(error.message.contains(line), "{line} in {error}");
        }
    }

    #[test]
    fn a_schema_that_is_none_or_reaches_outside_is_the_manifests_mistake() {
        for schema in [
            json!({"type": "gadget"}),
            json!({"$ref": "http://example.com/schema.json"}),
        ] {
            let mut hello = hello();
            hello.manifest.as_mut().unwrap().config_schema = schema.to_string().into();
            let error = greet(hello, expected(json!({}))).unwrap_err();
            assert_eq!(error.code, ErrorCode::InvalidManifest);
            assert!(error.message.contains("config_schema"), "{error}");
        }
    }

    #[test]
    fn a_process_must_be_the_plugin_that_it_was_started_as() {
        let mut expected = expected(json!({}));
        expected.plugin = Some("calculator".parse().unwrap());
        let error = greet(hello(), expected).unwrap_err();
        assert!(
            error
                .message
                .contains("started as plugin calculator, but its manifest says time"),
            "{error}"
        );
    }
}
