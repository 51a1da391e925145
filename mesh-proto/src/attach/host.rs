//! What a host sends: frames, and calls that are passed on as they came.

use bytes::{BufMut, Bytes};
use prost::encoding::{WireType, encode_key, encode_varint, uint64};
use prost::{DecodeError, EncodeError, Message};

use crate::common::{Call, TraceContext};
use crate::control::NodeCall;
use crate::plugin::{HostFrame, host_frame};

/// The tag of `HostFrame.id`.
const ID: u32 = 1;

/// The tag of `HostFrame.invoke`.
const INVOKE: u32 = 20;

/// What a host sends to a plugin.
#[derive(Debug, Clone, PartialEq)]
pub enum HostMessage {
    /// A frame.
    Frame(HostFrame),
    /// An `Invoke` whose call is not read again.
    Invoke(PassedCall),
}

/// A call that is handed to a plugin as it came. What follows its bytes takes the place of what they say,
/// as Protocol Buffers have it for a field that comes twice.
#[derive(Debug, Clone, PartialEq)]
pub struct PassedCall {
    /// The id of the frame.
    pub id: u64,
    /// The [`Call`], encoded.
    pub call: Bytes,
    /// Time left until the deadline, in microseconds.
    pub time_left_us: u64,
    /// The caller's trace context, if it is another than the call's own.
    pub trace: Option<TraceContext>,
}

/// What is put behind the bytes of a call.
#[derive(Clone, PartialEq, Message)]
struct Tail {
    #[prost(uint64, tag = "6")]
    time_left_us: u64,
    #[prost(message, optional, tag = "7")]
    trace: Option<TraceContext>,
}

/// What a host must know of a call that it passes on. The rest of the call is for the plugin to read.
#[derive(Clone, PartialEq, Message)]
pub struct CallHead {
    /// The first (or only) part of the payload.
    #[prost(bytes = "bytes", tag = "3")]
    pub payload: Bytes,
    /// More of the payload follows.
    #[prost(bool, tag = "5")]
    pub more: bool,
    /// The caller wants Progress frames.
    #[prost(bool, tag = "12")]
    pub want_progress: bool,
    /// Messages follow the payload.
    #[prost(bool, tag = "13")]
    pub messages: bool,
}

impl NodeCall {
    /// What a host must know of the call.
    ///
    /// # Errors
    /// When its bytes are no call.
    pub fn head(&self) -> Result<CallHead, DecodeError> {
        CallHead::decode(self.call.clone())
    }

    /// The whole call, with the time that it has left.
    ///
    /// # Errors
    /// When its bytes are no call.
    pub fn whole(&self) -> Result<Call, DecodeError> {
        let mut call = Call::decode(self.call.clone())?;
        call.time_left_us = self.time_left_us;
        Ok(call)
    }
}

impl PassedCall {
    fn encode(self, buffer: &mut impl BufMut) -> Result<(), EncodeError> {
        let tail = Tail {
            time_left_us: self.time_left_us,
            trace: self.trace,
        };
        let bytes = self.call.len() + tail.encoded_len();
        uint64::encode(ID, &self.id, buffer);
        encode_key(INVOKE, WireType::LengthDelimited, buffer);
        encode_varint(bytes as u64, buffer);
        buffer.put_slice(&self.call);
        tail.encode(buffer)
    }
}

impl HostMessage {
    /// The id of the frame.
    #[must_use]
    pub const fn id(&self) -> u64 {
        match self {
            Self::Frame(frame) => frame.id,
            Self::Invoke(call) => call.id,
        }
    }

    /// The frame as a plugin reads it.
    ///
    /// # Errors
    /// When the bytes of a call that was passed on are none.
    pub fn into_frame(self) -> Result<HostFrame, DecodeError> {
        match self {
            Self::Frame(frame) => Ok(frame),
            Self::Invoke(passed) => {
                let mut call = Call::decode(passed.call)?;
                call.time_left_us = passed.time_left_us;
                call.trace = passed.trace.or(call.trace);
                Ok(HostFrame {
                    id: passed.id,
                    body: Some(host_frame::Body::Invoke(Box::new(call))),
                })
            }
        }
    }
}

impl From<HostFrame> for HostMessage {
    fn from(frame: HostFrame) -> Self {
        Self::Frame(frame)
    }
}

/// What the codec can send.
pub trait Outbound: Send + 'static {
    /// Writes it.
    ///
    /// # Errors
    /// When the buffer has no room.
    fn write(self, buffer: &mut impl BufMut) -> Result<(), EncodeError>;
}

impl<M: Message + 'static> Outbound for M {
    fn write(self, buffer: &mut impl BufMut) -> Result<(), EncodeError> {
        self.encode(buffer)
    }
}

impl Outbound for HostMessage {
    fn write(self, buffer: &mut impl BufMut) -> Result<(), EncodeError> {
        match self {
            Self::Frame(frame) => frame.encode(buffer),
            Self::Invoke(call) => call.encode(buffer),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed test may panic")]
mod tests {
    use super::*;
    use crate::common::{Caller, Capability};

    fn call() -> Call {
        Call {
            capability: Some(Capability {
                kind: 1,
                name: "add".to_owned(),
            }),
            payload: Bytes::from_static(b"{}"),
            time_left_us: 5,
            trace: Some(TraceContext {
                traceparent: "the caller's".to_owned(),
                tracestate: "state".to_owned(),
            }),
            caller: Some(Caller {
                node: "gateway".to_owned(),
                ..Caller::default()
            }),
            want_progress: true,
            messages: true,
            ..Call::default()
        }
    }

    #[test]
    fn a_passed_call_reads_as_the_call_with_the_time_that_is_left_and_the_trace() {
        let trace = |text: &str| TraceContext {
            traceparent: text.to_owned(),
            tracestate: "state".to_owned(),
        };
        for given in [None, Some(trace("the agent's"))] {
            let message = HostMessage::Invoke(PassedCall {
                id: 4_000_000,
                call: call().encode_to_vec().into(),
                time_left_us: 1_000_000,
                trace: given.clone(),
            });
            let mut bytes = Vec::new();
            message.clone().write(&mut bytes).unwrap();
            let read = HostFrame::decode(&*bytes).unwrap();
            let expected = Call {
                time_left_us: 1_000_000,
                trace: given.or(call().trace),
                ..call()
            };
            assert_eq!(read.id, 4_000_000);
            assert_eq!(
                read.body,
                Some(host_frame::Body::Invoke(Box::new(expected)))
            );
            assert_eq!(message.into_frame().unwrap(), read);
        }
    }

    #[test]
    fn the_head_of_a_call_is_what_the_call_says() {
        let head = CallHead::decode(&*call().encode_to_vec()).unwrap();
        let expected = CallHead {
            payload: call().payload,
            more: false,
            want_progress: true,
            messages: true,
        };
        assert_eq!(head, expected);
    }
}
