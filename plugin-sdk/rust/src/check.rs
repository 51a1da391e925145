//! The rules for a plugin's description, so that its author learns of mistakes before the mesh does.

use std::collections::HashSet;

use serde_json::Value;

use crate::uri_template;
use crate::wire::common::{self, CapabilityKind};

type Mistakes = Vec<(String, String)>;

/// Takes the mistakes of one capability: `tool add.name: …`.
pub(crate) struct Report<'a> {
    mistakes: &'a mut Mistakes,
    prefix: String,
}

impl<'a> Report<'a> {
    pub(crate) fn new(mistakes: &'a mut Mistakes, kind: &str, name: &str) -> Self {
        Self {
            mistakes,
            prefix: format!("{kind} {name}"),
        }
    }

    pub(crate) fn add(&mut self, field: &str, problem: impl Into<String>) {
        let field = format!("{}.{field}", self.prefix);
        self.mistakes.push((field, problem.into()));
    }
}

/// All mistakes in what a manifest says, but for its capabilities.
pub(crate) fn manifest(manifest: &common::Manifest) -> Mistakes {
    let mut mistakes = Mistakes::new();
    let mut add = |field: String, problem: Option<String>| {
        mistakes.extend(problem.map(|problem| (field, problem)));
    };
    add("name".to_owned(), plugin_name(&manifest.name));
    let version = semver::Version::parse(&manifest.version).err();
    add(
        "version".to_owned(),
        version.map(|why| {
            let given = &manifest.version;
            format!("{given:?} is no semantic version ({why}); write for example 1.0.0")
        }),
    );
    let home = &manifest.homepage;
    let web = home.starts_with("http://") || home.starts_with("https://");
    add(
        "homepage".to_owned(),
        (!home.is_empty() && !web).then(|| format!("{home:?} is no http or https address")),
    );
    let mut seen = HashSet::new();
    for need in &manifest.dependencies {
        let field = format!("dependencies.{}", need.plugin);
        add(field.clone(), plugin_name(&need.plugin));
        add(field.clone(), requirement(&need.requirement));
        let twice = !seen.insert(need.plugin.as_str());
        add(field, twice.then(|| "it is stated twice".to_owned()));
    }
    let mut seen = HashSet::new();
    for need in &manifest.requires {
        let field = format!("requires.{}", need.capability);
        add(field.clone(), capability(&need.capability));
        add(field.clone(), requirement(&need.requirement));
        let twice = !seen.insert(need.capability.as_str());
        add(field, twice.then(|| "it is stated twice".to_owned()));
    }
    mistakes
}

/// The variables of a template against the fields of the type that takes their values.
pub(crate) fn variables(template: &str, schema: &Value, report: &mut Report<'_>) {
    let required = schema.get("required").and_then(Value::as_array);
    for name in required.into_iter().flatten().filter_map(Value::as_str) {
        if !template.contains(&format!("{{{name}}}")) {
            report.add(
                name,
                format!("the handler's type needs it, but the template has no {{{name}}}"),
            );
        }
    }
    if !crate::schema::is_object(schema) && uri_template::check(template).is_ok() {
        report.add(
            "values",
            "the handler's type is not a JSON object: use a struct with a field for each variable"
                .to_owned(),
        );
    }
}

/// A kind as written in manifests; empty for one that the wire does not know.
pub(crate) fn kind_name(kind: i32) -> String {
    let known = CapabilityKind::try_from(kind).unwrap_or_default();
    let name = known.as_str_name().trim_start_matches("CAPABILITY_KIND_");
    name.to_ascii_lowercase()
}

fn plugin_name(name: &str) -> Option<String> {
    let good = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    let valid = (1..=63).contains(&name.len())
        && name.bytes().all(good)
        && !name.starts_with('-')
        && !name.ends_with('-');
    (!valid).then(|| {
        format!(
            "{name:?} is not valid: use 1 to 63 lowercase letters, digits and hyphens, with no \
             hyphen at either end"
        )
    })
}

fn requirement(text: &str) -> Option<String> {
    let error = semver::VersionReq::parse(text).err()?;
    Some(format!(
        "{text:?} is no version requirement ({error}); write for example ^2.0 or >=1.0.0"
    ))
}

fn capability(text: &str) -> Option<String> {
    let parts = text.split_once(':');
    let known = parts.is_some_and(|(kind, name)| {
        !name.is_empty() && (1..=8).any(|number| kind_name(number) == kind)
    });
    (!known).then(|| {
        format!("{text:?} is no capability: write kind:name, such as service:embedding.embed")
    })
}
