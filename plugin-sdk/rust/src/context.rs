//! What a handler knows of its call, and what it can do.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures::task::AtomicWaker;
use serde::Serialize;
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

use crate::attachment::Attachment;
use crate::calls::{CallStream, Caller, LogLevel, Request, RequestSender, Target, TraceContext};
use crate::code::ErrorCode;
use crate::error::{CallError, ToolError};
use crate::output::{PromptOutput, ResourceOutput, ToolOutput};
use crate::payload::{FromPayload, IntoPayload, Payload};
use crate::requests::Requests;
use crate::wire::{PluginBody, common, frame, shortened};

/// Time that a call without a deadline may take.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// The call that a handler works on. Cheap to clone; may be sent to other tasks.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> { plugmesh_sdk::testing::run(async {
/// use plugmesh_sdk::testing::TestHost;
/// use plugmesh_sdk::{Context, NoArgs, Plugin, Tool};
/// use serde_json::json;
///
/// let plugin = Plugin::new("demo", "1.0.0").tool(Tool::new("who"), async |_: NoArgs, ctx: Context| {
///     Ok(json!({"plugin": ctx.plugin(), "node": ctx.node()}))
/// });
/// let host = TestHost::start(plugin).await?;
/// let output = host.call_tool("who", json!({})).await?;
/// assert_eq!(output.structured_content().unwrap()["plugin"], "demo");
/// # Ok(()) }) }
/// ```
#[derive(Clone)]
pub struct Context {
    pub(crate) inner: Arc<CallState>,
}

/// What the session's loop shares with a running call.
pub(crate) struct CallState {
    pub id: u64,
    pub attachment: Arc<Attachment>,
    pub deadline: Instant,
    /// As it came, but for what its handler is given.
    pub call: Box<common::Call>,
    /// Chunks of the answer that may be sent.
    pub credit: Semaphore,
    /// The place that the next chunk of the answer has.
    pub sequence: AtomicU64,
    /// The answer has ended: no chunk may follow.
    pub ended: AtomicBool,
    pub cancel: Cancel,
    /// What the caller sends after the payload.
    pub requests: Requests,
}

impl CallState {
    /// The trace context that the call came with.
    pub(crate) fn parent(&self) -> TraceContext {
        self.call.trace.clone().unwrap_or_default().into()
    }
}

/// Whether a call was cancelled, and who wants to know.
#[derive(Default)]
pub(crate) struct Cancel {
    requested: AtomicBool,
    /// The handler watches for it, so that it is not dropped.
    watched: AtomicBool,
    watchers: Notify,
    /// The call's own future.
    pub waker: AtomicWaker,
}

impl Cancel {
    pub(crate) fn request(&self) {
        self.requested.store(true, Ordering::Release);
        self.watchers.notify_waiters();
        self.waker.wake();
    }

    pub(crate) fn is_requested(&self) -> bool {
        self.requested.load(Ordering::Acquire)
    }

    pub(crate) fn is_watched(&self) -> bool {
        self.watched.load(Ordering::Acquire)
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("id", &self.inner.id)
            .field("plugin", &self.plugin())
            .field("node", &self.node())
            .finish_non_exhaustive()
    }
}

impl Context {
    pub(crate) fn new(
        id: u64,
        attachment: Arc<Attachment>,
        call: Box<common::Call>,
        requests: Requests,
    ) -> Self {
        let left = match call.time_left_us {
            0 => DEFAULT_TIMEOUT,
            micros => Duration::from_micros(micros),
        };
        let now = Instant::now();
        // A time left that no clock can hold means no deadline worth the name.
        let deadline = now.checked_add(left);
        Self {
            inner: Arc::new(CallState {
                id,
                deadline: deadline.unwrap_or(now + Duration::from_secs(365 * 24 * 3600)),
                call,
                credit: Semaphore::new(attachment.welcome.terms.credit as usize),
                sequence: AtomicU64::new(0),
                ended: AtomicBool::new(false),
                cancel: Cancel::default(),
                requests,
                attachment,
            }),
        }
    }

    /// Calls a tool of a plugin and waits for its result, which may say that the tool failed:
    /// [`ToolOutput::into_result`] and [`ToolOutput::parse`] turn that into an error.
    ///
    /// The call may take the time that this one has left, and belongs to the same trace.
    ///
    /// # Errors
    /// The tool could not be called.
    ///
    /// ```
    /// use plugmesh_sdk::{Context, ToolError};
    /// use serde_json::json;
    /// async fn double(ctx: Context, number: f64) -> Result<serde_json::Value, ToolError> {
    ///     let arguments = json!({"a": number, "b": 2});
    ///     ctx.call_tool("calculator", "multiply", &arguments).await?.parse()
    /// }
    /// ```
    pub async fn call_tool<A: Serialize + ?Sized>(
        &self,
        plugin: &str,
        tool: &str,
        arguments: &A,
    ) -> Result<ToolOutput, CallError> {
        let target = Target::tool(tool).plugin(plugin);
        let call = self.call(target, Payload::json(arguments)).await?;
        ToolOutput::decode(&call.finish().await?)
    }

    /// Calls a service of any plugin that provides it, and waits for its answer.
    ///
    /// # Errors
    /// The service could not be called, or its answer does not fit the type.
    ///
    /// ```
    /// use plugmesh_sdk::{Context, Json, ToolError};
    /// async fn embed(ctx: Context, text: &str) -> Result<Vec<f32>, ToolError> {
    ///     let Json(vector) = ctx.call_service("embedding.embed", Json(text)).await?;
    ///     Ok(vector)
    /// }
    /// ```
    pub async fn call_service<A: IntoPayload, R: FromPayload>(
        &self,
        service: &str,
        arguments: A,
    ) -> Result<R, CallError> {
        let call = self.call(Target::service(service), arguments).await?;
        R::from_payload(call.finish().await?).map_err(ToolError::into_call_error)
    }

    /// Reads a resource of any plugin.
    ///
    /// # Errors
    /// The resource could not be read.
    ///
    /// ```
    /// use plugmesh_sdk::{Context, ToolError};
    /// async fn now(ctx: Context) -> Result<String, ToolError> {
    ///     Ok(ctx.read_resource("time://current").await?.text_content())
    /// }
    /// ```
    pub async fn read_resource(&self, uri: &str) -> Result<ResourceOutput, CallError> {
        let payload = Payload::json(&serde_json::json!({ "uri": uri }));
        let call = self.call(Target::resource(uri), payload).await?;
        ResourceOutput::decode(&call.finish().await?)
    }

    /// Fills in a prompt of a plugin.
    ///
    /// # Errors
    /// The prompt could not be filled in.
    ///
    /// ```
    /// use plugmesh_sdk::{Context, PromptOutput, ToolError};
    /// use serde_json::json;
    /// async fn plan(ctx: Context) -> Result<PromptOutput, ToolError> {
    ///     Ok(ctx.get_prompt("planner", "plan_day", &json!({"tasks": "3"})).await?)
    /// }
    /// ```
    pub async fn get_prompt<A: Serialize + ?Sized>(
        &self,
        plugin: &str,
        prompt: &str,
        arguments: &A,
    ) -> Result<PromptOutput, CallError> {
        let target = Target::prompt(prompt).plugin(plugin);
        let call = self.call(target, Payload::json(arguments)).await?;
        PromptOutput::decode(&call.finish().await?)
    }

    /// Begins a call of any kind; its events come from the [`CallStream`].
    ///
    /// # Errors
    /// The call could not be sent.
    ///
    /// ```
    /// use plugmesh_sdk::{CallEvent, Context, Json, Target, ToolError};
    /// async fn tail(ctx: Context) -> Result<(), ToolError> {
    ///     let mut call = ctx.call(Target::service("logs.tail"), Json("app.log")).await?;
    ///     while let Some(event) = call.next().await {
    ///         if let CallEvent::Chunk(line) = event {
    ///             tracing::info!(bytes = line.len(), "a line");
    ///         }
    ///     }
    ///     Ok(())
    /// }
    /// ```
    pub async fn call(
        &self,
        target: Target,
        payload: impl IntoPayload,
    ) -> Result<CallStream, CallError> {
        self.begin(target.into_request(), payload).await
    }

    /// Begins a call that sends messages after its payload, to a capability that takes them. The
    /// messages go out by the [`RequestSender`], the answers come from the [`CallStream`], both at once.
    ///
    /// # Errors
    /// The call could not be sent.
    ///
    /// ```
    /// use plugmesh_sdk::{CallEvent, Context, Json, Target, ToolError};
    /// async fn translate(ctx: Context, lines: Vec<String>) -> Result<(), ToolError> {
    ///     let target = Target::service("translate.lines");
    ///     let (mut requests, mut answers) = ctx.open(target, Json("de")).await?;
    ///     for line in lines {
    ///         requests.send(line).await?;
    ///         if let Some(CallEvent::Chunk(line)) = answers.next().await {
    ///             tracing::info!(bytes = line.len(), "translated");
    ///         }
    ///     }
    ///     requests.finish();
    ///     answers.finish().await?;
    ///     Ok(())
    /// }
    /// ```
    pub async fn open(
        &self,
        target: Target,
        payload: impl IntoPayload,
    ) -> Result<(RequestSender, CallStream), CallError> {
        let mut request = target.into_request();
        request.call.messages = true;
        let answers = self.begin(request, payload).await?;
        let most = self.inner.attachment.welcome.terms.part_bytes;
        Ok((answers.messages(most), answers))
    }

    async fn begin(
        &self,
        mut request: Request,
        payload: impl IntoPayload,
    ) -> Result<CallStream, CallError> {
        let payload = payload.into_payload().map_err(|error| {
            CallError::new(ErrorCode::InvalidArgument, format!("payload: {error}"))
        })?;
        request.call.trace = Some(self.trace().into());
        let state = &self.inner;
        request.call.groups.clone_from(&state.call.groups);
        state
            .attachment
            .begin(request, payload, state.deadline)
            .await
    }

    /// Tells how far the call is; nothing happens when the caller does not want to know. Never
    /// waits: when the way out is full, this one is left out.
    ///
    /// ```
    /// use plugmesh_sdk::Context;
    /// async fn copy(ctx: Context, files: &[&str]) {
    ///     for (done, file) in files.iter().enumerate() {
    ///         ctx.progress(done as f64, files.len() as f64, format!("copying {file}"));
    ///     }
    /// }
    /// ```
    pub fn progress(&self, done: f64, total: f64, message: impl Into<String>) {
        let state = &self.inner;
        // A task that outlives its call has nobody to tell.
        if state.call.want_progress && !state.ended.load(Ordering::Acquire) {
            let progress = common::Progress {
                progress: done,
                total,
                message: shortened(message.into()),
            };
            self.send_lossy(PluginBody::Progress(progress));
        }
    }

    /// Writes a line to the mesh's log and to the caller's, if it listens. Events of `tracing` within
    /// a handler go the same way. Never waits: when the way out is full, the line is left out.
    ///
    /// ```
    /// use plugmesh_sdk::{Context, LogLevel};
    /// async fn check(ctx: Context) {
    ///     ctx.log(LogLevel::Warning, "the disk is nearly full");
    /// }
    /// ```
    pub fn log(&self, level: LogLevel, message: impl Into<String>) {
        let line = common::Log {
            level: level.number(),
            message: shortened(message.into()),
            trace: Some(self.trace().into()),
            ..common::Log::default()
        };
        self.send_lossy(PluginBody::Log(line.into()));
    }

    /// Waits until the call is cancelled.
    ///
    /// A handler whose call is cancelled is dropped where it waits. One that has called this is left
    /// to end by itself, at the latest at its deadline.
    ///
    /// ```
    /// use plugmesh_sdk::Context;
    /// # async fn work() {}
    /// # async fn tidy_up() {}
    /// async fn run(ctx: Context) {
    ///     let stopped = std::pin::pin!(ctx.cancelled());
    ///     let worked = std::pin::pin!(work());
    ///     if let futures::future::Either::Left(_) = futures::future::select(stopped, worked).await {
    ///         tidy_up().await;
    ///     }
    /// }
    /// ```
    pub async fn cancelled(&self) {
        let cancel = &self.inner.cancel;
        cancel.watched.store(true, Ordering::Release);
        loop {
            let notified = cancel.watchers.notified();
            if cancel.is_requested() {
                return;
            }
            notified.await;
        }
    }

    /// Whether the call was cancelled.
    ///
    /// ```
    /// use plugmesh_sdk::Context;
    /// fn count(ctx: &Context) -> u64 {
    ///     (0..1_000_000).take_while(|_| !ctx.is_cancelled()).sum()
    /// }
    /// ```
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.inner.cancel.is_requested()
    }

    /// When the call must have ended. After that the handler is dropped.
    ///
    /// ```
    /// use plugmesh_sdk::Context;
    /// fn is_late(ctx: &Context) -> bool {
    ///     std::time::Instant::now() > ctx.deadline()
    /// }
    /// ```
    #[must_use]
    pub fn deadline(&self) -> std::time::Instant {
        self.inner.deadline.into_std()
    }

    /// Time until the deadline; zero when it has passed.
    ///
    /// ```
    /// use plugmesh_sdk::Context;
    /// fn has_time(ctx: &Context) -> bool {
    ///     ctx.time_left() > std::time::Duration::from_secs(1)
    /// }
    /// ```
    #[must_use]
    pub fn time_left(&self) -> Duration {
        self.inner
            .deadline
            .saturating_duration_since(Instant::now())
    }

    /// What the caller handed over beside the payload.
    ///
    /// ```
    /// use plugmesh_sdk::Context;
    /// fn tenant(ctx: &Context) -> Option<&str> {
    ///     ctx.metadata().get("tenant").map(String::as_str)
    /// }
    /// ```
    #[must_use]
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.inner.call.metadata
    }

    /// Who calls.
    ///
    /// ```
    /// use plugmesh_sdk::Context;
    /// fn is_internal(ctx: &Context) -> bool {
    ///     !ctx.caller().plugin.is_empty()
    /// }
    /// ```
    #[must_use]
    pub fn caller(&self) -> Caller {
        self.inner.call.caller.clone().unwrap_or_default().into()
    }

    /// The trace context for what this handler does next: that of the current span when the plugin
    /// exports its spans, else the one that the call came with.
    ///
    /// ```
    /// use plugmesh_sdk::Context;
    /// fn header(ctx: &Context) -> String {
    ///     ctx.trace().traceparent
    /// }
    /// ```
    #[must_use]
    pub fn trace(&self) -> TraceContext {
        let state = &self.inner;
        state.attachment.telemetry.current(state.parent())
    }

    /// The plugin's configuration, read into the type that was given to
    /// [`Plugin::config`](crate::Plugin::config).
    ///
    /// # Errors
    /// The plugin declared no configuration of this type.
    ///
    /// ```
    /// use plugmesh_sdk::{Context, ToolError};
    /// #[derive(Default, serde::Deserialize, schemars::JsonSchema)]
    /// #[serde(default)]
    /// struct Config { greeting: String }
    /// fn greet(ctx: &Context) -> Result<String, ToolError> {
    ///     Ok(format!("{}!", ctx.config::<Config>()?.greeting))
    /// }
    /// ```
    pub fn config<C: Any + Send + Sync>(&self) -> Result<Arc<C>, ToolError> {
        let config = self.inner.attachment.config();
        let typed = config.and_then(|config| Arc::downcast(config).ok());
        typed.ok_or_else(|| {
            let name = std::any::type_name::<C>();
            ToolError::new(format!(
                "the plugin has no configuration of type {name}: declare it with Plugin::config"
            ))
        })
    }

    /// The plugin's own name.
    ///
    /// ```
    /// use plugmesh_sdk::Context;
    /// fn topic(ctx: &Context) -> String {
    ///     format!("plugin.{}.done", ctx.plugin())
    /// }
    /// ```
    #[must_use]
    pub fn plugin(&self) -> &str {
        self.inner.attachment.definition.name()
    }

    /// The id of this instance of the plugin (UUID).
    ///
    /// ```
    /// use plugmesh_sdk::Context;
    /// fn lock_owner(ctx: &Context) -> &str {
    ///     ctx.instance()
    /// }
    /// ```
    #[must_use]
    pub fn instance(&self) -> &str {
        &self.inner.attachment.welcome.instance
    }

    /// The name of the node that this instance runs on.
    ///
    /// ```
    /// use plugmesh_sdk::Context;
    /// fn place(ctx: &Context) -> String {
    ///     format!("{} in {}", ctx.node(), ctx.mesh())
    /// }
    /// ```
    #[must_use]
    pub fn node(&self) -> &str {
        &self.inner.attachment.welcome.node
    }

    /// The name of the mesh.
    ///
    /// ```
    /// use plugmesh_sdk::Context;
    /// fn is_production(ctx: &Context) -> bool {
    ///     ctx.mesh() == "production"
    /// }
    /// ```
    #[must_use]
    pub fn mesh(&self) -> &str {
        &self.inner.attachment.welcome.mesh
    }

    fn send_lossy(&self, body: PluginBody) {
        let state = &self.inner;
        state.attachment.send_lossy(frame(state.id, body));
    }
}
