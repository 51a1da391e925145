//! What clients may ask, as the MCP library passes it on: lists from the catalog, calls to plugins,
//! the gateway's own tools.

// MCP 2026-07-28 deprecates logging, and clients of both versions still use it.
#![expect(deprecated, reason = "clients still ask for logs")]

use std::sync::Arc;
use std::sync::atomic::Ordering;

use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CompleteRequestMethod, CompleteRequestParams,
    CompleteResult, CustomRequest, CustomResult, ErrorCode as RpcCode, ErrorData,
    GetPromptRequestParams, GetPromptResponse, ListPromptsResult, ListResourceTemplatesResult,
    ListResourcesResult, ListToolsResult, PaginatedRequestParams, ProtocolVersion,
    ReadResourceRequestParams, ReadResourceResponse, ServerConfig, SetLevelRequestMethod,
    SetLevelRequestParams, SubscriptionFilter, Tool,
};
use rmcp::service::{NotificationContext, RequestContext, SubscriptionContext};
use rmcp::{RoleServer, ServerHandler};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::trace::Target;
use super::work::{asked, without_sessions};
use super::{GatewayHandler, errors, lists, notify};
use crate::composite::cursor::List;

impl ServerHandler for GatewayHandler {
    fn get_info(&self) -> ServerConfig {
        self.shard.shared.info()
    }

    async fn ping(&self, context: RequestContext<RoleServer>) -> Result<(), ErrorData> {
        self.observe(asked("ping", Target::None, &context), |_| async { Ok(()) })
            .await
    }

    async fn on_initialized(&self, context: NotificationContext<RoleServer>) {
        if let Some(session) = &self.session
            && !session.registered.swap(true, Ordering::Relaxed)
        {
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
                    Some(session) => {
                        session.level.set(request.level);
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
        notify::listen(&self.shard.shared, &context).await;
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
