//! A single-threaded reactor on `mio` readiness.

pub mod layer;
