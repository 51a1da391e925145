//! Messages that follow a payload, to the plugin and from it.

use super::*;

fn message(sequence: u64) -> common::Chunk {
    common::Chunk {
        fragment: false,
        ..chunk(sequence, 1, false)
    }
}

fn end(sequence: u64) -> common::Chunk {
    common::Chunk {
        last: true,
        ..common::Chunk {
            payload: Bytes::new(),
            ..message(sequence)
        }
    }
}

#[test]
fn messages_go_on_after_the_payload_within_their_credit_and_the_end_needs_none() {
    let mut session = ready();
    let coming = Coming {
        parts: true,
        messages: true,
        bytes: 1,
    };
    let id = session.begin("one", coming);
    assert_eq!(session.upload(id, &chunk(0, 1, false)), None);
    assert_eq!(session.upload(id, &chunk(1, 1, true)), None);
    let window = u64::from(INITIAL_CREDIT);
    for sequence in 2..window {
        assert_eq!(session.upload(id, &message(sequence)), None);
    }
    // The plugin took the payload and some messages.
    assert_eq!(session.take_upload_credit(id, 10), 10);
    for sequence in window..window + 10 {
        assert_eq!(session.upload(id, &message(sequence)), None);
    }
    assert_eq!(session.upload(id, &end(window + 10)), None);
    let late = session.upload(id, &message(window + 11)).unwrap();
    assert_eq!(late.0, ErrorCode::OutcomeUnknown);
}

#[test]
fn a_fault_before_the_payload_is_whole_means_not_processed_and_afterwards_nobody_knows() {
    let coming = |parts| Coming {
        parts,
        messages: true,
        bytes: 1,
    };
    let mut session = ready();
    let id = session.begin("one", coming(true));
    let (code, _) = session.upload(id, &chunk(1, 1, false)).unwrap();
    assert_eq!(code, ErrorCode::ProtocolViolation);
    let id = session.begin("two", coming(false));
    let (code, text) = session.upload(id, &message(1)).unwrap();
    assert_eq!(code, ErrorCode::OutcomeUnknown);
    assert!(text.contains("chunk 0 of the call is missing"), "{text}");
    let id = session.begin("three", coming(false));
    for sequence in 0..u64::from(INITIAL_CREDIT) {
        assert_eq!(session.upload(id, &message(sequence)), None);
    }
    let (code, text) = session.upload(id, &message(INITIAL_CREDIT.into())).unwrap();
    assert_eq!(code, ErrorCode::OutcomeUnknown);
    assert!(text.contains("than Credit frames allow"), "{text}");
}

fn open(more: bool) -> Body {
    Body::Call(Box::new(common::Call {
        payload: Bytes::from_static(b"x"),
        more,
        messages: true,
        ..common::Call::default()
    }))
}

#[test]
fn messages_of_an_own_call_are_passed_on_once_its_payload_is_whole() {
    let mut session = ready();
    assert!(send(&mut session, 1, open(true)).is_empty());
    assert!(send(&mut session, 1, Body::Chunk(chunk(0, 1, false))).is_empty());
    let mut actions = send(&mut session, 1, Body::Chunk(chunk(1, 1, true)));
    // The parts of the payload must not narrow the window for messages.
    let Action::Send(frame) = actions.remove(0) else {
        panic!("{actions:?}");
    };
    let credit = host_frame::Body::Credit(common::Credit::of(2));
    assert_eq!(frame.body, Some(credit));
    assert!(
        matches!(&actions[..], [Action::OwnCall { call, payload, .. }] if call.messages && payload.len() == 3)
    );
    let actions = send(&mut session, 1, Body::Chunk(message(2)));
    assert!(matches!(
        &actions[..],
        [Action::OwnMessage {
            id: 1,
            message: Some(_)
        }]
    ));
    let actions = send(&mut session, 1, Body::Chunk(end(3)));
    assert!(matches!(
        &actions[..],
        [Action::OwnMessage {
            id: 1,
            message: None
        }]
    ));
    // Nothing may follow the end.
    let actions = send(&mut session, 1, Body::Chunk(message(4)));
    assert_eq!(refusal(&actions).1, ErrorCode::ProtocolViolation);
    assert!(matches!(
        actions.last(),
        Some(Action::OwnCancelled { id: 1 })
    ));
}

#[test]
fn a_gap_in_an_own_calls_messages_ends_it_and_a_message_that_crosses_its_end_is_dropped() {
    let mut session = ready();
    send(&mut session, 1, open(false));
    let actions = send(&mut session, 1, Body::Chunk(message(1)));
    assert_eq!(refusal(&actions).1, ErrorCode::ProtocolViolation);
    assert!(matches!(
        actions.last(),
        Some(Action::OwnCancelled { id: 1 })
    ));
    send(&mut session, 3, open(false));
    session.own_ended(3);
    assert!(send(&mut session, 3, Body::Chunk(message(0))).is_empty());
    assert!(send(&mut session, 3, Body::Chunk(end(1))).is_empty());
}
