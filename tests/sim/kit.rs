//! What the tests of the network share: handlers that write down what they are told, and when.

use std::time::{Duration, Instant};

use tidegate::sim::{Host, Sim};
use tidegate::{
    CloseInfo, Connect, Context, Datagram, DatagramError, DatagramHandler, Error, Handler,
    HandlerResult, Input, Listen, Net, StreamOptions, Timer, Token,
};

pub(crate) const SECOND: Duration = Duration::from_secs(1);

pub(crate) fn ms(time: u64) -> Duration {
    Duration::from_millis(time)
}

/// The state of a host: what its handlers were told.
pub(crate) struct Log {
    began: Instant,
    pub(crate) lines: Vec<(Duration, String)>,
    /// Everything that came.
    pub(crate) bytes: Vec<u8>,
    /// What a listener or a UDP socket is called.
    pub(crate) token: Option<Token>,
}

impl Log {
    pub(crate) fn new(net: &Net<Log>) -> Self {
        Log { began: net.now(), lines: Vec::new(), bytes: Vec::new(), token: None }
    }

    pub(crate) fn add(&mut self, now: Instant, line: impl Into<String>) {
        self.lines.push((now.duration_since(self.began), line.into()));
    }

    /// When the first line that begins so was written.
    pub(crate) fn when(&self, prefix: &str) -> Option<Duration> {
        self.lines.iter().find(|(_, line)| line.starts_with(prefix)).map(|&(at, _)| at)
    }

    #[track_caller]
    pub(crate) fn time_of(&self, prefix: &str) -> Duration {
        self.when(prefix).unwrap_or_else(|| panic!("no {prefix:?} in {:#?}", self.lines))
    }

    pub(crate) fn count(&self, prefix: &str) -> usize {
        self.lines.iter().filter(|(_, line)| line.starts_with(prefix)).count()
    }

    /// The lengths of the pieces in which bytes came.
    pub(crate) fn pieces(&self) -> Vec<usize> {
        let pieces = self.lines.iter().filter_map(|(_, line)| line.strip_prefix("data "));
        pieces.map(|len| len.parse().unwrap()).collect()
    }

    pub(crate) fn text(&self) -> String {
        let lines: Vec<&str> = self.lines.iter().map(|(_, line)| line.as_str()).collect();
        lines.join("; ")
    }
}

/// Writes down what it is told; says something when it opens; may echo; may end.
#[derive(Default, Clone)]
pub(crate) struct Watch {
    pub(crate) says: Vec<u8>,
    pub(crate) echoes: bool,
    pub(crate) half_closes: bool,
    pub(crate) answers_end: Option<&'static [u8]>,
}

impl Watch {
    pub(crate) fn saying(bytes: impl Into<Vec<u8>>) -> Self {
        Watch { says: bytes.into(), ..Watch::default() }
    }

    pub(crate) fn echo() -> Self {
        Watch { echoes: true, ..Watch::default() }
    }
}

impl Handler<Log> for Watch {
    fn on_open(&mut self, cx: &mut Context<'_, Log>) -> HandlerResult {
        let now = cx.now();
        let show = |address: Option<tidegate::Address>| address.map(|a| a.to_string());
        let line = format!("open {:?} from {:?}", show(cx.local_addr()), show(cx.peer_addr()));
        cx.state.add(now, line);
        if !self.says.is_empty() {
            cx.send(std::mem::take(&mut self.says));
        }
        if self.half_closes {
            cx.half_close();
        }
        Ok(())
    }

    fn on_data(&mut self, cx: &mut Context<'_, Log>, input: &mut Input<'_>) -> HandlerResult {
        let now = cx.now();
        cx.state.add(now, format!("data {}", input.len()));
        let bytes = input.take_all();
        cx.state.bytes.extend(bytes);
        if self.echoes {
            cx.send(bytes);
        }
        Ok(())
    }

    fn on_drain(&mut self, cx: &mut Context<'_, Log>) -> HandlerResult {
        let now = cx.now();
        cx.state.add(now, "drain");
        Ok(())
    }

    fn on_eof(&mut self, cx: &mut Context<'_, Log>) -> HandlerResult {
        let now = cx.now();
        cx.state.add(now, "eof");
        if let Some(bytes) = self.answers_end {
            cx.send(bytes);
        }
        cx.half_close();
        Ok(())
    }

    fn on_timer(&mut self, cx: &mut Context<'_, Log>, timer: Timer) -> HandlerResult {
        let now = cx.now();
        cx.state.add(now, format!("timer {}", timer.tag()));
        Ok(())
    }

    fn on_close(&mut self, cx: &mut Context<'_, Log>, closed: &CloseInfo) {
        let now = cx.now();
        cx.state.add(now, format!("close {closed}"));
    }
}

impl DatagramHandler<Log> for Watch {
    fn on_datagram(&mut self, cx: &mut Context<'_, Log>, datagram: Datagram<'_>) -> HandlerResult {
        let now = cx.now();
        let cut = if datagram.truncated { " cut" } else { "" };
        let line = format!("datagram {}{cut} from {}", datagram.bytes.len(), datagram.from);
        cx.state.add(now, line);
        cx.state.bytes.extend(datagram.bytes);
        if self.echoes {
            cx.send_to(datagram.from, datagram.bytes);
        }
        Ok(())
    }

    fn on_error(&mut self, cx: &mut Context<'_, Log>, error: DatagramError) -> HandlerResult {
        let now = cx.now();
        cx.state.add(now, format!("error {error}"));
        Ok(())
    }

    fn on_drain(&mut self, cx: &mut Context<'_, Log>) -> HandlerResult {
        let now = cx.now();
        cx.state.add(now, "drain");
        Ok(())
    }
}

/// A day: longer than every deadline of `patient`.
pub(crate) const DAY: Duration = Duration::from_secs(86_400);

/// Deadlines that no test meets.
pub(crate) fn patient() -> StreamOptions {
    let long = Duration::from_secs(20_000);
    StreamOptions::new()
        .connect_timeout(long)
        .handshake_timeout(long)
        .close_timeout(long)
        .stall_timeout(long)
        .idle_timeout(None)
}

/// A host that listens at `[::]:port`.
pub(crate) fn listen(sim: &mut Sim, name: &str, port: u16, watch: Watch) -> Host<Log> {
    sim.host(name, move |net| {
        let watch = watch.clone();
        let on = Listen::tcp(("::", port)).options(patient());
        let token = net.listen(on, move |_| watch.clone())?;
        let mut log = Log::new(net);
        log.token = Some(token);
        Ok(log)
    })
    .unwrap()
}

/// A host that connects once.
pub(crate) fn connect(sim: &mut Sim, name: &str, to: &'static str, watch: Watch) -> Host<Log> {
    connect_with(sim, name, to, patient(), watch)
}

pub(crate) fn connect_with(
    sim: &mut Sim,
    name: &str,
    to: &'static str,
    options: StreamOptions,
    watch: Watch,
) -> Host<Log> {
    sim.host(name, move |net| {
        let token = net.connect(Connect::tcp(to).options(options.clone()), watch.clone())?;
        let mut log = Log::new(net);
        log.token = Some(token);
        Ok(log)
    })
    .unwrap()
}

/// A host without any socket.
pub(crate) fn idle(sim: &mut Sim, name: &str) -> Host<Log> {
    sim.host(name, |net| Ok(Log::new(net))).unwrap()
}

/// What a call on a host's network was refused with.
pub(crate) fn refusal<T>(result: Result<T, Error>) -> String {
    match result {
        Ok(_) => panic!("it was not refused"),
        Err(e) => e.to_string(),
    }
}
