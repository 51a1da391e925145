//! Runs plugins in a test, without a mesh.
//!
//! A [`TestHost`] is the agent and the rest of the mesh in one: plugins attach to it by the real
//! protocol over a stream in memory, get calls from the test, and call each other.

mod link;
mod mesh;
#[cfg(unix)]
mod program;
mod relay;
pub(crate) mod server;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::future::FutureExt;
use futures::stream::{FuturesUnordered, TryStreamExt};
use serde::Serialize;
use serde_json::{Map, Value};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::calls::{self, CallStream, LogLine, Request, RequestSender, Target};
use crate::code::ErrorCode;
use crate::connect::Connector;
use crate::error::{CallError, Error};
use crate::output::{PromptOutput, ResourceOutput, ToolOutput};
use crate::payload::{IntoPayload, Payload};
use crate::plugin::Plugin;
use crate::run::Runner;
use crate::signals::{Stop, Stopper};
use crate::tasks::{Worker, run_on_thread};
use crate::telemetry::Telemetry;

use link::TERMS;
use mesh::Mesh;

/// Time for the plugins to attach.
const PATIENCE: Duration = Duration::from_secs(10);
/// Time that a call may take unless its target says otherwise.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Plugins that run in this process, and the host that calls them.
///
/// The first plugin is the one under test; others serve its calls. Dropping the host ends them all.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> { plugmesh_sdk::testing::run(async {
/// use plugmesh_sdk::testing::TestHost;
/// use plugmesh_sdk::{Plugin, Tool};
/// use serde_json::json;
///
/// #[derive(serde::Deserialize, schemars::JsonSchema)]
/// struct Add { a: i64, b: i64 }
///
/// let plugin = Plugin::new("calculator", "1.0.0")
///     .tool(Tool::new("add"), async |args: Add, _| Ok(json!({"sum": args.a + args.b})));
/// let host = TestHost::start(plugin).await?;
/// let output = host.call_tool("add", json!({"a": 1, "b": 2})).await?;
/// assert_eq!(output.structured_content(), Some(&json!({"sum": 3})));
/// # Ok(()) }) }
/// ```
pub struct TestHost {
    mesh: Arc<Mesh>,
    /// The name of the plugin under test.
    plugin: String,
    stopper: Stopper,
    ended: Option<oneshot::Receiver<Result<(), Error>>>,
    /// Dropping the first ends all at once; dropping the second waits for it, so that a program that
    /// was started has ended when the test goes on.
    _running: (oneshot::Sender<()>, Worker),
}

/// Puts a [`TestHost`] together.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> { plugmesh_sdk::testing::run(async {
/// use plugmesh_sdk::testing::TestHost;
/// use plugmesh_sdk::Plugin;
/// let host = TestHost::builder(Plugin::new("empty", "1.0.0")).start().await?;
/// # let _ = host; Ok(()) }) }
/// ```
#[must_use]
pub struct TestHostBuilder {
    plugins: Vec<(Source, Value)>,
}

/// Where a plugin comes from.
enum Source {
    Plugin(Box<Plugin>),
    #[cfg(unix)]
    Program(std::path::PathBuf),
}

impl TestHostBuilder {
    /// Gives the plugin that was named last its configuration; the default is `{}`.
    ///
    /// ```
    /// use plugmesh_sdk::testing::TestHost;
    /// use plugmesh_sdk::Plugin;
    /// let builder = TestHost::builder(Plugin::new("empty", "1.0.0"))
    ///     .config(serde_json::json!({"greeting": "Hi"}));
    /// # let _ = builder;
    /// ```
    pub fn config(mut self, config: Value) -> Self {
        if let Some((_, of_last)) = self.plugins.last_mut() {
            *of_last = config;
        }
        self
    }

    /// Adds a plugin that the one under test calls.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> { plugmesh_sdk::testing::run(async {
    /// use plugmesh_sdk::testing::TestHost;
    /// use plugmesh_sdk::{Context, NoArgs, Plugin, Tool};
    /// use serde_json::json;
    ///
    /// let greeter = Plugin::new("greeter", "1.0.0").depends_on("names", "^2").tool(
    ///     Tool::new("greet"),
    ///     async |_: NoArgs, ctx: Context| {
    ///         let name = ctx.call_tool("names", "any", &json!({})).await?.into_result()?;
    ///         Ok(format!("Hello {}!", name.text_content()))
    ///     },
    /// );
    /// let names = Plugin::new("names", "2.1.0").tool("any", async |_: NoArgs, _| Ok("Ada"));
    /// let host = TestHost::builder(greeter).with(names).start().await?;
    /// assert_eq!(host.call_tool("greet", json!({})).await?.text_content(), "Hello Ada!");
    /// # Ok(()) }) }
    /// ```
    pub fn with(self, plugin: Plugin) -> Self {
        self.add(Source::Plugin(Box::new(plugin)))
    }

    fn add(mut self, source: Source) -> Self {
        self.plugins.push((source, Value::Object(Map::new())));
        self
    }

    /// Starts the plugins and waits until all are attached.
    ///
    /// # Errors
    /// A plugin has mistakes, or refuses its configuration.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> { plugmesh_sdk::testing::run(async {
    /// use plugmesh_sdk::testing::TestHost;
    /// use plugmesh_sdk::Plugin;
    /// let started = TestHost::builder(Plugin::new("Bad Name", "1.0.0")).start().await;
    /// assert!(started.is_err());
    /// # Ok(()) }) }
    /// ```
    pub async fn start(self) -> Result<TestHost, Error> {
        let mesh = Arc::new(Mesh::default());
        let (connections, listener) = mpsc::channel(8);
        let mut hosted = Hosted {
            mesh: mesh.clone(),
            runners: Vec::new(),
            #[cfg(unix)]
            programs: Vec::new(),
            connections: connections.clone(),
            listener,
        };
        let count = self.plugins.len();
        for (number, (source, config)) in self.plugins.into_iter().enumerate() {
            // What the plugin says of itself in its hello.
            let token = number.to_string();
            mesh.set_config(&token, &config);
            match source {
                Source::Plugin(plugin) => hosted.runners.push(Runner {
                    log: plugin.sink(),
                    definition: Arc::new(plugin.define()?),
                    telemetry: Telemetry::default(),
                    connector: Connector::Memory(connections.clone()),
                    host: "the test host".to_owned(),
                    launch_token: token,
                    verbose: false,
                }),
                #[cfg(unix)]
                Source::Program(path) => {
                    let program = program::Program::prepare(path, token);
                    hosted
                        .programs
                        .push(program.map_err(|reason| Error::System {
                            doing: "make a socket for the program",
                            reason,
                        })?);
                }
            }
        }
        let (stopper, stop) = Stopper::new();
        let (abort, aborted) = oneshot::channel();
        let (end, mut ended) = oneshot::channel();
        let worker = run_on_thread("plugmesh-test-host", move || async move {
            let mesh = hosted.mesh.clone();
            let result = tokio::select! {
                result = hosted.work(stop) => result,
                _ = aborted => Ok(()),
            };
            mesh.close();
            // Nobody may want to know.
            let _ = end.send(result);
        });
        let worker = worker.map_err(|reason| Error::System {
            doing: "start the test host",
            reason,
        })?;
        let running = (abort, worker);
        tokio::select! {
            attached = tokio::time::timeout(PATIENCE, mesh.attached(count)) => {
                attached.unwrap_or_else(|_| Err(timed_out()))?;
            }
            early = &mut ended => {
                early.unwrap_or_else(|_| Err(timed_out()))?;
            }
        }
        let under_test = mesh.started_with("0").ok_or_else(timed_out)?;
        Ok(TestHost {
            mesh,
            plugin: under_test.manifest.name.clone(),
            stopper,
            ended: Some(ended),
            _running: running,
        })
    }
}

fn timed_out() -> Error {
    let text = "a plugin did not attach to the test host in time";
    Error::Refused(CallError::new(ErrorCode::DeadlineExceeded, text))
}

/// All that the thread of a test host does.
struct Hosted {
    mesh: Arc<Mesh>,
    runners: Vec<Runner>,
    #[cfg(unix)]
    programs: Vec<program::Program>,
    /// Kept so that the listener does not end when there are only programs.
    connections: mpsc::Sender<tokio::io::DuplexStream>,
    listener: mpsc::Receiver<tokio::io::DuplexStream>,
}

impl Hosted {
    /// Serves connections, sessions and plugins until the plugins have ended.
    async fn work(self, stop: Stop) -> Result<(), Error> {
        let (arrivals, arrived) = mpsc::channel(8);
        let plugins = FuturesUnordered::new();
        for runner in &self.runners {
            plugins.push(runner.run(stop.clone()).boxed_local());
        }
        #[cfg(unix)]
        for program in self.programs {
            let running = program.run(self.mesh.clone(), arrivals.clone(), stop.clone());
            plugins.push(running.boxed_local());
        }
        let _listening = self.connections;
        tokio::select! {
            ended = plugins.try_for_each(|()| async { Ok(()) }) => ended,
            () = server::serve_memory(self.listener, arrivals) => Ok(()),
            () = mesh::serve(&self.mesh, arrived) => Ok(()),
        }
    }
}

impl fmt::Debug for TestHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestHost")
            .field("plugin", &self.plugin)
            .finish_non_exhaustive()
    }
}

impl TestHost {
    /// Starts one plugin and waits until it is attached.
    ///
    /// # Errors
    /// The plugin has mistakes, or refuses its configuration.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> { plugmesh_sdk::testing::run(async {
    /// use plugmesh_sdk::testing::TestHost;
    /// let host = TestHost::start(plugmesh_sdk::Plugin::new("empty", "1.0.0")).await?;
    /// # let _ = host; Ok(()) }) }
    /// ```
    pub async fn start(plugin: Plugin) -> Result<Self, Error> {
        Self::builder(plugin).start().await
    }

    /// Puts a host together for a plugin that has a configuration, or calls others.
    ///
    /// ```
    /// use plugmesh_sdk::testing::TestHost;
    /// let builder = TestHost::builder(plugmesh_sdk::Plugin::new("empty", "1.0.0"));
    /// # let _ = builder;
    /// ```
    pub fn builder(plugin: Plugin) -> TestHostBuilder {
        TestHostBuilder {
            plugins: Vec::new(),
        }
        .with(plugin)
    }

    /// Starts a program that is a plugin, and waits until it is attached; for tests of the program as
    /// it is. It ends with the host.
    ///
    /// # Errors
    /// The program does not start, or does not become a plugin.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> { plugmesh_sdk::testing::run(async {
    /// use plugmesh_sdk::testing::TestHost;
    /// // In an integration test, Cargo knows the path: env!("CARGO_BIN_EXE_calculator").
    /// let host = TestHost::start_program("target/debug/calculator").await?;
    /// assert!(host.entry("tool", "add").is_some());
    /// # Ok(()) }) }
    /// ```
    #[cfg(unix)]
    pub async fn start_program(path: impl Into<std::path::PathBuf>) -> Result<Self, Error> {
        Self::program(path).start().await
    }

    /// Puts a host together for a [program](TestHost::start_program) that has a configuration, or
    /// calls other plugins.
    ///
    /// ```
    /// use plugmesh_sdk::testing::TestHost;
    /// let builder = TestHost::program("target/debug/planner").config(serde_json::json!({}));
    /// # let _ = builder;
    /// ```
    #[cfg(unix)]
    pub fn program(path: impl Into<std::path::PathBuf>) -> TestHostBuilder {
        TestHostBuilder {
            plugins: Vec::new(),
        }
        .add(Source::Program(path.into()))
    }

    /// Calls a tool of the plugin under test. A result may say that the tool failed.
    ///
    /// # Errors
    /// The call ended with an error, such as for arguments that do not fit.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> { plugmesh_sdk::testing::run(async {
    /// use plugmesh_sdk::testing::TestHost;
    /// use plugmesh_sdk::{NoArgs, Plugin};
    /// let plugin = Plugin::new("dice", "1.0.0").tool("roll", async |_: NoArgs, _| Ok("4"));
    /// let host = TestHost::start(plugin).await?;
    /// assert_eq!(host.call_tool("roll", serde_json::json!({})).await?.text_content(), "4");
    /// # Ok(()) }) }
    /// ```
    pub async fn call_tool(
        &self,
        tool: &str,
        arguments: impl Serialize,
    ) -> Result<ToolOutput, CallError> {
        let target = Target::tool(tool).plugin(self.plugin.as_str());
        let call = self.call(target, Payload::json(&arguments)).await?;
        ToolOutput::decode(&call.finish().await?)
    }

    /// Reads a resource, of a template too.
    ///
    /// # Errors
    /// The call ended with an error, such as for a URI that nobody knows.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> { plugmesh_sdk::testing::run(async {
    /// use plugmesh_sdk::testing::TestHost;
    /// use plugmesh_sdk::Plugin;
    /// let plugin = Plugin::new("notes", "1.0.0").resource("notes://motd", async |_| Ok("Be kind"));
    /// let host = TestHost::start(plugin).await?;
    /// assert!(host.read_resource("notes://other").await.is_err());
    /// # Ok(()) }) }
    /// ```
    pub async fn read_resource(&self, uri: &str) -> Result<ResourceOutput, CallError> {
        let payload = Payload::json(&serde_json::json!({ "uri": uri }));
        let call = self.call(Target::resource(uri), payload).await?;
        ResourceOutput::decode(&call.finish().await?)
    }

    /// Fills in a prompt of the plugin under test.
    ///
    /// # Errors
    /// The call ended with an error.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> { plugmesh_sdk::testing::run(async {
    /// use plugmesh_sdk::testing::TestHost;
    /// use plugmesh_sdk::{NoArgs, Plugin};
    /// let plugin = Plugin::new("writer", "1.0.0").prompt("haiku", async |_: NoArgs, _| Ok("Write a haiku"));
    /// let host = TestHost::start(plugin).await?;
    /// let prompt = host.get_prompt("haiku", serde_json::json!({})).await?;
    /// assert_eq!(prompt.messages()[0]["content"]["text"], "Write a haiku");
    /// # Ok(()) }) }
    /// ```
    pub async fn get_prompt(
        &self,
        prompt: &str,
        arguments: impl Serialize,
    ) -> Result<PromptOutput, CallError> {
        let target = Target::prompt(prompt).plugin(self.plugin.as_str());
        let call = self.call(target, Payload::json(&arguments)).await?;
        PromptOutput::decode(&call.finish().await?)
    }

    /// Begins a call of any kind, for its progress, log lines and chunks.
    ///
    /// # Errors
    /// No plugin provides what is called.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> { plugmesh_sdk::testing::run(async {
    /// use plugmesh_sdk::testing::TestHost;
    /// use plugmesh_sdk::{CallEvent, Context, NoArgs, Plugin, Target, Tool};
    /// use serde_json::json;
    /// let plugin = Plugin::new("slow", "1.0.0").tool("work", async |_: NoArgs, ctx: Context| {
    ///     ctx.progress(1.0, 2.0, "half way");
    ///     Ok("done")
    /// });
    /// let host = TestHost::start(plugin).await?;
    /// let mut call = host.call(Target::tool("work").want_progress(), plugmesh_sdk::Json(json!({}))).await?;
    /// assert!(matches!(call.next().await, Some(CallEvent::Progress(progress)) if progress.done == 1.0));
    /// # Ok(()) }) }
    /// ```
    pub async fn call(
        &self,
        target: Target,
        payload: impl IntoPayload,
    ) -> Result<CallStream, CallError> {
        self.begin(target.into_request(), payload).await
    }

    /// Begins a call that sends messages after its payload.
    ///
    /// # Errors
    /// No plugin provides what is called, or it takes no messages.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> { plugmesh_sdk::testing::run(async {
    /// use plugmesh_sdk::testing::TestHost;
    /// use plugmesh_sdk::{Plugin, RequestStream, Target};
    /// let plugin = Plugin::new("sink", "1.0.0").client_streaming_service(
    ///     "sink.first",
    ///     async |_: (), mut requests: RequestStream, _| Ok(requests.next().await?.unwrap_or_default()),
    /// );
    /// let host = TestHost::start(plugin).await?;
    /// let (mut requests, answer) = host.open(Target::service("sink.first"), ()).await?;
    /// requests.send("hello").await?;
    /// assert_eq!(answer.finish().await?.bytes, "hello");
    /// # Ok(()) }) }
    /// ```
    pub async fn open(
        &self,
        target: Target,
        payload: impl IntoPayload,
    ) -> Result<(RequestSender, CallStream), CallError> {
        let mut request = target.into_request();
        request.call.messages = true;
        let answers = self.begin(request, payload).await?;
        Ok((answers.messages(TERMS.part_bytes), answers))
    }

    async fn begin(
        &self,
        mut request: Request,
        payload: impl IntoPayload,
    ) -> Result<CallStream, CallError> {
        let payload = payload.into_payload().map_err(|error| {
            CallError::new(ErrorCode::InvalidArgument, format!("payload: {error}"))
        })?;
        let link = self.mesh.route(&mut request.call)?;
        let deadline = Instant::now() + request.timeout.unwrap_or(TIMEOUT);
        calls::begin(&link, TERMS, request, payload, deadline).await
    }

    /// What the plugin under test says of a capability, such as `entry("tool", "add")`: the entry
    /// that MCP clients get.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> { plugmesh_sdk::testing::run(async {
    /// use plugmesh_sdk::testing::TestHost;
    /// use plugmesh_sdk::{NoArgs, Plugin, Tool};
    /// let roll = Tool::new("roll").description("Rolls a die");
    /// let plugin = Plugin::new("dice", "1.0.0").tool(roll, async |_: NoArgs, _| Ok("4"));
    /// let host = TestHost::start(plugin).await?;
    /// assert_eq!(host.entry("tool", "roll").unwrap()["description"], "Rolls a die");
    /// # Ok(()) }) }
    /// ```
    #[must_use]
    pub fn entry(&self, kind: &str, name: &str) -> Option<Value> {
        self.mesh.link(&self.plugin)?.entry(kind, name)
    }

    /// The lines that plugins have logged outside of calls so far. Those of a call come with the call.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> { plugmesh_sdk::testing::run(async {
    /// use plugmesh_sdk::testing::TestHost;
    /// let host = TestHost::start(plugmesh_sdk::Plugin::new("quiet", "1.0.0")).await?;
    /// assert!(host.logs().is_empty());
    /// # Ok(()) }) }
    /// ```
    #[must_use]
    pub fn logs(&self) -> Vec<LogLine> {
        self.mesh.logs()
    }

    /// Changes the configuration of the plugin under test while it runs.
    ///
    /// # Errors
    /// The plugin refuses it, and goes on with the one that it has.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> { plugmesh_sdk::testing::run(async {
    /// use plugmesh_sdk::testing::TestHost;
    /// #[derive(serde::Deserialize, schemars::JsonSchema)]
    /// struct Config { limit: Option<u32> }
    /// let plugin = plugmesh_sdk::Plugin::new("demo", "1.0.0").config::<Config>();
    /// let host = TestHost::start(plugin).await?;
    /// let error = host.change_config(serde_json::json!({"limit": "many"})).await.unwrap_err();
    /// assert!(error.message.starts_with("config.limit: "), "{error}");
    /// # Ok(()) }) }
    /// ```
    pub async fn change_config(&self, config: Value) -> Result<(), CallError> {
        let link = self
            .mesh
            .link(&self.plugin)
            .ok_or_else(calls::session_ended)?;
        link.change_config(&config).await
    }

    /// Stops the plugins as SIGTERM would: they end what runs, say goodbye, and are gone.
    ///
    /// # Errors
    /// What a plugin's [`Plugin::run`] ended with.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> { plugmesh_sdk::testing::run(async {
    /// use plugmesh_sdk::testing::TestHost;
    /// let host = TestHost::start(plugmesh_sdk::Plugin::new("empty", "1.0.0")).await?;
    /// host.stop().await?;
    /// # Ok(()) }) }
    /// ```
    pub async fn stop(mut self) -> Result<(), Error> {
        self.stopper.stop("the test is over");
        match self.ended.take() {
            Some(ended) => ended.await.unwrap_or(Ok(())),
            None => Ok(()),
        }
    }
}

/// Runs a test's future on a runtime of its own, for tests that have none.
///
/// # Errors
/// What the future gives; the system refused to make a runtime.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let two = plugmesh_sdk::testing::run(async { Ok(1 + 1) })?;
/// assert_eq!(two, 2);
/// # Ok(()) }
/// ```
pub fn run<T>(
    test: impl Future<Output = Result<T, Box<dyn std::error::Error>>>,
) -> Result<T, Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(test)
}
