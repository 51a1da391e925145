//! Calls that wait: for a node that says nothing, and to be sent at all.

use super::*;

#[test]
fn all_calls_to_a_silent_node_end_after_one_question_and_those_to_others_go_on() {
    let mut slots = slots();
    let calls = [open(&mut slots, 0), open(&mut slots, 0)];
    let other = Target {
        node: NodeId::new("b").unwrap(),
        generation: Generation(1),
        instance: InstanceId::new(2, [0; 10]),
    };
    let other = slots.open(other, 0, 30 * SECOND).unwrap();
    let alive = |slots: &mut Slots, now| reply(slots, &other, now, known());
    assert_eq!(slots.next_due(), 300_000);
    alive(&mut slots, 290_000);
    let question = sweep_in_silence(&mut slots, 300_000);
    assert_eq!(
        question.send.len(),
        2,
        "one question, one message to oneself"
    );
    assert_eq!(echo(&mut slots, question, 301_000), 1);
    alive(&mut slots, 580_000);
    let end = sweep_in_silence(&mut slots, 701_000);
    assert_eq!(end.unknown, 2);
    let cancels = end.send.iter().filter(|frame| frame.reply.is_some());
    assert!(
        cancels
            .map(body)
            .all(|body| matches!(body, node_request::Body::Cancel(_)))
    );
    for call in &calls {
        match take(&mut slots, call) {
            Some(CallEvent::End(Err(error))) => {
                assert_eq!(error.code, ErrorCode::OutcomeUnknown);
                assert!(error.message.contains("node a is silent"), "{error}");
            }
            other => panic!("{other:?}"),
        }
        close(&mut slots, call);
    }
    assert_eq!(error(&mut slots, &other), None);
    assert_eq!(slots.peers.lost().len(), 1);
}

#[test]
fn a_call_that_waited_to_be_sent_says_how_much_time_it_has_left_by_then() {
    let mut slots = slots();
    let ticket = open(&mut slots, 0);
    let instance = InstanceId::new(1, [7; 10]);
    let call = common::Call {
        payload: Bytes::from_static(b"payload"),
        affinity_key: "key".to_owned(),
        ..common::Call::default()
    };
    let frame = wire::call(&ticket, instance, &call, 30 * SECOND);
    let left = |slots: &mut Slots, now| slots.time_left(ticket.index, ticket.call_id, now);
    let time = left(&mut slots, 12 * SECOND).unwrap();
    let stamped = wire::with_time_left(&frame.payload, ticket.call_id, time);
    let request = NodeRequest::decode(stamped).unwrap();
    assert_eq!(request.call_id, ticket.call_id);
    let Some(node_request::Body::Call(whole)) = request.body else {
        panic!("{request:?}");
    };
    assert_eq!(&*whole.instance, instance.as_bytes());
    assert_eq!(whole.time_left_us, 18 * SECOND);
    let call = whole.whole().unwrap();
    assert_eq!(
        (&*call.payload, &*call.affinity_key),
        (&b"payload"[..], "key")
    );
    // Nobody waits for it any more: it need not be sent.
    assert_eq!(left(&mut slots, 30 * SECOND), None);
    close(&mut slots, &ticket);
    assert_eq!(left(&mut slots, 12 * SECOND), None);
}

#[test]
fn uploads_take_turns_however_much_credit_one_is_given() {
    let mut slots = slots();
    let calls = [(); 2].map(|()| {
        let call = open(&mut slots, 0);
        slots.upload(call.index, call.call_id, upload(2_000, 1));
        call
    });
    for _ in 0..5 {
        let credit = node_reply::Body::Credit(common::Credit::of(2));
        assert!(reply(&mut slots, &calls[0], 0, credit).upload);
    }
    let credit = node_reply::Body::Credit(common::Credit::of(9));
    reply(&mut slots, &calls[1], 0, credit);
    let of = |frame: Frame| NodeRequest::decode(frame.payload).unwrap().call_id;
    let sent: Vec<u64> = (0..20).map(|_| of(slots.next_upload().unwrap())).collect();
    assert_eq!(sent, [calls[0].call_id, calls[1].call_id].repeat(10));
    assert_eq!(slots.next_upload().map(of), Some(calls[0].call_id));
    assert!(slots.next_upload().is_none() && !slots.uploads());
}
