//! One member: the groups it is in, and those in which something is pending for it.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use super::NONE;
use crate::token::Token;

/// From this many memberships on a member finds them by a map. Fewer are looked through: one or two
/// is the common case, and a map for each member would take more memory than the memberships.
const MAPPED_FROM: usize = 16;

/// Memberships by the number of the next message, the earliest first: merges the logs of several
/// groups.
pub(super) type Merge = BinaryHeap<Reverse<(u64, u32)>>;

/// One of a member's groups.
#[derive(Debug, Clone, Copy)]
pub(super) struct Membership {
    /// The group's index.
    pub(super) group: u32,
    /// The member's place in it.
    pub(super) place: u32,
    /// While something is pending in it: the next such membership, or [`NONE`].
    pub(super) next_pending: u32,
}

#[derive(Debug)]
pub(super) struct Member {
    pub(super) token: Token,
    pub(super) memberships: Vec<Membership>,
    /// Where each group's membership is, if they are many. Boxed: most members have none, and a map
    /// takes six words even if it is empty.
    #[allow(clippy::box_collection)]
    map: Option<Box<HashMap<u32, u32>>>,
    /// The first membership in which something is pending and that is not in `merge`, or [`NONE`].
    pub(super) first_pending: u32,
    /// Of a member that was served in part: the memberships that are left.
    pub(super) merge: Option<Box<Merge>>,
    /// It is in the queue of members to serve.
    pub(super) queued: bool,
}

// What a membership costs: this, 12 bytes in the list (which begins with room for four), and a seat.
#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<Member>() <= 64);

impl Member {
    pub(super) fn new(token: Token) -> Self {
        Member {
            token,
            memberships: Vec::new(),
            map: None,
            first_pending: NONE,
            merge: None,
            queued: false,
        }
    }

    pub(super) fn is_pending(&self) -> bool {
        self.first_pending != NONE || self.merge.is_some()
    }

    /// The memberships in which something is pending.
    pub(super) fn pending(&self) -> impl Iterator<Item = Membership> {
        let at = |at: u32| self.memberships.get(at as usize).copied(); // nothing is at `NONE`
        let listed = std::iter::successors(at(self.first_pending), move |m| at(m.next_pending));
        let merged = self.merge.iter().flat_map(|merge| merge.iter());
        listed.chain(merged.filter_map(move |&Reverse((_, m))| at(m)))
    }

    /// Where the membership of a group is.
    pub(super) fn find(&self, group: u32) -> Option<u32> {
        match &self.map {
            Some(map) => map.get(&group).copied(),
            None => self.memberships.iter().position(|m| m.group == group).map(|at| at as u32),
        }
    }

    /// Adds a membership. Returns where it is.
    pub(super) fn add(&mut self, group: u32, place: u32) -> u32 {
        let at = self.memberships.len() as u32;
        self.memberships.push(Membership { group, place, next_pending: NONE });
        match &mut self.map {
            Some(map) => {
                map.insert(group, at);
            }
            None if self.memberships.len() >= MAPPED_FROM => {
                let pairs = self.memberships.iter().zip(0..).map(|(m, at)| (m.group, at));
                self.map = Some(Box::new(pairs.collect()));
            }
            None => {}
        }
        at
    }

    /// Removes a membership; nothing may be pending for the member. Returns the one that is in its
    /// place now, if there is one.
    pub(super) fn remove(&mut self, at: u32) -> Option<Membership> {
        let removed = self.memberships.swap_remove(at as usize);
        let moved = self.memberships.get(at as usize).copied();
        if let Some(map) = &mut self.map {
            map.remove(&removed.group);
            if let Some(moved) = moved {
                map.insert(moved.group, at);
            }
            if self.memberships.len() < MAPPED_FROM / 2 {
                self.map = None;
            } else if map.capacity() / 4 > map.len() {
                map.shrink_to(map.len() * 2);
            }
        }
        shrink(&mut self.memberships);
        moved
    }

    /// Removes all memberships and returns them; nothing may be pending for the member.
    pub(super) fn remove_all(&mut self) -> Vec<Membership> {
        self.map = None;
        std::mem::take(&mut self.memberships)
    }
}

/// Gives memory back when most of it is unused. O(1) amortised: half of what is kept is free.
pub(super) fn shrink<T>(list: &mut Vec<T>) {
    if list.capacity() > 64 && list.capacity() / 4 > list.len() {
        list.shrink_to(list.len() * 2);
    }
}
