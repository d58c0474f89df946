//! The servers: how each is built, which services it lacks, how it is started and ended.

use crate::Result;
use crate::host;
use crate::identity::Identity;
use crate::scenario::{self, Scenario};
use arena::server::{self, Mode, Over};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

#[derive(Clone, Copy)]
pub struct Peer {
    pub name: &'static str,
    language: Language,
    /// What it is built from, where that is not its name.
    source: Option<&'static str>,
    /// What it speaks.
    over: &'static [Over],
    lacks: &'static [Mode],
    /// A setting of another peer, for those scenarios alone in which it matters.
    setting: Option<Setting>,
}

#[derive(Clone, Copy)]
enum Language {
    /// A binary of this package.
    Rust,
    /// The C files of `peers/NAME` and these of `peers/shared`, linked with libraries that may be missing on the
    /// machine.
    C { shared: &'static [&'static str], libraries: &'static [&'static str] },
    /// `peers/NAME/server.js`, run by a program of that name: one that npm put there, or that is installed.
    Script { runtime: &'static str },
}

#[derive(Clone, Copy)]
struct Setting {
    of: &'static str,
    args: &'static [&'static str],
    scenarios: &'static [&'static str],
}

impl Peer {
    const fn new(name: &'static str, language: Language) -> Self {
        let over = &[Over::Plain];
        Self { name, language, source: None, over, lacks: &[], setting: None }
    }

    const fn rust(name: &'static str) -> Self {
        Self::new(name, Language::Rust)
    }

    const fn c(
        name: &'static str,
        shared: &'static [&'static str],
        libraries: &'static [&'static str],
    ) -> Self {
        Self::new(name, Language::C { shared, libraries })
    }

    const fn script(name: &'static str, runtime: &'static str) -> Self {
        Self::new(name, Language::Script { runtime })
    }

    const fn from(self, source: &'static str) -> Self {
        Self { source: Some(source), ..self }
    }

    const fn over(self, over: &'static [Over]) -> Self {
        Self { over, ..self }
    }

    const fn lacking(self, lacks: &'static [Mode]) -> Self {
        Self { lacks, ..self }
    }

    const fn setting(self, setting: Setting) -> Self {
        Self { setting: Some(setting), ..self }
    }
}

const AWS_LC: &[&str] = &["--crypto", "aws-lc"];
const HANDSHAKES: &[&str] = &["tls-handshake", "tls-handshake-aes128", "tls-resume"];

/// A new peer is one line here, and for a Rust one a file `src/bin/NAME_server.rs`.
pub const ALL: &[Peer] = &[
    Peer::c("epoll", &["bytes.c"], &[]),
    Peer::rust("tidegate"),
    // Longer than the pause in `alone`, so that it never sleeps there.
    Peer::rust("tidegate-spin").setting(Setting {
        of: "tidegate",
        args: &["--spin", "2"],
        scenarios: &["alone", "lone"],
    }),
    Peer::rust("mio"),
    Peer::rust("tokio"),
    Peer::rust("calloop"),
    Peer::rust("message-io").lacking(&[Mode::Sink]),
    Peer::c("libuv", &[], &["uv"]),
    Peer::rust("tidegate").from("tidegate-layers").over(&[
        Over::WebSocket,
        Over::Deflate,
        Over::Tls,
        Over::Secure,
    ]),
    Peer::rust("tokio-tungstenite").over(&[Over::WebSocket, Over::Secure]),
    Peer::rust("tokio-websockets").over(&[Over::WebSocket]),
    Peer::rust("fastwebsockets").over(&[Over::WebSocket]),
    Peer::c("epoll-ws", &["bytes.c", "loop.c"], &[]).over(&[Over::WebSocket]),
    Peer::script("bun", "bun").over(&[Over::WebSocket, Over::Deflate, Over::Secure]),
    Peer::script("node-ws", "node").over(&[Over::WebSocket, Over::Deflate, Over::Secure]),
    Peer::rust("tokio-rustls").over(&[Over::Tls]),
    // The same two with other cryptography.
    Peer::rust("tidegate-aws-lc").over(&[Over::Tls]).setting(Setting {
        of: "tidegate-layers",
        args: AWS_LC,
        scenarios: HANDSHAKES,
    }),
    Peer::rust("tokio-rustls-aws-lc").over(&[Over::Tls]).setting(Setting {
        of: "tokio-rustls",
        args: AWS_LC,
        scenarios: HANDSHAKES,
    }),
    Peer::c("openssl", &["bytes.c", "loop.c"], &["ssl", "crypto"]).over(&[Over::Tls]),
];

/// The peer that the others are compared with.
pub fn base(over: Over) -> &'static str {
    match over {
        Over::Plain => "epoll",
        Over::WebSocket | Over::Secure => "tokio-tungstenite",
        Over::Tls => "tokio-rustls",
        // Of the peers in Rust nobody else compresses.
        Over::Deflate => "tidegate",
    }
}

/// Whether others are compared with the peer of that name.
pub fn is_base(name: &str) -> bool {
    scenario::ALL.iter().any(|scenario| base(scenario.over) == name)
}

/// Whether that is the name of a setting of another peer, which is in a few scenarios only.
pub fn is_setting(name: &str) -> bool {
    ALL.iter().any(|peer| peer.name == name && peer.setting.is_some())
}

/// A peer that can be started.
pub struct Built {
    pub name: String,
    peer: Peer,
    /// The program, and the script that it runs where it runs one.
    command: Vec<PathBuf>,
}

/// Builds what takes part in a scenario of those that are chosen, of all peers or of those that are named; names
/// those that are left out. A base must be there.
pub fn build(names: &[&str], chosen: &[&Scenario]) -> Result<Vec<Built>> {
    if let Some(unknown) = names.iter().find(|&&name| ALL.iter().all(|peer| peer.name != name)) {
        return Err(format!("no peer is named {unknown:?}").into());
    }
    let mut built = Vec::new();
    for &peer in ALL.iter().filter(|peer| names.is_empty() || names.contains(&peer.name)) {
        if !chosen.iter().any(|scenario| peer.enters(scenario)) {
            continue;
        }
        match peer.build() {
            Ok(command) => built.push(Built { name: peer.name.to_owned(), peer, command }),
            Err(reason) if chosen.iter().any(|s| base(s.over) == peer.name) => return Err(reason),
            Err(reason) => eprintln!("{} is left out: {reason}", peer.name),
        }
    }
    Ok(built)
}

/// `NAME=PROGRAM`: a server that was built elsewhere, another state of tidegate say.
pub fn added(word: &str) -> Result<Built> {
    let (name, program) = word.split_once('=').ok_or("--add takes NAME=PROGRAM")?;
    let program = std::fs::canonicalize(program).map_err(|e| format!("{program}: {e}"))?;
    let all = &[Over::Plain, Over::WebSocket, Over::Deflate, Over::Tls, Over::Secure];
    let (name, command) = (name.to_owned(), vec![program]);
    Ok(Built { name, peer: Peer::rust("").over(all), command })
}

impl Built {
    /// Whether it takes part in a scenario.
    pub fn enters(&self, scenario: &Scenario) -> bool {
        self.peer.enters(scenario)
    }

    /// Whether a runtime compiles it while it runs: a count of instructions would say nothing.
    pub fn is_script(&self) -> bool {
        matches!(self.peer.language, Language::Script { .. })
    }
}

impl Peer {
    fn enters(&self, scenario: &Scenario) -> bool {
        self.over.contains(&scenario.over)
            && !self.lacks.contains(&scenario.kind.mode())
            && self.setting.is_none_or(|setting| setting.scenarios.contains(&scenario.name))
    }

    fn build(&self) -> Result<Vec<PathBuf>> {
        let name = self.source.or(self.setting.map(|setting| setting.of)).unwrap_or(self.name);
        let program = format!("{}_server", name.replace('-', "_"));
        let program = std::env::current_exe()?.with_file_name(program);
        match self.language {
            Language::Rust if !program.exists() => {
                return Err("it is not built, `cargo build --release` builds all of them".into());
            }
            Language::Rust => {}
            Language::C { shared, libraries } => self.compile(&program, shared, libraries)?,
            Language::Script { runtime } => return self.script_command(runtime),
        }
        Ok(vec![program])
    }

    fn folder(&self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("peers").join(self.name)
    }

    fn script_command(&self, runtime: &str) -> Result<Vec<PathBuf>> {
        let modules = self.folder().join("node_modules");
        if !modules.exists() {
            return Err(format!("`npm install` in benches/peers/{} gets it", self.name).into());
        }
        let own = modules.join(".bin").join(runtime);
        let program = if own.exists() { own } else { runtime.into() };
        let runs = Command::new(&program).arg("--version").stdout(Stdio::null()).status();
        match runs {
            Ok(_) => Ok(vec![program, self.folder().join("server.js")]),
            Err(error) => Err(format!("{runtime}: {error}").into()),
        }
    }

    /// With the optimisation that the Rust profile asks for: the highest level, across files.
    fn compile(&self, program: &Path, shared: &[&str], libraries: &[&str]) -> Result<()> {
        let folder = self.folder().with_file_name("shared");
        let mut sources: Vec<_> = shared.iter().map(|name| folder.join(name)).collect();
        for entry in std::fs::read_dir(self.folder())? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "c") {
                sources.push(path);
            }
        }
        let mut command = Command::new("cc");
        command.arg("-I").arg(folder);
        command.args(["-O3", "-flto", "-g1", "-Wall", "-Wextra", "-D_GNU_SOURCE", "-o"]);
        command.arg(program).args(&sources);
        command.args(libraries.iter().map(|name| format!("-l{name}")));
        let output = command.output()?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr);
            let cause = text.lines().find(|line| line.contains("error")).unwrap_or("cc failed");
            return Err(cause.trim().into());
        }
        Ok(())
    }
}

/// A running server; ended by its process id when dropped.
pub struct Server {
    pub child: Child,
    pub addr: SocketAddr,
}

impl Server {
    /// Starts a server on a core, under `wrapper` (a tracer and its options) where one is given.
    pub fn start(
        built: &Built,
        scenario: &Scenario,
        core: Option<usize>,
        wrapper: &[&str],
    ) -> Result<Self> {
        let mut words = wrapper.iter().map(|&word| word.into()).collect::<Vec<PathBuf>>();
        words.extend(built.command.iter().cloned());
        let mut command = Command::new(&words[0]);
        let mode = server::mode_name(scenario.over, scenario.kind.mode());
        command.args(&words[1..]).args(["--mode", &mode, "--addr", "127.0.0.1:0"]);
        if scenario.over.has_tls() {
            let identity = Identity::get()?;
            command.arg("--cert").arg(identity.cert).arg("--key").arg(identity.key);
        }
        command.args(built.peer.setting.map_or(&[][..], |setting| setting.args));
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let child = match core {
            Some(core) => host::on_core(core, || command.spawn())?,
            None => command.spawn(),
        };
        let mut server = Self { child: child?, addr: SocketAddr::from(([0, 0, 0, 0], 0)) };
        let stdout = server.child.stdout.take().ok_or("stdout is piped")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let addr = line.trim().strip_prefix("ready ").and_then(|addr| addr.parse().ok());
        server.addr = addr.ok_or(format!("{} said {line:?}, not `ready ADDRESS`", built.name))?;
        Ok(server)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to end (a tracer then writes its figures) and waits.
    pub fn terminate(&mut self) -> Result<()> {
        let pid = nix::unistd::Pid::from_raw(self.pid().cast_signed());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM)?;
        let end = Instant::now() + Duration::from_secs(10);
        while self.child.try_wait()?.is_none() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only for a process that has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
