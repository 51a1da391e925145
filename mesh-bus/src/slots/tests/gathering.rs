//! Large results of many calls at once: what is put together stays within bounds, and each comes to its end.

use super::*;
use crate::line::TURN_US;

/// Room for two and a half parts; each node may send four before it gets credit.
fn narrow() -> Slots {
    let mut slots = slots();
    slots.limits.max_gathered = 250;
    slots
}

/// A part comes: the calls that get credit.
fn part(slots: &mut Slots, call: &Ticket, sequence: u64) -> Vec<u64> {
    credits(&reply(slots, call, 1, chunk(sequence, 100, true)))
}

fn credits(effects: &Effects) -> Vec<u64> {
    let requests = effects.send.iter().filter_map(|frame| {
        let request = NodeRequest::decode(frame.payload.clone()).unwrap();
        match request.body {
            Some(node_request::Body::Credit(credit)) if credit.chunks > 0 => Some(request.call_id),
            _ => None,
        }
    });
    requests.collect()
}

/// Two calls of which together more has come than there is room for: the second goes on, the first waits.
fn crowded(slots: &mut Slots) -> (Ticket, Ticket) {
    let (one, other) = (open(slots, 0), open(slots, 0));
    assert!(part(slots, &one, 0).is_empty());
    assert_eq!(part(slots, &one, 1), [one.call_id]);
    assert!(part(slots, &other, 0).is_empty());
    assert_eq!(slots.gathered.bytes(), 300);
    // No room any more, but one must go on.
    assert_eq!(part(slots, &other, 1), [other.call_id]);
    for sequence in 2..6 {
        assert!(part(slots, &one, sequence).is_empty());
    }
    assert!(part(slots, &other, 2).is_empty());
    assert_eq!(part(slots, &other, 3), [other.call_id]);
    (one, other)
}

#[test]
fn past_the_bound_one_answer_at_a_time_gets_credit_and_all_come_to_their_end() {
    let mut slots = narrow();
    let (one, other) = crowded(&mut slots);
    // All credit that the first has, even after the second has ended, and 600 bytes are still too much.
    assert_eq!(
        credits(&reply(&mut slots, &other, 2, result())),
        [one.call_id]
    );
    assert_eq!(slots.gathered.bytes(), 600);
    for sequence in 6..10 {
        part(&mut slots, &one, sequence);
    }
    reply(&mut slots, &one, 3, result());
    for (call, bytes) in [(&one, 1_000), (&other, 400)] {
        match take(&mut slots, call) {
            Some(CallEvent::End(Ok(output))) => assert_eq!(output.payload.len(), bytes),
            end => panic!("{end:?}"),
        }
    }
    assert_eq!(slots.gathered.bytes(), 0);
}

#[test]
fn a_call_that_is_given_up_makes_room_for_those_that_wait() {
    let mut slots = narrow();
    let (one, other) = crowded(&mut slots);
    assert!(!slots.looks_at_line());
    close(&mut slots, &other);
    assert!(slots.looks_at_line(), "nothing else may ever come");
    assert_eq!(slots.gathered.bytes(), 600);
    assert_eq!(credits(&sweep(&mut slots, 2)), [one.call_id]);
    close(&mut slots, &one);
    assert_eq!(slots.gathered.bytes(), 0);
}

#[test]
fn an_answer_that_trickles_keeps_others_waiting_for_a_while_only() {
    let mut slots = narrow();
    let (one, _other) = crowded(&mut slots);
    assert_eq!(slots.line.due(), 1 + TURN_US);
    assert!(credits(&sweep(&mut slots, TURN_US)).is_empty());
    assert_eq!(credits(&sweep(&mut slots, TURN_US + 1)), [one.call_id]);
    assert_eq!(
        slots.line.favoured(TURN_US + 1),
        Some((one.index, one.call_id))
    );
    assert_eq!(slots.line.due(), u64::MAX);
}
