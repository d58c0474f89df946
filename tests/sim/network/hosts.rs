//! Hosts: their systems, their processes, their clocks, their threads.

use std::cell::{Cell, RefCell};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::rc::Rc;
use std::time::Duration;

use tidegate::sim::{Fault, Faults, Link, Sim};
use tidegate::{
    Adopt, Config, Connect, Context, Error, Handler, HandlerResult, Input, Listen, Net, PostError,
    Reactor, Udp,
};

use crate::kit::{
    DAY, Log, SECOND, Watch, connect, connect_with, idle, listen, ms, patient, refusal,
};

#[test]
fn accept_may_fail_for_a_connection() {
    let mut sim = Sim::new(1);
    sim.faults(Faults::none().with(Fault::AcceptErrors, 1.0).until(SECOND));
    let server = listen(&mut sim, "server", 7, Watch::default());
    let client = connect(&mut sim, "client", "server:7", Watch::default());
    sim.run_for(2 * SECOND).unwrap();
    assert_eq!(sim.state(server).count("open"), 0);
    assert!(sim.state(client).text().contains("close connection reset"));
    let later = connect(&mut sim, "later", "server:7", Watch::default());
    sim.run_for(SECOND).unwrap();
    assert_eq!(sim.state(later).count("close"), 0);
}

#[test]
fn descriptors_may_run_out() {
    let mut sim = Sim::new(1);
    let server = listen(&mut sim, "server", 7, Watch::echo());
    sim.faults(Faults::none().with(Fault::Descriptors, 1.0).until(5 * SECOND));
    let failed = connect(&mut sim, "failed", "server:7", Watch::default());
    sim.run_for(SECOND).unwrap();
    assert!(sim.state(failed).text().contains("close cannot connect"));
    // A raw peer has descriptors of its own: its connection waits in the backlog until there is one.
    sim.faults(Faults::none());
    let peer = sim.peer("peer").unwrap();
    sim.raw(peer).connect("server:7").unwrap();
    sim.faults(Faults::none().with(Fault::Descriptors, 1.0).until(5 * SECOND));
    sim.raw(peer).send(b"hello");
    sim.run_for(SECOND).unwrap();
    assert_eq!(sim.state(server).count("open"), 0);
    sim.run_for(10 * SECOND).unwrap();
    assert_eq!(sim.raw(peer).received(), b"hello");
}

#[test]
fn polls_may_be_interrupted_and_report_what_is_not() {
    for fault in [Fault::InterruptedPolls, Fault::SpuriousReadiness, Fault::ReadyOrder] {
        let mut sim = Sim::new(1);
        sim.faults(Faults::none().with(fault, 0.5));
        listen(&mut sim, "server", 7, Watch::echo());
        let clients: Vec<_> = (0..5)
            .map(|n| connect(&mut sim, &format!("c{n}"), "server:7", Watch::saying(vec![7; 9_000])))
            .collect();
        sim.run_for(SECOND).unwrap();
        assert!(clients.iter().all(|&client| sim.state(client).bytes.len() == 9_000), "{fault}");
        let happened = sim.run_until(SECOND, |_| false).unwrap_err();
        assert_eq!(happened.faults(), [fault]);
    }
}

#[test]
fn readiness_comes_in_any_order() {
    let order = |faults: Faults| {
        let mut sim = Sim::new(1);
        let server = listen(&mut sim, "server", 7, Watch::default());
        let peers: Vec<_> = (0..8).map(|n| sim.peer(&format!("p{n}")).unwrap()).collect();
        for &peer in &peers {
            sim.raw(peer).connect("server:7").unwrap();
        }
        sim.run_for(SECOND).unwrap();
        sim.faults(faults);
        sim.pause("server", ms(100)).unwrap();
        for (number, &peer) in peers.iter().enumerate() {
            sim.raw(peer).send(&[number as u8]);
        }
        sim.run_for(SECOND).unwrap();
        sim.state(server).bytes.clone()
    };
    assert!(order(Faults::none()).is_sorted());
    let mut shuffled = order(Faults::none().with(Fault::ReadyOrder, 1.0));
    assert!(!shuffled.is_sorted());
    shuffled.sort_unstable();
    assert!(shuffled.into_iter().eq(0..8));
}

#[test]
fn a_paused_process_hears_later_what_its_system_took() {
    let mut sim = Sim::new(1);
    let server = listen(&mut sim, "server", 7, Watch::echo());
    let peer = sim.peer("peer").unwrap();
    sim.raw(peer).connect("server:7").unwrap();
    sim.run_for(SECOND).unwrap();
    sim.pause("server", 10 * SECOND).unwrap();
    sim.raw(peer).send(&[7; 300_000]);
    sim.run_for(5 * SECOND).unwrap();
    assert_eq!(sim.state(server).bytes.len(), 0);
    sim.run_for(60 * SECOND).unwrap();
    assert_eq!(sim.raw(peer).received().len(), 300_000);
    let first = sim.state(server).time_of("data");
    assert!(first >= 11 * SECOND && first < 12 * SECOND, "{first:?}");
}

#[test]
fn the_system_of_a_paused_host_accepts_in_the_meantime() {
    // Two SYNs at different times while the process is stopped: both are answered at once.
    let mut sim = Sim::new(1);
    listen(&mut sim, "server", 7, Watch::default());
    sim.link_all(ms(5));
    sim.run_for(ms(10)).unwrap();
    sim.pause("server", 10 * SECOND).unwrap();
    let clients: Vec<_> = (0..3)
        .map(|n| {
            let client = connect(&mut sim, &format!("c{n}"), "10.0.0.1:7", Watch::default());
            sim.run_for(Duration::from_micros(100)).unwrap();
            client
        })
        .collect();
    sim.run_for(SECOND).unwrap();
    for client in clients {
        assert!(sim.state(client).time_of("open") < ms(20));
    }
}

trait LinkAll {
    fn link_all(&mut self, latency: Duration);
}

impl LinkAll for Sim {
    fn link_all(&mut self, latency: Duration) {
        self.default_link(Link::new().latency(latency..latency)).unwrap();
    }
}

#[test]
fn pauses_of_the_seed() {
    let last = |faults: Faults| {
        let mut sim = Sim::new(1);
        sim.faults(faults);
        listen(&mut sim, "server", 7, Watch::echo());
        let client = connect(&mut sim, "client", "server:7", Watch::saying("hello"));
        sim.run_for(60 * SECOND).unwrap();
        sim.state(client).time_of("data")
    };
    assert!(last(Faults::none()) < ms(10));
    assert!(last(Faults::none().with(Fault::Pauses, 0.5)) > ms(100));
}

#[test]
fn the_peers_of_a_process_that_crashes_get_resets() {
    let mut sim = Sim::new(1);
    let server = listen(&mut sim, "server", 7, Watch::default());
    let client = connect(&mut sim, "client", "server:7", Watch::default());
    sim.run_for(SECOND).unwrap();
    assert!(sim.is_running(server));
    sim.crash("server").unwrap();
    assert!(!sim.is_running(server));
    sim.run_for(SECOND).unwrap();
    assert!(sim.state(client).text().contains("close connection reset"));
    // Its machine refuses.
    let late = connect(&mut sim, "late", "server:7", Watch::default());
    sim.run_for(SECOND).unwrap();
    assert!(sim.state(late).text().contains("refused"), "{}", sim.state(late).text());
    // It comes back with new state.
    sim.restart("server").unwrap();
    assert!(sim.is_running(server));
    assert_eq!(sim.state(server).lines.len(), 0);
    connect(&mut sim, "later", "server:7", Watch::saying("hello"));
    sim.run_for(SECOND).unwrap();
    assert_eq!(sim.state(server).bytes, b"hello");
}

#[test]
fn a_machine_that_stops_is_silent() {
    let mut sim = Sim::new(1);
    listen(&mut sim, "server", 7, Watch::default());
    let quiet = connect(&mut sim, "quiet", "server:7", Watch::default());
    let idle = patient().idle_timeout(30 * SECOND);
    let impatient = connect_with(&mut sim, "impatient", "server:7", idle, Watch::default());
    let talks = connect(&mut sim, "talks", "server:7", Watch::default());
    sim.run_for(SECOND).unwrap();
    sim.power_off("server").unwrap();
    sim.run_for(SECOND).unwrap();
    let token = sim.state(talks).token.unwrap();
    sim.with(talks, |_, net| net.send(token, "hello?"));
    sim.run_for(60 * SECOND).unwrap();
    assert_eq!(sim.state(quiet).count("close"), 0);
    assert_eq!(sim.state(impatient).count("close timed out: no byte moved"), 1);
    assert_eq!(sim.state(talks).count("close"), 0, "it still repeats it");
    sim.run_for(2_000 * SECOND).unwrap();
    let gave_up = sim.state(talks).time_of("close timed out");
    assert!(gave_up > 500 * SECOND && gave_up < 1_500 * SECOND, "{gave_up:?}");
    assert_eq!(sim.state(quiet).count("close"), 0, "who says nothing never learns of it");
    // The machine is back and knows of no connection.
    sim.restart("server").unwrap();
    let token = sim.state(quiet).token.unwrap();
    sim.with(quiet, |_, net| net.send(token, "hello?"));
    sim.run_for(SECOND).unwrap();
    assert!(sim.state(quiet).text().contains("close connection reset"));
}

#[test]
fn crashes_of_the_seed_come_back() {
    let mut sim = Sim::new(3);
    sim.faults(Faults::none().with(Fault::Crashes, 0.2).until(10 * SECOND));
    let starts = Rc::new(Cell::new(0));
    let counter = Rc::clone(&starts);
    let server = sim
        .host("server", move |net| {
            counter.set(counter.get() + 1);
            net.listen("0.0.0.0:7", |_| Watch::echo())?;
            net.run_after(ms(500), |_, _| {});
            Ok(Log::new(net))
        })
        .unwrap();
    for at in 1..100 {
        sim.at(at * ms(100), move |sim| {
            if sim.is_running(server) {
                sim.with(server, |_, _| {});
            }
        });
    }
    sim.run_for(60 * SECOND).unwrap();
    assert!(starts.get() > 2, "{}", starts.get());
    assert!(sim.is_running(server));
}

#[test]
fn a_wall_clock_jumps_and_the_monotonic_one_does_not() {
    let mut sim = Sim::new(1);
    let host = idle(&mut sim, "host");
    let read = |sim: &mut Sim| sim.with(host, |_, net| (net.now(), net.system_time()));
    // Reading a clock takes some nanoseconds.
    let seconds = |time: Duration| (time + ms(1)).as_secs();
    let (now, wall) = read(&mut sim);
    sim.run_for(SECOND).unwrap();
    sim.set_clock_forward("host", 100 * SECOND).unwrap();
    let (later, after) = read(&mut sim);
    assert_eq!(seconds(later - now), 1);
    assert_eq!(seconds(after.duration_since(wall).unwrap()), 101);
    sim.set_clock_back("host", 200 * SECOND).unwrap();
    let (later, before) = read(&mut sim);
    assert_eq!(seconds(later - now), 1);
    assert!(wall.duration_since(before).unwrap() > 98 * SECOND);
    // A timer keeps to the monotonic one.
    sim.with(host, |_, net| {
        net.run_after(SECOND, |log: &mut Log, net| log.add(net.now(), "timer"));
    });
    sim.set_clock_forward("host", Duration::MAX).unwrap();
    sim.set_clock_forward("host", Duration::MAX).unwrap();
    read(&mut sim);
    sim.set_clock_back("host", Duration::MAX).unwrap();
    sim.run_for(2 * SECOND).unwrap();
    assert_eq!(sim.state(host).time_of("timer").as_secs(), 2);
}

#[test]
fn the_seed_moves_wall_clocks() {
    let mut sim = Sim::new(1);
    let host = idle(&mut sim, "host");
    let before = sim.with(host, |_, net| net.system_time());
    sim.faults(Faults::none().with(Fault::WallClock, 1.0));
    sim.with(host, |_, _| {});
    sim.run_for(ms(1)).unwrap();
    let after = sim.with(host, |_, net| net.system_time());
    let moved = after.duration_since(before).unwrap_or_else(|e| e.duration());
    assert!(moved > SECOND && moved <= 3_601 * SECOND, "{moved:?}");
}

#[test]
fn posts_from_other_hosts_and_from_outside_are_events() {
    let mut sim = Sim::new(1);
    let receiver = idle(&mut sim, "receiver");
    let remote = sim.remote(receiver);
    let line =
        |text: &'static str| move |log: &mut Log, net: &mut Net<Log>| log.add(net.now(), text);
    // Outside of every step.
    remote.post(line("outside")).unwrap();
    sim.run_for(ms(1)).unwrap();
    assert_eq!(sim.state(receiver).count("outside"), 1);
    // In an action, at its time.
    let from_action = remote.clone();
    sim.at(SECOND, move |_| from_action.post(line("action")).unwrap());
    sim.run_for(2 * SECOND).unwrap();
    assert_eq!(sim.state(receiver).time_of("action").as_secs(), 1);
    // From another host's turn.
    let from_host = remote.clone();
    sim.host("sender", move |net| {
        let remote = from_host.clone();
        net.run_after(SECOND, move |(), _| remote.post(line("host")).unwrap());
        Ok(())
    })
    .unwrap();
    sim.run_for(2 * SECOND).unwrap();
    assert_eq!(sim.state(receiver).time_of("host").as_secs(), 3);
    // From a host of another simulation, whose own hosts are not woken by it.
    let mut other = Sim::new(2);
    let from_other = remote.clone();
    other
        .host("other", move |net| {
            let remote = from_other.clone();
            net.run_after(ms(1), move |(), _| remote.post(line("other")).unwrap());
            Ok(())
        })
        .unwrap();
    other.settle(SECOND).unwrap();
    sim.settle(SECOND).unwrap();
    assert_eq!(sim.state(receiver).count("other"), 1);
    // A process that is gone has ended.
    sim.crash("receiver").unwrap();
    assert!(matches!(remote.stop(), Err(PostError::Ended(()))));
}

#[test]
fn another_thread_may_not_post() {
    let mut sim = Sim::new(1);
    let host = idle(&mut sim, "host");
    let remote = sim.remote(host);
    let refused = std::thread::spawn(move || {
        assert!(matches!(remote.stop(), Err(PostError::Simulated(()))));
        remote.post(|_, _| {}).map_err(|e| e.to_string())
    });
    let text = refused.join().unwrap().unwrap_err();
    assert_eq!(text, "only a simulation's own thread may post to its reactors");
    sim.settle(SECOND).unwrap();
}

#[test]
fn what_belongs_to_the_system_is_refused() {
    let mut sim = Sim::new(1);
    let host = idle(&mut sim, "host");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let source = mio::net::UdpSocket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let texts = sim.with(host, |_, net| {
        [
            refusal(net.adopt(Adopt::from(stream), Watch::default())),
            refusal(net.listen(Listen::adopt(listener), |_| Watch::default())),
            refusal(net.bind_udp(Udp::adopt(udp), Watch::default())),
            refusal(net.register_source(source, mio::Interest::READABLE, |_, _, _| Ok(()))),
            refusal(Reactor::new()),
        ]
    });
    for text in &texts {
        assert!(text.contains("expected sim") || text.contains("expected Sim"), "{text}");
    }
    sim.settle(SECOND).unwrap();
}

#[test]
fn a_reactor_is_refused_in_a_set_up_too() {
    let mut sim = Sim::new(1);
    let made = sim.host("host", |_| {
        let inner = Reactor::new();
        inner.map(drop)
    });
    assert!(refusal(made).contains("expected Sim::host"));
}

#[test]
fn jobs_run_inline_after_a_time_of_the_seed() {
    let time = |seed| {
        let mut sim = Sim::new(seed);
        let host = idle(&mut sim, "host");
        sim.with(host, |_, net| {
            net.offload(
                || std::thread::current().id(),
                |result, log: &mut Log, net| {
                    assert_eq!(result.unwrap(), std::thread::current().id());
                    log.add(net.now(), "done");
                },
            )
            .unwrap();
        });
        assert_eq!(sim.state(host).lines.len(), 0, "not inside the call");
        sim.settle(SECOND).unwrap();
        sim.state(host).time_of("done")
    };
    assert_eq!(time(1), time(1));
    assert!((1..50).any(|seed| time(seed) > ms(10)));
    assert!((1..50).all(|seed| time(seed) < ms(50)));
}

#[test]
fn jobs_wait_for_a_worker_and_a_crash_drops_them() {
    let mut sim = Sim::new(1);
    let ran = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = std::sync::Arc::clone(&ran);
    sim.host_with("host", Config::new().offload_threads(1), move |net| {
        for _ in 0..50 {
            let count = std::sync::Arc::clone(&count);
            let job = move || count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            net.offload(job, |_, (), _| {}).unwrap();
        }
        Ok(())
    })
    .unwrap();
    sim.run_for(ms(100)).unwrap();
    let before = ran.load(std::sync::atomic::Ordering::Relaxed);
    assert!(before > 0 && before < 50, "one after the other: {before}");
    sim.crash("host").unwrap();
    sim.run_for(10 * SECOND).unwrap();
    assert_eq!(ran.load(std::sync::atomic::Ordering::Relaxed), before);
}

#[test]
fn jobs_of_several_workers_end_in_any_order_and_those_of_one_in_theirs() {
    let order = |seed, threads| {
        let mut sim = Sim::new(seed);
        let config = Config::new().offload_threads(threads);
        let host = sim
            .host_with("host", config, |net: &mut Net<Vec<i32>>| {
                for number in 0..4 {
                    net.offload(move || number, |result, ended, _| ended.push(result.unwrap()))
                        .unwrap();
                }
                Ok(Vec::new())
            })
            .unwrap();
        sim.settle(SECOND).unwrap();
        sim.state(host).clone()
    };
    assert!((1..50).any(|seed| order(seed, 4) != [0, 1, 2, 3]));
    assert!((1..50).all(|seed| order(seed, 1) == [0, 1, 2, 3]));
}

#[test]
fn a_process_that_is_stopped_runs_no_job() {
    let mut sim = Sim::new(1);
    let other = idle(&mut sim, "other");
    let remote = sim.remote(other);
    let host = idle(&mut sim, "host");
    sim.with(host, |_, net| {
        let job = move || remote.post(|log: &mut Log, net| log.add(net.now(), "job")).unwrap();
        net.offload(job, |_, _, _| {}).unwrap();
    });
    sim.pause("host", SECOND).unwrap();
    sim.run_for(2 * SECOND).unwrap();
    assert!(sim.state(other).time_of("job") >= SECOND);
}

#[test]
fn a_job_that_panics_fails_the_run_in_the_name_of_its_host() {
    let mut sim = Sim::new(1);
    idle(&mut sim, "first");
    let host = idle(&mut sim, "second");
    sim.with(host, |_, net| {
        net.offload(|| panic!("no disk"), |_: Result<(), _>, _, _| {}).unwrap();
    });
    let failure = sim.run_for(SECOND).unwrap_err().to_string();
    assert!(failure.starts_with("second: a panic: no disk"), "{failure}");
}

#[test]
fn stop_ends_a_host_and_leaves_its_state() {
    let mut sim = Sim::new(1);
    let server = listen(&mut sim, "server", 7, Watch::default());
    let client = connect(&mut sim, "client", "server:7", Watch::saying("hello"));
    sim.run_for(SECOND).unwrap();
    sim.with(server, |_, net| net.stop());
    sim.run_for(SECOND).unwrap();
    assert!(!sim.is_running(server));
    assert_eq!(sim.state(server).bytes, b"hello");
    assert_eq!(sim.state(server).count("close the reactor was dropped"), 1);
    assert_eq!(sim.state(client).count("close"), 1);
    // Its port is free: it can start again.
    sim.restart("server").unwrap();
    assert_eq!(sim.state(server).bytes, b"");
    sim.settle(DAY).unwrap();
}

#[test]
fn shutdown_lets_connections_end_first() {
    let mut sim = Sim::new(1);
    let server = listen(&mut sim, "server", 7, Watch::default());
    let client = connect(&mut sim, "client", "server:7", Watch::default());
    sim.run_for(SECOND).unwrap();
    sim.with(server, |_, net| net.shutdown(5 * SECOND));
    sim.run_for(2 * SECOND).unwrap();
    assert!(sim.is_running(server));
    let late = connect(&mut sim, "late", "10.0.0.1:7", Watch::default());
    sim.run_for(ms(500)).unwrap();
    assert!(sim.state(late).text().contains("refused"));
    let token = sim.state(client).token.unwrap();
    sim.with(client, |_, net| net.close(token));
    sim.run_for(SECOND).unwrap();
    assert!(!sim.is_running(server), "{}", sim.state(server).text());
    assert_eq!(sim.state(server).count("close both sides ended"), 1);
}

struct Keeps(Rc<RefCell<Vec<&'static str>>>);

impl Handler for Keeps {
    fn on_data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> HandlerResult {
        Ok(())
    }

    fn on_close(&mut self, _: &mut Context<'_>, _: &tidegate::CloseInfo) {
        self.0.borrow_mut().push("close");
    }
}

impl Drop for Keeps {
    fn drop(&mut self) {
        self.0.borrow_mut().push("drop");
    }
}

#[test]
fn a_crash_calls_nothing_and_the_end_of_a_simulation_calls_on_close() {
    for crashes in [true, false] {
        let seen = Rc::default();
        let mut sim = Sim::new(1);
        let kept = Rc::clone(&seen);
        sim.host("host", move |net| {
            let kept = Rc::clone(&kept);
            net.listen("0.0.0.0:7", move |_| Keeps(Rc::clone(&kept)))?;
            Ok(())
        })
        .unwrap();
        connect(&mut sim, "client", "host:7", Watch::default());
        sim.run_for(SECOND).unwrap();
        if crashes {
            sim.crash("host").unwrap();
            assert_eq!(*seen.borrow(), ["drop"]);
        }
        drop(sim);
        let expected: &[&str] = if crashes { &["drop"] } else { &["close", "drop"] };
        assert_eq!(*seen.borrow(), expected);
    }
}

#[test]
fn a_simulation_inside_another_one_is_its_own() {
    let mut sim = Sim::new(1);
    let host = sim
        .host("outer", |net| {
            net.run_after(ms(1), |log: &mut Log, net| {
                let mut inner = Sim::new(2);
                let server = listen(&mut inner, "server", 7, Watch::echo());
                connect(&mut inner, "client", "server:7", Watch::saying("hello"));
                inner.run_for(SECOND).unwrap();
                let heard = String::from_utf8(inner.state(server).bytes.clone()).unwrap();
                drop(inner);
                log.add(net.now(), heard);
            });
            Ok(Log::new(net))
        })
        .unwrap();
    sim.settle(DAY).unwrap();
    assert!(sim.state(host).time_of("hello") < ms(3), "an outer second did not pass");
}

#[test]
fn a_simulation_dropped_by_a_panic_takes_its_world_along() {
    let caught = std::panic::catch_unwind(|| {
        let mut sim = Sim::new(1);
        let host = listen(&mut sim, "server", 7, Watch::default());
        connect(&mut sim, "client", "server:7", Watch::default());
        sim.run_for(SECOND).unwrap();
        sim.with(host, |_, _| std::panic::panic_any("on purpose"));
    });
    assert!(caught.is_err());
    // No world is left: this is the real one again.
    Reactor::new().unwrap();
    TcpListener::bind("127.0.0.1:0").unwrap();
}

#[test]
fn times_without_end_do_not_overflow() {
    let mut sim = Sim::new(1);
    sim.faults(Faults::none().with(Fault::Jitter, 1.0));
    sim.default_link(Link::new().latency(Duration::MAX..Duration::MAX)).unwrap();
    listen(&mut sim, "server", 7, Watch::default());
    let client = connect(&mut sim, "client", "10.0.0.1:7", Watch::default());
    sim.default_link(Link::new().latency(SECOND..Duration::MAX)).unwrap();
    let to = Connect::tcp("10.0.0.1:7").options(patient());
    sim.with(client, |_, net| net.connect(to, Watch::default()).map(drop)).unwrap();
    sim.at(Duration::MAX, |_| panic!("never"));
    sim.run_for(SECOND).unwrap();
    sim.pause("client", Duration::MAX).unwrap();
    sim.run_for(Duration::MAX).unwrap();
    sim.with(client, |_, net| net.system_time());
    sim.crash("client").unwrap();
    sim.restart("client").unwrap();
    sim.run_for(SECOND).unwrap();
}

#[test]
fn a_set_up_that_fails_leaves_nothing_open() {
    let mut sim = Sim::new(1);
    let fails = Rc::new(Cell::new(true));
    let switch = Rc::clone(&fails);
    let made = sim.host("host", move |net| {
        net.listen("0.0.0.0:7", |_| Watch::default())?;
        if switch.get() {
            net.listen("0.0.0.0:7", |_| Watch::default())?;
        }
        Ok(Log::new(net))
    });
    assert!(refusal(made).contains("address in use"));
    // The host is there and down; the cause is gone.
    fails.set(false);
    sim.restart("host").unwrap();
    let client = connect(&mut sim, "client", "host:7", Watch::default());
    sim.run_for(SECOND).unwrap();
    assert_eq!(sim.state(client).count("open"), 1);
}

#[allow(clippy::needless_pass_by_value)]
fn kind_of(error: Error) -> std::io::ErrorKind {
    error.kind()
}

#[test]
fn refusals_have_the_kind_of_the_system_s() {
    let mut sim = Sim::new(1);
    let host = listen(&mut sim, "host", 7, Watch::default());
    sim.with(host, |_, net| {
        let used = net.listen("0.0.0.0:7", |_| Watch::default()).unwrap_err();
        assert_eq!(kind_of(used), std::io::ErrorKind::AddrInUse);
        let foreign = net.listen("10.1.2.3:8", |_| Watch::default()).unwrap_err();
        assert_eq!(kind_of(foreign), std::io::ErrorKind::AddrNotAvailable);
    });
}
