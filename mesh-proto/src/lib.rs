//! The wire of Plugmesh: generated bindings, checked in, and what turns them into domain types.
//!
//! Wire types stop here: [`convert`] makes types of mesh-core of them, with errors that name the
//! field. It must not know NATS; mesh-bus carries what is encoded here.

pub mod attach;
pub mod convert;
mod generated;
pub mod status;

/// `plugmesh.common.v1`: calls, errors, capabilities and manifests.
pub mod common {
    pub use crate::generated::plugmesh::common::v1::*;
}

/// `plugmesh.plugin.v1`: the protocol between a plugin and its host.
pub mod plugin {
    pub use crate::generated::plugmesh::plugin::v1::*;
}

/// `plugmesh.control.v1`: between agents, gateways and coordinators, and on the bus.
pub mod control {
    pub use crate::generated::plugmesh::control::v1::*;
}

/// `plugmesh.admin.v1`: what operators ask.
pub mod admin {
    pub use crate::generated::plugmesh::admin::v1::*;
}

/// The metadata in which operators say who they are. It is shown and kept as their own word.
pub const OPERATOR_HEADER: &str = "plugmesh-operator";

/// All of `proto/` as a serialized `google.protobuf.FileDescriptorSet`, for gRPC reflection.
pub const DESCRIPTOR: &[u8] = generated::FILE_DESCRIPTOR_SET;
