//! The service over real sockets, with a client that sends whatever bytes it likes.

use std::path::Path;
use std::time::Duration;

use bytes::{BufMut, Bytes};
use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream, UnixListenerStream};
use tokio_stream::{Stream, StreamExt};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Status, Streaming};

use super::*;
use crate::common::{Error, ErrorCode};
use crate::plugin::plugin_host_client::PluginHostClient;
use crate::plugin::{HostFrame, PluginFrame, Ready, host_frame, plugin_frame};

/// Answers each message with an error that says what it was; the first answer tells the peer, and the
/// second one, if there is one, that it is welcome.
struct Mirror {
    greeting: usize,
}

fn answer(id: u64, message: String) -> HostFrame {
    let error = Error {
        code: ErrorCode::InvalidArgument.into(),
        message,
        ..Error::default()
    };
    HostFrame {
        id,
        body: Some(host_frame::Body::Error(error.into())),
    }
}

impl AttachHandler for Mirror {
    type Frames = std::pin::Pin<Box<dyn Stream<Item = Result<HostMessage, Status>> + Send>>;

    async fn attach(&self, peer: PeerInfo, frames: AttachFrames) -> Result<Self::Frames, Status> {
        let answers = frames.map(|inbound| {
            Ok(match inbound? {
                Inbound::Frame(PluginFrame { id, body }) => answer(
                    id,
                    match body {
                        Some(_) => "a frame".to_owned(),
                        None => "not known".to_owned(),
                    },
                ),
                Inbound::Malformed { id, .. } => answer(id, "malformed".to_owned()),
                Inbound::Oversize { id, bytes } => answer(id, format!("{bytes} bytes")),
            })
        });
        let welcome = host_frame::Body::Welcome(Box::default());
        let greeting = [
            answer(0, peer.to_string()),
            HostFrame {
                id: 0,
                body: Some(welcome),
            },
        ];
        let greeting = tokio_stream::iter(greeting.map(Ok));
        let frames = greeting.take(self.greeting).chain(answers);
        Ok(Box::pin(frames.map(|frame| frame.map(HostMessage::from))))
    }
}

/// Sends bytes as they are.
#[derive(Default)]
struct RawCodec;

impl Codec for RawCodec {
    type Encode = Bytes;
    type Decode = HostFrame;
    type Encoder = Self;
    type Decoder = Self;
    fn encoder(&mut self) -> Self {
        Self
    }
    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for RawCodec {
    type Item = Bytes;
    type Error = Status;
    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for RawCodec {
    type Item = HostFrame;
    type Error = Status;
    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<HostFrame>, Status> {
        Ok(Some(
            HostFrame::decode(buffer).expect("the host sends frames"),
        ))
    }
}

/// Serves on a socket in a folder until the test's runtime ends.
fn serve(folder: &Path, greeting: usize) -> Endpoint {
    let path = folder.join("s");
    let listener = tokio::net::UnixListener::bind(&path).expect("bind");
    let serving = Server::builder()
        .add_service(attach_server(Mirror { greeting }))
        .serve_with_incoming(UnixListenerStream::new(listener));
    tokio::spawn(serving);
    Endpoint::from_shared(format!("unix://{}", path.display())).expect("an address")
}

/// Opens a stream of raw messages.
async fn open(channel: Channel) -> (mpsc::Sender<Bytes>, Streaming<HostFrame>) {
    let (sender, messages) = mpsc::channel(16);
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.expect("ready");
    let path = "/plugmesh.plugin.v1.PluginHost/Attach"
        .parse()
        .expect("a path");
    let request = Request::new(ReceiverStream::new(messages));
    let answers = client.streaming(request, path, RawCodec).await;
    (sender, answers.expect("attached").into_inner())
}

async fn next(answers: &mut Streaming<HostFrame>) -> (u64, String) {
    let frame = tokio::time::timeout(Duration::from_secs(10), answers.message()).await;
    let frame = frame
        .expect("in time")
        .expect("no status")
        .expect("not the end");
    match frame.body {
        Some(host_frame::Body::Error(error)) => (frame.id, error.message),
        other => panic!("{other:?}"),
    }
}

fn ready(id: u64) -> PluginFrame {
    let body = Some(plugin_frame::Body::Ready(Ready {}));
    PluginFrame { id, body }
}

#[tokio::test]
async fn garbage_is_answered_for_its_id_and_the_stream_goes_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let channel = serve(folder.path(), 1).connect().await.expect("connect");
    let (sender, mut answers) = open(channel).await;
    assert_eq!(
        next(&mut answers).await,
        (0, format!("process {}", std::process::id()))
    );
    let mut oversize = vec![0x08, 5];
    oversize.resize(1_000_000, 0xff);
    let steps: [(Vec<u8>, u64, &str); 6] = [
        (ready(1).encode_to_vec(), 1, "a frame"),
        (vec![0x08, 3, 0xff, 0xff], 3, "malformed"),
        (oversize, 5, "1000000 bytes"),
        (vec![0x08, 7, 0x9a, 0x06, 0], 7, "not known"),
        (vec![], 0, "not known"),
        (ready(9).encode_to_vec(), 9, "a frame"),
    ];
    for (bytes, id, said) in steps {
        sender.send(bytes.into()).await.expect("open");
        assert_eq!(next(&mut answers).await, (id, said.to_owned()));
    }
    drop(sender);
    assert!(answers.message().await.expect("a good end").is_none());
}

#[tokio::test]
async fn a_message_that_would_cost_too_much_memory_ends_its_own_stream_only() {
    let folder = tempfile::tempdir().expect("a folder");
    let channel = serve(folder.path(), 2).connect().await.expect("connect");
    let (good, mut good_answers) = open(channel.clone()).await;
    let (bad, mut bad_answers) = open(channel).await;
    for answers in [&mut good_answers, &mut bad_answers] {
        next(answers).await;
        answers.message().await.expect("the Welcome");
    }
    bad.send(vec![0; MAX_MESSAGE_BYTES + 1].into())
        .await
        .expect("open");
    let status = bad_answers.message().await.expect_err("refused");
    assert_eq!(status.code(), tonic::Code::OutOfRange);
    good.send(ready(1).encode_to_vec().into())
        .await
        .expect("open");
    assert_eq!(next(&mut good_answers).await, (1, "a frame".to_owned()));
}

#[tokio::test]
async fn who_is_not_welcome_yet_may_send_little() {
    let folder = tempfile::tempdir().expect("a folder");
    let channel = serve(folder.path(), 1).connect().await.expect("connect");
    let (stranger, mut answers) = open(channel).await;
    next(&mut answers).await;
    stranger
        .send(vec![0; MAX_STRANGER_BYTES].into())
        .await
        .expect("open");
    let status = answers.message().await.expect_err("refused");
    assert_eq!(status.code(), tonic::Code::ResourceExhausted);
    assert!(status.message().contains("send Hello"), "{status}");
}

#[tokio::test]
async fn a_generated_client_attaches_over_tcp() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("bind");
    let address = listener.local_addr().expect("an address");
    let serving = Server::builder()
        .add_service(attach_server(Mirror { greeting: 1 }))
        .serve_with_incoming(TcpListenerStream::new(listener));
    tokio::spawn(serving);
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
    let channel = endpoint.connect().await.expect("connect");
    let mut client = PluginHostClient::new(channel);
    let frames = tokio_stream::iter([ready(1), ready(3)]);
    let mut answers = client.attach(frames).await.expect("attached").into_inner();
    let (_, peer) = next(&mut answers).await;
    assert!(peer.starts_with("127.0.0.1:"), "{peer}");
    assert_eq!(next(&mut answers).await.0, 1);
    assert_eq!(next(&mut answers).await.0, 3);
    assert!(answers.message().await.expect("a good end").is_none());
}

#[tokio::test]
async fn another_method_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let channel = serve(folder.path(), 1).connect().await.expect("connect");
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.expect("ready");
    let path = "/plugmesh.plugin.v1.PluginHost/Other"
        .parse()
        .expect("a path");
    let request = Request::new(tokio_stream::once(Bytes::new()));
    let status = client
        .streaming(request, path, RawCodec)
        .await
        .expect_err("refused");
    assert_eq!(status.code(), tonic::Code::Unimplemented);
}
