"""The lock of a run folder: one process at a time changes a run.

The lock is the operating system's and goes with the process that holds it, however that ends, so a
dead owner leaves nothing to break. Who holds it stands beside it, for the sentence that the second
one gets. This file knows nothing of what is in the folder.
"""

from __future__ import annotations

import datetime
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from r2a_utils.runs.folder import RunFolderError

LOCK = ".lock"
OWNER = ".lock-owner"


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Keep the run in `folder` to this process for the time being.

    Raises RunFolderError, which names the process that has it, instead of waiting: a run may take
    days.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise RunFolderError(
            f"{folder} is in use by {_owner(folder)}: wait until it is done, "
            "or give this run another --run-id"
        ) from error
    owner = folder / OWNER
    try:
        since = datetime.datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
        owner.write_text(f"process {os.getpid()} on {socket.gethostname()} since {since}")
        yield
    finally:
        owner.unlink(missing_ok=True)
        lock.release()


def _owner(folder: Path) -> str:
    try:
        return (folder / OWNER).read_text()
    except FileNotFoundError:  # it has only just begun, or is about to end
        return "another process"
