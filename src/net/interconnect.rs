//! What reaches beyond one reactor: the other workers of its service, and a bridge, which carries named groups
//! to other processes.
//!
//! A reactor without them pays a look at a null pointer for each turn and each message by name.

use super::Net;
use crate::core::{Arrived, Stopping};
use crate::message::Message;
use crate::notification::Notification;
use crate::token::Token;
use crate::workers::Desk;

/// Carries the messages of named groups to other processes. It only records what it is given; the work
/// is its handler's, which gets one [`Errand`] as a notification for all that is recorded until then.
///
/// Of several workers one has it, and it serves all of them: a name is gained with the first group on any
/// worker, and lost with the last.
#[allow(dead_code)] // without the feature `backplane`
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

    /// A message was published by name, with a key if it replaces older ones of that key. What came through
    /// the bridge itself is not offered to it.
    fn published(&mut self, name: &[u8], message: Message<&[u8]>, key: Option<u64>);
}

/// The notification of a bridge's handler: something is recorded.
pub(crate) struct Errand;

/// What reaches beyond this reactor.
pub(crate) struct Interconnect<S> {
    /// Its place among several workers.
    pub(crate) desk: Option<Desk<S>>,
    bridge: Option<Attached>,
}

impl<S> Default for Interconnect<S> {
    fn default() -> Self {
        Interconnect { desk: None, bridge: None }
    }
}

struct Attached {
    handler: Option<Token>,
    bridge: Box<dyn Bridge>,
    /// A second connection of the bridge.
    second: Option<Token>,
    /// The handler has a notification under way.
    told: bool,
}

impl<S> Interconnect<S> {
    pub(crate) fn of_worker(desk: Desk<S>) -> Box<Self> {
        Box::new(Interconnect { desk: Some(desk), bridge: None })
    }

    /// Lets the bridge record something. Returns its handler if that has to be notified.
    fn record(&mut self, record: impl FnOnce(&mut dyn Bridge)) -> Option<Token> {
        let attached = self.bridge.as_mut()?;
        record(&mut *attached.bridge);
        if std::mem::replace(&mut attached.told, true) { None } else { attached.handler }
    }
}

/// The bridge.
impl<S> Net<S> {
    /// Attaches a bridge, in place of the one before. It is told of the names that there are. Without a
    /// handler it records, and nobody is notified.
    ///
    /// # Errors
    /// Another worker has one: its number.
    #[allow(dead_code)] // without the feature `backplane`
    pub(crate) fn attach_bridge(
        &mut self,
        handler: impl Into<Option<Token>>,
        bridge: Box<dyn Bridge>,
    ) -> Result<(), usize> {
        let handler = handler.into();
        let attached = Attached { handler, bridge, second: None, told: false };
        let interconnect = self.interconnect.get_or_insert_default();
        if let Some(desk) = &mut interconnect.desk {
            desk.takes_the_bridge()?;
        }
        if let Some(mut before) = interconnect.bridge.replace(attached) {
            before.bridge.replaced();
        }
        self.core.groups.removed_names.get_or_insert_default();
        let names = match &mut interconnect.desk {
            None => self.core.groups.all_names().map(Box::from).collect(),
            Some(desk) => desk.all_names(),
        };
        for name in names {
            self.tell_bridge(|bridge| bridge.gained(&name));
        }
        Ok(())
    }

    /// The next connection of the bridge that is attached. It is not notified of what is recorded already.
    #[allow(dead_code)] // without the feature `backplane`
    pub(crate) fn set_bridge_handler(&mut self, handler: Token) {
        if let Some(interconnect) = &mut self.interconnect
            && let Some(attached) = &mut interconnect.bridge
        {
            attached.handler = Some(handler);
            attached.told = false;
        }
    }

    /// Whether the bridge has handed on what it has recorded.
    pub(crate) fn is_bridge_done(&self) -> bool {
        let attached = self.interconnect.as_ref().and_then(|i| i.bridge.as_ref());
        attached.is_none_or(|attached| attached.bridge.is_done())
    }

    /// Takes the bridge away.
    #[allow(dead_code)] // without the feature `backplane`
    pub(crate) fn detach_bridge(&mut self) {
        if let Some(interconnect) = &mut self.interconnect {
            interconnect.bridge = None;
            if let Some(desk) = &mut interconnect.desk {
                desk.leaves_the_bridge();
            }
        }
    }

    /// A bridge may have two connections.
    #[allow(dead_code)] // without the feature `backplane`
    pub(crate) fn set_second_bridge_handler(&mut self, second: Token) {
        if let Some(interconnect) = &mut self.interconnect
            && let Some(attached) = &mut interconnect.bridge
        {
            attached.second = Some(second);
        }
    }

    /// The open connections of the bridge. A shutdown closes them when all others have ended.
    pub(crate) fn bridge_connections(&self) -> impl Iterator<Item = Token> + Clone + use<S> {
        let attached = self.interconnect.as_ref().and_then(|i| i.bridge.as_ref());
        let tokens = attached.map_or([None; 2], |attached| [attached.handler, attached.second]);
        let is_there = |token: &Token| self.core.stream(*token).is_some();
        tokens.map(|token| token.filter(is_there)).into_iter().flatten()
    }

    /// Whether a shutdown is in progress, or the reactor is being dropped.
    #[allow(dead_code)] // without the feature `backplane`
    pub(crate) fn is_ending(&self) -> bool {
        self.core.ended || matches!(self.core.stopping, Stopping::Draining(_))
    }

    /// The bridge's handler takes up what is recorded: the next record notifies it again.
    #[allow(dead_code)] // without the feature `backplane`
    pub(crate) fn errand_is_run(&mut self) {
        if let Some(interconnect) = &mut self.interconnect
            && let Some(attached) = &mut interconnect.bridge
        {
            attached.told = false;
        }
    }

    /// A message has come through the bridge: it is for the members of all workers.
    #[allow(dead_code)] // without the feature `backplane`
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

    fn tell_bridge(&mut self, record: impl FnOnce(&mut dyn Bridge)) {
        let Some(interconnect) = &mut self.interconnect else { return };
        if let Some(handler) = interconnect.record(record) {
            self.core.notifications.push_back((handler, Notification::new(Errand)));
        }
    }
}

/// Names and messages by name.
impl<S> Net<S> {
    /// A group of that name is about to be made.
    #[cold]
    pub(super) fn name_gained(&mut self, name: &[u8]) {
        if let Some(desk) = self.desk() {
            if !desk.gain(name) {
                return;
            }
            desk.tell_bridge_elsewhere(name);
        }
        self.tell_bridge(|bridge| bridge.gained(name));
    }

    fn name_lost(&mut self, name: &[u8]) {
        if let Some(desk) = self.desk() {
            if !desk.lose(name) {
                return;
            }
            desk.tell_bridge_elsewhere(name);
        }
        self.tell_bridge(|bridge| bridge.lost(name));
    }

    /// The end of a turn: names whose last member is gone are lost, and what was said to other workers
    /// crosses.
    #[cold]
    pub(crate) fn reach_beyond(&mut self)
    where
        S: 'static,
    {
        if let Some(removed) = &mut self.core.groups.removed_names {
            for name in std::mem::take(removed) {
                // It may have been made anew meanwhile.
                if self.core.groups.find(&name).is_none() {
                    self.name_lost(&name);
                }
            }
        }
        if let Some(desk) = self.desk() {
            let crossed = desk.flush();
            self.core.work.counts.crossings += crossed;
        }
    }

    /// A message was published by name on this reactor.
    #[cold]
    pub(super) fn published_beyond(
        &mut self,
        name: &[u8],
        message: Message<&[u8]>,
        key: Option<u64>,
    ) {
        if let Some(desk) = self.desk() {
            desk.publish(name, message, key, false);
        }
        self.tell_bridge(|bridge| bridge.published(name, message, key));
    }
}

/// What other workers say.
impl<S> Net<S> {
    /// A message by name has crossed.
    pub(crate) fn said_elsewhere(
        &mut self,
        name: &[u8],
        message: Message<&[u8]>,
        key: Option<u64>,
        from_beyond: bool,
    ) {
        if !from_beyond {
            self.tell_bridge(|bridge| bridge.published(name, message, key));
        }
        self.publish_here(name, message, None, key);
    }

    /// A name has its first group, or has lost the last. The bridge hears whether it has one now: what workers
    /// say about it comes in any order.
    pub(crate) fn name_changed_elsewhere(&mut self, name: &[u8]) {
        let known = self.desk().is_some_and(|desk| desk.is_known(name));
        self.tell_bridge(|bridge| if known { bridge.gained(name) } else { bridge.lost(name) });
    }

    /// A connection has come from the acceptor of a shared port.
    pub(crate) fn connection_arrives(&mut self, arrived: Arrived) {
        let listener = arrived.place.listener();
        if let Some(entity) = self.core.listener_mut(listener)
            && let Some(share) = entity.share.as_mut().filter(|share| share.owns(&arrived.place))
        {
            share.arrived.push_back(arrived);
            return self.core.make_ready(listener);
        }
        arrived.pass_on();
    }

    /// Gives a connection to another worker, behind what was said to it before.
    pub(crate) fn carry(&mut self, arrived: Arrived) {
        match self.desk() {
            Some(desk) => desk.carry(arrived),
            None => arrived.pass_on(),
        }
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

    struct Recorder(Book);

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
        reactor.net().attach_bridge(member, Box::new(Recorder(Rc::clone(&book)))).unwrap();
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
}
