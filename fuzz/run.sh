#!/bin/sh
# Runs every fuzz target for so many seconds each (600 if not told otherwise), from its seeds and
# what was found before. Stops at the first crash. Needs cargo-fuzz.
set -eu
cd "$(dirname "$0")/.."
seconds=${1:-600}

export RUSTC_BOOTSTRAP=1 # sanitizer coverage flags are unstable; this avoids needing nightly
for target in $(cargo fuzz list); do
    echo "== $target, $seconds s"
    mkdir -p "fuzz/corpus/$target"
    cargo fuzz run -s none "$target" "fuzz/corpus/$target" "fuzz/seeds/$target" -- \
        -max_total_time="$seconds" -max_len=512 -print_final_stats=1
done
