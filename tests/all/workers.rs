//! Workers: several reactors on several threads, one port, and what crosses between them.

use std::cell::Cell;
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::rc::Rc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;

use tidegate::{
    Address, Balance, CloseInfo, Config, Context, Datagram, DatagramHandler, Error, Handler,
    HandlerResult, Input, Listen, Message, Net, Notification, RunningWorkers, Token, Undelivered,
    Worker, WorkerToken, Workers,
};

use crate::support::{PATIENCE, client, read_n};

/// What a worker's thread keeps: nothing of it is `Send`.
struct State {
    worker: usize,
    listener: Token,
    news: Sender<News>,
    not_send: Rc<Cell<usize>>,
}

/// What happens on workers.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
enum News {
    Open(WorkerToken),
    Closed(usize),
    Undelivered(WorkerToken),
    Notified(usize, u32),
}

/// Tells its peer the worker's number, and does what the peer says, a line each.
struct Member;

impl Handler<State> for Member {
    fn on_open(&mut self, cx: &mut Context<'_, State>) -> HandlerResult {
        let name = cx.net.worker_token(cx.token);
        cx.state.not_send.set(cx.state.not_send.get() + 1);
        cx.state.news.send(News::Open(name))?;
        cx.send([b'0' + cx.state.worker as u8]);
        Ok(())
    }

    fn on_data(&mut self, cx: &mut Context<'_, State>, input: &mut Input<'_>) -> HandlerResult {
        let me = cx.token;
        while let Some(line) = input.take_until(b'\n') {
            let line = std::str::from_utf8(line)?.trim_end();
            let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
            match verb {
                "join" => {
                    let room = cx.net.group(rest);
                    assert!(cx.net.join(room, me));
                    cx.send("j");
                }
                "leave" => {
                    let room = cx.net.group(rest);
                    assert!(cx.net.leave(room, me));
                    cx.send("l");
                }
                "say" => {
                    let (room, text) = rest.split_once(' ').ok_or("say ROOM TEXT")?;
                    cx.net.publish_named(room, format!("{text}\n"));
                }
                "say_to_others" => {
                    let (room, text) = rest.split_once(' ').ok_or("say ROOM TEXT")?;
                    cx.net.publish_named_except(room, me, format!("{text}\n"));
                }
                "bye" => cx.close(),
                other => return Err(format!("expected a verb, got {other}").into()),
            }
        }
        Ok(())
    }

    fn on_notify(&mut self, cx: &mut Context<'_, State>, value: Notification) -> HandlerResult {
        match value.take::<Undelivered>() {
            Ok(Undelivered { to }) => cx.state.news.send(News::Undelivered(to))?,
            Err(value) => {
                let number = value.take::<u32>().map_err(|_| "no u32")?;
                cx.state.news.send(News::Notified(cx.state.worker, number))?;
            }
        }
        Ok(())
    }

    fn on_close(&mut self, cx: &mut Context<'_, State>, _: &CloseInfo) {
        let _ = cx.state.news.send(News::Closed(cx.state.worker));
    }
}

/// Workers that run, and where to reach them.
struct Service {
    running: Option<RunningWorkers<State>>,
    address: SocketAddr,
    news: Receiver<News>,
}

impl Service {
    fn start(workers: Workers) -> Self {
        Self::listening(workers, |listen| listen)
    }

    fn listening(
        workers: Workers,
        adapt: impl Fn(Listen<State>) -> Listen<State> + Send + Sync + 'static,
    ) -> Self {
        let (addresses, found) = mpsc::channel();
        let (news, heard) = mpsc::channel();
        let running = workers
            .start(move |worker: &Worker<State>, net| {
                let listener = net.listen(adapt(Listen::tcp("127.0.0.1:0")), |_peer| Member)?;
                addresses.send(net.local_addr(listener)).unwrap();
                let (worker, news) = (worker.index(), news.clone());
                Ok(State { worker, listener, news, not_send: Rc::default() })
            })
            .unwrap();
        let count = running.handle().count();
        let addresses: Vec<_> = (0..count).map(|_| found.recv().unwrap()).collect();
        assert!(addresses.windows(2).all(|pair| pair[0] == pair[1]), "{addresses:?}");
        let Some(Address::Ip(address)) = addresses[0].clone() else { panic!("{addresses:?}") };
        Service { running: Some(running), address, news: heard }
    }

    fn handle(&self) -> tidegate::WorkersHandle<State> {
        self.running.as_ref().unwrap().handle()
    }

    fn news(&self) -> News {
        self.news.recv_timeout(PATIENCE).expect("nothing happens")
    }

    /// A client whose connection is open.
    fn client(&self) -> Client {
        let mut stream = client(self.address);
        let worker = usize::from(read_n(&mut stream, 1)[0] - b'0');
        let News::Open(name) = self.news() else { panic!("something else happened first") };
        assert_eq!(name.worker(), worker);
        Client { stream, worker, name }
    }

    fn end(&mut self) -> tidegate::ShutdownReport {
        let running = self.running.take().unwrap();
        running.handle().shutdown(PATIENCE);
        running.wait().unwrap()
    }
}

struct Client {
    stream: TcpStream,
    worker: usize,
    name: WorkerToken,
}

impl Client {
    fn says(&mut self, text: &str) {
        self.stream.write_all(format!("{text}\n").as_bytes()).unwrap();
    }

    fn joins(&mut self, room: &str) {
        self.says(&format!("join {room}"));
        assert_eq!(self.hears(1), "j");
    }

    fn hears(&mut self, bytes: usize) -> String {
        String::from_utf8(read_n(&mut self.stream, bytes)).unwrap()
    }

    fn hears_the_end(&mut self) {
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest).unwrap();
        assert_eq!(String::from_utf8(rest).unwrap(), "");
    }
}

fn counts(clients: &[Client]) -> HashMap<usize, usize> {
    let mut counts = HashMap::new();
    clients.iter().for_each(|client| *counts.entry(client.worker).or_default() += 1);
    counts
}

// row 231
#[test]
fn each_worker_has_a_state_of_its_own_and_one_port_serves_all() {
    let mut service = Service::start(Workers::new(3));
    let clients: Vec<_> = (0..30).map(|_| service.client()).collect();
    assert_eq!(counts(&clients), HashMap::from([(0, 10), (1, 10), (2, 10)]));
    for worker in 0..3 {
        let (answer, answered) = mpsc::channel();
        assert!(service.handle().post(worker, move |state, net| {
            let stats = net.listener_stats(state.listener).unwrap();
            answer.send((state.worker, state.not_send.get(), stats.accepted, stats.open)).unwrap();
        }));
        assert_eq!(answered.recv_timeout(PATIENCE).unwrap(), (worker, 10, 10, 10));
    }
    drop(clients);
    service.end();
}

// row 231
#[test]
fn a_set_up_that_fails_ends_all_and_says_which_worker_and_why() {
    struct Dropped(Sender<()>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            let _ = self.0.send(());
        }
    }
    let failing = |how: fn() -> Result<(), Error>| {
        let (dropped, is_dropped) = mpsc::channel();
        let started = Workers::new(3).start(move |worker, net: &mut Net<Dropped>| {
            net.listen("127.0.0.1:0", |_peer| Silent)?;
            if worker.index() == 2 {
                how()?;
            }
            Ok(Dropped(dropped.clone()))
        });
        let error = started.unwrap_err().to_string();
        // Their states are gone when the error comes back.
        assert_eq!(is_dropped.try_iter().count(), 2);
        error
    };
    let refused = || Err(Error::from(std::io::Error::other("no table")));
    let text = failing(refused);
    assert_eq!(text, "cannot set up worker 2: cannot set up: no table");
    assert_eq!(failing(|| panic!("no chair")), "cannot set up worker 2: it panicked: no chair");
}

struct Silent;

impl<S> Handler<S> for Silent {
    fn on_data(&mut self, _: &mut Context<'_, S>, input: &mut Input<'_>) -> HandlerResult {
        input.take_all();
        Ok(())
    }
}

// row 232
#[test]
fn connections_go_to_the_worker_with_the_fewest() {
    let mut service = Service::start(Workers::new(4));
    let mut clients: Vec<_> = (0..41).map(|_| service.client()).collect();
    let found = counts(&clients);
    assert!(found.values().all(|&count| count == 10 || count == 11), "{found:?}");
    // Those of one worker close: the next ones are all its.
    let (leaving, staying): (Vec<_>, Vec<_>) =
        clients.drain(..).partition(|client| client.worker == 2);
    let left = leaving.len();
    for mut client in leaving {
        client.says("bye");
        client.hears_the_end();
        drop(client);
        assert_eq!(service.news(), News::Closed(2));
    }
    let next: Vec<_> = (0..left - 1).map(|_| service.client()).collect();
    assert_eq!(counts(&next), HashMap::from([(2, left - 1)]));
    drop((staying, next));
    service.end();
}

// row 232
#[test]
fn a_burst_over_the_budget_of_a_turn_is_served_whole_on_every_worker() {
    let config = Config::new().accepts_per_turn(1);
    let mut service = Service::start(Workers::new(2).config(config));
    let handle = service.handle();
    let (goes_on, gates): (Vec<_>, Vec<_>) = (0..2).map(|_| mpsc::channel::<()>()).unzip();
    for (worker, gate) in gates.into_iter().enumerate() {
        assert!(handle.post(worker, move |_, _| gate.recv().unwrap()));
    }
    let mut clients: Vec<_> = (0..30).map(|_| client(service.address)).collect();
    goes_on[0].send(()).unwrap();
    // Worker 0 has accepted all of them: half of them wait for the other.
    (0..15).for_each(|_| assert!(matches!(service.news(), News::Open(_))));
    goes_on[1].send(()).unwrap();
    let heard: Vec<u8> = clients.iter_mut().map(|stream| read_n(stream, 1)[0]).collect();
    assert_eq!(heard.iter().filter(|&&worker| worker == b'1').count(), 15);
    drop(clients);
    service.end();
}

// row 233
#[test]
fn the_connection_limit_counts_all_workers_together() {
    let mut service = Service::listening(Workers::new(2), |listen| listen.connection_limit(3));
    let mut clients: Vec<_> = (0..3).map(|_| service.client()).collect();
    // It waits in the backlog, whichever worker has room.
    let mut waiting = client(service.address);
    waiting.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    assert!(waiting.read(&mut [0]).is_err());
    waiting.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut last = clients.remove(1);
    assert_eq!(last.worker, 1, "which accepts nothing itself");
    last.says("bye");
    last.hears_the_end();
    drop(last);
    assert_eq!(read_n(&mut waiting, 1), b"1");
    drop((clients, waiting));
    service.end();
}

// row 234
#[test]
#[cfg(any(target_os = "linux", target_os = "android"))]
fn the_system_may_spread_connections() {
    let mut service = Service::start(Workers::new(2).balance(Balance::ReusePort));
    let clients: Vec<_> = (0..64).map(|_| service.client()).collect();
    let found = counts(&clients);
    // By chance: 64 heads in a row are not to be expected.
    assert_eq!(found.len(), 2, "{found:?}");
    drop(clients);
    service.end();
}

struct Reply(usize);

impl DatagramHandler for Reply {
    fn on_datagram(&mut self, cx: &mut Context<'_>, input: Datagram<'_>) -> HandlerResult {
        cx.send_to(input.from, [b'0' + self.0 as u8]);
        Ok(())
    }
}

// row 235
#[test]
#[cfg(any(target_os = "linux", target_os = "android"))]
fn udp_sockets_of_all_workers_have_one_port() {
    let (addresses, found) = mpsc::channel();
    let running = Workers::new(2)
        .start(move |worker, net| {
            let socket = net.bind_udp("127.0.0.1:0", Reply(worker.index()))?;
            addresses.send(net.local_addr(socket)).unwrap();
            Ok(())
        })
        .unwrap();
    let Some(Address::Ip(address)) = found.recv().unwrap() else { panic!() };
    assert_eq!(found.recv().unwrap(), Some(Address::Ip(address)));
    let mut answered = [0; 2];
    for _ in 0..64 {
        let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
        peer.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut reply = [0];
        // The same worker answers a peer each time.
        for _ in 0..2 {
            peer.send_to(b"?", address).unwrap();
            let before = reply[0];
            assert_eq!(peer.recv(&mut reply).unwrap(), 1);
            assert!(before == 0 || before == reply[0]);
        }
        answered[usize::from(reply[0] - b'0')] += 1;
    }
    assert!(answered.iter().all(|&peers| peers > 0), "{answered:?}");
    running.handle().stop();
    running.wait().unwrap();
}

// row 235
#[test]
#[cfg(any(target_os = "linux", target_os = "android"))]
fn a_port_of_another_program_is_refused_whatever_spreads_its_peers() {
    // As the other program has them: shared with whoever asks for it.
    let (sent, other) = mpsc::channel();
    let first = Workers::new(2).balance(Balance::ReusePort).start(move |worker, net| {
        let udp = net.bind_udp("127.0.0.1:0", Reply(worker.index()))?;
        let tcp = net.listen("127.0.0.1:0", |_peer| Silent)?;
        sent.send([udp, tcp].map(|token| net.local_addr(token).unwrap())).unwrap();
        Ok(())
    });
    let first = first.unwrap();
    let [udp, tcp] = other.recv().unwrap().map(|address| address.socket_addr().unwrap());
    for workers in [1, 2] {
        let again = Workers::new(workers).balance(Balance::ReusePort);
        let refused = again.start(move |_, net| net.bind_udp(udp, Reply(0)).map(drop));
        assert!(refused.unwrap_err().to_string().contains("in use"));
        let again = Workers::new(workers).balance(Balance::ReusePort);
        let refused = again.start(move |_, net| net.listen(tcp, |_peer| Silent).map(drop));
        assert!(refused.unwrap_err().to_string().contains("in use"));
    }
    first.handle().stop();
    first.wait().unwrap();
}

// row 236
#[test]
fn what_one_worker_says_to_another_arrives_in_order() {
    let mut service = Service::start(Workers::new(2));
    let (mut a, mut b) = (service.client(), service.client());
    assert_ne!(a.worker, b.worker);
    a.joins("room");
    let to = a.name;
    let handle = service.handle();
    assert!(handle.post(b.worker, move |state, net| {
        assert_eq!(net.worker(), state.worker);
        assert_eq!(net.worker_count(), 2);
        assert!(net.send_across(to, "1"));
        net.publish_named("room", "2");
        assert!(net.send_across(to, Message::text("3")));
        assert!(net.notify_across(to, 4_u32));
        net.post_to_worker(to.worker(), move |_, net| {
            assert!(net.send_across(to, "5"), "which is here");
        });
        net.publish_named_latest("room", 9, "6");
        assert!(net.send_across(to, "7"));
        net.half_close_across(to);
        assert!(net.send_across(to, "too late"));
    }));
    assert_eq!(a.hears(6), "123567");
    a.hears_the_end();
    assert_eq!(service.news(), News::Notified(a.worker, 4));
    // What ends something.
    handle.close(b.name);
    b.hears_the_end();
    drop((a, b));
    service.end();
    assert_eq!(handle.undelivered(), 1);
}

// row 237
#[test]
fn what_is_not_delivered_is_counted_and_told_to_who_asked() {
    let mut service = Service::start(Workers::new(2).crossing_limit(100_000));
    let (a, mut b) = (service.client(), service.client());
    let (gone, sender) = (b.name, a.name);
    b.says("bye");
    b.hears_the_end();
    drop(b);
    assert_eq!(service.news(), News::Closed(gone.worker()));
    let handle = service.handle();
    let say = move |_: &mut State, net: &mut Net<State>| {
        net.send_across(gone, "nobody hears it");
        net.send_across_or_notify(gone, "nor that", sender.token());
        net.notify_across(gone, 1_u32);
        net.close_across(gone); // of which nobody need know
    };
    handle.post(a.worker, say);
    assert_eq!(service.news(), News::Undelivered(gone));
    // To the connection itself, on its own worker.
    let own = move |_: &mut State, net: &mut Net<State>| {
        let odd = net.worker_token(gone.token());
        assert_eq!(net.send_across(odd, "x"), odd.token() == sender.token());
    };
    handle.post(a.worker, own);
    // More than may wait.
    let (answer, answered) = mpsc::channel();
    let flood = move |_: &mut State, net: &mut Net<State>| {
        let sent = (0..10).filter(|_| net.send_across(gone, vec![0; 20_000])).count();
        net.send_across_or_notify(gone, vec![0; 100_000], sender.token());
        answer.send(sent).unwrap();
    };
    let before = handle.undelivered();
    handle.post(a.worker, flood);
    assert_eq!(answered.recv_timeout(PATIENCE).unwrap(), 4);
    assert_eq!(service.news(), News::Undelivered(gone));
    drop(a);
    service.end();
    assert_eq!(handle.undelivered(), before + 11);
}

/// Holds a worker in a closure until the sender is used.
fn hold(handle: &tidegate::WorkersHandle<State>, worker: usize) -> Sender<()> {
    let (goes_on, gate) = mpsc::channel::<()>();
    assert!(handle.post(worker, move |_, _| gate.recv().unwrap()));
    goes_on
}

// row 237
#[test]
fn a_report_is_never_refused_and_counts_as_no_message() {
    let mut service = Service::start(Workers::new(2).crossing_limit(20_000));
    let (a, mut b) = (service.client(), service.client());
    let (gone, sender) = (b.name, a.name);
    b.says("bye");
    b.hears_the_end();
    drop(b);
    assert_eq!(service.news(), News::Closed(gone.worker()));
    let handle = service.handle();
    handle.post(sender.worker(), move |_, net| {
        (0..3).for_each(|_| net.send_across_or_notify(gone, "x", sender.token()));
    });
    // Meanwhile the asker gets as much as it may have waiting.
    let goes_on = hold(&handle, sender.worker());
    while handle.post(sender.worker(), |_, _| {}) {}
    let before = handle.undelivered();
    assert!(before <= 4, "those three, and the closure that was refused");
    goes_on.send(()).unwrap();
    (0..3).for_each(|_| assert_eq!(service.news(), News::Undelivered(gone)));
    drop(a);
    service.end();
    assert_eq!(handle.undelivered(), 4);
}

// row 237
#[test]
fn a_busy_worker_bounds_what_others_keep_for_it() {
    const LIMIT: usize = 1 << 20;
    let mut service = Service::start(Workers::new(3).crossing_limit(LIMIT));
    let mut clients: Vec<_> = (0..3).map(|_| service.client()).collect();
    clients.sort_by_key(|client| client.worker);
    let long = "n".repeat(60_000);
    clients[1].joins("small");
    clients[1].joins(&long);
    clients[1].joins("other");
    clients[2].joins("big");
    let handle = service.handle();
    let goes_on = hold(&handle, 1);
    let (done, is_done) = mpsc::channel();
    let publish = |what: fn(&mut Net<State>)| {
        let before = handle.undelivered();
        // Turn by turn, and the third worker keeps up.
        for _ in 0..50 {
            let done = done.clone();
            handle.post(0, move |_, net| {
                what(net);
                net.post_to_worker(2, move |_, _| done.send(()).unwrap());
            });
            is_done.recv_timeout(PATIENCE).unwrap();
        }
        handle.undelivered() - before
    };
    // A byte for the busy one keeps all that is said to others in that turn.
    let refused = publish(|net| {
        net.publish_named("small", "x");
        net.publish_named("big", vec![7; 100_000]);
    });
    assert!((39..=41).contains(&refused), "{refused} of 50 refused, with room for ten turns");
    // Names are kept, too.
    let refused = publish(|net| {
        let long = "n".repeat(60_000);
        net.publish_named(&long, "");
        net.publish_named("other", "");
    });
    assert!(refused >= 90, "{refused} of 100 refused, with no room left");
    goes_on.send(()).unwrap();
    drop(clients);
    service.end();
}

// row 237
#[test]
fn a_value_whose_drop_panics_ends_nothing() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("as the test has said");
        }
    }
    let mut service = Service::start(Workers::new(2));
    let (a, mut b) = (service.client(), service.client());
    let gone = b.name;
    b.says("bye");
    b.hears_the_end();
    drop(b);
    assert_eq!(service.news(), News::Closed(gone.worker()));
    let handle = service.handle();
    assert!(handle.notify(gone, Bomb));
    handle.post(a.worker, move |_, net| {
        net.notify_across(gone, Bomb);
    });
    handle.post(gone.worker(), move |_, net| {
        assert!(!net.notify_across(gone, Bomb));
    });
    let (answer, answered) = mpsc::channel();
    assert!(handle.post(gone.worker(), move |state, net| {
        answer.send((state.worker, net.is_open(state.listener))).unwrap();
    }));
    let lives = answered.recv_timeout(PATIENCE).unwrap();
    assert_eq!(lives, (gone.worker(), true));
    drop(a);
    service.end();
    assert_eq!(handle.undelivered(), 3);
}

// row 239
#[test]
fn no_end_is_too_far_and_none_is_refused() {
    let mut service = Service::start(Workers::new(2).crossing_limit(1_000));
    let (mut a, mut b) = (service.client(), service.client());
    let handle = service.handle();
    let goes_on = hold(&handle, a.worker);
    while handle.post(a.worker, |_, _| {}) {}
    // A worker for which no more may wait still closes what it is told to.
    handle.close(a.name);
    goes_on.send(()).unwrap();
    a.hears_the_end();
    drop(a);
    let running = service.running.take().unwrap();
    handle.shutdown(Duration::MAX);
    handle.close_all();
    b.hears_the_end();
    drop(b);
    running.wait().unwrap();
}

// row 238
#[test]
fn a_topic_has_members_on_all_workers_and_keeps_the_order_of_each_publisher() {
    let mut service = Service::start(Workers::new(3));
    let mut members: Vec<_> = (0..6).map(|_| service.client()).collect();
    members.iter_mut().for_each(|member| member.joins("room"));
    let mut outsider = service.client();
    outsider.joins("elsewhere");
    // Each says a hundred lines, all at once.
    const LINES: usize = 100;
    for line in 0..LINES {
        for (index, member) in members.iter_mut().enumerate() {
            member.says(&format!("say room {index} {line}"));
        }
    }
    for member in &mut members {
        let mut next = [0; 6];
        let text = {
            let mut text = String::new();
            while text.matches('\n').count() < 6 * LINES {
                let mut chunk = [0; 4096];
                let n = member.stream.read(&mut chunk).unwrap();
                assert!(n > 0, "ended after {text}");
                text += std::str::from_utf8(&chunk[..n]).unwrap();
            }
            text
        };
        for said in text.lines() {
            let (index, line) = said.split_once(' ').unwrap();
            let next = &mut next[index.parse::<usize>().unwrap()];
            assert_eq!(line.parse(), Ok(*next), "of {index}");
            *next += 1;
        }
        assert_eq!(next, [LINES; 6]);
    }
    // Not to the speaker, and not to who has left.
    let left = members.len() - 1;
    members[left].says("leave room");
    assert_eq!(members[left].hears(1), "l");
    members[0].says("say_to_others room last");
    for member in &mut members[1..left] {
        assert_eq!(member.hears(5), "last\n");
    }
    for quiet in [0, left] {
        members[quiet].says("bye");
        members[quiet].hears_the_end();
    }
    outsider.says("bye");
    outsider.hears_the_end();
    // From any thread.
    service.handle().publish_named("room", "outside");
    for member in &mut members[1..left] {
        assert_eq!(member.hears(7), "outside");
    }
    drop((members, outsider));
    service.end();
}

// row 239
#[test]
fn a_shutdown_ends_all_workers_with_one_report() {
    let mut service = Service::start(Workers::new(2));
    let mut clients: Vec<_> = (0..4).map(|_| service.client()).collect();
    let running = service.running.take().unwrap();
    let handle = running.handle();
    handle.shutdown(PATIENCE);
    clients[3].says("bye");
    clients[3].hears_the_end();
    drop(clients.pop());
    handle.shutdown(Duration::from_millis(50)); // a new deadline
    let report = running.wait().unwrap();
    assert_eq!((report.connections_cut, report.bytes_unsent), (3, 0));
    assert!(TcpStream::connect(service.address).is_err(), "the port is free");
    assert!(handle.remote(0).is_none());
    assert!(!handle.send(clients[0].name, "nobody"));
    assert_eq!(handle.undelivered(), 1);
}

// row 239
#[test]
fn peers_in_the_backlog_are_served_by_a_shutdown_of_all() {
    let mut service = Service::start(Workers::new(3));
    let running = service.running.take().unwrap();
    let handle = running.handle();
    // No worker comes to accept before the shutdown has begun everywhere.
    let (goes_on, gates): (Vec<_>, Vec<_>) = (0..3).map(|_| mpsc::channel::<()>()).unzip();
    for (worker, gate) in gates.into_iter().enumerate() {
        assert!(handle.post(worker, move |_, _| gate.recv().unwrap()));
    }
    let mut early: Vec<_> = (0..7).map(|_| client(service.address)).collect();
    handle.shutdown(PATIENCE);
    goes_on.iter().for_each(|gate| gate.send(()).unwrap());
    for stream in &mut early {
        read_n(stream, 1);
        stream.write_all(b"bye\n").unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
    }
    drop(early);
    assert_eq!(running.wait().unwrap().connections_cut, 0);
}

// row 239
#[test]
fn a_worker_may_end_alone_and_its_port_goes_on() {
    let mut service = Service::start(Workers::new(3));
    let handle = service.handle();
    // Worker 0 accepts for all.
    assert!(handle.post(0, |_, net| net.stop()));
    while handle.remote(0).is_some() {
        std::thread::yield_now();
    }
    let clients: Vec<_> = (0..10).map(|_| service.client()).collect();
    assert_eq!(counts(&clients), HashMap::from([(1, 5), (2, 5)]));
    assert!(!handle.post(0, |_, _| {}));
    drop(clients);
    service.end();
}

// row 241
#[test]
fn a_worker_that_pauses_or_closes_its_listener_leaves_the_port_to_the_others() {
    let mut service = Service::start(Workers::new(3));
    let handle = service.handle();
    let on_all = |change: fn(&mut State, &mut Net<State>)| {
        let (done, is_done) = mpsc::channel();
        for worker in 0..3 {
            let done = done.clone();
            handle.post(worker, move |state, net| {
                change(state, net);
                done.send(()).unwrap();
            });
        }
        (0..3).for_each(|_| is_done.recv_timeout(PATIENCE).unwrap());
    };
    // The first, which accepts.
    on_all(|state, net| {
        if state.worker == 0 {
            net.pause(state.listener);
        }
    });
    let clients: Vec<_> = (0..6).map(|_| service.client()).collect();
    assert_eq!(counts(&clients), HashMap::from([(1, 3), (2, 3)]));
    // All: peers wait in the backlog.
    on_all(|state, net| net.pause(state.listener));
    let mut waiting = client(service.address);
    on_all(|state, net| {
        if state.worker == 2 {
            net.resume(state.listener);
        }
    });
    assert_eq!(read_n(&mut waiting, 1), b"2");
    assert!(matches!(service.news(), News::Open(_)));
    on_all(|state, net| {
        if state.worker < 2 {
            net.close(state.listener);
        }
    });
    let more: Vec<_> = (0..4).map(|_| service.client()).collect();
    assert_eq!(counts(&more), HashMap::from([(2, 4)]));
    on_all(|state, net| net.close(state.listener));
    assert!(TcpStream::connect(service.address).is_err(), "nobody listens");
    drop((clients, more, waiting));
    service.end();
}

// row 242
#[test]
fn all_workers_are_asked_and_their_answers_come_together() {
    let mut service = Service::start(Workers::new(3));
    let clients: Vec<_> = (0..5).map(|_| service.client()).collect();
    let (answer, answered) = mpsc::channel();
    let ask = move |_: &mut State, net: &mut Net<State>| {
        let answer = answer.clone();
        let asked = net.ask_workers(
            |state, net| {
                assert_ne!(state.worker, 1, "it has its reasons");
                (state.worker, net.connection_count())
            },
            move |state, _net, answers| answer.send((state.worker, answers)).unwrap(),
        );
        assert!(asked);
    };
    service.handle().post(2, ask);
    let (worker, answers) = answered.recv_timeout(PATIENCE).unwrap();
    assert_eq!(worker, 2);
    assert_eq!(answers, [Some((0, 2)), None, Some((2, 1))]);
    drop(clients);
    service.end();
}

// row 243
#[test]
fn what_is_said_in_a_turn_crosses_once_and_wakes_once() {
    let config = Config::new();
    let mut service = Service::start(Workers::new(2).config(config));
    let (mut a, b) = (service.client(), service.client());
    a.joins("room");
    let (to, other) = (a.name, b.worker);
    let stats = |worker: usize| {
        let (answer, answered) = mpsc::channel();
        assert!(service.handle().post(worker, move |_, net| answer.send(net.stats()).unwrap()));
        answered.recv_timeout(PATIENCE).unwrap()
    };
    let before = stats(to.worker());
    service.handle().post(other, move |_, net| {
        for _ in 0..500 {
            assert!(net.send_across(to, "s"));
            net.publish_named("room", "p");
        }
    });
    assert_eq!(a.hears(1000), "sp".repeat(500));
    let passed = stats(to.worker()) - before;
    // One wake for the batch, one for the second question.
    assert!(passed.wakes <= 2, "{passed}");
    assert!(stats(other).crossings >= 1000);
    drop((a, b));
    service.end();
}
