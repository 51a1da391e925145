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

impl common::Credit {
    /// So many more chunks.
    pub(crate) fn of(chunks: u32) -> Self {
        Self {
            chunks,
            ..Self::default()
        }
    }
}

/// The media type when none is given.
pub(crate) const JSON: &str = "application/json";

/// Longest text for a person in a frame, in bytes: what is longer would make the frame too large.
const MAX_TEXT_BYTES: usize = 64 * 1024;

/// A text that fits a frame, cut off if need be.
pub(crate) fn shortened(mut text: String) -> String {
    if text.len() > MAX_TEXT_BYTES {
        let mut end = MAX_TEXT_BYTES;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push_str("… (cut off)");
    }
    text
}

#[cfg(test)]
mod tests {
    //! Texts that are too long.

    use super::*;

    #[test]
    fn a_long_text_is_cut_off_between_characters_and_says_so() {
        let long = "é".repeat(MAX_TEXT_BYTES);
        let cut = shortened(format!("a{long}"));
        assert!(cut.len() < MAX_TEXT_BYTES + 20);
        assert!(cut.ends_with("é… (cut off)"));
        assert_eq!(shortened("short".to_owned()), "short");
    }
}
