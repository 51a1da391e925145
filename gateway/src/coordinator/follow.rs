//! Follows the routing table of the first coordinator that answers.

use std::time::Duration;

use mesh_core::error::MeshError;
use mesh_core::revision::Revision;
use mesh_core::table::{ApplyError, TableUpdate};
use mesh_proto::control::table_feed_client::TableFeedClient;
use mesh_proto::control::{
    TableAck, TableFeedHello, TableFeedRequest, TableFeedResponse, table_feed_request,
};
use mesh_proto::status::from_status;
use mesh_runtime::ReadyLatch;
use router::TableStore;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;

use super::{Coordinators, connect, root};

/// Pauses between rounds through all coordinators.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Largest update: a whole table of a large mesh.
const MAX_UPDATE_BYTES: usize = 256 << 20;

/// Why following ended.
enum Ended {
    /// The connection or the coordinator is gone.
    Lost(String),
    /// Updates are missing between ours and theirs: a snapshot is wanted.
    Gap,
}

/// Follows the table until `stop`. `ready` says whether there is a table, and where it is from.
pub async fn follow(
    coordinators: Coordinators,
    store: TableStore,
    ready: ReadyLatch,
    stop: CancellationToken,
) {
    let mut follower = Follower {
        coordinators,
        store,
        ready,
        whole: false,
        current: false,
        warned: false,
    };
    follower.show("no coordinator has answered yet");
    tokio::select! {
        () = stop.cancelled() => {}
        () = follower.run() => {}
    }
}

struct Follower {
    coordinators: Coordinators,
    store: TableStore,
    ready: ReadyLatch,
    /// The next coordinator is asked for the whole table.
    whole: bool,
    /// An update has come over the present connection.
    current: bool,
    /// The log says already that no coordinator is followed.
    warned: bool,
}

impl Follower {
    async fn run(&mut self) {
        let mut pause = FIRST_PAUSE;
        loop {
            for address in self.coordinators.addresses.clone() {
                self.current = false;
                match self.follow_one(&address).await {
                    Ended::Gap => self.whole = true,
                    Ended::Lost(why) => self.lost(&address, &why),
                }
                if self.current {
                    pause = FIRST_PAUSE;
                }
            }
            // Jitter keeps all gateways of a mesh from coming back in the same moment.
            tokio::time::sleep(pause.mul_f64(fastrand::f64().mul_add(0.5, 0.75))).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn lost(&mut self, address: &str, why: &str) {
        if self.warned {
            tracing::debug!(coordinator = address, why, "still not following the table");
        } else {
            tracing::warn!(
                coordinator = address,
                why,
                "not following the table; trying again"
            );
            self.warned = true;
        }
        self.show(why);
    }

    /// Follows one coordinator until that ends.
    async fn follow_one(&mut self, address: &str) -> Ended {
        let (acks, mut updates) = match self.open(address).await {
            Ok(open) => open,
            Err(why) => return Ended::Lost(why),
        };
        loop {
            let update = match updates.message().await {
                Ok(Some(TableFeedResponse { table: Some(table) })) => table,
                Ok(Some(TableFeedResponse { table: None })) => continue,
                Ok(None) => return Ended::Lost("the coordinator closed the stream".to_owned()),
                Err(status) => return Ended::Lost(from_status(&status).to_string()),
            };
            let update = match TableUpdate::try_from(update) {
                Ok(update) => update,
                Err(error) => return Ended::Lost(MeshError::from(error).to_string()),
            };
            match self.store.apply(&update) {
                Ok(revision) => {
                    self.whole = false;
                    if !self.current {
                        tracing::info!(coordinator = address, %revision, "following the table");
                        self.current = true;
                        self.warned = false;
                        self.ready.set_ready();
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
        address: &str,
    ) -> Result<(mpsc::Sender<TableFeedRequest>, Streaming<TableFeedResponse>), String> {
        let channel = connect(address).await.map_err(|error| root(&error))?;
        let mut client = TableFeedClient::new(channel).max_decoding_message_size(MAX_UPDATE_BYTES);
        let have = self.store.table().revision();
        let table = (have != Revision::default() && !self.whole).then(|| have.into());
        let hello = table_feed_request::Body::Hello(TableFeedHello {
            mesh: self.coordinators.mesh.to_string(),
            name: self.coordinators.name.to_string(),
            table,
        });
        let (send, receive) = mpsc::channel(16);
        send.try_send(request(hello))
            .map_err(|error| error.to_string())?;
        let updates = client.follow(ReceiverStream::new(receive)).await;
        let updates = updates.map_err(|status| from_status(&status).to_string())?;
        Ok((send, updates.into_inner()))
    }

    /// Says how it stands while no coordinator is followed.
    fn show(&self, why: &str) {
        let revision = self.store.table().revision();
        if revision == Revision::default() {
            let addresses = self.coordinators.listed();
            let text =
                format!("there is no table yet: no coordinator answers at {addresses} ({why})");
            self.ready.set_not_ready(text);
        } else {
            let text =
                format!("serving from the table at revision {revision}, which may be old: {why}");
            self.ready.set_ready_with(text);
        }
    }
}

fn request(body: table_feed_request::Body) -> TableFeedRequest {
    TableFeedRequest { body: Some(body) }
}
