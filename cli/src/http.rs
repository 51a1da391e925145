//! A small HTTP client for what runs on this machine or beside it.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use crate::admin::root;

/// Time to connect.
const CONNECT: Duration = Duration::from_secs(5);

/// Largest body that is read whole, in bytes.
const LARGEST: usize = 256 << 20;

/// What a GET gave.
#[derive(Debug, Clone)]
pub struct Page {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub text: String,
}

/// A client; connections are kept for the next request.
#[derive(Debug, Clone)]
pub struct HttpClient {
    client: Client<HttpConnector, Full<Bytes>>,
}

impl HttpClient {
    /// A client without connections.
    pub fn new() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT));
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Self { client }
    }

    /// Sends a request.
    ///
    /// # Errors
    /// Why there is no answer, for a person.
    pub async fn send(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, String> {
        let answer = self.client.request(request).await;
        answer.map_err(|error| root(&error))
    }

    /// Gets a page: its status, headers and text.
    ///
    /// # Errors
    /// Why there is no answer within `limit`, for a person.
    pub async fn get(&self, uri: Uri, limit: Duration) -> Result<Page, String> {
        let request = Request::get(uri).body(Full::default());
        let request = request.map_err(|error| error.to_string())?;
        let answer = async {
            let answer = self.send(request).await?;
            let (status, headers) = (answer.status(), answer.headers().clone());
            let text = read(answer).await?;
            Ok(Page {
                status,
                headers,
                text,
            })
        };
        let limited = tokio::time::timeout(limit, answer).await;
        limited.unwrap_or_else(|_| Err(format!("no answer within {} s", limit.as_secs_f32())))
    }
}

/// Reads a body whole.
///
/// # Errors
/// Why it broke off, for a person.
pub async fn read(answer: Response<Incoming>) -> Result<String, String> {
    let body = Limited::new(answer.into_body(), LARGEST).collect().await;
    let body = body.map_err(|error| root(&*error))?;
    Ok(String::from_utf8_lossy(&body.to_bytes()).into_owned())
}
