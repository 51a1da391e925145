//! A small HTTP client for JSON and for raw requests.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

/// A status and a body.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: http::HeaderMap,
    pub body: String,
}

impl Answer {
    /// The JSON of the body, or of the last `data:` line of an event stream that holds a JSON-RPC
    /// response.
    pub fn json(&self) -> serde_json::Value {
        let parse = |text: &str| serde_json::from_str::<serde_json::Value>(text).ok();
        parse(&self.body)
            .or_else(|| {
                let lines = self
                    .body
                    .lines()
                    .filter_map(|line| line.strip_prefix("data:"));
                lines.rev().find_map(parse)
            })
            .unwrap_or_else(|| panic!("no JSON in {self:?}"))
    }
}

/// Sends one request; the whole of it is bounded by 30 s.
pub async fn request(
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> anyhow::Result<Answer> {
    let client: Client<HttpConnector, Full<Bytes>> =
        Client::builder(TokioExecutor::new()).build_http();
    let mut request = http::Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(body.into()))?;
    let work = async {
        let answer = client.request(request).await?;
        let status = answer.status().as_u16();
        let headers = answer.headers().clone();
        let body = answer.into_body().collect().await?.to_bytes();
        let body = String::from_utf8_lossy(&body).into_owned();
        anyhow::Ok(Answer {
            status,
            headers,
            body,
        })
    };
    tokio::time::timeout(Duration::from_secs(30), work).await?
}

pub async fn get(url: &str) -> anyhow::Result<Answer> {
    request("GET", url, &[], Bytes::new()).await
}
