//! Error codes: what went wrong, as every protocol of the mesh numbers it.

use std::fmt;

/// Declares the codes, so that name and number stay together.
macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $number:literal, $name:literal;)*) => {
        /// What went wrong with a call. Each code has a page in the mesh's documentation.
        ///
        /// ```
        /// use plugmesh_sdk::ErrorCode;
        /// assert_eq!(ErrorCode::NoProvider.to_string(), "no_provider");
        /// ```
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum ErrorCode { $($(#[$doc])* $variant = $number,)* }

        impl ErrorCode {
            /// The code as written in logs and metrics.
            ///
            /// ```
            /// assert_eq!(plugmesh_sdk::ErrorCode::TooLarge.name(), "too_large");
            /// ```
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The code of a number on the wire; numbers that this SDK does not know are `Internal`.
            pub(crate) fn from_number(number: i32) -> Self {
                match number { $($number => Self::$variant,)* _ => Self::Internal }
            }

            pub(crate) fn number(self) -> i32 {
                self as i32
            }
        }
    };
}

codes! {
    /// The arguments break a rule that the message names. Not processed.
    InvalidArgument = 1, "invalid_argument";
    /// No plugin, instance, node or item of that name. Not processed.
    NotFound = 2, "not_found";
    /// No plugin provides the capability. Not processed.
    NoProvider = 3, "no_provider";
    /// Providers exist, but none may take calls now. Not processed.
    Unavailable = 4, "unavailable";
    /// The provider is at its limit and shed the call. Not processed.
    Overloaded = 5, "overloaded";
    /// The provider is draining and takes no new calls. Not processed.
    Draining = 6, "draining";
    /// The instance was gone before the call reached it. Not processed.
    InstanceGone = 7, "instance_gone";
    /// The provider was lost after the call was delivered: whether it was processed is unknown.
    OutcomeUnknown = 8, "outcome_unknown";
    /// The deadline passed before a result arrived: whether it was processed is unknown.
    DeadlineExceeded = 9, "deadline_exceeded";
    /// The deadline had passed before the call reached the plugin. Not processed.
    Expired = 10, "expired";
    /// The caller cancelled the call.
    Cancelled = 11, "cancelled";
    /// The payload or frame is over a limit. Not processed.
    TooLarge = 12, "too_large";
    /// A frame could not be decoded. Not processed.
    MalformedFrame = 13, "malformed_frame";
    /// The peer does not know this message.
    Unsupported = 14, "unsupported";
    /// A frame came out of order.
    ProtocolViolation = 15, "protocol_violation";
    /// The manifest breaks rules.
    InvalidManifest = 16, "invalid_manifest";
    /// The manifest would close a cycle of dependencies.
    DependencyCycle = 17, "dependency_cycle";
    /// Others depend on what was to be unloaded.
    StillRequired = 18, "still_required";
    /// A newer generation of the node is known.
    StaleNode = 19, "stale_node";
    /// The caller is not allowed to do this.
    PermissionDenied = 20, "permission_denied";
    /// The plugin's own code failed while it worked on the call. Processed.
    PluginFailed = 21, "plugin_failed";
    /// The mesh is not reachable; the call was not sent.
    Disconnected = 22, "disconnected";
    /// No coordinator is reachable.
    NoCoordinator = 23, "no_coordinator";
    /// A bug in the mesh.
    Internal = 24, "internal";
    /// The configuration breaks rules.
    InvalidConfig = 25, "invalid_config";
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    //! The numbers against those of the wire.

    use super::*;
    use crate::wire::common;

    #[test]
    fn every_code_of_the_wire_is_known_by_its_name() {
        for number in 1..=100 {
            let Ok(wire) = common::ErrorCode::try_from(number) else {
                continue;
            };
            let name = wire.as_str_name().trim_start_matches("ERROR_CODE_");
            assert_eq!(
                ErrorCode::from_number(number).name(),
                name.to_ascii_lowercase()
            );
            assert_eq!(ErrorCode::from_number(number).number(), number);
        }
    }
}
