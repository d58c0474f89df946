#!/usr/bin/env bash
# Runs every test binary again and again, to find what fails only now and then.
#
#     tools/repeat.sh [ROUNDS] [-- FLAG...]
#
# ROUNDS is 100 if not said; what follows `--` goes to each binary (a part of a test's name, say).
# Stops at the first failure and shows it. For mio's poll(2) in place of epoll, set
# RUSTFLAGS="--cfg mio_unsupported_force_poll_poll" and CARGO_TARGET_DIR=target/poll.
# Documentation tests are not repeated: each would be compiled anew.

set -euo pipefail
cd "$(dirname "$0")/.."
rounds=100
[ $# -eq 0 ] || [ "$1" = -- ] || { rounds=$1; shift; }
[ "${1:-}" != -- ] || shift

log=$(mktemp)
trap 'rm -f "$log"' EXIT

mapfile -t binaries < <(
    cargo test --all-features --lib --tests --no-run --message-format=json |
        python3 -c '
import json, sys
for line in sys.stdin:
    found = json.loads(line).get("executable")
    if found: print(found)'
)
for ((round = 1; round <= rounds; round++)); do
    begun=$SECONDS
    for binary in "${binaries[@]}"; do
        if ! "$binary" -q "$@" >"$log" 2>&1; then
            cat "$log"
            echo "failed in round $round of $rounds: $binary" >&2
            exit 1
        fi
    done
    echo "round $round of $rounds: ${#binaries[@]} binaries passed ($((SECONDS - begun)) s)"
done
