//! A small HTTP client: whole answers, and streams of events.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tokio::time::timeout;

use crate::fake_mesh::PATIENCE;

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: http::HeaderMap,
    pub body: String,
}

impl Answer {
    /// The JSON of the body, or of the last event.
    pub fn json(&self) -> Value {
        let parse = |text: &str| serde_json::from_str(text).ok();
        let events = self
            .body
            .lines()
            .filter_map(|line| line.strip_prefix("data:"));
        parse(&self.body)
            .or_else(|| events.filter_map(parse).next_back())
            .unwrap_or_else(|| panic!("no JSON in {self:?}"))
    }
}

pub async fn send(
    method: &str,
    url: &str,
    headers: &[(&'static str, String)],
    body: &str,
) -> Result<http::Response<Incoming>, hyper_util::client::legacy::Error> {
    let client: Client<HttpConnector, Full<Bytes>> =
        Client::builder(TokioExecutor::new()).build_http();
    let mut request = http::Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    let request = request
        .body(Full::new(Bytes::from(body.to_owned())))
        .unwrap();
    timeout(PATIENCE, client.request(request))
        .await
        .expect("an answer in time")
}

async fn whole(response: http::Response<Incoming>) -> Answer {
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let body = timeout(PATIENCE, response.into_body().collect()).await;
    let body = body.expect("the answer ends").unwrap().to_bytes();
    Answer {
        status,
        headers,
        body: String::from_utf8_lossy(&body).into_owned(),
    }
}

pub async fn request(
    port: u16,
    method: &str,
    path: &str,
    headers: &[(&'static str, String)],
    body: &str,
) -> Answer {
    let url = format!("http://127.0.0.1:{port}{path}");
    whole(send(method, &url, headers, body).await.unwrap()).await
}

pub async fn post(port: u16, headers: &[(&'static str, String)], body: &str) -> Answer {
    request(port, "POST", "/mcp", headers, body).await
}

pub async fn try_get(port: u16, path: &str) -> Result<Answer, hyper_util::client::legacy::Error> {
    let url = format!("http://127.0.0.1:{port}{path}");
    Ok(whole(send("GET", &url, &[], "").await?).await)
}

/// The messages of an answer, one after the other. Dropping it closes the connection.
pub struct Events {
    body: Incoming,
    text: String,
}

impl Events {
    pub async fn open(
        port: u16,
        method: &str,
        headers: &[(&'static str, String)],
        body: &str,
    ) -> Self {
        let url = format!("http://127.0.0.1:{port}/mcp");
        let response = send(method, &url, headers, body).await.unwrap();
        assert_eq!(response.status(), 200, "{response:?}");
        let kind = response.headers()["content-type"].to_str().unwrap();
        assert_eq!(kind, "text/event-stream");
        Self {
            body: response.into_body(),
            text: String::new(),
        }
    }

    /// The next message; `None` when the stream has ended.
    pub async fn next(&mut self) -> Option<Value> {
        timeout(PATIENCE, self.read())
            .await
            .expect("a message in time")
    }

    /// The next message, unless none comes for a while.
    pub async fn next_within(&mut self, time: Duration) -> Option<Value> {
        timeout(time, self.read()).await.ok().flatten()
    }

    async fn read(&mut self) -> Option<Value> {
        loop {
            while let Some((event, rest)) = self.text.split_once("\n\n") {
                let data = event.lines().find_map(|line| line.strip_prefix("data:"));
                let value = data.and_then(|data| serde_json::from_str(data).ok());
                self.text = rest.to_owned();
                if value.is_some() {
                    return value;
                }
            }
            let frame = self.body.frame().await?.ok()?;
            if let Ok(data) = frame.into_data() {
                self.text.push_str(&String::from_utf8_lossy(&data));
            }
        }
    }
}
