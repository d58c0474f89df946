//! The same room on other processes: who is there, heard of through the backplane.
//!
//! What is said, and who joins and leaves, goes to the room's name like everything else. Beside it each
//! process says at times who is on it: for those who ask with `/who`, for names that are taken, and for
//! processes that vanish without a word.

use std::time::Duration;

use tidegate::backplane::{Backplane, BackplaneEvent};
use tidegate::{Error, Message, Net, WorkersHandle};

use crate::room::{ROOM, Room};

/// Lists of who is where.
const PEOPLE: &str = "people";
/// So often a process says who is on it, besides at each change.
const EVERY: Duration = Duration::from_secs(3);
/// A process that has said nothing for so long is gone, and with it who was there.
const GONE_AFTER: Duration = Duration::from_secs(10);

/// Joins this process with all that have the same Redis.
pub(crate) fn join(
    url: &str,
    room: &Room,
    net: &mut Net<Room>,
    workers: WorkersHandle<Room>,
) -> Result<(), Error> {
    room.share();
    let (listening, telling) = (workers.clone(), workers.clone());
    Backplane::redis(url)?
        .prefix("chat/")
        .on_message(PEOPLE, move |list, room: &mut Room, net| {
            let list = String::from_utf8_lossy(&list);
            if room.hear(&list, net.now()) {
                tell_all(&listening, &room.everybody());
            }
        })
        .on_event(move |event, room: &mut Room, net| match event {
            BackplaneEvent::Connected => announce(room, net),
            BackplaneEvent::Lost { .. } => {
                tell_all(&telling, "* Those on other servers are out of reach");
            }
            BackplaneEvent::Resumed { .. } => {
                tell_all(&telling, "* Those on other servers are back");
                // Others may have come and gone meanwhile: who is where is news to everybody here.
                room.forget_all();
                announce(room, net);
            }
            _ => {}
        })
        .start(net)?;
    net.run_after(EVERY, move |room, net| repeat(room, net, workers));
    Ok(())
}

/// Says to the other processes who is on this one.
pub(crate) fn announce(room: &Room, net: &mut Net<Room>) {
    if let Some(list) = room.list() {
        net.publish_named(PEOPLE, Message::text(list));
    }
}

fn repeat(room: &mut Room, net: &mut Net<Room>, workers: WorkersHandle<Room>) {
    announce(room, net);
    if room.forget(net.now(), GONE_AFTER) {
        tell_all(&workers, &room.everybody());
    }
    net.run_after(EVERY, move |room, net| repeat(room, net, workers));
}

/// A notice to the members on this process, of all its workers.
fn tell_all(workers: &WorkersHandle<Room>, text: &str) {
    for worker in 0..workers.count() {
        let text = text.to_owned();
        workers.post(worker, move |_room, net| {
            if let Some(room) = net.find_group(ROOM) {
                net.publish(room, text);
            }
        });
    }
}
