"""The run of a script's checks: what all scripts here have in common.

    .ci/SCRIPT.py [DIRECTORY [WORD...]]

DIRECTORY is where the built examples are, target/release/examples by default. With WORDs, only the
checks with one of them in their names are run. A script marks its checks with `@check` and ends with
`run()`, which prints each one and "N passed, N failed"; the exit status is 0 if nothing failed.
"""

import sys
import time
import traceback

DIRECTORY = sys.argv[1] if len(sys.argv) > 1 else "target/release/examples"
WORDS = sys.argv[2:]
CHECKS = []


class Skip(Exception):
    """What the check needs is not there."""


def check(function):
    # A script may import from another one; its run is of its own checks.
    if function.__module__ == "__main__":
        CHECKS.append(function)
    return function


def chosen():
    return [f for f in CHECKS if not WORDS or any(word in f.__name__ for word in WORDS)]


def run():
    """Runs the checks, and ends the script."""
    passed, failed, skipped = 0, 0, 0
    for function in chosen():
        name = function.__name__
        begin = time.monotonic()
        try:
            function()
        except Skip as why:
            skipped += 1
            print(f"skipped  {name}: {why}", flush=True)
        except Exception:
            failed += 1
            print(f"FAILED   {name}\n{traceback.format_exc()}", flush=True)
        else:
            passed += 1
            print(f"passed   {name} ({time.monotonic() - begin:.1f} s)", flush=True)
    print(f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""))
    # No check at all has a name like that: somebody has mistyped a word.
    sys.exit(1 if failed or not (passed or skipped) else 0)
