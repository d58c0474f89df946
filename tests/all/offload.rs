//! Jobs on other threads: each comes back once, their number is bounded, and none holds up the loop.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::io::{self, Read};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Barrier, Mutex};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use tidegate::{
    Config, Context, Datagram, DatagramHandler, HandlerResult, JobPanicked, Net, OffloadError,
    PostError, Reactor, SendStatus,
};

use crate::support::panics::{Bomb, ON_PURPOSE, panic_on_purpose, panic_with_a_bomb, quiet};
use crate::support::{Log, PATIENCE, Probe, client, listening, read_all, settle, until};

/// What came back, in order.
type Came = Vec<usize>;

fn reactor(config: Config) -> Reactor<Came> {
    Reactor::build(config, |_| Ok(Came::new())).unwrap()
}

/// A `done` that writes down what came.
fn note(result: Result<usize, JobPanicked>, came: &mut Came, _net: &mut Net<Came>) {
    came.push(result.unwrap());
}

/// A job that says that it runs, and waits until the other end of `blocked` is dropped.
fn blocking(running: Sender<()>, blocked: Receiver<()>) -> impl FnOnce() -> usize + Send {
    move || {
        running.send(()).unwrap();
        let _ = blocked.recv_timeout(PATIENCE);
        0
    }
}

// row 141
#[test]
fn a_job_runs_on_another_thread_and_its_result_comes_to_the_loops() {
    let mut reactor = reactor(Config::new());
    let here = thread::current().id();
    let there = Rc::new(Cell::new(None));
    let told = Rc::clone(&there); // not Send
    reactor
        .net()
        .offload(
            || thread::current().id(),
            move |id: Result<ThreadId, _>, came, net| {
                told.set(Some(id.unwrap()));
                assert_eq!(thread::current().id(), here);
                came.push(net.connection_count());
            },
        )
        .unwrap();
    assert!(reactor.state().is_empty(), "not inside the call");
    // One turn without a limit: the result wakes the loop.
    let _ = reactor.turn(Some(PATIENCE)).unwrap();
    assert_eq!(*reactor.state(), [0]);
    assert!(there.get().is_some_and(|there| there != here));
    settle(&mut reactor);
    assert_eq!(reactor.next_deadline(), None);
}

// row 141
#[test]
fn results_come_in_the_order_in_which_the_jobs_end() {
    let mut reactor = reactor(Config::new().offload_threads(2));
    let (release, blocked) = mpsc::channel::<()>();
    let slow = move || {
        let _ = blocked.recv_timeout(PATIENCE);
        1
    };
    reactor.net().offload(slow, note).unwrap();
    reactor
        .net()
        .offload(
            || 2,
            move |two, came, net| {
                note(two, came, net);
                drop(release);
            },
        )
        .unwrap();
    until(&mut reactor, "both", |r| r.state().len() == 2);
    assert_eq!(*reactor.state(), [2, 1]);
}

// row 141
#[test]
fn jobs_of_one_thread_run_one_after_the_other() {
    let mut reactor = reactor(Config::new().offload_threads(1));
    for n in 0..100 {
        reactor.net().offload(move || n, note).unwrap();
    }
    until(&mut reactor, "all", |r| r.state().len() == 100);
    assert!(reactor.state().iter().copied().eq(0..100));
}

// row 141
#[test]
fn as_many_jobs_run_at_once_as_there_may_be_threads_and_no_more() {
    const THREADS: usize = 3;
    let mut reactor = reactor(Config::new().offload_threads(THREADS));
    // Each round is done only when all three are there.
    let together = Arc::new(Barrier::new(THREADS));
    let running = Arc::new(AtomicUsize::new(0));
    let threads = Arc::new(Mutex::new(HashSet::new()));
    for n in 0..THREADS * 20 {
        let (together, running) = (Arc::clone(&together), Arc::clone(&running));
        let threads = Arc::clone(&threads);
        let job = move || {
            assert!(running.fetch_add(1, Ordering::SeqCst) < THREADS);
            threads.lock().unwrap().insert(thread::current().id());
            together.wait();
            running.fetch_sub(1, Ordering::SeqCst);
            n
        };
        reactor.net().offload(job, note).unwrap();
    }
    until(&mut reactor, "all", |r| r.state().len() == THREADS * 20);
    assert_eq!(threads.lock().unwrap().len(), THREADS);
}

// row 142
#[test]
fn at_the_limit_a_job_is_refused_with_both_closures_until_a_result_was_handled() {
    let mut reactor = reactor(Config::new().offload_limit(1));
    let (running, ran) = mpsc::channel();
    let (release, blocked) = mpsc::channel();
    reactor.net().offload(blocking(running, blocked), note).unwrap();
    let (job_kept, done_kept) = (Arc::new(()), Rc::new(()));
    let (of_job, of_done) = (Arc::clone(&job_kept), Rc::clone(&done_kept));
    let job = move || Arc::strong_count(&of_job);
    let done = move |count: Result<usize, _>, came: &mut Came, _: &mut Net<Came>| {
        came.extend([count.unwrap(), Rc::strong_count(&of_done)]);
    };
    let refused = reactor.net().offload(job, done).unwrap_err();
    assert!(matches!(refused, OffloadError::Full(..)));
    assert_eq!(refused.to_string(), "too many jobs are under way");
    let (job, done) = refused.into_inner();
    // Also when the thread is free: what counts is that the result has not been handled.
    ran.recv_timeout(PATIENCE).unwrap();
    drop(release);
    let (job, done) = reactor.net().offload(job, done).unwrap_err().into_inner();
    until(&mut reactor, "the first", |r| *r.state() == [0]);
    reactor.net().offload(job, done).unwrap();
    until(&mut reactor, "the second", |r| r.state().len() == 3);
    assert_eq!(*reactor.state(), [0, 2, 2]);
    assert_eq!((Arc::strong_count(&job_kept), Rc::strong_count(&done_kept)), (1, 1));
}

// row 142
#[test]
fn a_limit_of_zero_is_one_and_a_done_that_goes_on_is_inside_it() {
    fn again(n: Result<usize, JobPanicked>, came: &mut Came, net: &mut Net<Came>) {
        let n = n.unwrap();
        came.push(n);
        if n < 100 {
            net.offload(move || n + 1, again).unwrap();
            assert!(net.offload(|| 0, again).is_err());
        }
    }
    let mut reactor = reactor(Config::new().offload_limit(0).offload_threads(0));
    reactor.net().offload(|| 0, again).unwrap();
    until(&mut reactor, "the last", |r| r.state().len() == 101);
    assert!(reactor.state().iter().copied().eq(0..=100));
}

// row 142
#[test]
fn a_full_inbox_refuses_messages_and_no_result() {
    let mut reactor = reactor(Config::new().post_limit(1).posts_per_turn(1));
    let remote = reactor.remote();
    remote.post(|came: &mut Came, _| came.push(1000)).unwrap();
    for n in 0..10 {
        reactor.net().offload(move || n, note).unwrap();
    }
    assert!(matches!(remote.post(|_: &mut Came, _| {}), Err(PostError::Full(_))));
    until(&mut reactor, "all", |r| r.state().len() == 11);
    assert_eq!(reactor.state()[0], 1000);
    reactor.state_mut().sort_unstable();
    assert!(reactor.state()[..10].iter().copied().eq(0..10));
    remote.post(|came: &mut Came, _| came.push(0)).unwrap();
}

// row 141
#[test]
fn ten_thousand_jobs_on_two_threads_all_come_back() {
    const JOBS: usize = 10_000;
    let mut reactor = reactor(Config::new().offload_threads(2).offload_limit(JOBS));
    for n in 0..JOBS {
        reactor.net().offload(move || n, note).unwrap();
    }
    until(&mut reactor, "all", |r| r.state().len() == JOBS);
    settle(&mut reactor);
    reactor.state_mut().sort_unstable();
    assert!(reactor.state().iter().copied().eq(0..JOBS), "each once");
}

// row 143
#[test]
fn a_job_that_panics_is_told_and_its_thread_goes_on() {
    let mut reactor = Reactor::with_state(Vec::new()).unwrap();
    let config = Config::new().offload_threads(1);
    let mut one = Reactor::build(config, |_| Ok(Vec::new())).unwrap();
    for reactor in [&mut reactor, &mut one] {
        let jobs: [fn() -> usize; 4] = [|| panic_on_purpose(), || 7, || panic_with_a_bomb(), || 8];
        for job in jobs {
            let note = |result: Result<_, JobPanicked>, came: &mut Vec<_>, _: &mut _| {
                came.push(result.map_err(|panicked| panicked.to_string()));
            };
            reactor.net().offload(job, note).unwrap();
        }
        until(reactor, "all four", |r| r.state().len() == 4);
        let mut came = std::mem::take(reactor.state_mut());
        came.sort();
        let text = format!("the job panicked: {ON_PURPOSE}");
        let bomb = "the job panicked: (a value that is no text)".to_owned();
        assert_eq!(came, [Ok(7), Ok(8), Err(bomb), Err(text)]);
    }
}

// row 143
#[test]
fn a_done_that_panics_and_a_result_that_panics_when_dropped_cost_nothing_else() {
    let mut reactor = reactor(Config::new().offload_threads(1));
    reactor.net().offload(|| 1, |_, _, _| panic_on_purpose()).unwrap();
    reactor.net().offload(|| Bomb, |bomb, _, _| drop(bomb)).unwrap();
    reactor.net().offload(|| 2, note).unwrap();
    until(&mut reactor, "the last", |r| *r.state() == [2]);
    reactor.net().offload(|| Bomb, |_, _, _| {}).unwrap();
    let (running, ran) = mpsc::channel();
    let sent_behind_the_bomb = move || running.send(()).unwrap();
    reactor.net().offload(sent_behind_the_bomb, |_, _, _| {}).unwrap();
    ran.recv_timeout(PATIENCE).unwrap();
    drop(reactor); // with a bomb that waits
}

/// Tells in its drop on which thread it was dropped.
struct Dropped(Sender<ThreadId>);

impl Drop for Dropped {
    fn drop(&mut self) {
        let _ = self.0.send(thread::current().id());
    }
}

// row 144
#[test]
fn the_drop_of_the_reactor_waits_for_no_job_and_drops_what_waits_unrun() {
    let mut reactor = reactor(Config::new().offload_threads(1));
    let (running, ran) = mpsc::channel();
    let (release, blocked) = mpsc::channel::<()>();
    let ended = Arc::new(AtomicBool::new(false));
    let (tell, told) = mpsc::channel();
    let done_kept = Rc::new(());
    let (end, of_done) = (Arc::clone(&ended), Rc::clone(&done_kept));
    let slow = move || {
        running.send(()).unwrap();
        let _ = blocked.recv_timeout(PATIENCE);
        end.store(true, Ordering::SeqCst);
        Dropped(tell)
    };
    let never = move |_: Result<Dropped, _>, _: &mut Came, _: &mut Net<Came>| drop(of_done);
    reactor.net().offload(slow, never).unwrap();
    let (waits, of_done) = (Arc::new(()), Rc::clone(&done_kept));
    let of_job = Arc::clone(&waits);
    let unrun = move || {
        drop(of_job);
        unreachable!("it is dropped unrun");
    };
    reactor.net().offload(unrun, move |_: Result<(), _>, _, _| drop(of_done)).unwrap();
    ran.recv_timeout(PATIENCE).unwrap();
    drop(reactor);
    assert!(!ended.load(Ordering::SeqCst), "the drop has waited");
    assert_eq!((Arc::strong_count(&waits), Rc::strong_count(&done_kept)), (1, 1));
    drop(release);
    let dropped_on = told.recv_timeout(PATIENCE).unwrap();
    assert!(ended.load(Ordering::SeqCst));
    assert_ne!(dropped_on, thread::current().id(), "its result is dropped where it was made");
}

// row 144
#[test]
fn while_the_reactor_is_dropped_a_job_is_refused() {
    let log = Log::new();
    let of_handler = log.clone();
    let refused = Rc::new(RefCell::new(String::new()));
    let text = Rc::clone(&refused);
    let (mut reactor, _, address) = listening(move || {
        let text = Rc::clone(&text);
        Probe::new(&of_handler).close(move |cx, _| {
            let refused = cx.net.offload(|| (), |_, _, _| {}).unwrap_err();
            assert!(matches!(refused, OffloadError::Ended(..)));
            *text.borrow_mut() = refused.to_string();
        })
    });
    let _peer = client(address);
    until(&mut reactor, "the open", |_| log.opens() == 1);
    drop(reactor);
    assert_eq!(*refused.borrow(), "the reactor is being dropped");
}

// row 144
#[test]
fn neither_stop_nor_a_shutdown_waits_for_a_job_whose_result_comes_when_the_loop_runs_again() {
    let mut reactor = reactor(Config::new());
    let (running, ran) = mpsc::channel();
    let (release, blocked) = mpsc::channel();
    reactor.net().offload(blocking(running, blocked), note).unwrap();
    ran.recv_timeout(PATIENCE).unwrap();
    reactor.net().stop();
    reactor.run().unwrap();
    reactor.net().shutdown(Duration::MAX);
    reactor.run().unwrap();
    assert!(reactor.state().is_empty());
    drop(release);
    until(&mut reactor, "the result", |r| *r.state() == [0]);
}

struct Deaf;

impl DatagramHandler<Came> for Deaf {
    fn on_datagram(&mut self, _: &mut Context<'_, Came>, _: Datagram<'_>) -> HandlerResult {
        Ok(())
    }
}

// row 144
#[test]
fn a_reactor_that_was_never_made_refuses_posts_and_begins_no_job_more() {
    quiet();
    let (running, ran) = mpsc::channel();
    let (release, blocked) = mpsc::channel();
    let waits = Arc::new(());
    let mut remote = None;
    let config = Config::new().offload_threads(1);
    let failed = Reactor::<Came>::build(config, |net| {
        remote = Some(net.remote());
        net.offload(blocking(running, blocked), note).unwrap();
        for _ in 0..2 {
            let (of_job, of_call, of_done) = (Bomb, Bomb, Bomb);
            let kept = Arc::clone(&waits);
            let unrun = move || drop((of_job, kept));
            net.offload(unrun, move |_, _, _| drop(of_done)).unwrap();
            net.run_after(PATIENCE, move |_, _| drop(of_call));
        }
        ran.recv_timeout(PATIENCE).unwrap();
        net.bind_udp("no address", Deaf)?;
        Ok(Came::new())
    });
    assert!(failed.is_err());
    assert_eq!(Arc::strong_count(&waits), 1, "the jobs that waited are dropped");
    let refused = remote.unwrap().post(|_, _| {});
    assert!(matches!(refused, Err(PostError::Ended(_))));
    drop(release);
}

// row 144
#[test]
fn a_drop_in_the_middle_of_results_drops_each_once() {
    const JOBS: usize = 50;
    for round in 0..100 {
        let dropped = Arc::new(());
        let mut reactor = reactor(Config::new().offload_threads(1 + round % 4).posts_per_turn(1));
        let came = Rc::new(Cell::new(0));
        for _ in 0..JOBS {
            let (result, came) = (Arc::clone(&dropped), Rc::clone(&came));
            let done = move |result: Result<Arc<()>, _>, _: &mut Came, _: &mut Net<Came>| {
                assert!(result.is_ok());
                came.set(came.get() + 1);
            };
            reactor.net().offload(move || result, done).unwrap();
        }
        // With some in the queue, some on the threads, some in the inbox, and some handled.
        let some = round % 7;
        until(&mut reactor, "some", |_| came.get() >= some);
        drop(reactor);
        assert_eq!(Rc::strong_count(&came), 1, "no `done` is left");
        let start = Instant::now();
        while Arc::strong_count(&dropped) > 1 {
            assert!(start.elapsed() < PATIENCE, "a job or a result is never dropped");
            thread::yield_now();
        }
    }
}

// row 144
#[test]
fn a_job_may_be_begun_in_the_last_callback_of_a_connection_and_after_a_stop() {
    let log = Log::new();
    let of_handler = log.clone();
    let came = Rc::new(RefCell::new(Vec::new()));
    let of_close = Rc::clone(&came);
    let (mut reactor, _, address) = listening(move || {
        let came = Rc::clone(&of_close);
        Probe::new(&of_handler).close(move |cx, _| {
            let (token, came) = (cx.token, Rc::clone(&came));
            cx.net.stop();
            let done = move |n: Result<i32, _>, (): &mut (), net: &mut Net| {
                // Nothing is left of the connection, and its token names no other.
                let sent = net.send(token, "too late");
                came.borrow_mut().push((n.unwrap(), sent, net.release(token)));
            };
            cx.net.offload(|| 1, done).unwrap();
        })
    });
    let peer = client(address);
    until(&mut reactor, "the open", |_| log.opens() == 1);
    drop(peer);
    reactor.run().unwrap();
    assert_eq!(log.closes(), 1);
    let mut next = client(address); // takes the slot
    until(&mut reactor, "both", |_| log.opens() == 2 && came.borrow().len() == 1);
    assert_eq!(*came.borrow(), [(1, SendStatus::Gone, false)]);
    next.set_nonblocking(true).unwrap();
    let nothing = next.read(&mut [0]).unwrap_err();
    assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
}

// row 141
#[test]
fn what_a_job_posts_comes_before_its_result() {
    let mut reactor = reactor(Config::new());
    let remote = reactor.remote();
    for n in 0..100 {
        let remote = remote.clone();
        let job = move || {
            remote.post(move |came: &mut Came, _| came.push(n)).unwrap();
            1000 + n
        };
        reactor.net().offload(job, note).unwrap();
    }
    until(&mut reactor, "all", |r| r.state().len() == 200);
    let place = |n| reactor.state().iter().position(|&came| came == n);
    assert!((0..100).all(|n| place(n).unwrap() < place(1000 + n).unwrap()));
}

#[test]
fn a_connection_that_holds_for_a_job_sends_its_answer_to_a_peer_that_has_ended_its_side() {
    let log = Log::new();
    let of_handler = log.clone();
    let (mut reactor, _, address) = listening(move || {
        Probe::new(&of_handler)
            .data(|cx, input| {
                let (question, token) = (input.take_all().to_vec(), cx.token);
                cx.hold();
                let job = move || question.iter().rev().copied().collect::<Vec<u8>>();
                cx.net.offload(job, move |answer, (), net| {
                    net.send(token, answer.unwrap());
                    net.release(token);
                })?;
                Ok(())
            })
            .eof(|cx| {
                cx.close_when_done();
                Ok(())
            })
    });
    let answer = crate::support::with_client(&mut reactor, move || {
        use std::io::Write;
        let mut stream = client(address);
        stream.write_all(b"desserts").unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        read_all(&mut stream)
    });
    assert_eq!(answer, b"stressed");
    until(&mut reactor, "the close", |_| log.closes() == 1);
}
