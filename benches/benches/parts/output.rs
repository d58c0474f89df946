//! `send` to a peer that does not read: queued, counted, coalesced.

use crate::{connection, turn};
use divan::Bencher;
use divan::counter::ItemsCount;
use std::cell::RefCell;
use std::io::Read;
use tidegate::{Overflow, StreamOptions};

const SIZES: [usize; 3] = [64, 1_024, 8_192];
const SENDS: usize = 256;

fn options() -> StreamOptions {
    StreamOptions::new().output_limit(1 << 30).overflow(Overflow::Drop)
}

/// Into the queue of a fresh reactor: all memory is new to the process, and its first touch is in the figure.
#[divan::bench(args = SIZES, sample_count = 50, sample_size = 1)]
fn send_first(bencher: Bencher<'_, '_>, size: usize) {
    let message = vec![7; size];
    bencher
        .counter(ItemsCount::new(SENDS))
        .with_inputs(|| connection(options()))
        .bench_local_values(|(mut reactor, token, peer)| {
            let net = reactor.net();
            for _ in 0..SENDS {
                net.send(token, &message);
            }
            (reactor, peer)
        });
}

/// Into a queue that held as much before and was read empty: the allocator has the memory.
#[divan::bench(args = SIZES, sample_count = 50, sample_size = 1)]
fn send_again(bencher: Bencher<'_, '_>, size: usize) {
    let message = vec![7; size];
    let (reactor, token, mut peer) = connection(options());
    peer.set_nonblocking(true).expect("a socket can be non-blocking");
    let reactor = RefCell::new(reactor);
    let mut unread = 0;
    let mut buffer = vec![0; 1 << 16];
    bencher
        .counter(ItemsCount::new(SENDS))
        .with_inputs(|| {
            while unread > 0 {
                turn(&mut reactor.borrow_mut());
                unread -= peer.read(&mut buffer).unwrap_or(0);
            }
            unread = SENDS * size;
        })
        .bench_local_values(|()| {
            let mut reactor = reactor.borrow_mut();
            let net = reactor.net();
            for _ in 0..SENDS {
                net.send(token, &message);
            }
        });
}
