//! Version requirements, in Cargo's syntax and in the spellings of the systems that we replace.

use std::fmt;
use std::str::FromStr;

use semver::{Version, VersionReq};
use serde::{Deserialize, Serialize};

use crate::id::{NameError, PluginName};

/// A requirement on a version: Cargo's syntax (`^2.0`, `~1.2`, `>=1.0.0, <3`, `=1.2.3`, `1.*`, `*`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Requirement(VersionReq);

/// Why a text is not a requirement.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequirementError {
    /// The version part is wrong.
    #[error("version requirement {given:?} is not valid: {why}; write for example ^2.0 or >=1.0.0")]
    Version {
        /// What was given, shortened to 80 characters.
        given: String,
        /// What the parser says.
        why: String,
    },
    /// The name part is wrong.
    #[error(transparent)]
    Name(#[from] NameError),
}

impl Requirement {
    /// Any version at all.
    #[must_use]
    pub fn any() -> Self {
        Self(VersionReq::STAR)
    }

    /// Whether a version fulfils the requirement (Cargo's rules: a pre-release only when the
    /// requirement names one of the same version).
    #[must_use]
    pub fn matches(&self, version: &Version) -> bool {
        self.0.matches(version)
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0.to_string())
    }
}

impl FromStr for Requirement {
    type Err = RequirementError;
    fn from_str(text: &str) -> Result<Self, RequirementError> {
        VersionReq::parse(text.trim())
            .map(Self)
            .map_err(|error| RequirementError::Version {
                given: text.chars().take(80).collect(),
                why: error.to_string(),
            })
    }
}

/// Splits the one-text spelling `base-plugin>=1.0.0`, `utils-plugin^2.0.0`, `time` into the
/// plugin's name and the requirement; no requirement means any version.
///
/// # Errors
/// [`RequirementError`] that names the part which is wrong.
pub fn parse_dependency(text: &str) -> Result<(PluginName, Requirement), RequirementError> {
    let text = text.trim();
    let end = text
        .find(|c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '_'))
        .unwrap_or(text.len());
    let (name, requirement) = text.split_at(end);
    let requirement = requirement.trim().trim_start_matches('@');
    // PyPI's spelling of equality.
    let requirement = requirement
        .strip_prefix("==")
        .map_or_else(|| requirement.to_owned(), |version| format!("={version}"));
    let requirement = if requirement.is_empty() {
        Requirement::any()
    } else {
        requirement.parse()?
    };
    Ok((PluginName::new(name)?, requirement))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_spellings_of_the_reference_systems_are_understood() {
        for (text, name, yes, no) in [
            ("base-plugin>=1.0.0", "base-plugin", "1.5.0", "0.9.0"),
            ("utils-plugin^2.0.0", "utils-plugin", "2.9.9", "3.0.0"),
            ("time~1.2.0", "time", "1.2.9", "1.3.0"),
            ("time @ ^1", "time", "1.0.0", "2.0.0"),
            ("requests==2.31.0", "requests", "2.31.0", "2.31.1"),
        ] {
            let (parsed, requirement) = parse_dependency(text).expect(text);
            assert_eq!(parsed.as_str(), name);
            assert!(
                requirement.matches(&yes.parse().expect("version")),
                "{text}"
            );
            assert!(
                !requirement.matches(&no.parse().expect("version")),
                "{text}"
            );
        }
        assert!(
            parse_dependency("time")
                .expect("any")
                .1
                .matches(&Version::new(9, 0, 0))
        );
        assert!(parse_dependency("Time>=1").is_err());
        assert!(parse_dependency("time>=banana").is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in ".{0,40}", near in "[a-z-]{0,4}[<>=^~@*., 0-9a-z-]{0,16}") {
            for text in [text, near] {
                let _ = text.parse::<Requirement>();
                if let Err(error) = parse_dependency(&text) {
                    prop_assert!(!error.to_string().is_empty());
                }
            }
        }

        #[test]
        fn a_requirement_is_written_as_it_is_read(near in "[<>=^~]{0,2}[0-9]{1,2}(\\.[0-9]{1,2}){0,2}") {
            if let Ok(requirement) = near.parse::<Requirement>() {
                prop_assert_eq!(requirement.to_string().parse(), Ok(requirement));
            }
        }
    }
}
