"""A process of its own for math-verify: lines `[gold, answer, limit]` in, `{"equal": …}` out.

math-verify stops a runaway simplification with an alarm that only a main thread can take, that
big-integer arithmetic does not heed, and that goes by the clock on the wall, so that a busy machine
would grade otherwise than an idle one. In a process of its own each comparison gets `limit` seconds
of computing time, after which the system ends the process, whatever it is at. The first line out is
`{"ready": true}`. This file runs as a script: it imports nothing of the package, so that it starts
in a second or two.
"""

import contextlib
import json
import resource
import signal
import sys

from math_verify import parse, verify

# 10^{10^{10}} as an integer takes 4 GB; an honest comparison stays far below this.
MEMORY_LIMIT_BYTES = 2 << 30


def compare(gold: str, answer: str) -> dict:
    """{"equal": whether two LaTeX expressions mean the same to math-verify} or {"failure": why}."""
    try:
        sides = [parse(f"${side}$", parsing_timeout=None) for side in (gold, answer)]
        return {"equal": bool(verify(*sides, timeout_seconds=None))}
    except Exception as error:  # whatever sympy trips over, the next comparison must still run
        return {"failure": f"{type(error).__name__}: {error}"}


def main() -> None:
    with contextlib.suppress(ValueError, OSError):  # macOS knows this limit and does not grant it
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT_BYTES, MEMORY_LIMIT_BYTES))
    replies, sys.stdout = sys.stdout, sys.stderr  # what a library prints must not be a reply
    print(json.dumps({"ready": True}), file=replies, flush=True)
    for line in sys.stdin:
        gold, answer, limit_s = json.loads(line)
        # No handler: when the time is up, SIGPROF ends the process, inside C code as well.
        signal.setitimer(signal.ITIMER_PROF, limit_s)
        reply = compare(gold, answer)
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(json.dumps(reply), file=replies, flush=True)


if __name__ == "__main__":
    main()
