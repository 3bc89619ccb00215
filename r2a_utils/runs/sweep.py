"""A sweep: many runs, planned before they start, so that they can be given to other machines.

The plan of a run says which stages must run, the memory of its model, the GPUs that follow from it
and, where the run has been made before, the hours. Who executes a plan is `on_ray.py`'s and
`on_slurm.py`'s business; how a stage is run is `running.py`'s. This file starts nothing.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from r2a_utils.models.memory import BYTES, GPU_MEMORY, PROMPT_TOKENS, ROOM, memory_needed
from r2a_utils.models.registry import REGISTRY
from r2a_utils.runs import running
from r2a_utils.runs.manifest import read_manifest
from r2a_utils.runs.running import StageResult
from r2a_utils.runs.stage import NOTEBOOKS


class ClusterError(RuntimeError):
    """Other machines that cannot be used; the message says why and what to do."""


@dataclass(frozen=True)
class Request:
    """One run that is asked for: what `run_stages` is called with."""

    run_id: str
    stages: Sequence[str] | None = None
    given: Mapping[str, Any] | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    cell_timeout: int | None = None
    folder: Path | None = None  # None: the run's own, below runs/
    notebooks: Path | None = None  # None: those of the package

    @property
    def run(self) -> Path:
        """The run's folder."""
        return self.folder or running.run_folder(self.run_id)

    def arguments(self) -> dict[str, Any]:
        """Those of `run_stages` beside the folder, what is asked of a run alone."""
        asked = {name: getattr(self, name) for name in ("stages", "given", "settings")}
        return asked | {"notebooks": self.notebooks or NOTEBOOKS}

    def go_on(
        self, *, only_next: bool = False, progress: bool = False, jobs: int = 1
    ) -> list[StageResult]:
        """Run what must run, or the next stage of it; see `run_stages`."""
        return running.run_stages(
            self.run,
            **self.arguments(),
            cell_timeout=self.cell_timeout,
            progress=progress,
            only_next=only_next,
            jobs=jobs,
        )


@dataclass(frozen=True)
class Plan:
    """One run before it starts."""

    request: Request
    asked: list[str]  # all stages that it consists of, in order
    stages: list[str]  # those of them that must run
    model: str
    memory: int | None  # bytes of weights, keys and values; None: not estimated
    gpus: int
    hours: float | None  # as measured when these stages last ran in this run; None: never did


def plan(request: Request, gpu_memory: float = GPU_MEMORY) -> Plan:
    """What one run will take; `gpu_memory` is in bytes, of one GPU.

    Raises ParameterError where the run would be refused, RunFolderError where it is damaged.
    """
    stages = running.outdated(request.run, **request.arguments())
    values = running.check_request(request.run, **request.arguments())
    every = list(values.values())
    model = next((str(v["model_name"]) for v in every if "model_name" in v), "-")
    memory, gpus = _memory(model, every), 0
    on_cpu = any(v.get("device") == "cpu" for v in every)
    if model in REGISTRY and REGISTRY[model].hub_id is None:
        on_cpu = True  # bundled: small
    if not on_cpu and model != "-":
        gpus = 1 if memory is None else math.ceil(memory / gpu_memory)
    entries = read_manifest(request.run)["stages"]
    seconds = [entries.get(name, {}).get("seconds") for name in stages]
    hours = sum(seconds) / 3600 if all(seconds) and seconds else None
    return Plan(request, list(values), stages, model, memory, gpus, hours)


def _memory(model: str, values: Sequence[Mapping[str, Any]]) -> int | None:
    """Bytes of the largest stage: weights, and the keys and values of a batch of longest texts."""
    if model not in REGISTRY:
        return None
    needed = []
    for stage in values:
        dtype = stage.get("dtype", "auto")
        rows, tokens = stage.get("batch_size"), stage.get("max_new_tokens")
        known = isinstance(rows, int) and isinstance(tokens, int)
        size = (rows, PROMPT_TOKENS + tokens) if known else (0, 0)
        needed.append(memory_needed(model, dtype if dtype in BYTES else "bfloat16", *size))
    found = [bytes_ for bytes_ in needed if bytes_ is not None]
    return math.ceil(max(found) * ROOM) if found else None


def planned(plans: Sequence[Plan]) -> str:
    """The table that `r2a run --dry-run` prints."""
    lines = [f"{'run':32} {'model':34} {'GB':>7} {'GPUs':>4} {'hours':>7}  stages to run"]
    for one in plans:
        gb = "-" if one.memory is None else f"{one.memory / 1e9:.2f}"
        hours = "-" if one.hours is None else f"{one.hours:.2f}"
        stages = ", ".join(name.partition("_")[0] for name in one.stages) or "none, unchanged"
        lines.append(
            f"{one.request.run_id:32} {one.model:34} {gb:>7} {one.gpus:4} {hours:>7}  {stages}"
        )
    known = [one.hours for one in plans if one.hours is not None]
    total = f"{sum(known):.2f} hours as measured" if known else "hours not measured yet"
    lines += ["", f"{len(plans)} runs, {sum(len(p.stages) for p in plans)} stages, {total}"]
    return "\n".join(lines)


class Progress:
    """One table of all runs, live in a terminal; elsewhere a line for each thing that happens."""

    def __init__(self, plans: Sequence[Plan]) -> None:
        self._console = Console(stderr=True)
        self._rows = {p.request.run_id: [0, len(p.stages), "waits", "", 0.0] for p in plans}
        self._live: Live | None = None

    def __enter__(self) -> Progress:
        if self._console.is_terminal:
            self._live = Live(get_renderable=self._table, console=self._console)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, run_id: str, done: int, status: str, where: str = "") -> None:
        """A run has so many stages done, and this is what it does now."""
        row = self._rows[run_id]
        if [done, status, where] == [row[0], row[2], row[3]]:
            return
        row[0], row[2], row[3], row[4] = done, status, where or row[3], time.time()
        if self._live is None:
            at = f" on {where}" if where else ""
            self._console.print(
                f"{run_id}: {done} of {row[1]} stages, {status}{at}", soft_wrap=True
            )

    def _table(self) -> Table:
        table = Table("run", "stages", "", "where", "minutes")
        for run_id, (done, of, status, where, since) in self._rows.items():
            minutes = f"{(time.time() - since) / 60:.1f}" if since else ""
            table.add_row(run_id, f"{done}/{of}", status, where, minutes)
        return table
