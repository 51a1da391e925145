//! What every request goes through before the MCP library sees it: who calls, how, and whether it is
//! a message at all. What the library would answer with bare text is answered here, or made clear.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, CONNECTION, CONTENT_TYPE, HeaderValue};
use http::request::Parts;
use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Body, Frame};
use rmcp::model::{ErrorCode, RequestId};
use rmcp::transport::streamable_http_server::session::never::NeverSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::body::{AnswerBody, Kept, Works};
use super::cors::{self, Page};
use super::envelope::{self, Envelope, Kind};
use super::intake;
use super::origin::OriginCheck;
use super::refusal::{Refusal, of_library};
use super::room::{Room, Share, Ticket};
use crate::Config;
use crate::mcp::sessions::Sessions;
use crate::mcp::{GatewayHandler, Shard};

/// The path of the MCP server.
pub const MCP_PATH: &str = "/mcp";

const ANY_ANSWER: HeaderValue = HeaderValue::from_static("application/json, text/event-stream");

/// Time for which the status of a call may be held back: a call that is shed is so within milliseconds.
const FIRST_EVENTS: Duration = Duration::from_millis(250);

/// The most that is read of an error of the library.
const MAX_LINE: usize = 16 * 1024;

/// Answers every request of one shard.
pub struct Front {
    check: OriginCheck,
    /// The admin endpoints are checked, too. Not where the gateway is meant to be reached from other
    /// machines: probes and scrapers call it by whatever address it has.
    check_admin: bool,
    max_body: usize,
    body_timeout: Duration,
    max_sessions: usize,
    max_in_flight: usize,
    room: Room,
    shard: Arc<Shard>,
    sessions: Arc<Sessions>,
    with_sessions: StreamableHttpService<GatewayHandler, Sessions>,
    single: StreamableHttpService<GatewayHandler, NeverSessionManager>,
    admin: Router,
    work: Works,
}

impl Front {
    /// `close` ends all streams; `work` counts what is running, and `room` holds what it takes.
    #[must_use]
    pub fn new(
        config: &Config,
        shard: Arc<Shard>,
        sessions: Arc<Sessions>,
        admin: Router,
        close: CancellationToken,
        work: Works,
        room: Room,
    ) -> Self {
        // The library's own checks of Host and size are off: both are done here, with clearer words.
        let library = StreamableHttpServerConfig::default()
            .disable_allowed_hosts()
            .with_max_request_body_bytes(usize::MAX)
            .with_json_response(true)
            .with_cancellation_token(close);
        let (one, other) = (Arc::clone(&shard), Arc::clone(&shard));
        Self {
            check: OriginCheck::new(&config.allowed_hosts, &config.allowed_origins),
            check_admin: config.listen.ip().is_loopback(),
            max_body: config.max_body.as_usize(),
            body_timeout: config.request_timeout.get(),
            max_sessions: usize::try_from(config.max_sessions).unwrap_or(usize::MAX),
            max_in_flight: usize::try_from(config.max_in_flight).unwrap_or(usize::MAX),
            room,
            with_sessions: StreamableHttpService::new(
                move || Ok(GatewayHandler::for_session(Arc::clone(&one))),
                Arc::clone(&sessions),
                library.clone(),
            ),
            single: StreamableHttpService::new(
                move || Ok(GatewayHandler::for_request(Arc::clone(&other))),
                Arc::default(),
                library.with_legacy_session_mode(false),
            ),
            shard,
            sessions,
            admin,
            work,
        }
    }

    /// Answers a request.
    pub async fn answer<B>(&self, request: Request<B>) -> Response<AnswerBody>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: std::error::Error + Send + Sync + 'static,
    {
        let for_mcp = request.uri().path() == MCP_PATH;
        let must_check = for_mcp || self.check_admin;
        if must_check && let Err(error) = self.check.check(request.uri(), request.headers()) {
            intake::discard(request.into_body()).await;
            return self.refuse(error.into());
        }
        let version = request.version();
        // Leave is given to no page that was not checked.
        let page = Page::of(request.headers()).filter(|_| must_check);
        let answered = match cors::preflight(request.method(), request.headers()) {
            Some(response) => Ok(response),
            None if for_mcp => self.mcp(request).await,
            None => Ok(self.admin(request).await),
        };
        let mut response = answered.unwrap_or_else(|refusal| self.refuse(refusal));
        if let Some(page) = page {
            page.allow(response.headers_mut());
        }
        if self.is_stopping() && version < Version::HTTP_2 {
            // HTTP/2 says it with a frame when the connection closes.
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(CONNECTION, close);
        }
        response
    }

    fn is_stopping(&self) -> bool {
        self.shard.shared.stopping.is_cancelled()
    }

    fn refuse(&self, refusal: Refusal) -> Response<AnswerBody> {
        self.shard.shared.metrics.refused(refusal.word());
        let status = refusal.status.as_u16();
        tracing::debug!(status, reason = refusal.message, "refused");
        refusal.response()
    }

    async fn admin<B>(&self, request: Request<B>) -> Response<AnswerBody> {
        // None of these endpoints reads a body.
        let request = request.map(|_| axum::body::Body::empty());
        match self.admin.clone().oneshot(request).await {
            Ok(response) => response.map(AnswerBody::admin),
            Err(never) => match never {},
        }
    }

    async fn mcp<B>(&self, request: Request<B>) -> Result<Response<AnswerBody>, Refusal>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: std::error::Error + Send + Sync + 'static,
    {
        let (mut parts, body) = request.into_parts();
        if let Err(refusal) = check_head(&mut parts) {
            intake::discard(body).await;
            return Err(refusal);
        }
        if parts.method == Method::POST {
            let share = self.room.share();
            let body = intake::read(body, self.max_body, self.body_timeout, &share).await?;
            return self.message(parts, body, share).await;
        }
        let ends = parts.method == Method::DELETE;
        let request = Request::from_parts(parts, Full::<Bytes>::default());
        let mut response = self.with_sessions.handle(request).await;
        if ends && response.status() == StatusCode::ACCEPTED {
            // Clients know this as the answer to a DELETE.
            *response.status_mut() = StatusCode::NO_CONTENT;
        }
        self.finish(response, None, None).await
    }

    async fn message(
        &self,
        mut parts: Parts,
        body: Bytes,
        share: Share,
    ) -> Result<Response<AnswerBody>, Refusal> {
        let envelope = envelope::read(&body)?;
        self.check_room(&envelope)?;
        check_params(&envelope)?;
        let kept = match envelope.method.as_deref() {
            Some("subscriptions/listen") => Kept::Running(self.work.subscriptions.begin()),
            Some("tools/call" | "prompts/get" | "resources/read") => {
                let ticket = Arc::new(Ticket::new(share, self.work.calls.begin()));
                parts.extensions.insert(Arc::clone(&ticket));
                Kept::Ticket(ticket)
            }
            _ => Kept::Running(self.work.calls.begin()),
        };
        let of_session = is_of_session(&envelope, &parts.headers);
        let request = Request::from_parts(parts, Full::new(body));
        let response = if of_session {
            self.with_sessions.handle(request).await
        } else {
            self.single.handle(request).await
        };
        self.finish(response, envelope.id, Some(kept)).await
    }

    /// What runs is bounded, and so are sessions and subscriptions, which live long.
    fn check_room(&self, envelope: &Envelope) -> Result<(), Refusal> {
        if envelope.kind == Kind::Request && self.is_stopping() {
            return Err(Refusal::stopping().to(envelope.id.clone()));
        }
        let full = |text| Err(Refusal::busy(text).to(envelope.id.clone()));
        let running = self.work.calls.running();
        if envelope.kind == Kind::Request && running >= self.max_in_flight {
            return full(format!(
                "{running} requests are being worked on, as many as gateway.max_in_flight allows: \
                 try again later, or another gateway"
            ));
        }
        match envelope.method.as_deref() {
            Some("initialize") => self
                .sessions
                .check_room()
                .or_else(|error| full(error.to_string())),
            Some("subscriptions/listen") => {
                let open = self.shard.shared.open_subscriptions.load(Ordering::Relaxed);
                if open < self.max_sessions {
                    return Ok(());
                }
                full(format!(
                    "{open} subscriptions are open, as many as gateway.max_sessions allows: try \
                     again later"
                ))
            }
            _ => Ok(()),
        }
    }

    /// Makes the library's bare lines clear, and gives a call that was not processed its own status.
    async fn finish(
        &self,
        response: Response<http_body_util::combinators::BoxBody<Bytes, std::convert::Infallible>>,
        id: Option<RequestId>,
        kept: Option<Kept>,
    ) -> Result<Response<AnswerBody>, Refusal> {
        let status = response.status();
        let is_json = response
            .headers()
            .get(CONTENT_TYPE)
            .is_some_and(|value| value.as_bytes().starts_with(b"application/json"));
        if (status.is_client_error() || status.is_server_error()) && !is_json {
            let body = Limited::new(response.into_body(), MAX_LINE).collect().await;
            let text = body
                .map(http_body_util::Collected::to_bytes)
                .unwrap_or_default();
            return Err(of_library(status, &String::from_utf8_lossy(&text)).to(id));
        }
        let (parts, mut body) = response.into_parts();
        let mut first = None;
        if let Some(Kept::Ticket(ticket)) = &kept {
            if !is_json {
                first = first_events(&mut body).await;
            }
            let refused = ticket.refused().and_then(Refusal::of_mesh);
            if let Some(refusal) = refused {
                return Ok(refusal.to(id).response());
            }
        }
        Ok(Response::from_parts(
            parts,
            AnswerBody::mcp(body, first, kept),
        ))
    }
}

/// Takes from a stream of events what tells how a call goes, while the status is not sent yet: the first
/// event that says something, if it comes soon. The events of a session begin with one that says nothing.
async fn first_events<B>(body: &mut B) -> Option<Frame<Bytes>>
where
    B: Body<Data = Bytes, Error = std::convert::Infallible> + Unpin,
{
    let mut taken = BytesMut::new();
    let taking = async {
        for _ in 0..2 {
            let Some(Ok(frame)) = body.frame().await else {
                return;
            };
            let data = frame.into_data().unwrap_or_default();
            taken.extend_from_slice(&data);
            if !data.starts_with(b"data: \n") {
                return;
            }
        }
    };
    // A client needs the event that says nothing to come back after a lost connection.
    let _ = timeout(FIRST_EVENTS, taking).await;
    (!taken.is_empty()).then(|| Frame::data(taken.freeze()))
}

/// The MCP library reads a list's cursor that is no text as none, and would begin the list anew for
/// ever; and of an `initialize` without parameters it says what nobody understands.
fn check_params(envelope: &Envelope) -> Result<(), Refusal> {
    let method = envelope.method.as_deref().unwrap_or_default();
    let text = match &envelope.bad_cursor {
        Some(cursor) if method.ends_with("/list") => {
            format!("cursor must be a string, not {cursor}")
        }
        _ if method == "initialize" && !envelope.params => {
            "the params of initialize are missing: give protocolVersion, capabilities and clientInfo"
                .to_owned()
        }
        _ => return Ok(()),
    };
    Err(Refusal {
        code: ErrorCode::INVALID_PARAMS,
        ..Refusal::new(StatusCode::BAD_REQUEST, text).to(envelope.id.clone())
    })
}

/// Whether a message is part of a session. Others are served by themselves: those that say a protocol
/// version which has no sessions, and those that say nothing, so that a line of curl needs no handshake
/// before it.
fn is_of_session(envelope: &Envelope, headers: &HeaderMap) -> bool {
    let method = envelope.method.as_deref().unwrap_or_default();
    let version = headers
        .get("mcp-protocol-version")
        .and_then(|value| value.to_str().ok());
    let newer = envelope.versioned || version.is_some_and(|version| version >= "2026-07-28");
    let named = headers.contains_key("mcp-session-id");
    method == "initialize" || (!newer && (named || envelope.kind != Kind::Request))
}

/// Checks the method and the headers, and gives the headers the form that the MCP library demands.
fn check_head(parts: &mut Parts) -> Result<(), Refusal> {
    match parts.method {
        Method::POST => {
            accept(&mut parts.headers, "POST")?;
            content_type(&mut parts.headers)
        }
        Method::GET => accept(&mut parts.headers, "GET"),
        Method::DELETE => Ok(()),
        _ => {
            let text = format!(
                "{} is not served here: POST a message, GET a session's stream, or DELETE a session",
                parts.method
            );
            Err(Refusal {
                allow: Some("GET, POST, DELETE"),
                ..Refusal::new(StatusCode::METHOD_NOT_ALLOWED, text)
            })
        }
    }
}

/// Checks that the client takes what it may get. A client that takes anything (curl by default) takes
/// both.
fn accept(headers: &mut HeaderMap, method: &str) -> Result<(), Refusal> {
    if headers.get(ACCEPT) == Some(&ANY_ANSWER) {
        // What most clients send.
        return Ok(());
    }
    let given = headers.get_all(ACCEPT);
    let given: Vec<String> = given
        .iter()
        .map(|value| String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase())
        .collect();
    let takes = |kinds: [&str; 3]| {
        let ranges = given.iter().flat_map(|value| value.split(','));
        let mut names = ranges.map(|range| range.split(';').next().unwrap_or_default().trim());
        names.any(|name| kinds.contains(&name))
    };
    let anything = given.is_empty();
    let json = anything || takes(["application/json", "application/*", "*/*"]);
    let stream = anything || takes(["text/event-stream", "text/*", "*/*"]);
    match (method, json, stream) {
        ("GET", _, true) | ("POST", true, true) => {
            headers.insert(ACCEPT, ANY_ANSWER);
            Ok(())
        }
        ("GET", ..) => Err(Refusal::new(
            StatusCode::NOT_ACCEPTABLE,
            "the Accept header must hold text/event-stream for a GET",
        )),
        _ => Err(Refusal::new(
            StatusCode::NOT_ACCEPTABLE,
            "the Accept header must hold both application/json and text/event-stream",
        )),
    }
}

fn content_type(headers: &mut HeaderMap) -> Result<(), Refusal> {
    let given = headers
        .get(CONTENT_TYPE)
        .map(|value| String::from_utf8_lossy(value.as_bytes()));
    let name = given.as_deref().unwrap_or_default();
    let name = name.split(';').next().unwrap_or_default().trim();
    if name.eq_ignore_ascii_case("application/json") {
        // The library compares with care for case.
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        return Ok(());
    }
    let shown: String = name.chars().take(80).collect();
    Err(Refusal::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        format!("the Content-Type header must be application/json, not {shown:?}"),
    ))
}

/// The answer to any other path.
pub async fn no_such_path(uri: http::Uri) -> axum::response::Response {
    let path: String = uri.path().chars().take(200).collect();
    let text = format!("there is no {path} here; there are /mcp, /health, /ready and /metrics");
    let refusal = Refusal::new(StatusCode::NOT_FOUND, text);
    refusal.response().map(axum::body::Body::new)
}
