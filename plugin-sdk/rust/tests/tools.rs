//! Tools, prompts and resources: what handlers get, and what callers get of them.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a failed test may panic"
)]

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use plugmesh_sdk::testing::{self, TestHost};
use plugmesh_sdk::{
    CallError, Context, ErrorCode, Json, NoArgs, Plugin, Prompt, ResourceTemplate, Service, Target,
    Tool, ToolError, ToolOutput,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

type Tested = Result<(), Box<dyn Error>>;

#[derive(Deserialize, JsonSchema)]
struct Search {
    /// What to look for
    query: String,
    /// Where to look
    #[serde(default)]
    paths: Vec<Path>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Path {
    depth: u8,
}

#[derive(Serialize, JsonSchema)]
struct Found {
    /// How many
    count: usize,
}

fn search() -> Plugin {
    Plugin::new("search", "1.0.0").tool(
        Tool::new("find")
            .title("Find")
            .description("Finds")
            .annotation("openWorldHint", false)
            .field("_meta", json!({"team": "core"})),
        async |args: Search, _| {
            let depth: usize = args.paths.iter().map(|path| usize::from(path.depth)).sum();
            Ok(Json(Found {
                count: args.query.len() + depth,
            }))
        },
    )
}

fn code<T>(result: Result<T, CallError>) -> Option<ErrorCode> {
    result.err().map(|error| error.code)
}

#[test]
fn an_entry_holds_all_that_was_said_and_the_schemas_of_the_types() -> Tested {
    testing::run(async {
        let host = TestHost::start(search()).await?;
        let entry = host.entry("tool", "find").unwrap();
        let keys: Vec<&String> = entry.as_object().unwrap().keys().collect();
        assert_eq!(
            keys,
            [
                "name",
                "title",
                "description",
                "_meta",
                "inputSchema",
                "outputSchema",
                "annotations"
            ]
        );
        let input = &entry["inputSchema"];
        assert_eq!(
            input["properties"]["query"]["description"],
            "What to look for"
        );
        assert_eq!(input["required"], json!(["query"]));
        assert_eq!(
            entry["outputSchema"]["properties"]["count"]["type"],
            "integer"
        );
        assert_eq!(entry["annotations"], json!({"openWorldHint": false}));
        Ok(())
    })
}

#[test]
fn arguments_that_do_not_fit_are_refused_with_field_and_expectation() -> Tested {
    testing::run(async {
        let host = TestHost::start(search()).await?;
        for (arguments, said) in [
            (
                json!({}),
                "arguments.query: missing, expected string (What to look for)",
            ),
            (
                json!({"query": 7}),
                "arguments.query: invalid type: integer `7`, expected a string",
            ),
            (
                json!({"query": "x", "paths": [{"depth": 1}, {"depth": 1000}]}),
                "arguments.paths[1].depth: invalid value: integer `1000`, expected u8",
            ),
            (
                json!({"query": "x", "paths": [{"depth": 1, "width": 2}]}),
                "arguments.paths[0].width: unknown field `width`, expected `depth`",
            ),
            (
                json!("x"),
                "arguments: invalid type: string \"x\", expected struct Search",
            ),
        ] {
            let error = host.call_tool("find", &arguments).await.unwrap_err();
            assert_eq!(error.code, ErrorCode::InvalidArgument, "{arguments}");
            assert_eq!(error.message, said);
        }
        let call = host.call(Target::tool("find"), "{oops").await?;
        let error = call.finish().await.unwrap_err();
        assert!(
            error.message.starts_with("arguments: not valid JSON: "),
            "{error}"
        );
        Ok(())
    })
}

#[test]
fn results_are_of_the_form_that_their_type_asks_for() -> Tested {
    testing::run(async {
        let plugin = Plugin::new("forms", "1.0.0")
            .tool("text", async |_: NoArgs, _| Ok("hello"))
            .tool("nothing", async |_: NoArgs, _| Ok(()))
            .tool("array", async |_: NoArgs, _| Ok(json!([1, 2])))
            .tool("object", async |_: NoArgs, _| Ok(json!({"a": 1})))
            .tool("image", async |_: NoArgs, _| {
                Ok(ToolOutput::new()
                    .image(b"abc", "image/png")
                    .text("a picture"))
            });
        let host = TestHost::start(plugin).await?;
        for (tool, content, structured) in [
            ("text", json!([{"type": "text", "text": "hello"}]), None),
            ("nothing", json!([]), None),
            ("array", json!([{"type": "text", "text": "[1,2]"}]), None),
            (
                "object",
                json!([{"type": "text", "text": "{\"a\":1}"}]),
                Some(json!({"a": 1})),
            ),
            (
                "image",
                json!([
                    {"type": "image", "data": "YWJj", "mimeType": "image/png"},
                    {"type": "text", "text": "a picture"}
                ]),
                None,
            ),
        ] {
            let output = host.call_tool(tool, json!({})).await?;
            assert_eq!(Value::from(output.content()), content, "{tool}");
            assert_eq!(output.structured_content(), structured.as_ref(), "{tool}");
        }
        Ok(())
    })
}

#[test]
fn failures_are_results_codes_are_errors_and_panics_end_one_call() -> Tested {
    testing::run(async {
        let plugin = Plugin::new("faulty", "1.0.0")
            .tool("fail", async |_: NoArgs, _| {
                let number: u8 = "many".parse()?;
                Ok(number.to_string())
            })
            .tool("refuse", async |_: NoArgs, _| {
                Err::<(), _>(ToolError::with_code(ErrorCode::PermissionDenied, "not you"))
            })
            .tool("panic", async |_: NoArgs, _| {
                if true {
                    panic!("at the disco");
                }
                Ok(())
            })
            .service("faulty.fail", async |Json(_): Json<u8>, _| {
                Err::<(), _>(ToolError::new("no"))
            })
            .tool("well", async |_: NoArgs, _| Ok("well"));
        let host = TestHost::start(plugin).await?;
        let failed = host.call_tool("fail", json!({})).await?;
        assert!(failed.is_error());
        assert_eq!(failed.text_content(), "invalid digit found in string");

        let refused = host.call_tool("refuse", json!({})).await;
        assert_eq!(code(refused), Some(ErrorCode::PermissionDenied));

        let panicked = host.call_tool("panic", json!({})).await.unwrap_err();
        assert_eq!(panicked.code, ErrorCode::PluginFailed);
        assert_eq!(panicked.message, "the handler panicked: at the disco");

        let service = host.call(Target::service("faulty.fail"), Json(1)).await?;
        assert_eq!(code(service.finish().await), Some(ErrorCode::PluginFailed));

        assert_eq!(
            host.call_tool("well", json!({})).await?.text_content(),
            "well"
        );
        assert_eq!(
            code(host.call_tool("unknown", json!({})).await),
            Some(ErrorCode::NoProvider)
        );
        Ok(())
    })
}

#[test]
fn handlers_may_keep_state_and_be_plain_functions() -> Tested {
    async fn plain(_: NoArgs, ctx: Context) -> Result<String, ToolError> {
        Ok(ctx.plugin().to_owned())
    }
    testing::run(async {
        let calls = Arc::new(AtomicU32::new(0));
        let counted = calls.clone();
        let plugin = Plugin::new("stateful", "1.0.0").tool("plain", plain).tool(
            "count",
            async move |_: NoArgs, _| {
                Ok(json!({"calls": counted.fetch_add(1, Ordering::SeqCst) + 1}))
            },
        );
        let host = TestHost::start(plugin).await?;
        assert_eq!(
            host.call_tool("plain", json!({})).await?.text_content(),
            "stateful"
        );
        for _ in 0..3 {
            host.call_tool("count", json!({})).await?;
        }
        assert_eq!(calls.load(Ordering::SeqCst), 3);
        Ok(())
    })
}

#[test]
fn texts_of_prompts_and_uris_become_the_numbers_that_handlers_want() -> Tested {
    #[derive(Deserialize, JsonSchema)]
    struct Page {
        book: String,
        number: u32,
    }
    testing::run(async {
        let template = ResourceTemplate::new("book://{book}/page/{number}").mime_type("text/plain");
        let plugin = Plugin::new("library", "1.0.0")
            .resource_template(template, async |page: Page, _| {
                Ok(format!("{} {}", page.book, page.number + 1))
            })
            .prompt(Prompt::new("summary"), async |page: Page, _| {
                Ok(format!("Sum up page {} of {}", page.number, page.book))
            });
        let host = TestHost::start(plugin).await?;
        let page = host.read_resource("book://Moby%20Dick/page/41").await?;
        assert_eq!(page.text_content(), "Moby Dick 42");
        assert_eq!(page.contents()[0]["mimeType"], "text/plain");
        assert_eq!(page.contents()[0]["uri"], "book://Moby%20Dick/page/41");

        let wrong = host.read_resource("book://x/page/last").await.unwrap_err();
        assert_eq!(wrong.code, ErrorCode::InvalidArgument);
        assert_eq!(
            wrong.message,
            "uri.number: invalid type: string \"last\", expected u32"
        );

        let prompt = host
            .get_prompt("summary", json!({"book": "7", "number": "3"}))
            .await?;
        assert_eq!(
            prompt.messages()[0]["content"]["text"],
            "Sum up page 3 of 7"
        );
        let missing = host
            .get_prompt("summary", json!({"book": "7"}))
            .await
            .unwrap_err();
        assert_eq!(
            missing.message,
            "arguments.number: missing, expected integer"
        );
        Ok(())
    })
}

#[test]
fn every_mistake_in_a_plugin_is_reported_at_once_with_its_field() {
    #[derive(Deserialize, JsonSchema)]
    struct Zone {
        #[serde(rename = "zone")]
        _zone: String,
    }
    let plugin = Plugin::new("My Plugin", "1.0")
        .homepage("example.org")
        .depends_on("Time", "^1.0")
        .depends_on("time", "newest")
        .depends_on("clock", "1")
        .depends_on("clock", "2")
        .requires("embedding", ">=1")
        .config::<String>()
        .tool("two words", async |_: NoArgs, _| Ok(()))
        .tool("list", async |_: Vec<u8>, _| Ok(()))
        .tool("typed", async |_: NoArgs, _| Ok(Json(1)))
        .tool("same", async |_: NoArgs, _| Ok(()))
        .tool("same", async |_: NoArgs, _| Ok(()))
        .resource("no uri", async |_| Ok(""))
        .resource_template("time://{+zone}", async |_: Zone, _| Ok(""))
        .service(Service::new(""), async |Json(_): Json<u8>, _| Ok(()));
    let text = plugin.check().unwrap_err().to_string();
    let expected = [
        "the plugin is not valid:",
        "  name: \"My Plugin\" is not valid: use 1 to 63 lowercase letters, digits and hyphens, with no hyphen at either end",
        "  version: \"1.0\" is no semantic version (unexpected end of input while parsing minor version number); write for example 1.0.0",
        "  homepage: \"example.org\" is no http or https address",
        "  dependencies.Time: \"Time\" is not valid: use 1 to 63 lowercase letters, digits and hyphens, with no hyphen at either end",
        "  dependencies.time: \"newest\" is no version requirement (unexpected character 'n' while parsing major version number); write for example ^2.0 or >=1.0.0",
        "  dependencies.clock: it is stated twice",
        "  requires.embedding: \"embedding\" is no capability: write kind:name, such as service:embedding.embed",
        "  config: the type is not a JSON object: use a struct with named fields",
        "  tool two words.name: \"two words\" is not valid: use 1 to 64 letters, digits and _ . / -",
        "  tool list.arguments: the handler's argument type is not a JSON object: use a struct with named fields, or NoArgs",
        "  tool typed.result: the type in Json is not a JSON object: use a struct with named fields, or return a serde_json::Value, which promises no schema",
        "  resource no uri.uri: \"no uri\" is not valid: it has no scheme; write for example notes://today",
        "  resource_template time://{+zone}.zone: the handler's type needs it, but the template has no {zone}",
        "  resource_template time://{+zone}.uriTemplate: \"time://{+zone}\" is not valid: between { and } stands one name of letters, digits, _ and .",
        "  service .name: \"\" is not valid: use 1 to 256 bytes without spaces, such as embedding.embed",
        "  tool same: it is provided twice: leave one out or rename it",
    ];
    assert_eq!(text.lines().collect::<Vec<_>>(), expected);
}
