//! How many chunks of each answer were sent, so that the result can say so.
//!
//! NATS delivers at most once. A lost chunk shows by the number of the next one; a lost last chunk
//! would not, and its result would pass for the whole.

use std::collections::HashMap;

use mesh_proto::control::NodeReply;
use mesh_proto::control::node_reply::Body;

use crate::node::ReplyTo;

/// Answers that are counted at once; more can't be in flight, so beyond that they are left-overs of
/// calls that ended without a reply.
const MOST: usize = 65_536;

/// How many chunks of each answer were sent. Most answers have none, and cost nothing here.
#[derive(Debug, Default)]
pub(crate) struct Answers(HashMap<(ReplyTo, u64), u64>);

impl Answers {
    /// Counts a chunk, or puts the count into a result.
    pub fn count(&mut self, to: &ReplyTo, reply: &mut NodeReply) {
        let chunk = match &reply.body {
            Some(Body::Chunk(chunk)) => chunk,
            Some(Body::Result(_) | Body::Error(_)) => {
                if !self.0.is_empty()
                    && let Some(sent) = self.0.remove(&(to.clone(), reply.call_id))
                {
                    reply.chunks_before = sent;
                }
                return;
            }
            _ => return,
        };
        if self.0.len() >= MOST {
            self.0.clear();
        }
        self.0
            .insert((to.clone(), reply.call_id), chunk.sequence + 1);
    }

    /// The call was cancelled.
    pub fn forget(&mut self, to: &ReplyTo, call_id: u64) {
        if !self.0.is_empty() {
            self.0.remove(&(to.clone(), call_id));
        }
    }
}
