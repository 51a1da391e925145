//! Errors of the mesh as gRPC statuses, and back.
//!
//! The status's details hold an encoded `plugmesh.common.v1.Error`. A status travels in HTTP/2
//! headers, which peers bound at some kilobytes: long texts are cut, with a note that they are.

use mesh_core::error::{ErrorCode, MeshError};
use prost::Message;
use tonic::{Code, Status};

use crate::common;

/// Longest text in a status, in bytes; percent-encoding and the copy in the details come on top.
const MAX_TEXT_BYTES: usize = 1_500;

/// The status that tells of an error.
#[must_use]
pub fn to_status(error: &MeshError) -> Status {
    let mut wire = common::Error::from(error.clone());
    shorten(&mut wire.message);
    if wire.details.len() > MAX_TEXT_BYTES {
        wire.details.clear();
    }
    let mut text = MeshError {
        message: wire.message.clone(),
        ..error.clone()
    }
    .to_string();
    shorten(&mut text);
    let code = Code::from_i32(error.code.grpc_status());
    Status::with_details(code, text, wire.encode_to_vec().into())
}

/// The error that a status tells of. A status that does not come from the mesh gets the code that
/// says the same, without claiming that nothing was processed unless gRPC's meaning promises it.
#[must_use]
pub fn from_status(status: &Status) -> MeshError {
    if !status.details().is_empty()
        && let Ok(wire) = common::Error::decode(status.details())
        && wire.code != 0
    {
        return wire.into();
    }
    let code = match status.code() {
        Code::InvalidArgument | Code::OutOfRange => ErrorCode::InvalidArgument,
        Code::NotFound => ErrorCode::NotFound,
        Code::PermissionDenied | Code::Unauthenticated => ErrorCode::PermissionDenied,
        Code::Unimplemented => ErrorCode::Unsupported,
        Code::DeadlineExceeded => ErrorCode::DeadlineExceeded,
        Code::Cancelled => ErrorCode::Cancelled,
        // The connection may have broken after the request was sent.
        Code::Unavailable | Code::Unknown | Code::Aborted => ErrorCode::OutcomeUnknown,
        Code::ResourceExhausted => ErrorCode::Overloaded,
        Code::FailedPrecondition | Code::AlreadyExists => ErrorCode::ProtocolViolation,
        Code::Ok | Code::Internal | Code::DataLoss => ErrorCode::Internal,
    };
    let text = match status.message() {
        "" => status.code().description(),
        text => text,
    };
    MeshError::new(code, text)
}

/// Cuts a text at a character's border.
fn shorten(text: &mut String) {
    if text.len() <= MAX_TEXT_BYTES {
        return;
    }
    let end = (0..=MAX_TEXT_BYTES)
        .rev()
        .find(|end| text.is_char_boundary(*end))
        .unwrap_or(0);
    text.truncate(end);
    text.push_str(" … (cut)");
}
