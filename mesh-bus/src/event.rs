//! What a caller hears of its call.

use bytes::Bytes;
use mesh_core::error::MeshError;
use mesh_proto::common;

/// What a caller hears of its call. Exactly one `End` comes, and nothing after it.
#[derive(Debug, Clone)]
pub enum CallEvent {
    /// A message of a streaming answer.
    Chunk(Bytes),
    /// How far the call has come.
    Progress(common::Progress),
    /// A line that the plugin logged while working on the call.
    Log(common::Log),
    /// The end: the result, or why there is none.
    End(Result<CallOutput, MeshError>),
}

/// The result of a call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CallOutput {
    /// The result, whole.
    pub payload: Bytes,
    /// Its media type; empty: application/json.
    pub content_type: String,
}
