//! Turns the typed handlers of plugin authors into one type that the session can run.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::LocalBoxFuture;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::arguments;
use crate::chunks::ChunkSender;
use crate::code::ErrorCode;
use crate::context::Context;
use crate::error::{CallError, ToolError};
use crate::output::{IntoPrompt, IntoResource, IntoToolOutput, encode_failure};
use crate::payload::{FromPayload, IntoPayload, Payload};
use crate::requests::RequestStream;
use crate::uri_template;
use crate::wire::JSON;

pub(crate) type Outcome = Result<Payload, CallError>;

/// Runs one call. The future needs not be `Send`: it is polled where the session is.
pub(crate) type Handler =
    Box<dyn Fn(Payload, Context) -> LocalBoxFuture<'static, Outcome> + Send + Sync>;

fn json(bytes: Vec<u8>) -> Payload {
    Payload::new(bytes, JSON)
}

/// Makes a handler of a function that gets what it needs by `f`, which outlives every call.
fn handler<F, R>(f: F, run: R) -> Handler
where
    F: Send + Sync + 'static,
    R: AsyncFn(&F, Payload, Context) -> Outcome + Copy + Send + Sync + 'static,
{
    let f = Arc::new(f);
    Box::new(move |payload, context| {
        let f = f.clone();
        Box::pin(async move { run(&f, payload, context).await })
    })
}

pub(crate) fn tool<A, T, F>(schema: Value, f: F) -> Handler
where
    A: DeserializeOwned,
    T: IntoToolOutput,
    F: AsyncFn(A, Context) -> Result<T, ToolError> + Send + Sync + 'static,
{
    handler((schema, f), async |(schema, f), payload, context| {
        let arguments = arguments::parse("arguments", &payload.bytes, Some(schema))
            .map_err(ToolError::into_call_error)?;
        let output = f(arguments, context).await;
        let failed = output.as_ref().map_or(true, T::says_failed);
        let said = |bytes| Payload {
            failed,
            ..json(bytes)
        };
        match output.and_then(T::encode) {
            Ok(bytes) => Ok(said(bytes)),
            Err(error) => encode_failure(error).map(said),
        }
    })
}

/// What the payload of a read says.
#[derive(serde::Deserialize)]
struct Read {
    uri: String,
}

pub(crate) fn resource<T, F>(uri: String, media: Option<String>, f: F) -> Handler
where
    T: IntoResource,
    F: AsyncFn(Context) -> Result<T, ToolError> + Send + Sync + 'static,
{
    handler((uri, media, f), async |(uri, media, f), _, context| {
        let output = f(context).await.and_then(T::into_resource);
        let bytes = output.and_then(|output| output.encode(uri, media.as_deref()));
        bytes.map(json).map_err(ToolError::into_call_error)
    })
}

pub(crate) fn resource_template<P, T, F>(
    template: String,
    media: Option<String>,
    schema: Value,
    f: F,
) -> Handler
where
    P: DeserializeOwned,
    T: IntoResource,
    F: AsyncFn(P, Context) -> Result<T, ToolError> + Send + Sync + 'static,
{
    let kept = (template, media, schema, f);
    handler(
        kept,
        async |(template, media, schema, f), payload, context| {
            let read = async {
                let Read { uri } = arguments::parse("payload", &payload.bytes, None)?;
                let values = uri_template::matches(template, &uri).ok_or_else(|| {
                    let text = format!("{uri:?} is no resource of the template {template}");
                    ToolError::with_code(ErrorCode::NotFound, text)
                })?;
                let values = values.into_iter().map(|(name, value)| (name, value.into()));
                let values = arguments::from_texts(values.collect(), schema);
                let values = values.to_string();
                let values = arguments::parse("uri", values.as_bytes(), Some(schema))?;
                let output = f(values, context).await?.into_resource()?;
                output.encode(&uri, media.as_deref())
            };
            read.await.map(json).map_err(ToolError::into_call_error)
        },
    )
}

pub(crate) fn prompt<A, T, F>(schema: Value, f: F) -> Handler
where
    A: DeserializeOwned,
    T: IntoPrompt,
    F: AsyncFn(A, Context) -> Result<T, ToolError> + Send + Sync + 'static,
{
    handler((schema, f), async |(schema, f), payload, context| {
        let get = async {
            let texts: Map<String, Value> = arguments::parse("arguments", &payload.bytes, None)?;
            let values = arguments::from_texts(texts, schema).to_string();
            let arguments = arguments::parse("arguments", values.as_bytes(), Some(schema))?;
            f(arguments, context).await?.into_prompt().encode()
        };
        get.await.map(json).map_err(ToolError::into_call_error)
    })
}

pub(crate) fn service<A, T, F>(f: F) -> Handler
where
    A: FromPayload,
    T: IntoPayload,
    F: AsyncFn(A, Context) -> Result<T, ToolError> + Send + Sync + 'static,
{
    handler(f, async |f, payload, context| {
        let serve = async { f(A::from_payload(payload)?, context).await?.into_payload() };
        serve.await.map_err(ToolError::into_call_error)
    })
}

pub(crate) fn streaming<A, T, F>(f: F) -> Handler
where
    A: FromPayload,
    T: IntoPayload,
    F: AsyncFn(A, ChunkSender, Context) -> Result<T, ToolError> + Send + Sync + 'static,
{
    service(async move |arguments: A, context: Context| {
        let chunks = ChunkSender::new(context.clone());
        f(arguments, chunks, context).await
    })
}

pub(crate) fn client_streaming<A, T, F>(f: F) -> Handler
where
    A: FromPayload,
    T: IntoPayload,
    F: AsyncFn(A, RequestStream, Context) -> Result<T, ToolError> + Send + Sync + 'static,
{
    service(async move |arguments: A, context: Context| {
        let requests = RequestStream::new(context.clone());
        f(arguments, requests, context).await
    })
}

pub(crate) fn duplex<A, T, F>(f: F) -> Handler
where
    A: FromPayload,
    T: IntoPayload,
    F: AsyncFn(A, RequestStream, ChunkSender, Context) -> Result<T, ToolError>
        + Send
        + Sync
        + 'static,
{
    service(async move |arguments: A, context: Context| {
        let requests = RequestStream::new(context.clone());
        let chunks = ChunkSender::new(context.clone());
        f(arguments, requests, chunks, context).await
    })
}

/// Reads a configuration into the type that the plugin declared.
pub(crate) struct ConfigType {
    pub schema: Value,
    pub parse: fn(&Bytes) -> Result<crate::attachment::AnyConfig, CallError>,
}

pub(crate) fn config<C>() -> ConfigType
where
    C: DeserializeOwned + JsonSchema + Send + Sync + 'static,
{
    ConfigType {
        schema: crate::schema::of::<C>(),
        parse: |bytes| {
            let schema = crate::schema::of::<C>();
            let config: Result<C, ToolError> = arguments::parse("config", bytes, Some(&schema));
            match config {
                Ok(config) => Ok(Arc::new(config)),
                Err(error) => Err(CallError::new(ErrorCode::InvalidConfig, error.message())),
            }
        },
    }
}
