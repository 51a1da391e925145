//! The audit, read back and followed by operators.

use std::time::Duration;

use mesh_bus::{AuditError, AuditStored};
use mesh_core::error::{ErrorCode, MeshError};
use mesh_core::id::{InstanceId, NodeId, PluginName};
use mesh_core::subject::AuditOf;
use mesh_proto::admin::{
    HistoryEntry, ListHistoryRequest, ListHistoryResponse, WatchHistoryRequest,
    WatchHistoryResponse,
};
use mesh_proto::convert::WireError;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::{OUTGOING, Services, finish};
use crate::audit::{Actor, AuditEntry};
use crate::handle::stopped;

/// Entries that are given where no number is asked for, and the most.
const USUAL: u32 = 100;
const MOST: u32 = 10_000;

/// How often a watch asks for what is new. It asks the stream's leader and keeps no consumer, which
/// could go deaf.
const LOOK: Duration = Duration::from_millis(100);

/// How long a watch goes on without an answer: electing a leader takes seconds.
const PATIENCE: Duration = Duration::from_secs(30);

impl Services {
    /// The last entries about somebody.
    pub(super) async fn history(
        &self,
        request: ListHistoryRequest,
    ) -> Result<ListHistoryResponse, MeshError> {
        let of = about(&request.name)?;
        let limit = match request.limit {
            0 => USUAL,
            limit if limit <= MOST => limit,
            limit => {
                let problem = format!("is {limit}, {MOST} is the most");
                return Err(WireError::new("limit", problem).into());
            }
        };
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let read = self.audit.read_back(&of, request.since_ms, limit).await;
        let read = read.map_err(unreadable)?;
        Ok(ListHistoryResponse {
            entries: read.iter().filter_map(entry).collect(),
        })
    }

    /// Everything about somebody that is stored from now on.
    pub(super) async fn watch_history(
        &self,
        request: WatchHistoryRequest,
    ) -> Result<ReceiverStream<Result<WatchHistoryResponse, Status>>, MeshError> {
        let of = about(&request.name)?;
        let watch = self.watches.clone().try_acquire_owned().map_err(|_| {
            let text =
                "this coordinator serves as many watches of the audit as it may: ask another";
            MeshError::new(ErrorCode::Overloaded, text)
        })?;
        let place = self.audit.newest().await.map_err(unreadable)?;
        let (out, stream) = mpsc::channel(OUTGOING);
        let (services, stop) = (self.clone(), self.tasks.token());
        self.tasks
            .spawn("operator's watch of the audit", async move {
                let _watch = watch;
                let error = tokio::select! {
                    () = stop.cancelled() => Some(stopped()),
                    () = out.closed() => None,
                    error = services.send_history(&of, place, &out) => error,
                };
                finish(&out, error).await;
            });
        Ok(ReceiverStream::new(stream))
    }

    /// `None`: who watches has gone.
    async fn send_history(
        &self,
        of: &[AuditOf],
        mut place: u64,
        out: &mpsc::Sender<Result<WatchHistoryResponse, Status>>,
    ) -> Option<MeshError> {
        out.send(Ok(WatchHistoryResponse::default())).await.ok()?;
        let mut answered = tokio::time::Instant::now();
        loop {
            match self.audit.next(of, place).await {
                Ok(next) => {
                    answered = tokio::time::Instant::now();
                    let Some(stored) = next else {
                        tokio::time::sleep(LOOK).await;
                        continue;
                    };
                    place = stored.sequence;
                    if let Some(entry) = entry(&stored) {
                        let entry = Some(entry);
                        out.send(Ok(WatchHistoryResponse { entry })).await.ok()?;
                    }
                }
                Err(error) if answered.elapsed() > PATIENCE => return Some(unreadable(error)),
                Err(_) => tokio::time::sleep(LOOK).await,
            }
        }
    }
}

/// Whom a name may mean: an instance, or a plugin and a node.
fn about(name: &str) -> Result<Vec<AuditOf>, MeshError> {
    if name.is_empty() {
        return Ok(vec![AuditOf::default()]);
    }
    if let Ok(instance) = name.parse::<InstanceId>() {
        return Ok(vec![AuditOf {
            instance: Some(instance),
            ..AuditOf::default()
        }]);
    }
    let (plugin, node) = (name.parse::<PluginName>(), name.parse::<NodeId>());
    let (Ok(plugin), Ok(node)) = (plugin, node) else {
        let given: String = name.chars().take(80).collect();
        let problem = format!("{given:?} is the name of no plugin or node and no instance's id");
        return Err(WireError::new("name", problem).into());
    };
    Ok(vec![
        AuditOf {
            plugin: Some(plugin),
            ..AuditOf::default()
        },
        AuditOf {
            node: Some(node),
            ..AuditOf::default()
        },
    ])
}

fn unreadable(error: AuditError) -> MeshError {
    MeshError::new(ErrorCode::Disconnected, error.to_string())
}

/// An entry on the wire; `None`: it can't be read, as somebody else wrote to the stream.
fn entry(stored: &AuditStored) -> Option<HistoryEntry> {
    let entry = AuditEntry::decode(&stored.payload);
    let entry = entry.inspect_err(|error| {
        tracing::warn!(%error, sequence = stored.sequence, "an entry of the audit can't be read");
    });
    let entry = entry.ok()?;
    fn text(name: Option<impl ToString>) -> String {
        name.map(|name| name.to_string()).unwrap_or_default()
    }
    let (by_kind, by) = match entry.by {
        Actor::Operator(by) => ("operator", by),
        Actor::Agent(node) => ("agent", node.to_string()),
        Actor::Coordinator(name) => ("coordinator", name.to_string()),
        Actor::Graph => ("graph", String::new()),
    };
    Some(HistoryEntry {
        sequence: stored.sequence,
        revision: Some(entry.revision.into()),
        at_ms: entry.at.0,
        kind: entry.kind.as_str().to_owned(),
        plugin: text(entry.plugin),
        version: entry.version,
        node: text(entry.node),
        instance: text(entry.instance),
        from: entry.from,
        to: entry.to,
        by_kind: by_kind.to_owned(),
        by,
        reason: entry.reason,
        cause: entry.cause,
        found: entry.found,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    use super::*;

    #[test]
    fn a_name_is_an_instances_id_or_that_of_a_plugin_or_a_node() {
        assert_eq!(about("").unwrap(), [AuditOf::default()]);
        let of = about("01890a5d-ac96-774b-bcce-b302099a8057").unwrap();
        assert!(of.len() == 1 && of.iter().all(|of| of.instance.is_some()));
        assert_eq!(about("time").unwrap().len(), 2);
        let error = about("No such").unwrap_err().to_string();
        assert!(error.starts_with("invalid_argument: name: "), "{error}");
    }
}
