//! What a plugin provides that sends or takes several messages.

use super::Plugin;
use crate::check::Report;
use crate::chunks::ChunkSender;
use crate::context::Context;
use crate::describe::{Orchestrator, Service};
use crate::error::ToolError;
use crate::handler;
use crate::payload::{FromPayload, IntoPayload};
use crate::requests::RequestStream;

impl Plugin {
    /// Provides a service that answers with any number of messages before its end, no faster than
    /// the caller takes them.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> { plugmesh_sdk::testing::run(async {
    /// use plugmesh_sdk::testing::TestHost;
    /// use plugmesh_sdk::{CallEvent, ChunkSender, Json, Plugin, Target};
    ///
    /// let plugin = Plugin::new("text", "1.0.0").streaming_service(
    ///     "text.words",
    ///     async |Json(text): Json<String>, mut chunks: ChunkSender, _| {
    ///         for word in text.split(' ') {
    ///             chunks.send(word).await?;
    ///         }
    ///         Ok(())
    ///     },
    /// );
    /// let host = TestHost::start(plugin).await?;
    /// let mut call = host.call(Target::service("text.words"), Json("two words")).await?;
    /// assert_eq!(call.next().await, Some(CallEvent::Chunk("two".into())));
    /// # Ok(()) }) }
    /// ```
    pub fn streaming_service<A, T, F>(mut self, service: impl Into<Service>, handler: F) -> Self
    where
        A: FromPayload,
        T: IntoPayload,
        F: AsyncFn(A, ChunkSender, Context) -> Result<T, ToolError> + Send + Sync + 'static,
    {
        let service = service.into();
        let mut report = Report::new(&mut self.mistakes, "service", service.name());
        let entry = service.build(true, false, &mut report);
        let handler = handler::streaming(handler);
        self.capabilities.push((entry, handler));
        self
    }

    /// Provides a service that takes any number of messages after the payload, no faster than the
    /// handler takes them, and answers once. Callers begin it with [`Context::open`].
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> { plugmesh_sdk::testing::run(async {
    /// use plugmesh_sdk::testing::TestHost;
    /// use plugmesh_sdk::{Json, Plugin, RequestStream, Target};
    ///
    /// let plugin = Plugin::new("text", "1.0.0").client_streaming_service(
    ///     "text.total",
    ///     async |_: (), mut requests: RequestStream, _| {
    ///         let mut bytes = 0;
    ///         while let Some(message) = requests.next().await? {
    ///             bytes += message.len();
    ///         }
    ///         Ok(Json(bytes))
    ///     },
    /// );
    /// let host = TestHost::start(plugin).await?;
    /// let (mut requests, answer) = host.open(Target::service("text.total"), ()).await?;
    /// requests.send("four").await?;
    /// requests.finish();
    /// assert_eq!(answer.finish().await?.bytes, "4");
    /// # Ok(()) }) }
    /// ```
    pub fn client_streaming_service<A, T, F>(
        mut self,
        service: impl Into<Service>,
        handler: F,
    ) -> Self
    where
        A: FromPayload,
        T: IntoPayload,
        F: AsyncFn(A, RequestStream, Context) -> Result<T, ToolError> + Send + Sync + 'static,
    {
        let service = service.into();
        let mut report = Report::new(&mut self.mistakes, "service", service.name());
        let entry = service.build(false, true, &mut report);
        let handler = handler::client_streaming(handler);
        self.capabilities.push((entry, handler));
        self
    }

    /// Provides a service that takes messages and answers with messages, both at once. Callers begin it
    /// with [`Context::open`].
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> { plugmesh_sdk::testing::run(async {
    /// use plugmesh_sdk::testing::TestHost;
    /// use plugmesh_sdk::{CallEvent, ChunkSender, Plugin, RequestStream, Target};
    ///
    /// let plugin = Plugin::new("text", "1.0.0").duplex_service(
    ///     "text.echo",
    ///     async |_: (), mut requests: RequestStream, mut chunks: ChunkSender, _| {
    ///         while let Some(message) = requests.next().await? {
    ///             chunks.send(message).await?;
    ///         }
    ///         Ok(())
    ///     },
    /// );
    /// let host = TestHost::start(plugin).await?;
    /// let (mut requests, mut answers) = host.open(Target::service("text.echo"), ()).await?;
    /// requests.send("there").await?;
    /// assert_eq!(answers.next().await, Some(CallEvent::Chunk("there".into())));
    /// # Ok(()) }) }
    /// ```
    pub fn duplex_service<A, T, F>(mut self, service: impl Into<Service>, handler: F) -> Self
    where
        A: FromPayload,
        T: IntoPayload,
        F: AsyncFn(A, RequestStream, ChunkSender, Context) -> Result<T, ToolError>
            + Send
            + Sync
            + 'static,
    {
        let service = service.into();
        let mut report = Report::new(&mut self.mistakes, "service", service.name());
        let entry = service.build(true, true, &mut report);
        self.capabilities.push((entry, handler::duplex(handler)));
        self
    }

    /// Provides an orchestrator: a long-running task that sends its output as it comes, tells its
    /// [progress](Context::progress), and is [cancelled](Context::cancelled) when its caller goes away.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> { plugmesh_sdk::testing::run(async {
    /// use plugmesh_sdk::testing::TestHost;
    /// use plugmesh_sdk::{CallEvent, ChunkSender, Context, Json, Plugin, Target};
    ///
    /// let plugin = Plugin::new("build", "1.0.0").orchestrator(
    ///     "build.run",
    ///     async |Json(steps): Json<Vec<String>>, mut lines: ChunkSender, ctx: Context| {
    ///         for (done, step) in steps.iter().enumerate() {
    ///             lines.send(format!("{step}: done")).await?;
    ///             ctx.progress(done as f64 + 1.0, steps.len() as f64, step);
    ///         }
    ///         Ok(Json(steps.len()))
    ///     },
    /// );
    /// let host = TestHost::start(plugin).await?;
    /// let mut run = host.call(Target::orchestrator("build.run"), Json(["lint", "test"])).await?;
    /// assert_eq!(run.next().await, Some(CallEvent::Chunk("lint: done".into())));
    /// # Ok(()) }) }
    /// ```
    pub fn orchestrator<A, T, F>(
        mut self,
        orchestrator: impl Into<Orchestrator>,
        handler: F,
    ) -> Self
    where
        A: FromPayload,
        T: IntoPayload,
        F: AsyncFn(A, ChunkSender, Context) -> Result<T, ToolError> + Send + Sync + 'static,
    {
        let orchestrator = orchestrator.into();
        let mut report = Report::new(&mut self.mistakes, "orchestrator", orchestrator.name());
        let entry = orchestrator.build(false, &mut report);
        self.capabilities.push((entry, handler::streaming(handler)));
        self
    }

    /// Provides an orchestrator that its caller can talk to while it runs: it takes messages, too.
    /// Callers begin it with [`Context::open`].
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> { plugmesh_sdk::testing::run(async {
    /// use plugmesh_sdk::testing::TestHost;
    /// use plugmesh_sdk::{CallEvent, ChunkSender, Plugin, RequestStream, Target};
    ///
    /// let plugin = Plugin::new("shell", "1.0.0").duplex_orchestrator(
    ///     "shell.run",
    ///     async |_: (), mut input: RequestStream, mut lines: ChunkSender, _| {
    ///         while let Some(command) = input.next().await? {
    ///             lines.send(format!("ran {} bytes", command.len())).await?;
    ///         }
    ///         Ok(())
    ///     },
    /// );
    /// let host = TestHost::start(plugin).await?;
    /// let (mut input, mut lines) = host.open(Target::orchestrator("shell.run"), ()).await?;
    /// input.send("ls").await?;
    /// assert_eq!(lines.next().await, Some(CallEvent::Chunk("ran 2 bytes".into())));
    /// # Ok(()) }) }
    /// ```
    pub fn duplex_orchestrator<A, T, F>(
        mut self,
        orchestrator: impl Into<Orchestrator>,
        handler: F,
    ) -> Self
    where
        A: FromPayload,
        T: IntoPayload,
        F: AsyncFn(A, RequestStream, ChunkSender, Context) -> Result<T, ToolError>
            + Send
            + Sync
            + 'static,
    {
        let orchestrator = orchestrator.into();
        let mut report = Report::new(&mut self.mistakes, "orchestrator", orchestrator.name());
        let entry = orchestrator.build(true, &mut report);
        self.capabilities.push((entry, handler::duplex(handler)));
        self
    }
}
