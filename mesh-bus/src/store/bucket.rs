//! The bucket in JetStream: how it is laid out, and what its messages say.

use std::time::Duration;

use async_nats::header::{HeaderMap, NATS_MARKER_REASON};
use async_nats::jetstream::context::{CreateStreamErrorKind, GetStreamErrorKind};
use async_nats::jetstream::stream::{Config, DiscardPolicy, Info, Republish, StorageType, Stream};
use async_nats::jetstream::{self, ErrorCode};
use async_nats::{Client, datetime::DateTime};
use mesh_core::id::MeshName;
use mesh_core::subject;

/// How long an answer of JetStream may take.
const API_TIMEOUT: Duration = Duration::from_secs(2);

/// The header by which key-value buckets mark deletions, its value for them, and that for writes.
pub(super) const OPERATION: &str = "KV-Operation";
pub(super) const DELETED: &str = "DEL";

/// The bucket within one session.
#[derive(Debug, Clone)]
pub(super) struct Bucket {
    pub client: Client,
    pub jetstream: jetstream::Context,
    pub stream: Stream,
    /// The subject of a key is this and the key.
    pub keys: String,
    /// The subject of a change is this and the key.
    pub changes: String,
}

impl Bucket {
    /// Opens the bucket, and makes it when there is none.
    pub async fn open(client: Client, mesh: &MeshName, replicas: usize) -> Result<Self, String> {
        let jetstream = context(client.clone());
        let name = subject::registry_bucket(mesh);
        let keys = format!("$KV.{name}.");
        let changes = format!("{}.", subject::registry_changes(mesh));
        let wanted = layout(&name, &keys, &changes, replicas);
        let stream = open_stream(&jetstream, &wanted).await?;
        let stream = brought_up_to_date(&jetstream, stream, &wanted).await?;
        Ok(Self {
            client,
            jetstream,
            stream,
            keys,
            changes,
        })
    }

    /// The state of the bucket, by its leader.
    pub async fn info(&self) -> Result<Info, String> {
        self.stream.get_info().await.map_err(text)
    }
}

/// JetStream over a connection.
pub(crate) fn context(client: Client) -> jetstream::Context {
    jetstream::context::ContextBuilder::new()
        .timeout(API_TIMEOUT)
        .backpressure_on_inflight(true)
        .build(client)
}

/// The stream of that name as it is; it is made as wanted when there is none.
pub(crate) async fn open_stream(
    jetstream: &jetstream::Context,
    wanted: &Config,
) -> Result<Stream, String> {
    match jetstream.get_stream(&wanted.name).await {
        Ok(stream) => Ok(stream),
        Err(error) if is_missing(&error) => match jetstream.create_stream(wanted).await {
            Ok(stream) => Ok(stream),
            // Another coordinator was faster.
            Err(error) if is_taken(&error) => {
                jetstream.get_stream(&wanted.name).await.map_err(text)
            }
            Err(error) => Err(text(error)),
        },
        Err(error) => Err(text(error)),
    }
}

/// A key-value bucket as all clients of NATS lay it out, with two things more: each change is
/// repeated on a subject of ours, and messages may expire (deletions do, in the end).
fn layout(name: &str, keys: &str, changes: &str, replicas: usize) -> Config {
    Config {
        name: format!("KV_{name}"),
        description: Some("The registry of a plugmesh".to_owned()),
        subjects: vec![format!("{keys}>")],
        max_messages_per_subject: 1,
        discard: DiscardPolicy::New,
        storage: StorageType::File,
        num_replicas: replicas.clamp(1, 5),
        allow_rollup: true,
        deny_delete: true,
        allow_direct: true,
        allow_message_ttl: true,
        republish: Some(Republish {
            source: format!("{keys}>"),
            destination: format!("{changes}>"),
            headers_only: false,
        }),
        ..Config::default()
    }
}

/// A bucket that was made without what we need gets it; everything else stays as it was made.
async fn brought_up_to_date(
    jetstream: &jetstream::Context,
    stream: Stream,
    wanted: &Config,
) -> Result<Stream, String> {
    let have = &stream.cached_info().config;
    if have.republish == wanted.republish && have.allow_message_ttl {
        return Ok(stream);
    }
    let mut config = have.clone();
    config.republish.clone_from(&wanted.republish);
    config.allow_message_ttl = true;
    jetstream.update_stream(&config).await.map_err(text)?;
    jetstream.get_stream(&config.name).await.map_err(text)
}

fn is_missing(error: &jetstream::context::GetStreamError) -> bool {
    matches!(error.kind(), GetStreamErrorKind::JetStream(error)
        if error.error_code() == ErrorCode::STREAM_NOT_FOUND)
}

fn is_taken(error: &jetstream::context::CreateStreamError) -> bool {
    matches!(error.kind(), CreateStreamErrorKind::JetStream(error)
        if error.error_code() == ErrorCode::STREAM_NAME_EXIST)
}

/// Whether a message of the bucket says that its key is deleted.
pub(super) fn is_deletion(headers: &HeaderMap) -> bool {
    let deleted = headers
        .get(OPERATION)
        .is_some_and(|operation| matches!(operation.as_str(), DELETED | "PURGE"));
    deleted || headers.get(NATS_MARKER_REASON).is_some()
}

/// Milliseconds since 1970.
pub(crate) fn millis(time: DateTime) -> u64 {
    u64::try_from(time.unix_timestamp_nanos() / 1_000_000).unwrap_or(0)
}

/// An error of the library with its cause, which its `Display` leaves out at times.
pub(crate) fn text(error: impl std::error::Error) -> String {
    let own = error.to_string();
    match error.source().map(ToString::to_string) {
        Some(cause) if !own.contains(&cause) => format!("{own}: {cause}"),
        _ => own,
    }
}
