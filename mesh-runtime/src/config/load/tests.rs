//! What the loader takes, and the exact lines that it answers mistakes with.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a failed test may panic"
)]

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::*;
use crate::config::{ByteSize, HumanDuration, NatsSection, TelemetryConfig};
use mesh_core::id::NodeId;
use serde::Deserialize;
use serde_json::json;

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
struct Whole {
    nats: NatsSection,
    telemetry: TelemetryConfig,
    gateway: Gateway,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
struct Gateway {
    #[schemars(schema_with = "schema::socket_addr")]
    listen: SocketAddr,
    #[schemars(schema_with = "schema::name")]
    name: NodeId,
    #[schemars(range(min = 1, max = 64))]
    shards: u16,
    timeout: HumanDuration,
    max_body: ByteSize,
    open: bool,
    hosts: Vec<String>,
    labels: BTreeMap<String, String>,
    plugins: Vec<Plugin>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
struct Plugin {
    #[schemars(schema_with = "schema::name")]
    name: NodeId,
    #[serde(default)]
    command: Vec<String>,
}

impl Default for Gateway {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:8087".parse().unwrap(),
            name: "gateway".parse().unwrap(),
            shards: 1,
            timeout: HumanDuration::from_secs(30),
            max_body: ByteSize::from_mib(4),
            open: false,
            hosts: Vec::new(),
            labels: BTreeMap::new(),
            plugins: Vec::new(),
        }
    }
}

impl Validate for Whole {
    fn validate(&self) -> Vec<Mistake> {
        if self.gateway.timeout.get().is_zero() {
            return vec![Mistake::new(
                "gateway.timeout",
                "is zero",
                "give 1ms or more",
            )];
        }
        Vec::new()
    }
}

fn sources(file: &str, env: &[(&str, &str)], flags: Value) -> (tempfile::TempDir, Sources) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("plugmesh.toml");
    std::fs::write(&path, file).unwrap();
    let env = env
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    let file = Some(path);
    let flag_names = vec![("nats.url", "nats")];
    let sources = Sources {
        file,
        env,
        flags,
        flag_names,
    };
    (folder, sources)
}

/// The lines that come back, with the folder cut out.
fn lines(file: &str, env: &[(&str, &str)], flags: Value) -> Vec<String> {
    let (folder, sources) = sources(file, env, flags);
    let errors = load::<Whole>(&sources).unwrap_err();
    let folder = format!("{}/", folder.path().display());
    let text = errors.to_string().replace(&folder, "");
    text.lines().map(str::to_owned).collect()
}

#[test]
fn nothing_given_is_the_defaults() {
    assert_eq!(load::<Whole>(&Sources::default()), Ok(Whole::default()));
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let file = "[gateway]\nshards = 2\nlisten = \"127.0.0.1:1\"\ntimeout = \"2s\"\n";
    let env = [
        ("PLUGMESH_GATEWAY__LISTEN", "127.0.0.1:2"),
        ("PLUGMESH_GATEWAY__TIMEOUT", "3s"),
    ];
    let flags = json!({ "gateway": { "listen": "127.0.0.1:3", "name": null } });
    let (_folder, sources) = sources(file, &env, flags);
    let gateway = load::<Whole>(&sources).unwrap().gateway;
    assert_eq!(gateway.shards, 2);
    assert_eq!(gateway.timeout, HumanDuration::from_secs(3));
    assert_eq!(gateway.listen.port(), 3);
    assert_eq!(gateway.name.as_str(), "gateway");
}

#[test]
fn the_environment_is_read_as_the_schema_wants_it() {
    let env = [
        ("PLUGMESH_GATEWAY__NAME", "5"),
        ("PLUGMESH_GATEWAY__SHARDS", " 3 "),
        ("PLUGMESH_GATEWAY__OPEN", "true"),
        ("PLUGMESH_GATEWAY__HOSTS", "a.example, b.example"),
        ("PLUGMESH_GATEWAY__LABELS__ZONE", "eu"),
        ("PLUGMESH_GATEWAY__PLUGINS", r#"[{"name":"time"}]"#),
        ("PLUGMESH_TELEMETRY__OTLP_ENDPOINT", ""),
        ("PLUGMESH_AGENT", "unix:///tmp/a"),
        ("HOME", "/root"),
    ];
    let (_folder, sources) = sources("", &env, Value::Null);
    let whole = load::<Whole>(&sources).unwrap();
    assert_eq!(whole.gateway.name.as_str(), "5");
    assert_eq!(whole.gateway.shards, 3);
    assert!(whole.gateway.open);
    assert_eq!(whole.gateway.hosts, ["a.example", "b.example"]);
    assert_eq!(whole.gateway.labels["zone"], "eu");
    assert_eq!(whole.gateway.plugins[0].name.as_str(), "time");
    assert_eq!(whole.telemetry.otlp_endpoint, None);
}

#[test]
fn every_mistake_comes_at_once_with_its_source() {
    let file = "nast = 1\n[gateway]\nlisten = \"localhost\"\nshards = 0\ntimeout = 10\n\
                lisen = \"x\"\n[telemetry]\nlog_format = \"jsn\"\n[[gateway.plugins]]\nname = \"Time\"\n\
                [[gateway.plugins]]\ncommand = \"x\"\n";
    let env = [
        ("PLUGMESH_GATEWAY__MAX_BODY", "4MB"),
        ("PLUGMESH_GATEWAY__SHARD", "1"),
        ("PLUGMESH_GATEWAY_LISTEN", "127.0.0.1:1"),
    ];
    let flags = json!({ "gateway": { "name": "A B" }, "nats": { "url": "localhost:4222" } });
    let mut found = lines(file, &env, flags);
    found.sort();
    let mut wanted = [
        "PLUGMESH_GATEWAY_LISTEN: no such setting; two underscores separate section and setting: \
         write PLUGMESH_GATEWAY__LISTEN (from env PLUGMESH_GATEWAY_LISTEN)",
        "PLUGMESH_GATEWAY__SHARD: no such setting; did you mean PLUGMESH_GATEWAY__SHARDS? \
         (from env PLUGMESH_GATEWAY__SHARD)",
        "gateway.lisen: no such setting; did you mean listen? (from file plugmesh.toml)",
        "gateway.listen: \"localhost\" is not an address with a port; write for example \
         127.0.0.1:7400 (from file plugmesh.toml)",
        "gateway.max_body: \"4MB\" is not a size; write for example 64KiB or 4MiB \
         (from env PLUGMESH_GATEWAY__MAX_BODY)",
        "gateway.name: \"A B\" is not 1 to 63 lowercase letters, digits and hyphens, with no hyphen \
         at either end; write for example node-1 (from flag --name)",
        "gateway.plugins[0].name: \"Time\" is not 1 to 63 lowercase letters, digits and hyphens, \
         with no hyphen at either end; write for example node-1 (from file plugmesh.toml)",
        "gateway.plugins[1].command: must be a list, and is \"x\" (from file plugmesh.toml)",
        "gateway.plugins[1].name: is missing; write for example node-1 (from file plugmesh.toml)",
        "gateway.shards: 0 is too small; give at least 1 (from file plugmesh.toml)",
        "gateway.timeout: must be a text, and is 10; write for example 250ms or 10s or 5m \
         (from file plugmesh.toml)",
        "nast: no such setting; did you mean nats? (from file plugmesh.toml)",
        "nats.url: \"localhost:4222\" is not one or more addresses of NATS servers; write for \
         example nats://127.0.0.1:4222 (from flag --nats)",
        "telemetry.log_format: \"jsn\"; write one of text, json; did you mean json? \
         (from file plugmesh.toml)",
    ];
    wanted.sort_unstable();
    assert_eq!(found, wanted);
}

#[test]
fn an_empty_text_turns_an_optional_setting_off() {
    let file = "[telemetry]\notlp_endpoint = \"\"\n[gateway.labels]\nzone = \"\"\n";
    let (_folder, sources) = sources(file, &[], Value::Null);
    let whole = load::<Whole>(&sources).unwrap();
    assert_eq!(whole.telemetry.otlp_endpoint, None);
    assert_eq!(whole.gateway.labels["zone"], "");
}

#[test]
fn a_rule_of_the_type_itself_is_checked_last_and_has_its_source() {
    assert_eq!(
        lines("[gateway]\ntimeout = \"0s\"\n", &[], Value::Null),
        ["gateway.timeout: is zero; give 1ms or more (from file plugmesh.toml)"]
    );
    // Beside mistakes that the schema finds, too.
    let file =
        "[gateway]\ntimeout = \"0s\"\nshards = 0\nx = 1\n[telemetry]\nlog_level = \"loud\"\n";
    let mut found = lines(file, &[], json!({ "nats": 5 }));
    found.sort();
    assert_eq!(
        found,
        [
            "gateway.shards: 0 is too small; give at least 1 (from file plugmesh.toml)",
            "gateway.timeout: is zero; give 1ms or more (from file plugmesh.toml)",
            "gateway.x: no such setting; remove it; there are listen, name, shards, timeout, \
             max_body, open, hosts, labels, plugins (from file plugmesh.toml)",
            "nats: must be a table, and is 5 (from flag --nats)",
            "telemetry.log_level: \"loud\" is not a filter of log lines: error, warn, info, debug, \
             trace, or pairs; write for example info or info,gateway=debug (from file plugmesh.toml)",
        ]
    );
}

#[test]
fn a_file_that_is_not_toml_is_named_with_line_and_column() {
    let found = lines("[gateway]\nlisten = = 1\n", &[], Value::Null);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].starts_with("plugmesh.toml line 2, column 10: is not TOML: "),
        "{found:?}"
    );
}

#[cfg(unix)]
#[test]
fn a_file_without_an_end_is_refused() {
    let sources = Sources {
        file: Some("/dev/zero".into()),
        ..Sources::default()
    };
    let text = load::<Whole>(&sources).unwrap_err().to_string();
    let expected = "/dev/zero: can't be read: it has more than 1048576 bytes";
    assert!(text.starts_with(expected), "{text}");
}

#[test]
fn a_file_that_is_not_there_is_said_so() {
    let sources = Sources {
        file: Some("/nowhere/plugmesh.toml".into()),
        ..Sources::default()
    };
    let text = load::<Whole>(&sources).unwrap_err().to_string();
    assert!(
        text.starts_with("/nowhere/plugmesh.toml: can't be read: No such file"),
        "{text}"
    );
}
