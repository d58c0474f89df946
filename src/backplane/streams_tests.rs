//! Places in streams, names that are refused, what is not read back.

use super::*;

#[test]
fn places_have_an_order_and_a_text() {
    for (text, id) in [("0-0", (0, 0)), ("1526919030474-55", (1_526_919_030_474, 55))] {
        assert_eq!(parse_id(text.as_bytes()), Some(id));
        assert_eq!(show_id(id), text);
    }
    for none in ["", "1", "1-", "-1", "a-1", "1-1-1"] {
        assert_eq!(parse_id(none.as_bytes()), None, "{none}");
    }
}

#[test]
fn a_read_holds_all_names_or_takes_turns() {
    let mut streams = Streams::new(Some((b"s/".to_vec(), 10)), 1000);
    assert_eq!((streams.keeps(b"s/a"), streams.keeps(b"a")), (Some(10), None));
    for name in [b"a", b"b", b"c"] {
        streams.want(name, true);
        streams.begin(name, (1, 0));
    }
    let names = |next| match next {
        Next::Read(names, count) => {
            let names: Vec<_> = names.iter().map(|(name, _)| name[0] as char).collect();
            (names.into_iter().collect::<String>(), count)
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(names(streams.next(Instant::now())), ("abc".into(), PAGE / 3));
    while streams.page > 2 {
        streams.ask_for_less();
    }
    assert!(streams.takes_turns());
    assert_eq!(names(streams.next(Instant::now())), ("ab".into(), 1));
    assert_eq!(names(streams.next(Instant::now())), ("ca".into(), 1));
    assert_eq!(names(streams.next(Instant::now())), ("bc".into(), 1));
    for _ in 0..GOOD {
        assert!(streams.takes_turns());
        streams.could_ask_for_more();
    }
    assert!(!streams.takes_turns() && streams.page == 4);
    let mut least = 0;
    while streams.ask_for_less() {
        least += 1;
    }
    assert_eq!((least, streams.page), (2, PAGE), "of one entry there is no less");
}

// row 248
#[test]
fn a_name_that_is_refused_is_left_alone_for_a_while() {
    let mut now = Instant::now();
    let mut streams = Streams::new(Some((Vec::new(), 10)), 1000);
    streams.want(b"a", true);
    streams.want(b"b", true);
    streams.begin(b"a", (1, 0));
    streams.begin(b"b", (1, 0));
    streams.doubt();
    assert!(matches!(streams.next(now), Next::Begin(name) if *name == *b"a"));
    assert!(streams.refuse(b"a", now));
    assert!(matches!(streams.next(now), Next::Begin(name) if *name == *b"b"));
    streams.begin(b"b", (9, 0));
    let only_b = vec![(Box::from(*b"b"), (1, 0))];
    assert!(matches!(streams.next(now), Next::Read(names, _) if names == only_b));
    now += REFUSED;
    assert!(matches!(streams.next(now), Next::Begin(name) if *name == *b"a"));
    assert!(!streams.refuse(b"a", now), "it is told once");
    assert!(matches!(streams.next(now), Next::Read(names, _) if names == only_b));
    now += REFUSED;
    streams.begin(b"a", (9, 0));
    assert!(matches!(streams.next(now), Next::Read(names, _) if names.len() == 2));
    assert!(streams.refuse(b"a", now), "again");
    streams.want(b"b", false);
    assert!(matches!(streams.next(now), Next::Nothing));
}

// row 275
#[test]
fn a_history_is_told_also_where_its_first_read_was_refused_and_a_newcomer_came_first() {
    let mut now = Instant::now();
    let mut streams = Streams::new(Some((Vec::new(), 10)), 1000);
    streams.want(b"a", true);
    streams.tell_history(b"a");
    assert!(matches!(streams.next(now), Next::Begin(_)));
    streams.refuse(b"a", now);
    streams.join(b"a", (5, 0));
    // From there on it is told what is said: the history goes up to there.
    assert!(streams.is_new(b"a", (6, 0), None, &[1; 16], |_| false));
    now += REFUSED;
    assert!(matches!(streams.next(now), Next::Begin(_)));
    assert_eq!(streams.begin(b"a", (7, 0)), Some((5, 0)));
    assert_eq!(streams.begin(b"a", (7, 0)), None, "once");
    // And one that is asked first goes up to the newest.
    streams.want(b"b", true);
    streams.tell_history(b"b");
    assert_eq!(streams.begin(b"b", (7, 0)), Some((7, 0)));
}

// row 248
#[test]
fn what_is_not_read_back_is_remembered_up_to_a_limit_of_all_names() {
    let mut streams = Streams::new(Some((Vec::new(), 10)), 1000);
    let large = [b'x'; 200];
    for name in [b"a", b"b"] {
        streams.want(name, true);
    }
    let numbers = |streams: &Streams, name: &[u8]| -> Vec<u64> {
        streams.open[name].unread.iter().map(|unread| unread.number).collect()
    };
    for number in 1..=20 {
        streams.said(if number % 2 == 0 { b"b" } else { b"a" }, number, Message::text(&large[..]));
        assert!(streams.unread_bytes <= 1000);
    }
    // The oldest of all names are forgotten.
    assert_eq!(numbers(&streams, b"a"), [17, 19]);
    assert_eq!(numbers(&streams, b"b"), [18, 20]);
    streams.forget(18);
    streams.forget(1);
    assert_eq!(numbers(&streams, b"b"), [20]);
    streams.read_back(b"a", 17, |_| false);
    streams.want(b"b", false);
    assert_eq!(numbers(&streams, b"a"), [19]);
    // It goes out under another number, and is read back under that.
    streams.renumber(19, 21);
    streams.read_back(b"a", 20, |_| false);
    assert_eq!(numbers(&streams, b"a"), [21]);
    streams.said(b"a", 22, Message::text(&[b'x'; 2000][..]));
    assert_eq!((numbers(&streams, b"a").len(), streams.unread_bytes), (0, 0));
}

// row 265
#[test]
fn a_name_is_not_forgotten_while_somebody_waits_for_its_history() {
    let mut streams = Streams::new(Some((Vec::new(), 10)), 1000);
    let token = Token::new(1, 1).unwrap();
    let newcomer = || Newcomer { token, name: (*b"a").into(), count: 1 };
    streams.want(b"a", true);
    streams.greet(newcomer());
    streams.greet(newcomer());
    assert!(matches!(streams.next(Instant::now()), Next::History(_)));
    streams.said(b"a", 1, Message::text(b"bye"));
    // The last member leaves.
    streams.want(b"a", false);
    streams.greeted(b"a");
    streams.want(b"a", false);
    assert_eq!(streams.unread(b"a").len(), 1);
    assert!(streams.is_unread(b"a", 1) && !streams.is_unread(b"a", 2));
    // Nobody waits any longer, and nobody is there.
    streams.greeted(b"a");
    streams.want(b"a", false);
    assert_eq!((streams.len(), streams.unread_bytes), (0, 0));
}

#[test]
fn an_entry_is_new_once() {
    let (own, other) = ([1; 16], [2; 16]);
    let mut streams = Streams::new(Some((Vec::new(), 10)), 1000);
    assert!(!streams.is_new(b"a", (1, 0), None, &own, |_| false), "nobody is there");
    assert_eq!(streams.join(b"a", (5, 0)), (5, 0));
    assert_eq!(streams.join(b"a", (9, 0)), (5, 0), "where the name's members are");
    assert!(!streams.is_new(b"a", (5, 0), None, &own, |_| false));
    assert!(streams.is_new(b"a", (5, 1), Some((other, 7)), &own, |_| false));
    assert!(!streams.is_new(b"a", (5, 2), Some((other, 7)), &own, |_| false), "sent again");
    streams.was_told(b"a", ([3; 16], 4));
    assert!(
        !streams.is_new(b"a", (5, 2), Some(([3; 16], 4)), &own, |_| false),
        "in a history, and sent again"
    );
    assert!(streams.is_new(b"a", (5, 3), Some((other, 8)), &own, |_| false));
    for number in 1..4 {
        streams.said(b"a", number, Message::text(b"x"));
    }
    assert!(!streams.is_new(b"a", (6, 0), Some((own, 2)), &own, |_| false));
    assert_eq!(streams.unread(b"a").len(), 1);
}

// row 291
#[test]
fn one_that_was_refused_and_overtaken_is_remembered_until_it_is_read_back() {
    let mut streams = Streams::new(Some((Vec::new(), 10)), 1000);
    streams.want(b"a", true);
    for number in 1..=4 {
        streams.said(b"a", number, Message::text(&b"x"[..]));
    }
    // The engine has lost 1, has refused 2, and has taken 3.
    streams.read_back(b"a", 3, |number| number == 2);
    streams.renumber(2, 5);
    assert_eq!(streams.unread(b"a").len(), 2, "a newcomer is to hear of it");
    streams.read_back(b"a", 5, |_| false);
    assert_eq!((streams.unread(b"a").len(), streams.unread_bytes), (0, 0));
}
