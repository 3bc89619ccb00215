"""The process that does algebra: whether two expressions are related, in a time that is bounded.

It is started when it is first asked and started again after it ran out of time. This file knows how
the process is asked. What it does with an expression is in `math_worker.py`.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import signal
import subprocess
import sys
import threading
import warnings
from functools import lru_cache
from pathlib import Path

# Seconds of computing, whatever else the machine does; the slowest of the paper's 400 takes 0.2.
COMPARISON_LIMIT_S = 10.0
WORKER_SCRIPT = Path(__file__).with_name("math_worker.py")


@lru_cache(maxsize=10_000)
def related(first: str, second: str, how: str) -> bool:
    """Whether two LaTeX expressions are related as `how` says (see `RELATIONS` of the process).

    False, with a warning, where it takes more than 10 s of computing to tell, or cannot be told.
    Raises RuntimeError if the process cannot run.
    """
    reply = PROCESS.ask(first, second, how)
    if "failure" in reply:
        warnings.warn(
            f"counted as wrong: comparing {first[:80]!r} with {second[:80]!r}: {reply['failure']}",
            stacklevel=3,
        )
    return reply.get("related", False)


class MathProcess:
    """The process and its pipes; one question at a time, from any thread."""

    def __init__(self) -> None:
        self._process: subprocess.Popen | None = None
        self._lock = threading.Lock()

    def ask(self, first: str, second: str, how: str) -> dict:
        """{"related": bool}, or {"failure": why} where it cannot be told.

        Raises RuntimeError if the process ends by itself.
        """
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                self.stop()
                self._start()
            process = self._process
            try:
                process.stdin.write(json.dumps([first, second, how, COMPARISON_LIMIT_S]) + "\n")
                process.stdin.flush()
                line = process.stdout.readline()
            except BrokenPipeError:
                line = ""
            except BaseException:
                # Interrupted: the reply still to come must not answer the next question.
                process.kill()
                raise
            if line:
                return json.loads(line)
            code = process.wait()
        if code == -signal.SIGPROF:
            return {"failure": f"no result in {COMPARISON_LIMIT_S:g} s of computing"}
        raise RuntimeError(
            f"the process that compares answers ended with code {code}: run `{sys.executable} "
            f'{WORKER_SCRIPT}` and give it a line such as ["1", "2", "equal", 10] to see why'
        )

    def _start(self) -> None:
        # -P keeps this folder off its path, so that none of its modules hides a library's.
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(WORKER_SCRIPT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
        )
        self._process.stdout.readline()  # ready

    def stop(self) -> None:
        """End the process, if there is one, and close its pipes."""
        if self._process is not None:
            self._process.kill()
            with contextlib.suppress(BrokenPipeError):  # a question that it will not read
                self._process.stdin.close()
            self._process.stdout.close()
            self._process.wait()


PROCESS = MathProcess()
atexit.register(PROCESS.stop)
