//! Operators' traffic splits, and their wishes as they are imported.

use mesh_core::error::MeshError;
use mesh_core::id::PluginName;
use mesh_core::split::Split;
use mesh_engine::engine::{Change, Engine, Outcome};
use mesh_proto::admin::{
    ClearSplitRequest, ListSplitsRequest, ListSplitsResponse, SetSplitRequest, SetWishRequest,
};
use mesh_proto::control::TrafficSplit;
use mesh_proto::convert::WireError;

use super::{Services, view};

impl Services {
    pub(super) async fn split(
        &self,
        request: SetSplitRequest,
        by: String,
    ) -> Result<Outcome, MeshError> {
        let wire = request.split;
        let wire = wire.ok_or_else(|| WireError::new("split", "is missing"))?;
        let name = wire.plugin.clone();
        let split = Split::try_from(wire).map_err(|error| error.within("split"))?;
        let (shares, groups) = (split.shares, split.groups);
        let change = Change::Split { shares, groups };
        self.carry_out("split.plugin", &name, change, request.reason, by)
            .await
    }

    pub(super) async fn clear(
        &self,
        request: ClearSplitRequest,
        by: String,
    ) -> Result<Outcome, MeshError> {
        let ClearSplitRequest { name, reason } = request;
        self.carry_out("name", &name, Change::ClearSplit, reason, by)
            .await
    }

    /// Changes a wish if it is of the revision still that the operator has seen.
    pub(super) async fn set_wish(
        &self,
        request: SetWishRequest,
        by: String,
    ) -> Result<Outcome, MeshError> {
        let expected = request.expected.ok_or_else(|| {
            WireError::new(
                "expected",
                "is missing: list the wishes, and name the revision",
            )
        })?;
        let split = request.split.filter(|split| !split.shares.is_empty());
        let change = match (request.state.as_str(), split) {
            ("", None) => Change::ClearSplit,
            ("", Some(wire)) => {
                let plugin = request.plugin.clone();
                let split = Split::try_from(TrafficSplit { plugin, ..wire });
                let split = split.map_err(|error| error.within("split"))?;
                Change::Split {
                    shares: split.shares,
                    groups: split.groups,
                }
            }
            ("enabled", None) => Change::Enable,
            ("disabled", None) => Change::Disable,
            ("unloaded", None) => Change::Unload { cascade: false },
            (_, Some(_)) => {
                return Err(WireError::new("split", "is given beside a state: give one").into());
            }
            (other, None) => {
                let other: String = other.chars().take(80).collect();
                let problem = format!("{other:?} is none: use enabled, disabled or unloaded");
                return Err(WireError::new("state", problem).into());
            }
        };
        let (name, reason) = (request.plugin, request.reason);
        let expected = Some(expected.into());
        self.carry_out_if("plugin", &name, change, reason, by, expected)
            .await
    }

    pub(super) async fn splits(
        &self,
        request: ListSplitsRequest,
    ) -> Result<ListSplitsResponse, MeshError> {
        let look = |engine: &Engine, plugin: Option<&PluginName>| engine.splits(plugin);
        let (splits, revision) = self.look_at(&request.plugin, look).await?;
        Ok(ListSplitsResponse {
            splits: splits.into_iter().map(view::split).collect(),
            revision: Some(revision.into()),
        })
    }
}
