//! Payloads: bytes and their media type, and the Rust types that stand for them.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::arguments;
use crate::error::ToolError;
use crate::wire::JSON;

/// Bytes and their media type, as services take and give them.
///
/// ```
/// use plugmesh_sdk::Payload;
/// let payload = Payload::json(&[1, 2, 3]);
/// assert_eq!(&payload.bytes[..], b"[1,2,3]");
/// assert_eq!(payload.content_type, "application/json");
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Payload {
    /// The bytes.
    pub bytes: Bytes,
    /// The media type; empty means application/json.
    pub content_type: String,
    /// It says that the capability failed.
    pub(crate) failed: bool,
}

impl Payload {
    /// Bytes of a media type.
    ///
    /// ```
    /// let payload = plugmesh_sdk::Payload::new("hello", "text/plain");
    /// assert_eq!(payload.bytes, "hello");
    /// ```
    #[must_use]
    pub fn new(bytes: impl Into<Bytes>, content_type: impl Into<String>) -> Self {
        Self {
            bytes: bytes.into(),
            content_type: content_type.into(),
            failed: false,
        }
    }

    /// A value as JSON. A value that JSON can't hold, such as a map whose keys are no texts, becomes
    /// `null`.
    ///
    /// ```
    /// assert_eq!(plugmesh_sdk::Payload::json(&true).bytes, "true");
    /// ```
    #[must_use]
    pub fn json<T: Serialize + ?Sized>(value: &T) -> Self {
        let bytes = serde_json::to_vec(value).unwrap_or_else(|_| b"null".to_vec());
        Self::new(bytes, JSON)
    }

    /// Reads the bytes as JSON.
    ///
    /// # Errors
    /// Names the field that does not fit the type, and what was expected.
    ///
    /// ```
    /// let numbers: Vec<u8> = plugmesh_sdk::Payload::json(&[1, 2]).parse().unwrap();
    /// assert_eq!(numbers, [1, 2]);
    /// ```
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, ToolError> {
        arguments::parse("payload", &self.bytes, None)
    }
}

/// A value that travels as JSON. As the result of a tool it also gives the tool's `outputSchema`.
///
/// ```
/// use plugmesh_sdk::{IntoPayload, Json};
/// assert_eq!(Json([1, 2]).into_payload().unwrap().bytes, "[1,2]");
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Json<T>(
    /// The value.
    pub T,
);

/// What a service's handler can take: [`Json`] of a type, [`Payload`], or the bare [`Bytes`].
///
/// ```
/// use plugmesh_sdk::{FromPayload, Json, Payload};
/// let Json(number) = Json::<u8>::from_payload(Payload::json(&7)).unwrap();
/// assert_eq!(number, 7);
/// ```
pub trait FromPayload: Sized {
    /// Reads the payload.
    ///
    /// # Errors
    /// A [`ToolError`] that says what does not fit.
    ///
    /// ```
    /// use plugmesh_sdk::{FromPayload, Payload};
    /// assert!(plugmesh_sdk::Json::<u8>::from_payload(Payload::json("x")).is_err());
    /// ```
    fn from_payload(payload: Payload) -> Result<Self, ToolError>;
}

impl FromPayload for Payload {
    fn from_payload(payload: Payload) -> Result<Self, ToolError> {
        Ok(payload)
    }
}

/// For those who need none: whatever came is let go.
impl FromPayload for () {
    fn from_payload(_: Payload) -> Result<Self, ToolError> {
        Ok(())
    }
}

impl FromPayload for Bytes {
    fn from_payload(payload: Payload) -> Result<Self, ToolError> {
        Ok(payload.bytes)
    }
}

impl<T: DeserializeOwned> FromPayload for Json<T> {
    fn from_payload(payload: Payload) -> Result<Self, ToolError> {
        payload.parse().map(Json)
    }
}

/// What a service's handler can give, and what can be sent to one: [`Json`] of a type,
/// [`Payload`], [`Bytes`], a text, or `()` for nothing.
///
/// ```
/// use plugmesh_sdk::IntoPayload;
/// assert_eq!("hello".into_payload().unwrap().content_type, "text/plain");
/// ```
pub trait IntoPayload {
    /// Makes the payload.
    ///
    /// # Errors
    /// A [`ToolError`] when the value can't be written.
    ///
    /// ```
    /// use plugmesh_sdk::IntoPayload;
    /// assert!(().into_payload().unwrap().bytes.is_empty());
    /// ```
    fn into_payload(self) -> Result<Payload, ToolError>;
}

impl IntoPayload for Payload {
    fn into_payload(self) -> Result<Payload, ToolError> {
        Ok(self)
    }
}

impl IntoPayload for Bytes {
    fn into_payload(self) -> Result<Payload, ToolError> {
        Ok(Payload::new(self, "application/octet-stream"))
    }
}

impl IntoPayload for String {
    fn into_payload(self) -> Result<Payload, ToolError> {
        Ok(Payload::new(self, "text/plain"))
    }
}

impl IntoPayload for &str {
    fn into_payload(self) -> Result<Payload, ToolError> {
        self.to_owned().into_payload()
    }
}

impl IntoPayload for () {
    fn into_payload(self) -> Result<Payload, ToolError> {
        Ok(Payload::default())
    }
}

impl<T: Serialize> IntoPayload for Json<T> {
    fn into_payload(self) -> Result<Payload, ToolError> {
        Ok(Payload::new(serde_json::to_vec(&self.0)?, JSON))
    }
}
