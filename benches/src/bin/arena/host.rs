//! What the arena asks of the machine: cores, descriptors, another process's CPU time and memory.

use crate::Result;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::time::{ClockId, clock_getcpuclockid};
use nix::unistd::Pid;
use std::time::{Duration, Instant};

/// The CPU clock of a process: all its threads, user and system time, in nanoseconds, and up to date also while it
/// runs (the figures under `/proc` are brought up to date only at scheduler ticks).
#[derive(Clone, Copy)]
pub struct CpuClock(ClockId);

impl CpuClock {
    pub fn of(pid: u32) -> Result<Self> {
        Ok(Self(clock_getcpuclockid(Pid::from_raw(pid.cast_signed()))?))
    }

    pub fn now(self) -> Result<Duration> {
        Ok(self.0.now()?.into())
    }

    /// Waits until the process has not run for a few milliseconds: what was asked of it is done. Several looks,
    /// because on a busy machine it may just not have had its turn.
    pub fn wait_until_quiet(self) -> Result<()> {
        let end = Instant::now() + Duration::from_secs(30);
        let (mut last, mut quiet) = (self.now()?, 0);
        while Instant::now() < end {
            std::thread::sleep(Duration::from_millis(2));
            let now = self.now()?;
            quiet = if now == last { quiet + 1 } else { 0 };
            if quiet == 4 {
                return Ok(());
            }
            last = now;
        }
        Err("the server does not come to rest".into())
    }
}

/// The resident memory of a process, in bytes.
pub fn resident(pid: u32) -> Result<u64> {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Rss:"));
    let kib: u64 = line
        .and_then(|rest| rest.trim().strip_suffix(" kB"))
        .and_then(|number| number.trim().parse().ok())
        .ok_or("smaps_rollup has no Rss line")?;
    Ok(kib * 1024)
}

/// As many descriptors as the hard limit allows; child processes inherit it.
pub fn raise_descriptor_limit() -> Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?)
}

/// Puts the calling thread, and what it starts from now on, on one core.
pub fn pin(core: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(core)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
}

/// Runs `start` on one core; what it starts stays there, the calling thread does not.
pub fn on_core<T>(core: usize, start: impl FnOnce() -> T) -> Result<T> {
    let before = sched_getaffinity(Pid::from_raw(0))?;
    pin(core)?;
    let value = start();
    sched_setaffinity(Pid::from_raw(0), &before)?;
    Ok(value)
}
