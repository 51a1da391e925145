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

/// Why a coordinator's stream ended: what it said, or that the connection broke. Nothing was asked on
/// it whose outcome could be unknown.
#[must_use]
pub fn stream_end(status: &Status) -> MeshError {
    if status.details().is_empty() {
        let text = format!("the connection broke: {}", status.message());
        return MeshError::new(ErrorCode::NoCoordinator, text);
    }
    from_status(status)
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

#[cfg(test)]
mod tests {
    use mesh_core::error::Place;

    use super::*;

    #[test]
    fn an_error_survives_the_way_through_a_status() {
        for code in ErrorCode::ALL {
            let own = MeshError::new(*code, "why").at(Place {
                node: "n".into(),
                ..Place::default()
            });
            let status = to_status(&own);
            assert_eq!(status.code() as i32, code.grpc_status());
            assert_eq!(status.message(), own.to_string());
            assert_eq!(from_status(&status), own);
        }
    }

    #[test]
    fn a_status_of_somebody_else_claims_nothing_that_it_does_not_know() {
        let error = from_status(&Status::unavailable("connection reset"));
        assert_eq!(error.code, ErrorCode::OutcomeUnknown);
        assert_eq!(error.message, "connection reset");
        let error = from_status(&Status::with_details(
            Code::NotFound,
            "",
            vec![0xff, 0xff].into(),
        ));
        assert_eq!(error.code, ErrorCode::NotFound);
        assert!(!error.message.is_empty());
        let fine = common::Error::default().encode_to_vec();
        let error = from_status(&Status::with_details(Code::Internal, "x", fine.into()));
        assert_eq!(error.code, ErrorCode::Internal);
    }

    #[test]
    fn a_long_text_is_cut_at_a_character_so_that_headers_stay_small() {
        let long = MeshError::new(ErrorCode::InvalidManifest, "é".repeat(100_000));
        let status = to_status(&long);
        assert!(status.message().ends_with("… (cut)"));
        assert!(status.message().len() + status.details().len() < 4_000);
        assert!(from_status(&status).message.ends_with("… (cut)"));
    }
}
