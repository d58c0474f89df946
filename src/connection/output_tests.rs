use std::cell::RefCell;

use super::*;
use crate::sys::Stream;
use crate::sys::script::{self, Outcome, Script};

fn scripted(writes: Vec<Outcome>) -> (Stream, Rc<RefCell<Script>>) {
    let script = Rc::new(RefCell::new(Script { writes: writes.into(), ..Script::default() }));
    (Stream::Script(Box::new(script::Stream(Rc::clone(&script)))), script)
}

/// A queue of an owned, a user's, a log's and another owned piece: "abcdefghijkl".
fn mixed() -> Output {
    let mut output = Output::default();
    output.push(b"ab");
    output.push(b"c");
    output.push_shared(Arc::from(&b"def"[..]), 0);
    output.push_log(&Rc::new(b"ghixx".to_vec()), 0, 3);
    output.push(b"jkl");
    output
}

#[test]
fn partial_writes_at_every_byte_boundary_lose_nothing() {
    for first in 1..12 {
        for second in 1..=(12 - first) {
            let mut output = mixed();
            let rest = 12 - first - second;
            let mut outcomes = vec![Outcome::Take(first), Outcome::Take(second)];
            if rest > 0 {
                outcomes.push(Outcome::Take(rest));
            }
            let (mut socket, script) = scripted(outcomes);
            while !output.is_empty() {
                output.write_to(&mut socket).unwrap();
            }
            assert_eq!(script.borrow().written, b"abcdefghijkl", "split {first}+{second}");
        }
    }
}

#[test]
fn one_byte_at_a_time_with_interruptions_between() {
    let mut output = mixed();
    let mut outcomes = Vec::new();
    for _ in 0..12 {
        outcomes.push(Outcome::Fail(io::ErrorKind::Interrupted));
        outcomes.push(Outcome::Take(1));
    }
    let (mut socket, script) = scripted(outcomes);
    for left in (0..12).rev() {
        assert_eq!(output.write_to(&mut socket).unwrap(), (1, left == 0));
        assert_eq!(output.len(), left);
    }
    assert_eq!(script.borrow().written, b"abcdefghijkl");
}

#[test]
fn an_error_leaves_the_queue_as_it_was() {
    let mut output = mixed();
    let (mut socket, _script) =
        scripted(vec![Outcome::Take(4), Outcome::Fail(io::ErrorKind::BrokenPipe)]);
    output.write_to(&mut socket).unwrap();
    assert!(output.write_to(&mut socket).is_err());
    assert_eq!(output.len(), 8);
}

#[test]
fn small_messages_share_one_buffer_and_it_is_kept() {
    let mut output = Output::default();
    for _ in 0..3 {
        output.push(b"0123456789");
        output.push(b"0123456789");
        assert_eq!((output.segments.len(), output.last.len()), (0, 20));
        let (mut socket, _script) = scripted(vec![Outcome::Take(20)]);
        assert_eq!(output.write_to(&mut socket).unwrap(), (20, true));
        assert!(output.is_empty());
        assert!(output.last.capacity() >= 20);
    }
}

#[test]
fn more_pieces_than_one_write_takes() {
    let mut output = Output::default();
    let piece: Arc<[u8]> = Arc::from(&b"x"[..]);
    for _ in 0..SLICES_PER_WRITE + 10 {
        output.push_shared(Arc::clone(&piece), 0);
    }
    let (mut socket, _script) = scripted(vec![Outcome::Take(1000), Outcome::Take(1000)]);
    assert_eq!(output.write_to(&mut socket).unwrap(), (SLICES_PER_WRITE, true));
    assert_eq!(output.write_to(&mut socket).unwrap(), (10, true));
}

#[test]
fn a_large_message_leaves_with_what_is_queued_before_it() {
    for taken in 0..=20 {
        let mut output = mixed();
        let (mut socket, script) = scripted(vec![Outcome::Take(taken)]);
        let (written, all) = output.write_pieces(&mut socket, b"01234567").unwrap();
        assert_eq!((written, all), (taken, taken == 20));
        assert_eq!(script.borrow().written, &b"abcdefghijkl01234567"[..taken]);
        assert_eq!(output.len(), 12_usize.saturating_sub(taken));
    }
}

#[test]
fn a_failed_encoding_leaves_nothing_behind() {
    let mut output = Output::default();
    output.push(b"abc");
    let failed: Result<(), ()> = output.push_with(|buffer| {
        buffer.extend_from_slice(b"half");
        Err(())
    });
    assert!(failed.is_err());
    assert_eq!(output.len(), 3);
    let nothing: Result<(), ()> = Output::default().push_with(|_| Ok(()));
    assert!(nothing.is_ok());
}

#[test]
fn a_shared_piece_may_begin_in_the_middle() {
    let mut output = Output::default();
    output.push_log(&Rc::new(b"0123456789".to_vec()), 4, 8);
    output.push_log(&Rc::new(b"abcdef".to_vec()), 2, 4);
    let (mut socket, script) = scripted(vec![Outcome::Take(3), Outcome::Take(3)]);
    output.write_to(&mut socket).unwrap();
    output.write_to(&mut socket).unwrap();
    assert_eq!(script.borrow().written, b"4567cd");
    assert!(output.is_empty());
}

#[test]
fn clearing_keeps_the_count_right() {
    let mut output = mixed();
    output.clear();
    assert_eq!((output.len(), output.segments.len(), output.head), (0, 0, 0));
}

#[test]
fn a_queue_that_never_runs_empty_frees_what_is_written() {
    let mut output = Output::default();
    let message = vec![7; 10_000];
    output.push(&message);
    for _ in 0..1_000 {
        output.push(&message);
        let (mut socket, _script) = scripted(vec![Outcome::Take(10_000)]);
        output.write_to(&mut socket).unwrap();
        let sealed: usize = output.segments.iter().map(|s| s.bytes().len()).sum();
        let held = sealed + output.last.len();
        assert!(held <= output.len() + 2 * SEGMENT, "{held} bytes held for {}", output.len());
    }
}

#[cfg(all(feature = "splice", target_os = "linux"))]
mod piped {
    use super::*;
    use crate::sys::Pipes;

    /// "abcdefghijkl", of which "def" and "ghi" are in pipes.
    fn with_pipes(pipes: &Pipes) -> Output {
        let mut output = Output::default();
        output.push(b"abc");
        for bytes in [b"def", b"ghi"] {
            let mut pipe = pipes.take().unwrap();
            let (mut source, script) = scripted(vec![]);
            script.borrow_mut().reads.push_back(Outcome::Bytes(bytes.to_vec()));
            assert_eq!(pipe.fill(&mut source, 100).unwrap(), Some(3));
            output.push_pipe(pipe);
        }
        output.push(b"jkl");
        assert_eq!((output.len(), output.pipes()), (12, 2));
        output
    }

    #[test]
    fn pipes_leave_in_their_place_however_the_writes_are_cut() {
        let pipes = Pipes::default();
        for cuts in [[1; 12], [2; 12], [3; 12], [100; 12]] {
            let mut output = with_pipes(&pipes);
            let (mut socket, script) = scripted(cuts.map(Outcome::Take).into());
            while !output.is_empty() {
                let before = output.len();
                let (written, _) = output.write_to(&mut socket).unwrap();
                assert_eq!(output.len(), before - written);
            }
            assert_eq!(script.borrow().written, b"abcdefghijkl");
            assert_eq!((output.pipes(), output.head), (0, 0));
        }
    }

    #[test]
    fn a_large_message_waits_behind_pipes() {
        let pipes = Pipes::default();
        let mut output = with_pipes(&pipes);
        let (mut socket, script) = scripted((0..5).map(|_| Outcome::Take(100)).collect());
        for left in [9, 6, 3] {
            assert_eq!(output.write_pieces(&mut socket, b"01234567").unwrap(), (3, true));
            assert_eq!(output.len(), left);
        }
        assert_eq!(output.write_pieces(&mut socket, b"01234567").unwrap(), (11, true));
        assert_eq!(script.borrow().written, b"abcdefghijkl01234567");
    }

    #[test]
    fn an_error_or_a_refusal_in_the_middle_loses_nothing() {
        let pipes = Pipes::default();
        let mut output = with_pipes(&pipes);
        let (mut socket, script) = scripted(vec![
            Outcome::Take(3),
            Outcome::Take(1),
            Outcome::Fail(io::ErrorKind::WouldBlock),
            Outcome::Errno(22), // EINVAL
            Outcome::Take(100),
        ]);
        assert_eq!(output.write_to(&mut socket).unwrap(), (3, true));
        assert_eq!(output.write_to(&mut socket).unwrap(), (1, true));
        for kind in [io::ErrorKind::WouldBlock, io::ErrorKind::Unsupported] {
            assert_eq!(output.write_to(&mut socket).unwrap_err().kind(), kind);
            assert_eq!(output.len(), 8);
        }
        assert!(output.unpipe().unwrap());
        assert!(!output.unpipe().unwrap());
        assert_eq!(output.write_to(&mut socket).unwrap(), (8, true));
        assert_eq!(script.borrow().written, b"abcdefghijkl");
    }
}
