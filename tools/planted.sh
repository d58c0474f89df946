#!/usr/bin/env bash
# Shows that the tests find faults: applies each patch of tests/planted/ by itself, to a copy of the
# committed sources, and runs the tests that its "Pinned by" line names. Each has to fail.
#
#     tools/planted.sh [NAME...]
#
# Without names all patches are tried. Each costs a build (15 to 30 s on two cores). A fault may make
# a test wait for ever, so a run is ended after TIMEOUT seconds (300 by default), which counts as found.
# Exits with 1 if a patch does not apply or compile, or if the tests pass with it.

set -euo pipefail
cd "$(dirname "$0")/.."
timeout="${TIMEOUT:-300}"
copy="$(mktemp -d)"
trap 'rm -rf "$copy"' EXIT
git archive HEAD | tar -x -C "$copy"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/target/planted}"

if [ $# -eq 0 ]; then
    for patch in tests/planted/*.patch; do set -- "$@" "$(basename "$patch" .patch)"; done
fi

missed=0
for name in "$@"; do
    patch="$PWD/tests/planted/$name.patch"
    [ -f "$patch" ] || { echo "expected the name of a patch in tests/planted/, not '$name'" >&2; exit 2; }
    # The names are words with "::" in them; what else the line says is for readers.
    mapfile -t tests < <(sed -n 's/^# Pinned by: //p' "$patch" | grep -o '[a-z_0-9]*::[a-z_0-9:]*')
    [ ${#tests[@]} -gt 0 ] || { echo "$name: names no test" >&2; exit 2; }
    if ! git -C "$copy" apply --unsafe-paths "$patch" 2>"$copy/error"; then
        echo "does not apply: $name: $(head -1 "$copy/error")"
        missed=1
        continue
    fi
    begun=$SECONDS
    if ! (cd "$copy" && cargo test -q --all-features --lib --test all --no-run) >"$copy/log" 2>&1; then
        result="does not compile"
        missed=1
    else
        status=0
        (cd "$copy" && timeout "$timeout" cargo test --all-features --no-fail-fast --lib --test all \
            -- "${tests[@]}") >"$copy/log" 2>&1 || status=$?
        # A failed test, an aborted process or one that hangs; any other failure is not the fault's.
        if [ "$status" -eq 124 ] || grep -qE '^test .* FAILED$|\(signal: ' "$copy/log"; then
            result="found"
        else
            result="NOT FOUND"
            missed=1
        fi
    fi
    printf '%-18s %s (%d s)\n' "$result:" "$name" $((SECONDS - begun))
    git -C "$copy" apply --unsafe-paths -R "$patch"
done
exit "$missed"
