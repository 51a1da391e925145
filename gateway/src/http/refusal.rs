//! Answers to requests that do not reach the MCP server: one line each, in the form of a JSON-RPC
//! error, so that an MCP client shows the reason.

use http::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use rmcp::model::{ErrorCode as RpcCode, ErrorData, JsonRpcError, RequestId};

use super::body::AnswerBody;
use super::envelope::NoMessage;
use super::intake::IntakeError;
use super::origin::NotAllowed;

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
        }
    }

    /// The gateway has no room, for now.
    pub fn busy(message: impl Into<String>) -> Self {
        let code = i32::try_from(mesh_core::error::ErrorCode::Overloaded.json_rpc());
        Self {
            code: RpcCode(code.unwrap_or(RpcCode::INTERNAL_ERROR.0)),
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, message)
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
            503 => "busy",
            _ => "error",
        }
    }

    /// The answer.
    #[must_use]
    pub fn response(self) -> Response<AnswerBody> {
        let error = JsonRpcError::new(self.id, ErrorData::new(self.code, self.message, None));
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
