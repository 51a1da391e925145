//! Follows the routing table of a coordinator, and goes on to another when that one goes away, from the
//! revision that there is.

use std::time::Duration;

use mesh_core::error::MeshError;
use mesh_core::revision::Revision;
use mesh_core::table::ApplyError;
use mesh_proto::control::table_feed_client::TableFeedClient;
use mesh_proto::control::{
    TableAck, TableFeedHello, TableFeedRequest, TableFeedResponse, table_feed_request,
};
use mesh_proto::convert::{MAX_UPDATE, SentUpdate};
use mesh_proto::status::{from_status, stream_end};
use mesh_runtime::coordinators::{Candidate, Search, TableStanding};
use router::TableStore;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;

use super::Coordinators;

/// Time until a coordinator sends the first update: one that starts waits for its store first.
const ANSWER: Duration = Duration::from_secs(8);

/// Why following ended.
enum Ended {
    /// The connection or the coordinator is gone.
    Lost(String),
    /// Updates are missing between ours and theirs: a snapshot is wanted.
    Gap,
}

/// Follows the table until `stop`.
pub async fn follow(
    coordinators: Coordinators,
    store: TableStore,
    standing: TableStanding,
    stop: CancellationToken,
) {
    let mut follower = Follower {
        search: Search::new(coordinators.addresses.clone()),
        coordinators,
        store,
        standing,
        whole: false,
        current: false,
        warned: false,
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = follower.run() => {}
    }
}

struct Follower {
    coordinators: Coordinators,
    search: Search,
    store: TableStore,
    standing: TableStanding,
    /// The next coordinator is asked for the whole table, plain: an update did not continue the one at hand,
    /// or could not be read.
    whole: bool,
    /// An update has come over the present connection.
    current: bool,
    /// The log says already that no coordinator is followed.
    warned: bool,
}

impl Follower {
    async fn run(&mut self) {
        while let Some(coordinator) = self.search.next().await {
            self.current = false;
            match self.follow_one(&coordinator).await {
                Ended::Gap => self.whole = true,
                Ended::Lost(why) => self.lost(&coordinator, &why),
            }
            if self.current {
                self.search.stood();
            }
        }
    }

    fn lost(&mut self, coordinator: &Candidate, why: &str) {
        if self.warned {
            tracing::debug!(%coordinator, why, "still not following the table");
        } else {
            tracing::warn!(%coordinator, why, "not following the table; trying again");
            self.warned = true;
        }
        let why = format!("{coordinator}: {why}");
        self.standing.alone(self.store.table().revision(), &why);
    }

    /// Follows one coordinator until that ends.
    async fn follow_one(&mut self, coordinator: &Candidate) -> Ended {
        let late = || Ended::Lost(format!("it sent nothing within {ANSWER:?}"));
        let (acks, mut updates) = match timeout(ANSWER, self.open(coordinator)).await {
            Ok(Ok(open)) => open,
            Ok(Err(why)) => return Ended::Lost(why),
            Err(_) => return late(),
        };
        loop {
            let next = if self.current {
                updates.message().await
            } else {
                match timeout(ANSWER, updates.message()).await {
                    Ok(next) => next,
                    Err(_) => return late(),
                }
            };
            let update = match next {
                Ok(Some(response)) => SentUpdate::from(response),
                Ok(None) => return Ended::Lost("the coordinator closed the stream".to_owned()),
                Err(status) => return Ended::Lost(stream_end(&status).to_string()),
            };
            let update = match update.read(&self.store.table()) {
                Ok(update) => update,
                Err(error) => {
                    self.whole = true;
                    return Ended::Lost(MeshError::from(error).to_string());
                }
            };
            match self.store.apply(&update) {
                Ok(revision) => {
                    self.whole = false;
                    if !self.current {
                        tracing::info!(%coordinator, %revision, "following the table");
                        self.current = true;
                        self.warned = false;
                        self.standing.followed();
                    }
                    let ack = table_feed_request::Body::Ack(TableAck {
                        revision: Some(revision.into()),
                    });
                    // Acknowledgements are for people: a full queue may lose one.
                    let _ = acks.try_send(request(ack));
                }
                Err(ApplyError::Gap { .. }) => return Ended::Gap,
                // A coordinator that is behind: another one may be further.
                Err(error @ ApplyError::Older { .. }) => return Ended::Lost(error.to_string()),
            }
        }
    }

    async fn open(
        &self,
        coordinator: &Candidate,
    ) -> Result<(mpsc::Sender<TableFeedRequest>, Streaming<TableFeedResponse>), String> {
        let channel = coordinator.connect().await?;
        let mut client = TableFeedClient::new(channel).max_decoding_message_size(MAX_UPDATE);
        let have = self.store.table();
        let known = have.revision() != Revision::default() && !self.whole;
        let hello = table_feed_request::Body::Hello(TableFeedHello {
            mesh: self.coordinators.mesh.to_string(),
            name: self.coordinators.name.to_string(),
            table: known.then(|| have.revision().into()),
            table_digest: have.digest(),
            // Should it be packing that breaks them, plain ones work.
            takes_packed: !self.whole,
        });
        let (send, receive) = mpsc::channel(16);
        send.try_send(request(hello))
            .map_err(|error| error.to_string())?;
        let updates = client.follow(ReceiverStream::new(receive)).await;
        let updates = updates.map_err(|status| from_status(&status).to_string())?;
        Ok((send, updates.into_inner()))
    }
}

fn request(body: table_feed_request::Body) -> TableFeedRequest {
    TableFeedRequest { body: Some(body) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]
    use std::collections::BTreeMap;

    use mesh_core::id::Generation;
    use mesh_core::table::{NodeRoute, TableUpdate};
    use mesh_proto::control::table_feed_server::{TableFeed, TableFeedServer};
    use mesh_runtime::{Metrics, Readiness};
    use tokio_stream::wrappers::TcpListenerStream;
    use tonic::{Request, Response, Status};

    use super::*;

    type Updates = mpsc::Sender<Result<TableFeedResponse, Status>>;
    type Opened = (Streaming<TableFeedRequest>, Updates);

    /// A coordinator that the test plays.
    struct Played(mpsc::Sender<Opened>);

    #[tonic::async_trait]
    impl TableFeed for Played {
        type FollowStream = ReceiverStream<Result<TableFeedResponse, Status>>;

        async fn follow(
            &self,
            request: Request<Streaming<TableFeedRequest>>,
        ) -> Result<Response<Self::FollowStream>, Status> {
            let (updates, stream) = mpsc::channel(4);
            let _ = self.0.send((request.into_inner(), updates)).await;
            Ok(Response::new(ReceiverStream::new(stream)))
        }
    }

    /// The next one who follows, with its hello.
    async fn hello(opened: &mut mpsc::Receiver<Opened>) -> (TableFeedHello, Opened) {
        let (mut said, updates) = timeout(ANSWER, opened.recv()).await.unwrap().unwrap();
        match said.message().await.unwrap().unwrap().body {
            Some(table_feed_request::Body::Hello(hello)) => (hello, (said, updates)),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn packed_updates_are_taken_and_after_a_broken_one_the_whole_table_is_asked_for_plain() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addresses = vec![format!("http://{}", listener.local_addr().unwrap())];
        let (opened, mut opening) = mpsc::channel(1);
        let server = tonic::transport::Server::builder()
            .add_service(TableFeedServer::new(Played(opened)))
            .serve_with_incoming(TcpListenerStream::new(listener));
        let server = tokio::spawn(server);
        let ready = Readiness::new().latch("table");
        let standing = TableStanding::new(ready, &Metrics::new(), &addresses, Revision::default());
        let (store, _, _) = TableStore::open(None).unwrap();
        let name = "gateway".parse().unwrap();
        let coordinators = Coordinators::new(addresses, "default".parse().unwrap(), name);
        let stop = CancellationToken::new();
        let following = follow(coordinators, store.clone(), standing, stop.clone());
        let following = tokio::spawn(following);

        let node = |number| NodeRoute {
            node: format!("node-{number}").parse().unwrap(),
            generation: Generation(1),
            zone: String::new(),
            labels: BTreeMap::new(),
            software: String::new(),
        };
        let to = Revision {
            epoch: 1,
            sequence: 5,
        };
        let packed = SentUpdate::packed(TableUpdate {
            to,
            nodes: (0..300).map(node).collect(),
            ..TableUpdate::default()
        });
        let SentUpdate::Packed(bytes) = packed.clone() else {
            panic!("it is large");
        };
        let (first, (mut said, updates)) = hello(&mut opening).await;
        assert!(first.takes_packed && first.table.is_none());
        updates.send(Ok(packed.into())).await.unwrap();
        match said.message().await.unwrap().unwrap().body {
            Some(table_feed_request::Body::Ack(ack)) => {
                assert_eq!(ack.revision, Some(to.into()));
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(store.table().nodes().count(), 300);
        let cut = SentUpdate::Packed(bytes.slice(..bytes.len() - 1));
        updates.send(Ok(cut.into())).await.unwrap();
        let (second, _) = hello(&mut opening).await;
        assert_eq!((second.table, second.takes_packed), (None, false));
        stop.cancel();
        following.await.unwrap();
        server.abort();
    }
}
