"""Cached folders: model folders that are made once, in the user's cache, and then only read.

It lies at XDG_CACHE_HOME, or ~/.cache, below r2a/. A folder's name says what it was made from, so
that nothing in it can be old. This file knows nothing of what is in one.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path


def cache_of(kind: str) -> Path:
    """The folder of all cached folders of a kind, made if need be."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    cache = home / "r2a" / kind
    cache.mkdir(parents=True, exist_ok=True)
    return cache


def cached_folder(kind: str, name: str, make: Callable[[Path], None]) -> Path:
    """The cached folder `name` of a kind; where it is not there, `make` fills an empty one first.

    A folder that `make` does not bring to its end leaves nothing behind.
    """
    folder = cache_of(kind) / name
    if folder.is_dir():
        return folder
    part = Path(tempfile.mkdtemp(dir=folder.parent))
    try:
        make(part)
        with contextlib.suppress(OSError):  # another process was first, with the same content
            part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder
