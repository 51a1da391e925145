//! The envelope of a JSON-RPC message, read without reading what is in it: enough to answer what is
//! no message at all, and to know whom an error is for.

use std::borrow::Cow;

use rmcp::model::RequestId;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};
use serde_json::error::Category;
use serde_json::value::RawValue;

/// A well-formed message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// What sort of message it is.
    pub kind: Kind,
    /// The id, of requests and answers.
    pub id: Option<RequestId>,
    /// The method, of requests and notifications.
    pub method: Option<String>,
    /// It has parameters.
    pub params: bool,
    /// The request carries a protocol version in its `_meta`, as from 2026-07-28 on.
    pub versioned: bool,
    /// The cursor of a list, when it is none: the MCP library would take no notice of it.
    pub bad_cursor: Option<String>,
}

/// The sorts of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Wants an answer.
    Request,
    /// Wants none.
    Notification,
    /// An answer to a request of the server.
    Answer,
}

/// A text is no message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoMessage {
    /// It is no JSON. JSON-RPC code -32700.
    #[error("the request body is not valid JSON: {0}")]
    Syntax(String),
    /// It is JSON, but no JSON-RPC 2.0 message. JSON-RPC code -32600.
    #[error("the request body is not a JSON-RPC 2.0 message: {why}")]
    Shape {
        /// Whom the error is for, as far as it can be read.
        id: Option<RequestId>,
        /// What is wrong.
        why: String,
    },
}

#[derive(Deserialize)]
struct Raw<'a> {
    #[serde(borrow)]
    jsonrpc: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "present")]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    method: Option<Cow<'a, str>>,
    #[serde(borrow)]
    params: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    result: Option<&'a RawValue>,
    error: Option<IgnoredAny>,
}

/// A field that is there, even with `null` in it.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

#[derive(Default, Deserialize)]
struct Params<'a> {
    #[serde(borrow, rename = "_meta")]
    meta: Option<Meta<'a>>,
    #[serde(borrow)]
    cursor: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Meta<'a> {
    #[serde(borrow, rename = "io.modelcontextprotocol/protocolVersion")]
    version: Option<&'a RawValue>,
}

/// Reads the envelope of a body.
///
/// # Errors
/// [`NoMessage`] with what is wrong.
pub fn read(body: &[u8]) -> Result<Envelope, NoMessage> {
    let first = body.iter().find(|byte| !byte.is_ascii_whitespace());
    if first == Some(&b'[') {
        let whole = serde_json::from_slice::<IgnoredAny>(body);
        whole.map_err(|error| NoMessage::Syntax(error.to_string()))?;
        let why = "it is an array: batches are not part of MCP since 2025-06-18, send each message \
                   in a request of its own";
        return Err(shape(None, why));
    }
    let raw: Raw<'_> = serde_json::from_slice(body).map_err(|error| match error.classify() {
        Category::Data => shape(None, error.to_string()),
        Category::Syntax | Category::Eof | Category::Io => NoMessage::Syntax(error.to_string()),
    })?;
    let id = match raw.id.map(RawValue::get) {
        None => None,
        Some(text) => match serde_json::from_str::<RequestId>(text) {
            Ok(id) => Some(id),
            Err(_) => return Err(shape(None, "id is neither a string nor a whole number")),
        },
    };
    if raw.jsonrpc.as_deref() != Some("2.0") {
        return Err(shape(id, "jsonrpc is not \"2.0\""));
    }
    let answers = raw.result.is_some() || raw.error.is_some();
    let kind = match (raw.method.is_some(), answers, id.is_some()) {
        (true, false, true) => Kind::Request,
        (true, false, false) => Kind::Notification,
        (false, true, _) => Kind::Answer,
        (true, true, _) => return Err(shape(id, "it has a method and a result or an error")),
        (false, false, _) => return Err(shape(id, "method is missing")),
    };
    if raw
        .params
        .is_some_and(|params| !params.get().starts_with('{'))
    {
        return Err(shape(id, "params is not an object"));
    }
    let has_params = raw.params.is_some();
    let params = raw.params.map(RawValue::get).unwrap_or("{}");
    let params: Params<'_> = serde_json::from_str(params).unwrap_or_default();
    let bad_cursor = params.cursor.map(RawValue::get);
    Ok(Envelope {
        kind,
        id,
        method: raw.method.map(Cow::into_owned),
        params: has_params,
        versioned: params.meta.is_some_and(|meta| meta.version.is_some()),
        bad_cursor: bad_cursor
            .filter(|cursor| !cursor.starts_with('"'))
            .map(|cursor| cursor.chars().take(80).collect()),
    })
}

fn shape(id: Option<RequestId>, why: impl Into<String>) -> NoMessage {
    NoMessage::Shape {
        id,
        why: why.into(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed test may panic")]
mod tests {
    use super::*;

    #[test]
    fn requests_notifications_and_answers_are_told_apart() {
        let kind = |text: &str| read(text.as_bytes()).unwrap().kind;
        assert_eq!(
            kind(r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#),
            Kind::Request
        );
        assert_eq!(
            kind(r#"{"jsonrpc":"2.0","method":"x","params":{}}"#),
            Kind::Notification
        );
        assert_eq!(
            kind(r#"{"jsonrpc":"2.0","id":"a","result":{}}"#),
            Kind::Answer
        );
        assert_eq!(
            kind(r#"{"jsonrpc":"2.0","error":{"code":1,"message":""}}"#),
            Kind::Answer
        );
    }

    #[test]
    fn the_method_the_id_and_the_version_are_read() {
        let text = r#" {"params":{"name":"x","_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}},
            "method":"tools/call","id":"é","jsonrpc":"2.0","other":[1]}"#;
        let envelope = read(text.as_bytes()).unwrap();
        assert_eq!(envelope.method.as_deref(), Some("tools/call"));
        assert_eq!(envelope.id, Some(RequestId::String("é".into())));
        assert!(envelope.versioned);
        assert_eq!(envelope.bad_cursor, None);
        let list = br#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"cursor":5}}"#;
        assert_eq!(read(list).unwrap().bad_cursor.as_deref(), Some("5"));
        let bare = read(br#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#).unwrap();
        assert!(!bare.versioned);
    }

    #[test]
    fn what_is_no_json_and_what_is_no_message_are_told_apart_with_the_reason() {
        for (text, says) in [
            ("", "EOF while parsing"),
            ("{\"jsonrpc\":", "EOF while parsing"),
            ("nope", "expected ident"),
            ("[{}", "EOF while parsing"),
            ("{\"id\":1}}", "trailing characters"),
        ] {
            let error = read(text.as_bytes()).unwrap_err();
            assert!(matches!(error, NoMessage::Syntax(_)), "{text}");
            assert!(error.to_string().contains(says), "{text}: {error}");
        }
        for (text, says) in [
            ("[]", "batches are not part of MCP"),
            ("5", "invalid type: integer"),
            ("{}", "jsonrpc is not"),
            (r#"{"jsonrpc":"1.0","id":1,"method":"x"}"#, "jsonrpc is not"),
            (r#"{"jsonrpc":"2.0","id":1}"#, "method is missing"),
            (r#"{"jsonrpc":"2.0","id":{},"method":"x"}"#, "id is neither"),
            (
                r#"{"jsonrpc":"2.0","id":1.5,"method":"x"}"#,
                "id is neither",
            ),
            (
                r#"{"jsonrpc":"2.0","id":null,"method":"x"}"#,
                "id is neither",
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":5}"#,
                "invalid type: integer",
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"x","params":[1]}"#,
                "params is not an object",
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"x","result":1}"#,
                "a method and a result",
            ),
        ] {
            let error = read(text.as_bytes()).unwrap_err();
            assert!(matches!(error, NoMessage::Shape { .. }), "{text}: {error}");
            assert!(error.to_string().contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn an_error_is_for_the_request_whose_id_could_be_read() {
        let error = read(br#"{"jsonrpc":"2.0","id":7}"#).unwrap_err();
        assert!(matches!(
            error,
            NoMessage::Shape {
                id: Some(RequestId::Number(7)),
                ..
            }
        ));
    }

    #[test]
    fn invalid_utf_8_is_no_json() {
        let error = read(b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"\xff\"}").unwrap_err();
        assert!(!error.to_string().is_empty());
    }
}
