//! The multiplexer without a broker: messages in, effects out, time as a number.

use async_nats::{Message, StatusCode};
use bytes::Bytes;
use mesh_core::id::{Generation, InstanceId, NodeId};
use mesh_proto::common;
use mesh_proto::control::{NodeRequest, node_reply, node_request};

use super::*;
use crate::event::CallEvent;

mod gathering;
mod waiting;

const SECOND: u64 = 1_000_000;

fn slots() -> Slots {
    let limits = BusLimits {
        initial_credit: 4,
        max_payload: 1_000,
        chunk_bytes: 100,
        max_gathered: 1_000_000,
        max_calls: 3,
    };
    Slots::new(MeshName::default(), 7, limits)
}

fn open(slots: &mut Slots, now: u64) -> Ticket {
    let target = Target {
        node: NodeId::new("a").unwrap(),
        generation: Generation(1),
        instance: InstanceId::new(1, [0; 10]),
    };
    slots.open(target, now, now + 30 * SECOND).unwrap()
}

/// The upload of so many bytes beyond the first frame.
fn upload(rest: usize, credit: u32) -> Upload {
    let payload = Bytes::from(vec![0; 100 + rest]);
    let mut call = common::Call::default();
    let input = payload.into();
    Upload::begin(&mut call, input, 100, credit, || Waker::noop().clone()).unwrap()
}

fn message(to: &Subject, payload: Bytes, status: Option<StatusCode>) -> Message {
    Message {
        subject: to.clone(),
        reply: None,
        payload,
        headers: None,
        status,
        description: None,
        length: 0,
    }
}

fn reply(slots: &mut Slots, ticket: &Ticket, now: u64, body: node_reply::Body) -> Effects {
    reply_after(slots, ticket, now, body, 0)
}

fn reply_after(
    slots: &mut Slots,
    ticket: &Ticket,
    now: u64,
    body: node_reply::Body,
    chunks_before: u64,
) -> Effects {
    let reply = NodeReply {
        call_id: ticket.call_id,
        body: Some(body),
        chunks_before,
    };
    let mut effects = Effects::default();
    let message = message(&ticket.reply, reply.encode_to_vec().into(), None);
    slots.on_message(message, now, &mut effects);
    effects
}

fn nobody(slots: &mut Slots, reply: &Subject, now: u64) -> Effects {
    let mut effects = Effects::default();
    let message = message(reply, Bytes::new(), Some(StatusCode::NO_RESPONDERS));
    slots.on_message(message, now, &mut effects);
    effects
}

fn sweep(slots: &mut Slots, now: u64) -> Effects {
    // Each node shows a sign of life, so that only the calls themselves are asked after.
    slots
        .peers
        .heard_of(&NodeId::new("a").unwrap(), Generation(1), now);
    sweep_in_silence(slots, now)
}

fn sweep_in_silence(slots: &mut Slots, now: u64) -> Effects {
    let mut effects = Effects::default();
    slots.sweep(now, true, &mut effects);
    effects
}

fn take(slots: &mut Slots, ticket: &Ticket) -> Option<CallEvent> {
    let limits = slots.limits;
    slots.get(ticket.index, ticket.call_id)?.take(&limits)
}

/// The error that the call ended with, if it has.
fn error(slots: &mut Slots, ticket: &Ticket) -> Option<ErrorCode> {
    match take(slots, ticket)? {
        CallEvent::End(Err(error)) => Some(error.code),
        other => panic!("{other:?}"),
    }
}

fn close(slots: &mut Slots, ticket: &Ticket) -> Option<Frame> {
    slots.close(ticket.index, ticket.call_id)
}

fn body(frame: &Frame) -> node_request::Body {
    NodeRequest::decode(frame.payload.clone())
        .unwrap()
        .body
        .unwrap()
}

fn result() -> node_reply::Body {
    node_reply::Body::Result(common::Result::default())
}

fn chunk(sequence: u64, size: usize, fragment: bool) -> node_reply::Body {
    node_reply::Body::Chunk(common::Chunk {
        payload: vec![0; size].into(),
        last: false,
        sequence,
        fragment,
    })
}

fn known() -> node_reply::Body {
    node_reply::Body::Credit(common::Credit::of(0))
}

#[test]
fn a_slot_keeps_its_subject_after_a_plain_end_and_changes_it_after_any_other() {
    let mut slots = slots();
    let first = open(&mut slots, 0);
    reply(&mut slots, &first, 1, result());
    assert!(matches!(
        take(&mut slots, &first),
        Some(CallEvent::End(Ok(_)))
    ));
    assert!(close(&mut slots, &first).is_none());
    let second = open(&mut slots, 2);
    assert_eq!(second.reply, first.reply);
    assert_ne!(second.call_id, first.call_id);
    // Given up: the node is told, on the old subject, and the next call has a new one.
    let cancel = close(&mut slots, &second).unwrap();
    assert_eq!(cancel.reply, Some(second.reply.clone()));
    assert!(matches!(body(&cancel), node_request::Body::Cancel(_)));
    let third = open(&mut slots, 3);
    assert_ne!(third.reply, second.reply);
    assert_eq!(third.index, second.index);
    // What comes late hits nothing, not even "nobody listens".
    assert_eq!(reply(&mut slots, &second, 4, result()).late, 1);
    nobody(&mut slots, &second.reply, 4);
    assert_eq!(error(&mut slots, &third), None);
    assert_eq!(slots.live(), 1);
}

#[test]
fn a_call_that_was_asked_after_leaves_its_subject_behind() {
    let mut slots = slots();
    let first = open(&mut slots, 0);
    assert_eq!(sweep(&mut slots, SECOND).send.len(), 1);
    reply(&mut slots, &first, SECOND, result());
    take(&mut slots, &first);
    close(&mut slots, &first);
    // The answer to the question is still on its way, and may be "nobody listens".
    let second = open(&mut slots, SECOND);
    assert_ne!(second.reply, first.reply);
}

#[test]
fn nobody_there_means_not_processed_only_when_no_frame_can_have_arrived() {
    let mut slots = slots();
    let plain = open(&mut slots, 0);
    assert_eq!(nobody(&mut slots, &plain.reply, 1).no_responders, 1);
    assert_eq!(error(&mut slots, &plain), Some(ErrorCode::InstanceGone));
    close(&mut slots, &plain);

    // Three frames, none of which arrived.
    let large = open(&mut slots, 0);
    let upload = |rest: usize| upload(rest, 4);
    slots.upload(large.index, large.call_id, upload(200));
    assert!(slots.next_upload().is_some() && slots.next_upload().is_some());
    for _ in 0..2 {
        nobody(&mut slots, &large.reply, 1);
        assert_eq!(error(&mut slots, &large), None);
    }
    nobody(&mut slots, &large.reply, 1);
    assert_eq!(error(&mut slots, &large), Some(ErrorCode::InstanceGone));
    close(&mut slots, &large);

    // The first may have arrived: no further answer comes.
    let torn = open(&mut slots, 0);
    slots.upload(torn.index, torn.call_id, upload(200));
    assert!(slots.next_upload().is_some());
    nobody(&mut slots, &torn.reply, 10);
    assert!(slots.next_upload().is_none(), "no more is sent to nobody");
    assert!(slots.next_due() <= SECOND / 5);
    sweep(&mut slots, SECOND / 5);
    assert_eq!(error(&mut slots, &torn), Some(ErrorCode::OutcomeUnknown));
}

#[test]
fn a_node_that_cant_be_reached_has_a_second_and_is_asked_meanwhile() {
    let mut slots = slots();
    let call = open(&mut slots, 0);
    let question = sweep(&mut slots, SECOND).send.pop().unwrap();
    assert_eq!(
        body(&question),
        node_request::Body::Credit(common::Credit::of(0))
    );
    nobody(&mut slots, &call.reply, SECOND);
    // It is about to reconnect.
    assert_eq!(sweep(&mut slots, SECOND + SECOND / 2).send.len(), 1);
    reply(&mut slots, &call, SECOND + SECOND / 2, known());
    sweep(&mut slots, 2 * SECOND + 1);
    assert_eq!(error(&mut slots, &call), None);
    // It is gone.
    let mut now = 4 * SECOND;
    assert_eq!(sweep(&mut slots, now).send.len(), 1);
    nobody(&mut slots, &call.reply, now);
    now += SECOND;
    assert_eq!(sweep(&mut slots, now).unknown, 1);
    assert_eq!(error(&mut slots, &call), Some(ErrorCode::OutcomeUnknown));
}

/// Delivers the messages to oneself among what was sent.
fn echo(slots: &mut Slots, sent: Effects, now: u64) -> usize {
    let mut echoes = 0;
    for frame in sent.send.iter().filter(|frame| frame.reply.is_none()) {
        let mut effects = Effects::default();
        let message = message(&frame.subject, frame.payload.clone(), None);
        slots.on_message(message, now, &mut effects);
        echoes += 1;
    }
    echoes
}

#[test]
fn a_node_that_answers_no_question_is_silent_after_two() {
    let mut slots = slots();
    let call = open(&mut slots, 0);
    let first = sweep(&mut slots, SECOND);
    assert_eq!((first.send.len(), echo(&mut slots, first, SECOND)), (1, 0));
    let second = sweep(&mut slots, 2 * SECOND);
    assert_eq!(second.send.len(), 2);
    assert_eq!(echo(&mut slots, second, 2 * SECOND + 1), 1);
    assert_eq!(error(&mut slots, &call), None);
    let end = sweep(&mut slots, 3 * SECOND + 1);
    assert_eq!(end.unknown, 1);
    assert!(matches!(body(&end.send[0]), node_request::Body::Cancel(_)));
    match take(&mut slots, &call) {
        Some(CallEvent::End(Err(error))) => {
            assert_eq!(error.code, ErrorCode::OutcomeUnknown);
            assert!(error.message.contains("node a is silent"), "{error}");
            assert_eq!(error.place.node, "a");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_node_that_answers_each_second_question_is_not_silent() {
    let mut slots = slots();
    let call = open(&mut slots, 0);
    let mut questions = 0;
    for tick in 10..290 {
        let now = tick * SECOND / 10;
        let sent = sweep(&mut slots, now);
        let asked = sent.send.iter().filter(|frame| frame.reply.is_some());
        let asked = asked.count();
        echo(&mut slots, sent, now);
        questions += asked;
        if asked > 0 && questions % 2 == 0 {
            reply(&mut slots, &call, now + SECOND / 20, known());
        }
    }
    assert_eq!(error(&mut slots, &call), None);
    assert!((15..30).contains(&questions), "{questions}");
}

#[test]
fn a_broker_that_passes_nothing_on_makes_no_node_silent() {
    let mut slots = slots();
    let call = open(&mut slots, 0);
    let mut last = Effects::default();
    for second in 1..15 {
        last = sweep(&mut slots, second * SECOND);
    }
    // It goes on: the node has a second from then.
    let now = 15 * SECOND - 1;
    assert_eq!(echo(&mut slots, last, now), 1);
    sweep(&mut slots, 15 * SECOND);
    assert_eq!(error(&mut slots, &call), None);
    reply(&mut slots, &call, 15 * SECOND + 1, known());
    sweep(&mut slots, 16 * SECOND);
    assert_eq!(error(&mut slots, &call), None);
    // Without a connection nobody is asked.
    let mut effects = Effects::default();
    slots.sweep(20 * SECOND, false, &mut effects);
    assert!(effects.send.is_empty());
}

#[test]
fn a_process_that_slept_reads_what_came_before_it_calls_a_node_silent() {
    let mut slots = slots();
    let call = open(&mut slots, 0);
    sweep(&mut slots, SECOND);
    let second = sweep(&mut slots, 2 * SECOND);
    echo(&mut slots, second, 2 * SECOND);
    assert_eq!(sweep(&mut slots, 9 * SECOND).send.len(), 2);
    reply(&mut slots, &call, 9 * SECOND + 1, known());
    sweep(&mut slots, 10 * SECOND + 1);
    assert_eq!(error(&mut slots, &call), None);
}

#[test]
fn after_a_reconnect_calls_live_on_signs_of_life() {
    let mut slots = slots();
    let (silent, known_one) = (open(&mut slots, 0), open(&mut slots, 0));
    slots.verify_all(10);
    assert_eq!(sweep(&mut slots, 10).send.len(), 2);
    reply(&mut slots, &known_one, 20, known());
    sweep(&mut slots, 10 + SECOND);
    assert_eq!(error(&mut slots, &silent), Some(ErrorCode::OutcomeUnknown));
    assert_eq!(error(&mut slots, &known_one), None);
    close(&mut slots, &silent);
    // A payload of which a part may be lost is not trusted, whatever the node says.
    let torn = open(&mut slots, 2 * SECOND);
    slots.upload(torn.index, torn.call_id, upload(300, 1));
    slots.next_upload();
    slots.verify_all(2 * SECOND);
    reply(&mut slots, &torn, 2 * SECOND, known());
    sweep(&mut slots, 3 * SECOND);
    assert_eq!(error(&mut slots, &torn), Some(ErrorCode::OutcomeUnknown));
}

#[test]
fn a_call_with_messages_does_not_outlive_a_loss_whatever_has_come_back() {
    let mut slots = slots();
    let call = open(&mut slots, 0);
    let (_sender, source) = crate::messages(1);
    let input = crate::CallInput {
        payload: Bytes::new(),
        messages: Some(source),
    };
    let upload = Upload::begin(&mut common::Call::default(), input, 100, 4, || {
        Waker::noop().clone()
    });
    slots.upload(call.index, call.call_id, upload.unwrap());
    reply(&mut slots, &call, 0, chunk(0, 1, false));
    slots.verify_all(2 * SECOND);
    reply(&mut slots, &call, 2 * SECOND, known());
    sweep(&mut slots, 3 * SECOND);
    assert!(matches!(take(&mut slots, &call), Some(CallEvent::Chunk(_))));
    assert_eq!(error(&mut slots, &call), Some(ErrorCode::OutcomeUnknown));
}

#[test]
fn what_was_given_in_all_goes_along_so_that_a_lost_credit_is_made_good() {
    let mut slots = slots();
    let call = open(&mut slots, 0);
    let live =
        |slots: &mut Slots| wire::credit(slots.get(call.index, 1).unwrap(), 0, "x".into(), 0);
    for sequence in 0..2 {
        reply(&mut slots, &call, 0, chunk(sequence, 1, false));
        assert!(matches!(take(&mut slots, &call), Some(CallEvent::Chunk(_))));
    }
    // Taking half of the window owes credit, which goes out with the next step.
    assert_eq!(slots.get(call.index, call.call_id).unwrap().take_owed(), 2);
    let question = live(&mut slots);
    let credit = common::Credit {
        chunks: 0,
        total: 2,
        sent: 0,
    };
    assert_eq!(body(&question), node_request::Body::Credit(credit));
}

#[test]
fn an_answer_whose_last_chunks_are_lost_is_found_by_asking() {
    let mut slots = slots();
    let call = open(&mut slots, 0);
    reply(&mut slots, &call, 0, chunk(0, 1, false));
    let sent = |sent| {
        node_reply::Body::Credit(common::Credit {
            sent,
            ..common::Credit::default()
        })
    };
    reply(&mut slots, &call, 10, sent(1));
    assert!(!slots.get(call.index, call.call_id).unwrap().has_ended());
    let effects = reply(&mut slots, &call, 20, sent(3));
    assert!(matches!(
        body(&effects.send[0]),
        node_request::Body::Cancel(_)
    ));
    assert!(matches!(take(&mut slots, &call), Some(CallEvent::Chunk(_))));
    match take(&mut slots, &call) {
        Some(CallEvent::End(Err(error))) => assert_eq!(error.code, ErrorCode::OutcomeUnknown),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_answer_with_a_hole_ends_unknown_and_is_cancelled() {
    let mut slots = slots();
    let hole = open(&mut slots, 0);
    reply(&mut slots, &hole, 0, chunk(0, 1, true));
    let effects = reply(&mut slots, &hole, 0, chunk(2, 1, true));
    assert!(matches!(
        body(&effects.send[0]),
        node_request::Body::Cancel(_)
    ));
    assert_eq!(error(&mut slots, &hole), Some(ErrorCode::OutcomeUnknown));
    close(&mut slots, &hole);
    let cut_off = open(&mut slots, 0);
    reply(&mut slots, &cut_off, 0, chunk(0, 1, true));
    reply_after(&mut slots, &cut_off, 0, result(), 2);
    assert_eq!(error(&mut slots, &cut_off), Some(ErrorCode::OutcomeUnknown));
    close(&mut slots, &cut_off);
    let too_large = open(&mut slots, 0);
    for sequence in 0..11 {
        reply(&mut slots, &too_large, 0, chunk(sequence, 100, true));
    }
    assert_eq!(error(&mut slots, &too_large), Some(ErrorCode::PluginFailed));
}

#[test]
fn small_parts_of_an_answer_keep_no_more_than_their_bytes() {
    let mut slots = slots();
    let call = open(&mut slots, 0);
    for sequence in 0..100 {
        let frame = NodeReply {
            call_id: call.call_id,
            body: Some(chunk(sequence, (sequence % 2) as usize, true)),
            chunks_before: 0,
        };
        let payload = Bytes::from(frame.encode_to_vec());
        let mut effects = Effects::default();
        let message = message(&call.reply, payload.clone(), None);
        slots.on_message(message, 0, &mut effects);
        assert!(payload.is_unique(), "part {sequence} keeps its message");
    }
    reply_after(&mut slots, &call, 0, result(), 100);
    match take(&mut slots, &call) {
        Some(CallEvent::End(Ok(output))) => assert_eq!(output.payload.len(), 50),
        other => panic!("{other:?}"),
    }
}

#[test]
fn notices_wait_in_bounded_number_and_progress_is_the_newest() {
    let mut slots = slots();
    let call = open(&mut slots, 0);
    for n in 0..1_000 {
        let progress = common::Progress {
            progress: f64::from(n),
            ..common::Progress::default()
        };
        reply(&mut slots, &call, 0, node_reply::Body::Progress(progress));
    }
    match take(&mut slots, &call) {
        Some(CallEvent::Progress(progress)) => assert!(progress.progress > 998.0),
        other => panic!("{other:?}"),
    }
    assert!(take(&mut slots, &call).is_none());
    let mut dropped = 0;
    for _ in 0..1_000 {
        let log = node_reply::Body::Log(common::Log::default().into());
        dropped += reply(&mut slots, &call, 0, log).notices_dropped;
    }
    reply(&mut slots, &call, 0, result());
    let mut kept = 0;
    while let Some(CallEvent::Log(_)) = take(&mut slots, &call) {
        kept += 1;
    }
    assert_eq!(kept + dropped, 1_000);
    assert!(kept < 300, "{kept}");
}

#[test]
fn deadlines_are_kept_in_order_and_cancel_at_the_node() {
    let mut slots = slots();
    let target = |slots: &mut Slots, deadline| {
        let target = Target {
            node: NodeId::new("a").unwrap(),
            generation: Generation(1),
            instance: InstanceId::new(1, [0; 10]),
        };
        slots.open(target, 0, deadline)
    };
    let late = target(&mut slots, 500).unwrap();
    let early = target(&mut slots, 100).unwrap();
    assert!(late.earliest && early.earliest);
    let never = target(&mut slots, 10_000_000).unwrap();
    assert!(!never.earliest);
    // Three are allowed.
    assert!(target(&mut slots, 1).is_none());
    assert_eq!(slots.next_due(), 100);
    assert_eq!(sweep(&mut slots, 99).timeouts, 0);
    let effects = sweep(&mut slots, 100);
    assert_eq!((effects.timeouts, effects.send.len()), (1, 1));
    assert_eq!(error(&mut slots, &early), Some(ErrorCode::DeadlineExceeded));
    assert_eq!(slots.next_due(), 500);
    sweep(&mut slots, 500);
    assert_eq!(error(&mut slots, &late), Some(ErrorCode::DeadlineExceeded));
    for call in [late, early, never] {
        close(&mut slots, &call);
    }
    assert_eq!(slots.live(), 0);
    sweep(&mut slots, SECOND);
    assert_eq!(slots.next_due(), u64::MAX);
}

#[test]
fn a_call_that_never_left_says_so() {
    let mut slots = slots();
    let call = open(&mut slots, 0);
    let mut effects = Effects::default();
    slots.end_unsent(call.index, call.call_id, &mut effects);
    assert_eq!(error(&mut slots, &call), Some(ErrorCode::Disconnected));
    assert!(effects.send.is_empty());
}

#[test]
fn garbage_and_foreign_replies_harm_nobody() {
    let mut slots = slots();
    let call = open(&mut slots, 0);
    let mut effects = Effects::default();
    for subject in [
        "x",
        "pm.default.inbox.0000000000000007.ffffff",
        call.reply.as_str(),
    ] {
        let garbage = message(&subject.into(), Bytes::from_static(b"\xff\xff"), None);
        slots.on_message(garbage, 0, &mut effects);
    }
    assert_eq!((effects.malformed, effects.late), (2, 1));
    let other = NodeReply {
        call_id: call.call_id + 1,
        body: Some(result()),
        chunks_before: 0,
    };
    slots.on_message(
        message(&call.reply, other.encode_to_vec().into(), None),
        0,
        &mut effects,
    );
    assert_eq!(effects.late, 2);
    assert_eq!(error(&mut slots, &call), None);
}
