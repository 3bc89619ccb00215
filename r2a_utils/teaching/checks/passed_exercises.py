"""Which exercises are passed in this folder of copies, over all its notebooks and sessions.

A check that passes writes the exercise's number and the time into `progress.json`, beside the
copies of the notebooks. Where no copies lie, and where a stage is run for the book, nothing is
written. This file knows no exercise: numbers come from the checks, titles from the copies.
"""

from __future__ import annotations

import datetime
import functools
import json
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pandas as pd

from r2a_utils.runs.folder import write_aside
from r2a_utils.runs.header import declared_here
from r2a_utils.teaching.checks.outcome import Passed

FILE = "progress.json"
_COPIES = "[0-9][0-9]*_*.ipynb"
_TITLE = re.compile(r"### Exercise (\d+\.\d+): (.+)")


def exercise(number: str) -> Callable:
    """Makes of a function the check of one exercise, such as 3.1, that remembers its success."""

    def decorate(check: Callable[[Callable], Passed]) -> Callable[[Callable], Passed]:
        @functools.wraps(check)
        def remembering(function: Callable) -> Passed:
            passed = check(function)
            _remember(number, Path.cwd())
            return passed

        return remembering

    return decorate


def progress(folder: str | Path = ".") -> pd.DataFrame:
    """The exercises of a folder of copies, in order: title, and when its check was first passed.

    Raises FileNotFoundError where no copies lie.
    """
    copies = sorted(Path(folder).glob(_COPIES))
    if not copies:
        raise FileNotFoundError(
            f"{Path(folder).resolve()} holds no copies of the notebooks: `r2a lab` makes them"
        )
    titles: dict[str, str] = {}
    for copy in copies:
        for cell in json.loads(copy.read_text(encoding="utf-8"))["cells"]:
            if found := _TITLE.match("".join(cell["source"])):
                titles.setdefault(*found.groups())
    passed = _read(Path(folder) / FILE)
    rows = {number: (titles[number], passed.get(number, "not yet")) for number in sorted(titles)}
    frame = pd.DataFrame.from_dict(rows, orient="index", columns=["title", "passed"])
    return frame.rename_axis("exercise")


def _remember(number: str, folder: Path) -> None:
    if declared_here() is not None or not any(folder.glob(_COPIES)):
        return
    now = datetime.datetime.now().isoformat(sep=" ", timespec="minutes")
    passed = {number: now, **_read(folder / FILE)}
    text = json.dumps(dict(sorted(passed.items())), indent=1) + "\n"
    with suppress(OSError):  # a folder that may not be written: the check has passed all the same
        write_aside(folder / FILE, lambda part: part.write_text(text, encoding="utf-8"))


def _read(path: Path) -> dict[str, str]:
    """What was passed before; nothing where the file is not there or is no longer ours."""
    with suppress(OSError, ValueError):
        kept = json.loads(path.read_text(encoding="utf-8"))
        return kept if isinstance(kept, dict) else {}
    return {}
