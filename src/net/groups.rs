//! Groups.

use super::Net;
use crate::core::GroupStats;
use crate::message::{IntoMessage, Message};
use crate::token::{Group, Token};

/// Groups.
impl<S> Net<S> {
    /// Makes a group without members and without a name. It lasts until
    /// [`remove_group`](Self::remove_group).
    ///
    /// # Panics
    /// With more groups than 2^32 (2^20 on 32-bit targets) at once.
    pub fn create_group(&mut self) -> Group {
        self.core.groups.create().expect("more groups than can be named")
    }

    /// The group of that name, for a connection to join; makes it if there is none.
    ///
    /// A group with a name lasts as long as it has members: one without is removed at the end of the
    /// turn. So do not keep its [`Group`], but ask by name. A group that is to last without members
    /// is one without a name. To publish, use [`find_group`](Self::find_group), which makes none.
    ///
    /// A name is any bytes, and costs its length, twice. Names that peers choose need a limit of
    /// their length that the handler sets.
    ///
    /// # Panics
    /// With more groups than 2^32 (2^20 on 32-bit targets) at once.
    pub fn group(&mut self, name: impl AsRef<[u8]>) -> Group {
        self.core.groups.named(name.as_ref()).expect("more groups than can be named")
    }

    /// The group of that name, if there is one.
    pub fn find_group(&self, name: impl AsRef<[u8]>) -> Option<Group> {
        self.core.groups.find(name.as_ref())
    }

    /// Removes a group, and its name. Its members stay open; what was published is still delivered.
    pub fn remove_group(&mut self, group: Group) {
        self.core.remove_group(group);
    }

    /// Makes a connection a member; it receives what is published from now on, and leaves by itself
    /// when it closes. `false` if the group or the connection is gone.
    ///
    /// A connection may be in any number of groups: joining, leaving and delivering cost the same
    /// in each.
    pub fn join(&mut self, group: Group, member: Token) -> bool {
        self.core.join(group, member)
    }

    /// Takes a connection out of a group. What was published before is still delivered. `false` if
    /// it was no member.
    pub fn leave(&mut self, group: Group, member: Token) -> bool {
        self.core.leave(group, member)
    }

    /// Whether a connection is in a group.
    pub fn is_member(&self, group: Group, member: Token) -> bool {
        self.core.groups.is_member(group, member)
    }

    /// The members of a group, in no particular order.
    pub fn members(&self, group: Group) -> &[Token] {
        self.core.groups.members(group)
    }

    /// What is known of a group; `None` if it is gone.
    pub fn group_stats(&self, group: Group) -> Option<GroupStats> {
        self.core.groups.stats(group)
    }

    /// Sends to all members. Returns how many they are; zero also if the group is gone.
    ///
    /// The message is stored once, and leaves at the end of the turn, or of one of the next turns if
    /// the work is more than [`Config::work_per_turn`](crate::Config::work_per_turn). Each member's
    /// own limits decide what happens to one that does not read;
    /// [`group_stats`](Self::group_stats) counts what was dropped.
    pub fn publish(&mut self, group: Group, message: impl IntoMessage) -> usize {
        let Message { bytes, kind } = message.into_message();
        self.core.publish(group, bytes.as_ref(), kind, None)
    }

    /// Sends to all members but one, which need not be a member.
    pub fn publish_except(
        &mut self,
        group: Group,
        except: Token,
        message: impl IntoMessage,
    ) -> usize {
        let Message { bytes, kind } = message.into_message();
        self.core.publish(group, bytes.as_ref(), kind, Some(except))
    }
}
