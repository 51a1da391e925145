//! A router of this process's own: it calls as a gateway does.

use std::rc::Rc;
use std::str::FromStr as _;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use harness::mesh::Mesh;
use mesh_bus::{Bus, BusConfig};
use mesh_core::capability::Capability;
use mesh_core::id::{MeshName, NodeId, PluginName};
use mesh_core::table::{Table, TableUpdate};
use mesh_proto::control;
use mesh_proto::convert::SentUpdate;
use router::{CallRequest, Router, RouterConfig, TableStore};

use crate::clients::{Call, call, channel, same_length};

/// A router with the table as it was when it was made.
#[derive(Clone)]
pub struct Caller {
    pub router: Router,
    /// Must live as long as its table is used.
    _store: Rc<TableStore>,
}

impl Caller {
    pub async fn connect(mesh: &Mesh) -> anyhow::Result<Self> {
        let config = BusConfig {
            urls: mesh.nats.url(),
            credentials: None,
            client_name: "bench".to_owned(),
            mesh: MeshName::default(),
        };
        let (bus, bus_driver) = Bus::connect(config).await?;
        // Tasks of the runtime, as in a gateway: callers of the local set are not polled for them.
        tokio::spawn(bus_driver.run(std::future::pending()));
        let (store, table, _) = TableStore::open(None)?;
        store.apply(&fetch_table(&mesh.coordinator_url()).await?)?;
        let config = RouterConfig::new(NodeId::new("bench")?);
        let (router, driver) = Router::new(config, bus.clone(), table, None);
        tokio::spawn(driver.run(std::future::pending()));
        let mut connected = bus.connected();
        connected.wait_for(|connected| *connected).await?;
        Ok(Self {
            router,
            _store: Rc::new(store),
        })
    }

    /// The echo of a plugin that is a `probe`, by whatever name.
    pub fn echo(&self, plugin: &str, payload: Bytes) -> anyhow::Result<Call> {
        let request = request("service:probe.echo", plugin, payload)?;
        let caller = self.clone();
        Ok(call(move || {
            let (request, sent) = (request.clone(), request.payload.len());
            let answer = caller.router.call(request);
            async move {
                let answer = answer.finish().await;
                let answer = answer.map_err(|error| error.to_string())?;
                same_length(answer.payload.len(), sent)
            }
        }))
    }
}

/// A call with ten seconds' time.
pub fn request(capability: &str, plugin: &str, payload: Bytes) -> anyhow::Result<CallRequest> {
    let request = CallRequest::new(Capability::from_str(capability)?, payload);
    let request = request.to_plugin(PluginName::new(plugin)?);
    Ok(request.with_timeout(Duration::from_secs(10)))
}

/// One snapshot of the table.
async fn fetch_table(coordinator: &str) -> anyhow::Result<TableUpdate> {
    let channel = channel(coordinator).await?;
    let mut feed = control::table_feed_client::TableFeedClient::new(channel);
    let hello = control::TableFeedHello {
        mesh: MeshName::default().to_string(),
        name: "bench".to_owned(),
        ..control::TableFeedHello::default()
    };
    let request = control::TableFeedRequest {
        body: Some(control::table_feed_request::Body::Hello(hello)),
    };
    let requests =
        futures::StreamExt::chain(futures::stream::iter([request]), futures::stream::pending());
    let mut updates = feed.follow(requests).await?.into_inner();
    let update = updates.message().await?.context("a table")?;
    Ok(SentUpdate::from(update).read(&Table::default())?)
}
