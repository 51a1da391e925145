//! A plugin played by hand: it sends whatever bytes a test wants on the attach port.

use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use mesh_proto::common::{CapabilityEntry, Manifest};
use mesh_proto::plugin::{Hello, HostFrame, PluginFrame, Ready, host_frame, plugin_frame};
use prost::Message as _;
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use crate::raw_codec::RawCodec;

/// An open attach stream.
pub struct RawPlugin {
    frames: mpsc::Sender<Bytes>,
    answers: Streaming<Bytes>,
}

impl RawPlugin {
    pub async fn connect(url: &str) -> Self {
        let endpoint = tonic::transport::Endpoint::from_shared(url.to_owned()).unwrap();
        let channel = endpoint.connect().await.expect("the attach port answers");
        let mut client = tonic::client::Grpc::new(channel);
        client.ready().await.unwrap();
        let (frames, queue) = mpsc::channel(64);
        let stream = tokio_stream::wrappers::ReceiverStream::new(queue);
        let path = http::uri::PathAndQuery::from_static("/plugmesh.plugin.v1.PluginHost/Attach");
        let answers = client
            .streaming(tonic::Request::new(stream), path, RawCodec)
            .await
            .expect("the stream opens")
            .into_inner();
        Self { frames, answers }
    }

    /// Attaches as a plugin with these tools and waits for the Welcome.
    pub async fn attach(url: &str, name: &str, tools: &[&str]) -> Self {
        let mut plugin = Self::connect(url).await;
        plugin
            .send(0, plugin_frame::Body::Hello(hello(name, tools).into()))
            .await;
        let welcome = plugin.receive().await.expect("a frame");
        assert!(
            matches!(welcome.body, Some(host_frame::Body::Welcome(_))),
            "{welcome:?}"
        );
        plugin.send(0, plugin_frame::Body::Ready(Ready {})).await;
        plugin
    }

    pub async fn send(&mut self, id: u64, body: plugin_frame::Body) {
        let frame = PluginFrame {
            id,
            body: Some(body),
        };
        self.send_raw(frame.encode_to_vec()).await;
    }

    pub async fn send_raw(&mut self, bytes: impl Into<Bytes>) {
        let _ = self.frames.send(bytes.into()).await;
    }

    /// The next frame, or how the stream ended.
    pub async fn receive(&mut self) -> Result<HostFrame, Status> {
        let limit = Duration::from_secs(10);
        match tokio::time::timeout(limit, self.answers.message()).await {
            Ok(Ok(Some(frame))) => {
                HostFrame::decode(frame).map_err(|error| Status::internal(error.to_string()))
            }
            Ok(Ok(None)) => Err(Status::ok("the stream ended")),
            Ok(Err(status)) => Err(status),
            Err(_) => Err(Status::deadline_exceeded("no frame within 10 s")),
        }
    }

    /// The next Error frame, with its id.
    pub async fn receive_error(&mut self) -> Result<(u64, mesh_proto::common::Error), Status> {
        loop {
            let frame = self.receive().await?;
            if let Some(host_frame::Body::Error(error)) = frame.body {
                return Ok((frame.id, *error));
            }
        }
    }
}

/// A Hello with a manifest of tools.
pub fn hello(name: &str, tools: &[&str]) -> Hello {
    let capability = |tool: &&str| CapabilityEntry {
        capability: Some(mesh_proto::common::Capability {
            kind: mesh_proto::common::CapabilityKind::Tool.into(),
            name: (*tool).to_owned(),
        }),
        entry: serde_json::json!({"name": tool, "inputSchema": {"type": "object"}})
            .to_string()
            .into(),
        ..CapabilityEntry::default()
    };
    Hello {
        min_protocol: 1,
        max_protocol: 1,
        manifest: Some(Manifest {
            name: name.to_owned(),
            version: "1.0.0".to_owned(),
            capabilities: tools.iter().map(capability).collect(),
            ..Manifest::default()
        }),
        sdk: "by-hand".to_owned(),
        ..Hello::default()
    }
}

/// A frame whose id can be read and whose rest is garbage.
pub fn garbage(id: u64) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_u8(0x08);
    prost::encoding::encode_varint(id, &mut bytes);
    bytes.put_slice(&[0x12, 0xff, 0xff, 0x03, 0x07, 0x99]);
    bytes.freeze()
}
