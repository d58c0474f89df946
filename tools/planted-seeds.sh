#!/usr/bin/env bash
# Shows that the simulator finds faults: applies each patch of tests/planted/ by itself, to a copy of the
# committed sources, and runs seeds of every simulated scenario until one fails.
#
#     tools/planted-seeds.sh [NAME...]
#
# Prints a table: the patch, the scenario that finds it with the fewest seeds, how many seeds that are
# (1 if seed 0 fails), and what it says. Without a fault the same seeds have to pass, which is seen first.
# SEEDS is how many seeds each scenario has (10,000 by default), LIMIT how many seconds of CPU time each
# patch has (120). A run that hangs is found as well: it has TIMEOUT seconds (60) for a batch.
# Exits with 1 if a patch does not apply or compile, or is not found.

set -euo pipefail
cd "$(dirname "$0")/.."
seeds="${SEEDS:-10000}"
limit="${LIMIT:-120}"
timeout="${TIMEOUT:-60}"
if [ $# -eq 0 ]; then
    for patch in tests/planted/*.patch; do set -- "$@" "$(basename "$patch" .patch)"; done
fi
for name in "$@"; do
    [ -f "tests/planted/$name.patch" ] ||
        { echo "expected the name of a patch in tests/planted/, not '$name'" >&2; exit 2; }
done

copy="$(mktemp -d)"
log="$copy.log"
trap 'rm -rf "$copy" "$log"' EXIT
# Dated now: cargo would take what an earlier run has built, with its last fault, for this copy's.
git archive HEAD | tar -xm -C "$copy"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/target/planted}"
export RUST_BACKTRACE=0
unset TIDEGATE_SEED

build() {
    (cd "$copy" && cargo test --profile seeds --all-features --test sim --no-run) >"$log" 2>&1 || return 1
    binary="$(sed -n 's/^ *Executable .*(\(.*\))$/\1/p' "$log")"
}
# The seconds of CPU time of what has run and ended.
cpu() { awk '{ print int(($16 + $17) / 100) }' /proc/$$/stat; }

# search: batches of seeds of every scenario, each twice as large as the one before, until one fails or the
# time is up. Sets scenario, count and what; count is empty if nothing was found. Of several scenarios
# that fail in one batch the one with the lowest seed counts.
search() {
    local first=0 size=50 test status seed begun end
    begun="$(cpu)"
    scenario='' count='' what=''
    while [ "$first" -lt "$seeds" ] && [ $(($(cpu) - begun)) -lt "$limit" ]; do
        end=$((first + size < seeds ? first + size : seeds))
        for test in "${scenarios[@]}"; do
            [ "$end" -gt "$first" ] || break
            status=0
            TIDEGATE_FIRST_SEED="$first" TIDEGATE_SEEDS=$((end - first)) \
                timeout "$timeout" "$binary" --exact "$test" >"$log" 2>&1 || status=$?
            if [ "$status" -eq 124 ]; then
                [ -z "$count" ] || continue
                # Which one hangs is not known: the last of the batch, at worst.
                seed=$((end - 1)) what="a run hangs"
            elif [ "$status" -ne 0 ]; then
                seed="$(sed -n 's/^seed \([0-9]*\), hash.*/\1/p' "$log" | tail -1)"
                what="$(grep -A1 'panicked at tests/sim/seeds.rs' "$log" | tail -1 || true)"
                # No seed says so where the process died of it: the last of the batch, at worst.
                [ -n "$seed" ] || seed=$((end - 1)) what="the process dies (status $status)"
            else
                continue
            fi
            scenario="${test#seeds::}" count=$((seed + 1)) end="$seed"
        done
        [ -z "$count" ] || return 0
        first=$((first + size))
        size=$((size * 2))
    done
}

build || { cat "$log"; exit 1; }
mapfile -t scenarios < <("$binary" --list | sed -n 's/^\(seeds::.*\): test$/\1/p')
search
[ -z "$count" ] || { echo "without any fault seed $((count - 1)) of $scenario fails: $what" >&2; exit 1; }
echo "without any fault: no seed fails"

missed=0
printf '%-36s %-20s %6s  %s\n' patch scenario seeds 'what it says'
for name in "$@"; do
    patch="$PWD/tests/planted/$name.patch"
    if ! git -C "$copy" apply "$patch" 2>"$log"; then
        echo "does not apply: $name: $(head -1 "$log")"
        missed=1
        continue
    fi
    if build; then
        search
    else
        scenario='' count='' what="does not build"
    fi
    printf '%-36s %-20s %6s  %s\n' "$name" "${scenario:--}" "${count:--}" "${what:-NOT FOUND}"
    [ -n "$count" ] || missed=1
    git -C "$copy" apply -R "$patch"
done
exit "$missed"
