//! A bridge: what carries named groups to other processes.

// Nothing attaches one without the feature `backplane`.
#![cfg_attr(not(feature = "backplane"), allow(dead_code))]

use super::Net;
use crate::core::Stopping;
use crate::message::Message;
use crate::notification::Notification;
use crate::token::Token;

/// Carries the messages of named groups to other processes. It only records what it is given; the work
/// is its handler's, which gets one [`Errand`] as a notification for all that is recorded until then.
///
/// Of several workers one has it, and it serves all of them: a name is gained with the first group on any
/// worker, and lost with the last.
pub(crate) trait Bridge {
    /// A name has got a group. May be called again for a name that was not lost.
    fn gained(&mut self, name: &[u8]);

    /// The last member of a name is gone. May be called for one that is lost already.
    fn lost(&mut self, name: &[u8]);

    /// Another bridge has its place from now on.
    fn replaced(&mut self) {}

    /// Nothing that is recorded waits for a connection that is there.
    fn is_done(&self) -> bool {
        true
    }

    /// The connection that takes up what is recorded, if there is one.
    fn handler(&self) -> Option<Token>;

    /// All its connections.
    fn connections(&self) -> Vec<Token>;

    /// How many messages a connection is to get in answer to what it has sent.
    fn answers(&self, connection: Token) -> usize;

    /// A message was published by name, with a key if it replaces older ones of that key. What came through
    /// the bridge itself is not offered to it.
    fn published(&mut self, name: &[u8], message: Message<&[u8]>, key: Option<u64>);
}

/// The notification of a bridge's handler: something is recorded.
pub(crate) struct Errand;

/// The bridge of a reactor.
pub(crate) struct Attached {
    bridge: Box<dyn Bridge>,
    /// Which handler has a notification under way.
    told: Option<Token>,
}

/// Attaching and detaching, for the bridge itself.
impl<S> Net<S> {
    /// Attaches a bridge, in place of the one before. It is told of the names that there are. While it has no
    /// handler it records, and nobody is notified.
    ///
    /// # Errors
    /// Another worker has one: its number.
    pub(crate) fn attach_bridge(&mut self, bridge: Box<dyn Bridge>) -> Result<(), usize> {
        let attached = Attached { bridge, told: None };
        let interconnect = self.interconnect.get_or_insert_default();
        if let Some(desk) = &mut interconnect.desk {
            desk.takes_the_bridge()?;
        }
        if let Some(mut before) = interconnect.bridge.replace(attached) {
            before.bridge.replaced();
        }
        self.core.groups.removed_names.get_or_insert_default();
        let names = match &mut interconnect.desk {
            None => {
                let mut names: Vec<_> = self.core.groups.all_names().map(Box::from).collect();
                names.sort_unstable(); // that of a hash table differs from run to run
                names
            }
            Some(desk) => desk.all_names(),
        };
        for name in names {
            self.tell_bridge(|bridge| bridge.gained(&name));
        }
        Ok(())
    }

    /// Takes the bridge away.
    pub(crate) fn detach_bridge(&mut self) {
        if let Some(interconnect) = &mut self.interconnect {
            interconnect.bridge = None;
            if let Some(desk) = &mut interconnect.desk {
                desk.leaves_the_bridge();
            }
        }
    }

    /// Whether this worker or another one has a group of that name.
    pub(crate) fn is_name_known(&self, name: &[u8]) -> bool {
        match self.own_desk() {
            Some(desk) => desk.is_known(name),
            None => self.find_group(name).is_some(),
        }
    }

    /// The bridge's handler takes up what is recorded: the next record notifies it again.
    pub(crate) fn errand_is_run(&mut self) {
        if let Some(attached) = self.bridge_mut() {
            attached.told = None;
        }
    }

    /// A message has come through the bridge: it is for the members of all workers.
    pub(crate) fn publish_from_beyond(
        &mut self,
        name: &[u8],
        message: Message<&[u8]>,
        key: Option<u64>,
    ) {
        if let Some(desk) = self.desk() {
            desk.publish(name, message, key, true);
        }
        self.publish_here(name, message, None, key);
    }

    /// Whether a shutdown is in progress, or the reactor is being dropped.
    pub(crate) fn is_ending(&self) -> bool {
        self.core.ended || matches!(self.core.stopping, Stopping::Draining(_))
    }
}

/// What a reactor wants of its bridge, if it has one.
impl<S> Net<S> {
    fn bridge_mut(&mut self) -> Option<&mut Attached> {
        self.interconnect.as_mut()?.bridge.as_mut()
    }

    fn bridge(&self) -> Option<&Attached> {
        self.interconnect.as_ref()?.bridge.as_ref()
    }

    /// Lets it record something, and notifies its handler if that is not notified yet.
    pub(super) fn tell_bridge(&mut self, record: impl FnOnce(&mut dyn Bridge)) {
        let Some(attached) = self.bridge_mut() else { return };
        record(&mut *attached.bridge);
        // One that has ended since runs no errand: the next one is notified.
        let handler = attached.bridge.handler();
        if let Some(handler) = handler.filter(|_| attached.told != handler) {
            attached.told = Some(handler);
            self.core.notifications.push_back((handler, Notification::new(Errand)));
        }
    }

    /// The units of what a connection of the bridge is to get in answer to what it has sent. They come on top
    /// of its share of a turn: posts, other workers and timers publish without units of their own.
    pub(crate) fn bridge_answers(&self, connection: Token) -> usize {
        self.bridge().map_or(0, |attached| attached.bridge.answers(connection))
    }

    /// Whether it has handed on what it has recorded.
    pub(crate) fn is_bridge_done(&self) -> bool {
        self.bridge().is_none_or(|attached| attached.bridge.is_done())
    }

    /// Its open connections. A shutdown closes them when all others have ended.
    pub(crate) fn bridge_connections(&self) -> Vec<Token> {
        let mut tokens =
            self.bridge().map_or_else(Vec::new, |attached| attached.bridge.connections());
        tokens.retain(|&token| self.core.stream(token).is_some());
        tokens
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;
    use std::time::Duration;

    use super::*;
    use crate::{Context, Handler, HandlerResult, Input, MessageKind, Reactor};

    type Book = Rc<RefCell<Vec<String>>>;

    struct Recorder(Book, Token);

    impl Recorder {
        fn note(&mut self, what: &str, name: &[u8]) {
            self.0.borrow_mut().push(format!("{what} {}", String::from_utf8_lossy(name)));
        }
    }

    impl Bridge for Recorder {
        fn gained(&mut self, name: &[u8]) {
            self.note("gained", name);
        }
        fn lost(&mut self, name: &[u8]) {
            self.note("lost", name);
        }
        fn handler(&self) -> Option<Token> {
            Some(self.1)
        }
        fn connections(&self) -> Vec<Token> {
            vec![self.1]
        }
        fn answers(&self, connection: Token) -> usize {
            assert_eq!(connection, self.1);
            3
        }
        fn published(&mut self, name: &[u8], message: Message<&[u8]>, key: Option<u64>) {
            let Message { bytes, kind } = message;
            assert_eq!(kind, MessageKind::Text);
            let text = format!("published {} {key:?} in", String::from_utf8_lossy(bytes));
            self.note(&text, name);
        }
    }

    /// Notes the errands of its bridge, and is a member.
    struct Carrier(Book);

    impl Handler for Carrier {
        fn on_data(&mut self, _: &mut Context<'_>, input: &mut Input<'_>) -> HandlerResult {
            input.take_all();
            Ok(())
        }
        fn on_notify(&mut self, cx: &mut Context<'_>, value: Notification) -> HandlerResult {
            assert!(value.is::<Errand>());
            cx.net.errand_is_run();
            self.0.borrow_mut().push("errand".into());
            Ok(())
        }
    }

    #[test]
    fn a_bridge_hears_of_names_and_of_what_is_published_to_them_once() {
        let book = Book::default();
        let mut reactor = Reactor::new().unwrap();
        let turn = |reactor: &mut Reactor| {
            for _ in 0..3 {
                assert!(reactor.turn(Some(Duration::ZERO)).unwrap().is_continue());
            }
        };
        let heard = || book.take().join(", ");
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let member = reactor.net().adopt(ours, Carrier(Rc::clone(&book))).unwrap();
        turn(&mut reactor);
        let early = reactor.net().group("early");
        assert!(reactor.net().join(early, member));
        reactor.net().attach_bridge(Box::new(Recorder(Rc::clone(&book), member))).unwrap();
        let net = reactor.net();
        assert_eq!(net.publish_named("room", Message::text("0")).members, 0);
        let room = net.group("room");
        assert!(net.join(room, member));
        assert_eq!(net.group("room"), room, "which is no second one");
        assert_eq!(net.publish_named("room", Message::text("1")).members, 1);
        net.publish_named_latest("room", 7, Message::text("2"));
        net.publish_here(b"room", Message::text(&b"from beyond"[..]), None, None);
        net.publish(room, Message::text("to this reactor alone"));
        let all = "gained early, published 0 None in room, gained room, published 1 None in room, \
                   published 2 Some(7) in room";
        assert_eq!(heard(), all);
        turn(&mut reactor);
        assert_eq!(heard(), "errand", "one for all of it");
        // Left and joined again in one turn: it was never lost.
        let net = reactor.net();
        assert!(net.leave(room, member) && net.join(room, member));
        net.remove_group(early);
        let early = net.group("early");
        assert!(net.join(early, member));
        turn(&mut reactor);
        assert_eq!(heard(), "gained early, errand");
        drop(theirs);
        while reactor.net().is_open(member) {
            assert!(reactor.turn(None).unwrap().is_continue());
        }
        turn(&mut reactor);
        let mut lost: Vec<String> = book.take();
        lost.sort();
        assert_eq!(lost.join(", "), "lost early, lost room");
    }

    // row 278
    #[test]
    fn a_trunk_is_served_where_a_turn_has_no_limit() {
        use std::io::Write;
        let config = crate::Config::new().work_per_turn(usize::MAX).messages_per_turn(1);
        let mut reactor = Reactor::build(config, |_| Ok(())).unwrap();
        let (ours, mut theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let options = crate::StreamOptions::new().trunk(true);
        let adopt = crate::Adopt::from(ours).options(options).layer(crate::layer::Lines::new());
        let book = Book::default();
        let member = reactor.net().adopt(adopt, Carrier(Rc::clone(&book))).unwrap();
        reactor.net().attach_bridge(Box::new(Recorder(book, member))).unwrap();
        for _ in 0..5 {
            theirs.write_all(b"1\n2\n3\n").unwrap();
            assert!(reactor.turn(Some(Duration::ZERO)).unwrap().is_continue());
        }
    }
}
