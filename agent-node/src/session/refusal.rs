//! Frames that say what was wrong.

use mesh_core::error::{ErrorCode, Place};
use mesh_proto::common;
use mesh_proto::plugin::{HostFrame, host_frame, plugin_frame};

/// An error as it travels, with its place.
pub(crate) fn wire_error(
    code: ErrorCode,
    message: impl Into<String>,
    place: &Place,
) -> Box<common::Error> {
    Box::new(common::Error {
        code: code.number(),
        message: message.into(),
        plugin: place.plugin.clone(),
        version: place.version.clone(),
        instance: place.instance.clone(),
        node: place.node.clone(),
        ..common::Error::default()
    })
}

/// An Error frame for an id.
pub(crate) fn error_frame(id: u64, error: Box<common::Error>) -> HostFrame {
    HostFrame {
        id,
        body: Some(host_frame::Body::Error(error)),
    }
}

/// A frame of the plugin by its name in the protocol, for error texts.
pub(crate) fn body_name(body: &plugin_frame::Body) -> &'static str {
    use plugin_frame::Body;
    match body {
        Body::Hello(_) => "Hello",
        Body::Ready(_) => "Ready",
        Body::Result(_) => "Result",
        Body::Chunk(_) => "Chunk",
        Body::Error(_) => "Error",
        Body::Progress(_) => "Progress",
        Body::Call(_) => "Call",
        Body::Cancel(_) => "Cancel",
        Body::Publish(_) => "Publish",
        Body::Ack(_) => "Ack",
        Body::Nak(_) => "Nak",
        Body::Message(_) => "Message",
        Body::Storage(_) => "StorageOperation",
        Body::Health(_) => "Health",
        Body::CapabilityChange(_) => "CapabilityChange",
        Body::Log(_) => "Log",
        Body::DrainRequest(_) => "DrainRequest",
        Body::Drained(_) => "Drained",
        Body::Credit(_) => "Credit",
        Body::ConfigApplied(_) => "ConfigApplied",
    }
}
