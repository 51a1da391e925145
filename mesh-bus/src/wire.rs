//! Frames of a call, encoded.

use async_nats::Subject;
use bytes::{BufMut, Bytes};
use mesh_core::id::InstanceId;
use mesh_proto::common;
use mesh_proto::control::{NodeCall, NodeReply, NodeRequest, node_reply, node_request};
use prost::encoding::{WireType, encode_key, encode_varint};
use prost::{Message, length_delimiter_len};

use crate::block;
use crate::outbox::{Frame, Sender};
use crate::slot::Live;
use crate::slots::Ticket;

/// Tags: `NodeRequest.call`, and `NodeCall`'s own.
const CALL: u32 = 2;
const CALL_INSTANCE: u32 = 1;
const CALL_CALL: u32 = 2;

fn encode(call_id: u64, body: node_request::Body) -> Bytes {
    block::message(&NodeRequest {
        call_id,
        body: Some(body),
    })
}

fn follow_up(live: &Live, index: usize, reply: Subject, body: node_request::Body) -> Frame {
    Frame {
        subject: live.subject.clone(),
        reply: Some(reply),
        payload: encode(live.call_id, body),
        sender: Some(Sender {
            index,
            call_id: live.call_id,
            begins: false,
        }),
        credit: None,
    }
}

/// A [`NodeRequest`] with a [`NodeCall`], written in one go: without a copy of the call in between.
fn begin(call_id: u64, instance: InstanceId, call: &common::Call, time_left_us: u64) -> Bytes {
    let instance = instance.as_bytes();
    let rest = NodeCall {
        time_left_us,
        ..NodeCall::default()
    };
    let call_bytes = call.encoded_len();
    let field = |bytes: usize| 1 + length_delimiter_len(bytes) + bytes;
    let body = field(instance.len()) + field(call_bytes) + rest.encoded_len();
    let head = NodeRequest {
        call_id,
        body: None,
    };
    block::frame(head.encoded_len() + field(body), |frame| {
        head.encode_raw(frame);
        encode_key(CALL, WireType::LengthDelimited, frame);
        encode_varint(body as u64, frame);
        encode_key(CALL_INSTANCE, WireType::LengthDelimited, frame);
        encode_varint(instance.len() as u64, frame);
        frame.put_slice(instance);
        encode_key(CALL_CALL, WireType::LengthDelimited, frame);
        encode_varint(call_bytes as u64, frame);
        call.encode_raw(frame);
        rest.encode_raw(frame);
    })
}

/// The frame that begins a call.
pub(crate) fn call(
    ticket: &Ticket,
    instance: InstanceId,
    call: &common::Call,
    time_left_us: u64,
) -> Frame {
    Frame {
        subject: ticket.subject.clone(),
        reply: Some(ticket.reply.clone()),
        payload: begin(ticket.call_id, instance, call, time_left_us),
        sender: Some(Sender {
            index: ticket.index,
            call_id: ticket.call_id,
            begins: true,
        }),
        credit: None,
    }
}

/// The frame that begins a call, with another time left. What stands twice in a message is merged, and
/// the last number holds, so the new one is appended.
pub(crate) fn with_time_left(frame: &Bytes, call_id: u64, time_left_us: u64) -> Bytes {
    let call = NodeCall {
        time_left_us,
        ..NodeCall::default()
    };
    let more = encode(call_id, node_request::Body::Call(call));
    [&**frame, &*more].concat().into()
}

/// More of a payload, or a message.
pub(crate) fn chunk(live: &Live, index: usize, reply: Subject, chunk: common::Chunk) -> Frame {
    follow_up(live, index, reply, node_request::Body::Chunk(chunk))
}

/// The node may send more; 0 asks whether it still knows the call.
pub(crate) fn credit(live: &Live, index: usize, reply: Subject, chunks: u32) -> Frame {
    let credit = common::Credit {
        chunks,
        total: live.given(),
        sent: 0,
    };
    follow_up(live, index, reply, node_request::Body::Credit(credit))
}

/// Marks what a caller sends to itself; no node sends it.
const ECHO: u64 = u64::MAX;

/// A message to the caller itself: it comes back if the broker passes messages on.
pub(crate) fn echo(live: &Live, index: usize, reply: Subject) -> Frame {
    let echo = NodeReply {
        call_id: live.call_id,
        body: None,
        chunks_before: ECHO,
    };
    Frame {
        sender: Some(Sender {
            index,
            call_id: live.call_id,
            begins: false,
        }),
        ..Frame::to(&reply, block::message(&echo))
    }
}

/// Whether a reply is an [`echo`].
pub(crate) fn is_echo(reply: &NodeReply) -> bool {
    reply.body.is_none() && reply.chunks_before == ECHO
}

/// The caller no longer wants the answer. It survives a disconnect: better late than never.
pub(crate) fn cancel(live: &Live, reply: Subject, reason: &str) -> Frame {
    let cancel = common::Cancel {
        reason: reason.to_owned(),
    };
    Frame {
        subject: live.subject.clone(),
        reply: Some(reply),
        payload: encode(live.call_id, node_request::Body::Cancel(cancel)),
        sender: None,
        credit: None,
    }
}

/// A node takes more of a payload; 0 says that it knows the call.
pub(crate) fn credit_reply(call_id: u64, chunks: u32) -> Bytes {
    let credit = common::Credit::of(chunks);
    let reply = NodeReply {
        call_id,
        body: Some(node_reply::Body::Credit(credit)),
        chunks_before: 0,
    };
    block::message(&reply)
}
