"""Which values a parameter may have: its range, its words, or what else it may name.

They stand in the header of a stage's notebook, beside the parameters cell::

    #     parameters:
    #       n_problems: {least: 1, most: 1000000}
    #       confidence: {above: 0, below: 1}
    #       source: {choices: [model, written], or: [url]}

This file compares values with them; it does not know what a parameter does.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from r2a_utils.folders import work_folder
from r2a_utils.models.registry import ORGANISM_MODELS, UNTRAINED

ROOT = work_folder()


def _is_path(text: str) -> bool:
    """A relative path counts from the folder in which stages run."""
    try:
        return bool(text) and (ROOT / Path(text).expanduser()).exists()
    except (OSError, RuntimeError, ValueError):  # too long, no such user, a null character
        return False


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _is_gpu(text: str) -> bool:
    return bool(re.fullmatch(r"cuda:\d{1,3}", text))


def _is_hub_id(text: str) -> bool:
    hub = re.fullmatch(r"(hf:)?[\w.-]+(/[\w.-]+)+|ollama:[\w./:-]+", text)
    return text in (*ORGANISM_MODELS, UNTRAINED) or hub is not None


# What a text may be besides one of its choices: how it is told, and how it is recognised.
_OTHERS: Mapping[str, tuple[str, Callable[[str], bool]]] = {
    "path": ("a file or folder that is there", _is_path),
    "url": ("the URL of a server (http://…)", _is_url),
    "gpu": ("one of several GPUs (cuda:1)", _is_gpu),
    "hub": ("another bundled model or an id of the model hub (owner/name)", _is_hub_id),
}


@dataclass(frozen=True)
class Limits:
    """The values that one parameter may have; of a list, each element. None is not compared."""

    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None
    choices: tuple[str, ...] = ()
    others: tuple[str, ...] = ()  # of _OTHERS

    @classmethod
    def read(cls, entries: Any, where: str) -> Limits:
        """The limits as a header writes them. ValueError for anything else."""
        known = {field.name for field in fields(cls)} - {"others"} | {"or"}
        if not isinstance(entries, Mapping) or not entries or not set(entries) <= known:
            raise ValueError(f"{where}: {entries!r}; limits are made of {', '.join(sorted(known))}")
        others = tuple(entries.get("or", ()))
        if not set(others) <= set(_OTHERS):
            raise ValueError(f"{where}: `or` takes {', '.join(_OTHERS)}, not {list(others)}")
        rest = {name: value for name, value in entries.items() if name != "or"}
        rest["choices"] = tuple(rest.get("choices", ()))
        return cls(**rest, others=others)

    def check(self, name: str, value: Any) -> None:
        """ValueError, which says what `name` takes, for a value outside."""
        if isinstance(value, list):
            for element in value:
                self.check(f"each of {name}", element)
        elif isinstance(value, str):
            if (self.choices or self.others) and value not in self.choices:
                self._check_other(name, value)
        elif value is not None and not isinstance(value, bool):
            inside = (
                (self.least is None or value >= self.least)
                and (self.most is None or value <= self.most)
                and (self.above is None or value > self.above)
                and (self.below is None or value < self.below)
            )
            if not inside:
                raise ValueError(f"{name} takes {self._range()}, not {value!r}")

    def _check_other(self, name: str, value: str) -> None:
        if any(_OTHERS[other][1](value) for other in self.others):
            return
        takes = [*map(repr, self.choices), *(_OTHERS[other][0] for other in self.others)]
        near = difflib.get_close_matches(value, self.choices, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        shown = value if len(value) < 80 else f"{value[:77]}…"
        raise ValueError(f"{name} takes {' or '.join(takes)}, not {shown!r}{hint}")

    def _range(self) -> str:
        words = {"least": "at least", "most": "at most", "above": "more than", "below": "less than"}
        told = [
            f"{word} {getattr(self, limit):,}"
            for limit, word in words.items()
            if getattr(self, limit) is not None
        ]
        return "a number of " + " and ".join(told)


UNLIMITED = Limits()


def check_finite(name: str, value: Any) -> None:
    """ValueError for a number that is none, or has no end: no parameter means anything then."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name} takes a number that is finite, not {value!r}")
