//! A coordinator in as far as a gateway knows one: it publishes a table, and changes it by wish.

use std::pin::Pin;
use std::sync::Arc;

use futures::{Stream, StreamExt};
use mesh_core::error::{ErrorCode, MeshError};
use mesh_core::manifest::Manifest;
use mesh_core::revision::Revision;
use mesh_core::state::InstanceState;
use mesh_core::table::{InstanceRoute, Table, TableUpdate};
use mesh_proto::admin::mesh_admin_server::{MeshAdmin, MeshAdminServer};
use mesh_proto::control::table_feed_server::{TableFeed, TableFeedServer};
use mesh_proto::control::{TableFeedRequest, TableFeedResponse};
use mesh_proto::convert::SentUpdate;
use mesh_proto::{admin, status};
use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;
use tonic::{Request, Response, Status, Streaming};

#[derive(Clone)]
pub struct Coordinator {
    table: watch::Sender<Arc<Table>>,
}

impl Coordinator {
    pub fn new(
        manifests: Vec<Manifest>,
        route: impl Fn(usize, &Manifest) -> InstanceRoute,
    ) -> Self {
        let mut update = TableUpdate {
            to: Revision {
                epoch: 1,
                sequence: 1,
            },
            ..TableUpdate::default()
        };
        for (index, manifest) in manifests.into_iter().enumerate() {
            let route = route(index, &manifest);
            update.specs.push((route.spec.clone(), Arc::new(manifest)));
            update.instances.push(route);
        }
        let table = Table::default().apply(&update).unwrap();
        Self {
            table: watch::Sender::new(Arc::new(table)),
        }
    }

    /// Serves on a free port until the test ends; the address.
    pub async fn serve(&self) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        let server = tonic::transport::Server::builder()
            .add_service(TableFeedServer::new(self.clone()))
            .add_service(MeshAdminServer::new(self.clone()))
            .serve_with_incoming(incoming);
        tokio::spawn(server);
        address
    }

    /// Puts all instances of a plugin into a state.
    pub fn set_state(&self, plugin: &str, state: InstanceState) -> Result<Revision, MeshError> {
        let table = Arc::clone(&self.table.borrow());
        let mut to = table.revision();
        to.sequence += 1;
        let of_plugin = |route: &&InstanceRoute| {
            route
                .spec
                .plugin()
                .is_some_and(|name| name.as_str() == plugin)
        };
        let instances: Vec<InstanceRoute> = table
            .instances()
            .filter(of_plugin)
            .map(|route| InstanceRoute {
                state,
                ..route.clone()
            })
            .collect();
        if instances.is_empty() {
            let text = format!("there is no plugin {plugin}: check its name");
            return Err(MeshError::new(ErrorCode::NotFound, text));
        }
        let update = TableUpdate {
            from: Some(table.revision()),
            to,
            instances,
            ..TableUpdate::default()
        };
        let next = table.apply(&update).unwrap();
        self.table.send_replace(Arc::new(next));
        Ok(to)
    }

    fn change(
        &self,
        plugin: String,
        state: InstanceState,
    ) -> Result<Response<admin::PluginChangeResponse>, Status> {
        let revision = self.set_state(&plugin, state);
        let revision = revision.map_err(|error| status::to_status(&error))?;
        Ok(Response::new(admin::PluginChangeResponse {
            changed: vec![plugin],
            affected: Vec::new(),
            revision: Some(revision.into()),
            ..admin::PluginChangeResponse::default()
        }))
    }
}

type Feed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl TableFeed for Coordinator {
    type FollowStream = Feed<TableFeedResponse>;

    async fn follow(
        &self,
        request: Request<Streaming<TableFeedRequest>>,
    ) -> Result<Response<Self::FollowStream>, Status> {
        let mut acks = request.into_inner();
        tokio::spawn(async move { while let Ok(Some(_)) = acks.message().await {} });
        let tables = WatchStream::new(self.table.subscribe());
        let updates = tables.map(|table| {
            // As a gateway is told: packed if it is large.
            Ok(SentUpdate::packed(table.to_snapshot()).into())
        });
        Ok(Response::new(Box::pin(updates)))
    }
}

fn not_here<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("the gateway does not ask this"))
}

#[tonic::async_trait]
impl MeshAdmin for Coordinator {
    type WatchStream = Feed<admin::WatchResponse>;
    type WatchHistoryStream = Feed<admin::WatchHistoryResponse>;

    async fn enable_plugin(
        &self,
        request: Request<admin::EnablePluginRequest>,
    ) -> Result<Response<admin::PluginChangeResponse>, Status> {
        self.change(request.into_inner().name, InstanceState::Active)
    }

    async fn disable_plugin(
        &self,
        request: Request<admin::DisablePluginRequest>,
    ) -> Result<Response<admin::PluginChangeResponse>, Status> {
        self.change(request.into_inner().name, InstanceState::Initialized)
    }

    async fn list_plugins(
        &self,
        _: Request<admin::ListPluginsRequest>,
    ) -> Result<Response<admin::ListPluginsResponse>, Status> {
        not_here()
    }

    async fn get_plugin(
        &self,
        _: Request<admin::GetPluginRequest>,
    ) -> Result<Response<admin::GetPluginResponse>, Status> {
        not_here()
    }

    async fn get_graph(
        &self,
        _: Request<admin::GetGraphRequest>,
    ) -> Result<Response<admin::GetGraphResponse>, Status> {
        not_here()
    }

    async fn get_impact(
        &self,
        _: Request<admin::GetImpactRequest>,
    ) -> Result<Response<admin::GetImpactResponse>, Status> {
        not_here()
    }

    async fn list_nodes(
        &self,
        _: Request<admin::ListNodesRequest>,
    ) -> Result<Response<admin::ListNodesResponse>, Status> {
        not_here()
    }

    async fn list_coordinators(
        &self,
        _: Request<admin::ListCoordinatorsRequest>,
    ) -> Result<Response<admin::ListCoordinatorsResponse>, Status> {
        not_here()
    }

    async fn unload_plugin(
        &self,
        _: Request<admin::UnloadPluginRequest>,
    ) -> Result<Response<admin::PluginChangeResponse>, Status> {
        not_here()
    }

    async fn set_split(
        &self,
        _: Request<admin::SetSplitRequest>,
    ) -> Result<Response<admin::PluginChangeResponse>, Status> {
        not_here()
    }

    async fn clear_split(
        &self,
        _: Request<admin::ClearSplitRequest>,
    ) -> Result<Response<admin::PluginChangeResponse>, Status> {
        not_here()
    }

    async fn list_splits(
        &self,
        _: Request<admin::ListSplitsRequest>,
    ) -> Result<Response<admin::ListSplitsResponse>, Status> {
        not_here()
    }

    async fn start_rollout(
        &self,
        _: Request<admin::StartRolloutRequest>,
    ) -> Result<Response<admin::PluginChangeResponse>, Status> {
        not_here()
    }

    async fn abort_rollout(
        &self,
        _: Request<admin::AbortRolloutRequest>,
    ) -> Result<Response<admin::PluginChangeResponse>, Status> {
        not_here()
    }

    async fn list_rollouts(
        &self,
        _: Request<admin::ListRolloutsRequest>,
    ) -> Result<Response<admin::ListRolloutsResponse>, Status> {
        not_here()
    }

    async fn watch(
        &self,
        _: Request<admin::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        not_here()
    }

    async fn list_wishes(
        &self,
        _: Request<admin::ListWishesRequest>,
    ) -> Result<Response<admin::ListWishesResponse>, Status> {
        not_here()
    }

    async fn set_wish(
        &self,
        _: Request<admin::SetWishRequest>,
    ) -> Result<Response<admin::PluginChangeResponse>, Status> {
        not_here()
    }

    async fn list_history(
        &self,
        _: Request<admin::ListHistoryRequest>,
    ) -> Result<Response<admin::ListHistoryResponse>, Status> {
        not_here()
    }

    async fn watch_history(
        &self,
        _: Request<admin::WatchHistoryRequest>,
    ) -> Result<Response<Self::WatchHistoryStream>, Status> {
        not_here()
    }
}
