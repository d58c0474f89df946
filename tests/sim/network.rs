//! What the simulated network does.
