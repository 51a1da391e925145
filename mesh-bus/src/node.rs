//! A node's side of calls: requests in, replies out.

use mesh_proto::control;

/// Whom a reply goes to. With the call's id it names a call among those of all callers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplyTo(pub(crate) async_nats::Subject);

impl std::hash::Hash for ReplyTo {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.as_str().hash(state);
    }
}

/// What arrives at one generation of a node.
#[derive(Debug)]
pub struct NodeInbox {}

impl NodeInbox {
    /// The next request; `None` when the connection is closed for good. Safe to cancel.
    ///
    /// Frames of one call come in the order in which they were sent. A call is named by the pair of
    /// its [`ReplyTo`] and its id. Rules of the exchange, beside those in the proto:
    /// - every `Chunk` uses one credit of its direction, and 64 are there at the start: for a payload
    ///   the node grants more by `Credit` replies, for an answer the caller does so by requests;
    /// - a `Credit` of 0 asks whether the node still knows the call (callers ask after a lost
    ///   connection): answer it with a `Credit` of 0 when it runs, else with OUTCOME_UNKNOWN.
    pub async fn recv(&mut self) -> Option<(control::NodeRequest, ReplyTo)> {
        unimplemented!()
    }
}
