"""A process of its own for math-verify: a line `[gold, answer]` in, a line `{"equal": …}` out.

A first line, `{"ready": true}`, says that it has loaded what it needs.

math-verify stops a runaway simplification with SIGALRM, which only a main thread can take and
which big-integer arithmetic does not heed. In a process of its own it has a main thread wherever
the caller runs, and `grading.py` can end it. This file runs as a script: it imports nothing of the
package, so that it starts in a second or two.
"""

import contextlib
import json
import sys

# 10^{10^{10}} as an integer takes 4 GB; an honest comparison stays far below this.
MEMORY_LIMIT_BYTES = 2 << 30


def compare(parse, verify, gold: str, answer: str) -> dict:
    """{"equal": whether two LaTeX expressions mean the same to math-verify} or {"failure": why}."""
    try:
        return {"equal": bool(verify(parse(f"${gold}$"), parse(f"${answer}$")))}
    except Exception as error:  # whatever sympy trips over, the next comparison must still run
        return {"failure": f"{type(error).__name__}: {error}"}


def main() -> None:
    with contextlib.suppress(ImportError, ValueError, OSError):  # not every system has this limit
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT_BYTES, MEMORY_LIMIT_BYTES))
    replies, sys.stdout = sys.stdout, sys.stderr  # what a library prints must not be a reply
    from math_verify import parse, verify

    print(json.dumps({"ready": True}), file=replies, flush=True)
    for line in sys.stdin:
        print(json.dumps(compare(parse, verify, *json.loads(line))), file=replies, flush=True)


if __name__ == "__main__":
    main()
