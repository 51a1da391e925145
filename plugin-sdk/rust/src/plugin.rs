//! The builder by which a program becomes a plugin.

mod streams;

use std::collections::hash_map::Entry;
use std::fmt;
use std::process::ExitCode;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use crate::check::Report;
use crate::context::Context;
use crate::definition::{Definition, Handlers};
use crate::describe::{Prompt, Resource, ResourceTemplate, Service, Tool};
use crate::error::{Error, ToolError};
use crate::handler::{self, ConfigType, Handler};
use crate::logging::{LogLayer, Sink};
use crate::output::{IntoPrompt, IntoResource, IntoToolOutput};
use crate::payload::{FromPayload, IntoPayload};
use crate::wire::common::{self, CapabilityKind};
use crate::{check, run, schema};

/// A plugin: who it is, what it needs, and what it provides.
///
/// ```no_run
/// use plugmesh_sdk::{Context, Plugin, Tool, ToolError};
/// use serde_json::json;
///
/// #[derive(serde::Deserialize, schemars::JsonSchema)]
/// struct AddArgs {
///     /// First addend
///     a: f64,
///     /// Second addend
///     b: f64,
/// }
///
/// fn main() -> std::process::ExitCode {
///     Plugin::new("calculator", env!("CARGO_PKG_VERSION"))
///         .description("Arithmetic")
///         .tool(
///             Tool::new("add").description("Adds two numbers").read_only(),
///             async |args: AddArgs, _: Context| Ok(json!({"sum": args.a + args.b})),
///         )
///         .main()
/// }
/// ```
#[must_use = "a plugin does nothing until it runs"]
pub struct Plugin {
    manifest: common::Manifest,
    capabilities: Vec<(common::CapabilityEntry, Handler)>,
    config: Option<ConfigType>,
    mistakes: Vec<(String, String)>,
    log: Sink,
}

impl fmt::Debug for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plugin")
            .field("name", &self.manifest.name)
            .field("version", &self.manifest.version)
            .finish_non_exhaustive()
    }
}

impl Plugin {
    /// A plugin of this name (lowercase letters, digits and hyphens) and semantic version.
    ///
    /// Mistakes here and in what follows are reported together, when the plugin runs or is
    /// [checked](Plugin::check).
    ///
    /// ```
    /// let plugin = plugmesh_sdk::Plugin::new("calculator", env!("CARGO_PKG_VERSION"));
    /// # let _ = plugin;
    /// ```
    pub fn new(name: impl Into<String>, version: impl Into<String>) -> Self {
        Self {
            manifest: common::Manifest {
                name: name.into(),
                version: version.into(),
                ..common::Manifest::default()
            },
            capabilities: Vec::new(),
            config: None,
            mistakes: Vec::new(),
            log: Sink::default(),
        }
    }

    /// What the plugin is for, in one line.
    ///
    /// ```
    /// let plugin = plugmesh_sdk::Plugin::new("calculator", "1.0.0").description("Arithmetic");
    /// # let _ = plugin;
    /// ```
    pub fn description(mut self, text: impl Into<String>) -> Self {
        self.manifest.description = text.into();
        self
    }

    /// Adds an author.
    ///
    /// ```
    /// let plugin = plugmesh_sdk::Plugin::new("calculator", "1.0.0").author("Ada Lovelace");
    /// # let _ = plugin;
    /// ```
    pub fn author(mut self, name: impl Into<String>) -> Self {
        self.manifest.authors.push(name.into());
        self
    }

    /// The licence, as an SPDX expression.
    ///
    /// ```
    /// let plugin = plugmesh_sdk::Plugin::new("calculator", "1.0.0").license("Apache-2.0");
    /// # let _ = plugin;
    /// ```
    pub fn license(mut self, expression: impl Into<String>) -> Self {
        self.manifest.license = expression.into();
        self
    }

    /// Where to read more: an http or https address.
    ///
    /// ```
    /// let plugin = plugmesh_sdk::Plugin::new("calculator", "1.0.0")
    ///     .homepage("https://example.org/calculator");
    /// # let _ = plugin;
    /// ```
    pub fn homepage(mut self, address: impl Into<String>) -> Self {
        self.manifest.homepage = address.into();
        self
    }

    /// Adds a word for searching.
    ///
    /// ```
    /// let plugin = plugmesh_sdk::Plugin::new("calculator", "1.0.0").tag("math").tag("demo");
    /// # let _ = plugin;
    /// ```
    pub fn tag(mut self, word: impl Into<String>) -> Self {
        self.manifest.tags.push(word.into());
        self
    }

    /// Needs another plugin, of a version that fulfils the requirement (Cargo's syntax: `^2.0`,
    /// `~1.2`, `>=1.0.0, <3`). Until one is active, this plugin stays blocked.
    ///
    /// ```
    /// let plugin = plugmesh_sdk::Plugin::new("planner", "1.0.0").depends_on("time", "^1.0");
    /// # let _ = plugin;
    /// ```
    pub fn depends_on(self, plugin: impl Into<String>, requirement: impl Into<String>) -> Self {
        self.dependency(plugin.into(), requirement.into(), false)
    }

    /// Uses another plugin if it is there: starts after it and stops before it, but does not wait for
    /// it.
    ///
    /// ```
    /// let plugin = plugmesh_sdk::Plugin::new("planner", "1.0.0").can_use("calendar", ">=2");
    /// # let _ = plugin;
    /// ```
    pub fn can_use(self, plugin: impl Into<String>, requirement: impl Into<String>) -> Self {
        self.dependency(plugin.into(), requirement.into(), true)
    }

    fn dependency(mut self, plugin: String, requirement: String, optional: bool) -> Self {
        self.manifest.dependencies.push(common::Dependency {
            plugin,
            requirement,
            optional,
        });
        self
    }

    /// Needs a capability, written `kind:name`, of whichever plugin provides it, if that plugin's
    /// version fulfils the requirement.
    ///
    /// ```
    /// let plugin = plugmesh_sdk::Plugin::new("search", "1.0.0")
    ///     .requires("service:embedding.embed", ">=1");
    /// # let _ = plugin;
    /// ```
    pub fn requires(
        mut self,
        capability: impl Into<String>,
        requirement: impl Into<String>,
    ) -> Self {
        self.manifest.requires.push(common::CapabilityRequirement {
            capability: capability.into(),
            requirement: requirement.into(),
            optional: false,
        });
        self
    }

    /// The most calls that the plugin works on at a time; more are shed by its host. The default is
    /// the host's.
    ///
    /// ```
    /// let plugin = plugmesh_sdk::Plugin::new("ocr", "1.0.0").concurrency(4);
    /// # let _ = plugin;
    /// ```
    pub fn concurrency(mut self, calls: u32) -> Self {
        let limits = self.manifest.limits.get_or_insert_default();
        limits.concurrency = calls;
        self
    }

    /// Declares the type of the configuration, which handlers get by
    /// [`Context::config`]. The mesh checks what operators write against its JSON Schema.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> { plugmesh_sdk::testing::run(async {
    /// use plugmesh_sdk::testing::TestHost;
    /// use plugmesh_sdk::{Context, NoArgs, Plugin, Tool};
    /// use serde_json::json;
    ///
    /// #[derive(serde::Deserialize, schemars::JsonSchema)]
    /// struct Config {
    ///     /// What to say
    ///     greeting: String,
    /// }
    /// let plugin = Plugin::new("greeter", "1.0.0").config::<Config>().tool(
    ///     Tool::new("greet"),
    ///     async |_: NoArgs, ctx: Context| Ok(ctx.config::<Config>()?.greeting.clone()),
    /// );
    /// let host = TestHost::builder(plugin).config(json!({"greeting": "Hi"})).start().await?;
    /// assert_eq!(host.call_tool("greet", json!({})).await?.text_content(), "Hi");
    /// # Ok(()) }) }
    /// ```
    pub fn config<C>(mut self) -> Self
    where
        C: DeserializeOwned + JsonSchema + Send + Sync + 'static,
    {
        let config = handler::config::<C>();
        if !schema::is_object(&config.schema) {
            self.mistakes.push((
                "config".to_owned(),
                "the type is not a JSON object: use a struct with named fields".to_owned(),
            ));
        }
        self.manifest.config_schema = config.schema.to_string().into();
        self.config = Some(config);
        self
    }

    /// Provides a tool. The handler gets its arguments as a type; what does not fit the type is
    /// refused before the handler runs. A handler that fails gives a result that says so.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> { plugmesh_sdk::testing::run(async {
    /// use plugmesh_sdk::testing::TestHost;
    /// use plugmesh_sdk::{Plugin, Tool, ToolError};
    /// use serde_json::json;
    ///
    /// #[derive(serde::Deserialize, schemars::JsonSchema)]
    /// struct Divide { a: f64, b: f64 }
    ///
    /// let plugin = Plugin::new("calculator", "1.0.0").tool(
    ///     Tool::new("divide").description("Divides two numbers").read_only(),
    ///     async |args: Divide, _| match args.b {
    ///         0.0 => Err(ToolError::new("division by zero")),
    ///         b => Ok(json!({"quotient": args.a / b})),
    ///     },
    /// );
    /// let host = TestHost::start(plugin).await?;
    /// assert!(host.call_tool("divide", json!({"a": 1, "b": 0})).await?.is_error());
    /// # Ok(()) }) }
    /// ```
    pub fn tool<A, T, F>(mut self, tool: impl Into<Tool>, handler: F) -> Self
    where
        A: DeserializeOwned + JsonSchema,
        T: IntoToolOutput,
        F: AsyncFn(A, Context) -> Result<T, ToolError> + Send + Sync + 'static,
    {
        let tool = tool.into();
        let input = schema::of::<A>();
        let mut report = Report::new(&mut self.mistakes, "tool", tool.name());
        let entry = tool.build(&input, T::output_schema(), &mut report);
        let handler = handler::tool(input, handler);
        self.capabilities.push((entry, handler));
        self
    }

    /// Provides a resource.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> { plugmesh_sdk::testing::run(async {
    /// use plugmesh_sdk::testing::TestHost;
    /// use plugmesh_sdk::{Plugin, Resource};
    ///
    /// let motd = Resource::new("notes://motd").mime_type("text/plain");
    /// let plugin = Plugin::new("notes", "1.0.0").resource(motd, async |_| Ok("Be kind"));
    /// let host = TestHost::start(plugin).await?;
    /// assert_eq!(host.read_resource("notes://motd").await?.text_content(), "Be kind");
    /// # Ok(()) }) }
    /// ```
    pub fn resource<T, F>(mut self, resource: impl Into<Resource>, handler: F) -> Self
    where
        T: IntoResource,
        F: AsyncFn(Context) -> Result<T, ToolError> + Send + Sync + 'static,
    {
        let resource = resource.into();
        let handler = handler::resource(resource.uri().to_owned(), resource.media(), handler);
        let mut report = Report::new(&mut self.mistakes, "resource", resource.uri());
        let entry = resource.build(&mut report);
        self.capabilities.push((entry, handler));
        self
    }

    /// Provides the resources of a URI template. The handler gets the variables' values as a type;
    /// a struct has one field for each variable, a number where the type says so.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> { plugmesh_sdk::testing::run(async {
    /// use plugmesh_sdk::testing::TestHost;
    /// use plugmesh_sdk::Plugin;
    ///
    /// #[derive(serde::Deserialize, schemars::JsonSchema)]
    /// struct Note { id: u32 }
    /// let plugin = Plugin::new("notes", "1.0.0")
    ///     .resource_template("notes://note/{id}", async |note: Note, _| Ok(format!("No. {}", note.id)));
    /// let host = TestHost::start(plugin).await?;
    /// assert_eq!(host.read_resource("notes://note/7").await?.text_content(), "No. 7");
    /// # Ok(()) }) }
    /// ```
    pub fn resource_template<P, T, F>(
        mut self,
        template: impl Into<ResourceTemplate>,
        handler: F,
    ) -> Self
    where
        P: DeserializeOwned + JsonSchema,
        T: IntoResource,
        F: AsyncFn(P, Context) -> Result<T, ToolError> + Send + Sync + 'static,
    {
        let template = template.into();
        let schema = schema::of::<P>();
        let mut report = Report::new(&mut self.mistakes, "resource_template", template.template());
        check::variables(template.template(), &schema, &mut report);
        let (text, media) = (template.template().to_owned(), template.media());
        let entry = template.build(&mut report);
        let handler = handler::resource_template(text, media, schema, handler);
        self.capabilities.push((entry, handler));
        self
    }

    /// Provides a prompt. MCP gives its arguments as texts; those that the type wants as numbers are
    /// read as such.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> { plugmesh_sdk::testing::run(async {
    /// use plugmesh_sdk::testing::TestHost;
    /// use plugmesh_sdk::{Plugin, Prompt};
    /// use serde_json::json;
    ///
    /// #[derive(serde::Deserialize, schemars::JsonSchema)]
    /// struct Story { words: u32 }
    /// let plugin = Plugin::new("writer", "1.0.0")
    ///     .prompt(Prompt::new("story"), async |args: Story, _| {
    ///         Ok(format!("Write a story of {} words", args.words))
    ///     });
    /// let host = TestHost::start(plugin).await?;
    /// let prompt = host.get_prompt("story", json!({"words": "100"})).await?;
    /// assert_eq!(prompt.messages().len(), 1);
    /// # Ok(()) }) }
    /// ```
    pub fn prompt<A, T, F>(mut self, prompt: impl Into<Prompt>, handler: F) -> Self
    where
        A: DeserializeOwned + JsonSchema,
        T: IntoPrompt,
        F: AsyncFn(A, Context) -> Result<T, ToolError> + Send + Sync + 'static,
    {
        let prompt = prompt.into();
        let schema = schema::of::<A>();
        let mut report = Report::new(&mut self.mistakes, "prompt", prompt.name());
        let entry = prompt.build(&schema, &mut report);
        let handler = handler::prompt(schema, handler);
        self.capabilities.push((entry, handler));
        self
    }

    /// Provides a service that answers once. What it takes is [`FromPayload`], what it gives
    /// [`IntoPayload`]: most often [`Json`](crate::Json) of a type.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> { plugmesh_sdk::testing::run(async {
    /// use plugmesh_sdk::testing::TestHost;
    /// use plugmesh_sdk::{Json, Plugin, Target};
    ///
    /// let plugin = Plugin::new("text", "1.0.0")
    ///     .service("text.length", async |Json(text): Json<String>, _| Ok(Json(text.len())));
    /// let host = TestHost::start(plugin).await?;
    /// let answer = host.call(Target::service("text.length"), Json("four")).await?.finish().await?;
    /// assert_eq!(answer.parse::<usize>().unwrap(), 4);
    /// # Ok(()) }) }
    /// ```
    pub fn service<A, T, F>(mut self, service: impl Into<Service>, handler: F) -> Self
    where
        A: FromPayload,
        T: IntoPayload,
        F: AsyncFn(A, Context) -> Result<T, ToolError> + Send + Sync + 'static,
    {
        let service = service.into();
        let mut report = Report::new(&mut self.mistakes, "service", service.name());
        let entry = service.build(false, false, &mut report);
        self.capabilities.push((entry, handler::service(handler)));
        self
    }

    /// The layer that brings events of `tracing` into the mesh's log, for programs that set a
    /// subscriber of their own. Others need not care: [`Plugin::run`] installs it.
    ///
    /// ```
    /// use tracing_subscriber::layer::SubscriberExt;
    /// let plugin = plugmesh_sdk::Plugin::new("demo", "1.0.0");
    /// let subscriber = tracing_subscriber::registry().with(plugin.log_layer());
    /// tracing::subscriber::set_global_default(subscriber).unwrap();
    /// ```
    #[must_use]
    pub fn log_layer(&self) -> LogLayer {
        LogLayer::new(self.log.clone())
    }

    /// Finds the mistakes without running.
    ///
    /// # Errors
    /// All mistakes, each with its field.
    ///
    /// ```
    /// use plugmesh_sdk::Plugin;
    /// let error = Plugin::new("My Plugin", "1").depends_on("time", "new").check().unwrap_err();
    /// let text = error.to_string();
    /// assert!(text.contains("name: ") && text.contains("dependencies.time: "), "{text}");
    /// ```
    pub fn check(self) -> Result<(), Error> {
        self.define().map(|_| ())
    }

    /// Attaches to the agent of this host and serves calls, until the program is told to stop
    /// (SIGTERM, Ctrl-C) or the agent drains it. Attaches again whenever the agent was away.
    ///
    /// The agent's address comes from the environment: `PLUGMESH_AGENT`, `unix:///path` or
    /// `http://host:port`; the default is `http://127.0.0.1:7410`.
    ///
    /// Runs best on a single-threaded runtime; [`Plugin::main`] makes one. Handlers need not be `Send`
    /// and so neither is this future: await it in `main`, or spawn it locally.
    ///
    /// # Errors
    /// The plugin has mistakes, or the mesh refused it for good.
    ///
    /// ```no_run
    /// #[tokio::main(flavor = "current_thread")]
    /// async fn main() -> Result<(), plugmesh_sdk::Error> {
    ///     plugmesh_sdk::Plugin::new("empty", "1.0.0").run().await
    /// }
    /// ```
    pub async fn run(self) -> Result<(), Error> {
        let log = self.log.clone();
        run::run(self.define()?, log).await
    }

    /// All of a program's `main`: [runs](Plugin::run) the plugin on a runtime of its own, prints what
    /// went wrong in one line, and gives the [exit code](Error::exit_code).
    ///
    /// ```no_run
    /// fn main() -> std::process::ExitCode {
    ///     plugmesh_sdk::Plugin::new("empty", "1.0.0").main()
    /// }
    /// ```
    #[must_use = "return it from main"]
    pub fn main(self) -> ExitCode {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let ended = match runtime {
            Ok(runtime) => runtime.block_on(self.run()),
            Err(reason) => Err(Error::System {
                doing: "start the runtime",
                reason,
            }),
        };
        match ended {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                crate::logging::print_line("ERROR", &error.to_string());
                ExitCode::from(error.exit_code())
            }
        }
    }

    pub(crate) fn sink(&self) -> Sink {
        self.log.clone()
    }

    /// Checks everything, and gives what a session needs.
    pub(crate) fn define(mut self) -> Result<Definition, Error> {
        let mut mistakes = check::manifest(&self.manifest);
        mistakes.append(&mut self.mistakes);
        let mut handlers = Handlers::default();
        for (entry, handler) in self.capabilities {
            let capability = entry.capability.clone().unwrap_or_default();
            let of_kind = handlers.entry(capability.kind).or_default();
            match of_kind.entry(capability.name) {
                Entry::Vacant(place) => {
                    place.insert(handler);
                }
                Entry::Occupied(place) => {
                    let kind = check::kind_name(capability.kind);
                    let problem = "it is provided twice: leave one out or rename it".to_owned();
                    mistakes.push((format!("{kind} {}", place.key()), problem));
                }
            }
            self.manifest.capabilities.push(entry);
        }
        // A plugin that has templates has resources, too, when they are looked up by URI.
        if handlers.contains_key(&CapabilityKind::ResourceTemplate.into()) {
            handlers.entry(CapabilityKind::Resource.into()).or_default();
        }
        if mistakes.is_empty() {
            Ok(Definition {
                manifest: self.manifest,
                config: self.config,
                handlers,
            })
        } else {
            Err(Error::InvalidPlugin(mistakes))
        }
    }
}
