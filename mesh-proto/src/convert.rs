//! Conversions between the wire and the types of mesh-core; errors name the field.
//!
//! From the domain to the wire is `From`; from the wire to the domain is `TryFrom` with
//! [`WireError`], or `From` where every wire value has a meaning.

mod call;
mod error;
mod manifest;
mod sent;
mod table;

use std::fmt;

pub use self::manifest::{capability_entries, draft};
pub use self::sent::{MAX_UPDATE, SentUpdate};
pub use self::table::{instance_phase, instance_state, table_update};

/// Why a wire message is no domain value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct WireError {
    /// Which field: a path such as `instances[2].state`.
    pub field: String,
    /// What is wrong with it.
    pub problem: String,
}

impl WireError {
    /// A mistake in one field.
    pub fn new(field: impl Into<String>, problem: impl fmt::Display) -> Self {
        Self {
            field: field.into(),
            problem: problem.to_string(),
        }
    }

    /// The same mistake, seen from the message that holds the field.
    #[must_use]
    pub fn within(mut self, field: impl fmt::Display) -> Self {
        self.field = format!("{field}.{}", self.field);
        self
    }
}

impl From<WireError> for mesh_core::error::MeshError {
    fn from(error: WireError) -> Self {
        Self::new(
            mesh_core::error::ErrorCode::InvalidArgument,
            error.to_string(),
        )
    }
}

/// Converts each item of a list; a mistake names its place.
fn each<W, D>(
    field: &str,
    items: Vec<W>,
    convert: impl Fn(W) -> Result<D, WireError>,
) -> Result<Vec<D>, WireError> {
    items
        .into_iter()
        .enumerate()
        .map(|(place, item)| {
            convert(item).map_err(|error| error.within(format_args!("{field}[{place}]")))
        })
        .collect()
}

/// Takes a message that must be there.
fn required<T>(field: &str, message: Option<T>) -> Result<T, WireError> {
    message.ok_or_else(|| WireError::new(field, "is missing"))
}

/// Parses a text into an id.
fn parsed<T: std::str::FromStr<Err: fmt::Display>>(
    field: &str,
    text: &str,
) -> Result<T, WireError> {
    text.parse().map_err(|error| WireError::new(field, error))
}
