//! The loader: merges the sources, checks the whole against the schema, and finds every mistake.

use std::io::Read;
use std::path::{Path, PathBuf};

use figment::value::{Dict, Map as Profiles};
use figment::{Figment, Metadata, Profile, Provider};
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::check::mistakes_of;
use super::{ConfigErrors, Mistake, Validate, environment, schema};

/// The longest file that is read.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// Where a configuration comes from; later ones win: defaults, file, environment, flags.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// A TOML file; it must exist.
    pub file: Option<PathBuf>,
    /// Environment variables; [`Sources::with_env`] takes the process's.
    pub env: Vec<(String, String)>,
    /// Flags, as an object shaped like the configuration; nulls are flags that were not given.
    pub flags: Value,
    /// Flags that are not named after the last part of their setting: (setting, flag without
    /// hyphens), such as ("nats.url", "nats").
    pub flag_names: Vec<(&'static str, &'static str)>,
}

impl Sources {
    /// Takes the process's environment. What is not UTF-8 can't be a setting and is left out.
    #[must_use]
    pub fn with_env(mut self) -> Self {
        self.env = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .filter(|(name, _)| name.starts_with(super::ENV_PREFIX))
            .collect();
        self
    }
}

/// One source of values.
struct Layer {
    name: String,
    value: Value,
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name.clone())
    }

    fn data(&self) -> Result<Profiles<Profile, Dict>, figment::Error> {
        let dict = figment::value::Value::serialize(&self.value)?
            .into_dict()
            .unwrap_or_default();
        Ok(Profile::Default.collect(dict))
    }
}

/// Names of the layers; those of the environment and of flags stand for a name per value.
const DEFAULT: &str = "default";
const ENV: &str = "env";
const FLAG: &str = "flag";

/// Loads a configuration.
///
/// # Errors
/// [`ConfigErrors`] with every mistake: each names its field, what is wrong, the remedy and where the
/// value came from.
pub fn load<T>(sources: &Sources) -> Result<T, ConfigErrors>
where
    T: Serialize + DeserializeOwned + JsonSchema + Default + Validate,
{
    load_with(sources, T::validate)
}

/// [`load`] with rules of the caller's instead of the type's own, for what uses only a part of a
/// configuration.
///
/// # Errors
/// As [`load`].
pub fn load_with<T>(
    sources: &Sources,
    validate: impl FnOnce(&T) -> Vec<Mistake>,
) -> Result<T, ConfigErrors>
where
    T: Serialize + DeserializeOwned + JsonSchema + Default,
{
    let whole = schema::of::<T>();
    let environment = environment::read(&sources.env, &whole);
    let mut mistakes = environment.mistakes;
    let mut figment = Figment::from(Layer {
        name: DEFAULT.to_owned(),
        value: serde_json::to_value(T::default())
            .map_err(|error| broken("default", &error.to_string()))?,
    });
    if let Some(path) = &sources.file {
        match read_file(path) {
            Ok(value) => {
                let name = format!("file {}", path.display());
                figment = figment.merge(Layer { name, value });
            }
            Err(mistake) => mistakes.push(mistake),
        }
    }
    let mut flags = sources.flags.clone();
    drop_nulls(&mut flags);
    for (name, value) in [(ENV, environment.values), (FLAG, flags)] {
        let name = name.to_owned();
        figment = figment.merge(Layer { name, value });
    }
    let mut merged: Value = figment
        .extract()
        .map_err(|error| broken("configuration", &error.to_string()))?;
    empty_is_nothing(&mut merged, &whole, &mut Vec::new());
    let validator = schema::validator(&whole).map_err(|error| broken("schema", &error))?;
    let source = |path: &[String]| source(&figment, path, &sources.flag_names);
    let mut faulty = Vec::new();
    for (path, mut mistake) in mistakes_of(&validator, &whole, &merged) {
        mistake.source = source(&path);
        mistakes.push(mistake);
        faulty.push(path);
    }
    // What the schema refuses is looked at no further, and what it takes still is.
    let defaults = serde_json::to_value(T::default()).unwrap_or_default();
    for path in &faulty {
        restore(&mut merged, &defaults, path);
    }
    match read_value::<T>(&merged, &figment) {
        Ok(config) => {
            for mut mistake in validate(&config) {
                let path = split(&mistake.field);
                if faulty
                    .iter()
                    .any(|faulty| setting(faulty) == setting(&path))
                {
                    continue;
                }
                if mistake.source.is_empty() {
                    mistake.source = source(&path);
                }
                mistakes.push(mistake);
            }
            if mistakes.is_empty() {
                return Ok(config);
            }
        }
        // Without a reason in the schema this is the only one.
        Err((path, mut mistake)) if mistakes.is_empty() => {
            mistake.source = source(&path);
            mistakes.push(mistake);
        }
        Err(_) => {}
    }
    Err(ConfigErrors(mistakes))
}

/// A fault that no value can cause.
fn broken(what: &str, why: &str) -> ConfigErrors {
    let remedy = "this is a bug of Plugmesh: report it";
    ConfigErrors(vec![Mistake::new(what, why, remedy)])
}

/// The text of a file of a person's making; what has no end is left alone.
fn read_text(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    let file = std::fs::File::open(path)?;
    let read = file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text)?;
    if read as u64 > MAX_FILE_BYTES {
        let why = format!("it has more than {MAX_FILE_BYTES} bytes");
        return Err(std::io::Error::new(std::io::ErrorKind::FileTooLarge, why));
    }
    Ok(text)
}

fn read_file(path: &Path) -> Result<Value, Mistake> {
    let shown = path.display().to_string();
    let text = read_text(path).map_err(|error| {
        let remedy = "give a TOML file that this user may read with --config";
        Mistake::new(&shown, format!("can't be read: {error}"), remedy)
    })?;
    toml::from_str(&text).map_err(|error| {
        let start = error.span().map_or(0, |span| span.start);
        let before = text.get(..start).unwrap_or(&text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
        let problem = format!("is not TOML: {}", error.message().trim());
        let remedy = "mend the file there; the format is at https://toml.io";
        Mistake::new(
            format!("{shown} line {line}, column {column}"),
            problem.replace('\n', ", "),
            remedy,
        )
    })
}

fn drop_nulls(value: &mut Value) {
    if let Value::Object(object) = value {
        object.retain(|_, value| !value.is_null());
        object.values_mut().for_each(drop_nulls);
    }
}

/// The setting that a path leads to or into: its section and name.
fn setting(path: &[String]) -> &[String] {
    path.get(..2).unwrap_or(path)
}

/// Puts the default in the place of a setting, or takes away what has none.
fn restore(merged: &mut Value, defaults: &Value, path: &[String]) {
    let (mut place, mut default) = (merged, Some(defaults));
    let Some((last, sections)) = setting(path).split_last() else {
        return;
    };
    for section in sections {
        default = default.and_then(|default| default.get(section));
        let Some(inner) = place.get_mut(section) else {
            return;
        };
        place = inner;
    }
    let Value::Object(place) = place else {
        return;
    };
    match default.and_then(|default| default.get(last)) {
        Some(default) => place.insert(last.clone(), default.clone()),
        None => place.remove(last),
    };
}

/// TOML has no null: an empty text turns an optional setting off.
fn empty_is_nothing(value: &mut Value, whole: &Value, path: &mut Vec<String>) {
    match value {
        Value::Object(object) => {
            for (key, value) in object.iter_mut() {
                path.push(key.clone());
                empty_is_nothing(value, whole, path);
                path.pop();
            }
        }
        Value::String(text) if text.is_empty() => {
            let types = schema::at(whole, path).map(schema::types);
            if types.is_some_and(|types| types.contains(&"null")) {
                *value = Value::Null;
            }
        }
        _ => {}
    }
}

/// What the schema let through but the types do not take.
fn read_value<T: DeserializeOwned>(
    merged: &Value,
    figment: &Figment,
) -> Result<T, (Vec<String>, Mistake)> {
    serde_json::from_value(merged.clone()).map_err(|error| {
        // serde_json does not tell where; figment does.
        match figment.extract::<T>().err() {
            Some(found) if !found.path.is_empty() => {
                let mistake = Mistake::new(join(&found.path), found.kind.to_string(), "");
                (found.path, mistake)
            }
            _ => (
                Vec::new(),
                Mistake::new("configuration", error.to_string(), ""),
            ),
        }
    })
}

/// Where the value at a path came from; where nothing is, where its section came from.
fn source(figment: &Figment, path: &[String], flag_names: &[(&str, &str)]) -> String {
    let found = (1..=path.len()).rev().find_map(|length| {
        let path = path.get(..length)?;
        let name = &figment.find_metadata(&path.join("."))?.name;
        Some((name.as_ref(), path))
    });
    let Some((name, path)) = found else {
        return String::new();
    };
    // Lists are set as a whole.
    let named: Vec<&str> = path
        .iter()
        .map(String::as_str)
        .take_while(|key| key.parse::<usize>().is_err())
        .collect();
    match name {
        ENV => format!("env {}", super::env_name(&named.join("."))),
        FLAG => {
            let setting = named.join(".");
            let own = flag_names.iter().find(|(name, _)| *name == setting);
            let key = named.last().copied().unwrap_or_default();
            let flag = own.map_or_else(|| key.replace('_', "-"), |(_, flag)| (*flag).to_owned());
            format!("flag --{flag}")
        }
        other => other.to_owned(),
    }
}

/// `a.b[0].c` of a, b, 0, c.
pub(super) fn join(path: &[String]) -> String {
    let mut text = String::new();
    for key in path {
        if key.parse::<usize>().is_ok() {
            text.extend(["[", key, "]"]);
        } else {
            if !text.is_empty() {
                text.push('.');
            }
            text.push_str(key);
        }
    }
    text
}

fn split(field: &str) -> Vec<String> {
    field
        .split(['.', '[', ']'])
        .filter(|key| !key.is_empty())
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests;
