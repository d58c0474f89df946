#!/usr/bin/env bash
# Runs every test binary again and again, to find what fails only now and then.
#
#     tools/repeat.sh [-j STREAMS] [ROUNDS] [-- FLAG...]
#
# ROUNDS is 100 by default. STREAMS rounds run at a time (1 by default): more of them than cores make
# the machine busy, which finds tests that depend on time. What follows `--` goes to each binary (a
# part of a test's name, say).
# It stops at the first failure and shows it. For mio's poll(2) in place of epoll, set
# RUSTFLAGS="--cfg mio_unsupported_force_poll_poll" and CARGO_TARGET_DIR=target/poll.
# Documentation tests are not repeated: each would be compiled anew.

set -euo pipefail
cd "$(dirname "$0")/.."
streams=1
rounds=100
usage() { sed -n '2,/^$/s/^# \{0,1\}//p' "$0" >&2; exit 2; }
number() { [[ "$1" =~ ^[1-9][0-9]*$ ]] || usage; }
while [ $# -gt 0 ]; do
    case "$1" in
        -j) streams="${2:-}"; number "$streams"; shift 2 ;;
        --) shift; break ;;
        *) rounds="$1"; number "$rounds"; shift ;;
    esac
done

mapfile -t binaries < <(
    cargo test --all-features --lib --tests --no-run --message-format=json |
        python3 -c '
import json, sys
for line in sys.stdin:
    found = json.loads(line).get("executable")
    if found: print(found)'
)
[ ${#binaries[@]} -gt 0 ] || { echo "there is no test binary" >&2; exit 1; }

# stream FIRST FLAG...: the rounds FIRST, FIRST + STREAMS, and so on.
stream() {
    local round log="$logs/$1" begun
    for ((round = $1; round <= rounds; round += streams)); do
        begun=$SECONDS
        for binary in "${binaries[@]}"; do
            if ! "$binary" -q "${@:2}" >"$log" 2>&1; then
                cat "$log"
                echo "failed in round $round of $rounds: $binary" >&2
                return 1
            fi
        done
        echo "round $round of $rounds: ${#binaries[@]} binaries passed ($((SECONDS - begun)) s)"
    done
}

# Every stream has a process group of its own, so that its binary ends with it.
set -m
logs=$(mktemp -d)
pids=()
stop() {
    for pid in "${pids[@]}"; do kill -- "-$pid" 2>/dev/null || true; done
    rm -rf "$logs"
}
trap stop EXIT
trap 'exit 130' INT TERM
for ((n = 1; n <= streams && n <= rounds; n++)); do
    stream "$n" "$@" &
    pids+=($!)
done
for _ in "${pids[@]}"; do wait -n || exit 1; done
