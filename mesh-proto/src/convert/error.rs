//! Errors.

use std::time::Duration;

use mesh_core::error::{ErrorCode, MeshError, Place};

use crate::common;

impl From<ErrorCode> for common::ErrorCode {
    fn from(own: ErrorCode) -> Self {
        Self::try_from(own.number()).unwrap_or(Self::Internal)
    }
}

impl From<MeshError> for common::Error {
    fn from(own: MeshError) -> Self {
        let wait = own.retry_after.unwrap_or_default().as_millis();
        Self {
            code: own.code.number(),
            message: own.message,
            plugin: own.place.plugin,
            version: own.place.version,
            instance: own.place.instance,
            node: own.place.node,
            retry_after_ms: u32::try_from(wait).unwrap_or(u32::MAX),
            details: own.details.unwrap_or_default().into(),
        }
    }
}

// In a frame an error is kept in a box.
impl From<MeshError> for Box<common::Error> {
    fn from(error: MeshError) -> Self {
        Self::new(error.into())
    }
}

impl From<Box<common::Error>> for MeshError {
    fn from(wire: Box<common::Error>) -> Self {
        (*wire).into()
    }
}

/// Every wire error has a meaning: a code that is not known here, from a newer peer, is INTERNAL.
impl From<common::Error> for MeshError {
    fn from(wire: common::Error) -> Self {
        let wait = (wire.retry_after_ms > 0)
            .then(|| Duration::from_millis(u64::from(wire.retry_after_ms)));
        let details =
            (!wire.details.is_empty()).then(|| String::from_utf8_lossy(&wire.details).into_owned());
        Self {
            code: ErrorCode::from_number(wire.code),
            message: wire.message,
            place: Box::new(Place {
                plugin: wire.plugin,
                version: wire.version,
                instance: wire.instance,
                node: wire.node,
            }),
            retry_after: wait,
            details,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_goes_there_and_back() {
        let place = Place {
            plugin: "time".into(),
            version: "1.0.0".into(),
            instance: "i".into(),
            node: "n".into(),
        };
        for code in ErrorCode::ALL {
            let mut own = MeshError::new(*code, "why").at(place.clone());
            own.retry_after = Some(Duration::from_millis(250));
            own.details = Some("{}".into());
            assert_eq!(MeshError::from(common::Error::from(own.clone())), own);
            // The two lists of codes agree by number and name.
            let wire = common::ErrorCode::try_from(code.number()).unwrap();
            let name = format!("ERROR_CODE_{}", code.name().to_uppercase());
            assert_eq!(wire.as_str_name(), name);
            assert_eq!(common::ErrorCode::from(*code), wire);
        }
        assert!(common::ErrorCode::try_from(ErrorCode::ALL.len() as i32 + 1).is_err());
    }
}
