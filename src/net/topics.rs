//! Topics: publishing to a name, wherever its members are.

use super::Net;
use crate::core::Published;
use crate::message::{IntoMessage, Message};
use crate::token::Token;

/// Topics.
impl<S> Net<S> {
    /// Sends a message to all members of the group with this name, as [`publish`](Self::publish) does;
    /// if there is none, to nobody. Returns the figures of this reactor's members.
    ///
    /// This is the call for a room or a topic that may outgrow one thread or one machine: what carries
    /// named groups further takes its messages from here. On a reactor alone it is
    /// [`find_group`](Self::find_group) and [`publish`](Self::publish). On another worker it reaches those who
    /// are members when it comes there: who has joined meanwhile hears it, too.
    ///
    /// ```
    /// # use tidegate::Reactor;
    /// # let mut reactor = Reactor::new()?;
    /// # let net = reactor.net();
    /// let published = net.publish_named("room/lobby", b"hello");
    /// assert_eq!(published.members, 0); // nobody has joined `net.group("room/lobby")`
    /// # Ok::<(), tidegate::Error>(())
    /// ```
    pub fn publish_named(
        &mut self,
        name: impl AsRef<[u8]>,
        message: impl IntoMessage,
    ) -> Published {
        let Message { bytes, kind } = message.into_message();
        let message = Message { bytes: bytes.as_ref(), kind };
        self.publish_to_name(name.as_ref(), message, None, None)
    }

    /// The same for all members except one token of this reactor, which need not be a member.
    pub fn publish_named_except(
        &mut self,
        name: impl AsRef<[u8]>,
        except: Token,
        message: impl IntoMessage,
    ) -> Published {
        let Message { bytes, kind } = message.into_message();
        let message = Message { bytes: bytes.as_ref(), kind };
        self.publish_to_name(name.as_ref(), message, Some(except), None)
    }

    /// Sends a value of which only the newest counts to all members of the group with this name, as
    /// [`publish_latest`](Self::publish_latest) does: who has fallen behind gets the newest value of each key.
    ///
    /// The key is the program's own choice, and its values replace each other whoever has published them: all
    /// workers and processes mean the same by it. The number of a player or of an instrument is one; so is a
    /// hash of its name.
    ///
    /// ```
    /// # let mut reactor = tidegate::Reactor::new()?;
    /// let (player, score) = (7, "7 1200");
    /// reactor.net().publish_named_latest("scores", player, score);
    /// # Ok::<(), tidegate::Error>(())
    /// ```
    pub fn publish_named_latest(
        &mut self,
        name: impl AsRef<[u8]>,
        key: u64,
        message: impl IntoMessage,
    ) -> Published {
        let Message { bytes, kind } = message.into_message();
        let message = Message { bytes: bytes.as_ref(), kind };
        self.publish_to_name(name.as_ref(), message, None, Some(key))
    }

    fn publish_to_name(
        &mut self,
        name: &[u8],
        message: Message<&[u8]>,
        except: Option<Token>,
        key: Option<u64>,
    ) -> Published {
        if self.interconnect.is_some() {
            self.published_beyond(name, message, key);
        }
        self.publish_here(name, message, except, key)
    }

    /// Publishes to this reactor's members of a name, and offers the message to nothing beyond.
    pub(crate) fn publish_here(
        &mut self,
        name: &[u8],
        Message { bytes, kind }: Message<&[u8]>,
        except: Option<Token>,
        key: Option<u64>,
    ) -> Published {
        let Some(group) = self.core.groups.find(name) else { return Published::default() };
        match key {
            None => self.core.publish(group, bytes, kind, except),
            Some(key) => self.core.publish_latest(group, key, bytes, kind, except),
        }
    }
}
