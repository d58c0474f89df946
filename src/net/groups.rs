//! Groups.

use super::Net;
use crate::layer::Kind;
use crate::token::{Group, Token};

/// Groups.
impl<S> Net<S> {
    /// Makes a group without members.
    ///
    /// # Panics
    /// With more groups than 2^32 (2^20 on 32-bit targets) at once.
    pub fn create_group(&mut self) -> Group {
        self.core.create_group().expect("more groups than can be named")
    }

    /// Removes a group. Its members stay open; what was published is still delivered.
    pub fn remove_group(&mut self, group: Group) {
        self.core.remove_group(group);
    }

    /// Makes a connection a member; it receives what is published from now on, and leaves by itself
    /// when it closes. `false` if the group or the connection is gone.
    pub fn join(&mut self, group: Group, member: Token) -> bool {
        self.core.join(group, member)
    }

    /// Takes a connection out of a group. `false` if it was no member.
    pub fn leave(&mut self, group: Group, member: Token) -> bool {
        self.core.leave(group, member)
    }

    /// Who is in the group, in no particular order.
    pub fn members(&self, group: Group) -> &[Token] {
        self.core.members(group)
    }

    /// Sends to all members; answers how many they are. The message is stored once; each member's
    /// own limits decide what becomes of one that does not read.
    pub fn publish(&mut self, group: Group, bytes: impl AsRef<[u8]>) -> usize {
        self.core.publish(group, bytes.as_ref(), Kind::Default, None)
    }

    /// Sends to all members but one, who need not be a member.
    pub fn publish_except(
        &mut self,
        group: Group,
        except: Token,
        bytes: impl AsRef<[u8]>,
    ) -> usize {
        self.core.publish(group, bytes.as_ref(), Kind::Default, Some(except))
    }

    /// Sends to all members (but one), marked as text or binary for the wire formats among them
    /// that tell them apart.
    pub fn publish_as(
        &mut self,
        group: Group,
        kind: Kind,
        except: Option<Token>,
        bytes: impl AsRef<[u8]>,
    ) -> usize {
        self.core.publish(group, bytes.as_ref(), kind, except)
    }
}
