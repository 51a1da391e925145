//! An example plugin: arithmetic.

use std::process::ExitCode;

use plugmesh_sdk::{Json, Plugin, Tool, ToolError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};

#[cfg(test)]
mod tests;

/// The arguments of every tool.
#[derive(Deserialize, JsonSchema)]
struct Numbers {
    /// The first number
    a: f64,
    /// The second number
    b: f64,
}

/// The result of every tool.
#[derive(Serialize, JsonSchema)]
struct Answer {
    /// The result
    #[serde(serialize_with = "as_short_as_possible")]
    result: f64,
}

/// Writes 3, not 3.0: language models and people like it better.
fn as_short_as_possible<S: Serializer>(number: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    // Up to here, every whole number is one of f64.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if number.fract() == 0.0 && number.abs() <= EXACT {
        // Whole and in range, so nothing is cut off.
        serializer.serialize_i64(*number as i64)
    } else {
        serializer.serialize_f64(*number)
    }
}

fn answer(result: f64) -> Result<Json<Answer>, ToolError> {
    if result.is_finite() {
        Ok(Json(Answer { result }))
    } else {
        Err(ToolError::new(
            "the result is too large: its magnitude must be below 1.8e308",
        ))
    }
}

fn tool(name: &str, description: &str) -> Tool {
    Tool::new(name)
        .description(description)
        .read_only()
        .idempotent()
}

fn plugin() -> Plugin {
    Plugin::new(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"))
        .description(env!("CARGO_PKG_DESCRIPTION"))
        .license("Apache-2.0")
        .tag("math")
        .tool(tool("add", "Adds two numbers"), async |n: Numbers, _| {
            answer(n.a + n.b)
        })
        .tool(
            tool("subtract", "Subtracts b from a"),
            async |n: Numbers, _| answer(n.a - n.b),
        )
        .tool(
            tool("multiply", "Multiplies two numbers"),
            async |n: Numbers, _| answer(n.a * n.b),
        )
        .tool(
            tool("divide", "Divides a by b, which must not be 0"),
            async |n: Numbers, _| {
                if n.b == 0.0 {
                    return Err(ToolError::new("division by zero: b must not be 0"));
                }
                answer(n.a / n.b)
            },
        )
}

fn main() -> ExitCode {
    plugin().main()
}
