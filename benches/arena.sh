#!/bin/sh
# Builds the arena and all Rust servers, then runs it: `benches/arena.sh run --quick`.
set -eu
cd "$(dirname "$0")"
cargo build --release --quiet
exec target/release/arena "$@"
