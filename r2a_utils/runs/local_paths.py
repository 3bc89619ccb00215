"""Folders of the machine that made a run: how they are shown on a page that others will read.

This file knows what a path looks like within a text. What else is on a page it does not know.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

_PICTURE = r"data:[^,\s\"']*,[\w/+=%-]*"  # within a page: letters that happen to spell a folder
# Where a path may start: after no part of a name or closing tag, and after a slash only in "file:///".
_START = r"(?<![\w.~<-])(?<!(?<!:/)/)"
_END = r"(?![\w-]|\.\w)"


def is_folder_of_a_machine(value: Any) -> bool:
    """Whether a parameter is an absolute path, which says where somebody keeps their files."""
    if not isinstance(value, str) or "\n" in value:
        return False
    posix, windows = PurePosixPath(value), PureWindowsPath(value)
    return (posix.is_absolute() and len(posix.parts) > 2) or bool(windows.drive and windows.root)


def without_folders(value: Any, folders: Mapping[str, str]) -> Any:
    """A text, or all texts within lists and dictionaries, with each folder's name in its place.

    Only whole paths are replaced, nothing within a longer name and nothing within a picture. One
    that ends in a slash goes with all that leads to what lies in it.
    """
    if isinstance(value, Mapping):
        return {key: without_folders(entry, folders) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [without_folders(entry, folders) for entry in value]
    if not isinstance(value, str) or not folders:
        return value
    longest = sorted(folders, key=len, reverse=True)
    paths = "|".join(re.escape(path) + ("" if path.endswith("/") else _END) for path in longest)
    found = re.compile(f"(?P<picture>{_PICTURE})|{_START}(?:{paths})")
    return found.sub(lambda m: m[0] if m["picture"] is not None else folders[m[0]], value)


def shown_folders(parameters: Mapping[str, Any]) -> dict[str, str]:
    """What stands on the pages for each parameter that is an absolute path: its last name.

    A path is also looked for as HTML, as JSON and as Python write it.
    """
    shown = {}
    for path in filter(is_folder_of_a_machine, parameters.values()):
        name = "…/" + PureWindowsPath(path).name
        for write in (str, html.escape, lambda text: json.dumps(text)[1:-1], _in_view):
            shown[write(path)] = write(name)
    return shown


def _in_view(text: str) -> str:
    return text.replace("<", "\\u003c")  # as `figures/views.py` keeps its data
