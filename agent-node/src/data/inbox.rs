//! The one task that takes requests from the bus. It never waits for anything but the next request.

use std::time::Duration;

use mesh_bus::NodeInbox;
use mesh_core::error::{ErrorCode, MeshError};
use mesh_core::id::InstanceId;
use mesh_proto::control::{NodeCall, node_request};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::call::{CallerKey, ReplyPath, Taken};
use super::plane::Plane;

/// The longest deadline that is kept, so that adding it to a time can't overflow.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);

/// Takes requests until the bus is closed, the plane leaves and all that came before is answered, or
/// `stop` is cancelled.
pub(crate) async fn serve_inbox(plane: Plane, mut inbox: NodeInbox, stop: CancellationToken) {
    let stopped = stop.cancelled();
    let mut stopped = std::pin::pin!(stopped);
    let leaving = plane.shared.leaving.clone();
    let mut left = false;
    loop {
        let received = tokio::select! {
            biased;
            received = inbox.recv() => received,
            () = leaving.cancelled(), if !left => {
                inbox.leave().await;
                left = true;
                continue;
            }
            () = &mut stopped => return,
        };
        let Some((request, to)) = received else {
            return;
        };
        let caller = CallerKey {
            to,
            call_id: request.call_id,
        };
        match request.body {
            Some(node_request::Body::Call(call)) => plane.take_call(caller, call, inbox.came_at()),
            Some(node_request::Body::Chunk(chunk)) => plane.upload(&caller, chunk),
            Some(node_request::Body::Cancel(cancel)) => {
                let reason = match cancel.reason.as_str() {
                    "" => "the caller cancelled the call",
                    reason => reason,
                };
                plane.cancel_caller(&caller, reason);
            }
            Some(node_request::Body::Credit(credit)) => plane.credit(&caller, &credit),
            // The bus refuses what it does not know.
            None => {}
        }
    }
}

impl Plane {
    fn take_call(&self, caller: CallerKey, node_call: NodeCall, now: Instant) {
        match checked(node_call) {
            Ok((instance, call, time_left)) => {
                let reply = ReplyPath::Bus(caller);
                if let Err(refused) = self.begin_call(instance, call, reply, (now, now + time_left))
                    && let ReplyPath::Bus(caller) = &refused.reply
                {
                    self.refuse(caller, refused.error);
                }
            }
            Err(mut error) => {
                error.place.node = self.node().to_string();
                self.refuse(&caller, error);
            }
        }
    }
}

/// What a call must have to be looked at.
fn checked(call: NodeCall) -> Result<(InstanceId, Taken, Duration), MeshError> {
    let invalid = |text: String| MeshError::new(ErrorCode::InvalidArgument, text);
    let instance = InstanceId::from_bytes(&call.instance)
        .map_err(|error| invalid(format!("instance: {error}")))?;
    let head = call.head();
    let head = head.map_err(|error| invalid(format!("call: {error}")))?;
    if call.time_left_us == 0 {
        let text = "the call's time was over before it reached the plugin";
        return Err(MeshError::new(ErrorCode::Expired, text));
    }
    let time_left = Duration::from_micros(call.time_left_us).min(LONGEST);
    Ok((instance, Taken::Passed { call, head }, time_left))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed test may panic")]
mod tests {
    use super::*;

    fn call(time_left_us: u64) -> NodeCall {
        let instance = crate::roster::new_instance();
        NodeCall {
            instance: instance.as_bytes().to_vec().into(),
            time_left_us,
            ..NodeCall::default()
        }
    }

    #[test]
    fn a_call_without_time_left_is_expired_and_not_processed() {
        assert_eq!(checked(call(0)).unwrap_err().code, ErrorCode::Expired);
        assert_eq!(checked(call(7)).unwrap().2, Duration::from_micros(7));
        assert_eq!(checked(call(u64::MAX)).unwrap().2, LONGEST);
    }

    #[test]
    fn a_call_without_instance_or_that_is_none_is_refused_by_field() {
        let mut broken = call(1);
        broken.instance = vec![1, 2, 3].into();
        let error = checked(broken).unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidArgument);
        assert!(error.message.starts_with("instance: "), "{error}");
        let mut cut = call(1);
        cut.call = vec![0x1a, 9, 1].into();
        assert!(checked(cut).unwrap_err().message.starts_with("call: "));
    }
}
