//! Orders, losses and counts of what is to go out.

use super::*;

const A: NodeId = NodeId::HOME;
const B: NodeId = NodeId::HOME.next();
const C: NodeId = B.next();

fn plain(slot: impl Into<u16>) -> Flow {
    Flow { slot: slot.into(), kept: false }
}

fn sent_to(outbox: &mut Outbox, node: NodeId) -> String {
    let mut batch = Vec::new();
    outbox.send(node, &mut batch, usize::MAX);
    String::from_utf8(batch).unwrap()
}

fn sent(outbox: &mut Outbox) -> String {
    sent_to(outbox, A)
}

fn push(outbox: &mut Outbox, text: &str) -> usize {
    let number = outbox.next_number();
    outbox.push(A, plain(0_u16), number, text.into()).len()
}

fn full(when_full: WhenFull) -> Outbox {
    let mut outbox = Outbox::new(4, when_full);
    for text in ["aa", "b", "c"] {
        assert_eq!(push(&mut outbox, text), 0);
    }
    outbox
}

// row 248
#[test]
fn a_full_queue_drops_its_oldest_or_refuses_and_counts() {
    let mut outbox = full(WhenFull::DropOldest);
    assert_eq!(push(&mut outbox, "d"), 1);
    assert_eq!(push(&mut outbox, "ee"), 1);
    assert_eq!(push(&mut outbox, "too long"), 1, "itself, and no other for it");
    assert_eq!(sent(&mut outbox), "cdee");

    let mut outbox = full(WhenFull::Refuse);
    assert_eq!(push(&mut outbox, "d"), 1);
    assert_eq!(sent(&mut outbox), "aabc");
    assert_eq!(push(&mut outbox, "d"), 1, "nothing is confirmed");
    outbox.confirmed(A);
    assert_eq!(push(&mut outbox, "dd"), 0);
    assert_eq!((outbox.bytes(), outbox.messages()), (4, 3));
}

// row 248
#[test]
fn what_was_not_confirmed_goes_out_again_before_what_waits() {
    let mut outbox = full(WhenFull::DropOldest);
    let mut batch = Vec::new();
    assert_eq!(outbox.send(A, &mut batch, 1), 1);
    assert_eq!(outbox.send(A, &mut batch, 3), 1);
    assert_eq!(batch, b"aab");
    outbox.confirmed(A);
    assert_eq!(outbox.unsend(A).0, 1);
    assert_eq!(sent(&mut outbox), "bc");
    assert_eq!((outbox.unsend(A).0, sent(&mut outbox)), (2, "bc".into()), "in their order");
    assert_eq!(push(&mut outbox, "ddd"), 1, "what is on its way is not dropped");
    for _ in 0..3 {
        outbox.confirmed(A);
    }
    assert_eq!((outbox.bytes(), outbox.messages()), (0, 0));
}

/// Six messages of two slots, of which the first node has got three.
fn half_sent() -> Outbox {
    let mut outbox = Outbox::new(100, WhenFull::DropOldest);
    for (at, text) in ["a0 ", "b1 ", "a2 ", "b3 ", "a4 ", "b5 "].iter().enumerate() {
        let slot = u16::from(text.as_bytes()[0]);
        assert_eq!(outbox.push(A, plain(slot), at as u64, (*text).into()).len(), 0);
    }
    let mut batch = Vec::new();
    assert_eq!(outbox.send(A, &mut batch, 9), 3);
    outbox
}

// row 270
#[test]
fn a_slot_that_moves_waits_for_the_answers_of_the_node_before() {
    let mut outbox = half_sent();
    let a_is_at = |to| move |slot| if slot == u16::from(b'a') { to } else { A };
    outbox.confirmed(A);
    outbox.confirmed(A);
    assert_eq!(outbox.next_flow(A), Some(plain(b'a')));
    assert!(outbox.refused(A).is_none(), "it is not known that the slot is elsewhere");
    outbox.reroute(a_is_at(B));
    outbox.push(B, plain(b'a'), 6, b"a6 ".into());
    assert_eq!(sent_to(&mut outbox, B), "", "it would overtake");
    outbox.reroute(a_is_at(C));
    assert!(outbox.refused(A).is_some());
    assert_eq!((sent_to(&mut outbox, B), sent_to(&mut outbox, C)), ("".into(), "a2 a4 a6 ".into()));
    assert_eq!(sent_to(&mut outbox, A), "b3 b5 ");
    outbox.reroute(a_is_at(A));
    for _ in 0..3 {
        outbox.confirmed(C);
    }
    outbox.confirmed(A);
    outbox.confirmed(A);
    assert_eq!((outbox.bytes(), outbox.messages()), (0, 0));
}

// row 270
#[test]
fn a_node_that_is_lost_while_a_slot_leaves_it_gives_up_all_of_the_slot() {
    let mut outbox = half_sent();
    outbox.reroute(|slot| if slot == u16::from(b'a') { B } else { A });
    assert!(outbox.refused(A).is_some());
    assert_eq!(sent_to(&mut outbox, B), "");
    assert_eq!(outbox.unsend(A).0, 2);
    assert_eq!(sent_to(&mut outbox, B), "a0 a2 a4 ");
    assert_eq!(sent_to(&mut outbox, A), "b1 b3 b5 ");
    // And the whole node.
    outbox.reroute(|_| B);
    assert_eq!(outbox.unsend(A).0, 3);
    assert_eq!(sent_to(&mut outbox, B), "b1 b3 b5 ");
    for _ in 0..6 {
        outbox.confirmed(B);
    }
    assert_eq!((outbox.bytes(), outbox.messages()), (0, 0));
}

// row 290
#[test]
fn what_is_put_off_holds_back_its_own_flow_and_is_tried_with_one_message() {
    let mut outbox = half_sent();
    let (a, b) = (plain(b'a'), plain(b'b'));
    assert_eq!(outbox.put_off(A), (Answered::default(), Some(0)));
    outbox.confirmed(A); // b1
    assert_eq!(outbox.put_off(A), (Answered::default(), None), "a2, with a time chosen");
    outbox.push(A, a, 6, b"a6 ".into());
    assert_eq!(sent(&mut outbox), "b3 b5 ", "others go on");
    outbox.try_again(A, a);
    assert_eq!((sent(&mut outbox), sent(&mut outbox)), ("a0 ".into(), "".into()));
    for _ in 0..2 {
        assert!(!outbox.confirmed(A).lets_go);
    }
    assert_eq!(outbox.put_off(A), (Answered::default(), Some(1)));
    outbox.push(A, b, 7, b"b7 ".into());
    assert_eq!(sent(&mut outbox), "b7 ");
    outbox.confirmed(A);
    outbox.try_again(A, a);
    assert_eq!(sent(&mut outbox), "a0 ");
    let over = Answered { lets_go: true, is_over: true, renumbered: Vec::new() };
    assert_eq!(outbox.confirmed(A), over);
    assert_eq!(sent(&mut outbox), "a2 a4 a6 ");
    assert_eq!(outbox.put_off(A), (Answered::default(), Some(0)), "anew");
    // On the next connection all of it goes out in its order.
    outbox.push(A, b, 8, b"b8 ".into());
    assert_eq!(outbox.unsend(A), (2, Vec::new()));
    assert_eq!(sent(&mut outbox), "a2 a4 a6 b8 ");
    for _ in 0..4 {
        outbox.confirmed(A);
    }
    assert_eq!((outbox.bytes(), outbox.messages()), (0, 0));
}

// row 290
#[test]
fn flows_that_are_put_off_do_not_get_in_each_others_way() {
    let mut outbox = Outbox::new(100, WhenFull::DropOldest);
    for (number, text) in [(1, "a1 "), (2, "b2 "), (3, "c3 ")] {
        outbox.push(A, plain(text.as_bytes()[0]), number, text.into());
    }
    sent(&mut outbox);
    outbox.put_off(A);
    outbox.put_off(A);
    outbox.try_again(A, plain(b'b'));
    outbox.try_again(A, plain(b'a'));
    assert_eq!(outbox.put_off(A).1, Some(0), "before they are sent");
    assert_eq!(sent(&mut outbox), "a1 b2 ");
    for _ in 0..2 {
        assert!(outbox.confirmed(A).lets_go);
    }
    outbox.try_again(A, plain(b'c'));
    assert_eq!(sent(&mut outbox), "c3 ");
}

// row 290
#[test]
fn what_is_put_off_goes_where_its_slot_goes() {
    let a_is_at = |to| move |slot| if slot == u16::from(b'a') { to } else { A };
    let mut outbox = half_sent();
    outbox.put_off(A);
    outbox.confirmed(A);
    outbox.reroute(a_is_at(B));
    assert_eq!(sent_to(&mut outbox, B), "", "a2 is not answered");
    outbox.put_off(A);
    assert_eq!(sent_to(&mut outbox, B), "a0 a2 a4 ");
    // Also when one of it is about to be tried again.
    let mut outbox = half_sent();
    outbox.put_off(A);
    outbox.confirmed(A);
    outbox.put_off(A);
    outbox.try_again(A, plain(b'a'));
    outbox.reroute(a_is_at(B));
    assert_eq!((sent(&mut outbox), sent_to(&mut outbox, B)), ("b3 b5 ".into(), "a0 a2 a4 ".into()));
}

// row 290
#[test]
fn how_often_a_flow_was_refused_is_known_on_the_next_connection() {
    let mut outbox = half_sent();
    assert_eq!(outbox.count_refusal(A), 1);
    outbox.unsend(A);
    let kept = Flow { slot: 7, kept: true };
    outbox.push(A, kept, 6, b"k".into());
    sent(&mut outbox);
    assert_eq!(outbox.count_refusal(A), 2);
    assert!(outbox.confirmed(A).is_over);
    assert!(!outbox.confirmed(A).is_over, "of the other flow");
}

// row 291
#[test]
fn what_was_overtaken_gets_a_new_number_and_so_does_what_follows() {
    let mut outbox = Outbox::new(1000, WhenFull::DropOldest);
    for _ in 1..=5 {
        let number = outbox.next_number();
        outbox.push(A, plain(1_u16), number, vec![b'0' + number as u8]);
    }
    let mut batch = Vec::new();
    assert_eq!(outbox.send(A, &mut batch, 4), 4);
    // Two may be there from the connection before.
    outbox.unsend(A);
    batch.clear();
    outbox.send(A, &mut batch, 2);
    outbox.confirmed(A);
    outbox.confirmed(A);
    outbox.push(A, plain(1_u16), 6, b"6".into());
    assert_eq!(outbox.next_number(), 6);
    batch.clear();
    assert_eq!(outbox.send(A, &mut batch, 4), 4);
    assert_eq!(batch, b"3456");
    outbox.put_off(A); // 3
    outbox.confirmed(A); // 4
    outbox.put_off(A); // 5
    let (answered, _) = outbox.put_off(A);
    assert_eq!(answered.renumbered, [(5, 7), (6, 8)], "3 may be there under its number");
    outbox.push(A, plain(1_u16), 9, b"9".into());
    assert_eq!(outbox.next_number(), 9);
    outbox.unsend(A);
    assert_eq!(sent(&mut outbox), "3569");
}

// row 270
#[test]
fn what_waits_for_a_slot_that_moves_is_dropped_in_its_turn() {
    let mut outbox = Outbox::new(3, WhenFull::DropOldest);
    outbox.push(A, plain(1_u16), 1, b"1".into());
    sent(&mut outbox);
    outbox.reroute(|_| B);
    outbox.push(B, plain(1_u16), 2, b"2".into());
    outbox.push(B, plain(9_u16), 3, b"3".into());
    assert_eq!(outbox.push(B, plain(9_u16), 4, b"4".into()), [2]);
    assert_eq!(sent_to(&mut outbox, B), "34");
    assert!(outbox.refused(A).is_some());
    assert_eq!(sent_to(&mut outbox, B), "1");
}

// row 248
#[test]
fn the_oldest_of_all_that_waits_is_dropped_first() {
    let mut outbox = Outbox::new(3, WhenFull::DropOldest);
    outbox.push(A, plain(1_u16), 1, b"1".into());
    sent(&mut outbox);
    outbox.push(C, plain(3_u16), 2, b"2".into());
    outbox.push(B, plain(2_u16), 3, b"3".into());
    // The first one comes to a node for which a later one waits already.
    outbox.reroute(|slot| if slot == 3 { C } else { B });
    assert!(outbox.refused(A).is_some());
    assert_eq!(outbox.push(C, plain(3_u16), 4, b"4".into()), [1]);
    assert_eq!(outbox.push(C, plain(3_u16), 5, b"5".into()), [2]);
    assert_eq!((sent_to(&mut outbox, B), sent_to(&mut outbox, C)), ("3".into(), "45".into()));
}

// row 270
#[test]
fn what_was_to_go_to_one_server_goes_to_the_nodes_of_a_cluster() {
    use crate::layer::resp::Command;
    let mut outbox = Outbox::new(1000, WhenFull::DropOldest);
    let said = Command::encode(&["PUBLISH", "b\r\n", "hello"]);
    let kept = Command::encode(&["XADD", "aa", "MAXLEN", "~", "9", "*", "m", "hi"]);
    let length = (said.len(), kept.len());
    outbox.push(A, plain(0_u16), 1, said);
    outbox.push(A, Flow { slot: 0, kept: true }, 2, kept.clone());
    outbox.becomes_sharded(|key| key.len() as u16);
    outbox.reroute(|slot| if slot == 2 { C } else { B });
    let sharded = Command::encode(&["SPUBLISH", "b\r\n", "hello"]);
    assert_eq!(outbox.bytes(), length.0 + 1 + length.1);
    assert_eq!(sent_to(&mut outbox, B).into_bytes(), sharded);
    assert_eq!(outbox.next_flow(B), Some(plain(3_u16)));
    assert_eq!(outbox.unconfirmed(b"aa"), [(2, &b"hi"[..])]);
    assert_eq!(outbox.unconfirmed(b"b\r\n"), [(1, &b"hello"[..])]);
    assert_eq!(outbox.unconfirmed(b"a"), []);
    assert_eq!(sent_to(&mut outbox, C).into_bytes(), kept);
    assert_eq!(outbox.next_flow(C), Some(Flow { slot: 2, kept: true }));
}

// row 290
#[test]
fn what_is_tried_again_and_dropped_before_it_is_sent_frees_its_flow() {
    let command = |n: u64| format!("*3\r\n$4\r\nXADD\r\n$1\r\nk\r\n$4\r\n{n:04}\r\n").into_bytes();
    let (kept, other) = (Flow { slot: 0, kept: true }, Flow { slot: 0, kept: false });
    let mut outbox = Outbox::new(3 * command(1).len(), WhenFull::DropOldest);
    let say = |outbox: &mut Outbox, flow| {
        let number = outbox.next_number();
        outbox.push(A, flow, number, command(number))
    };
    say(&mut outbox, kept);
    sent(&mut outbox);
    assert_eq!(outbox.put_off(A).1, Some(0));
    say(&mut outbox, kept);
    outbox.try_again(A, kept); // its socket is above its mark: nothing is sent yet
    say(&mut outbox, other);
    assert_eq!(say(&mut outbox, other), [1], "the oldest goes");
    assert_eq!(say(&mut outbox, other), [2], "and then the one that is tried in its place");
    sent(&mut outbox);
    while outbox.next_flow(A).is_some() {
        outbox.confirmed(A);
    }
    say(&mut outbox, kept);
    assert!(sent(&mut outbox).ends_with("0006\r\n"));
}

// row 290
#[test]
fn what_was_put_off_goes_out_again_when_its_connection_ends_whatever_the_map_said_meanwhile() {
    let mut outbox = Outbox::new(1000, WhenFull::DropOldest);
    push(&mut outbox, "a");
    sent(&mut outbox);
    outbox.put_off(A);
    outbox.reroute(|_| A);
    assert_eq!(outbox.unsend(A).0, 0);
    assert_eq!(sent(&mut outbox), "a");
}
