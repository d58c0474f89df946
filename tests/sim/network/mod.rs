//! What the simulated network and its hosts do.

mod datagrams;
mod hosts;
mod misuse;
mod partitions;
mod streams;
