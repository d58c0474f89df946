//! What is said in the room: how it reaches everybody, and what of it a newcomer is shown.

use std::collections::VecDeque;
use std::sync::Arc;

use tidegate::{Net, Token};

use crate::elsewhere;
use crate::room::Room;

/// So many lines a newcomer is shown.
const LINES: usize = 50;
/// And so many bytes: they have to fit into the queue of somebody who has just come, beside who is here.
const BYTES: usize = 128 * 1024;

/// The last lines of people. Each worker has its own, and puts a line into it in the moment in which the
/// members on it get it. So whoever joins there gets it once: from here, or as it is said.
#[derive(Default)]
pub(crate) struct Past {
    lines: VecDeque<Arc<str>>,
    bytes: usize,
}

impl Past {
    fn add(&mut self, line: Arc<str>) {
        self.bytes += line.len();
        self.lines.push_back(line);
        while (self.lines.len() > LINES || self.bytes > BYTES)
            && let Some(oldest) = self.lines.pop_front()
        {
            self.bytes -= oldest.len();
        }
    }

    /// Takes what was said before all that is here.
    pub(crate) fn add_before(&mut self, lines: impl Iterator<Item = Arc<str>>) {
        let later = std::mem::take(self).lines;
        lines.filter(|line| is_said(line)).chain(later).for_each(|line| self.add(line));
    }

    /// Sends it to a newcomer.
    pub(crate) fn show(&self, net: &mut Net<Room>, newcomer: Token) {
        if self.lines.is_empty() {
            return;
        }
        net.send(newcomer, "* Before you came:");
        for line in &self.lines {
            net.send(newcomer, &**line);
        }
    }
}

/// Whether it is of a person. Notices begin with a star, and who has come and gone is no longer news later.
fn is_said(line: &str) -> bool {
    line.starts_with('<')
}

/// Says a line to everybody but the `speaker`: at once on this worker, soon on the others and on other
/// processes. The lines of one worker keep their order everywhere.
pub(crate) fn say(room: &mut Room, net: &mut Net<Room>, speaker: Token, line: String) {
    let line = Arc::from(line);
    elsewhere::say(net, &line);
    tell_workers(net, &line);
    hear(room, net, Some(speaker), line);
}

/// Says a line that is not of here to everybody on this process.
pub(crate) fn tell_all(room: &mut Room, net: &mut Net<Room>, line: &str) {
    let line = Arc::from(line);
    tell_workers(net, &line);
    hear(room, net, None, line);
}

/// `Net::publish_named` would reach the members on other workers in fewer words, but a newcomer's lines of
/// before have to end where theirs begin: both are one step there.
fn tell_workers(net: &mut Net<Room>, line: &Arc<str>) {
    on_other_workers(net, || {
        let line = Arc::clone(line);
        |room, net| hear(room, net, None, line)
    });
}

/// Has each other worker of this process call what `make` makes.
pub(crate) fn on_other_workers<F>(net: &mut Net<Room>, make: impl Fn() -> F)
where
    F: FnOnce(&mut Room, &mut Net<Room>) + Send + 'static,
{
    let here = net.worker();
    for worker in (0..net.worker_count()).filter(|&worker| worker != here) {
        net.post_to_worker(worker, make());
    }
}

/// The members on this worker get it.
fn hear(room: &mut Room, net: &mut Net<Room>, except: Option<Token>, line: Arc<str>) {
    match except {
        Some(speaker) => net.publish_except(room.members, speaker, &*line),
        None => net.publish(room.members, &*line),
    };
    if let Some(past) = room.past.as_mut().filter(|_| is_said(&line)) {
        past.add(line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(words: &str) -> Arc<str> {
        format!("<Anna> {words}").into()
    }

    #[test]
    fn the_last_lines_of_people_are_remembered_in_their_order() {
        let mut past = Past::default();
        past.add(said("60"));
        past.add_before((0..60).flat_map(|n| [said(&n.to_string()), "* Ben has joined".into()]));
        past.add(said("61"));
        let expected: Vec<_> = (12..62).map(|n| said(&n.to_string())).collect();
        assert_eq!(Vec::from(past.lines), expected);
    }

    #[test]
    fn long_lines_are_fewer() {
        let mut past = Past::default();
        for _ in 0..100 {
            past.add(said(&"\u{fffd}".repeat(4096)));
            assert!(past.bytes <= BYTES);
        }
        assert_eq!(past.lines.len(), BYTES / past.lines[0].len());
        past.add(said(&"x".repeat(BYTES)));
        assert_eq!((past.lines.len(), past.bytes), (0, 0));
    }
}
