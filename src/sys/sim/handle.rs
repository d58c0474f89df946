//! What the seam holds of the simulated world: numbers.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::ThreadId;
use std::time::{Duration, Instant, SystemTime};

use super::udp::Arrivals;
use super::world::World;
use super::{with, world};
use crate::address::{Address, Target};
use crate::socket_options::SocketOptions;
use crate::sys::workers::Job;
use crate::sys::{Outgoing, Ready};

/// A socket of the simulated world, closed when it is dropped.
#[derive(Debug)]
pub(crate) struct Socket(u32);

/// Its edges are those over poll(2): only `WouldBlock` proves that nothing is left.
const POLL_LIKE: u32 = 1 << 31;
/// It is a Unix socket, where a short read proves nothing.
const UNIX: u32 = 1 << 30;

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the simulation of this socket does not run")
}

/// A step of the host whose turn runs.
fn here<T>(step: impl FnOnce(&mut World, u32) -> io::Result<T>) -> io::Result<T> {
    with(|world| match world.current {
        Some(host) => step(world, host),
        None => Err(outside()),
    })
    .unwrap_or_else(|| Err(gone()))
}

fn outside() -> io::Error {
    io::Error::other("expected a host of the simulation to make this socket, but none is running")
}

impl Socket {
    fn new(world: &World, index: u32, unix: bool) -> Self {
        let host = world.current.unwrap_or(0) as usize;
        let poll_like = world.hosts.get(host).is_some_and(world::Host::is_poll_like);
        let flag = |set: bool, flag: u32| if set { flag } else { 0 };
        Socket(index | flag(poll_like, POLL_LIKE) | flag(unix, UNIX))
    }

    pub(crate) fn index(&self) -> u32 {
        self.0 & !(POLL_LIKE | UNIX)
    }

    fn ask<T>(&self, step: impl FnOnce(&mut World, u32) -> io::Result<T>) -> io::Result<T> {
        with(|world| step(world, self.index())).unwrap_or_else(|| Err(gone()))
    }

    pub(crate) fn short_read_drains(&self) -> bool {
        self.0 & (POLL_LIKE | UNIX) == 0
    }

    pub(crate) fn short_write_fills(&self) -> bool {
        self.0 & POLL_LIKE == 0
    }

    /// Registers it in the poll of a host, whose socket it is from then on.
    pub(crate) fn register(&self, host: u32, token: usize) -> io::Result<()> {
        self.ask(|world, index| {
            world.register(host, index, token);
            Ok(())
        })
    }

    /// The same for a host whose poll nobody asks.
    pub(crate) fn register_here(&self, token: usize) -> io::Result<()> {
        self.ask(|world, index| {
            let host = world.current.ok_or_else(outside)?;
            world.register(host, index, token);
            Ok(())
        })
    }

    pub(crate) fn deregister(&self, host: u32) {
        with(|world| world.deregister(host, self.index()));
    }

    // ---- streams ----

    pub(crate) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.ask(|world, index| world.read(index, buffer))
    }

    pub(crate) fn write(&self, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.ask(|world, index| world.write(index, slices))
    }

    pub(crate) fn write_urgent(&self, byte: u8) -> io::Result<usize> {
        self.ask(|world, index| world.write_urgent(index, byte))
    }

    pub(crate) fn shutdown_write(&self) -> io::Result<()> {
        self.ask(World::shutdown_write)
    }

    pub(crate) fn take_error(&self) -> Option<io::Error> {
        with(|world| world.take_error(self.index())).flatten()
    }

    pub(crate) fn reset_on_close(&self) {
        with(|world| world.set_resets_on_close(self.index()));
    }

    pub(crate) fn apply(&self, options: &SocketOptions) -> io::Result<()> {
        self.ask(|world, index| {
            world.set_buffers(index, options);
            Ok(())
        })
    }

    pub(crate) fn peer_addr(&self) -> io::Result<Address> {
        self.ask(|world, index| world.peer_addr(index))
    }

    pub(crate) fn local_addr(&self) -> io::Result<Address> {
        self.ask(|world, index| world.local_addr(index))
    }

    // ---- listeners ----

    pub(crate) fn accept(&self) -> io::Result<(Socket, Address)> {
        let unix = self.0 & UNIX != 0;
        self.ask(|world, index| {
            let (accepted, peer) = world.accept(index)?;
            Ok((Socket::new(world, accepted, unix), peer))
        })
    }

    pub(crate) fn listener_addr(&self) -> io::Result<Address> {
        self.ask(|world, index| world.listener_addr(index))
    }

    // ---- UDP ----

    pub(crate) fn receive(&self, arrivals: &mut Arrivals, most: usize) -> io::Result<bool> {
        self.ask(|world, index| world.receive(index, arrivals, most))
    }

    /// Sends up to `most` datagrams; some systems take several with one call.
    pub(crate) fn send<'a>(
        &self,
        waiting: impl Iterator<Item = &'a Outgoing>,
        mut bytes: &[u8],
        most: usize,
    ) -> io::Result<usize> {
        self.ask(|world, index| {
            let most = most.min(world.datagrams_a_call());
            let mut sent = 0;
            for &Outgoing { to, len, mark } in waiting.take(most) {
                let (datagram, rest) = bytes.split_at(len);
                match world.send_datagram(index, datagram, to, mark) {
                    Ok(()) => sent += 1,
                    Err(e) if sent == 0 => return Err(e),
                    // The next call begins with this one and fails again, if it was not about
                    // an earlier one.
                    Err(_) => break,
                }
                bytes = rest;
            }
            Ok(sent)
        })
    }

    #[cfg(feature = "packet-info")]
    pub(crate) fn tell_packet_info(&self) -> io::Result<()> {
        self.ask(|world, index| world.tell_packet_info(index))
    }

    pub(crate) fn udp_addr(&self) -> io::Result<SocketAddr> {
        self.ask(|world, index| world.udp_addr(index))
    }

    pub(crate) fn udp_peer(&self) -> io::Result<SocketAddr> {
        self.ask(|world, index| world.udp_peer(index))
    }

    pub(crate) fn membership(&self, group: IpAddr, join: bool) -> io::Result<()> {
        self.ask(|world, index| world.membership(index, group, join))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        with(|world| world.close(self.index()));
    }
}

/// A socket that is in no reactor: a connection on its way to another worker, or the socket of a port that
/// workers share.
#[derive(Debug)]
pub(crate) struct Ownerless(Option<Socket>);

impl Ownerless {
    /// A connection that was accepted and is another worker's.
    pub(crate) fn on_its_way(socket: Socket) -> Self {
        with(|world| world.leaves(socket.index()));
        Ownerless(Some(socket))
    }

    /// It has come to the host whose turn runs.
    pub(crate) fn arrives(mut self) -> Option<Socket> {
        let socket = self.0.take()?;
        with(|world| world.comes(socket.index()));
        Some(socket)
    }

    /// A listening socket, which is in no poll yet.
    pub(crate) fn shared(socket: Socket) -> Self {
        with(|world| world.is_ownerless(socket.index()));
        Ownerless(Some(socket))
    }

    /// Another descriptor of it.
    pub(crate) fn duplicate(&self) -> io::Result<Socket> {
        let socket = self.socket()?;
        socket.ask(World::duplicate)?;
        Ok(Socket(socket.0))
    }

    pub(crate) fn socket(&self) -> io::Result<&Socket> {
        self.0.as_ref().ok_or_else(gone)
    }
}

impl Drop for Ownerless {
    fn drop(&mut self) {
        if let Some(socket) = &self.0 {
            with(|world| world.is_given_up(socket.index()));
        }
    }
}

// ---- entries ----

/// Whether a simulation runs on this thread.
#[inline]
pub(crate) fn is_simulated() -> bool {
    with(|_| ()).is_some()
}

pub(crate) fn connect(
    to: &Address,
    from: Option<SocketAddr>,
    options: &SocketOptions,
) -> io::Result<Socket> {
    here(|world, host| {
        let index = world.connect(host, to, from, options)?;
        Ok(Socket::new(world, index, to.socket_addr().is_none()))
    })
}

pub(crate) fn listen(
    on: &Address,
    backlog: u32,
    options: &SocketOptions,
    several: bool,
) -> io::Result<Socket> {
    here(|world, host| {
        let index = world.listen(host, on, backlog, options, several)?;
        Ok(Socket::new(world, index, on.socket_addr().is_none()))
    })
}

pub(crate) fn bind_udp(
    on: SocketAddr,
    peer: Option<SocketAddr>,
    options: &SocketOptions,
) -> io::Result<Socket> {
    here(|world, host| {
        let index = world.bind_udp(host, on, peer, options)?;
        Ok(Socket::new(world, index, false))
    })
}

pub(crate) fn resolve(target: &Target) -> io::Result<Vec<Address>> {
    with(|world| world.resolve(target)).unwrap_or_else(|| Err(gone()))
}

#[cfg(feature = "random")]
/// Fills `bytes` from the seed; `false` without a simulation.
pub(crate) fn random(bytes: &mut [u8]) -> bool {
    with(|world| world.library.fill(bytes)).is_some()
}

/// Something draws randomness of its own.
#[cfg(feature = "tls")]
pub(crate) fn cannot_be_repeated(what: &'static str) {
    with(|world| {
        world.unrepeatable.get_or_insert(what);
    });
}

pub(crate) fn submit(host: u32, most: usize, job: Job) {
    with(|world| world.submit(host, most, job));
}

pub(crate) fn take_jobs(host: u32) -> VecDeque<Job> {
    with(|world| world.take_jobs(host)).unwrap_or_default()
}

/// The clock of the host whose turn runs.
#[cold] // seen from a reactor on the system: it stays out of that one's way
pub(crate) fn clock() -> Instant {
    with(World::read_clock).unwrap_or_else(super::time_outside)
}

pub(crate) fn system_time() -> SystemTime {
    with(World::system_time).unwrap_or_else(SystemTime::now)
}

/// The poller of the host whose reactor is being made.
pub(crate) fn poller() -> io::Result<u32> {
    with(|world| match world.current {
        Some(host) if std::mem::take(&mut world.building) => Ok(host),
        _ => Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "expected Sim::host to make the reactors of a simulation, got one that is made inside it",
        )),
    })
    .unwrap_or_else(|| Err(gone()))
}

#[cold]
pub(crate) fn poll(
    host: u32,
    ready: &mut Vec<Ready>,
    timeout: Option<Duration>,
    most: usize,
) -> io::Result<bool> {
    let waits = timeout != Some(Duration::ZERO);
    with(|world| world.poll(host, ready, waits, most)).unwrap_or_else(|| Err(gone()))
}

/// Wakes a simulated host. Only the simulation's own thread may: another one's messages would come
/// at times that no seed decides.
#[derive(Debug)]
pub(crate) struct Waker {
    host: u32,
    thread: ThreadId,
    outside: Arc<Outside>,
}

/// The hosts of one simulation that were woken while it did not run: between its steps, in an action,
/// or in a step of another simulation. Its next step begins with them. One thread uses it; it is
/// `Sync` because handles of reactors are.
#[derive(Debug, Default)]
pub(crate) struct Outside {
    any: AtomicBool,
    hosts: Mutex<Vec<u32>>,
}

impl Outside {
    fn add(&self, host: u32) {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner).push(host);
        self.any.store(true, Ordering::Relaxed);
    }

    #[inline]
    pub(super) fn take(&self) -> Vec<u32> {
        // Most steps only load: a swap costs more.
        if !self.any.load(Ordering::Relaxed) {
            return Vec::new();
        }
        self.any.store(false, Ordering::Relaxed);
        std::mem::take(&mut self.hosts.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Waker {
    pub(crate) fn new(host: u32) -> Self {
        let outside = with(|world| Arc::clone(&world.outside)).unwrap_or_default();
        Waker { host, thread: std::thread::current().id(), outside }
    }

    pub(crate) fn may_wake(&self) -> bool {
        std::thread::current().id() == self.thread
    }

    pub(crate) fn wake(&self) -> io::Result<()> {
        let inside = with(|world| {
            let own = Arc::ptr_eq(&world.outside, &self.outside);
            if own {
                world.wake(self.host);
            }
            own
        });
        if inside != Some(true) {
            self.outside.add(self.host);
        }
        Ok(())
    }
}
