//! What runs during a measurement: Redis alone or as a cluster, and two servers of each kind.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::Result;
use crate::host::CpuClock;

/// Ended by its process id when dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only for a process that has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// One Redis, or the masters of a cluster; nothing is written to a disk.
pub struct Redis {
    nodes: Vec<Process>,
    ports: Vec<u16>,
    folder: PathBuf,
}

impl Redis {
    pub fn alone() -> Result<Self> {
        Self::start(1, &[])
    }

    pub fn cluster(masters: usize) -> Result<Self> {
        let redis = Self::start(masters, &["--cluster-enabled", "yes"])?;
        let addrs = redis.ports.iter().map(|port| format!("127.0.0.1:{port}"));
        let created = Command::new("redis-cli")
            .args(["--cluster", "create"])
            .args(addrs)
            .args(["--cluster-replicas", "0", "--cluster-yes"])
            .output()?;
        if !created.status.success() {
            let said = String::from_utf8_lossy(&created.stdout).into_owned();
            return Err(format!("the cluster is not created: {said}").into());
        }
        for &port in &redis.ports {
            wait_for(|| ask(port, "CLUSTER INFO").is_ok_and(|is| is.contains("cluster_state:ok")))?;
        }
        Ok(redis)
    }

    fn start(nodes: usize, options: &[&str]) -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("backplane-peers-{}", std::process::id()));
        let folder = folder.join(format!("{nodes}"));
        let mut redis = Self { nodes: Vec::new(), ports: Vec::new(), folder };
        for _ in 0..nodes {
            let port = free_port()?;
            let folder = redis.folder.join(port.to_string());
            std::fs::create_dir_all(&folder)?;
            let mut command = Command::new("redis-server");
            command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
            command.args(["--port", &port.to_string()]).arg("--dir").arg(folder).args(options);
            if !options.is_empty() {
                command.args(["--cluster-port", &free_port()?.to_string()]);
            }
            let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
            redis.nodes.push(Process(child.map_err(|error| format!("redis-server: {error}"))?));
            redis.ports.push(port);
            wait_for(|| ask(port, "PING").is_ok_and(|answer| answer.contains("PONG")))?;
        }
        Ok(redis)
    }

    pub fn is_cluster(&self) -> bool {
        self.nodes.len() > 1
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.ports[0])
    }

    pub fn clocks(&self) -> Result<Vec<CpuClock>> {
        self.nodes.iter().map(|node| CpuClock::of(node.0.id())).collect()
    }

    /// What `redis-benchmark` publishes a second over so many connections, 64 in a pipeline, where two subscribers get
    /// each message: 127 bytes, which is what the backplane makes of 100.
    pub fn benchmark(&self, connections: usize, messages: u64) -> Result<f64> {
        let subscribers = [subscriber(self.ports[0])?, subscriber(self.ports[0])?];
        let output = Command::new("redis-benchmark")
            .args(["-p", &self.ports[0].to_string(), "-c", &connections.to_string()])
            .args(["-n", &messages.to_string(), "-P", "64", "--csv"])
            .args(["publish", "topic", &"x".repeat(127)])
            .output()?;
        for (stream, reader) in subscribers {
            stream.shutdown(std::net::Shutdown::Both)?;
            let _ = reader.join();
        }
        let said = String::from_utf8(output.stdout)?;
        // "the command","messages a second",…
        let line = said.lines().find(|line| line.contains("publish")).unwrap_or_default();
        let rate = line.split("\",\"").nth(1).and_then(|rate| rate.parse().ok());
        Ok(rate.ok_or_else(|| format!("redis-benchmark said {said:?}"))?)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.nodes.clear();
        let _ = std::fs::remove_dir_all(&self.folder);
        // Empty when the other Redis is gone as well.
        let _ = self.folder.parent().map(std::fs::remove_dir);
    }
}

type Drain = (TcpStream, std::thread::JoinHandle<()>);

/// Reads what is published and does nothing with it.
fn subscriber(port: u16) -> Result<Drain> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.write_all(b"SUBSCRIBE topic\r\n")?;
    let mut reader = stream.try_clone()?;
    let thread = std::thread::spawn(move || {
        let mut block = vec![0; 256 * 1024];
        while reader.read(&mut block).is_ok_and(|read| read > 0) {}
    });
    Ok((stream, thread))
}

fn ask(port: u16, command: &str) -> Result<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.write_all(format!("{command}\r\nQUIT\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn wait_for(mut done: impl FnMut() -> bool) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(15);
    while !done() {
        if Instant::now() > end {
            return Err("Redis does not come up".into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// The first is what the others are compared with.
pub const PEERS: [&str; 3] = ["tidegate", "node", "node-cork"];

/// Two servers of one kind, which share their rooms through Redis.
pub struct Pair {
    pub name: &'static str,
    servers: [(Process, SocketAddr); 2],
}

impl Pair {
    pub fn start(name: &'static str, redis: &Redis) -> Result<Self> {
        let servers = [Self::server(name, redis)?, Self::server(name, redis)?];
        Ok(Self { name, servers })
    }

    /// The server where people speak, and the one where they listen.
    pub fn addrs(&self) -> [SocketAddr; 2] {
        [self.servers[0].1, self.servers[1].1]
    }

    pub fn clocks(&self) -> Result<[CpuClock; 2]> {
        let of = |at: usize| CpuClock::of(self.servers[at].0.0.id());
        Ok([of(0)?, of(1)?])
    }

    fn server(name: &str, redis: &Redis) -> Result<(Process, SocketAddr)> {
        let mut command = match name {
            "tidegate" => {
                let program = std::env::current_exe()?.with_file_name("backplane_server");
                Command::new(program)
            }
            _ => {
                let folder =
                    Path::new(env!("CARGO_MANIFEST_DIR")).join("peers").join("node-backplane");
                if !folder.join("node_modules").exists() {
                    return Err(format!("`npm install` in {} is missing", folder.display()).into());
                }
                let mut command = Command::new("node");
                command.arg(folder.join("server.js"));
                if redis.is_cluster() {
                    command.arg("--cluster");
                }
                if name == "node-cork" {
                    command.arg("--cork");
                }
                command
            }
        };
        command.args(["--addr", "127.0.0.1:0", "--redis", &redis.url()]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        let mut process = Process(child.map_err(|error| format!("{name}: {error}"))?);
        let stdout = process.0.stdout.take().ok_or("stdout is piped")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let addr = line.trim().strip_prefix("ready ").and_then(|addr| addr.parse().ok());
        Ok((process, addr.ok_or_else(|| format!("{name} said {line:?}, not `ready ADDRESS`"))?))
    }
}
