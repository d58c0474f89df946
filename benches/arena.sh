#!/bin/sh
# Builds the arena and all Rust servers, then runs it: `benches/arena.sh run --quick`.
set -eu
manifest="$(dirname "$0")/Cargo.toml"
cargo build --release --quiet --manifest-path "$manifest"
exec cargo run --release --quiet --manifest-path "$manifest" -- "$@"
