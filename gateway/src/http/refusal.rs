//! Answers to requests that do not reach the MCP server: one line each, in the form of a JSON-RPC
//! error, so that an MCP client shows the reason.

use std::time::Duration;

use http::header::{ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use mesh_core::error::{ErrorCode, MeshError, Processed};
use rmcp::model::{ErrorCode as RpcCode, ErrorData, JsonRpcError, RequestId};
use serde_json::Value;

use super::body::AnswerBody;
use super::envelope::NoMessage;
use super::intake::IntakeError;
use super::origin::NotAllowed;
use crate::mcp::errors::rpc_error;

/// When to try again, where nobody knows better.
const RETRY: Duration = Duration::from_secs(1);

/// A request that is not served, and why.
#[derive(Debug, Clone, PartialEq)]
pub struct Refusal {
    /// The HTTP status.
    pub status: StatusCode,
    /// The JSON-RPC code.
    pub code: RpcCode,
    /// One line for a person: what was wrong and what to do.
    pub message: String,
    /// Whom it is for, where that is known.
    pub id: Option<RequestId>,
    /// For 405: the methods that are allowed.
    pub allow: Option<&'static str>,
    /// Of what was not processed: what programs need to know, and when to try again.
    pub later: Option<Box<(Option<Value>, Duration)>>,
}

impl Refusal {
    /// A refusal of a request that breaks a rule of HTTP or of the transport.
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            code: RpcCode::INVALID_REQUEST,
            message: message.into(),
            id: None,
            allow: None,
            later: None,
        }
    }

    /// The gateway itself has no room, for now.
    pub fn busy(message: impl Into<String>) -> Self {
        Self::unavailable(MeshError::new(ErrorCode::Overloaded, message))
    }

    /// The gateway stops.
    pub fn stopping() -> Self {
        let text =
            "this gateway is stopping and takes no new calls: send the request to another one";
        Self::unavailable(MeshError::new(ErrorCode::Draining, text))
    }

    fn unavailable(error: MeshError) -> Self {
        Self::later(StatusCode::SERVICE_UNAVAILABLE, error)
    }

    /// An error of the mesh that says "not processed, try again later" is worth an HTTP status of its
    /// own: 429 when the target sheds, 503 when there is none.
    pub fn of_mesh(error: &MeshError) -> Option<Self> {
        let status = error.code.http_status();
        let passes = error.code.processed() == Processed::No && matches!(status, 429 | 503);
        let status = StatusCode::from_u16(status).ok().filter(|_| passes)?;
        Some(Self::later(status, error.clone()))
    }

    fn later(status: StatusCode, mut error: MeshError) -> Self {
        let wait = *error.retry_after.get_or_insert(RETRY);
        let error = rpc_error(&error);
        Self {
            code: error.code,
            later: Some(Box::new((error.data, wait))),
            ..Self::new(status, error.message)
        }
    }

    /// Says whom it is for.
    #[must_use]
    pub fn to(mut self, id: Option<RequestId>) -> Self {
        self.id = id;
        self
    }

    /// The word that it is counted under.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self.status.as_u16() {
            400 => "bad_request",
            403 => "forbidden",
            404 => "not_found",
            405 => "method_not_allowed",
            406 => "not_acceptable",
            408 => "timeout",
            413 => "too_large",
            415 => "unsupported_media_type",
            429 => "overloaded",
            503 => "busy",
            _ => "error",
        }
    }

    /// The answer.
    #[must_use]
    pub fn response(self) -> Response<AnswerBody> {
        let (data, retry_after) = match self.later {
            Some(later) => (later.0, Some(later.1)),
            None => (None, None),
        };
        let error = JsonRpcError::new(self.id, ErrorData::new(self.code, self.message, data));
        // The model holds nothing that JSON can't.
        let mut text = serde_json::to_vec(&error).unwrap_or_default();
        text.push(b'\n');
        let mut response = Response::new(AnswerBody::full(text));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(allow) = self.allow {
            headers.insert(ALLOW, HeaderValue::from_static(allow));
        }
        if let Some(wait) = retry_after {
            // Whole seconds (RFC 9110, section 10.2.3); the body has it to the millisecond.
            let seconds = u64::try_from(wait.as_millis().div_ceil(1_000)).unwrap_or(u64::MAX);
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        response
    }
}

impl From<NotAllowed> for Refusal {
    fn from(error: NotAllowed) -> Self {
        let status = match error {
            NotAllowed::NoHost => StatusCode::BAD_REQUEST,
            NotAllowed::Host(_) | NotAllowed::Origin(_) => StatusCode::FORBIDDEN,
        };
        Self::new(status, error.to_string())
    }
}

impl From<IntakeError> for Refusal {
    fn from(error: IntakeError) -> Self {
        let status = match error {
            IntakeError::Full(_) => return Self::busy(error.to_string()),
            IntakeError::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            IntakeError::TooSlow(_) => StatusCode::REQUEST_TIMEOUT,
            IntakeError::Broken(_) => StatusCode::BAD_REQUEST,
        };
        Self::new(status, error.to_string())
    }
}

impl From<NoMessage> for Refusal {
    fn from(error: NoMessage) -> Self {
        let message = error.to_string();
        let (code, id) = match error {
            NoMessage::Syntax(_) => (RpcCode::PARSE_ERROR, None),
            NoMessage::Shape { id, .. } => (RpcCode::INVALID_REQUEST, id),
        };
        Self {
            code,
            id,
            ..Self::new(StatusCode::BAD_REQUEST, message)
        }
    }
}

/// What the MCP library refused with a line of plain text.
#[must_use]
pub fn of_library(status: StatusCode, text: &str) -> Refusal {
    let text = text.trim();
    let known = match text {
        "Not Found: Session not found" => Some(
            "the session of the Mcp-Session-Id header has ended or never was: send initialize to \
             begin a new one",
        ),
        "Bad Request: Session ID is required" => Some(
            "the Mcp-Session-Id header is missing: send the one that initialize was answered with",
        ),
        "Method Not Allowed" => Some(
            "there is no stream to open or session to end here: protocol version 2026-07-28 has \
             neither, use POST",
        ),
        _ => None,
    };
    // The library says 415 of a body of the right media type that is no message.
    if status == StatusCode::UNSUPPORTED_MEDIA_TYPE && text.contains("deserialize") {
        return Refusal::new(StatusCode::BAD_REQUEST, text);
    }
    let full = text.contains("gateway.max_sessions");
    if let Some(at) = text.find("Unsupported MCP-Protocol-Version: ") {
        let named = text.get(at..).unwrap_or(text);
        let versions = crate::mcp::handler::versions().join(", ");
        return Refusal::new(status, format!("{named}; this server speaks {versions}"));
    }
    if full {
        return Refusal::busy(text);
    }
    Refusal::new(status, known.unwrap_or(text))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed test may panic")]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    #[tokio::test]
    async fn a_refusal_is_one_line_of_json() {
        let refusal = Refusal::new(StatusCode::BAD_REQUEST, "no").to(Some(RequestId::Number(3)));
        let response = refusal.response();
        assert_eq!(response.status(), 400);
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(
            body,
            "{\"jsonrpc\":\"2.0\",\"id\":3,\"error\":{\"code\":-32600,\"message\":\"no\"}}\n"
        );
    }

    #[tokio::test]
    async fn what_may_be_sent_again_later_says_when_in_whole_seconds_and_in_milliseconds() {
        let shed = MeshError::new(ErrorCode::Overloaded, "full");
        let shed = shed.retry_after(Duration::from_millis(1_001));
        let response = Refusal::of_mesh(&shed).unwrap().response();
        assert_eq!(response.status(), 429);
        assert_eq!(response.headers()["retry-after"], "2");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["error"]["code"], -32011);
        assert_eq!(body["error"]["data"]["retry_after_ms"], 1_001);
        let none = MeshError::new(ErrorCode::Unavailable, "none");
        let response = Refusal::of_mesh(&none).unwrap().response();
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()["retry-after"], "1");
        assert_eq!(Refusal::stopping().response().status(), 503);
    }

    #[test]
    fn what_was_or_may_have_been_processed_has_no_status_of_its_own() {
        for code in ErrorCode::ALL {
            let refusal = Refusal::of_mesh(&MeshError::new(*code, "text"));
            if refusal.is_some() {
                assert_eq!(code.processed(), Processed::No, "{code}");
            }
        }
        let unknown = MeshError::new(ErrorCode::OutcomeUnknown, "text");
        assert_eq!(Refusal::of_mesh(&unknown), None);
    }

    #[test]
    fn lines_of_the_library_are_made_clear() {
        let gone = of_library(StatusCode::NOT_FOUND, "Not Found: Session not found");
        assert!(gone.message.contains("send initialize"), "{}", gone.message);
        let old = of_library(
            StatusCode::BAD_REQUEST,
            "Bad Request: Unsupported MCP-Protocol-Version: 1999-01-01",
        );
        assert_eq!(
            old.message,
            "Unsupported MCP-Protocol-Version: 1999-01-01; this server speaks 2024-11-05, \
             2025-03-26, 2025-06-18, 2025-11-25, 2026-07-28"
        );
        let body = of_library(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "fail to deserialize request body recursion limit exceeded",
        );
        assert_eq!(body.status, StatusCode::BAD_REQUEST);
        let full = of_library(
            StatusCode::INTERNAL_SERVER_ERROR,
            "Encounter an error when create session: 2 sessions are open, as many as \
             gateway.max_sessions allows",
        );
        assert_eq!(full.status, StatusCode::SERVICE_UNAVAILABLE);
    }
}
