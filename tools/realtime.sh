#!/usr/bin/env bash
# How late this library is: waits, ticks of a game, a relay of market data, beside bare loops in C that do the
# same or nothing else; and what priority, a pinned core and locked memory bring. docs/realtime.md reads the tables.
#
#     tools/realtime.sh [--realtime] [waits|ticks|relay|measures]...
#
# Everything but what is named is left out. ROUNDS=N rounds (5 by default: about five minutes), interleaved: each
# round runs each program once, and the tables have the medians of the rounds and their quartiles. --realtime
# runs all programs under SCHED_FIFO (chrt; needs root), so that other work of the machine does not count; it
# takes their cores meanwhile, as benches/arena.sh --realtime does. Linux only; needs cc and python3.

set -euo pipefail
cd "$(dirname "$0")/.."
target="$(realpath -m "${CARGO_TARGET_DIR:-target}")"
out="$target/realtime"
mkdir -p "$out"
for name in bare relay; do
    cc -O3 -flto -Wall -Wextra -o "$out/$name" "benches/peers/realtime/$name.c"
done
features=cookies,histograms,timerfd,udp-batch,websocket
# A folder of its own: with other features everything would be compiled again each time.
CARGO_TARGET_DIR="$out/target" cargo build --quiet --release --features "$features" --example feed --example game
CARGO_TARGET_DIR="$out/target" cargo build --quiet --release --features realtime --bin waits \
    --manifest-path benches/Cargo.toml
exec python3 tools/realtime.py "$out" "$out/target/release" "$@"
