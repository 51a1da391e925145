//! `TableFeed`: the table for gateways, and for whoever else wants to route by it.

use mesh_core::error::{ErrorCode, MeshError};
use mesh_engine::engine::Event;
use mesh_proto::control::table_feed_server::TableFeed;
use mesh_proto::control::{TableFeedRequest, TableFeedResponse, table_feed_request};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{OUTGOING, Services, broken, finish, first};
use crate::handle::stopped;

type Outgoing = mpsc::Sender<Result<TableFeedResponse, Status>>;

#[tonic::async_trait]
impl TableFeed for Services {
    type FollowStream = ReceiverStream<Result<TableFeedResponse, Status>>;

    async fn follow(
        &self,
        request: Request<Streaming<TableFeedRequest>>,
    ) -> Result<Response<Self::FollowStream>, Status> {
        let (out, stream) = mpsc::channel(OUTGOING);
        let (services, stop) = (self.clone(), self.tasks.token());
        self.tasks.spawn("table follower", async move {
            let served = services.serve_follower(request.into_inner(), &out);
            let error = tokio::select! {
                () = stop.cancelled() => Some(stopped()),
                ended = served => ended.err(),
            };
            finish(&out, error).await;
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

impl Services {
    async fn serve_follower(
        &self,
        mut requests: Streaming<TableFeedRequest>,
        out: &Outgoing,
    ) -> Result<(), MeshError> {
        let hello = match first(&mut requests, "hello").await?.body {
            Some(table_feed_request::Body::Hello(hello)) => hello,
            _ => return Err(violation("the first message is a hello")),
        };
        self.check_mesh(&hello.mesh)?;
        self.joining.may_join().await?;
        let name: String = hello.name.chars().take(80).collect();
        tracing::info!(follower = name, "the table is followed");
        let _following = self.metrics.following();
        let table = hello.table.map(Into::into);
        if let Some(table) = table {
            self.handle.tell(Event::TableSeen { table }).await?;
        }
        let follower = self.feed.follow(table, hello.table_digest);
        let mut follower = follower.takes_packed(hello.takes_packed);
        // Reading goes on whatever the peer takes: acknowledgements are small and lead to nothing.
        let reading = async {
            loop {
                match requests.message().await {
                    Ok(Some(TableFeedRequest { body })) => match body {
                        Some(table_feed_request::Body::Hello(_)) => {
                            return Err(violation("a stream has one hello"));
                        }
                        Some(table_feed_request::Body::Ack(_)) | None => {}
                    },
                    Ok(None) => return Ok(()),
                    Err(status) => return Err(broken(&status)),
                }
            }
        };
        let writing = async {
            loop {
                let update = tokio::select! {
                    () = out.closed() => return,
                    update = follower.next() => update,
                };
                if out.send(Ok(update.into())).await.is_err() {
                    return;
                }
            }
        };
        let ended = tokio::select! {
            ended = reading => ended,
            () = writing => Ok(()),
        };
        tracing::info!(follower = name, "the table is no longer followed");
        ended
    }
}

fn violation(text: &str) -> MeshError {
    MeshError::new(ErrorCode::ProtocolViolation, text)
}
