//! What a plugin can make the agent keep is bounded.

use super::*;

/// Chunks that are dropped without a word: what is kept for calls that were refused.
fn silently_dropped(session: &mut Session, ids: impl Iterator<Item = u64>) -> usize {
    ids.filter(|id| {
        let last = Body::Chunk(part(0, 1, true));
        send(session, *id, last).is_empty()
    })
    .count()
}

#[test]
fn calls_that_were_refused_are_not_remembered_without_end() {
    let mut session = ready();
    let ids = || (0..20_000_u64).map(|number| number * 2 + 1);
    for id in ids() {
        send(&mut session, id, own_call(b"", true));
    }
    let remembered = silently_dropped(&mut session, ids().skip(MAX_OWN_CALLS));
    assert!(remembered <= MAX_OWN_CALLS, "{remembered}");
}

#[test]
fn an_empty_part_of_an_own_payload_ends_the_call() {
    let mut session = ready();
    send(&mut session, 1, own_call(b"a", true));
    let actions = send(&mut session, 1, Body::Chunk(chunk(0, 0, false)));
    let (id, code, text) = error_of(&actions[0]).unwrap();
    assert_eq!((id, code), (1, ErrorCode::ProtocolViolation));
    assert!(text.contains("empty"), "{text}");
    // The last one may be: it only says that the payload is whole.
    send(&mut session, 3, own_call(b"a", true));
    match send(&mut session, 3, Body::Chunk(chunk(0, 0, true))).as_slice() {
        [Action::OwnCall { payload, .. }] => assert_eq!(payload, "a"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_empty_fragment_of_an_answer_ends_the_call_for_both_sides() {
    let mut session = ready();
    let id = session.begin("one", Coming::default());
    // A chunk of a stream may be empty: it is the caller's.
    let part = Body::Chunk(chunk(0, 0, false));
    assert!(matches!(
        send(&mut session, id, part).as_slice(),
        [Action::Chunk { .. }]
    ));
    let fragment = common::Chunk {
        fragment: true,
        ..chunk(1, 0, false)
    };
    let actions = send(&mut session, id, Body::Chunk(fragment));
    let (_, _, text) = refusal(&actions);
    assert!(text.contains("empty"), "{text}");
    assert!(matches!(actions[0], Action::Ended { end: Err(_), .. }));
    assert_eq!(session.in_flight(), 0);
}

#[test]
fn a_plugin_can_take_credit_for_chunks_that_were_sent_to_it_alone() {
    let mut session = ready();
    let whole = session.begin("whole", Coming::default());
    assert_eq!(session.take_upload_credit(whole, 5), 0);
    let id = session.begin("one", parts());
    // It had the first 64 from the beginning, and was sent nothing yet.
    assert_eq!(session.take_upload_credit(id, 1_000), 0);
    for sequence in 0..10 {
        assert_eq!(session.upload(id, &chunk(sequence, 1, false)), None);
    }
    assert_eq!(session.take_upload_credit(id, 4), 4);
    assert_eq!(session.take_upload_credit(id, 1_000), 6);
    assert_eq!(session.take_upload_credit(id, 1), 0);
    assert_eq!(session.upload(id, &chunk(10, 1, true)), None);
    assert_eq!(session.take_upload_credit(id, 1), 0, "the payload is whole");
}

#[test]
fn an_own_payload_beyond_the_largest_is_refused_early() {
    let mut session = ready();
    send(&mut session, 1, own_call(b"a", true));
    let part = 200 * 1024;
    let mut code = None;
    for sequence in 0..=(MAX_PAYLOAD_BYTES / part) as u64 {
        let actions = send(&mut session, 1, Body::Chunk(chunk(sequence, part, false)));
        code = code.or(actions.iter().find_map(error_of).map(|error| error.1));
    }
    assert_eq!(code, Some(ErrorCode::TooLarge));
}

#[test]
fn too_many_own_calls_are_shed() {
    let mut session = ready();
    for number in 0..MAX_OWN_CALLS as u64 {
        send(&mut session, number * 2 + 1, own_call(b"", false));
    }
    let actions = send(&mut session, 99_999, own_call(b"", false));
    let (id, code, _) = error_of(&actions[0]).unwrap();
    assert_eq!((id, code), (99_999, ErrorCode::Overloaded));
    session.own_ended(1);
    assert!(matches!(
        send(&mut session, 99_999, own_call(b"", false)).as_slice(),
        [Action::OwnCall { .. }]
    ));
}

#[test]
fn fragments_beyond_the_largest_payload_end_the_call() {
    let mut session = ready();
    let id = session.begin("one", Coming::default());
    session.grant(id, 100_000);
    let part = 200 * 1024;
    let mut ended = false;
    for sequence in 0..=(MAX_PAYLOAD_BYTES / part) as u64 {
        let fragment = common::Chunk {
            fragment: true,
            ..chunk(sequence, part, false)
        };
        let actions = send(&mut session, id, Body::Chunk(fragment));
        ended = actions
            .iter()
            .any(|action| matches!(action, Action::Ended { end: Err(_), .. }));
    }
    assert!(ended);
    assert_eq!(session.in_flight(), 0);
}

#[test]
fn a_callers_payload_may_have_the_largest_size_and_not_a_byte_more() {
    for (more, refused) in [(0, false), (1, true)] {
        let mut session = ready();
        session.limit_payloads(1_000);
        let coming = Coming {
            bytes: 600,
            ..parts()
        };
        let id = session.begin("one", coming);
        let fault = session.upload(id, &part(0, 400 + more, true));
        assert_eq!(fault.is_some(), refused);
        if let Some((code, text)) = fault {
            assert_eq!(code, ErrorCode::TooLarge);
            assert!(
                text.contains("1000 bytes") && text.contains("router.max_payload"),
                "{text}"
            );
        }
    }
}

#[test]
fn payloads_of_own_calls_count_until_the_calls_end() {
    let mut session = ready();
    let part = 200 * 1024;
    let parts = (MAX_PAYLOAD_BYTES / part) as u64;
    let sends = |session: &mut Session, id, count| {
        send(session, id, own_call(b"", true));
        let mut code = None;
        for sequence in 0..count {
            let chunk = Body::Chunk(chunk(sequence, part, sequence + 1 == parts));
            let actions = send(session, id, chunk);
            code = code.or(actions.iter().find_map(error_of).map(|error| error.1));
        }
        code
    };
    // Whole, and with the router; together all but a part and a half of what may be.
    assert_eq!(sends(&mut session, 1, parts), None);
    assert_eq!(sends(&mut session, 3, parts), None);
    assert_eq!(sends(&mut session, 5, 2), Some(ErrorCode::Overloaded));
    session.own_ended(1);
    assert_eq!(sends(&mut session, 7, 2), None);
}
