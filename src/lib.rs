//! A single-threaded reactor on `mio` readiness.

pub mod layer;
// Until the reactor uses it.
#[allow(dead_code, unused_imports)]
mod timer;
