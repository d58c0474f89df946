//! A proxy that copies beside one that splices: the CPU each takes for the same bytes, in rounds that alternate.
//!
//!     cargo run --release --bin proxy -- [--mib N] [--block BYTES] [--rounds N] [--answered]
//!
//! Blocks go one behind the other, or, with `--answered`, each waits for a byte that comes back. The first column is
//! a proxy whose handlers send on what they hear (`link`), the second one the reactor's own (`relay`).

use arena::server;
use nix::time::clock_getcpuclockid;
use nix::unistd::Pid;
use std::error::Error;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tidegate::{Connect, Context, Handler, HandlerResult, Input, Reactor, Token};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match &words[..] {
        [serve, how, target] if serve == "serve" => serve_proxy(how == "relay", target.parse()?),
        _ => compare(&words),
    }
}

fn compare(words: &[String]) -> Result<()> {
    let number = |name: &str, default: usize| {
        let at = words.iter().position(|word| word == name);
        at.map_or(Ok(default), |at| {
            words
                .get(at + 1)
                .ok_or("a value is missing")?
                .parse::<usize>()
                .map_err(Box::<dyn Error>::from)
        })
    };
    let (mib, block, rounds) =
        (number("--mib", 1024)?, number("--block", 256 << 10)?, number("--rounds", 21)?);
    let answered = words.iter().any(|word| word == "--answered");
    let blocks = (mib << 20) / block;
    let mut costs = Vec::new();
    for round in 0..rounds {
        // Neither is always the second.
        let [first, second] = if round % 2 == 0 { ["link", "relay"] } else { ["relay", "link"] };
        let (one, other) =
            (carry(first, block, blocks, answered)?, carry(second, block, blocks, answered)?);
        let (copied, spliced) = if round % 2 == 0 { (one, other) } else { (other, one) };
        costs.push((copied, spliced, spliced / copied));
    }
    let median = |part: f64, of: fn(&(f64, f64, f64)) -> f64| {
        let mut values: Vec<f64> = costs.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values[((values.len() - 1) as f64 * part).round() as usize]
    };
    let per_gib = 1024.0 / mib as f64;
    println!(
        "{block} bytes a block{}, {rounds} rounds of {mib} MiB: link {:.3} s/GiB, relay {:.3} s/GiB, ratio {:.2} ({:.2}-{:.2})",
        if answered { ", answered" } else { "" },
        median(0.5, |c| c.0) * per_gib,
        median(0.5, |c| c.1) * per_gib,
        median(0.5, |c| c.2),
        median(0.25, |c| c.2),
        median(0.75, |c| c.2),
    );
    Ok(())
}

/// Sends so many blocks through a new proxy; the proxy's CPU time in seconds.
fn carry(how: &str, block: usize, blocks: usize, answered: bool) -> Result<f64> {
    let target = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut proxy = Command::new(std::env::current_exe()?)
        .args(["serve", how, &target.local_addr()?.to_string()])
        .stdout(Stdio::piped())
        .spawn()?;
    let cost = carry_through(&mut proxy, &target, block, blocks, answered);
    proxy.kill()?;
    proxy.wait()?;
    cost
}

fn carry_through(
    proxy: &mut Child,
    target: &TcpListener,
    block: usize,
    blocks: usize,
    answered: bool,
) -> Result<f64> {
    let mut line = String::new();
    BufReader::new(proxy.stdout.take().ok_or("stdout is piped")?).read_line(&mut line)?;
    let address: SocketAddr =
        line.trim_end().strip_prefix("ready ").ok_or("no address")?.parse()?;
    let mut near = TcpStream::connect(address)?;
    near.set_nodelay(true)?;
    let (mut far, _) = target.accept()?;
    far.set_nodelay(true)?;
    let pid = Pid::from_raw(proxy.id().cast_signed());
    let clock = clock_getcpuclockid(pid)?;
    let before: Duration = clock.now()?.into();
    let reading = std::thread::spawn(move || -> std::io::Result<usize> {
        let mut buffer = vec![0; block];
        let mut heard = 0;
        loop {
            let n = far.read(&mut buffer)?;
            if n == 0 {
                return Ok(heard);
            }
            let whole = (heard + n) / block - heard / block;
            heard += n;
            if answered {
                far.write_all(&vec![b'!'; whole])?;
            }
        }
    });
    let bytes = vec![0x5a; block];
    for _ in 0..blocks {
        near.write_all(&bytes)?;
        if answered {
            near.read_exact(&mut [0])?;
        }
    }
    near.shutdown(Shutdown::Write)?;
    let heard = reading.join().map_err(|_| "the reader panicked")??;
    let after: Duration = clock.now()?.into();
    if heard != block * blocks {
        return Err(format!("{heard} bytes of {} arrived", block * blocks).into());
    }
    Ok((after - before).as_secs_f64())
}

fn serve_proxy(relay: bool, target: SocketAddr) -> Result<()> {
    let mut reactor = Reactor::new()?;
    let half = move |_: &tidegate::Peer<'_>| Half { relay, target: Some(target), other: None };
    let listener = reactor.net().listen("127.0.0.1:0", half)?;
    let at = reactor.net().local_addr(listener).and_then(|at| at.socket_addr());
    server::ready(at.ok_or("an IP socket has an address")?);
    reactor.run()?;
    Ok(())
}

struct Half {
    relay: bool,
    /// Where the accepted one connects to.
    target: Option<SocketAddr>,
    other: Option<Token>,
}

impl Handler for Half {
    fn on_open(&mut self, cx: &mut Context<'_>) -> HandlerResult {
        let Some(target) = self.target else { return Ok(()) };
        let back = Half { relay: self.relay, target: None, other: Some(cx.token) };
        let back = cx.net.connect(Connect::tcp(target), back)?;
        if self.relay {
            cx.net.relay(cx.token, back);
        } else {
            cx.net.pair(cx.token, back);
        }
        self.other = Some(back);
        Ok(())
    }

    fn on_data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> HandlerResult {
        if let Some(other) = self.other {
            cx.net.send(other, input.take_all());
        }
        Ok(())
    }

    fn on_eof(&mut self, cx: &mut Context<'_>) -> HandlerResult {
        if let Some(other) = self.other {
            cx.net.half_close(other);
        }
        Ok(())
    }
}
