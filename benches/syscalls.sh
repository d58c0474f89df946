#!/bin/sh
# System calls (strace) and user instructions (callgrind) for each echoed message, for every peer.
set -eu
for tool in strace valgrind; do
    command -v "$tool" >/dev/null || { echo "syscalls.sh needs $tool" >&2; exit 1; }
done
exec "$(dirname "$0")/arena.sh" count "$@"
