"""What the parameter files of `book/params/` ask of a machine, for the page that says how to rerun.

A file names a registered model and how many texts are written at once; `models/memory.py` turns
that into memory and time. This file runs nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from r2a_utils.models.memory import (
    GPU_MEMORY,
    PROMPT_TOKENS,
    ROOM,
    memory_needed,
    token_bytes,
    writing_seconds,
)
from r2a_utils.models.registry import REGISTRY, shape_of
from r2a_utils.publishing.foreign_text import code
from r2a_utils.runs.parameters import ParameterError, resolve
from r2a_utils.runs.running import read_parameters
from r2a_utils.runs.stage import load_stages

CONDITIONS = 2  # each problem is answered with and without reasoning
COLLECTING = "01_collect_traces"


@dataclass(frozen=True)
class Plan:
    """One parameter file: the model, the texts that are written, and how many at once."""

    file: str
    model: str
    dataset: str
    problems: int
    rows: int
    tokens: int  # of a text at most, the prompt left out
    teacher_forced: bool

    @property
    def estimated(self) -> bool:
        """Whether the registry has the model's shape, without which nothing below is asked."""
        return shape_of(self.model) is not None

    @property
    def weights(self) -> int:
        """Bytes in bfloat16."""
        return memory_needed(self.model)

    @property
    def cache(self) -> int:
        """Bytes of the keys and values of all rows, when every text is as long as it may be."""
        return self.rows * (PROMPT_TOKENS + self.tokens) * token_bytes(self.model)

    @property
    def gpus(self) -> int:
        """How many GPUs of `memory.GPU_MEMORY` hold all this, with room."""
        return math.ceil(ROOM * (self.weights + self.cache) / GPU_MEMORY)

    @property
    def hours(self) -> float:
        """Estimated hours to write the traces of both conditions on such GPUs."""
        texts = CONDITIONS * self.problems
        return writing_seconds(self.model, texts, self.rows, self.tokens) / 3600


def read_plans(folder: Path) -> list[Plan]:
    """The plans of a folder's files for registered models, the smallest model first.

    Last are those of models whose size is not estimated.

    Raises ParameterError, which names the file, for parameters that no notebook declares.
    """
    declared = {name: stage.parameters for name, stage in load_stages().items()}
    plans = []
    for path in folder.glob("*.yml"):
        try:
            values = resolve(declared, [COLLECTING], read_parameters(path), {})[COLLECTING]
        except ParameterError as error:
            raise ParameterError(f"{path}: {error}") from error
        plan = Plan(
            file=path.name,
            model=values["model_name"],
            dataset=values["dataset"],
            problems=values["n_problems"],
            rows=values["batch_size"],
            tokens=values["max_new_tokens"],
            teacher_forced=values["source"] == "written",
        )
        if plan.model in REGISTRY:
            plans.append(plan)
    return sorted(plans, key=lambda plan: plan.weights if plan.estimated else math.inf)


def plans_table(plans: Sequence[Plan]) -> Markup:
    """What each plan needs, as Markdown; a teacher-forced model writes nothing."""
    lines = [
        "| file of `params/` | weights, GB | texts at once | keys and values, GB | GPUs | hours |",
        "|---|---|---|---|---|---|",
    ]
    for plan in plans:
        writing = ["–", "–", "none", "–"]
        if not plan.estimated:
            unknown = "not estimated"
            cells = [code(plan.file), unknown, str(plan.rows), unknown, unknown, unknown]
            lines.append(f"| {' | '.join(cells)} |")
            continue
        if not plan.teacher_forced:
            cache = f"{plan.cache / 1e9:.1f}"
            writing = [str(plan.rows), cache, str(plan.gpus), f"{plan.hours:.1f}"]
        cells = [code(plan.file), f"{plan.weights / 1e9:.1f}", *writing]
        lines.append(f"| {' | '.join(cells)} |")
    return Markup("\n".join(lines))
