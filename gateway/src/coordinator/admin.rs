//! Changes of the mesh, by whichever coordinator answers.

use std::time::Duration;

use mesh_core::error::{ErrorCode, MeshError};
use mesh_proto::admin::mesh_admin_client::MeshAdminClient;
use mesh_proto::admin::{DisablePluginRequest, EnablePluginRequest, PluginChangeResponse};
use mesh_proto::status::from_status;
use mesh_runtime::coordinators::candidates;

use super::Coordinators;

/// Time that a coordinator may take for a change.
const CHANGE: Duration = Duration::from_secs(10);

/// A change of a plugin.
#[derive(Debug, Clone)]
pub struct Change {
    /// The plugin.
    pub name: String,
    /// Why, for a person.
    pub reason: String,
    /// Lets it take calls again, or takes it out of routing.
    pub enable: bool,
}

impl Coordinators {
    /// Makes a change.
    ///
    /// # Errors
    /// NO_COORDINATOR when none answers, else what the coordinator says.
    pub async fn change(&self, change: &Change) -> Result<PluginChangeResponse, MeshError> {
        let mut why = String::new();
        for coordinator in candidates(&self.addresses).await {
            let channel = match coordinator.connect().await {
                Ok(channel) => channel,
                Err(error) => {
                    why = error;
                    continue;
                }
            };
            let mut client = MeshAdminClient::new(channel);
            let Change {
                name,
                reason,
                enable,
            } = change.clone();
            let asked = async {
                if enable {
                    client
                        .enable_plugin(EnablePluginRequest { name, reason })
                        .await
                } else {
                    client
                        .disable_plugin(DisablePluginRequest { name, reason })
                        .await
                }
            };
            return match tokio::time::timeout(CHANGE, asked).await {
                Ok(Ok(response)) => Ok(response.into_inner()),
                Ok(Err(status)) => Err(from_status(&status)),
                Err(_) => Err(MeshError::new(
                    ErrorCode::DeadlineExceeded,
                    format!(
                        "the coordinator at {coordinator} did not answer within {CHANGE:?}: whether the \
                         change was made is unknown, list_plugins shows it"
                    ),
                )),
            };
        }
        Err(self.unreachable(&why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_core::id::{MeshName, NodeId};

    #[tokio::test]
    async fn without_a_coordinator_a_change_is_refused_with_the_address_and_the_setting() {
        let Ok(name) = NodeId::new("gateway") else {
            panic!("a name")
        };
        // Nothing listens on the discard port of loopback.
        let addresses = vec!["http://127.0.0.1:9".to_owned()];
        let nobody = Coordinators::new(addresses, MeshName::default(), name);
        let change = Change {
            name: "time".to_owned(),
            reason: String::new(),
            enable: true,
        };
        let error = nobody.change(&change).await.expect_err("nobody listens");
        assert_eq!(error.code, ErrorCode::NoCoordinator);
        assert!(error.message.contains("http://127.0.0.1:9"), "{error}");
        assert!(error.message.contains("gateway.coordinators"), "{error}");
    }
}
