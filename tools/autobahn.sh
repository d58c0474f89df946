#!/usr/bin/env bash
# Runs the Autobahn fuzzing client against the example `ws_echo`: the cases of RFC 6455 (groups 1 to
# 7, 9 and 10) and of RFC 7692 (12 and 13).
#
#   tools/autobahn.sh            all groups: half a minute, and twenty minutes for 12 and 13
#   tools/autobahn.sh 1 2 5      these groups
#
# The last release of the suite, 0.8.2 of 2015, runs on Python 2.7 alone. Where there is none, this
# script says so and ends with status 77; it is no part of `cargo test`. Everything it installs goes
# to target/autobahn, the report to target/autobahn/report/index.html.
#
# PYTHON2  the interpreter        (default: python2.7, else one of pyenv's)
# PORT     where the server is    (default: 9001)
# SERVER   a command that serves an echo at 127.0.0.1:$PORT, taking messages of 16 MiB
#          (default: the example)
set -euo pipefail
cd "$(dirname "$0")/.."

groups=("${@:-1 2 3 4 5 6 7 9 10 12 13}")
port=${PORT:-9001}
work=$PWD/target/autobahn
mkdir -p "$work"

skip() {
    echo "SKIPPED: the Autobahn cases were NOT run: $*" >&2
    exit 77
}

find_python() {
    local candidate
    for candidate in "${PYTHON2:-}" python2.7 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/2.7.*/bin/python2.7; do
        if [ -n "$candidate" ] && "$candidate" -c 'import sys; assert sys.version_info[:2] == (2, 7)' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
}
python=$(find_python)
[ -n "$python" ] || skip "there is no Python 2.7 (set PYTHON2; 'pyenv install 2.7.18' builds one)"

site=$work/site
if [ ! -f "$site/installed" ]; then
    "$python" -m pip --version >/dev/null 2>&1 || skip "$python has no pip"
    rm -rf "$site"
    "$python" -m pip install --quiet --target "$site" autobahntestsuite==0.8.2 ||
        skip "autobahntestsuite 0.8.2 could not be installed"
    # Without this file Python 2 does not take `zope` for a package.
    touch "$site/zope/__init__.py" "$site/installed"
fi

if [ -n "${SERVER:-}" ]; then
    $SERVER &
else
    cargo build --release --features websocket --example ws_echo
    target/release/examples/ws_echo "127.0.0.1:$port" --max-message $((16 << 20)) --deflate &
fi
server=$!
trap 'kill "$server" 2>/dev/null || true' EXIT
for _ in $(seq 50); do
    (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && break
    kill -0 "$server" 2>/dev/null || { echo "the server ended before it listened" >&2; exit 1; }
    sleep 0.1
done

cases=$(printf '"%s.*",' ${groups[@]})
cat >"$work/spec.json" <<SPEC
{"outdir": "$work/report",
 "servers": [{"agent": "tidegate", "url": "ws://127.0.0.1:$port"}],
 "cases": [${cases%,}], "exclude-cases": [], "exclude-agent-cases": {}}
SPEC
rm -rf "$work/report"
export PYTHONPATH=$site PYTHONWARNINGS=ignore
"$python" -c 'from autobahntestsuite.wstest import run; run()' \
    -m fuzzingclient -s "$work/spec.json" | tee "$work/log" | grep --line-buffered '^Running' || true

"$python" - "$work/report/index.json" <<'JUDGE'
import collections, json, sys

cases = json.load(open(sys.argv[1]))["tidegate"]
counts = collections.Counter(case["behavior"] for case in cases.values())
print("%d cases: %s" % (len(cases), ", ".join("%d %s" % (n, b) for b, n in sorted(counts.items()))))
# INFORMATIONAL: the case has no right answer. UNIMPLEMENTED: a compression window we do not offer.
fine = ("OK", "INFORMATIONAL", "UNIMPLEMENTED")
bad = sorted(name for name, case in cases.items()
             if case["behavior"] not in fine or case["behaviorClose"] not in fine)
for name in bad:
    print("%s: %s, closing %s" % (name, cases[name]["behavior"], cases[name]["behaviorClose"]))
sys.exit(1 if bad or not cases else 0)
JUDGE
