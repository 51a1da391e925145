//! The gRPC services: sessions of agents, the table for gateways, questions of operators.
//!
//! Wire types stop here. A stream is served by tasks of its own; one that is not read costs nobody
//! else anything.

mod admin;
mod agents;
mod follow;
mod history;
mod report;
mod rollouts;
mod splits;
mod view;

use std::sync::Arc;
use std::time::Duration;

use mesh_bus::AuditLog;
use mesh_core::error::{ErrorCode, MeshError};
use mesh_core::id::{MeshName, NodeId};
use mesh_proto::admin::mesh_admin_server::{self, MeshAdminServer};
use mesh_proto::control::agent_sessions_server::{self, AgentSessionsServer};
use mesh_proto::control::table_feed_server::{self, TableFeedServer};
use mesh_proto::status::{from_status, to_status};
use mesh_runtime::Tasks;
use mesh_runtime::grpc::{DescriptorError, HealthReporter, health_and_reflection};
use tokio::sync::{Semaphore, mpsc};
use tonic::service::Routes;
use tonic::{Status, Streaming};

use crate::feed::Feed;
use crate::handle::Handle;
use crate::joining::Joining;
use crate::metrics::CoordinatorMetrics;

/// Time until a stream's first message.
const HELLO: Duration = Duration::from_secs(10);

/// Time that a peer gets to take the error that ends its stream.
const GOODBYE: Duration = Duration::from_secs(1);

/// Largest message that is read: an announcement of many instances with their manifests.
const MAX_MESSAGE: usize = 64 * 1024 * 1024;

/// Messages that wait for one peer to read them; then its table updates are taken more slowly.
const OUTGOING: usize = 16;

/// Watches of the audit that one coordinator serves at once.
pub(crate) const WATCHES: usize = 64;

/// What the services are made of. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Services {
    pub(crate) mesh: MeshName,
    /// The coordinator's name; for people.
    pub(crate) name: NodeId,
    pub(crate) heartbeat: Duration,
    pub(crate) lease: Duration,
    pub(crate) handle: Handle,
    pub(crate) feed: Feed,
    pub(crate) joining: Joining,
    pub(crate) metrics: CoordinatorMetrics,
    pub(crate) audit: AuditLog,
    /// Watches of the audit that may still begin.
    pub(crate) watches: Arc<Semaphore>,
    /// Owner of the streams' tasks; its token ends them.
    pub(crate) tasks: Tasks,
}

/// All services of the port.
pub(crate) async fn routes(
    services: Services,
) -> Result<(HealthReporter, Routes), DescriptorError> {
    let names = [
        agent_sessions_server::SERVICE_NAME,
        table_feed_server::SERVICE_NAME,
        mesh_admin_server::SERVICE_NAME,
    ];
    let (health, routes) = health_and_reflection(mesh_proto::DESCRIPTOR, &names).await?;
    let agents = AgentSessionsServer::new(services.clone());
    let table = TableFeedServer::new(services.clone());
    let admin = MeshAdminServer::new(services);
    let routes = routes
        .add_service(agents.max_decoding_message_size(MAX_MESSAGE))
        .add_service(table)
        .add_service(admin);
    Ok((health, routes))
}

/// Says that the services take nobody new.
pub(crate) async fn stop_serving(health: &HealthReporter) {
    health
        .set_not_serving::<AgentSessionsServer<Services>>()
        .await;
    health.set_not_serving::<TableFeedServer<Services>>().await;
    health.set_not_serving::<MeshAdminServer<Services>>().await;
}

impl Services {
    /// Whether a peer belongs to this mesh.
    fn check_mesh(&self, mesh: &str) -> Result<(), MeshError> {
        if mesh == self.mesh.as_str() {
            return Ok(());
        }
        let given: String = mesh.chars().take(80).collect();
        let text = format!(
            "mesh: this coordinator serves mesh {:?}, not {given:?}; correct mesh.name or the list of \
             coordinators",
            self.mesh.as_str()
        );
        Err(MeshError::new(ErrorCode::InvalidArgument, text))
    }
}

/// The first message of a stream.
async fn first<T>(stream: &mut Streaming<T>, what: &str) -> Result<T, MeshError> {
    let violation = |text: String| MeshError::new(ErrorCode::ProtocolViolation, text);
    match tokio::time::timeout(HELLO, stream.message()).await {
        Ok(Ok(Some(message))) => Ok(message),
        Ok(Ok(None)) => Err(violation(format!("the stream ended before its {what}"))),
        Ok(Err(status)) => Err(broken(&status)),
        Err(_) => Err(violation(format!(
            "no {what} came within {} s",
            HELLO.as_secs()
        ))),
    }
}

/// Why a stream of a peer broke, as an error for the peer.
fn broken(status: &Status) -> MeshError {
    let code = match status.code() {
        tonic::Code::OutOfRange | tonic::Code::ResourceExhausted => ErrorCode::TooLarge,
        tonic::Code::Internal | tonic::Code::InvalidArgument => ErrorCode::MalformedFrame,
        _ => return from_status(status),
    };
    let text = format!("a message could not be read: {}", status.message());
    MeshError::new(code, text)
}

/// Ends a stream, with an error if there is one. A peer that takes nothing is not waited for long.
async fn finish<T>(out: &mpsc::Sender<Result<T, Status>>, error: Option<MeshError>) {
    if let Some(error) = error {
        // It may be the peer that is gone.
        let _ = tokio::time::timeout(GOODBYE, out.send(Err(refuse(error)))).await;
    }
}

fn refuse(error: MeshError) -> Status {
    to_status(&error)
}
