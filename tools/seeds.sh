#!/usr/bin/env bash
# Runs many seeds of every simulated scenario (tests/sim/seeds.rs), optimized and with all assertions.
#
#     tools/seeds.sh N [FIRST]
#
# N seeds of each scenario, from number FIRST (0 by default) on. Two scenarios run at a time (JOBS).
# Prints how long each one took, and what a run that fails has to say; exits with 1 if one does. A
# scenario that takes longer than TIMEOUT seconds (3,600 by default) has failed, too.

set -euo pipefail
cd "$(dirname "$0")/.."
[[ "${1:-}" =~ ^[0-9]+$ && "${2:-0}" =~ ^[0-9]+$ && $# -le 2 ]] ||
    { echo "expected: tools/seeds.sh N [FIRST], got '$*'" >&2; exit 2; }
export TIDEGATE_SEEDS="$1" TIDEGATE_FIRST_SEED="${2:-0}" RUST_BACKTRACE=0
export TIMEOUT="${TIMEOUT:-3600}"
unset TIDEGATE_SEED

built="$(cargo test --profile seeds --all-features --test sim --no-run 2>&1)" ||
    { echo "$built" >&2; exit 1; }
BINARY="$(sed -n 's/^ *Executable .*(\(.*\))$/\1/p' <<<"$built")"
LOGS="$(mktemp -d)"
export BINARY LOGS
trap 'rm -rf "$LOGS"' EXIT

# One scenario.
run() {
    local test="$1" begun=$SECONDS status=0
    timeout "$TIMEOUT" "$BINARY" --exact "$test" >"$LOGS/$test" 2>&1 || status=$?
    if [ "$status" -eq 0 ]; then
        printf 'passed: %-28s %s seeds (%d s)\n' "${test#seeds::}" "$TIDEGATE_SEEDS" $((SECONDS - begun))
        return 0
    fi
    printf 'FAILED: %s (%d s)\n' "${test#seeds::}" $((SECONDS - begun))
    if [ "$status" -eq 124 ]; then
        echo "it takes longer than $TIMEOUT s"
    else
        # Without the lines of panics before, which handlers have caught.
        tac "$LOGS/$test" | sed '/panicked at tests\/sim\/seeds.rs/q' | tac
    fi
    return 1
}
export -f run

"$BINARY" --list | sed -n 's/^\(seeds::.*\): test$/\1/p' |
    xargs -P "${JOBS:-2}" -I{} bash -c 'run "$1"' _ {} || { echo "a seed fails" >&2; exit 1; }
echo "$TIDEGATE_SEEDS seeds of every scenario passed, from $TIDEGATE_FIRST_SEED on"
