//! Same seed, same trace.
