//! The manifest as a file, `plugin.toml`.

use std::cell::RefCell;

use serde_json::{Map, Number, Value as Json};
use toml::{Table, Value};

use super::draft::{CapabilityDraft, HookDraft, ManifestDraft, Mistakes, NeedDraft};
use super::reader::{Reader, nearest};
use super::{Limits, Manifest, Permissions, Subscription, units};
use crate::capability::CapabilityKind;

/// A manifest as it stands in a package.
#[derive(Debug, Clone)]
pub struct ManifestFile {
    /// What the plugin says of itself; the configuration's schema, a file of its own, is not in it.
    pub manifest: Manifest,
    /// The file with the JSON Schema of the configuration, relative to the manifest.
    pub config_schema_path: Option<String>,
    /// How the plugin is started; `None`: somebody else starts it, and it attaches.
    pub runtime: Option<RuntimeCommand>,
}

/// How a plugin is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeCommand {
    /// The program and its arguments; a relative program is looked for beside the manifest.
    pub command: Vec<String>,
}

/// Fields that stand in the table `[plugin]` of the file and at the top of a manifest.
const PLUGIN_FIELDS: [&str; 7] = [
    "name",
    "version",
    "description",
    "authors",
    "license",
    "homepage",
    "tags",
];

impl ManifestFile {
    /// Reads the text of a `plugin.toml`.
    ///
    /// # Errors
    /// All [`Mistakes`], each with the path of its key. A text that is no TOML has one, with its line.
    pub fn parse(text: &str) -> Result<Self, Mistakes> {
        let table: Table = match text.parse() {
            Ok(table) => table,
            Err(error) => return Err(syntax_mistake(text, &error)),
        };
        let mistakes = RefCell::new(Mistakes::default());
        let mut file = Reader::new("", table, &mistakes);
        let mut draft = ManifestDraft::default();
        read_plugin(&mut file, &mut draft);
        read_needs(&mut file, &mut draft);
        draft.hooks = file.sections("hooks").into_iter().map(read_hook).collect();
        let wishes = file.sections("subscriptions").into_iter();
        draft.subscriptions = wishes.map(read_subscription).collect();
        let config_schema_path = read_config(&mut file);
        draft.permissions = read_permissions(&mut file);
        let runtime = read_runtime(&mut file);
        draft.limits = read_limits(&mut file);
        for (list, kind) in LISTS {
            let entries = file.sections(list).into_iter();
            draft
                .capabilities
                .extend(entries.filter_map(|entry| read_entry(entry, kind)));
        }
        file.finish();
        let mut mistakes = mistakes.into_inner();
        match draft.check() {
            Ok(manifest) if mistakes.0.is_empty() => Ok(Self {
                manifest,
                config_schema_path,
                runtime,
            }),
            Ok(_) => Err(mistakes),
            Err(more) => {
                merge(&mut mistakes, more);
                Err(mistakes)
            }
        }
    }
}

/// Adds the mistakes of the check under the file's own paths, but for those that only follow from a
/// key which could not be read.
fn merge(mistakes: &mut Mistakes, more: Mistakes) {
    for mut mistake in more.0 {
        let head = mistake.field.split(['.', '[']).next().unwrap_or_default();
        if PLUGIN_FIELDS.contains(&head) {
            mistake.field = format!("plugin.{}", mistake.field);
        } else if LISTS.iter().any(|(list, _)| *list == head) {
            mistake.field = mistake.field.replacen("].entry.", "].", 1);
        }
        let same = |field: &str| match mistake.field.strip_prefix(field) {
            Some(rest) => rest.is_empty() || rest.starts_with(['.', '[']),
            None => false,
        };
        if !mistakes.0.iter().any(|other| same(&other.field)) {
            mistakes.0.push(mistake);
        }
    }
}

fn syntax_mistake(text: &str, error: &toml::de::Error) -> Mistakes {
    let before = error.span().and_then(|span| text.get(..span.start));
    let field = before.map_or_else(
        || "plugin.toml".to_owned(),
        |before| {
            let line = before.matches('\n').count() + 1;
            let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
            format!("line {line}, column {column}")
        },
    );
    let problem = error.message().replace('\n', ", ");
    let mut mistakes = Mistakes::default();
    mistakes.add(field, format_args!("is not TOML: {problem}"));
    mistakes
}

fn read_plugin(file: &mut Reader<'_>, draft: &mut ManifestDraft) {
    let mut plugin = file.section("plugin");
    draft.name = plugin.text("name");
    draft.version = plugin.text("version");
    draft.description = plugin.text("description");
    draft.authors = plugin.texts("authors");
    draft.license = plugin.text("license");
    draft.homepage = plugin.text("homepage");
    draft.tags = plugin.texts("tags");
    plugin.finish();
}

fn read_needs(file: &mut Reader<'_>, draft: &mut ManifestDraft) {
    // The list of texts such as "utils^2.0" is how other systems write it.
    draft.dependencies = match file.take("dependencies") {
        None => Vec::new(),
        Some(Value::Table(table)) => read_need_table(file, "dependencies", table),
        Some(Value::Array(items)) => {
            let texts = items
                .into_iter()
                .enumerate()
                .filter_map(|(place, item)| match item {
                    Value::String(what) => Some(NeedDraft {
                        what,
                        ..NeedDraft::default()
                    }),
                    other => {
                        let problem = format!(
                            "is of type {}, but must be a text such as \"utils^2.0\"",
                            other.type_str()
                        );
                        file.mistake(&format!("dependencies[{place}]"), problem);
                        None
                    }
                });
            texts.collect()
        }
        Some(other) => {
            let problem = format!(
                "is of type {}, but must be a table, or a list of texts such as \"utils^2.0\"",
                other.type_str()
            );
            file.mistake("dependencies", problem);
            Vec::new()
        }
    };
    let requires = file.section("requires").rest();
    draft.requires = read_need_table(file, "requires", requires);
}

fn read_need_table(file: &Reader<'_>, field: &str, table: Table) -> Vec<NeedDraft> {
    let mut needs = Vec::with_capacity(table.len());
    for (what, value) in table {
        let shown: String = what.chars().take(80).collect();
        let path = super::check::need_path(field, &shown);
        match value {
            Value::String(requirement) => needs.push(NeedDraft {
                what,
                requirement,
                optional: false,
            }),
            Value::Table(table) => {
                let mut need = file.nested(path, table);
                needs.push(NeedDraft {
                    what,
                    requirement: need.text("version"),
                    optional: need.flag("optional").unwrap_or(false),
                });
                need.finish();
            }
            other => {
                let problem = format!(
                    "is of type {}, but must be a requirement such as \"^2.0\"",
                    other.type_str()
                );
                file.mistake(&path, problem);
            }
        }
    }
    needs
}

fn read_hook(mut hook: Reader<'_>) -> HookDraft {
    let point = hook.text("point");
    let priority = hook.whole("priority").unwrap_or_default();
    let timeout = hook.text("timeout");
    let abort_on_error = hook.word("on_error", ["continue", "abort"]) == 1;
    let timeout_ms = match timeout.as_str() {
        "" => 0,
        text => match units::DURATION.parse(text) {
            Ok(0) => {
                hook.mistake("timeout", "is 0: leave it out for the mesh's default");
                0
            }
            Ok(ms) => u32::try_from(ms).unwrap_or(u32::MAX),
            Err(problem) => {
                hook.mistake("timeout", problem);
                0
            }
        },
    };
    hook.finish();
    HookDraft {
        point,
        priority,
        timeout_ms,
        abort_on_error,
    }
}

fn read_subscription(mut wish: Reader<'_>) -> Subscription {
    let read = Subscription {
        topic: wish.text("topic"),
        at_least_once: wish.word("delivery", ["at_most_once", "at_least_once"]) == 1,
        broadcast: wish.word("group", ["plugin", "broadcast"]) == 1,
    };
    wish.finish();
    read
}

fn read_config(file: &mut Reader<'_>) -> Option<String> {
    let mut config = file.section("config");
    let schema = config.text("schema");
    let inside = !schema.starts_with('/') && !schema.split(['/', '\\']).any(|part| part == "..");
    if !inside {
        let problem = format!("{schema:?} is not valid: write a path inside the package");
        config.mistake("schema", problem);
    }
    config.finish();
    (inside && !schema.is_empty()).then_some(schema)
}

fn read_permissions(file: &mut Reader<'_>) -> Permissions {
    let mut permissions = file.section("permissions");
    let read = Permissions {
        publish: permissions.texts("publish"),
        call: permissions.texts("call"),
        network: permissions.texts("network"),
    };
    permissions.finish();
    read
}

fn read_runtime(file: &mut Reader<'_>) -> Option<RuntimeCommand> {
    let given = file.has("runtime");
    let mut runtime = file.section("runtime");
    let command = runtime.texts("command");
    if given && command.first().is_none_or(String::is_empty) {
        let problem = "is missing: write the program and its arguments, such as [\"./my-plugin\"]";
        runtime.mistake("command", problem);
    }
    runtime.finish();
    given.then_some(RuntimeCommand { command })
}

fn read_limits(file: &mut Reader<'_>) -> Limits {
    let mut limits = file.section("limits");
    let mut read = Limits::default();
    match limits.take("memory") {
        None => {}
        Some(Value::Integer(bytes)) if bytes > 0 => read.memory_bytes = bytes.unsigned_abs(),
        Some(Value::String(text)) => match units::SIZE.parse(&text) {
            Ok(bytes) => read.memory_bytes = bytes,
            Err(problem) => limits.mistake("memory", problem),
        },
        Some(_) => limits.mistake("memory", "must be a size such as \"100MiB\""),
    }
    let cores = match limits.take("cpu") {
        None => None,
        Some(Value::Integer(cores)) => Some(cores as f64),
        Some(Value::Float(cores)) => Some(cores),
        Some(_) => Some(f64::NAN),
    };
    match cores {
        None => {}
        Some(cores) if (0.001..=4_096.0).contains(&cores) => {
            // In range: at most 4,096,000.
            read.cpu_millis = (cores * 1_000.0).round() as u32;
        }
        Some(_) => limits.mistake(
            "cpu",
            "must be a number of processor cores such as 0.5, from 0.001 to 4096",
        ),
    }
    read.concurrency = limits.whole("concurrency").unwrap_or_default();
    limits.finish();
    read
}

/// Lists of capabilities that may stand in the file.
const LISTS: [(&str, CapabilityKind); 6] = [
    ("tools", CapabilityKind::Tool),
    ("resources", CapabilityKind::Resource),
    ("resource_templates", CapabilityKind::ResourceTemplate),
    ("prompts", CapabilityKind::Prompt),
    ("services", CapabilityKind::Service),
    ("orchestrators", CapabilityKind::Orchestrator),
];

/// Reads one entry: our own keys are taken out, all others are the entry as MCP names them.
fn read_entry(mut entry: Reader<'_>, kind: CapabilityKind) -> Option<CapabilityDraft> {
    let works = matches!(kind, CapabilityKind::Service | CapabilityKind::Orchestrator);
    let streaming = entry
        .flag("streaming")
        .unwrap_or(kind == CapabilityKind::Orchestrator);
    let client_streaming = entry.flag("client_streaming").unwrap_or(false);
    let idempotent = entry.flag("idempotent");
    let read_only = entry.flag("read_only");
    let mut object = Map::new();
    for (key, value) in entry.rest() {
        match to_json(value) {
            Some(json) => {
                object.insert(key, json);
            }
            None => entry.mistake(&key, "holds a number that JSON does not know (nan or inf)"),
        }
    }
    let known = super::capabilities::known_fields(kind);
    for key in object.keys().filter(|key| !known.contains(&key.as_str())) {
        // What MCP may name one day passes, a slip of the pen does not.
        match nearest(key, &known) {
            Some(near) => entry.mistake(key, format_args!("is not known: did you mean {near}?")),
            None if works => {
                let keys = known.join(", ");
                entry.mistake(key, format_args!("is not known: the keys here are {keys}"));
            }
            None => {}
        }
    }
    let hint = |name: &str| {
        let annotations = object.get("annotations");
        annotations
            .and_then(|all| all.get(name))
            .and_then(Json::as_bool)
    };
    // MCP reads resources and prompts; only the others do things.
    let reads = kind != CapabilityKind::Tool && !works;
    let read_only = read_only.or_else(|| hint("readOnlyHint")).unwrap_or(reads);
    let idempotent = idempotent
        .or_else(|| hint("idempotentHint"))
        .unwrap_or(false);
    if kind == CapabilityKind::Tool && !object.contains_key("inputSchema") {
        let none = Map::from_iter([("type".to_owned(), Json::from("object"))]);
        object.insert("inputSchema".to_owned(), none.into());
    }
    let name_key = super::capabilities::name_field(kind);
    let name = match object.get(name_key) {
        Some(Json::String(name)) if !name.is_empty() => name.clone(),
        Some(Json::String(_)) | None => {
            entry.mistake(name_key, "is missing");
            return None;
        }
        Some(_) => {
            entry.mistake(name_key, "must be a text in quotes");
            return None;
        }
    };
    Some(CapabilityDraft {
        field: entry.path().to_owned(),
        kind: kind.as_str().to_owned(),
        name,
        entry: Json::Object(object).to_string().into_bytes(),
        idempotent,
        read_only,
        streaming,
        client_streaming,
    })
}

/// `None` for numbers that JSON does not have.
fn to_json(value: Value) -> Option<Json> {
    Some(match value {
        Value::String(text) => text.into(),
        Value::Integer(number) => number.into(),
        Value::Float(number) => Json::Number(Number::from_f64(number)?),
        Value::Boolean(flag) => flag.into(),
        Value::Datetime(time) => time.to_string().into(),
        Value::Array(items) => Json::Array(items.into_iter().map(to_json).collect::<Option<_>>()?),
        Value::Table(table) => Json::Object(
            table
                .into_iter()
                .map(|(key, value)| Some((key, to_json(value)?)))
                .collect::<Option<_>>()?,
        ),
    })
}
