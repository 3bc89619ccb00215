"""Work with an order, as much of it side by side as the order allows.

The scheduler decides, one thing after another, in the thread that called it; only the work itself
is done in threads, of which each waits for a kernel. Work that fails stops what needs it and
nothing else. This file knows neither stages nor notebooks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from graphlib import TopologicalSorter
from typing import Any

from jupyter_core.utils import ensure_event_loop


def in_order(
    needs: Mapping[str, Sequence[str]],
    begin: Callable[[str], Callable[[], Any] | None],
    end: Callable[[str, Future], bool],
    *,
    jobs: int,
    stop: Callable[[], None],
) -> None:
    """Do what `needs` names, each thing when all that it needs is done, `jobs` at a time.

    Of what may begin, the first in `needs` does, or with several jobs the last: what is late in an
    order tends to take long and to have more before it, and one alone should not be left for the
    end. `begin` returns the work, or None where there is none. `end` gets the finished work and
    says whether what needs it may follow. On an interruption `stop` is called until nothing is
    under way.
    """
    order = list(needs)
    sorter = TopologicalSorter(needs)
    sorter.prepare()
    ready: list[str] = []
    running: dict[Future, str] = {}
    with ThreadPoolExecutor(jobs) as pool:
        try:
            while True:
                ready = sorted([*ready, *sorter.get_ready()], key=order.index)
                if ready and len(running) < jobs:
                    name = ready.pop(0 if jobs == 1 else -1)
                    work = begin(name)
                    if work is None:
                        sorter.done(name)
                    else:
                        running[pool.submit(_without_loop_left, work)] = name
                elif running:
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        name = running.pop(future)
                        if end(name, future):
                            sorter.done(name)
                else:
                    return
        except BaseException:
            while wait(running, timeout=0).not_done:
                stop()
                wait(running, timeout=1)
            raise


def _without_loop_left(work: Callable[[], Any]) -> Any:
    """Do the work, and close the event loop that Jupyter opens for a thread and leaves."""
    try:
        return work()
    finally:
        ensure_event_loop().close()
