//! The same room on other processes, through the backplane.
//!
//! What is said, and who joins and leaves, goes out under one name, and Redis keeps the last of it: for a
//! process that was away from Redis, and for one that starts. Beside it each process says at times who is on
//! it: for those who ask with `/who`, for names that are taken, and for processes that vanish without a word.

use std::sync::Arc;
use std::time::Duration;

use tidegate::backplane::{Backplane, BackplaneEvent};
use tidegate::{Error, Message, Net};

use crate::room::{Room, printable};
use crate::talk::{on_other_workers, tell_all};

/// All lines of the room. The braces keep it on one node of a cluster.
const LINES: &str = "{lines}";
/// About so many of them are kept, notices among them.
const KEPT: usize = 1000;
/// Lists of who is where.
const PEOPLE: &str = "people";
/// So often a process says who is on it, besides at each change.
const EVERY: Duration = Duration::from_secs(3);
/// A process that has said nothing for so long is gone, and with it who was there.
const GONE_AFTER: Duration = Duration::from_secs(10);

/// Joins this process with all that have the same Redis.
pub(crate) fn join(url: &str, room: &Room, net: &mut Net<Room>) -> Result<(), Error> {
    room.share();
    Backplane::redis(url)?
        .prefix("chat/")
        .keep(LINES, KEPT)
        .on_history(LINES, KEPT, remember)
        .on_message(LINES, |line, room, net| tell_all(room, net, &printable(&line)))
        .on_message(PEOPLE, |list, room: &mut Room, net| {
            let list = String::from_utf8_lossy(&list);
            if room.hear(&list, net.now()) {
                let everybody = room.everybody();
                tell_all(room, net, &everybody);
            }
        })
        .on_event(|event, room: &mut Room, net| match event {
            BackplaneEvent::Connected => announce(room, net),
            BackplaneEvent::Lost { .. } => {
                tell_all(room, net, "* Those on other servers are out of reach");
            }
            BackplaneEvent::Resumed { .. } => {
                tell_all(room, net, "* Those on other servers are back");
                // Others may have come and gone meanwhile: who is where is news to everybody here.
                room.forget_all();
                announce(room, net);
            }
            _ => {}
        })
        .start(net)?;
    net.run_after(EVERY, repeat);
    Ok(())
}

/// Says a line to the other processes. (Without a backplane there are none, and nobody gets it.)
pub(crate) fn say(net: &mut Net<Room>, line: &str) {
    net.publish_named(LINES, Message::text(line));
}

/// What was said before this process came, for the newcomers of all its workers.
fn remember(lines: &[&[u8]], room: &mut Room, net: &mut Net<Room>) {
    let lines: Arc<[Arc<str>]> = lines.iter().map(|line| printable(line).into()).collect();
    let on_each = |lines: Arc<[Arc<str>]>| {
        move |room: &mut Room, _: &mut Net<Room>| {
            if let Some(past) = &mut room.past {
                past.add_before(lines.iter().cloned());
            }
        }
    };
    on_other_workers(net, || on_each(Arc::clone(&lines)));
    on_each(lines)(room, net);
}

/// Says to the other processes who is on this one.
pub(crate) fn announce(room: &Room, net: &mut Net<Room>) {
    if let Some(list) = room.list() {
        net.publish_named(PEOPLE, Message::text(list));
    }
}

fn repeat(room: &mut Room, net: &mut Net<Room>) {
    announce(room, net);
    if room.forget(net.now(), GONE_AFTER) {
        let everybody = room.everybody();
        tell_all(room, net, &everybody);
    }
    net.run_after(EVERY, repeat);
}
