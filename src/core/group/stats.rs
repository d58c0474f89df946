//! What is known of a group, and of what was published to it.

/// What has become of deliveries since the last publish. Eight bytes, so that a publish takes it with one
/// load.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Since {
    pub(super) dropped: u32,
    pub(super) replaced: u32,
}

impl Since {
    pub(super) fn drop(&mut self, deliveries: u64) {
        let deliveries = u32::try_from(deliveries).unwrap_or(u32::MAX);
        self.dropped = self.dropped.saturating_add(deliveries);
    }

    pub(super) fn replace(&mut self) {
        self.replaced = self.replaced.saturating_add(1);
    }
}

impl Published {
    pub(super) fn new(members: usize, Since { dropped, replaced }: Since) -> Self {
        Published { members, dropped, replaced }
    }
}

/// What is known of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct GroupStats {
    /// How many members it has.
    pub members: usize,
    /// How many messages were published for at least one member.
    pub published: u64,
    /// How many deliveries, each of one message to one member, were dropped: the member's queue was
    /// at its limit, or its wire format cannot carry the message. Messages to members whose write
    /// side has ended are not counted, nor are values that wait for a member when it ends or that
    /// [`Net::discard_queued`](crate::Net::discard_queued) drops.
    pub dropped: u64,
    /// How many deliveries of [`Net::publish_latest`](crate::Net::publish_latest), each of one message
    /// to one member that had fallen behind, took the place of an older message.
    pub replaced: u64,
}

/// What a publish has done, and what became of earlier ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Published {
    /// How many members the message is for; zero also if the group no longer exists.
    pub members: usize,
    /// How many deliveries of this group were dropped since its last publish: each of one message to one
    /// member, at the member's output limit or because its wire format cannot carry the message. (This
    /// message is delivered at the end of the turn, so its own drops are in the next result.)
    pub dropped: u32,
    /// How many deliveries of [`Net::publish_latest`](crate::Net::publish_latest) have taken the place of an
    /// older message since then, at members that had fallen behind.
    pub replaced: u32,
}
