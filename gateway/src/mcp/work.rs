//! The work behind the requests: a span and a count around each, and calls to plugins or to the
//! gateway's own tools.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use mesh_core::call::TraceContext;
use mesh_core::error::{ErrorCode, MeshError, Place};
use mesh_runtime::trace::context_of;
use rmcp::RoleServer;
use rmcp::model::{
    CallToolRequestParams, CallToolResult, ErrorData, GetPromptRequestParams, GetPromptResult,
    JsonObject, ReadResourceRequestParams, ReadResourceResult, ResultType,
};
use rmcp::service::RequestContext;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::time::Instant;
use tracing::Instrument;

use super::Shard;
use super::calls::{self, Call, Served};
use super::errors::{self, rpc_error};
use super::logging::{self, SessionLevel};
use super::trace::{self, Target};
use crate::composite::{Route, Serves, nearest};
use crate::manage;

/// Serves one session, or one request without a session.
pub struct GatewayHandler {
    pub(super) shard: Arc<Shard>,
    pub(super) session: Option<Session>,
}

/// What is kept of a session.
#[derive(Default)]
pub(super) struct Session {
    /// From which level on its client wants log lines.
    pub level: SessionLevel,
    /// It is told of changes.
    pub registered: AtomicBool,
}

/// What a request needs beside its parameters.
pub(super) struct Asked<'a> {
    method: &'static str,
    target: Target<'a>,
    context: &'a RequestContext<RoleServer>,
}

impl GatewayHandler {
    /// A handler for a session.
    #[must_use]
    pub fn for_session(shard: Arc<Shard>) -> Self {
        Self {
            shard,
            session: Some(Session::default()),
        }
    }

    /// A handler for one request.
    #[must_use]
    pub fn for_request(shard: Arc<Shard>) -> Self {
        Self {
            shard,
            session: None,
        }
    }

    /// Does the work of a request within its span, and counts it.
    pub(super) async fn observe<T, F, W>(&self, asked: Asked<'_>, work: W) -> Result<T, ErrorData>
    where
        F: Future<Output = Result<T, ErrorData>>,
        W: FnOnce(TraceContext) -> F,
    {
        let shared = &self.shard.shared;
        let Asked {
            method,
            target,
            context,
        } = asked;
        let started = Instant::now();
        let client = trace::client_context(context);
        let span = trace::server_span(shared.exporting, method, target, context, &client);
        let trace = context_of(&span, &client);
        let done = work(trace).instrument(span.clone()).await;
        let outcome = match &done {
            Ok(_) => "ok",
            Err(error) => {
                trace::record_error(&span, error);
                errors::outcome(error)
            }
        };
        shared.metrics.request(method, outcome, started.elapsed());
        done
    }

    /// The least gravity of log lines that the client of a request wants; `None`: it wants none.
    fn log_level(&self, context: &RequestContext<RoleServer>) -> Option<u8> {
        let asked = context.meta.log_level().map(logging::gravity);
        asked.or_else(|| self.session.as_ref().map(|session| session.level.least()))
    }

    async fn call_plugin<T: DeserializeOwned>(
        &self,
        route: &Route,
        arguments: &impl Serialize,
        trace: TraceContext,
        context: &RequestContext<RoleServer>,
        expected: &str,
    ) -> Result<T, ErrorData> {
        let work = async {
            let call = Call {
                route,
                payload: calls::payload(arguments)?,
                trace,
                logs: self.log_level(context),
            };
            let served: Served = calls::run(&self.shard, call, context).await?;
            served.read(expected)
        };
        work.await.map_err(|error: MeshError| rpc_error(&error))
    }

    /// The plugin is known, and takes no calls for now.
    fn resting(&self, route: &Route, context: &RequestContext<RoleServer>) -> ErrorData {
        let plugin = &route.plugin;
        let table = self.shard.shared.table();
        let state = table.instances_of(plugin).next().map_or_else(
            || "it has no instance".to_owned(),
            |instance| format!("it is {} ({})", instance.state, instance.reason),
        );
        let text = format!(
            "plugin {plugin} takes no calls now: {state}; `plugmesh plugin {plugin}` tells more"
        );
        let error = MeshError::new(ErrorCode::Unavailable, text).at(Place {
            plugin: plugin.to_string(),
            ..Place::default()
        });
        if let Some(ticket) = calls::ticket(context) {
            ticket.refuse(&error);
        }
        rpc_error(&error)
    }

    pub(super) async fn run_tool(
        &self,
        request: CallToolRequestParams,
        trace: TraceContext,
        context: &RequestContext<RoleServer>,
    ) -> Result<CallToolResult, ErrorData> {
        let catalog = self.shard.shared.catalog();
        let arguments = request.arguments.unwrap_or_default();
        let Some(item) = catalog.tools.get(&request.name) else {
            let resting = catalog.resting.as_ref();
            let resting = resting.and_then(|all| Some(&all.tools.get(&request.name)?.serves));
            if let Some(Serves::Plugin(route)) = resting {
                return Err(self.resting(route, context));
            }
            let names = catalog.tools.items().iter().map(|item| &*item.key);
            let near = nearest(&request.name, names);
            return Err(errors::unknown("tool", &request.name, "tools/list", &near));
        };
        let mut result: CallToolResult = match &item.serves {
            Serves::Management => {
                manage::call(&self.shard.shared, &request.name, arguments).await?
            }
            Serves::Plugin(route) => {
                self.call_plugin(route, &arguments, trace, context, "CallToolResult")
                    .await?
            }
        };
        if result.is_error == Some(true) {
            trace::record_tool_error(&tracing::Span::current());
        }
        result.result_type.get_or_insert(ResultType::COMPLETE);
        if !without_sessions(context) {
            // Older clients take objects alone, and refuse the whole answer otherwise.
            result
                .structured_content
                .take_if(|value| !value.is_object());
        }
        Ok(result)
    }

    pub(super) async fn run_prompt(
        &self,
        request: GetPromptRequestParams,
        trace: TraceContext,
        context: &RequestContext<RoleServer>,
    ) -> Result<GetPromptResult, ErrorData> {
        let catalog = self.shard.shared.catalog();
        let found = catalog.prompts.get(&request.name);
        let Some(Serves::Plugin(route)) = found.map(|item| &item.serves) else {
            let resting = catalog.resting.as_ref();
            let resting = resting.and_then(|all| Some(&all.prompts.get(&request.name)?.serves));
            if let Some(Serves::Plugin(route)) = resting {
                return Err(self.resting(route, context));
            }
            let names = catalog.prompts.items().iter().map(|item| &*item.key);
            let near = nearest(&request.name, names);
            return Err(errors::unknown(
                "prompt",
                &request.name,
                "prompts/list",
                &near,
            ));
        };
        let arguments: JsonObject = request.arguments.unwrap_or_default();
        let mut result: GetPromptResult = self
            .call_plugin(route, &arguments, trace, context, "GetPromptResult")
            .await?;
        result.result_type.get_or_insert(ResultType::COMPLETE);
        Ok(result)
    }

    pub(super) async fn run_read(
        &self,
        request: ReadResourceRequestParams,
        trace: TraceContext,
        context: &RequestContext<RoleServer>,
    ) -> Result<ReadResourceResult, ErrorData> {
        let catalog = self.shard.shared.catalog();
        let Some(route) = catalog.resource_route(&request.uri) else {
            let resting = catalog.resting.as_ref();
            if let Some(route) = resting.and_then(|all| all.resource_route(&request.uri)) {
                return Err(self.resting(route, context));
            }
            return Err(errors::unknown_uri(&request.uri));
        };
        let payload = json!({ "uri": request.uri });
        let mut result: ReadResourceResult = self
            .call_plugin(route, &payload, trace, context, "ReadResourceResult")
            .await?;
        result.result_type.get_or_insert(ResultType::COMPLETE);
        Ok(result)
    }

    /// Entries of one page.
    pub(super) fn page_size(&self) -> usize {
        self.shard.shared.page_size
    }
}

/// Puts together what [`GatewayHandler::observe`] needs.
pub(super) fn asked<'a>(
    method: &'static str,
    target: Target<'a>,
    context: &'a RequestContext<RoleServer>,
) -> Asked<'a> {
    Asked {
        method,
        target,
        context,
    }
}

/// Whether the client speaks 2026-07-28 or newer, where sessions and their requests are no more.
pub(super) fn without_sessions(context: &RequestContext<RoleServer>) -> bool {
    let version = context.protocol_version();
    version.is_some_and(|version| !version.has_initialize())
}
