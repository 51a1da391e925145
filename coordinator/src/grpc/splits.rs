//! Operators' traffic splits.

use mesh_core::error::MeshError;
use mesh_core::split::Split;
use mesh_engine::engine::{Change, Engine, Outcome};
use mesh_proto::admin::{
    ClearSplitRequest, ListSplitsRequest, ListSplitsResponse, SetSplitRequest,
};
use mesh_proto::convert::WireError;

use super::admin::{plugin_name, unknown};
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

    pub(super) async fn splits(
        &self,
        request: ListSplitsRequest,
    ) -> Result<ListSplitsResponse, MeshError> {
        let plugin = match request.plugin.as_str() {
            "" => None,
            text => Some(plugin_name("plugin", text)?),
        };
        let look = move |engine: &Engine| {
            if let Some(plugin) = plugin.as_ref().filter(|plugin| !engine.knows(plugin)) {
                return Err(unknown(plugin));
            }
            Ok((engine.splits(plugin.as_ref()), engine.revision()))
        };
        let (splits, revision) = self.handle.look(look).await??;
        Ok(ListSplitsResponse {
            splits: splits.into_iter().map(view::split).collect(),
            revision: Some(revision.into()),
        })
    }
}
