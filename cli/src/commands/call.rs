//! `plugmesh call NAME key=value…`: calls a tool.

use mesh_runtime::config::nearest;
use serde_json::{Map, Value};

use crate::args::CallArgs;
use crate::commands::tools::text;
use crate::exit::{self, Failure};
use crate::mcp::Mcp;
use crate::output::{self, Output};

/// Calls a tool; progress and log lines go to stderr, the result to stdout.
///
/// # Errors
/// [`exit::DATA`] for an unknown tool or wrong arguments, [`exit::FAILED`] with the tool's text when
/// it failed, [`exit::UNAVAILABLE`] when nobody can serve it.
pub async fn run(args: CallArgs, output: Output) -> Result<(), Failure> {
    let mut arguments = whole(args.args.as_deref())?;
    let mcp = Mcp::new(&args.ask)?;
    let limit = args.timeout.get();
    let call = async {
        let tools = mcp.tools().await?;
        let Some(tool) = tools.iter().find(|tool| text(tool, "name") == args.name) else {
            return Err(unknown(&args.name, &tools));
        };
        for pair in &args.pairs {
            let (key, value) = read_pair(pair, tool)?;
            arguments.insert(key, value);
        }
        let mut params = Map::new();
        params.insert("name".to_owned(), args.name.clone().into());
        params.insert("arguments".to_owned(), Value::Object(arguments));
        Ok(mcp.request("tools/call", params, hear).await?)
    };
    let Ok(result) = tokio::time::timeout(limit, call).await else {
        return Err(Failure::failed(format!(
            "no answer within {}, so the call was given up; allow more with --timeout",
            args.timeout
        )));
    };
    show(&result?, output)
}

fn whole(text: Option<&str>) -> Result<Map<String, Value>, Failure> {
    let Some(text) = text else {
        return Ok(Map::new());
    };
    let hint = "write a JSON object, such as --args '{\"a\": 1}'";
    match serde_json::from_str::<Value>(text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(Failure::data(format!(
            "--args: is JSON, but not an object; {hint}"
        ))),
        Err(error) => Err(Failure::data(format!(
            "--args: is not JSON: {error}; {hint}"
        ))),
    }
}

/// A value is taken as JSON when it is, unless the tool wants a text there.
fn read_pair(pair: &str, tool: &Value) -> Result<(String, Value), Failure> {
    let Some((key, value)) = pair.split_once('=').filter(|(key, _)| !key.is_empty()) else {
        return Err(Failure::data(format!(
            "argument {pair:?} is not key=value; write for example a=20, or use --args"
        )));
    };
    let schema = tool
        .pointer("/inputSchema/properties")
        .and_then(|all| all.get(key));
    let wanted = schema.and_then(|schema| schema.get("type"));
    let is_text = match wanted {
        Some(Value::String(one)) => one == "string",
        Some(Value::Array(many)) => many
            .iter()
            .all(|one| matches!(one.as_str(), Some("string" | "null"))),
        _ => false,
    };
    let json = || serde_json::from_str::<Value>(value).ok();
    let value = if is_text { None } else { json() };
    let text = || {
        pair.split_once('=')
            .map(|(_, text)| text)
            .unwrap_or_default()
    };
    Ok((key.to_owned(), value.unwrap_or_else(|| text().into())))
}

fn unknown(name: &str, tools: &[Value]) -> Failure {
    let names: Vec<&str> = tools.iter().map(|tool| text(tool, "name")).collect();
    // `calculator_add` is what is meant by `add`, too.
    let contains = || names.iter().copied().find(|known| known.contains(name));
    let hint = match nearest(name, names.iter().copied()).or_else(contains) {
        Some(near) => format!("did you mean {near}?"),
        None if names.is_empty() => "there are none; see `plugmesh plugins`".to_owned(),
        None => "see `plugmesh tools`".to_owned(),
    };
    Failure::data(format!("there is no tool {name:?}; {hint}"))
}

/// What the gateway says while the call runs.
fn hear(method: &str, params: &Value) {
    let get = |key: &str| params.get(key);
    match method {
        "notifications/progress" => {
            let done = get("progress").and_then(Value::as_f64).unwrap_or(0.0);
            let total = get("total").and_then(Value::as_f64);
            let total = total.map_or_else(String::new, |total| format!("/{total}"));
            let message = get("message").and_then(Value::as_str).unwrap_or_default();
            output::note(format!("progress {done}{total} {message}").trim_end());
        }
        "notifications/message" => {
            let level = get("level").and_then(Value::as_str).unwrap_or("info");
            let data = get("data").unwrap_or(&Value::Null);
            let data = data
                .as_str()
                .map_or_else(|| data.to_string(), str::to_owned);
            output::note(format!("{level}: {data}"));
        }
        _ => {}
    }
}

fn show(result: &Value, output: Output) -> Result<(), Failure> {
    let failed = result.get("isError").and_then(Value::as_bool) == Some(true);
    let content = result.get("content").and_then(Value::as_array);
    let blocks: Vec<String> = content.into_iter().flatten().map(block).collect();
    let text = match (blocks.is_empty(), result.get("structuredContent")) {
        (true, Some(structured)) => structured.to_string(),
        _ => blocks.join("\n"),
    };
    if output == Output::Json {
        output::json(result)?;
    } else if !failed {
        output::line(&text)?;
    }
    if failed {
        return Err(Failure::new(exit::FAILED, text));
    }
    Ok(())
}

fn block(block: &Value) -> String {
    let get = |key: &str| block.get(key).and_then(Value::as_str).unwrap_or_default();
    match get("type") {
        "text" => get("text").to_owned(),
        "resource_link" => format!("[{}]", get("uri")),
        "resource" => block
            .pointer("/resource/text")
            .and_then(Value::as_str)
            .map_or_else(|| block.to_string(), str::to_owned),
        kind => format!(
            "[{kind} {}, {} bytes of base64]",
            get("mimeType"),
            get("data").len()
        ),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed test may panic")]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_value_is_json_unless_the_tool_wants_a_text() {
        let tool = json!({ "inputSchema": { "properties": {
            "a": { "type": "number" }, "name": { "type": ["string", "null"] },
        } } });
        for (pair, value) in [
            ("a=20", json!(20)),
            ("name=5", json!("5")),
            ("other=[1,2]", json!([1, 2])),
            ("other=plain text", json!("plain text")),
            ("other=a=b", json!("a=b")),
        ] {
            assert_eq!(read_pair(pair, &tool).unwrap().1, value, "{pair}");
        }
        for bad in ["20", "=20"] {
            assert_eq!(read_pair(bad, &tool).unwrap_err().code, exit::DATA);
        }
    }

    #[test]
    fn an_unknown_tool_is_answered_with_the_one_that_is_meant() {
        let tools = [
            json!({ "name": "calculator_add" }),
            json!({ "name": "time_now" }),
        ];
        for (given, meant) in [
            ("calculater_add", "calculator_add"),
            ("add", "calculator_add"),
        ] {
            let failure = unknown(given, &tools);
            assert!(
                failure.message.contains(&format!("did you mean {meant}?")),
                "{failure:?}"
            );
            assert_eq!(failure.code, exit::DATA);
        }
        assert!(unknown("x-ray", &tools).message.contains("plugmesh tools"));
    }

    #[test]
    fn arguments_that_are_no_object_are_refused_with_an_example() {
        assert!(
            whole(Some("[1]"))
                .unwrap_err()
                .message
                .contains("not an object")
        );
        assert!(
            whole(Some("{"))
                .unwrap_err()
                .message
                .contains("is not JSON")
        );
    }

    #[test]
    fn the_text_of_a_failed_tool_is_the_failure() {
        let result = json!({ "isError": true, "content": [{ "type": "text", "text": "by zero" }] });
        let failure = show(&result, Output::Table).unwrap_err();
        assert_eq!(
            (failure.code, failure.message.as_str()),
            (exit::FAILED, "by zero")
        );
    }
}
