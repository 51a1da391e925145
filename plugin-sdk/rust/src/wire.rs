//! Short names for the generated bindings of the plugin protocol. Nothing of it is public.

pub(crate) use crate::generated::plugmesh::common::v1 as common;
pub(crate) use crate::generated::plugmesh::plugin::v1::{
    self as plugin, HostFrame, PluginFrame, host_frame::Body as HostBody,
    plugin_frame::Body as PluginBody,
};

/// The only version of the protocol that this SDK speaks.
pub(crate) const PROTOCOL: u32 = 1;

/// Largest part of a payload in one frame, in bytes.
pub(crate) const MAX_PART_BYTES: usize = 128 * 1024;

/// A frame of the plugin.
pub(crate) fn frame(id: u64, body: PluginBody) -> PluginFrame {
    PluginFrame {
        id,
        body: Some(body),
    }
}

/// The media type when none is given.
pub(crate) const JSON: &str = "application/json";
