//! Groups.

use super::Net;
use crate::connection::Stream;
use crate::core::{GroupStats, Published};
use crate::message::{IntoMessage, Message};
use crate::token::{Group, Token};

/// Groups.
impl<S> Net<S> {
    /// Creates a group without members and without a name. It exists until
    /// [`remove_group`](Self::remove_group).
    ///
    /// # Panics
    /// More than 2^32 groups (2^20 on 32-bit targets) exist at once.
    pub fn create_group(&mut self) -> Group {
        self.core.groups.create().expect("more groups than can be named")
    }

    /// The group with this name, for a connection to join; creates it if there is none.
    ///
    /// A named group exists as long as it has members: an empty one is removed at the end of the
    /// turn. So look it up by name each time and do not store its [`Group`]. For a group that
    /// outlives its members use [`create_group`](Self::create_group). To publish, use
    /// [`publish_named`](Self::publish_named), or [`find_group`](Self::find_group) for the members of
    /// this reactor alone; neither creates one.
    ///
    /// A name is any bytes, and its memory is twice its length. If peers choose names, the handler
    /// must limit their length.
    ///
    /// # Panics
    /// More than 2^32 groups (2^20 on 32-bit targets) exist at once.
    pub fn group(&mut self, name: impl AsRef<[u8]>) -> Group {
        let name = name.as_ref();
        if self.interconnect.is_some() && self.core.groups.find(name).is_none() {
            self.name_gained(name);
        }
        self.core.groups.named(name).expect("more groups than can be named")
    }

    /// The group with this name; `None` if there is none.
    pub fn find_group(&self, name: impl AsRef<[u8]>) -> Option<Group> {
        self.core.groups.find(name.as_ref())
    }

    /// Removes a group and its name. Its members stay open, and messages published before are still
    /// delivered.
    pub fn remove_group(&mut self, group: Group) {
        self.core.remove_group(group);
    }

    /// Adds a connection to a group. It receives what is published from now on, and leaves by
    /// itself when it closes. `false` if the group or the connection no longer exists.
    ///
    /// A connection may be in any number of groups: the cost of joining, leaving and delivering
    /// does not depend on how many.
    pub fn join(&mut self, group: Group, member: Token) -> bool {
        self.core.join(group, member)
    }

    /// Removes a connection from a group. Messages published before are still delivered. `false` if
    /// it was not a member.
    pub fn leave(&mut self, group: Group, member: Token) -> bool {
        self.core.leave(group, member)
    }

    /// Whether a connection is a member of a group.
    pub fn is_member(&self, group: Group, member: Token) -> bool {
        self.core.groups.is_member(group, member)
    }

    /// The members of a group, in no particular order.
    pub fn members(&self, group: Group) -> &[Token] {
        self.core.groups.members(group)
    }

    /// The counters of a group; `None` if it no longer exists.
    pub fn group_stats(&self, group: Group) -> Option<GroupStats> {
        self.core.groups.stats(group)
    }

    /// Sends a message to all members. Returns how many these are, and how many deliveries of earlier
    /// messages were dropped or replaced since the last publish.
    ///
    /// The message is stored once. It is written at the end of the turn, or in one of the next
    /// turns if the work exceeds [`Config::work_per_turn`](crate::Config::work_per_turn). The
    /// limits of each member apply to a member that does not read;
    /// [`group_stats`](Self::group_stats) counts the messages that were dropped.
    pub fn publish(&mut self, group: Group, message: impl IntoMessage) -> Published {
        let Message { bytes, kind } = message.into_message();
        self.core.publish(group, bytes.as_ref(), kind, None)
    }

    /// Sends a message to all members except one token, which need not be a member. Returns the same as
    /// [`publish`](Self::publish), without that one.
    pub fn publish_except(
        &mut self,
        group: Group,
        except: Token,
        message: impl IntoMessage,
    ) -> Published {
        let Message { bytes, kind } = message.into_message();
        self.core.publish(group, bytes.as_ref(), kind, Some(except))
    }

    /// Sends a value of which only the newest counts (the price of the symbol `key`, the position of the
    /// player `key`) to all members, for feeds with slow readers.
    ///
    /// - A member that keeps up gets every value, as by [`publish`](Self::publish), and at its cost.
    /// - A member has *fallen behind* when its system takes no more and over
    ///   [`behind_above`](crate::StreamOptions::behind_above) bytes would be queued for it. From then on
    ///   values for it wait as by [`send_latest`](Self::send_latest): it gets the newest of each key,
    ///   and a key that changes a hundred times meanwhile costs it one message. Nobody is closed for
    ///   that, and what waits is as much as there are keys.
    /// - It has caught up when nothing waits for it any more. Then it gets every value again.
    /// - A member that is a session of a UDP peer gets every value as by `publish`, in a datagram of its
    ///   own: it never falls behind, and none replaces another. What its socket's queue has no room for
    ///   is dropped.
    ///
    /// No member gets a value of a key behind a newer one, and each gets the last one, unless its
    /// [`output_limit`](crate::StreamOptions::output_limit) has refused it. Keys are those of the
    /// *member*: values of two groups, or of `send_latest`, replace each other if their keys are equal.
    /// The other rules are those of `publish`; a value counts 16 bytes more towards
    /// [`Config::group_log`](crate::Config::group_log).
    ///
    /// For [`group_stats`](Self::group_stats) a delivery that took the place of an older value is
    /// `replaced`; [`newest_stats`](Self::newest_stats) has the same of each member.
    pub fn publish_latest(
        &mut self,
        group: Group,
        key: u64,
        message: impl IntoMessage,
    ) -> Published {
        let Message { bytes, kind } = message.into_message();
        self.core.publish_latest(group, key, bytes.as_ref(), kind, None)
    }

    /// The same for all members except one token, which need not be a member.
    pub fn publish_latest_except(
        &mut self,
        group: Group,
        except: Token,
        key: u64,
        message: impl IntoMessage,
    ) -> Published {
        let Message { bytes, kind } = message.into_message();
        self.core.publish_latest(group, key, bytes.as_ref(), kind, Some(except))
    }

    /// The members of a group that have fallen behind ([`is_behind`](Self::is_behind)), in no
    /// particular order. Costs a look at each member.
    pub fn members_behind(&self, group: Group) -> impl Iterator<Item = Token> {
        let members = self.core.groups.members(group).iter().copied();
        members.filter(|&member| self.core.stream(member).is_some_and(Stream::is_behind))
    }
}
