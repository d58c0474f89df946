//! What workers cost and bring: `workers balance|crossing|room|compute`; docs/scale.md has the figures.
//!
//! - `balance [CONNECTIONS]`: how many connections each of two workers gets, for each `Balance`.
//! - `crossing [MESSAGES]`: nanoseconds a message from one worker to another, in floods of 1,000 a turn.
//! - `room [ROUNDS [2|1|tokio]]`: CPU of a topic with 500 members on each of two workers, beside a group of 500 on one worker, and
//!   beside a room of 1,000 on two threads of tokio; or of one of these alone, to count its instructions
//!   (`valgrind --tool=callgrind --separate-threads=yes`, with two numbers of rounds).
//! - `compute [MESSAGES]`: how many messages that take a millisecond of CPU each one and two workers answer, and two
//!   threads of tokio.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use arena::on_tokio;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Runtime;

use tidegate::{
    Balance, Context, Handler, HandlerResult, Input, Listen, Net, RunningWorkers, Token,
    WorkerToken, Workers,
};

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |default: usize| match arguments.get(1) {
        Some(text) => text.parse().map_err(|_| format!("expected a number, got {text}")),
        None => Ok(default),
    };
    match arguments.first().map(String::as_str) {
        Some("balance") => balance(number(9_000)?),
        Some("crossing") => crossing(number(2_000_000)?),
        Some("room") => room(number(2_000)?, arguments.get(2).map(String::as_str)),
        Some("compute") => compute(number(2_000)?),
        _ => Err("usage: workers balance|crossing|room|compute [NUMBER]".into()),
    }
}

/// What a worker keeps.
#[derive(Default)]
struct State {
    /// Its members of the room.
    members: Vec<Token>,
}

/// Joins the room, and takes what comes.
struct Member;

impl Handler<State> for Member {
    fn on_open(&mut self, cx: &mut Context<'_, State>) -> HandlerResult {
        let room = cx.net.group("room");
        cx.net.join(room, cx.token);
        cx.state.members.push(cx.token);
        cx.send([cx.net.worker() as u8]);
        Ok(())
    }
    fn on_data(&mut self, _: &mut Context<'_, State>, input: &mut Input<'_>) -> HandlerResult {
        input.take_all();
        Ok(())
    }
}

fn start<H: Handler<State> + 'static>(
    workers: Workers,
    make: fn() -> H,
) -> Result<(RunningWorkers<State>, SocketAddr), Failure> {
    let (addresses, found) = mpsc::channel();
    let running = workers.start(move |_worker, net| {
        let listen = Listen::tcp("127.0.0.1:0").connection_limit(100_000);
        let listener = net.listen(listen, move |_peer| make())?;
        let _ = addresses.send(net.local_addr(listener));
        Ok(State::default())
    })?;
    let address = found.recv()?.and_then(|address| address.socket_addr()).ok_or("no address")?;
    Ok((running, address))
}

/// A client, and the number of its worker.
fn client(address: SocketAddr) -> Result<(TcpStream, usize), Failure> {
    let mut stream = TcpStream::connect(address)?;
    let mut worker = [0];
    stream.read_exact(&mut worker)?;
    Ok((stream, worker[0].into()))
}

fn balance(connections: usize) -> Result<(), Failure> {
    for balance in [Balance::LeastOpen, Balance::ReusePort] {
        let (running, address) = start(Workers::new(2).balance(balance), || Member)?;
        let clients: Vec<_> =
            (0..connections).map(|_| client(address)).collect::<Result<_, _>>()?;
        let first = clients.iter().filter(|(_, worker)| *worker == 0).count();
        println!("{balance:?}: {first} and {} of {connections}", connections - first);
        drop(clients);
        running.handle().stop();
        running.wait()?;
    }
    Ok(())
}

fn crossing(messages: usize) -> Result<(), Failure> {
    const FLOOD: usize = 1_000;
    /// What is under way at once stays below the limit of what may wait.
    const FLOODS: usize = 100;
    let (running, address) = start(Workers::new(2), || Member)?;
    let clients = [client(address)?, client(address)?];
    let handle = running.handle();
    let (names, named) = mpsc::channel();
    handle.post(1, move |state, net| {
        let _ = names.send(net.worker_token(state.members[0]));
    });
    let to = named.recv()?;
    for (what, flood) in [
        ("values to a handler", notify as fn(&mut Net<State>, WorkerToken)),
        ("messages by name", publish),
    ] {
        let (done, is_done) = mpsc::channel();
        let begin = Instant::now();
        for _ in 0..messages / FLOOD / FLOODS {
            for _ in 0..FLOODS {
                handle.post(0, move |_, net| (0..FLOOD).for_each(|_| flood(net, to)));
            }
            // Behind all that crosses: on the sender's thread, and from there.
            let done = done.clone();
            handle.post(0, move |_, net| {
                net.post_to_worker(1, move |_, _| done.send(()).unwrap_or_default());
            });
            is_done.recv()?;
        }
        let each = begin.elapsed().as_nanos() as f64 / messages as f64;
        println!("{what}: {each:.0} ns each, {} undelivered", handle.undelivered());
    }
    let (answer, answered) = mpsc::channel();
    handle.post(1, move |_, net| answer.send(net.stats()).unwrap_or_default());
    let stats = answered.recv()?;
    println!("worker 1: {} turns, {} wakes, {} posts", stats.turns, stats.wakes, stats.posts);
    drop(clients);
    handle.stop();
    running.wait()?;
    Ok(())
}

fn notify(net: &mut Net<State>, to: WorkerToken) {
    net.notify_across(to, 1_u32);
}

/// To a name with one member on each worker.
fn publish(net: &mut Net<State>, _: WorkerToken) {
    net.publish_named("room", [0; 32]);
}

/// A room of 1,000 over two workers, where worker 0 publishes; then one of 500 on one reactor.
fn room(rounds: usize, only: Option<&str>) -> Result<(), Failure> {
    for workers in [2, 1] {
        if only.is_some_and(|only| only != workers.to_string()) {
            continue;
        }
        let (running, address) = start(Workers::new(workers), || Member)?;
        let members = 500 * workers;
        let mut clients: Vec<_> =
            (0..members).map(|_| client(address)).collect::<Result<_, _>>()?;
        let handle = running.handle();
        let before = cpu_times();
        for _ in 0..rounds {
            handle.post(0, |_, net| {
                net.publish_named("room", [b'x'; 64]);
            });
            all_hear(&mut clients)?;
        }
        let spent = cpu_times();
        for worker in 0..workers {
            let name = format!("tidegate-{worker}");
            let each = nanos_between(&before, &spent, &name) / (rounds * 500) as f64;
            println!("{workers} workers, worker {worker}: {each:.0} ns of CPU a delivery");
        }
        drop(clients);
        handle.stop();
        running.wait()?;
    }
    if only.is_some_and(|only| only != "tokio") {
        return Ok(());
    }
    // The same room on tokio: a lock around the members, a task for each that writes.
    let runtime = on_tokio::start(2)?;
    let room: Arc<on_tokio::Room<Vec<u8>>> = Arc::default();
    let joins = Arc::clone(&room);
    let address = serve_on_tokio(&runtime, move |mut stream| {
        let room = Arc::clone(&joins);
        async move {
            let (_, mailbox) = room.join();
            stream.write_all(&[0]).await?;
            on_tokio::deliver(mailbox, stream).await
        }
    })?;
    let mut clients: Vec<_> = (0..1_000).map(|_| client(address)).collect::<Result<_, _>>()?;
    let before = cpu_times();
    for _ in 0..rounds {
        let room = Arc::clone(&room);
        runtime.spawn(async move { room.tell_others(0, |mailbox| mailbox.extend([b'x'; 64])) });
        all_hear(&mut clients)?;
    }
    let each = nanos_between(&before, &cpu_times(), "tokio") / (rounds * 1_000) as f64;
    println!("tokio, two threads: {each:.0} ns of CPU a delivery");
    runtime.shutdown_background();
    Ok(())
}

/// The next message is said when this one has been heard: one message a turn.
fn all_hear(clients: &mut [(TcpStream, usize)]) -> Result<(), Failure> {
    let mut heard = [0; 64];
    for (stream, _) in clients {
        stream.read_exact(&mut heard)?;
    }
    Ok(())
}

type Times = HashMap<String, Duration>;

fn nanos_between(before: &Times, after: &Times, name: &str) -> f64 {
    let of = |times: &Times| times.get(name).copied().unwrap_or_default();
    (of(after) - of(before)).as_nanos() as f64
}

/// The CPU time of the threads of this process by their names (proc(5), `/proc/self/task/N/schedstat`).
fn cpu_times() -> Times {
    let mut times = Times::new();
    for task in std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
        let read = |name: &str| std::fs::read_to_string(task.path().join(name)).unwrap_or_default();
        let nanos = read("schedstat").split(' ').next().and_then(|text| text.parse().ok());
        *times.entry(read("comm").trim().to_owned()).or_default() +=
            Duration::from_nanos(nanos.unwrap_or(0));
    }
    times
}

/// Spends about a millisecond on each byte, and answers with one.
struct Worker;

impl Handler<State> for Worker {
    fn on_open(&mut self, cx: &mut Context<'_, State>) -> HandlerResult {
        cx.send([cx.net.worker() as u8]);
        Ok(())
    }
    fn on_data(&mut self, cx: &mut Context<'_, State>, input: &mut Input<'_>) -> HandlerResult {
        for &byte in input.take_all() {
            cx.send([work(byte)]);
        }
        Ok(())
    }
}

/// Takes about a millisecond on a machine of 2026.
fn work(byte: u8) -> u8 {
    let sum = (0..1_500_000_u64).fold(u64::from(byte), |sum, n| sum.rotate_left(5) ^ n);
    std::hint::black_box(sum) as u8
}

fn compute(messages: usize) -> Result<(), Failure> {
    let mut rates = Vec::new();
    for workers in [1, 2] {
        let (running, address) = start(Workers::new(workers), || Worker)?;
        rates.push(rate_of(address, messages)?);
        println!("{workers} workers: {:.0} messages a second", rates[workers - 1]);
        running.handle().stop();
        running.wait()?;
    }
    println!("two do {:.2} times the work of one", rates[1] / rates[0]);
    let runtime = on_tokio::start(2)?;
    let address = serve_on_tokio(&runtime, |mut stream| async move {
        let mut chunk = [0; 64];
        stream.write_all(&[0]).await?;
        loop {
            let count = stream.read(&mut chunk).await?;
            for &byte in &chunk[..count] {
                stream.write_all(&[work(byte)]).await?;
            }
            if count == 0 {
                return Ok(());
            }
        }
    })?;
    let rate = rate_of(address, messages)?;
    println!("tokio, two threads: {rate:.0} messages a second, {:.2} times", rate / rates[0]);
    runtime.shutdown_background();
    Ok(())
}

/// How many messages a second eight connections get answered.
fn rate_of(address: SocketAddr, messages: usize) -> Result<f64, Failure> {
    // Each connection has some messages under way, so that no worker waits for the load.
    const AHEAD: usize = 8;
    let mut clients: Vec<_> = (0..8).map(|_| client(address)).collect::<Result<_, _>>()?;
    let begin = Instant::now();
    for (stream, _) in &mut clients {
        stream.write_all(&[1; AHEAD])?;
    }
    let mut answered = 0;
    while answered < messages {
        for (stream, _) in &mut clients {
            stream.read_exact(&mut [0])?;
            stream.write_all(&[1])?;
        }
        answered += clients.len();
    }
    Ok(answered as f64 / begin.elapsed().as_secs_f64())
}

/// A listener on tokio that gives each connection a task.
fn serve_on_tokio<F, T>(runtime: &Runtime, serve: F) -> Result<SocketAddr, Failure>
where
    F: Fn(tokio::net::TcpStream) -> T + Send + 'static,
    T: Future<Output = std::io::Result<()>> + Send + 'static,
{
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    runtime.spawn(async move {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            drop(tokio::spawn(serve(stream)));
        }
        #[allow(unreachable_code)]
        Ok::<(), std::io::Error>(())
    });
    Ok(address)
}
