//! Which topics this process wants, and which it is subscribed to.

use std::collections::{BTreeMap, VecDeque};

/// One topic.
#[derive(Debug, Default)]
struct Topic {
    /// It has members here.
    wanted: bool,
    /// A SUBSCRIBE was sent on this connection, and no UNSUBSCRIBE behind it.
    subscribed: bool,
    /// It is in one of the lists of changes.
    changed: bool,
    /// The program is told when it is subscribed, with all others of these.
    awaited: bool,
    /// How often in a row a SUBSCRIBE was refused for the moment.
    refusals: u32,
}

/// What has to be said to the engine about a topic.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    Subscribe,
    Unsubscribe,
}

/// The topics, by their names.
#[derive(Debug, Default)]
pub(super) struct Topics {
    topics: BTreeMap<Box<[u8]>, Topic>,
    changed: VecDeque<Box<[u8]>>,
    /// Changes that were refused for the moment.
    put_off: Vec<Box<[u8]>>,
    /// So many are awaited.
    awaited: usize,
}

impl Topics {
    /// A name has got its first member here, or has lost its last one.
    pub(super) fn want(&mut self, name: &[u8], wanted: bool) {
        match self.topics.get_mut(name) {
            Some(topic) => {
                topic.wanted = wanted;
                if !wanted && std::mem::take(&mut topic.awaited) {
                    self.awaited -= 1;
                }
                if !std::mem::replace(&mut topic.changed, true) {
                    self.changed.push_back(name.into());
                }
            }
            None if wanted => {
                let topic = Topic { wanted, changed: true, ..Topic::default() };
                self.topics.insert(name.into(), topic);
                self.changed.push_back(name.into());
            }
            None => {}
        }
    }

    /// Takes the next change: a topic that was left and joined again meanwhile is none.
    pub(super) fn next_change(&mut self) -> Option<(Change, Box<[u8]>)> {
        while let Some(name) = self.changed.pop_front() {
            let Some(topic) = self.topics.get_mut(&name) else { continue };
            let change = match (topic.wanted, topic.subscribed) {
                (true, false) => Some(Change::Subscribe),
                (false, true) => Some(Change::Unsubscribe),
                _ => None,
            };
            topic.changed = false;
            topic.subscribed = topic.wanted;
            if !topic.wanted {
                self.topics.remove(&name);
            }
            if let Some(change) = change {
                return Some((change, name));
            }
        }
        None
    }

    pub(super) fn has_changes(&self) -> bool {
        !self.changed.is_empty()
    }

    /// There is a connection: what is wanted now is awaited, and not what others want later.
    pub(super) fn connected(&mut self) {
        for topic in self.topics.values_mut() {
            topic.awaited = topic.wanted && !topic.subscribed;
        }
        self.awaited = self.topics.values().filter(|topic| topic.awaited).count();
    }

    /// A topic has come here from another node.
    pub(super) fn came(&mut self, name: &[u8]) {
        self.want(name, true);
        self.wait_for(name);
    }

    fn wait_for(&mut self, name: &[u8]) {
        let topic = self.topics.get_mut(name).filter(|topic| topic.wanted && !topic.subscribed);
        if let Some(topic) = topic
            && !std::mem::replace(&mut topic.awaited, true)
        {
            self.awaited += 1;
        }
    }

    /// Whether the program is not told yet that all is there.
    pub(super) fn is_awaited(&self) -> bool {
        self.awaited > 0
    }

    /// None of them can be subscribed.
    pub(super) fn wait_for_none(&mut self) {
        self.topics.values_mut().for_each(|topic| topic.awaited = false);
        self.awaited = 0;
    }

    /// Those that are wanted.
    pub(super) fn names(&self) -> impl Iterator<Item = &[u8]> {
        self.topics.iter().filter(|(_, topic)| topic.wanted).map(|(name, _)| &**name)
    }

    pub(super) fn wants(&self, name: &[u8]) -> bool {
        self.topics.get(name).is_some_and(|topic| topic.wanted)
    }

    /// The connection is gone, and all subscriptions with it: every wanted topic is a change.
    pub(super) fn disconnected(&mut self) {
        self.topics.retain(|_, topic| topic.wanted);
        self.changed = self.topics.keys().cloned().collect();
        self.put_off.clear();
        self.wait_for_none();
        for topic in self.topics.values_mut() {
            (topic.changed, topic.subscribed) = (true, false);
        }
    }

    /// The engine has subscribed this process, or never will. Whether it was refused for the moment before.
    pub(super) fn confirmed(&mut self, name: &[u8]) -> bool {
        let Some(topic) = self.topics.get_mut(name) else { return false };
        if std::mem::take(&mut topic.awaited) {
            self.awaited -= 1;
        }
        std::mem::take(&mut topic.refusals) > 0
    }

    /// The engine does not subscribe this process for the moment. `Some` says how often in a row it was so before,
    /// if the time for [`try_again`](Self::try_again) has to be chosen now.
    pub(super) fn put_off(&mut self, name: &[u8]) -> Option<u32> {
        let topic = self.topics.get_mut(name)?;
        topic.subscribed = false;
        let count = topic.refusals;
        topic.refusals = count.saturating_add(1);
        if std::mem::replace(&mut topic.changed, true) {
            return None;
        }
        self.put_off.push(name.into());
        (self.put_off.len() == 1).then_some(count)
    }

    /// What was put off is a change again.
    pub(super) fn try_again(&mut self) {
        self.changed.extend(self.put_off.drain(..));
    }

    /// The server has ended a subscription by itself: its slot is elsewhere. Whether there was one.
    pub(super) fn unsubscribed(&mut self, name: &[u8]) -> bool {
        let Some(topic) = self.topics.get_mut(name) else { return false };
        if !std::mem::take(&mut topic.subscribed) {
            return false;
        }
        if !std::mem::replace(&mut topic.changed, true) {
            self.changed.push_back(name.into());
        }
        self.wait_for(name);
        true
    }

    /// Takes the topics that go elsewhere, and adds those to `gone` that are wanted, and whether they were
    /// subscribed.
    pub(super) fn extract(
        &mut self,
        goes: impl Fn(&[u8]) -> bool,
        gone: &mut Vec<(Box<[u8]>, bool)>,
    ) {
        self.topics.retain(|name, topic| {
            let goes = goes(name);
            if goes && topic.wanted {
                gone.push((name.clone(), topic.subscribed));
            }
            !goes
        });
        let topics = &self.topics;
        self.awaited = topics.values().filter(|topic| topic.awaited).count();
        self.changed.retain(|name| topics.contains_key(name));
        self.put_off.retain(|name| topics.contains_key(name));
    }

    pub(super) fn len(&self) -> usize {
        self.names().count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(topics: &mut Topics) -> String {
        let next = std::iter::from_fn(|| topics.next_change());
        let mut said: Vec<String> = next
            .map(|(change, name)| format!("{change:?} {}", String::from_utf8_lossy(&name)))
            .collect();
        assert!(!topics.has_changes());
        said.sort();
        said.join(", ")
    }

    #[test]
    fn only_what_has_changed_in_the_end_is_said() {
        let mut topics = Topics::default();
        topics.want(b"a", true);
        topics.want(b"b", true);
        topics.want(b"b", false);
        topics.want(b"c", false);
        topics.want(b"a", true);
        assert_eq!(changes(&mut topics), "Subscribe a");
        topics.want(b"a", false);
        topics.want(b"a", true);
        assert_eq!(changes(&mut topics), "");
        topics.want(b"a", false);
        topics.want(b"d", true);
        assert_eq!(changes(&mut topics), "Subscribe d, Unsubscribe a");
        assert_eq!(topics.len(), 1);
        topics.want(b"e", true);
        topics.disconnected();
        assert_eq!(changes(&mut topics), "Subscribe d, Subscribe e");
        topics.want(b"e", false);
        topics.disconnected();
        assert_eq!(changes(&mut topics), "Subscribe d");
    }

    // row 264
    #[test]
    fn a_lost_connection_subscribes_again_in_the_order_of_the_names() {
        let mut topics = Topics::default();
        let names: Vec<String> = (10..60).map(|n| n.to_string()).collect();
        names.iter().rev().for_each(|name| topics.want(name.as_bytes(), true));
        changes(&mut topics);
        topics.disconnected();
        for name in names {
            assert_eq!(topics.next_change(), Some((Change::Subscribe, name.as_bytes().into())));
        }
    }

    // row 271
    #[test]
    fn a_topic_that_the_server_has_let_go_is_subscribed_again() {
        let mut topics = Topics::default();
        topics.want(b"a", true);
        assert!(!topics.unsubscribed(b"a"), "it is not yet");
        assert_eq!(changes(&mut topics), "Subscribe a");
        assert!(
            topics.unsubscribed(b"a") && !topics.unsubscribed(b"a") && !topics.unsubscribed(b"b")
        );
        assert_eq!(changes(&mut topics), "Subscribe a");
        topics.want(b"a", false);
        assert!(topics.unsubscribed(b"a"));
        assert_eq!(changes(&mut topics), "", "nobody wants it any longer");
    }

    // row 271
    #[test]
    fn topics_that_go_elsewhere_are_no_change_here() {
        let mut topics = Topics::default();
        for name in [b"a", b"b", b"c"] {
            topics.want(name, true);
        }
        assert_eq!(changes(&mut topics), "Subscribe a, Subscribe b, Subscribe c");
        topics.want(b"b", false);
        topics.want(b"d", true);
        let mut gone = Vec::new();
        topics.extract(|name| name != b"c", &mut gone);
        gone.sort();
        let gone: Vec<_> = gone.iter().map(|(name, subscribed)| (name[0], *subscribed)).collect();
        assert_eq!(gone, [(b'a', true), (b'd', false)]);
        assert_eq!((changes(&mut topics), topics.len()), (String::new(), 1));
    }
}
