//! The reactor in the simulator: scenarios with many seeds, what the simulated network does, and what
//! the simulator itself promises.
//!
//! A fixed set of seeds runs here, in seconds. `tools/seeds.sh N` runs any number.

#[path = "scenarios/mod.rs"]
mod scenarios;

mod banner;
mod determinism;
#[cfg(feature = "backplane")]
mod engine;
#[cfg(feature = "backplane")]
#[path = "../support/entries.rs"]
mod entries;
mod feed_age;
mod invariants;
mod kit;
mod late_timers;
mod network;
#[cfg(feature = "backplane")]
mod newcomers;
mod posts;
mod raw;
mod repeats;
mod runs;
mod seeds;
#[cfg(feature = "backplane")]
mod shards;
#[cfg(feature = "backplane")]
#[path = "../support/slots.rs"]
mod slots;
#[cfg(feature = "tls")]
mod tls;
