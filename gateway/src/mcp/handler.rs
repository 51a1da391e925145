//! What each MCP request does: lists from the catalog, calls to plugins, the gateway's own tools.
//!
//! One handler serves a session (2025-11-25 and older), or a single request.

// MCP 2026-07-28 deprecates logging, and clients of both versions still use it.
#![expect(deprecated, reason = "clients still ask for logs")]

use std::future::Future;
use std::sync::Arc;

use mesh_core::error::MeshError;
use mesh_runtime::trace::context_of;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, CompleteRequestMethod,
    CompleteRequestParams, CompleteResult, CustomRequest, CustomResult, ErrorCode as RpcCode,
    ErrorData, GetPromptRequestParams, GetPromptResponse, GetPromptResult, JsonObject,
    ListPromptsResult, ListResourceTemplatesResult, ListResourcesResult, ListToolsResult,
    PaginatedRequestParams, ProtocolVersion, ReadResourceRequestParams, ReadResourceResponse,
    ReadResourceResult, ResultType, ServerConfig, SetLevelRequestMethod, SetLevelRequestParams,
    SubscriptionFilter, Tool,
};
use rmcp::service::{NotificationContext, RequestContext, SubscriptionContext};
use rmcp::{RoleServer, ServerHandler};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::Instant;
use tracing::Instrument;

use super::calls::{self, Call, Served};
use super::errors::{self, rpc_error};
use super::logging::{self, SessionLevel};
use super::trace::{self, Target};
use super::{Shard, lists};
use crate::composite::cursor::List;
use crate::composite::{Route, Serves, nearest};
use crate::manage;

/// Serves one session, or one request without a session.
pub struct GatewayHandler {
    shard: Arc<Shard>,
    session: Option<SessionLevel>,
}

/// What a request needs beside its parameters.
struct Asked<'a> {
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
            session: Some(SessionLevel::default()),
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
    async fn observe<T, F, W>(&self, asked: Asked<'_>, work: W) -> Result<T, ErrorData>
    where
        F: Future<Output = Result<T, ErrorData>>,
        W: FnOnce(mesh_core::call::TraceContext) -> F,
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
        asked.or_else(|| self.session.as_ref().map(SessionLevel::least))
    }

    async fn call_plugin<T: DeserializeOwned>(
        &self,
        route: &Route,
        arguments: &impl serde::Serialize,
        trace: mesh_core::call::TraceContext,
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

    async fn run_tool(
        &self,
        request: CallToolRequestParams,
        trace: mesh_core::call::TraceContext,
        context: &RequestContext<RoleServer>,
    ) -> Result<CallToolResult, ErrorData> {
        let catalog = self.shard.shared.catalog();
        let arguments = request.arguments.unwrap_or_default();
        let Some(item) = catalog.tools.get(&request.name) else {
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

    async fn run_prompt(
        &self,
        request: GetPromptRequestParams,
        trace: mesh_core::call::TraceContext,
        context: &RequestContext<RoleServer>,
    ) -> Result<GetPromptResult, ErrorData> {
        let catalog = self.shard.shared.catalog();
        let found = catalog.prompts.get(&request.name);
        let Some(Serves::Plugin(route)) = found.map(|item| &item.serves) else {
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

    async fn run_read(
        &self,
        request: ReadResourceRequestParams,
        trace: mesh_core::call::TraceContext,
        context: &RequestContext<RoleServer>,
    ) -> Result<ReadResourceResult, ErrorData> {
        let catalog = self.shard.shared.catalog();
        let Some(route) = catalog.resource_route(&request.uri) else {
            return Err(errors::unknown_uri(&request.uri));
        };
        let payload = json!({ "uri": request.uri });
        let mut result: ReadResourceResult = self
            .call_plugin(route, &payload, trace, context, "ReadResourceResult")
            .await?;
        result.result_type.get_or_insert(ResultType::COMPLETE);
        Ok(result)
    }

    fn page_size(&self) -> usize {
        self.shard.shared.page_size
    }
}

fn asked<'a>(
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
fn without_sessions(context: &RequestContext<RoleServer>) -> bool {
    let version = context.protocol_version();
    version.is_some_and(|version| !version.has_initialize())
}

impl ServerHandler for GatewayHandler {
    fn get_info(&self) -> ServerConfig {
        self.shard.shared.info()
    }

    async fn ping(&self, context: RequestContext<RoleServer>) -> Result<(), ErrorData> {
        self.observe(asked("ping", Target::None, &context), |_| async { Ok(()) })
            .await
    }

    async fn on_initialized(&self, context: NotificationContext<RoleServer>) {
        if self.session.is_some() {
            self.shard.shared.notifier.register(context.peer);
        }
    }

    async fn list_tools(
        &self,
        request: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        self.observe(asked("tools/list", Target::None, &context), |_| async {
            let catalog = self.shard.shared.catalog();
            let (mut tools, next_cursor) =
                lists::page(&catalog.tools, List::Tools, request, self.page_size())?;
            if !without_sessions(&context) {
                tools.iter_mut().for_each(lists::fit_older_client);
            }
            Ok(ListToolsResult {
                next_cursor,
                ..ListToolsResult::with_all_items(tools)
            })
        })
        .await
    }

    async fn list_resources(
        &self,
        request: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        self.observe(asked("resources/list", Target::None, &context), |_| async {
            let catalog = self.shard.shared.catalog();
            let (resources, next_cursor) = lists::page(
                &catalog.resources,
                List::Resources,
                request,
                self.page_size(),
            )?;
            Ok(ListResourcesResult {
                next_cursor,
                ..ListResourcesResult::with_all_items(resources)
            })
        })
        .await
    }

    async fn list_resource_templates(
        &self,
        request: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        let asked = asked("resources/templates/list", Target::None, &context);
        self.observe(asked, |_| async {
            let catalog = self.shard.shared.catalog();
            let (templates, next_cursor) = lists::page(
                &catalog.templates,
                List::Templates,
                request,
                self.page_size(),
            )?;
            Ok(ListResourceTemplatesResult {
                next_cursor,
                ..ListResourceTemplatesResult::with_all_items(templates)
            })
        })
        .await
    }

    async fn list_prompts(
        &self,
        request: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListPromptsResult, ErrorData> {
        self.observe(asked("prompts/list", Target::None, &context), |_| async {
            let catalog = self.shard.shared.catalog();
            let (prompts, next_cursor) =
                lists::page(&catalog.prompts, List::Prompts, request, self.page_size())?;
            Ok(ListPromptsResult {
                next_cursor,
                ..ListPromptsResult::with_all_items(prompts)
            })
        })
        .await
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let name = request.name.clone();
        self.observe(
            asked("tools/call", Target::Tool(&name), &context),
            |trace| self.run_tool(request, trace, &context),
        )
        .await
        .map(CallToolResponse::Complete)
    }

    async fn get_prompt(
        &self,
        request: GetPromptRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<GetPromptResponse, ErrorData> {
        let name = request.name.clone();
        self.observe(
            asked("prompts/get", Target::Prompt(&name), &context),
            |trace| self.run_prompt(request, trace, &context),
        )
        .await
        .map(GetPromptResponse::Complete)
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let uri = request.uri.clone();
        self.observe(
            asked("resources/read", Target::Resource(&uri), &context),
            |trace| self.run_read(request, trace, &context),
        )
        .await
        .map(ReadResourceResponse::Complete)
    }

    async fn complete(
        &self,
        _request: CompleteRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CompleteResult, ErrorData> {
        let asked = asked("completion/complete", Target::None, &context);
        self.observe(asked, |_| async {
            Err(ErrorData::method_not_found::<CompleteRequestMethod>())
        })
        .await
    }

    async fn set_level(
        &self,
        request: SetLevelRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        self.observe(
            asked("logging/setLevel", Target::None, &context),
            |_| async {
                match &self.session {
                    Some(level) => {
                        level.set(request.level);
                        Ok(())
                    }
                    None if without_sessions(&context) => {
                        Err(ErrorData::method_not_found::<SetLevelRequestMethod>())
                    }
                    None => Err(ErrorData::invalid_request(
                        "logging/setLevel is for a session: send initialize first, and its \
                     Mcp-Session-Id with this request",
                        None,
                    )),
                }
            },
        )
        .await
    }

    fn accepted_subscription_filter(
        &self,
        requested: &SubscriptionFilter,
    ) -> Option<SubscriptionFilter> {
        // Changes of lists are told; those of single resources are not known here.
        let mut accepted = requested.clone();
        accepted.resource_subscriptions = None;
        Some(accepted)
    }

    async fn listen(&self, context: SubscriptionContext) -> Result<(), ErrorData> {
        super::notify::listen(&self.shard.shared, &context).await;
        Ok(())
    }

    /// The schema that the library checks `Mcp-Param-*` headers against; nothing of the tool beside
    /// it is used.
    fn get_tool(&self, name: &str) -> Option<Tool> {
        let catalog = self.shard.shared.catalog.borrow();
        let item = catalog.tools.get(name)?;
        let schema = Arc::clone(&item.entry.input_schema);
        Some(Tool::new_with_raw("", None, schema))
    }

    /// What the library could not read as a request that it knows: the method is unknown, or its
    /// parameters break a rule.
    async fn on_custom_request(
        &self,
        request: CustomRequest,
        context: RequestContext<RoleServer>,
    ) -> Result<CustomResult, ErrorData> {
        self.observe(asked("other", Target::None, &context), |_| async {
            Err(not_understood(&request.method, request.params))
        })
        .await
    }
}

/// Why a request was not understood.
fn not_understood(method: &str, params: Option<Value>) -> ErrorData {
    let params = params.unwrap_or_else(|| json!({}));
    fn why<T: DeserializeOwned>(params: Value) -> Option<String> {
        serde_json::from_value::<T>(params)
            .err()
            .map(|error| error.to_string())
    }
    let fault = match method {
        "tools/call" => why::<CallToolRequestParams>(params),
        "prompts/get" => why::<GetPromptRequestParams>(params),
        "resources/read" => why::<ReadResourceRequestParams>(params),
        "logging/setLevel" => why::<SetLevelRequestParams>(params),
        "tools/list" | "prompts/list" | "resources/list" | "resources/templates/list" => {
            why::<PaginatedRequestParams>(params)
        }
        "initialize" => why::<rmcp::model::InitializeRequestParams>(params),
        "subscriptions/listen" => why::<rmcp::model::SubscriptionsListenRequestParams>(params),
        _ => None,
    };
    match fault {
        Some(why) => errors::invalid_params(format!("the params of {method} are not valid: {why}")),
        None => {
            let shown: String = method.chars().take(80).collect();
            let text = format!("there is no method {shown:?} here");
            ErrorData::new(RpcCode::METHOD_NOT_FOUND, text, None)
        }
    }
}

/// Every protocol version that clients may speak, newest last.
#[must_use]
pub fn versions() -> Vec<&'static str> {
    ProtocolVersion::KNOWN_VERSIONS
        .iter()
        .map(ProtocolVersion::as_str)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn params_that_break_a_rule_are_told_apart_from_unknown_methods() {
        let error = not_understood("tools/call", Some(json!({ "arguments": {} })));
        assert_eq!(error.code, RpcCode::INVALID_PARAMS);
        assert_eq!(
            error.message,
            "the params of tools/call are not valid: missing field `name`"
        );
        let error = not_understood("tools/list", Some(json!({ "cursor": 5 })));
        assert!(
            error.message.contains("expected a string"),
            "{}",
            error.message
        );
        let error = not_understood("tools/explode", None);
        assert_eq!(error.code, RpcCode::METHOD_NOT_FOUND);
        assert_eq!(error.message, "there is no method \"tools/explode\" here");
    }
}
