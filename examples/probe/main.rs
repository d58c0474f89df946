//! Measures a link, the way the field's textbooks define it: latency, throughput, loss and the
//! compression rate. Its other side is anything that sends back what it gets: `echo`, `tls_echo`.
//!
//! One measurement after the other, each on a connection of its own; each is a handler
//! ([`stream`], [`datagram`]) that writes what it finds into the reactor's shared state and stops
//! the loop when it is done.

mod datagram;
mod report;
mod stream;
#[path = "../support/mod.rs"]
mod support;

use std::error::Error;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tidegate::layer::tls::TlsClientConfig;
use tidegate::layer::{Deflate, FixedSize, Layer, LayerContext, LayerError, Lz4};
use tidegate::{Connect, Handler, MessageKind, Reactor, ReactorStats, StreamOptions, Udp};

use report::{Progress, Report};
use support::{Arguments, Usage};

const HELP: &str = "probe - measures a link: latency, throughput, loss, compression rate

Usage: cargo run --release --features tls,deflate,lz4 --example probe [ADDRESS] [OPTIONS]
                                                           (default 127.0.0.1:8888)
At ADDRESS is the echo example, or tls_echo, or any server that sends back what it gets.

    --over tcp|udp|tls      what to measure over (default tcp)
    --fingerprint SHA256    over TLS: the certificate to trust, as tls_echo prints it
    --ca FILE               over TLS: or whose certificates to trust, PEM
    --distance-km KM        how far away it is: the time that light in fibre takes is printed too
    --pings N               round trips for the latency (default 1000), one after the other
    --ping-size BYTES       how much each carries (default 32)
    --mib N                 how much to send for the throughput (default 64), within
    --seconds S             this time for each measurement (default 5)
    --file FILE             what to send (default: generated text)
    --message BYTES         how much is sent, and compressed, at a time (default 4096; over UDP
                            1200, the size of a datagram)
    --json                  one line of JSON instead of the table

Round trip: from sending a message to having all of it back. Throughput: data size / time, where
each byte has gone there and back. Compression rate: compressed size / original size; less is
better. Loss and reordering (RFC 4737), over UDP: by the numbers that the datagrams carry.";

/// No answer for so long, and the measurement is given up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// What one measurement finds: the reactor's shared state.
pub(crate) struct Measured {
    /// What went wrong; `None` once the measurement is complete.
    pub(crate) failure: Option<String>,
    pub(crate) progress: Progress,
    /// How long it took until the connection stood, its handshakes included.
    pub(crate) connected: Duration,
    /// Round trips, in nanoseconds.
    pub(crate) round_trips: Histogram<u64>,
    pub(crate) bytes: u64,
    pub(crate) time: Duration,
    /// What `bytes` were on the wire, where they were compressed.
    pub(crate) compressed: Option<u64>,
    pub(crate) datagrams: datagram::Counts,
    /// What this side's loop has counted.
    pub(crate) stats: ReactorStats,
}

impl Measured {
    fn new(what: &'static str) -> Self {
        Measured {
            failure: Some("the measurement was not finished".into()),
            progress: Progress::new(what),
            connected: Duration::ZERO,
            // From a nanosecond to a minute, to three digits.
            round_trips: Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("bounds in order"),
            bytes: 0,
            time: Duration::ZERO,
            compressed: None,
            datagrams: datagram::Counts::default(),
            stats: ReactorStats::default(),
        }
    }
}

enum Over {
    Tcp,
    Udp,
    Tls(TlsClientConfig),
}

struct Options {
    address: String,
    over: Over,
    distance_km: Option<f64>,
    pings: u64,
    ping_size: usize,
    size: u64,
    time: Duration,
    message: usize,
    data: Rc<[u8]>,
    data_name: String,
}

fn main() -> ExitCode {
    support::main_with_options(HELP, |arguments| {
        let json = arguments.flag("--json");
        let options = Options::from(arguments)?;
        let report = match options.over {
            Over::Udp => over_udp(&options),
            _ => over_stream(&options),
        }?;
        if json {
            support::say(report.json())?;
        } else {
            support::say(report.table().trim_end())?;
        }
        Ok(())
    })
}

fn over_stream(options: &Options) -> Result<Report, Box<dyn Error>> {
    let mut report = options.report();

    let ping = stream::Ping::new(options.pings, options.ping_size);
    let framing = FixedSize::new(options.ping_size);
    let found = run(Measured::new("latency"), |reactor| {
        connect(reactor, options, Some(Box::new(framing)), ping)
    })?;
    report.connected = Some(found.connected);
    report.latency(&found);

    let found = run(Measured::new("throughput"), |reactor| {
        connect(reactor, options, None, options.bulk(options.size))
    })?;
    report.throughput(&found);

    // Compressing may be slower than the link: less of it says as much.
    let size = options.size.div_ceil(4).max(options.data.len().min(1 << 20) as u64);
    let cap = options.message.max(1 << 20);
    let codecs: [(&'static str, Box<dyn Layer>); 2] = [
        ("deflate", Box::new(Deflate::new().message_limit(cap))),
        ("lz4", Box::new(Lz4::new().message_limit(cap))),
    ];
    for (name, codec) in codecs {
        let found = run(Measured::new(name), |reactor| {
            connect(reactor, options, Some(codec), options.bulk(size))
        })?;
        report.compression(name, &found);
    }
    Ok(report)
}

fn over_udp(options: &Options) -> Result<Report, Box<dyn Error>> {
    let mut report = options.report();
    let bind = if options.address.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" };
    let measure = |what, handler| {
        run(Measured::new(what), |reactor| {
            reactor.net().bind_udp(Udp::bind(bind).connect(&*options.address), handler)?;
            Ok(())
        })
        .map_err(|e| format!("{}: {e}", options.address))
    };

    let pings = datagram::Datagrams::new(options.pings, options.ping_size, 1, options.time);
    let found = measure("latency", pings)?;
    report.latency(&found);
    let mut counts = found.datagrams;

    // Few enough under way for the smallest of the buffers between here and there.
    let count = options.size.div_ceil(options.message as u64);
    let many = datagram::Datagrams::new(count, options.message, 32, options.time);
    let found = measure("throughput", many)?;
    report.throughput(&found);
    counts.add(&found.datagrams);
    report.datagrams = Some(counts);

    // Each datagram by itself: what one says must be understood though the one before it is lost.
    let mut deflate = Deflate::per_message();
    let by_deflate = compress(options, |now, message| encode(&mut deflate, now, message))?;
    report.compression("deflate", &by_deflate);
    let by_lz4 = compress(options, |now, message| encode(&mut Lz4::new(), now, message))?;
    report.compression("lz4", &by_lz4);
    Ok(report)
}

/// Compresses the data once, without a link.
fn compress(
    options: &Options,
    mut codec: impl FnMut(Instant, &[u8]) -> Result<u64, LayerError>,
) -> Result<Measured, LayerError> {
    let mut found = Measured::new("compression");
    let begin = Instant::now();
    let mut compressed = 0;
    for message in options.data.chunks(options.message) {
        compressed += codec(begin, message)?;
    }
    found.time = begin.elapsed();
    found.bytes = options.data.len() as u64;
    found.compressed = Some(compressed);
    Ok(found)
}

/// How long a message is on the wire.
fn encode(codec: &mut impl Layer, now: Instant, message: &[u8]) -> Result<u64, LayerError> {
    let mut wire = Vec::new();
    let (mut call_at, mut fields) = (None, Vec::new());
    let mut cx = LayerContext::new(now, &mut call_at, &mut fields);
    codec.encode(&mut cx, message, MessageKind::Default, &mut wire)?;
    Ok(wire.len() as u64)
}

/// One measurement: a reactor whose state is what it finds.
fn run(
    found: Measured,
    set_up: impl FnOnce(&mut Reactor<Measured>) -> Result<(), Box<dyn Error>>,
) -> Result<Measured, Box<dyn Error>> {
    let what = found.progress.what();
    let mut reactor = Reactor::with_state(found)?;
    set_up(&mut reactor)?;
    reactor.run()?;
    let stats = reactor.net().stats();
    let mut found = std::mem::replace(reactor.state_mut(), Measured::new(what));
    found.stats = stats;
    found.progress.clear();
    match &found.failure {
        Some(failure) => Err(format!("{what}: {failure}").into()),
        None => Ok(found),
    }
}

/// Connects, with TLS if that is asked for, and `layer` upon it.
fn connect(
    reactor: &mut Reactor<Measured>,
    options: &Options,
    layer: Option<Box<dyn Layer>>,
    handler: impl Handler<Measured> + 'static,
) -> Result<(), Box<dyn Error>> {
    let connect = Connect::tcp(&*options.address).options(
        StreamOptions::new()
            .connect_timeout(PATIENCE)
            .handshake_timeout(PATIENCE)
            .idle_timeout(PATIENCE)
            .output_limit(options.message.max(1 << 20) * 4)
            // It has to read on while it waits to send: the echo sends no faster than we read.
            .auto_pause(false),
    );
    let connect = match (&options.over, layer) {
        (Over::Tls(config), None) => connect.layer(config.layer(options.host())?),
        (Over::Tls(config), Some(layer)) => {
            connect.layer(config.layer(options.host())?.then(layer))
        }
        (_, Some(layer)) => connect.layer(layer),
        (_, None) => connect,
    };
    reactor.net().connect(connect, handler)?;
    Ok(())
}

impl Options {
    fn from(arguments: &mut Arguments) -> Result<Options, Box<dyn Error>> {
        let over = arguments.option::<String>("--over")?;
        let trust = support::trust::from_arguments(arguments)?;
        let over = match over.as_deref() {
            None | Some("tcp") => Over::Tcp,
            Some("udp") => Over::Udp,
            Some("tls") => Over::Tls(trust.ok_or_else(|| {
                Usage("over TLS expected --fingerprint (tls_echo prints its own) or --ca".into())
            })?),
            Some(other) => {
                return Err(Usage(format!("expected --over tcp, udp or tls, got '{other}'")).into());
            }
        };
        let udp = matches!(over, Over::Udp);
        let file = arguments.option::<String>("--file")?;
        let message = within(arguments, "--message", if udp { 1200 } else { 4096 }, 1, 1 << 20)?;
        let least = if udp { datagram::HEADER as u64 } else { stream::HEADER as u64 };
        let most = if udp { 65_000 } else { 1 << 20 };
        Ok(Options {
            distance_km: arguments.option("--distance-km")?,
            pings: within(arguments, "--pings", 1000, 1, 10_000_000)?,
            ping_size: within(arguments, "--ping-size", 32, least, most)? as usize,
            size: within(arguments, "--mib", 64, 1, 1 << 20)? << 20,
            time: Duration::from_secs(within(arguments, "--seconds", 5, 1, 3600)?),
            message: message.clamp(if udp { least } else { 1 }, most) as usize,
            data: match &file {
                None => report::text(1 << 20).into(),
                Some(file) => match std::fs::read(file) {
                    Ok(data) if !data.is_empty() => data.into(),
                    Ok(_) => return Err(format!("{file} is empty").into()),
                    Err(e) => return Err(format!("cannot read {file}: {e}").into()),
                },
            },
            data_name: file.unwrap_or_else(|| "generated text".into()),
            over,
            address: {
                let [address] = arguments.rest(["127.0.0.1:8888"])?;
                address
            },
        })
    }

    fn report(&self) -> Report {
        let over = match self.over {
            Over::Tcp => "tcp",
            Over::Udp => "udp",
            Over::Tls(_) => "tls",
        };
        let mut report = Report::new(self.address.clone(), over, self.data_name.clone());
        report.ping_size = self.ping_size;
        report.message = self.message;
        report.distance_km = self.distance_km;
        report
    }

    fn bulk(&self, size: u64) -> stream::Bulk {
        stream::Bulk::new(Rc::clone(&self.data), self.message, size, self.time)
    }

    /// The host in the address: the name that the server's certificate is to be for.
    fn host(&self) -> &str {
        support::trust::host(&self.address)
    }
}

/// A number that was given, within limits: this is a probe, not a weapon.
fn within(
    arguments: &mut Arguments,
    name: &str,
    default: u64,
    least: u64,
    most: u64,
) -> Result<u64, Usage> {
    match arguments.option(name)? {
        None => Ok(default),
        Some(n) if (least..=most).contains(&n) => Ok(n),
        Some(n) => Err(Usage(format!("expected {name} between {least} and {most}, got {n}"))),
    }
}
