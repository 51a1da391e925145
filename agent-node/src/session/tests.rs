//! Frames in, actions out.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed test may panic"
)]

use bytes::Bytes;
use mesh_core::error::{ErrorCode, Place};
use mesh_proto::attach::Inbound;
use mesh_proto::common;
use mesh_proto::plugin::{self, HostFrame, PluginFrame, host_frame, plugin_frame::Body};

use super::limits::{INITIAL_CREDIT, MAX_OWN_CALLS, MAX_PAYLOAD_BYTES};
use super::{Action, Coming, HealthChange, Machine, Stage};

mod bounds;
mod codes;
mod messages;

type Session = Machine<&'static str>;

fn frame(id: u64, body: Body) -> Inbound<PluginFrame> {
    Inbound::Frame(PluginFrame {
        id,
        body: Some(body),
    })
}

fn give(session: &mut Session, inbound: Inbound<PluginFrame>) -> Vec<Action<&'static str>> {
    let mut out = Vec::new();
    session.on_frame(inbound, &mut out);
    out
}

fn send(session: &mut Session, id: u64, body: Body) -> Vec<Action<&'static str>> {
    give(session, frame(id, body))
}

/// A session that takes calls.
fn ready() -> Session {
    let mut session = Session::new("node-1");
    let hello = send(&mut session, 0, Body::Hello(Box::default()));
    assert!(matches!(hello.as_slice(), [Action::Hello(_)]));
    session.accept(Place {
        plugin: "time".to_owned(),
        version: "1.0.0".to_owned(),
        instance: "i".to_owned(),
        node: "node-1".to_owned(),
    });
    let ready = send(&mut session, 0, Body::Ready(plugin::Ready {}));
    assert!(matches!(ready.as_slice(), [Action::Ready]));
    assert_eq!(session.stage(), Stage::Ready);
    session
}

/// The Error that answers a refused frame, which is counted, too.
fn refusal(actions: &[Action<&'static str>]) -> (u64, ErrorCode, String) {
    let errors: Vec<_> = actions.iter().filter_map(error_of).collect();
    assert_eq!(errors.len(), 1, "{actions:?}");
    assert!(
        actions
            .iter()
            .any(|action| matches!(action, Action::Refused { .. })),
        "{actions:?}"
    );
    errors.into_iter().next().unwrap()
}

fn error_of(action: &Action<&'static str>) -> Option<(u64, ErrorCode, String)> {
    match action {
        Action::Send(HostFrame {
            id,
            body: Some(host_frame::Body::Error(error)),
        }) => Some((
            *id,
            ErrorCode::from_number(error.code),
            error.message.clone(),
        )),
        _ => None,
    }
}

fn chunk(sequence: u64, bytes: usize, last: bool) -> common::Chunk {
    common::Chunk {
        payload: vec![7; bytes].into(),
        last,
        sequence,
        fragment: false,
    }
}

/// A part of a payload.
fn part(sequence: u64, bytes: usize, last: bool) -> common::Chunk {
    common::Chunk {
        fragment: true,
        ..chunk(sequence, bytes, last)
    }
}

/// More of a payload is to come.
fn parts() -> Coming {
    Coming {
        parts: true,
        messages: false,
        bytes: 1,
    }
}

fn own_call(payload: &'static [u8], more: bool) -> Body {
    Body::Call(Box::new(common::Call {
        payload: Bytes::from_static(payload),
        more,
        ..common::Call::default()
    }))
}

#[test]
fn anything_before_hello_is_refused_for_its_id_and_the_session_goes_on() {
    let mut session = Session::new("node-1");
    for (id, body) in [
        (0, Body::Ready(plugin::Ready {})),
        (2, Body::Result(common::Result::default())),
        (1, own_call(b"", false)),
        (0, Body::Log(common::Log::default().into())),
        (0, Body::Drained(plugin::Drained {})),
    ] {
        let (told, code, text) = refusal(&send(&mut session, id, body));
        assert_eq!((told, code), (id, ErrorCode::ProtocolViolation));
        assert!(
            text.ends_with("came before Hello: send Hello first"),
            "{text}"
        );
    }
    assert_eq!(session.stage(), Stage::AwaitHello);
    let hello = send(&mut session, 0, Body::Hello(Box::default()));
    assert!(matches!(hello.as_slice(), [Action::Hello(_)]));
}

#[test]
fn a_second_hello_or_ready_is_refused() {
    let mut session = ready();
    let (_, code, text) = refusal(&send(&mut session, 0, Body::Hello(Box::default())));
    assert_eq!(code, ErrorCode::ProtocolViolation);
    assert!(text.starts_with("a second Hello"), "{text}");
    let (_, _, text) = refusal(&send(&mut session, 0, Body::Ready(plugin::Ready {})));
    assert_eq!(text, "a second Ready");
    assert_eq!(session.stage(), Stage::Ready);
}

#[test]
fn a_result_ends_its_call_and_gives_back_what_was_kept_with_it() {
    let mut session = ready();
    let (first, second) = (
        session.begin("one", Coming::default()),
        session.begin("two", Coming::default()),
    );
    assert_eq!((first, second), (2, 4));
    let result = common::Result {
        payload: Bytes::from_static(b"42"),
        ..common::Result::default()
    };
    match send(&mut session, second, Body::Result(result)).as_slice() {
        [
            Action::Ended {
                call,
                end: Ok(answer),
            },
        ] => {
            assert_eq!(*call, "two");
            assert_eq!(answer.result.payload, "42");
            assert_eq!(answer.chunks_before, 0);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(session.in_flight(), 1);
}

#[test]
fn an_error_of_the_plugin_says_where_it_happened_and_has_a_code() {
    let mut session = ready();
    let id = session.begin("one", Coming::default());
    let error = common::Error {
        message: "no such zone".to_owned(),
        ..common::Error::default()
    };
    match send(&mut session, id, Body::Error(error.into())).as_slice() {
        [
            Action::Ended {
                end: Err(error), ..
            },
        ] => {
            assert_eq!(error.code, ErrorCode::PluginFailed.number());
            assert_eq!(
                (error.plugin.as_str(), error.node.as_str()),
                ("time", "node-1")
            );
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn answers_to_calls_that_never_were_or_ended_are_refused() {
    let mut session = ready();
    let id = session.begin("one", Coming::default());
    send(&mut session, id, Body::Result(common::Result::default()));
    for (id, says) in [
        (0, "the session's"),
        (3, "odd ids are of the plugin's own calls"),
        (4242, "there was no call of id 4242"),
        (2, "call 2 has ended already"),
    ] {
        for body in [
            Body::Result(common::Result::default()),
            Body::Progress(common::Progress::default()),
        ] {
            let (told, code, text) = refusal(&send(&mut session, id, body));
            assert_eq!((told, code), (id, ErrorCode::ProtocolViolation));
            assert!(text.contains(says), "{text}");
        }
    }
    let (_, _, text) = refusal(&send(&mut session, 4242, Body::Chunk(chunk(0, 1, false))));
    assert!(text.contains("there was no call of id 4242"), "{text}");
}

#[test]
fn an_error_frame_is_never_answered_with_an_error_frame() {
    let mut session = ready();
    for id in [0, 1, 2, 4242] {
        let actions = send(
            &mut session,
            id,
            Body::Error(common::Error::default().into()),
        );
        assert!(actions.iter().all(|action| error_of(action).is_none()));
    }
    let mut early = Session::new("node-1");
    let actions = send(&mut early, 0, Body::Error(common::Error::default().into()));
    assert!(actions.iter().all(|action| error_of(action).is_none()));
}

#[test]
fn the_late_answer_to_a_call_that_was_given_up_is_dropped_without_a_word() {
    let mut session = ready();
    let id = session.begin("one", Coming::default());
    assert_eq!(session.give_up(id), Some("one"));
    assert_eq!(session.give_up(id), None);
    assert!(send(&mut session, id, Body::Chunk(chunk(0, 1, false))).is_empty());
    assert!(send(&mut session, id, Body::Result(common::Result::default())).is_empty());
    // Once. A second answer is wrong.
    let (_, _, text) = refusal(&send(
        &mut session,
        id,
        Body::Result(common::Result::default()),
    ));
    assert!(text.contains("has ended already"), "{text}");
}

#[test]
fn chunks_are_passed_on_in_order_within_their_credit_and_counted() {
    let mut session = ready();
    let id = session.begin("one", Coming::default());
    for sequence in 0..u64::from(INITIAL_CREDIT) {
        let actions = send(&mut session, id, Body::Chunk(chunk(sequence, 1, false)));
        assert!(matches!(actions.as_slice(), [Action::Chunk { .. }]));
    }
    assert_eq!(session.credit(id), 0);
    assert!(session.grant(id, 1));
    let next = u64::from(INITIAL_CREDIT);
    send(&mut session, id, Body::Chunk(chunk(next, 1, false)));
    match send(&mut session, id, Body::Result(common::Result::default())).as_slice() {
        [
            Action::Ended {
                end: Ok(answer), ..
            },
        ] => assert_eq!(answer.chunks_before, 65),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_gap_or_a_chunk_beyond_credit_ends_the_call_for_both_sides() {
    let mut gap = ready();
    let id = gap.begin("one", Coming::default());
    let actions = send(&mut gap, id, Body::Chunk(chunk(1, 1, false)));
    let (told, _, text) = refusal(&actions);
    assert_eq!(told, id);
    assert!(text.contains("chunk 0 of the answer is missing"), "{text}");
    match &actions[0] {
        Action::Ended {
            end: Err(error), ..
        } => {
            assert_eq!(error.code, ErrorCode::PluginFailed.number());
        }
        other => panic!("{other:?}"),
    }
    let mut flood = ready();
    let id = flood.begin("one", Coming::default());
    for sequence in 0..u64::from(INITIAL_CREDIT) {
        send(&mut flood, id, Body::Chunk(chunk(sequence, 1, false)));
    }
    let next = u64::from(INITIAL_CREDIT);
    let (_, _, text) = refusal(&send(&mut flood, id, Body::Chunk(chunk(next, 1, false))));
    assert!(text.contains("Credit"), "{text}");
    assert_eq!(flood.in_flight(), 0);
}

#[test]
fn a_frame_that_cannot_be_read_ends_the_call_that_it_was_about() {
    for (inbound, code) in [
        (
            Inbound::Malformed {
                id: 2,
                reason: "invalid wire type".to_owned(),
            },
            ErrorCode::MalformedFrame,
        ),
        (
            Inbound::Oversize {
                id: 2,
                bytes: 300_000,
            },
            ErrorCode::TooLarge,
        ),
    ] {
        let mut session = ready();
        session.begin("one", Coming::default());
        let actions = give(&mut session, inbound);
        let (told, refused, _) = refusal(&actions);
        assert_eq!((told, refused), (2, code));
        // It was processed, so it must not be sent to another instance.
        assert!(actions.iter().any(|action| matches!(
            action,
            Action::Ended { call: "one", end: Err(error) }
                if error.code == ErrorCode::PluginFailed.number()
        )));
    }
}

#[test]
fn garbage_for_no_call_gets_an_error_for_its_id_and_nothing_else_happens() {
    let mut session = ready();
    session.begin("one", Coming::default());
    let oversize = Inbound::Oversize {
        id: 9,
        bytes: 1 << 20,
    };
    let (id, code, text) = refusal(&give(&mut session, oversize));
    assert_eq!((id, code), (9, ErrorCode::TooLarge));
    assert!(
        text.contains("1048576 bytes") && text.contains("262144"),
        "{text}"
    );
    let unknown = Inbound::Frame(PluginFrame { id: 2, body: None });
    let (id, code, _) = refusal(&give(&mut session, unknown));
    assert_eq!((id, code), (2, ErrorCode::Unsupported));
    assert_eq!(session.in_flight(), 1);
}

#[test]
fn what_a_later_version_carries_out_is_unsupported_and_says_so() {
    let mut session = ready();
    for body in [
        Body::Publish(Box::default()),
        Body::Message(Box::default()),
        Body::Storage(plugin::StorageOperation::default().into()),
        Body::Ack(plugin::Ack {}),
        Body::Nak(plugin::Nak::default()),
    ] {
        let (id, code, text) = refusal(&send(&mut session, 5, body));
        assert_eq!((id, code), (5, ErrorCode::Unsupported));
        assert!(
            text.contains("is not carried out by this version"),
            "{text}"
        );
    }
    let applied = Body::ConfigApplied(plugin::ConfigApplied {});
    let (_, code, text) = refusal(&send(&mut session, 6, applied));
    assert_eq!(code, ErrorCode::ProtocolViolation);
    assert!(text.contains("no configuration change of id 6"), "{text}");
}

#[test]
fn a_callers_chunks_must_come_in_order_and_end() {
    let mut session = ready();
    let id = session.begin("one", parts());
    assert_eq!(session.upload(id, &chunk(0, 1, false)), None);
    let gap = session.upload(id, &chunk(2, 1, false)).unwrap();
    assert_eq!(gap.0, ErrorCode::ProtocolViolation);
    assert!(
        gap.1.contains("chunk 1 of the call is missing"),
        "{}",
        gap.1
    );
    assert_eq!(session.upload(id, &chunk(1, 1, true)), None);
    let late = session.upload(id, &chunk(2, 1, true)).unwrap();
    assert!(late.1.contains("after the last one"), "{}", late.1);
    let whole = session.begin("two", Coming::default());
    assert!(session.upload(whole, &chunk(0, 1, true)).is_some());
}

#[test]
fn an_own_call_has_an_odd_id_that_is_not_in_use() {
    let mut session = ready();
    let (id, _, text) = refusal(&send(&mut session, 2, own_call(b"x", false)));
    assert_eq!(id, 2);
    assert!(text.contains("odd ids"), "{text}");
    match send(&mut session, 1, own_call(b"x", false)).as_slice() {
        [Action::OwnCall { id: 1, payload, .. }] => assert_eq!(payload, "x"),
        other => panic!("{other:?}"),
    }
    let again = send(&mut session, 1, own_call(b"y", false));
    let (_, _, text) = refusal(&again);
    assert!(text.contains("both are ended"), "{text}");
    assert!(matches!(again.last(), Some(Action::OwnCancelled { id: 1 })));
    session.own_ended(1);
    assert!(matches!(
        send(&mut session, 1, own_call(b"z", false)).as_slice(),
        [Action::OwnCall { .. }]
    ));
}

#[test]
fn the_payload_of_an_own_call_is_put_together_under_credit() {
    let mut session = ready();
    assert!(send(&mut session, 1, own_call(b"a", true)).is_empty());
    let mut granted = 0;
    for sequence in 0..40 {
        for action in send(&mut session, 1, Body::Chunk(chunk(sequence, 1, false))) {
            match action {
                Action::Send(HostFrame {
                    id: 1,
                    body: Some(host_frame::Body::Credit(credit)),
                }) => granted += credit.chunks,
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(granted, INITIAL_CREDIT / 2);
    match send(&mut session, 1, Body::Chunk(chunk(40, 1, true))).as_slice() {
        [Action::OwnCall { payload, .. }] => assert_eq!(payload.len(), 42),
        other => panic!("{other:?}"),
    }
    // More of it is wrong, and ends the call.
    let actions = send(&mut session, 1, Body::Chunk(chunk(41, 1, true)));
    refusal(&actions);
    assert!(matches!(
        actions.last(),
        Some(Action::OwnCancelled { id: 1 })
    ));
}

#[test]
fn a_gap_in_an_own_payload_ends_the_call_once_and_the_rest_is_dropped() {
    let mut session = ready();
    send(&mut session, 1, own_call(b"a", true));
    let actions = send(&mut session, 1, Body::Chunk(chunk(3, 1, false)));
    let (id, code, _) = error_of(&actions[0]).unwrap();
    assert_eq!((id, code), (1, ErrorCode::ProtocolViolation));
    assert!(send(&mut session, 1, Body::Chunk(chunk(4, 1, false))).is_empty());
    assert!(send(&mut session, 1, Body::Chunk(chunk(5, 1, true))).is_empty());
    let (_, _, text) = refusal(&send(&mut session, 1, Body::Chunk(part(6, 1, true))));
    assert!(
        text.contains("no call of id 1 awaits more payload"),
        "{text}"
    );
}

#[test]
fn a_cancelled_own_call_is_answered_and_a_crossing_cancel_is_not() {
    let mut session = ready();
    let cancel = || Body::Cancel(common::Cancel::default());
    send(&mut session, 1, own_call(b"", false));
    let actions = send(&mut session, 1, cancel());
    assert!(matches!(actions[0], Action::OwnCancelled { id: 1 }));
    assert_eq!(error_of(&actions[1]).unwrap().1, ErrorCode::Cancelled);
    assert!(send(&mut session, 1, cancel()).is_empty());
    refusal(&send(&mut session, 7, cancel()));
    refusal(&send(&mut session, 2, cancel()));
}

#[test]
fn credit_goes_to_whichever_side_the_id_belongs_to() {
    let mut session = ready();
    let credit = || Body::Credit(common::Credit::of(5));
    let id = session.begin("one", parts());
    assert!(matches!(
        send(&mut session, id, credit()).as_slice(),
        [Action::UploadCredit { id: 2, chunks: 5 }]
    ));
    send(&mut session, 1, own_call(b"", false));
    assert!(matches!(
        send(&mut session, 1, credit()).as_slice(),
        [Action::OwnCredit { id: 1, chunks: 5 }]
    ));
    session.give_up(id);
    assert!(send(&mut session, id, credit()).is_empty());
    refusal(&send(&mut session, 100, credit()));
    refusal(&send(&mut session, 0, credit()));
}

#[test]
fn a_log_line_goes_to_its_running_call_and_else_to_the_log_alone() {
    let mut session = ready();
    let id = session.begin("one", Coming::default());
    let log = || Body::Log(common::Log::default().into());
    assert!(matches!(
        send(&mut session, id, log()).as_slice(),
        [Action::Log { id: Some(2), .. }]
    ));
    for other in [0, 1, 4242] {
        assert!(matches!(
            send(&mut session, other, log()).as_slice(),
            [Action::Log { id: None, .. }]
        ));
    }
}

#[test]
fn a_silent_plugin_is_asked_and_its_answers_are_known() {
    let mut session = ready();
    let mut out = Vec::new();
    session.tick(&mut out);
    assert!(out.is_empty(), "it was heard since it attached");
    session.tick(&mut out);
    let id = match out.pop() {
        Some(Action::Send(HostFrame {
            id,
            body: Some(host_frame::Body::HealthCheck(_)),
        })) => id,
        other => panic!("{other:?}"),
    };
    assert_eq!(id % 2, 0);
    let well = || Body::Health(plugin::Health::default());
    assert!(send(&mut session, id, well()).is_empty());
    refusal(&send(&mut session, id, well()));
    // Of its own accord, under the session's id.
    let sick = plugin::Health {
        status: plugin::HealthStatus::Unhealthy.into(),
        message: "out of disk".to_owned(),
    };
    assert!(matches!(
        send(&mut session, 0, Body::Health(sick)).as_slice(),
        [Action::Health(HealthChange::Unhealthy { .. })]
    ));
}

#[test]
fn a_plugin_that_does_not_know_health_checks_lives_all_the_same() {
    let mut session = ready();
    let mut out = Vec::new();
    session.tick(&mut out);
    session.tick(&mut out);
    let id = match out.pop() {
        Some(Action::Send(frame)) => frame.id,
        other => panic!("{other:?}"),
    };
    let unsupported = common::Error {
        code: ErrorCode::Unsupported.number(),
        ..common::Error::default()
    };
    assert!(send(&mut session, id, Body::Error(unsupported.into())).is_empty());
}
