//! Chat: what all members say in a turn goes into one shared log, and each member gets it with one write.

use super::{Edge, Outbox, Peer, Read, Ready, Service, Socket, Then, read_some};
use crate::{Pages, READ_SIZE};
use slab::Slab;
use std::io::{self, IoSlice};
use std::ops::Range;

/// The room; everybody is a member.
#[derive(Debug, Default)]
pub struct Chat {
    buffer: Pages,
    log: Vec<u8>,
    runs: Vec<Run>,
}

/// A run of bytes in the log by one speaker, who is the only one that must not get it.
#[derive(Debug)]
struct Run {
    speaker: usize,
    range: Range<usize>,
}

#[derive(Debug, Default)]
pub struct Member {
    edge: Edge,
    outbox: Outbox,
    /// A line whose end has not arrived.
    line: Vec<u8>,
    /// The current turn's log holds lines of this member.
    spoke: bool,
}

impl Service for Chat {
    type State = Member;

    fn ready<S: Socket>(
        &mut self,
        key: usize,
        peer: &mut Peer<S, Member>,
        ready: Ready,
    ) -> io::Result<Then> {
        let member = &mut peer.state;
        member.edge.note(ready);
        member.outbox.flush(&peer.socket)?;
        while member.edge.unread {
            let read = read_some(&peer.socket, &mut self.buffer)?;
            member.edge.after_read(&read, READ_SIZE);
            match read {
                Read::Bytes(n) => {
                    let bytes = &self.buffer[..n];
                    let whole =
                        bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |last| last + 1);
                    if whole > 0 {
                        let start = self.log.len();
                        self.log.append(&mut member.line);
                        self.log.extend_from_slice(&bytes[..whole]);
                        member.spoke = true;
                        match self.runs.last_mut() {
                            Some(run) if run.speaker == key => run.range.end = self.log.len(),
                            _ => self.runs.push(Run { speaker: key, range: start..self.log.len() }),
                        }
                    }
                    member.line.extend_from_slice(&bytes[whole..]);
                }
                Read::End => return Ok(Then::Close),
                Read::Blocked => break,
            }
        }
        Ok(Then::Keep)
    }

    fn turn_ends<S: Socket>(&mut self, peers: &mut Slab<Peer<S, Member>>) {
        if self.log.is_empty() {
            return;
        }
        for (key, peer) in peers {
            let member = &mut peer.state;
            let sent = if member.spoke {
                let others: Vec<_> = self
                    .runs
                    .chunk_by(|a, b| (a.speaker == key) == (b.speaker == key))
                    .filter(|chunk| chunk[0].speaker != key)
                    .map(|chunk| chunk[0].range.start..chunk[chunk.len() - 1].range.end)
                    .map(|range| IoSlice::new(&self.log[range]))
                    .collect();
                member.outbox.send_vectored(&peer.socket, &others)
            } else {
                member.outbox.send(&peer.socket, &self.log)
            };
            member.spoke = false;
            if sent.is_err() {
                // A broken connection shows on its read side as well, and closes there.
                member.outbox = Outbox::default();
            }
        }
        self.log.clear();
        self.runs.clear();
    }
}
