//! What is known of a group, and of what was published to it.

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
    /// side has ended are not counted.
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
    pub dropped: u64,
}
