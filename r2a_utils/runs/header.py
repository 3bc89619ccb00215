"""What a stage declares in the header of its notebook: what it reads and writes, what it takes.

The header is the YAML block that jupytext keeps at the top of a py:percent file::

    # ---
    # jupyter:
    #   r2a:
    #     reads: [tables/problems, traces/with_reasoning]
    #     writes: [arrays/segment_mass_with_reasoning, records/segment_attention]
    #     parameters:
    #       n_traces: {least: 1, most: 1000000}

The limits of the parameters are told in `limits.py`. An artifact is written `kind/name`, as it lies
in the run folder, without its ending. While a stage
runs, `Run` holds it to its word, so that a header cannot say less than the code does.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from r2a_utils.runs.limits import Limits
from r2a_utils.runs.plain_yaml import read_yaml

# Which stage a kernel runs, and what it declares; set where a stage is executed and nowhere else,
# so that the same code in a reader's own notebook is free.
_VARIABLE = "R2A_STAGE"
# What kernels are told; of one thread, because stages may run side by side.
_TOLD: ContextVar[Mapping[str, str]] = ContextVar("told", default=MappingProxyType({}))


@dataclass(frozen=True)
class Header:
    """The declarations of one stage."""

    stage: str
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    limits: Mapping[str, Limits] = field(default_factory=dict)  # by parameter

    def in_force(self) -> AbstractContextManager[None]:
        """Let kernels that are started inside be held to these declarations."""
        declared = {"stage": self.stage, "reads": self.reads, "writes": self.writes}
        return told_to_kernels({_VARIABLE: json.dumps(declared)})


@contextmanager
def told_to_kernels(variables: Mapping[str, str]) -> Iterator[None]:
    """Let kernels that this thread starts inside have these variables in their environment."""
    before = _TOLD.set({**_TOLD.get(), **variables})
    try:
        yield
    finally:
        _TOLD.reset(before)


def kernel_environment() -> dict[str, str]:
    """The environment of a kernel that is started here."""
    return {**os.environ, **_TOLD.get()}


def read_header(path: Path) -> Header:
    """The header of a notebook's source. ValueError for one that declares something else."""
    entries = _front_matter(path.read_text(encoding="utf-8")).get("jupyter", {}).get("r2a", {})
    unknown = set(entries) - {"reads", "writes", "parameters"}
    if unknown:
        raise ValueError(
            f"{path.name}: its header declares {sorted(unknown)}: reads, writes, parameters"
        )
    for name in [*entries.get("reads", []), *entries.get("writes", [])]:
        if str(name).count("/") != 1:
            raise ValueError(f"{path.name}: {name!r} in its header is no kind/name of an artifact")
    limits = {
        name: Limits.read(given, f"{path.name}: limits of {name}")
        for name, given in entries.get("parameters", {}).items()
    }
    reads, writes = (tuple(entries.get(kind, ())) for kind in ("reads", "writes"))
    return Header(path.stem, reads, writes, limits)


def declared_here() -> Header | None:
    """The header of the stage that this process runs; None where it runs none."""
    text = kernel_environment().get(_VARIABLE)
    if text is None:
        return None
    entries = json.loads(text)
    return Header(entries["stage"], tuple(entries["reads"]), tuple(entries["writes"]))


def makers(artifact: str, notebooks: Path) -> list[str]:
    """The stages of a folder of notebooks that declare that they write `artifact`."""
    return all_makers(notebooks).get(artifact, [])


def all_makers(notebooks: Path) -> dict[str, list[str]]:
    """`makers` of every artifact that a stage declares."""
    found: dict[str, list[str]] = {}
    for header in (read_header(path) for path in sorted(notebooks.glob("[0-9]*.py"))):
        for artifact in header.writes:
            found.setdefault(artifact, []).append(header.stage)
    return found


def _front_matter(source: str) -> dict[str, Any]:
    lines = source.split("\n")
    if lines[0] != "# ---":
        return {}
    block = lines[1 : lines.index("# ---", 1)]
    return read_yaml("\n".join(line.removeprefix("# ") for line in block)) or {}
