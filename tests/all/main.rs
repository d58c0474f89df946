//! The integration tests, one module for each subject, in one binary: they run as threads of one
//! process. A test that spoils its process (its descriptors, its signals, its panics) runs itself
//! again as a child: `support::child`. What is counted by the allocator of the whole process is in
//! `tests/allocations`.
//!
//! A comment `// row N` above a test names the row of `docs/promises.md` that the test holds;
//! `promises.rs` checks both directions.

#[path = "../support/mod.rs"]
mod support;

mod accept;
#[cfg(all(feature = "backplane", unix))]
mod backplane;
#[cfg(all(feature = "backplane", unix))]
mod backplane_cluster;
#[cfg(all(feature = "backplane", unix))]
mod backplane_kept;
#[cfg(all(feature = "backplane", unix))]
mod backplane_refused;
#[cfg(all(feature = "backplane", unix))]
mod backplane_workers;
mod batches;
mod callbacks;
mod channel;
mod close;
mod connect;
mod deadline;
mod deflated;
mod echo;
mod fairness;
mod forms;
mod groups;
mod hostile;
mod last_words;
mod late;
#[cfg(feature = "histograms")]
mod lateness;
mod latest;
mod layer_info;
mod layers;
mod linked;
mod log_levels;
mod offload;
mod options;
mod owed;
#[cfg(feature = "packet-info")]
mod packet_info;
mod panics;
mod progress;
mod promises;
mod rare_orders;
mod read;
mod relay;
mod remote;
mod sessions;
mod signals;
mod sources;
mod starttls;
mod stats;
mod stop;
#[cfg(all(feature = "tcp-info", any(target_os = "linux", target_os = "android")))]
mod tcp_info;
mod timers;
mod tokens;
mod udp;
mod udp_batch;
mod unix;
mod websockets;
mod wire_formats;
mod work;
mod workers;
mod write;
