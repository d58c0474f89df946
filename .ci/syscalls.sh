#!/usr/bin/env bash
# Counts the system calls that echo makes for a message, with strace.
#
#     .ci/syscalls.sh [ECHO]        default target/release/examples/echo
#
# A client sends a message, waits for it to come back, sends the next. Echo is run twice, with
# 1,000 and with 10,000 messages, and what the 9,000 more have cost is what counts; starting and
# ending cost the same in both. Expected: one read and one write a message, a wait about once a
# message, and not one epoll_ctl more.

set -euo pipefail
cd "$(dirname "$0")/.."
ECHO="${1:-target/release/examples/echo}"
FEW=1000
MANY=10000

if ! strace -o /dev/null true 2>/dev/null; then
    echo "SKIPPED: this system does not let strace trace ($(strace -o /dev/null true 2>&1 | head -1))"
    exit 0
fi

directory=$(mktemp -d)
tracer=""
pid_file=""
cleanup() {
    if [ -n "$tracer" ]; then
        # Echo's own process; strace ends with it.
        kill "$(cat "$pid_file")" 2>/dev/null || kill "$tracer" 2>/dev/null || true
        wait "$tracer" 2>/dev/null || true
        tracer=""
    fi
}
trap 'cleanup; rm -rf "$directory"' EXIT

# count MESSAGES: leaves strace's table in $directory/MESSAGES.
count() {
    pid_file="$directory/pid.$1"
    : >"$directory/printed.$1"
    # The shell writes its process id down and becomes echo.
    strace -c -f -o "$directory/$1" \
        sh -c 'echo $$ >"$0"; exec "$@"' "$pid_file" "$ECHO" 127.0.0.1:0 \
        >"$directory/printed.$1" &
    tracer=$!
    python3 - "$1" "$directory/printed.$1" "$tracer" <<'PYTHON'
import os, re, socket, sys, time

messages, printed, tracer = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
deadline = time.monotonic() + 30
while not (match := re.search(r"listening on 127\.0\.0\.1:(\d+)", open(printed).read())):
    os.kill(tracer, 0)  # fails when strace has ended
    if time.monotonic() > deadline:
        sys.exit("echo did not start")
    time.sleep(0.02)
with socket.create_connection(("127.0.0.1", int(match.group(1))), timeout=30) as s:
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    message = b"x" * 64
    for _ in range(messages):
        s.sendall(message)
        assert s.recv(64, socket.MSG_WAITALL) == message
    s.shutdown(socket.SHUT_WR)
    assert s.recv(1) == b""
PYTHON
    cleanup
}

count $FEW
count $MANY

python3 - "$directory" $FEW $MANY <<'PYTHON'
import sys

directory, few, many = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])


def calls(messages):
    """strace's table: % time, seconds, usecs/call, calls, errors (may be blank), syscall."""
    counts = {}
    for line in open(f"{directory}/{messages}"):
        words = line.split()
        if len(words) >= 5 and words[3].isdigit() and words[-1] != "total":
            counts[words[-1]] = int(words[3])
    return counts


before, after = calls(few), calls(many)
more = {name: after.get(name, 0) - before.get(name, 0) for name in {*before, *after}}
groups = {
    "read": ("read", "readv", "recv", "recvfrom", "recvmsg"),
    "write": ("write", "writev", "send", "sendto", "sendmsg"),
    "wait": ("epoll_wait", "epoll_pwait", "epoll_pwait2"),
    "epoll_ctl": ("epoll_ctl",),
}
limits = {"read": (0.99, 1.01), "write": (0.99, 1.01), "wait": (0.9, 1.05), "epoll_ctl": (0, 0)}
failed = False
rest = dict(more)
for group, names in groups.items():
    got = sum(rest.pop(name, 0) for name in names) / (many - few)
    low, high = limits[group]
    fine = low <= got <= high
    failed |= not fine
    print(f"{group:10} {got:8.4f} a message, expected {low} to {high}{'' if fine else '  <-- FAILED'}")
got = sum(map(abs, rest.values())) / (many - few)
named = {name: count for name, count in rest.items() if count}
print(f"{'others':10} {got:8.4f} a message, expected 0 to 0.01 {named or ''}")
sys.exit(failed or got > 0.01)
PYTHON
