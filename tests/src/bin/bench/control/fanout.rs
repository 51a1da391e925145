//! The bare part: a gRPC server that sends what one of its streams brings to all of them.

use std::convert::Infallible;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use harness::process::{self, Process};
use harness::raw_codec::RawCodec;
use harness::{load, ports};
use hdrhistogram::Histogram;
use http::uri::PathAndQuery;
use tokio::sync::{broadcast, mpsc};
use tokio_stream::wrappers::{BroadcastStream, ReceiverStream};
use tonic::{Request, Response, Status, Streaming};

use super::agents::connect;
use super::mesh::{CHANGES, JOINING, PAUSE};

const PATIENCE: Duration = Duration::from_secs(20);

/// Serves for ever.
pub async fn serve(address: &str) -> anyhow::Result<()> {
    let (all, _) = broadcast::channel::<Bytes>(64);
    let stream = tower::service_fn(move |request: http::Request<axum::body::Body>| {
        let all = all.clone();
        async move {
            let send = tower::service_fn(move |request: Request<Streaming<Bytes>>| {
                let all = all.clone();
                async move {
                    let told = BroadcastStream::new(all.subscribe());
                    let mut said = request.into_inner();
                    tokio::spawn(async move {
                        while let Ok(Some(message)) = said.message().await {
                            let _ = all.send(message);
                        }
                    });
                    let told = told.map_err(|error| Status::data_loss(error.to_string()));
                    Ok::<_, Status>(Response::new(told))
                }
            });
            let mut server = tonic::server::Grpc::new(RawCodec);
            Ok::<_, Infallible>(server.streaming(send, request).await)
        }
    });
    let routes = axum::Router::new().route_service("/bench.All/Send", stream);
    let server = mesh_runtime::grpc::server().add_routes(tonic::service::Routes::from(routes));
    Ok(server.serve(address.parse()?).await?)
}

/// One stream; what comes on it is counted.
async fn join(url: &str, came: mpsc::UnboundedSender<()>) -> anyhow::Result<mpsc::Sender<Bytes>> {
    let mut client = tonic::client::Grpc::new(connect(url).await?);
    client.ready().await?;
    let (say, said) = mpsc::channel(4);
    let path = PathAndQuery::from_static("/bench.All/Send");
    let answer = client.streaming(Request::new(ReceiverStream::new(said)), path, RawCodec);
    let mut incoming: Streaming<Bytes> = answer.await?.into_inner();
    tokio::task::spawn_local(async move {
        while let Some(Ok(_)) = incoming.next().await {
            let _ = came.send(());
        }
    });
    Ok(say)
}

/// The times until a message of so many bytes, that one stream brought, has come on all.
pub async fn measure(
    folder: &Path,
    streams: usize,
    bytes: usize,
) -> anyhow::Result<Histogram<u64>> {
    let address = format!("127.0.0.1:{}", ports::free());
    let _server = Process::start(
        "fanout",
        folder,
        &process::binary("bench"),
        &["serve", "fanout", &address],
        &[],
    );
    let url = format!("http://{address}");
    harness::wait::until("the bare server listens", PATIENCE, || connect(&url)).await;
    let (came, mut coming) = mpsc::unbounded_channel();
    let joining = futures::stream::iter(0..streams).map(|_| join(&url, came.clone()));
    let streams: Vec<mpsc::Sender<Bytes>> = joining.buffered(JOINING).try_collect().await?;
    let message = Bytes::from(vec![b'x'; bytes]);
    let mut times = load::histogram();
    for change in 0..CHANGES {
        let begin = Instant::now();
        streams[change % streams.len()]
            .send(message.clone())
            .await?;
        let all = async {
            for _ in &streams {
                coming.recv().await.context("a stream")?;
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(PATIENCE, all).await??;
        times.saturating_record(u64::try_from(begin.elapsed().as_nanos())?);
        tokio::time::sleep(PAUSE).await;
    }
    Ok(times)
}
