//! Leave for web pages of allowed origins to use the gateway (the CORS protocol of the Fetch standard).
//!
//! Whether an origin is allowed is decided before; here browsers are told.

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, HeaderMap, HeaderValue, ORIGIN, VARY,
};
use http::{Method, Response, StatusCode};

use super::body::AnswerBody;

const METHODS: HeaderValue = HeaderValue::from_static("GET, POST, DELETE");

/// What pages may read of an answer beside its body.
const EXPOSED: HeaderValue =
    HeaderValue::from_static("Mcp-Session-Id, MCP-Protocol-Version, Retry-After");

/// A day, in seconds: what is allowed changes only with the configuration.
const MAX_AGE: HeaderValue = HeaderValue::from_static("86400");

/// What has to be kept of a request to tell its browser.
pub struct Page {
    origin: HeaderValue,
}

impl Page {
    /// The page that a request is from, if it is from one.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let origin = headers.get(ORIGIN)?.clone();
        Some(Self { origin })
    }

    /// Lets the page read an answer.
    pub fn allow(self, headers: &mut HeaderMap) {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, self.origin);
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
        headers.append(VARY, HeaderValue::from_static("Origin"));
    }
}

/// The answer to a browser that asks before it sends what a page wants to send; `None` for any other
/// request.
pub fn preflight(method: &Method, headers: &HeaderMap) -> Option<Response<AnswerBody>> {
    let asks = headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
    if method != Method::OPTIONS || !asks {
        return None;
    }
    let mut response = Response::new(AnswerBody::full(""));
    *response.status_mut() = StatusCode::NO_CONTENT;
    let own = response.headers_mut();
    own.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
    own.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE);
    // No header is dangerous here, and those for parameters have names that tools choose.
    if let Some(wanted) = headers.get(ACCESS_CONTROL_REQUEST_HEADERS) {
        own.insert(ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
    }
    Some(response)
}
