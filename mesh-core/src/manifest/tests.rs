//! Manifests as people write them: one that uses everything, and every mistake with its line.

use proptest::prelude::*;

use super::*;

const WHOLE: &str = r#"
[plugin]
name = "github"
version = "2.0.0"
description = "Issues and pull requests"
authors = ["A. Person"]
license = "MIT"
homepage = "https://example.org"
tags = ["vcs"]

[dependencies]
utils = "^2.0"
slack = { version = ">=1", optional = true }

[requires]
"service:embedding.embed" = ">=1"

[[hooks]]
point = "ticket.extracted"
priority = 50
timeout = "2s"
on_error = "abort"

[[subscriptions]]
topic = "agent.task.*"
delivery = "at_least_once"
group = "broadcast"

[config]
schema = "config.schema.json"

[permissions]
publish = ["plugin.github.>"]
call = ["service:embedding.*"]
network = ["api.github.com:443"]

[runtime]
command = ["./github-plugin", "--fast"]

[limits]
memory = "100MiB"
cpu = 0.5
concurrency = 32

[[tools]]
name = "search"
description = "Finds issues"
annotations = { readOnlyHint = true }
inputSchema = { type = "object", properties = { text = { type = "string" } } }
x-vendor = 1

[[resources]]
uri = "github://me"
name = "me"

[[resource_templates]]
uriTemplate = "github://user/{name}"
name = "user"

[[prompts]]
name = "review"
arguments = [{ name = "number", required = true }]

[[services]]
name = "github.watch"
streaming = true
idempotent = true

[[orchestrators]]
name = "github.migrate"
client_streaming = true
"#;

#[test]
fn a_file_that_uses_everything_is_read() {
    let file = ManifestFile::parse(WHOLE).expect("valid");
    let manifest = file.manifest;
    assert_eq!(manifest.name.as_str(), "github");
    assert_eq!(
        file.config_schema_path.as_deref(),
        Some("config.schema.json")
    );
    assert_eq!(file.runtime.unwrap().command, ["./github-plugin", "--fast"]);
    assert_eq!(manifest.limits.memory_bytes, 100 << 20);
    assert_eq!(manifest.limits.cpu_millis, 500);
    assert_eq!(manifest.hooks[0].timeout, Some(Duration::from_secs(2)));
    assert!(manifest.hooks[0].abort_on_error);
    assert!(manifest.subscriptions[0].at_least_once && manifest.subscriptions[0].broadcast);
    let optional: Vec<_> = manifest
        .dependencies
        .values()
        .map(|need| need.optional)
        .collect();
    assert_eq!(optional, [true, false]);
    let shown: Vec<_> = manifest
        .capabilities
        .iter()
        .map(|entry| {
            (
                entry.capability.to_string(),
                entry.may_repeat(),
                entry.streaming,
                entry.client_streaming,
            )
        })
        .collect();
    let row = |name: &str, repeat, streaming, takes| (name.to_owned(), repeat, streaming, takes);
    assert_eq!(
        shown,
        [
            row("tool:search", true, false, false),
            row("resource:github://me", true, false, false),
            row("resource_template:github://user/{name}", true, false, false),
            row("prompt:review", true, false, false),
            row("service:github.watch", true, true, false),
            row("orchestrator:github.migrate", false, true, true),
        ]
    );
    let tool = manifest.capabilities[0].entry.as_ref().unwrap().get();
    assert!(
        tool.contains(r#""x-vendor":1"#),
        "fields that nobody knows stay: {tool}"
    );
}

#[test]
fn dependencies_may_be_a_list_of_texts() {
    let text = "dependencies = [\"base-plugin>=1.0.0\", \"utils-plugin^2.0.0\", \"time\"]\n\
                [plugin]\nname = \"a\"\nversion = \"1.0.0\"\n";
    let manifest = ManifestFile::parse(text).expect("valid").manifest;
    let shown: Vec<_> = manifest
        .dependencies
        .iter()
        .map(|(name, need)| format!("{name} {}", need.requirement))
        .collect();
    assert_eq!(
        shown,
        ["base-plugin >=1.0.0", "time *", "utils-plugin ^2.0.0"]
    );
}

#[test]
fn a_manifest_survives_json() {
    let manifest = ManifestFile::parse(WHOLE).expect("valid").manifest;
    let json = serde_json::to_string(&manifest).unwrap();
    let back: Manifest = serde_json::from_str(&json).unwrap();
    assert_eq!(back, manifest);
}

/// Lines that are added to a valid head, and the lines that come back.
const MISTAKES: &[(&str, &str)] = &[
    (
        "[plugin]\nname = \"Time\"\nversion = \"1\"\n",
        "plugin.name: plugin name \"Time\" is not valid: use 1 to 63 lowercase letters, digits and \
         hyphens, with no hyphen at either end\n\
         plugin.version: \"1\" is not valid: unexpected end of input while parsing major version \
         number; write a semantic version such as \"1.0.0\"",
    ),
    (
        "",
        "plugin.name: is missing: write a name\n\
         plugin.version: is missing: write a version such as \"1.0.0\"",
    ),
    (
        "[plugin]\nname = 7\nversoin = \"1.0.0\"\n",
        "plugin.name: is of type integer, but must be a text in quotes\n\
         plugin.versoin: is not known: did you mean version?\n\
         plugin.version: is missing: write a version such as \"1.0.0\"",
    ),
    (
        "[plugin]\nname = \"a\"\nversion = \"1.0.0\"\nhomepage = \"example.org\"\ntags = [1]\n",
        "plugin.tags[0]: is of type integer, but must be a text in quotes\n\
         plugin.homepage: write an address that begins with https:// or http://",
    ),
    (
        "+[dependencies]\nutils = \"banana\"\na = \"*\"\nslack = { versoin = \"1\" }\ntime = 1\n",
        "dependencies.slack.versoin: is not known: did you mean version?\n\
         dependencies.time: is of type integer, but must be a requirement such as \"^2.0\"\n\
         dependencies.utils: version requirement \"banana\" is not valid: unexpected character 'b' \
         while parsing major version number; write for example ^2.0 or >=1.0.0\n\
         dependencies.a: a plugin can't depend on itself: remove it",
    ),
    (
        "+[requires]\nembedding = \">=1\"\n\"gadget:x\" = \"1\"\n",
        "requires.embedding: capability \"embedding\" is not valid: write kind:name, such as tool:add \
         or service:embedding.embed\n\
         requires.\"gadget:x\": capability \"gadget\" is not valid: the kinds are tool, resource, \
         resource_template, prompt, service, orchestrator, hook and route",
    ),
    (
        "+[[hooks]]\npoint = \"a..b\"\ntimeout = \"2 days\"\non_error = \"stop\"\npriority = \"high\"\n\
         [[hooks]]\npoint = \"a.*\"\ntimeout = \"11m\"\n",
        "hooks[0].priority: is of type string, but must be a whole number\n\
         hooks[0].on_error: \"stop\" is not known: write \"continue\" or \"abort\"\n\
         hooks[0].timeout: \"2 days\" is not valid: write a duration such as \"250ms\", \"2s\" or \"5m\"\n\
         hooks[0].point: \"a..b\" is not valid: a token between dots is empty\n\
         hooks[1].point: \"a.*\" is not valid: wildcards stand only in subscriptions and permissions\n\
         hooks[1].timeout: 660000 ms is too long, 10 minutes is the most",
    ),
    (
        "+[[subscriptions]]\ntopic = \"a.>.b\"\n[[subscriptions]]\ntopic = \"task*\"\n\
         delivery = \"exactly_once\"\n[[subscriptions]]\ntopic = \"a b\"\n[[subscriptions]]\n",
        "subscriptions[1].delivery: \"exactly_once\" is not known: write \"at_most_once\" or \
         \"at_least_once\"\n\
         subscriptions[0].topic: \"a.>.b\" is not valid: > stands for the rest, so it is the last token\n\
         subscriptions[1].topic: \"task*\" is not valid: * and > stand for whole tokens: write \
         agent.task.*\n\
         subscriptions[2].topic: \"a b\" is not valid: tokens are made of letters, digits, - and _\n\
         subscriptions[3].topic: is missing: write a name such as ticket.extracted",
    ),
    (
        "+[permissions]\npublish = [\"a.b*\"]\ncall = [\"embed\", \"tool:a*b\", \"tools:a\"]\nnetwork = [\"x\"]\n",
        "permissions.publish[0]: \"a.b*\" is not valid: * and > stand for whole tokens: write \
         agent.task.*\n\
         permissions.call[0]: \"embed\" is not valid: write kind:name, such as tool:add or \
         service:embedding.*\n\
         permissions.call[1]: \"tool:a*b\" is not valid: * stands only at the end; write kind:name, \
         such as tool:add or service:embedding.*\n\
         permissions.call[2]: \"tools:a\" is not valid: write tool:a\n\
         permissions.network[0]: \"x\" is not valid: write host:port, such as api.github.com:443",
    ),
    (
        "+[limits]\nmemory = \"lots\"\ncpu = -1\nconcurrency = -5\nmemroy = 1\n",
        "limits.memory: \"lots\" is not valid: write a size such as \"100MiB\"\n\
         limits.cpu: must be a number of processor cores such as 0.5, from 0.001 to 4096\n\
         limits.concurrency: -5 is out of range\n\
         limits.memroy: is not known: did you mean memory?",
    ),
    (
        "+[config]\nschema = \"../schema.json\"\n[runtime]\ncommand = []\n[extra]\n",
        "config.schema: \"../schema.json\" is not valid: write a path inside the package\n\
         runtime.command: is missing: write the program and its arguments, such as [\"./my-plugin\"]\n\
         extra: is not known: the keys here are plugin, dependencies, requires, hooks, subscriptions, \
         config, permissions, runtime, limits, tools, resources, resource_templates, prompts, services, orchestrators",
    ),
    (
        "+[[tools]]\nname = \"a b\"\n[[tools]]\nname = \"c\"\ninput_schema = {}\n\
         [[tools]]\nname = \"d\"\ninputSchema = { type = \"array\" }\n[[tools]]\ntitle = 1\n\
         [[tools]]\nname = \"e\"\n[[tools]]\nname = \"e\"\n",
        "tools[1].input_schema: is not known: did you mean inputSchema?\n\
         tools[3].name: is missing\n\
         tools[0].name: \"a b\" is not valid: use 1 to 128 letters, digits, _, -, . and /\n\
         tools[2].inputSchema.type: must be \"object\": a tool takes its arguments as a JSON object\n\
         tools[5]: tool:e stands here twice: keep one of them",
    ),
    (
        "+[[resources]]\nuri = \"current\"\nname = \"n\"\nsize = \"big\"\n\
         [[resource_templates]]\nuriTemplate = \"time://{+zone}\"\nname = \"n\"\n\
         [[prompts]]\nname = \"p\"\narguments = [{}]\n",
        "resources[0].uri: \"current\" is not valid: write an absolute URI, such as time://current \
         (RFC 3986)\n\
         resources[0].size: is of type string, but must be of number\n\
         resource_templates[0].uriTemplate: URI template \"time://{+zone}\" is not valid: between { and \
         } stands one name of letters, digits, _ and . (RFC 6570, level 1: no operators, no lists)\n\
         prompts[0].arguments[0].name: is missing: each argument of a prompt has a name",
    ),
    (
        "+[[services]]\nname = \"a.b\"\nstreamed = true\n[requires]\n\"service:a.b\" = \"1\"\n",
        "services[0].streamed: is not known: the keys here are name, title, description, icons, \
         _meta, inputSchema, outputSchema\n\
         requires.\"service:a.b\": the plugin provides this itself: remove it",
    ),
    (
        "[plugin]\nname = \"a\nversion = \"1.0.0\"\n",
        "line 2, column 10: is not TOML: invalid basic string, expected `\"`",
    ),
    (
        "tools = 1\n[[plugin]]\nname = \"a\"\n",
        "plugin: is of type array, but must be a table\n\
         tools: is of type integer, but must be a list of tables, written [[tools]]",
    ),
];

#[test]
fn every_mistake_comes_back_at_once_with_its_field_and_remedy() {
    for (text, lines) in MISTAKES {
        let text = match text.strip_prefix('+') {
            Some(rest) => format!("[plugin]\nname = \"a\"\nversion = \"1.0.0\"\n{rest}"),
            None => (*text).to_owned(),
        };
        let mistakes = ManifestFile::parse(&text).expect_err(&text);
        assert_eq!(mistakes.to_string(), *lines, "of:\n{text}");
    }
}

fn draft() -> ManifestDraft {
    ManifestDraft {
        name: "a".into(),
        version: "1.0.0".into(),
        ..ManifestDraft::default()
    }
}

fn tool(place: usize, name: &str, entry: &[u8]) -> CapabilityDraft {
    CapabilityDraft {
        field: format!("capabilities[{place}]"),
        kind: "tool".into(),
        name: name.into(),
        entry: entry.into(),
        ..CapabilityDraft::default()
    }
}

#[test]
fn entries_from_the_wire_are_held_to_what_mcp_says() {
    let mistakes = ManifestDraft {
        capabilities: vec![
            tool(0, "a", b""),
            tool(1, "b", b"{"),
            tool(2, "c", b"[]"),
            tool(3, "d", b"\xff"),
            tool(
                4,
                "e",
                br#"{"name": "f", "inputSchema": {"type": "object"}}"#,
            ),
            tool(5, "g", br#"{"name": 1, "description": 2}"#),
            CapabilityDraft {
                kind: "9".into(),
                ..tool(6, "h", b"{}")
            },
            CapabilityDraft {
                kind: "route".into(),
                ..tool(7, "no-slash", b"")
            },
        ],
        config_schema: b"true".into(),
        ..draft()
    };
    assert_eq!(
        mistakes.check().expect_err("mistakes").to_string(),
        "config_schema: is not a JSON object: write a JSON Schema\n\
         capabilities[0].entry: is missing: give an MCP tool as a JSON object\n\
         capabilities[1].entry: is not valid JSON\n\
         capabilities[2].entry: is not a JSON object\n\
         capabilities[3].entry: is not UTF-8\n\
         capabilities[4].entry.name: is \"f\", but the capability is named \"e\": make them equal\n\
         capabilities[5].entry.name: is of type number, but must be of string\n\
         capabilities[5].entry.description: is of type number, but must be of string\n\
         capabilities[5].entry.inputSchema: is missing: an MCP tool must have it\n\
         capabilities[6].kind: capability \"9\" is not valid: the kinds are tool, resource, \
         resource_template, prompt, service, orchestrator, hook and route\n\
         capabilities[7].name: \"no-slash\" is not valid: write a path that begins with /"
    );
}

#[test]
fn size_and_number_have_limits() {
    let service = |place: usize| CapabilityDraft {
        field: format!("capabilities[{place}]"),
        kind: "service".into(),
        name: format!("s.m{place}"),
        ..CapabilityDraft::default()
    };
    let many = ManifestDraft {
        capabilities: (0..=MAX_CAPABILITIES).map(service).collect(),
        ..draft()
    };
    assert_eq!(
        many.check().expect_err("too many").to_string(),
        "capabilities: has 1025 entries, 1024 is the most: split the plugin"
    );
    let schema = format!(
        "{{\"description\": \"{}\"}}",
        "x".repeat(MAX_MANIFEST_BYTES)
    );
    let large = ManifestDraft {
        config_schema: schema.into(),
        ..draft()
    };
    let line = large.check().expect_err("too large").to_string();
    assert!(line.starts_with("manifest: is 262"), "{line}");
    assert!(
        line.contains("262144 (256 KiB) is the most: shorten"),
        "{line}"
    );
}

#[test]
fn mistakes_become_one_error_of_the_mesh() {
    let mistakes = ManifestDraft::default().check().expect_err("empty");
    let error = crate::error::MeshError::from(mistakes);
    assert_eq!(
        error.to_string(),
        "invalid_manifest: the manifest has 2 mistakes: name: is missing: write a name; version: is \
         missing: write a version such as \"1.0.0\""
    );
}

#[test]
fn an_error_with_thousands_of_mistakes_stays_small() {
    let capabilities = (0..MAX_CAPABILITIES).map(|place| tool(place, &"ä".repeat(128), b"[]"));
    let mistakes = CapabilityDraft::check_all(capabilities.collect()).expect_err("wrong");
    assert_eq!(mistakes.0.len(), 2 * MAX_CAPABILITIES);
    let line = crate::error::MeshError::from(mistakes).to_string();
    assert!(
        line.ends_with("; and 1984 more") && line.len() < 64 * 1024,
        "{}",
        line.len()
    );
}

/// Pieces that are likely to reach the inner rules.
fn piece() -> impl Strategy<Value = String> {
    let words = proptest::sample::select(vec![
        "[plugin]\n",
        "name = ",
        "version = ",
        "\"1.0.0\"\n",
        "[dependencies]\n",
        "a = ",
        "{}",
        "[[tools]]\n",
        "[[hooks]]\n",
        "point = ",
        "timeout = ",
        "\"2s\"",
        "[limits]\n",
        "memory = ",
        "cpu = ",
        "nan",
        "1e999",
        "\n",
        "uriTemplate = ",
        "\"{\"",
        "\"a://{b}\"\n",
        "[",
        "]",
        "\"",
        "=",
        "[requires]\n",
        "'tool:a' = ",
        "1979-05-27T07:32:00Z",
        "-0",
        "{ version = \"*\" }",
        "[[resource_templates]]\n",
        "name = \"a\"\n",
    ]);
    prop_oneof![4 => words.prop_map(str::to_owned), 1 => ".{0,8}"]
}

proptest! {
    #[test]
    fn garbage_never_panics(pieces in proptest::collection::vec(piece(), 0..40)) {
        if let Err(mistakes) = ManifestFile::parse(&pieces.concat()) {
            prop_assert!(!mistakes.0.is_empty());
            prop_assert!(mistakes.0.iter().all(|mistake| !mistake.problem.is_empty()));
        }
    }

    #[test]
    fn any_text_in_any_field_never_panics(text in ".{0,20}", other in "[a-z.:*>{}/ ]{0,12}") {
        for text in [text, other] {
            let need = NeedDraft { what: text.clone(), requirement: text.clone(), optional: false };
            let list = vec![text.clone()];
            let _ = ManifestDraft {
                name: text.clone(),
                version: text.clone(),
                homepage: text.clone(),
                dependencies: vec![need.clone()],
                requires: vec![need],
                hooks: vec![HookDraft { point: text.clone(), ..HookDraft::default() }],
                permissions: Permissions { publish: list.clone(), call: list.clone(), network: list },
                capabilities: crate::capability::CapabilityKind::ALL
                    .into_iter()
                    .map(|kind| CapabilityDraft {
                        kind: kind.to_string(),
                        ..tool(0, &text, text.as_bytes())
                    })
                    .collect(),
                ..ManifestDraft::default()
            }
            .check();
        }
    }
}
