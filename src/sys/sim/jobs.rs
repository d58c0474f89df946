//! Jobs of `Net::offload`: each is run on the simulation's thread, when a worker would have done it.

use std::collections::{BTreeMap, VecDeque};

use super::arrivals::Arrival;
use super::world::{CALL, World};
use crate::sys::workers::Job;

/// The workers of a host.
#[derive(Default)]
pub(super) struct Jobs {
    /// Those that wait and those that a worker has, by number.
    under_way: BTreeMap<u64, Job>,
    /// The number of the next one. It goes on when a process ends, the ends of whose jobs may be
    /// planned still.
    next: u64,
    /// Those whose end has come.
    ending: VecDeque<u64>,
    /// When each worker is free.
    free_at: Vec<u64>,
}

/// How long a job takes at most.
const JOB: u64 = 20_000_000;

impl Jobs {
    /// The end of a job has come, if its process has not ended before.
    pub(super) fn ends(&mut self, number: u64) {
        if self.under_way.contains_key(&number) {
            self.ending.push_back(number);
        }
    }
}

impl World {
    /// A job for another thread. It is run at its end and not when a worker is free for it: so the jobs
    /// of several workers end, and post, in any order.
    pub(super) fn submit(&mut self, host: u32, most: usize, job: Job) {
        let takes = self.network.between(1_000, JOB);
        let now = self.time_here();
        let jobs = &mut self.jobs[host as usize];
        if jobs.free_at.len() < most {
            jobs.free_at.push(now);
        }
        let Some(first) = jobs.free_at.iter_mut().min() else { return };
        let ends = (*first).max(now) + CALL + takes;
        *first = ends;
        let number = jobs.next;
        jobs.next += 1;
        jobs.under_way.insert(number, job);
        self.send_at(host, ends, Arrival::Job(number));
    }

    /// Whether a job is to be run.
    pub(crate) fn has_jobs(&self, host: u32) -> bool {
        !self.jobs[host as usize].ending.is_empty()
    }

    /// The next job whose end has come.
    pub(crate) fn next_job(&mut self, host: u32) -> Option<Job> {
        let jobs = &mut self.jobs[host as usize];
        let number = jobs.ending.pop_front()?;
        let job = jobs.under_way.remove(&number)?;
        self.events += 1;
        Some(job)
    }

    /// None is run any more.
    pub(super) fn take_jobs(&mut self, host: u32) -> VecDeque<Job> {
        let jobs = &mut self.jobs[host as usize];
        jobs.ending.clear();
        jobs.free_at.clear();
        std::mem::take(&mut jobs.under_way).into_values().collect()
    }
}
