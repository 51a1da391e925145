//! Describes resources and resource templates: MCP's `Resource` and `ResourceTemplate`.

use serde_json::{Map, Value};

use super::{check_uri, entry, set};
use crate::check::Report;
use crate::uri_template;
use crate::wire::common::{CapabilityEntry, CapabilityKind};

/// Describes a resource.
///
/// ```
/// use plugmesh_sdk::{Plugin, Resource};
/// let motd = Resource::new("notes://motd").name("motd").mime_type("text/plain");
/// let plugin = Plugin::new("notes", "1.0.0").resource(motd, async |_| Ok("Be kind"));
/// assert!(plugin.check().is_ok());
/// ```
#[derive(Debug, Clone)]
pub struct Resource {
    uri: String,
    fields: Map<String, Value>,
}

/// Describes a family of resources by a URI template (RFC 6570, level 1).
///
/// ```
/// use plugmesh_sdk::{Plugin, ResourceTemplate};
/// #[derive(serde::Deserialize, schemars::JsonSchema)]
/// struct Note { id: u32 }
/// let notes = ResourceTemplate::new("notes://note/{id}").name("note");
/// let plugin = Plugin::new("notes", "1.0.0")
///     .resource_template(notes, async |note: Note, _| Ok(format!("Note {}", note.id)));
/// assert!(plugin.check().is_ok());
/// ```
#[derive(Debug, Clone)]
pub struct ResourceTemplate {
    template: String,
    fields: Map<String, Value>,
}

impl Resource {
    /// The resource of this URI.
    ///
    /// ```
    /// let resource = plugmesh_sdk::Resource::new("time://current");
    /// # let _ = resource;
    /// ```
    #[must_use]
    pub fn new(uri: impl Into<String>) -> Self {
        Self {
            uri: uri.into(),
            fields: Map::new(),
        }
    }

    /// The name for programs; the default is the URI.
    ///
    /// ```
    /// let resource = plugmesh_sdk::Resource::new("time://current").name("current");
    /// # let _ = resource;
    /// ```
    #[must_use]
    pub fn name(self, name: impl Into<String>) -> Self {
        self.field("name", name.into())
    }

    /// The name that people see.
    ///
    /// ```
    /// let resource = plugmesh_sdk::Resource::new("time://current").title("Current time");
    /// # let _ = resource;
    /// ```
    #[must_use]
    pub fn title(self, title: impl Into<String>) -> Self {
        self.field("title", title.into())
    }

    /// What it holds; a language model decides by this text.
    ///
    /// ```
    /// let resource = plugmesh_sdk::Resource::new("time://current").description("The time now");
    /// # let _ = resource;
    /// ```
    #[must_use]
    pub fn description(self, text: impl Into<String>) -> Self {
        self.field("description", text.into())
    }

    /// The media type of what it holds.
    ///
    /// ```
    /// let resource = plugmesh_sdk::Resource::new("time://current").mime_type("text/plain");
    /// # let _ = resource;
    /// ```
    #[must_use]
    pub fn mime_type(self, mime_type: impl Into<String>) -> Self {
        self.field("mimeType", mime_type.into())
    }

    /// Sets any other field of the entry, such as `size`; clients get it as it is.
    ///
    /// ```
    /// let resource = plugmesh_sdk::Resource::new("notes://motd").field("size", 7);
    /// # let _ = resource;
    /// ```
    #[must_use]
    pub fn field(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.fields.insert(name.into(), value.into());
        self
    }

    pub(crate) fn uri(&self) -> &str {
        &self.uri
    }

    pub(crate) fn media(&self) -> Option<String> {
        text(&self.fields, "mimeType")
    }

    pub(crate) fn build(self, report: &mut Report<'_>) -> CapabilityEntry {
        if let Err(rule) = check_uri(&self.uri) {
            report.add("uri", format!("{:?} is not valid: {rule}", self.uri));
        }
        let fields = complete("uri", &self.uri, self.fields);
        CapabilityEntry {
            idempotent: true,
            read_only: true,
            ..entry(CapabilityKind::Resource, &self.uri, Some(fields))
        }
    }
}

impl ResourceTemplate {
    /// The resources of this template, such as `notes://note/{id}`.
    ///
    /// ```
    /// let template = plugmesh_sdk::ResourceTemplate::new("notes://note/{id}");
    /// # let _ = template;
    /// ```
    #[must_use]
    pub fn new(template: impl Into<String>) -> Self {
        Self {
            template: template.into(),
            fields: Map::new(),
        }
    }

    /// The name for programs; the default is the template.
    ///
    /// ```
    /// let template = plugmesh_sdk::ResourceTemplate::new("notes://note/{id}").name("note");
    /// # let _ = template;
    /// ```
    #[must_use]
    pub fn name(self, name: impl Into<String>) -> Self {
        self.field("name", name.into())
    }

    /// The name that people see.
    ///
    /// ```
    /// let template = plugmesh_sdk::ResourceTemplate::new("notes://note/{id}").title("A note");
    /// # let _ = template;
    /// ```
    #[must_use]
    pub fn title(self, title: impl Into<String>) -> Self {
        self.field("title", title.into())
    }

    /// What the resources hold; a language model decides by this text.
    ///
    /// ```
    /// let template = plugmesh_sdk::ResourceTemplate::new("notes://note/{id}")
    ///     .description("The note of a number");
    /// # let _ = template;
    /// ```
    #[must_use]
    pub fn description(self, text: impl Into<String>) -> Self {
        self.field("description", text.into())
    }

    /// The media type of what the resources hold.
    ///
    /// ```
    /// let template = plugmesh_sdk::ResourceTemplate::new("notes://note/{id}")
    ///     .mime_type("text/markdown");
    /// # let _ = template;
    /// ```
    #[must_use]
    pub fn mime_type(self, mime_type: impl Into<String>) -> Self {
        self.field("mimeType", mime_type.into())
    }

    /// Sets any other field of the entry; clients get it as it is.
    ///
    /// ```
    /// use serde_json::json;
    /// let template = plugmesh_sdk::ResourceTemplate::new("notes://note/{id}")
    ///     .field("annotations", json!({"priority": 0.5}));
    /// # let _ = template;
    /// ```
    #[must_use]
    pub fn field(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.fields.insert(name.into(), value.into());
        self
    }

    pub(crate) fn template(&self) -> &str {
        &self.template
    }

    pub(crate) fn media(&self) -> Option<String> {
        text(&self.fields, "mimeType")
    }

    pub(crate) fn build(self, report: &mut Report<'_>) -> CapabilityEntry {
        let checked = check_uri(&self.template).and_then(|()| uri_template::check(&self.template));
        if let Err(rule) = checked {
            report.add(
                "uriTemplate",
                format!("{:?} is not valid: {rule}", self.template),
            );
        }
        let fields = complete("uriTemplate", &self.template, self.fields);
        CapabilityEntry {
            idempotent: true,
            read_only: true,
            ..entry(
                CapabilityKind::ResourceTemplate,
                &self.template,
                Some(fields),
            )
        }
    }
}

impl From<&str> for Resource {
    fn from(uri: &str) -> Self {
        Self::new(uri)
    }
}

impl From<&str> for ResourceTemplate {
    fn from(template: &str) -> Self {
        Self::new(template)
    }
}

fn complete(key: &str, uri: &str, given: Map<String, Value>) -> Map<String, Value> {
    let mut fields = Map::new();
    set(&mut fields, key, uri);
    set(&mut fields, "name", uri);
    fields.extend(given);
    fields
}

fn text(fields: &Map<String, Value>, key: &str) -> Option<String> {
    fields.get(key).and_then(Value::as_str).map(str::to_owned)
}
