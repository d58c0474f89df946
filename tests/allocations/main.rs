//! Tests that count allocations. They have a binary of their own because the allocator that counts
//! is the whole process's, and because the log that other tests collect allocates as well.

#[path = "../support/mod.rs"]
mod support;

mod announced_lengths;
mod idle_connections;
mod session_memory;
mod steady_state;
