//! Groups: one message to many members.
//!
//! What is published goes into the group's *log*, once, for any number of members. At the end of
//! the turn each member's socket gets its part of the log in one write. Only a member that does not
//! take it at once gets something queued, and where that is worth it, that is a reference to the
//! log, which all slow members share, and not a copy. So publishing costs the same for ten members
//! as for ten thousand, the end of the turn costs one write for each member, however many messages
//! there were, and a slow member delays no other.
//!
//! Order: a member receives direct sends, and messages of all its groups, in the order of the calls. A
//! direct send first moves what is pending for its member into the member's own queue.
//!
//! Work: the flush stops when the turn's budget is used up (`Config::work_per_turn`). The next turn,
//! which begins at once, goes on with the members that were not served; members that get new messages
//! meanwhile are queued behind them. So no number of members or messages makes a turn long, and all
//! are served in rounds.
//!
//! Messages with a key (`publish_latest`) are like all others, in the log and on their way to a member that
//! keeps up. A member whose queue has grown too long gets the others one by one: those with a key wait
//! beside its queue (`connection/latest.rs`), where each replaces the one before.
//!
//! Layers: where the wire forms of all members of a class are equal (`Layer::wire_class`), a message is
//! encoded once for all of them, when the first of them is served. The forms stand beside the log
//! (`form`), and leave as plain messages do. Behind TLS each member gets the touching messages of a turn as
//! one run, in as few records as there can be; what lies within TLS (WebSocket) is shared as well. A layer
//! with state that can do without it for such a message is told behind it (`Layer::sent_shared`).
//!
//! `registry`, `log`, `form`, `member`, `take` and `gather` are pure: they know no connection. `deliver`
//! is where a connection is touched, `encoded` the same for those with layers.

use super::{Core, Entity};
use crate::layer::MessageKind;
use crate::token::{Group, Token};

mod deliver;
mod encoded;
mod form;
mod gather;
mod log;
mod member;
mod registry;
mod stats;
mod take;
mod work;

#[cfg(test)]
mod cost_tests;
#[cfg(test)]
mod model_tests;

pub(crate) use gather::QUIET_GAP;
pub(crate) use registry::Groups;
pub use stats::{GroupStats, Published};

/// The index of nothing.
const NONE: u32 = u32::MAX;

impl Core {
    /// `false` if the group or the connection is gone. Joining twice is joining once.
    pub(crate) fn join(&mut self, group: Group, member: Token) -> bool {
        #[cfg(feature = "sim")]
        crate::witness::mixes_output(self, member);
        let open = match self.entity(member) {
            Some(Entity::Stream(stream)) => stream.accepts_output(),
            Some(Entity::Session(session)) => !session.dead,
            _ => false,
        };
        open && self.groups.join(group, member)
    }

    /// `false` if it was no member. What was published before is still delivered.
    pub(crate) fn leave(&mut self, group: Group, member: Token) -> bool {
        self.settle_groups_before_direct(member);
        self.groups.leave(group, member)
    }

    /// What was published before is still delivered.
    pub(crate) fn remove_group(&mut self, group: Group) {
        for member in self.groups.members(group).to_vec() {
            while self.groups.is_pending(member) {
                self.deliver(member, usize::MAX);
            }
        }
        self.groups.remove(group);
    }

    /// Appends a message to the group's log.
    pub(crate) fn publish(
        &mut self,
        group: Group,
        bytes: &[u8],
        kind: MessageKind,
        except: Option<Token>,
    ) -> Published {
        self.make_room(group, bytes.len(), bytes.len());
        self.groups.publish(group, bytes, kind, except)
    }

    /// The same for a message that replaces one with its key where that waits for a member that has
    /// fallen behind.
    pub(crate) fn publish_latest(
        &mut self,
        group: Group,
        key: u64,
        bytes: &[u8],
        kind: MessageKind,
        except: Option<Token>,
    ) -> Published {
        self.make_room(group, bytes.len(), bytes.len() + self.groups.cost_of_keys(group));
        self.groups.publish_keyed(group, key, bytes, kind, except)
    }

    /// A message of `len` bytes is about to be published, with `more` bytes for the log.
    #[inline(always)]
    fn make_room(&mut self, group: Group, len: usize, more: usize) {
        // The running callback's reply goes before this message.
        if let Some(owner) = self.work.reply.owner() {
            self.with(owner, |_| ());
        }
        if self.groups.is_full(group, more, self.config.group_log) {
            // The log is full: its messages go to the members' own queues, with their own limits.
            while let Some(member) = self.groups.marked_member(group) {
                self.groups.work += self.deliver(member, usize::MAX);
            }
        }
        let cost = work::COPIED + work::bytes(len);
        self.work.charge(self.groups.whole_units(cost));
    }
}
