//! `MeshAdmin`: what operators ask.

use std::str::FromStr;

use mesh_core::capability::Capability;
use mesh_core::error::{ErrorCode, MeshError};
use mesh_core::id::PluginName;
use mesh_core::revision::Revision;
use mesh_engine::engine::{Change, Engine, Operation, Outcome, PluginFilter, Supposition};
use mesh_proto::OPERATOR_HEADER;
use mesh_proto::admin::mesh_admin_server::MeshAdmin;
use mesh_proto::admin::{
    AbortRolloutRequest, ClearSplitRequest, DisablePluginRequest, EnablePluginRequest,
    GetGraphRequest, GetGraphResponse, GetImpactRequest, GetImpactResponse, GetPluginRequest,
    GetPluginResponse, ListCoordinatorsRequest, ListCoordinatorsResponse, ListHistoryRequest,
    ListHistoryResponse, ListNodesRequest, ListNodesResponse, ListPluginsRequest,
    ListPluginsResponse, ListRolloutsRequest, ListRolloutsResponse, ListSplitsRequest,
    ListSplitsResponse, ListWishesRequest, ListWishesResponse, PluginChangeResponse,
    SetSplitRequest, SetWishRequest, StartRolloutRequest, UnloadPluginRequest, Upgrade,
    WatchHistoryRequest, WatchHistoryResponse, WatchRequest, WatchResponse, get_impact_request,
};
use mesh_proto::convert::WireError;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{OUTGOING, Services, finish, refuse, view};
use crate::handle::stopped;

/// Longest reason of a change, in bytes.
const MAX_REASON: usize = 1_024;

#[tonic::async_trait]
impl MeshAdmin for Services {
    async fn list_plugins(
        &self,
        request: Request<ListPluginsRequest>,
    ) -> Result<Response<ListPluginsResponse>, Status> {
        let filter = filter(&request.into_inner()).map_err(refuse)?;
        let look = move |engine: &Engine| (engine.plugins(&filter), engine.revision());
        let (plugins, revision) = self.handle.look(look).await.map_err(refuse)?;
        Ok(Response::new(ListPluginsResponse {
            plugins: plugins.into_iter().map(view::plugin).collect(),
            revision: Some(revision.into()),
        }))
    }

    async fn get_plugin(
        &self,
        request: Request<GetPluginRequest>,
    ) -> Result<Response<GetPluginResponse>, Status> {
        let name = plugin_name("name", &request.into_inner().name).map_err(refuse)?;
        let wanted = name.clone();
        let look = move |engine: &Engine| engine.plugin(&wanted);
        let versions = self.handle.look(look).await.map_err(refuse)?;
        if versions.is_empty() {
            return Err(refuse(unknown(&name)));
        }
        Ok(Response::new(GetPluginResponse {
            versions: versions.into_iter().map(view::plugin).collect(),
        }))
    }

    async fn get_graph(
        &self,
        request: Request<GetGraphRequest>,
    ) -> Result<Response<GetGraphResponse>, Status> {
        let plugin = match request.into_inner().plugin.as_str() {
            "" => None,
            text => Some(plugin_name("plugin", text).map_err(refuse)?),
        };
        let wanted = plugin.clone();
        let look = move |engine: &Engine| engine.graph(wanted.as_ref());
        let graph = self.handle.look(look).await.map_err(refuse)?;
        if let Some(plugin) = plugin.filter(|_| graph.nodes.is_empty()) {
            return Err(refuse(unknown(&plugin)));
        }
        Ok(Response::new(view::graph(graph)))
    }

    async fn get_impact(
        &self,
        request: Request<GetImpactRequest>,
    ) -> Result<Response<GetImpactResponse>, Status> {
        let supposition = supposition(request.into_inner()).map_err(refuse)?;
        let look = move |engine: &Engine| (engine.suppose(&supposition), engine.revision());
        let (impact, revision) = self.handle.look(look).await.map_err(refuse)?;
        let impact = impact.map_err(refuse)?;
        Ok(Response::new(GetImpactResponse {
            revision: Some(revision.into()),
            ..view::impact(impact)
        }))
    }

    async fn list_nodes(
        &self,
        _: Request<ListNodesRequest>,
    ) -> Result<Response<ListNodesResponse>, Status> {
        let nodes = self.handle.look(Engine::nodes).await.map_err(refuse)?;
        Ok(Response::new(ListNodesResponse {
            nodes: nodes.into_iter().map(view::node).collect(),
        }))
    }

    async fn list_coordinators(
        &self,
        _: Request<ListCoordinatorsRequest>,
    ) -> Result<Response<ListCoordinatorsResponse>, Status> {
        let coordinators = self.handle.look(Engine::coordinators).await;
        let coordinators = coordinators.map_err(refuse)?.into_iter();
        Ok(Response::new(ListCoordinatorsResponse {
            coordinators: coordinators.map(view::coordinator).collect(),
        }))
    }

    async fn enable_plugin(
        &self,
        request: Request<EnablePluginRequest>,
    ) -> Result<Response<PluginChangeResponse>, Status> {
        let by = operator(&request);
        let EnablePluginRequest { name, reason } = request.into_inner();
        self.change(&name, Change::Enable, reason, by).await
    }

    async fn disable_plugin(
        &self,
        request: Request<DisablePluginRequest>,
    ) -> Result<Response<PluginChangeResponse>, Status> {
        let by = operator(&request);
        let DisablePluginRequest { name, reason } = request.into_inner();
        self.change(&name, Change::Disable, reason, by).await
    }

    async fn unload_plugin(
        &self,
        request: Request<UnloadPluginRequest>,
    ) -> Result<Response<PluginChangeResponse>, Status> {
        let by = operator(&request);
        let UnloadPluginRequest {
            name,
            reason,
            cascade,
        } = request.into_inner();
        self.change(&name, Change::Unload { cascade }, reason, by)
            .await
    }

    async fn set_split(
        &self,
        request: Request<SetSplitRequest>,
    ) -> Result<Response<PluginChangeResponse>, Status> {
        let by = operator(&request);
        changed(self.split(request.into_inner(), by).await)
    }

    async fn clear_split(
        &self,
        request: Request<ClearSplitRequest>,
    ) -> Result<Response<PluginChangeResponse>, Status> {
        let by = operator(&request);
        changed(self.clear(request.into_inner(), by).await)
    }

    async fn list_splits(
        &self,
        request: Request<ListSplitsRequest>,
    ) -> Result<Response<ListSplitsResponse>, Status> {
        let splits = self.splits(request.into_inner()).await;
        splits.map(Response::new).map_err(refuse)
    }

    async fn start_rollout(
        &self,
        request: Request<StartRolloutRequest>,
    ) -> Result<Response<PluginChangeResponse>, Status> {
        let by = operator(&request);
        changed(self.begin_rollout(request.into_inner(), by).await)
    }

    async fn abort_rollout(
        &self,
        request: Request<AbortRolloutRequest>,
    ) -> Result<Response<PluginChangeResponse>, Status> {
        let by = operator(&request);
        changed(self.end_rollout(request.into_inner(), by).await)
    }

    async fn list_rollouts(
        &self,
        request: Request<ListRolloutsRequest>,
    ) -> Result<Response<ListRolloutsResponse>, Status> {
        let rollouts = self.rollouts(request.into_inner()).await;
        rollouts.map(Response::new).map_err(refuse)
    }

    type WatchStream = ReceiverStream<Result<WatchResponse, Status>>;

    async fn watch(&self, _: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        // Nothing is known before the registry is loaded: say so instead of waiting.
        self.handle.look(|_| ()).await.map_err(refuse)?;
        let (out, stream) = mpsc::channel(OUTGOING);
        let (services, stop) = (self.clone(), self.tasks.token());
        self.tasks.spawn("operator's watch", async move {
            let _following = services.metrics.following();
            let mut follower = services.feed.follow(None, 0);
            let watching = async {
                loop {
                    let update = tokio::select! {
                        () = out.closed() => return,
                        update = follower.next() => update,
                    };
                    // It was encoded here.
                    let update = update.wire().ok();
                    let response = WatchResponse { update };
                    if out.send(Ok(response)).await.is_err() {
                        return;
                    }
                }
            };
            let error = tokio::select! {
                () = stop.cancelled() => Some(stopped()),
                () = watching => None,
            };
            finish(&out, error).await;
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn list_wishes(
        &self,
        _: Request<ListWishesRequest>,
    ) -> Result<Response<ListWishesResponse>, Status> {
        let look = |engine: &Engine| {
            let wishes = engine.keys().filter_map(|key| view::wish(engine, &key));
            (wishes.collect(), engine.latest())
        };
        let (wishes, revision) = self.handle.look(look).await.map_err(refuse)?;
        Ok(Response::new(ListWishesResponse {
            wishes,
            revision: Some(revision.into()),
        }))
    }

    async fn set_wish(
        &self,
        request: Request<SetWishRequest>,
    ) -> Result<Response<PluginChangeResponse>, Status> {
        let by = operator(&request);
        changed(Services::set_wish(self, request.into_inner(), by).await)
    }

    async fn list_history(
        &self,
        request: Request<ListHistoryRequest>,
    ) -> Result<Response<ListHistoryResponse>, Status> {
        let listed = self.history(request.into_inner()).await;
        listed.map(Response::new).map_err(refuse)
    }

    type WatchHistoryStream = ReceiverStream<Result<WatchHistoryResponse, Status>>;

    async fn watch_history(
        &self,
        request: Request<WatchHistoryRequest>,
    ) -> Result<Response<Self::WatchHistoryStream>, Status> {
        let watched = Services::watch_history(self, request.into_inner()).await;
        watched.map(Response::new).map_err(refuse)
    }
}

impl Services {
    async fn change(
        &self,
        name: &str,
        change: Change,
        reason: String,
        by: String,
    ) -> Result<Response<PluginChangeResponse>, Status> {
        changed(self.carry_out("name", name, change, reason, by).await)
    }

    /// Looks at what there is of one plugin, or, where none is named, of all.
    pub(super) async fn look_at<T: Send + 'static>(
        &self,
        plugin: &str,
        look: impl FnOnce(&Engine, Option<&PluginName>) -> T + Send + 'static,
    ) -> Result<(T, Revision), MeshError> {
        let plugin = match plugin {
            "" => None,
            text => Some(plugin_name("plugin", text)?),
        };
        let look = move |engine: &Engine| {
            if let Some(plugin) = plugin.as_ref().filter(|plugin| !engine.knows(plugin)) {
                return Err(unknown(plugin));
            }
            Ok((look(engine, plugin.as_ref()), engine.revision()))
        };
        self.handle.look(look).await?
    }

    pub(super) async fn carry_out(
        &self,
        field: &str,
        name: &str,
        change: Change,
        reason: String,
        by: String,
    ) -> Result<Outcome, MeshError> {
        self.carry_out_if(field, name, change, reason, by, None)
            .await
    }

    pub(super) async fn carry_out_if(
        &self,
        field: &str,
        name: &str,
        change: Change,
        reason: String,
        by: String,
        expected: Option<Revision>,
    ) -> Result<Outcome, MeshError> {
        let plugin = plugin_name(field, name)?;
        if reason.len() > MAX_REASON {
            let problem = format!("has {} bytes, {MAX_REASON} is the most", reason.len());
            return Err(WireError::new("reason", problem).into());
        }
        let operation = Operation {
            plugin,
            change,
            by,
            reason,
            expected,
        };
        tracing::info!(
            plugin = name,
            change = ?operation.change,
            by = operation.by,
            "an operator wants a change"
        );
        self.handle.request(operation).await
    }
}

fn changed(outcome: Result<Outcome, MeshError>) -> Result<Response<PluginChangeResponse>, Status> {
    let outcome = outcome.map_err(refuse)?;
    Ok(Response::new(view::outcome(outcome)))
}

/// Who asks: what they call themselves, and where they are.
fn operator<T>(request: &Request<T>) -> String {
    const LONGEST: usize = 80;
    let name = request.metadata().get(OPERATOR_HEADER);
    let name = name.and_then(|name| name.to_str().ok()).unwrap_or_default();
    let name: String = name.chars().take(LONGEST).collect();
    let name = match name.trim() {
        "" => "an operator",
        name => name,
    };
    match request.remote_addr() {
        Some(address) => format!("{name} at {address}"),
        None => name.to_owned(),
    }
}

pub(super) fn field<T: FromStr<Err: std::fmt::Display>>(
    field: &str,
    text: &str,
) -> Result<T, MeshError> {
    let parsed = text.parse();
    parsed.map_err(|error| WireError::new(field, error).into())
}

pub(super) fn plugin_name(name: &str, text: &str) -> Result<PluginName, MeshError> {
    if text.is_empty() {
        return Err(WireError::new(name, "is empty: name a plugin").into());
    }
    field(name, text)
}

fn supposition(request: GetImpactRequest) -> Result<Supposition, MeshError> {
    use get_impact_request::Supposition as Wire;
    Ok(match request.supposition {
        None => {
            let text = "is missing: name what might be done or happen";
            return Err(WireError::new("supposition", text).into());
        }
        Some(Wire::Unload(name)) => Supposition::Unload(plugin_name("unload", &name)?),
        Some(Wire::Disable(name)) => Supposition::Disable(plugin_name("disable", &name)?),
        Some(Wire::Upgrade(Upgrade { name, version })) => Supposition::Upgrade(
            plugin_name("upgrade.name", &name)?,
            field("upgrade.version", &version)?,
        ),
        Some(Wire::LoseNode(name)) => Supposition::Lose(field("lose_node", &name)?),
    })
}

pub(super) fn unknown(plugin: &PluginName) -> MeshError {
    let text = format!("there is no plugin {plugin}; list those that are there");
    MeshError::new(ErrorCode::NotFound, text)
}

fn filter(request: &ListPluginsRequest) -> Result<PluginFilter, MeshError> {
    let mut filter = PluginFilter::default();
    match request.capability.trim() {
        "" => {}
        text if text.contains(':') => {
            filter.capability = Some(field::<Capability>("capability", text)?);
        }
        text => filter.kind = Some(field("capability", text)?),
    }
    match request.status.trim() {
        "" => {}
        text => filter.state = Some(field("status", text)?),
    }
    Ok(filter)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    use super::*;

    fn wanted(capability: &str, status: &str) -> Result<PluginFilter, String> {
        let request = ListPluginsRequest {
            capability: capability.into(),
            status: status.into(),
        };
        filter(&request).map_err(|error| error.to_string())
    }

    #[test]
    fn a_filter_names_a_kind_a_capability_or_a_state() {
        assert!(wanted("tools", "").unwrap().kind.is_some());
        assert!(wanted("tool:add", "").unwrap().capability.is_some());
        assert!(wanted("", "blocked").unwrap().state.is_some());
        assert!(wanted("", "").unwrap().kind.is_none());
    }

    #[test]
    fn a_wrong_filter_word_is_named_with_its_field() {
        let error = wanted("gadget", "").unwrap_err();
        assert!(
            error.starts_with("invalid_argument: capability: "),
            "{error}"
        );
        assert!(error.contains("the kinds are tool"), "{error}");
        let error = wanted("tool:", "").unwrap_err();
        assert!(
            error.contains("the name after the kind is empty"),
            "{error}"
        );
        let error = wanted("", "running").unwrap_err();
        assert!(error.starts_with("invalid_argument: status: "), "{error}");
        assert!(error.contains("use discovered"), "{error}");
    }
}
