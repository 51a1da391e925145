//! The rules of a manifest; all mistakes are found at once.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use semver::Version;
use serde_json::value::RawValue;

use super::draft::{HookDraft, ManifestDraft, Mistakes, NeedDraft};
use super::{Hook, Manifest, Need, Permissions, Subscription};
use crate::capability::{Capability, CapabilityError, CapabilityKind};
use crate::id::PluginName;
use crate::version::{Requirement, parse_dependency};

/// Largest manifest, as JSON, in bytes.
pub const MAX_MANIFEST_BYTES: usize = 256 * 1024;

/// Longest topic or hook point, in bytes.
const MAX_TOPIC_BYTES: usize = 200;

/// Longest description, homepage, license, author or tag, in bytes.
const MAX_TEXT_BYTES: usize = 4 * 1024;

/// Longest time that a hook may ask for, in milliseconds.
const MAX_HOOK_MS: u32 = 10 * 60 * 1000;

/// A list's most entries; capabilities have a limit of their own.
const MAX_ENTRIES: usize = 256;

impl ManifestDraft {
    /// Checks every rule.
    ///
    /// # Errors
    /// All [`Mistakes`], each with its field.
    pub fn check(self) -> Result<Manifest, Mistakes> {
        let mut mistakes = Mistakes::default();
        let found = &mut mistakes;
        self.check_texts(found);
        let name = parsed::<PluginName>("name", &self.name, "a name", found);
        let version = check_version(&self.version, found);
        let dependencies = check_needs("dependencies", self.dependencies, found, parse_plugin);
        if let Some(name) = &name
            && dependencies.contains_key(name)
        {
            found.add(
                format!("dependencies.{name}"),
                "a plugin can't depend on itself: remove it",
            );
        }
        let requires = check_needs("requires", self.requires, found, parse_capability);
        check_count("hooks", self.hooks.len(), found);
        let hooks = self.hooks.into_iter().enumerate();
        let hooks = hooks
            .map(|(place, hook)| check_hook(place, hook, found))
            .collect();
        check_subscriptions(&self.subscriptions, found);
        check_permissions(&self.permissions, found);
        let config_schema = check_schema(self.config_schema, found);
        let capabilities = super::capabilities::check_all(self.capabilities, found);
        for capability in requires.keys() {
            if capabilities.iter().any(|own| own.capability == *capability) {
                let text = "the plugin provides this itself: remove it";
                found.add(format!("requires.\"{capability}\""), text);
            }
        }
        let (Some(name), Some(version)) = (name, version) else {
            return Err(mistakes);
        };
        let manifest = Manifest {
            name,
            version,
            description: self.description,
            authors: self.authors,
            license: self.license,
            homepage: self.homepage,
            tags: self.tags,
            dependencies,
            requires,
            hooks,
            subscriptions: self.subscriptions,
            config_schema,
            permissions: self.permissions,
            limits: self.limits,
            capabilities,
        };
        check_size(&manifest, found);
        if mistakes.0.is_empty() {
            Ok(manifest)
        } else {
            Err(mistakes)
        }
    }

    fn check_texts(&self, found: &mut Mistakes) {
        let mut text = |field: String, text: &str| {
            if text.len() > MAX_TEXT_BYTES {
                found.add(
                    field,
                    format_args!("is {} bytes long, 4 KiB is the most", text.len()),
                );
            }
        };
        text("description".into(), &self.description);
        text("license".into(), &self.license);
        text("homepage".into(), &self.homepage);
        for (field, list) in [("authors", &self.authors), ("tags", &self.tags)] {
            for (place, entry) in list.iter().enumerate() {
                text(format!("{field}[{place}]"), entry);
            }
        }
        let web = ["http://", "https://"];
        if !self.homepage.is_empty() && !web.iter().any(|head| self.homepage.starts_with(head)) {
            found.add(
                "homepage",
                "write an address that begins with https:// or http://",
            );
        }
        check_count("authors", self.authors.len(), found);
        check_count("tags", self.tags.len(), found);
    }
}

fn check_count(field: &str, count: usize, found: &mut Mistakes) {
    if count > MAX_ENTRIES {
        found.add(
            field,
            format_args!("has {count} entries, {MAX_ENTRIES} is the most"),
        );
    }
}

/// Parses a text that must be there.
fn parsed<T: std::str::FromStr<Err: Display>>(
    field: &str,
    text: &str,
    what: &str,
    found: &mut Mistakes,
) -> Option<T> {
    if text.is_empty() {
        found.add(field, format_args!("is missing: write {what}"));
        return None;
    }
    text.parse().map_err(|error| found.add(field, error)).ok()
}

fn check_version(text: &str, found: &mut Mistakes) -> Option<Version> {
    if text.is_empty() {
        found.add("version", "is missing: write a version such as \"1.0.0\"");
        return None;
    }
    Version::parse(text)
        .map_err(|error| {
            let given: String = text.chars().take(80).collect();
            let remedy = "write a semantic version such as \"1.0.0\"";
            found.add(
                "version",
                format_args!("{given:?} is not valid: {error}; {remedy}"),
            );
        })
        .ok()
}

/// The path of a requirement in mistakes, quoted as TOML would where the name is not plain.
pub(super) fn need_path(field: &str, name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if name.chars().all(plain) {
        format!("{field}.{name}")
    } else {
        format!("{field}.{name:?}")
    }
}

/// What is needed and which versions will do, or the mistakes in either.
type Parsed<K> = Result<(K, Requirement), Vec<String>>;

fn parse_plugin(need: &NeedDraft) -> Parsed<PluginName> {
    if need.requirement.trim().is_empty() {
        // A name alone, or the one-text spelling with the requirement in it.
        return parse_dependency(&need.what).map_err(|error| vec![error.to_string()]);
    }
    both(PluginName::new(&need.what), need)
}

fn parse_capability(need: &NeedDraft) -> Parsed<Capability> {
    both(need.what.parse(), need)
}

fn both<K, E: Display>(what: Result<K, E>, need: &NeedDraft) -> Parsed<K> {
    let requirement = match need.requirement.trim() {
        "" => Ok(Requirement::any()),
        text => text.parse::<Requirement>(),
    };
    match (what, requirement) {
        (Ok(what), Ok(requirement)) => Ok((what, requirement)),
        (what, requirement) => {
            let what = what.err().map(|error| error.to_string());
            let requirement = requirement.err().map(|error| error.to_string());
            Err(what.into_iter().chain(requirement).collect())
        }
    }
}

fn check_needs<K: Ord>(
    field: &str,
    needs: Vec<NeedDraft>,
    found: &mut Mistakes,
    parse: impl Fn(&NeedDraft) -> Parsed<K>,
) -> BTreeMap<K, Need> {
    check_count(field, needs.len(), found);
    let mut checked = BTreeMap::new();
    for (place, need) in needs.into_iter().enumerate() {
        let path = match need.what.as_str() {
            "" => format!("{field}[{place}]"),
            name if name.len() > 80 => format!("{field}[{place}]"),
            name => need_path(field, name),
        };
        match parse(&need) {
            Ok((what, requirement)) => {
                let need = Need {
                    requirement,
                    optional: need.optional,
                };
                if checked.insert(what, need).is_some() {
                    found.add(path, "stands here twice: keep one of them");
                }
            }
            Err(problems) => {
                for problem in problems {
                    found.add(path.as_str(), problem);
                }
            }
        }
    }
    checked
}

fn check_hook(place: usize, hook: HookDraft, found: &mut Mistakes) -> Hook {
    if let Err(rule) = check_topic(&hook.point, false) {
        found.add(format!("hooks[{place}].point"), rule);
    }
    if hook.timeout_ms > MAX_HOOK_MS {
        found.add(
            format!("hooks[{place}].timeout"),
            format_args!("{} ms is too long, 10 minutes is the most", hook.timeout_ms),
        );
    }
    Hook {
        point: hook.point,
        priority: hook.priority,
        timeout: (hook.timeout_ms > 0).then(|| Duration::from_millis(hook.timeout_ms.into())),
        abort_on_error: hook.abort_on_error,
    }
}

fn check_subscriptions(wishes: &[Subscription], found: &mut Mistakes) {
    check_count("subscriptions", wishes.len(), found);
    for (place, wish) in wishes.iter().enumerate() {
        if let Err(rule) = check_topic(&wish.topic, true) {
            found.add(format!("subscriptions[{place}].topic"), rule);
        } else if wishes
            .iter()
            .take(place)
            .any(|other| other.topic == wish.topic)
        {
            found.add(
                format!("subscriptions[{place}].topic"),
                format_args!("{:?} is subscribed twice: keep one of them", wish.topic),
            );
        }
    }
}

/// The rule for topics and hook points: tokens separated by dots, of letters, digits, `-` and `_`.
pub(super) fn check_topic(topic: &str, wildcards: bool) -> Result<(), String> {
    if topic.is_empty() {
        return Err("is missing: write a name such as ticket.extracted".to_owned());
    }
    let given: String = topic.chars().take(80).collect();
    if topic.len() > MAX_TOPIC_BYTES {
        return Err(format!(
            "{given:?} is {} bytes long, {MAX_TOPIC_BYTES} is the most",
            topic.len()
        ));
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let tokens: Vec<&str> = topic.split('.').collect();
    for (place, token) in tokens.iter().enumerate() {
        let last = place + 1 == tokens.len();
        let rule = match *token {
            "" => "a token between dots is empty",
            "*" if wildcards => continue,
            ">" if wildcards && last => continue,
            ">" if wildcards => "> stands for the rest, so it is the last token",
            "*" | ">" => "wildcards stand only in subscriptions and permissions",
            token if token.chars().all(plain) => continue,
            token if wildcards && token.contains(['*', '>']) => {
                "* and > stand for whole tokens: write agent.task.*"
            }
            _ => "tokens are made of letters, digits, - and _",
        };
        return Err(format!("{given:?} is not valid: {rule}"));
    }
    Ok(())
}

fn check_permissions(permissions: &Permissions, found: &mut Mistakes) {
    let lists = [
        &permissions.publish,
        &permissions.call,
        &permissions.network,
    ];
    for (field, list) in ["publish", "call", "network"].iter().zip(lists) {
        check_count(&format!("permissions.{field}"), list.len(), found);
    }
    for (place, topic) in permissions.publish.iter().enumerate() {
        if let Err(rule) = check_topic(topic, true) {
            found.add(format!("permissions.publish[{place}]"), rule);
        }
    }
    for (place, pattern) in permissions.call.iter().enumerate() {
        if let Err(rule) = check_call_pattern(pattern) {
            found.add(format!("permissions.call[{place}]"), rule);
        }
    }
    for (place, pair) in permissions.network.iter().enumerate() {
        let host_and_port = pair.rsplit_once(':').filter(|(host, port)| {
            !host.is_empty() && !host.contains(char::is_whitespace) && port.parse::<u16>().is_ok()
        });
        if host_and_port.is_none() {
            found.add(
                format!("permissions.network[{place}]"),
                format_args!("{pair:?} is not valid: write host:port, such as api.github.com:443"),
            );
        }
    }
}

/// `kind:name`, where the name may end in `*`.
fn check_call_pattern(pattern: &str) -> Result<(), String> {
    let remedy = "write kind:name, such as tool:add or service:embedding.*";
    let Some((kind, name)) = pattern.split_once(':') else {
        return Err(format!("{pattern:?} is not valid: {remedy}"));
    };
    let known: CapabilityKind = kind
        .parse()
        .map_err(|error: CapabilityError| error.to_string())?;
    if known.as_str() != kind {
        return Err(format!("{pattern:?} is not valid: write {known}:{name}"));
    }
    if name.is_empty() || name.strip_suffix('*').unwrap_or(name).contains('*') {
        return Err(format!(
            "{pattern:?} is not valid: * stands only at the end; {remedy}"
        ));
    }
    Ok(())
}

fn check_schema(schema: Vec<u8>, found: &mut Mistakes) -> Option<Arc<RawValue>> {
    if schema.is_empty() {
        return None;
    }
    match super::capabilities::json_object(schema) {
        Ok((raw, _)) => Some(raw),
        Err(rule) => {
            found.add("config_schema", format_args!("{rule}: write a JSON Schema"));
            None
        }
    }
}

fn check_size(manifest: &Manifest, found: &mut Mistakes) {
    let size = serde_json::to_vec(manifest).map_or(usize::MAX, |json| json.len());
    if size > MAX_MANIFEST_BYTES {
        found.add(
            "manifest",
            format_args!(
                "is {size} bytes long as JSON, {MAX_MANIFEST_BYTES} (256 KiB) is the most: shorten \
                 descriptions and schemas, or split the plugin"
            ),
        );
    }
}
