//! Where nobody serves a call, or only those that are about to leave.

use super::*;

#[test]
fn a_node_that_stops_still_serves_its_own_calls_where_nobody_else_does() {
    let of = |rows: &[_], node, stopping| {
        let ask = Ask {
            node,
            stopping,
            ..ASK
        };
        ask.of(&table(rows)).ok()
    };
    let draining = ("a", "1.0.0", "n", Draining);
    assert_eq!(of(&[draining], "n", true), Some(0));
    assert_eq!(of(&[draining], "n", false), None);
    assert_eq!(of(&[draining], "m", true), None);
    let other = ("a", "1.0.0", "o", Degraded);
    assert_eq!(of(&[draining, other], "n", true), Some(1));
}

#[test]
fn a_refusal_says_why_of_each_instance() {
    let rows = [
        ("a", "1.0.0", "m", Blocked),
        ("a", "1.0.0", "n", Draining),
        ("a", "1.0.0", "o", Active),
    ];
    assert_eq!(
        Ask {
            avoid: vec![2],
            plugin: Some("a"),
            ..ASK
        }
        .of(&table(&rows))
        .expect_err("none"),
        "unavailable: 3 instances provide service:add, none takes this call now: a@1.0.0 on m: \
         blocked, needs time ^1, which nobody provides; a@1.0.0 on n: draining; a@1.0.0 on o: has \
         failed this call already (plugin a)"
    );
    let many = table(&[rows[1]; 7]);
    let line = ASK.of(&many).expect_err("none");
    assert!(line.ends_with("; and 3 more"), "{line}");
}
