//! Schemas of types that have none of their own, for `#[schemars(schema_with = "…")]`.

use schemars::{Schema, SchemaGenerator, json_schema};

/// A name of a mesh, node or plugin: a DNS label.
#[must_use]
pub fn name(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "pattern": "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$",
        "examples": ["node-1"],
    })
}

/// An address with a port.
#[must_use]
pub fn socket_addr(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "format": "ip-port",
        "examples": ["127.0.0.1:7400"],
    })
}

/// An address with a port, or nothing.
#[must_use]
pub fn optional_socket_addr(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": ["string", "null"],
        "format": "ip-port",
        "examples": ["127.0.0.1:7400"],
    })
}
