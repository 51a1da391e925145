//! Trace context of a request, and the span of its work.
//!
//! Names and attributes are those of the semantic conventions for MCP. The context in `_meta` wins
//! over that of the HTTP headers: it is the client's own, and headers may be a proxy's.

use http::request::Parts;
use mesh_core::call::TraceContext;
use mesh_runtime::trace::{RPC_TARGET, context_of, set_parent};
use rmcp::RoleServer;
use rmcp::model::{ErrorData, NumberOrString};
use rmcp::service::RequestContext;
use router::SpanLink;
use tracing::Span;
use tracing::field::{Empty, display};

/// Longest `tracestate` that is passed on, in bytes (W3C Trace Context, section 3.3.1.5).
const MAX_TRACESTATE: usize = 512;

/// The client's trace context; none when it is not well-formed.
#[must_use]
pub fn client_context(context: &RequestContext<RoleServer>) -> TraceContext {
    if let Some(parent) = context.meta.get_traceparent() {
        return checked(parent, context.meta.get_tracestate());
    }
    let header = |name| {
        let parts = context.extensions.get::<Parts>()?;
        parts.headers.get(name)?.to_str().ok()
    };
    header("traceparent").map_or_else(TraceContext::default, |parent| {
        checked(parent, header("tracestate"))
    })
}

fn checked(parent: &str, state: Option<&str>) -> TraceContext {
    if !is_traceparent(parent) {
        return TraceContext::default();
    }
    let state = state.filter(|state| state.len() <= MAX_TRACESTATE);
    TraceContext {
        traceparent: parent.to_owned(),
        tracestate: state.unwrap_or_default().to_owned(),
    }
}

/// Version, trace id, parent id and flags in lowercase hexadecimal digits; ids are not all zero.
fn is_traceparent(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let [version, trace, span, flags, rest @ ..] = parts.as_slice() else {
        return false;
    };
    let hex = |part: &str, length| {
        part.len() == length && part.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'))
    };
    let some = |part: &str| part.bytes().any(|c| c != b'0');
    // Only a version from the future has more parts.
    let known = *version != "ff" && (*version != "00" || rest.is_empty());
    hex(version, 2)
        && known
        && hex(trace, 32)
        && some(trace)
        && hex(span, 16)
        && some(span)
        && hex(flags, 2)
}

/// What a request is about: the part of the span's name after the method.
#[derive(Debug, Clone, Copy)]
pub enum Target<'a> {
    /// A tool.
    Tool(&'a str),
    /// A prompt.
    Prompt(&'a str),
    /// A resource.
    Resource(&'a str),
    /// Nothing in particular.
    None,
}

/// The span of a request; disabled unless spans are exported.
#[must_use]
pub fn server_span(
    exporting: bool,
    method: &str,
    target: Target<'_>,
    context: &RequestContext<RoleServer>,
    parent: &TraceContext,
) -> Span {
    if !exporting {
        return Span::none();
    }
    let name = match target {
        Target::Tool(name) | Target::Prompt(name) => format!("{method} {name}"),
        // A URI in the name would give a name to each of countless resources.
        Target::Resource(_) | Target::None => method.to_owned(),
    };
    let span = tracing::info_span!(
        target: RPC_TARGET,
        parent: None,
        "mcp.server",
        otel.name = name,
        otel.kind = "server",
        otel.status_code = Empty,
        mcp.method.name = method,
        mcp.session.id = Empty,
        mcp.protocol.version = Empty,
        mcp.resource.uri = Empty,
        jsonrpc.request.id = Empty,
        rpc.response.status_code = Empty,
        gen_ai.tool.name = Empty,
        gen_ai.operation.name = Empty,
        gen_ai.prompt.name = Empty,
        network.transport = "tcp",
        network.protocol.name = "http",
        error.type = Empty,
    );
    set_parent(&span, parent);
    match target {
        Target::Tool(name) => {
            span.record("gen_ai.tool.name", name);
            span.record("gen_ai.operation.name", "execute_tool");
        }
        Target::Prompt(name) => {
            span.record("gen_ai.prompt.name", name);
        }
        Target::Resource(uri) => {
            span.record("mcp.resource.uri", uri);
        }
        Target::None => {}
    }
    match &context.id {
        NumberOrString::Number(id) => span.record("jsonrpc.request.id", display(id)),
        NumberOrString::String(id) => span.record("jsonrpc.request.id", &**id),
    };
    if let Some(version) = context.protocol_version() {
        span.record("mcp.protocol.version", version.as_str());
    }
    let parts = context.extensions.get::<Parts>();
    let session = parts.and_then(|parts| parts.headers.get("mcp-session-id")?.to_str().ok());
    if let Some(session) = session {
        span.record("mcp.session.id", session);
    }
    span
}

/// Marks the span of a request that ended with an error.
pub fn record_error(span: &Span, error: &ErrorData) {
    if span.is_disabled() {
        return;
    }
    span.record("otel.status_code", "ERROR");
    span.record("error.type", display(error.code.0));
    span.record("rpc.response.status_code", display(error.code.0));
}

/// Marks the span of a tool call whose tool says that it failed.
pub fn record_tool_error(span: &Span) {
    if !span.is_disabled() {
        span.record("otel.status_code", "ERROR");
        span.record("error.type", "tool_error");
    }
}

/// Ties the router's spans to those of requests.
#[derive(Debug, Clone, Copy)]
pub struct Link;

impl SpanLink for Link {
    fn link(&self, span: &Span, parent: &TraceContext) -> TraceContext {
        set_parent(span, parent);
        context_of(span, parent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_w3c_allows_is_passed_on() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01";
        assert!(is_traceparent(good));
        assert!(is_traceparent(&format!("cc{}-what-ever", &good[2..])));
        for bad in [
            "",
            "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7",
            "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01-x",
            "00-0AF7651916CD43DD8448EB211C80319C-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "ff-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01",
        ] {
            assert!(!is_traceparent(bad), "{bad}");
        }
        assert_eq!(checked(good, Some("a=b")).tracestate, "a=b");
        assert_eq!(checked(good, Some(&"x".repeat(600))).tracestate, "");
        assert!(checked("nonsense", Some("a=b")).is_none());
    }
}
