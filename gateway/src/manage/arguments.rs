//! Reading a tool's arguments, with errors that name the field.

use mesh_core::id::PluginName;
use rmcp::model::{ErrorData, JsonObject};
use serde_json::Value;

use crate::mcp::errors::invalid_params;

/// The arguments of one call; each field is read once.
pub struct Arguments<'a> {
    tool: &'a str,
    fields: JsonObject,
    known: Vec<&'static str>,
}

impl<'a> Arguments<'a> {
    pub fn new(tool: &'a str, fields: JsonObject) -> Self {
        Self {
            tool,
            fields,
            known: Vec::new(),
        }
    }

    /// A field that breaks a rule.
    pub fn wrong(&self, field: &str, problem: impl std::fmt::Display) -> ErrorData {
        invalid_params(format!("{}: argument {field}: {problem}", self.tool))
    }

    fn take(&mut self, field: &'static str) -> Option<Value> {
        self.known.push(field);
        // What is null is as good as not given.
        self.fields
            .shift_remove(field)
            .filter(|value| !value.is_null())
    }

    /// A text, if given.
    pub fn text(&mut self, field: &'static str) -> Result<Option<String>, ErrorData> {
        match self.take(field) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => {
                Err(self.wrong(field, format!("must be a string, not {}", brief(&other))))
            }
        }
    }

    /// True or false, if given.
    pub fn flag(&mut self, field: &'static str) -> Result<Option<bool>, ErrorData> {
        match self.take(field) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(flag)),
            Some(other) => Err(self.wrong(
                field,
                format!("must be true or false, not {}", brief(&other)),
            )),
        }
    }

    /// The plugin's name, which must be given.
    pub fn plugin(&mut self) -> Result<PluginName, ErrorData> {
        let Some(text) = self.text("name")? else {
            return Err(self.wrong(
                "name",
                "is missing: give a plugin's name, list_plugins shows them",
            ));
        };
        PluginName::new(&text).map_err(|error| self.wrong("name", error))
    }

    /// Refuses what was given and is no argument of the tool.
    pub fn finish(self) -> Result<(), ErrorData> {
        let Some(field) = self.fields.keys().next() else {
            return Ok(());
        };
        let shown: String = field.chars().take(80).collect();
        let known = self.known.join(", ");
        Err(self.wrong(
            &format!("{shown:?}"),
            format!("is not known; there are {known}"),
        ))
    }
}

fn brief(value: &Value) -> String {
    value.to_string().chars().take(40).collect()
}
