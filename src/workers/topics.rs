//! Which workers have members of a name.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// A set of workers, one bit each.
pub(crate) type Set = u128;

/// The most workers that a set can hold.
pub(crate) const MOST: usize = Set::BITS as usize;

/// All names that have a group on some worker. Publishing looks one up under a lock that many readers share;
/// only the first and the last member of a worker take it alone.
#[derive(Default)]
pub(super) struct Topics(RwLock<HashMap<Box<[u8]>, Set>>);

type Names = HashMap<Box<[u8]>, Set>;

impl Topics {
    /// The workers that have a group of that name.
    pub(super) fn workers_of(&self, name: &[u8]) -> Set {
        self.read().get(name).copied().unwrap_or(0)
    }

    /// Returns whether no worker had one before.
    pub(super) fn gain(&self, name: &[u8], worker: usize) -> bool {
        let mut names = self.write();
        match names.get_mut(name) {
            Some(set) => {
                *set |= 1 << worker;
                false
            }
            None => names.insert(name.into(), 1 << worker).is_none(),
        }
    }

    /// Returns whether no worker has one any more.
    pub(super) fn lose(&self, name: &[u8], worker: usize) -> bool {
        let mut names = self.write();
        let Some(set) = names.get_mut(name) else { return false };
        let had = *set & (1 << worker) != 0;
        *set &= !(1 << worker);
        if *set == 0 {
            names.remove(name);
            return had;
        }
        false
    }

    /// A worker is gone. Returns the names that nobody has any more, in their order.
    pub(super) fn forget(&self, worker: usize) -> Vec<Box<[u8]>> {
        let mut gone = Vec::new();
        self.write().retain(|name, set| {
            *set &= !(1 << worker);
            if *set == 0 {
                gone.push(name.clone());
            }
            *set != 0
        });
        gone.sort_unstable(); // that of a hash table differs from run to run
        gone
    }

    /// All names, in their order.
    pub(super) fn names(&self) -> Vec<Box<[u8]>> {
        let mut names: Vec<_> = self.read().keys().cloned().collect();
        names.sort_unstable();
        names
    }

    // Nothing in here panics in the middle of a change.

    fn read(&self) -> RwLockReadGuard<'_, Names> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Names> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The numbers in a set.
pub(super) fn each(mut set: Set) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        if set == 0 {
            return None;
        }
        let worker = set.trailing_zeros() as usize;
        set &= set - 1;
        Some(worker)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_belongs_to_the_workers_that_have_gained_it() {
        let topics = Topics::default();
        assert!(topics.gain(b"a", 0));
        assert!(!topics.gain(b"a", 0), "twice is once");
        assert!(!topics.gain(b"a", 127));
        assert!(topics.gain(b"b", 127));
        assert_eq!(each(topics.workers_of(b"a")).collect::<Vec<_>>(), [0, 127]);
        assert_eq!(topics.workers_of(b"c"), 0);
        assert!(!topics.lose(b"a", 0) && !topics.lose(b"a", 0) && !topics.lose(b"c", 1));
        assert_eq!(each(topics.workers_of(b"a")).collect::<Vec<_>>(), [127]);
        assert!(topics.gain(b"c", 3));
        assert_eq!(topics.forget(127), [Box::from(*b"a"), Box::from(*b"b")]);
        assert_eq!(topics.names(), [Box::from(*b"c")]);
        assert!(topics.lose(b"c", 3));
    }

    // row 264
    #[test]
    fn names_come_in_their_order() {
        let topics = Topics::default();
        let names: Vec<Box<[u8]>> =
            (10..60).map(|n: u8| n.to_string().into_bytes().into()).collect();
        for name in names.iter().rev() {
            topics.gain(name, 1);
        }
        assert_eq!(topics.names(), names);
        assert_eq!(topics.forget(1), names);
    }
}
