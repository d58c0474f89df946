//! A room whose members have a writer task each, which takes all that waits at once: what is said in one turn leaves
//! together.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// The room; `W` is what waits for a member: bytes, or messages.
#[derive(Debug, Default)]
pub struct Room<W> {
    members: Mutex<Members<W>>,
}

#[derive(Debug, Default)]
struct Members<W> {
    joined: u64,
    mailboxes: HashMap<u64, Arc<Mailbox<W>>>,
}

/// What a member is still to get.
#[derive(Debug, Default)]
pub struct Mailbox<W> {
    waiting: Mutex<W>,
    filled: Notify,
}

/// There is one thread, so that the locks (which `spawn` asks for) are always free.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<W: Default> Room<W> {
    /// A new member's number and mailbox.
    pub fn join(&self) -> (u64, Arc<Mailbox<W>>) {
        let mailbox = Arc::<Mailbox<W>>::default();
        let mut members = lock(&self.members);
        members.joined += 1;
        let id = members.joined;
        members.mailboxes.insert(id, Arc::clone(&mailbox));
        (id, mailbox)
    }

    /// A member is gone.
    pub fn leave(&self, id: u64) {
        lock(&self.members).mailboxes.remove(&id);
    }

    /// Lets `add` add to what waits for each member but the speaker.
    pub fn tell_others(&self, speaker: u64, mut add: impl FnMut(&mut W)) {
        let members = lock(&self.members);
        for (_, member) in members.mailboxes.iter().filter(|(id, _)| **id != speaker) {
            add(&mut lock(&member.waiting));
            member.filled.notify_one();
        }
    }
}

impl<W> Mailbox<W> {
    /// Waits until there is something, and swaps it for the empty `leaving`, whose memory is used again.
    pub async fn take(&self, leaving: &mut W) {
        self.filled.notified().await;
        std::mem::swap(leaving, &mut *lock(&self.waiting));
    }
}
