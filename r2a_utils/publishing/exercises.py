"""The exercises of the stage notebooks, read from their source.

An exercise is a run of cells in the section "Exercises" of a stage. It begins with a heading such
as `### Exercise 3.1: The mass of one head`, which is followed by a line with its difficulty, its
importance and its minutes, and by the task. Then come a code cell tagged `stub`, a folded hint, a
code cell tagged `solution`, one tagged `check`, any cells that put the function to use, and last
what one should see and a question whose answer is folded. The book and the workshop's copies are
made from these cells; this file writes nothing.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from nbformat import NotebookNode

from r2a_utils.runs.stage import Stage

_TITLE = re.compile(r"### Exercise (\d+\.\d+): (.+)")
_FACTS = re.compile(
    r"^Difficulty (?P<difficulty>[●○]{5}), importance (?P<importance>[●○]{5}), "
    r"(?P<minutes>\d+) minutes$",
    re.MULTILINE,
)
# What an exercise must hold: a tag for a code cell, a text for prose.
_CELLS = ("stub", "solution", "check")
_TEXTS = (
    "```{admonition} Hint",
    "**What you should see.**",
    "**Comprehension.**",
    "Answer\n:class",
)


class ExerciseError(ValueError):
    """An exercise that lacks a part; the message names it and the part."""


@dataclass(frozen=True)
class Exercise:
    """One exercise as its notebook has it. Difficulty and importance count from 1 to 5."""

    id: str  # "3.1": the stage's number and a running one
    title: str
    stage: str
    difficulty: int
    importance: int
    minutes: int
    function: str  # the name that the participant defines
    cells: range  # of the stage's notebook

    @property
    def anchor(self) -> str:
        """The name of its heading on the stage's page, as myst-parser makes it."""
        words = re.sub(r"[^\w\s-]", "", f"Exercise {self.id}: {self.title}").lower()
        return words.replace(" ", "-")

    def dots(self, kind: str) -> str:
        """`difficulty` or `importance` as it is printed."""
        value = getattr(self, kind)
        return "●" * value + "○" * (5 - value)


def load_exercises(stages: Mapping[str, Stage]) -> list[Exercise]:
    """All exercises of the stages, in order. Raises ExerciseError for an incomplete one."""
    return [exercise for stage in stages.values() for exercise in stage_exercises(stage)]


def stage_exercises(stage: Stage) -> Iterator[Exercise]:
    """The exercises of one stage, in order."""
    cells = stage.notebook.cells
    titled = [i for i, cell in enumerate(cells) if _title(cell)]
    for start in titled:
        later = range(start + 1, len(cells))
        stop = next((i for i in later if _is_heading(cells[i])), len(cells))
        yield _read(stage, range(start, stop))


def fold_solutions(page: NotebookNode) -> None:
    """Fold the solutions of a page of the book, in place, under their name."""
    for cell in page.cells:
        if has_tag(cell, "solution"):
            cell.metadata["tags"] = [*cell.metadata["tags"], "hide-cell"]
            prompts = {
                "code_prompt_show": "Show the solution",
                "code_prompt_hide": "Hide the solution",
            }
            cell.metadata["mystnb"] = prompts


def has_tag(cell: NotebookNode, tag: str) -> bool:
    """Whether a cell carries a tag."""
    return tag in cell.metadata.get("tags", [])


def _title(cell: NotebookNode) -> re.Match | None:
    return _TITLE.match(cell.source) if cell.cell_type == "markdown" else None


def _is_heading(cell: NotebookNode) -> bool:
    return cell.cell_type == "markdown" and re.match(r"#{1,3} ", cell.source) is not None


def _read(stage: Stage, where: range) -> Exercise:
    cells = [stage.notebook.cells[i] for i in where]
    number, title = _title(cells[0]).groups()
    name = f"{stage.path.name}, exercise {number}"
    if int(number.partition(".")[0]) != int(stage.name[:2]):
        raise ExerciseError(f"{name}: the first number must be the stage's")
    facts = _FACTS.search(cells[0].source)
    if facts is None:
        raise ExerciseError(
            f"{name} needs a line such as: Difficulty ●●○○○, importance ●●●●○, 15 minutes"
        )
    for tag in _CELLS:
        if sum(has_tag(cell, tag) for cell in cells) != 1:
            raise ExerciseError(f"{name} needs one code cell tagged `{tag}`")
    prose = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    for text in _TEXTS:
        if text not in prose:
            raise ExerciseError(f"{name} lacks {text!r}")
    stub, solution = (
        _functions(next(c for c in cells if has_tag(c, tag))) for tag in ("stub", "solution")
    )
    if len(stub) != 1 or stub != solution[-1:]:
        raise ExerciseError(f"{name}: stub and solution must define the same one function")
    return Exercise(
        number,
        title,
        stage.name,
        facts["difficulty"].count("●"),
        facts["importance"].count("●"),
        int(facts["minutes"]),
        stub[0],
        where,
    )


def _functions(cell: NotebookNode) -> list[str]:
    """The functions that a cell defines at its top."""
    return [node.name for node in ast.parse(cell.source).body if isinstance(node, ast.FunctionDef)]
