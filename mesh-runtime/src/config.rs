//! Configuration: defaults, then a file, then the environment, then flags; every mistake at once.

mod check;
mod environment;
mod load;
mod mistake;
mod near;
mod reference;
pub mod schema;
mod sections;
mod units;

pub use load::{Sources, load, load_with};
pub use mistake::{ConfigErrors, Mistake};
pub use near::nearest;
pub use reference::{Field, markdown, settings};
pub use sections::{
    LogFormat, MeshSection, NatsSection, Preference, RouterSection, TelemetryConfig,
};
pub use units::{ByteSize, HumanDuration, UnitError};

/// What every name of an environment variable of a setting begins with.
pub const ENV_PREFIX: &str = "PLUGMESH_";

/// Rules that the schema can't state, such as one setting's relation to another.
pub trait Validate {
    /// All mistakes; empty: none.
    fn validate(&self) -> Vec<Mistake> {
        Vec::new()
    }
}

/// The environment variable of a setting: `gateway.listen` is `PLUGMESH_GATEWAY__LISTEN`.
#[must_use]
pub fn env_name(field: &str) -> String {
    format!("{ENV_PREFIX}{}", field.replace('.', "__").to_uppercase())
}
