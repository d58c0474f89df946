#!/usr/bin/env bash
# Shows that the tests find faults: applies each patch of tests/planted/ by itself, to a copy of the
# committed sources, and runs the tests that its "Pinned by" line names. Each has to fail.
#
#     tools/planted.sh [NAME...]
#     tools/planted.sh --check
#
# Without names all patches are tried. The tests are first run without a fault and have to pass. Then
# each patch costs two builds of the library's tests. A fault may make a test wait for ever, so a run is
# ended after TIMEOUT seconds (300 by default), which counts as found.
# Exits with 1 if a patch does not apply or compile, or if the tests pass with it.
#
# `--check` builds nothing: it only sees whether each patch applies and the tests that it names exist.

set -euo pipefail
cd "$(dirname "$0")/.."
timeout="${TIMEOUT:-300}"
check=
[ "${1:-}" != --check ] || { check=yes; shift; }
if [ $# -eq 0 ]; then
    for patch in tests/planted/*.patch; do set -- "$@" "$(basename "$patch" .patch)"; done
fi

# The tests that a patch names: the words with "::" in them; what else the line says is for readers.
tests_of() { sed -n 's/^# Pinned by: //p' "tests/planted/$1.patch" | grep -o '[a-z_0-9]*::[a-z_0-9:]*'; }
for name in "$@"; do
    [ -f "tests/planted/$name.patch" ] ||
        { echo "expected the name of a patch in tests/planted/, not '$name'" >&2; exit 2; }
    tests_of "$name" >/dev/null || { echo "$name: its 'Pinned by' line names no test" >&2; exit 1; }
done

if [ -n "$check" ]; then
    for name in "$@"; do
        git apply --check "tests/planted/$name.patch" || { echo "does not apply: $name" >&2; exit 1; }
        for test in $(tests_of "$name"); do
            grep -rqE "(fn|mod) ${test##*::}\b" src tests || { echo "$name: no test $test" >&2; exit 1; }
        done
    done
    echo "$# patches apply, and their tests exist"
    exit
fi

copy="$(mktemp -d)"
log="$copy.log"
trap 'rm -rf "$copy" "$log"' EXIT
# Dated now: cargo would take what an earlier run has built, with its last fault, for this copy's.
git archive HEAD | tar -xm -C "$copy"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/target/planted}"

build() { (cd "$copy" && cargo test -q --all-features --lib --test all --no-run) >"$log" 2>&1; }
# run TEST...: the named tests of the copy.
run() {
    (cd "$copy" && timeout "$timeout" \
        cargo test --all-features --no-fail-fast --lib --test all -- "$@") >"$log" 2>&1
}

all=()
for name in "$@"; do mapfile -t -O ${#all[@]} all < <(tests_of "$name"); done
build && run "${all[@]}" || { cat "$log"; echo "these tests fail without any fault" >&2; exit 1; }

missed=0
for name in "$@"; do
    patch="$PWD/tests/planted/$name.patch"
    begun=$SECONDS
    mapfile -t tests < <(tests_of "$name")
    if ! git -C "$copy" apply "$patch" 2>"$log"; then
        echo "does not apply: $name: $(head -1 "$log")"
        missed=1
        continue
    fi
    status=0
    if ! build; then
        result="does not build"
        missed=1
    else
        run "${tests[@]}" || status=$?
        # A failed test, an aborted process or one that hangs; any other failure is not the fault's.
        if [ "$status" -eq 124 ] || grep -qE '^test .* FAILED$|\(signal: ' "$log"; then
            result="found"
        else
            result="NOT FOUND"
            missed=1
        fi
    fi
    printf '%-16s %s (%d s)\n' "$result:" "$name" $((SECONDS - begun))
    git -C "$copy" apply -R "$patch"
done
exit "$missed"
