//! The handshake: Hello, Welcome, Ready; and what a host says when it does not want the plugin.

use std::time::Duration;

use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codec::Streaming;

use super::Ended;
use crate::attachment::{Attachment, Welcome};
use crate::code::ErrorCode;
use crate::error::CallError;
use crate::generated::plugmesh::plugin::v1::plugin_host_client::PluginHostClient;
use crate::run::Runner;
use crate::wire::{HostBody, HostFrame, PROTOCOL, PluginBody, PluginFrame, common, frame, plugin};

/// Time for the host to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// No frame of a host is larger, whatever it says.
const MAX_FRAME_BYTES: usize = 16 << 20;

/// Connects and says hello. On success the plugin takes calls.
pub(super) async fn begin(
    runner: &Runner,
    previous: &str,
    sender: mpsc::Sender<PluginFrame>,
    receiver: mpsc::Receiver<PluginFrame>,
) -> Result<(Attachment, Streaming<HostFrame>), Ended> {
    let channel = runner
        .connector
        .connect()
        .await
        .map_err(Ended::Unreachable)?;
    // Hello goes first, as the host may answer nothing before it.
    send(&sender, PluginBody::Hello(hello(runner, previous).into())).await?;
    let mut client = PluginHostClient::new(channel)
        .max_decoding_message_size(MAX_FRAME_BYTES)
        .max_encoding_message_size(MAX_FRAME_BYTES);
    let answered = tokio::time::timeout(PATIENCE, client.attach(ReceiverStream::new(receiver)));
    let mut inbound = match answered.await {
        Err(_) => return Err(silent()),
        Ok(Err(status)) => return Err(refusal(&status)),
        Ok(Ok(response)) => response.into_inner(),
    };
    let welcome = welcome(&mut inbound).await?;
    let config = match &runner.definition.config {
        None => None,
        Some(config) => match (config.parse)(&welcome.config) {
            Ok(config) => Some(config),
            Err(error) => return Err(cannot_start(&sender, inbound, error).await),
        },
    };
    send(&sender, PluginBody::Ready(plugin::Ready {})).await?;
    let welcome = Welcome::from(welcome);
    let manifest = &runner.definition.manifest;
    let who = format!("{} {}", manifest.name, manifest.version);
    let (node, mesh, host) = (&welcome.node, &welcome.mesh, &runner.host);
    runner.tell(&format!(
        "{who} is attached to node {node} of mesh {mesh} at {host}"
    ));
    let attachment = Attachment::new(
        runner.definition.clone(),
        welcome,
        runner.telemetry,
        sender,
        config,
    );
    Ok((attachment, inbound))
}

fn hello(runner: &Runner, previous: &str) -> plugin::Hello {
    plugin::Hello {
        min_protocol: PROTOCOL,
        max_protocol: PROTOCOL,
        manifest: Some(runner.definition.manifest.clone()),
        features: vec!["credits".to_owned()],
        sdk: concat!("rust/", env!("CARGO_PKG_VERSION")).to_owned(),
        launch_token: runner.launch_token.clone(),
        previous_instance: previous.to_owned(),
    }
}

async fn welcome(inbound: &mut Streaming<HostFrame>) -> Result<plugin::Welcome, Ended> {
    let first = tokio::time::timeout(PATIENCE, inbound.message()).await;
    let frame = match first {
        Err(_) => return Err(silent()),
        Ok(Err(status)) => return Err(refusal(&status)),
        Ok(Ok(None)) => {
            let why = "it ended the session before it answered".to_owned();
            return Err(Ended::Unreachable(why));
        }
        Ok(Ok(Some(frame))) => frame,
    };
    match frame.body {
        Some(HostBody::Welcome(welcome)) if welcome.protocol == PROTOCOL => Ok(*welcome),
        Some(HostBody::Welcome(welcome)) => {
            let theirs = welcome.protocol;
            Err(refused(CallError::new(
                ErrorCode::Unsupported,
                format!(
                    "the agent speaks version {theirs} of the plugin protocol, this SDK version \
                     {PROTOCOL}: update the older one"
                ),
            )))
        }
        Some(HostBody::Error(error)) => Err(refused(error.into())),
        _ => {
            let why = "its first frame is no Welcome; is it an agent of Plugmesh?".to_owned();
            Err(Ended::Unreachable(why))
        }
    }
}

/// Tells the host why the plugin can't use what it was given, and leaves.
async fn cannot_start(
    sender: &mpsc::Sender<PluginFrame>,
    mut inbound: Streaming<HostFrame>,
    error: CallError,
) -> Ended {
    let told = send(sender, PluginBody::Error(error.clone().into())).await;
    if told.is_ok() {
        // The host ends the session once it has read this.
        let end = async { while let Ok(Some(_)) = inbound.message().await {} };
        let _ = tokio::time::timeout(Duration::from_secs(1), end).await;
    }
    Ended::Refused {
        error,
        for_good: false,
    }
}

async fn send(sender: &mpsc::Sender<PluginFrame>, body: PluginBody) -> Result<(), Ended> {
    let sent = sender.send(frame(0, body)).await;
    sent.map_err(|_| Ended::Unreachable("it closed the stream".to_owned()))
}

fn silent() -> Ended {
    let seconds = PATIENCE.as_secs();
    Ended::Unreachable(format!("it did not answer within {seconds} seconds"))
}

/// The mesh does not want the plugin.
pub(super) fn refused(error: CallError) -> Ended {
    let for_good = matches!(
        error.code,
        ErrorCode::InvalidManifest
            | ErrorCode::DependencyCycle
            | ErrorCode::Unsupported
            | ErrorCode::TooLarge
    );
    Ended::Refused { error, for_good }
}

/// A status that ended the stream before the session began.
fn refusal(status: &tonic::Status) -> Ended {
    match carried(status) {
        Some(error) => refused(error),
        None => match status.code() {
            tonic::Code::Unimplemented => Ended::Unreachable(
                "it does not know plugins; is it an agent of Plugmesh?".to_owned(),
            ),
            _ => Ended::Unreachable(describe(status)),
        },
    }
}

/// A status that ended a session: the plugin is refused, or the host is gone.
pub(super) fn refusal_or_loss(status: &tonic::Status) -> Ended {
    let refusal = carried(status).filter(|error| {
        matches!(
            error.code,
            ErrorCode::InvalidManifest
                | ErrorCode::DependencyCycle
                | ErrorCode::InvalidConfig
                | ErrorCode::PermissionDenied
                | ErrorCode::Unsupported
        )
    });
    match refusal {
        Some(error) => refused(error),
        None => Ended::Lost(describe(status)),
    }
}

/// The mesh's own error, which a status carries in its details.
fn carried(status: &tonic::Status) -> Option<CallError> {
    if status.details().is_empty() {
        return None;
    }
    let error = common::Error::decode(status.details()).ok()?;
    (error.code != 0).then(|| error.into())
}

fn describe(status: &tonic::Status) -> String {
    if status.message().is_empty() {
        return status.code().description().to_owned();
    }
    status.message().to_owned()
}
