"""The exercises of the stage notebooks and the checks that go with them."""

import ast
import json
import re
import symtable
from pathlib import Path

import nbformat
import pytest
from cell_runs import run_cell
from IPython.core.interactiveshell import InteractiveShell

from r2a_utils.publishing.exercises import (
    ExerciseError,
    fold_solutions,
    has_tag,
    load_exercises,
    stage_exercises,
)
from r2a_utils.runs.stage import ROOT, load_stage, load_stages
from r2a_utils.teaching.checks import outcome

STAGES = load_stages()
EXERCISES = load_exercises(STAGES)
each_exercise = pytest.mark.parametrize("exercise", EXERCISES, ids=lambda e: e.id)


def cells_of(exercise) -> list[nbformat.NotebookNode]:
    return [STAGES[exercise.stage].notebook.cells[i] for i in exercise.cells]


def tagged(exercise, tag: str) -> str:
    return next(cell.source for cell in cells_of(exercise) if has_tag(cell, tag))


def code_before(exercise) -> list[str]:
    """The code cells of the stage before its first exercise."""
    first = next(stage_exercises(STAGES[exercise.stage])).cells.start
    cells = STAGES[exercise.stage].notebook.cells[:first]
    return [cell.source for cell in cells if cell.cell_type == "code"]


def imported(exercise) -> dict:
    """A namespace with what the page imports, and nothing of what it computes."""
    space = {}
    for source in code_before(exercise):
        nodes = [n for n in ast.parse(source).body if isinstance(n, ast.Import | ast.ImportFrom)]
        run_cell("\n".join(map(ast.unparse, nodes)), space)
    return space


def test_there_are_at_least_twelve_exercises_over_all_stages():
    assert len(EXERCISES) >= 12
    assert {exercise.stage[:2] for exercise in EXERCISES} == {f"0{i}" for i in range(7)}
    assert len({exercise.function for exercise in EXERCISES}) == len(EXERCISES)
    numbers = [exercise.id for exercise in EXERCISES]
    assert numbers == sorted(set(numbers))


@each_exercise
def test_an_exercise_has_a_task_of_a_few_lines_and_a_stub_that_says_what_to_do(exercise):
    task = cells_of(exercise)[0].source
    assert len(task.split()) > 40
    assert 5 <= exercise.minutes <= 30
    assert 1 <= exercise.difficulty <= 5
    assert 1 <= exercise.importance <= 5
    assert re.search(r'raise NotImplementedError\(\s*"[^"]{15,}', tagged(exercise, "stub"))
    width = max(len(line) for c in cells_of(exercise) if c.cell_type == "code"
                for line in c.source.splitlines())  # fmt: skip
    assert width <= 84, "a page clips longer lines of code"


@each_exercise
def test_the_stub_fails_its_check_with_its_own_sentence(exercise):
    space = imported(exercise)
    run_cell(tagged(exercise, "stub"), space)
    told = re.search(r'NotImplementedError\("(.*)"\)', tagged(exercise, "stub"))[1]
    with pytest.raises(outcome.NotWritten) as failure:
        run_cell(tagged(exercise, "check"), space)
    assert str(failure.value) == f"{exercise.function} is not written yet: {told}"


@each_exercise
def test_the_solution_passes_its_check_and_needs_only_what_the_page_imports(
    exercise, tmp_path, monkeypatch
):
    (tmp_path / "00_copy.ipynb").touch()
    monkeypatch.chdir(tmp_path)
    space = imported(exercise)
    run_cell(tagged(exercise, "solution"), space)
    passed = run_cell(tagged(exercise, "check"), space)
    assert isinstance(passed, outcome.Passed)
    assert repr(passed).startswith(f"{exercise.function} is right")
    assert list(json.loads((tmp_path / "progress.json").read_text())) == [exercise.id]


@each_exercise
def test_on_a_page_of_the_book_the_solution_is_folded_and_nothing_else(exercise):
    page = nbformat.from_dict(STAGES[exercise.stage].notebook)
    fold_solutions(page)
    cells = [page.cells[i] for i in exercise.cells]
    folded = [cell for cell in cells if has_tag(cell, "hide-cell")]
    assert folded == [cell for cell in cells if has_tag(cell, "solution")]
    assert folded[0].metadata["mystnb"]["code_prompt_show"] == "Show the solution"


@pytest.mark.parametrize("stage", sorted({exercise.stage for exercise in EXERCISES}))
def test_exercises_stand_before_the_limits_and_change_no_name_of_the_page(stage):
    cells = STAGES[stage].notebook.cells
    prose = [cell.source if cell.cell_type == "markdown" else "" for cell in cells]
    section = next(i for i, text in enumerate(prose) if text.startswith("## Exercises"))
    limits = next(i for i, text in enumerate(prose) if text.startswith("## What this does not"))
    own = {i for exercise in stage_exercises(STAGES[stage]) for i in exercise.cells}
    assert own | {section, section + 1} == set(range(section, limits))
    assert names_bound(cells[:section]) & names_bound(cells[section:limits]) == set()


def names_bound(cells) -> set[str]:
    """What code cells define at their top, imports aside."""
    source = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    symbols = symtable.symtable(source, "cells", "exec").get_symbols()
    return {s.get_name() for s in symbols if s.is_assigned() and not s.is_imported()}


def test_the_plan_gives_each_exercise_its_minutes_and_ends_after_three_hours():
    plan = (ROOT / "book" / "teach" / "workshop.md").read_text()
    minutes = {exercise.id: exercise.minutes for exercise in EXERCISES}
    rows = re.findall(r"(?m)^\| (\d):(\d\d) \| (\d+) \| .* \| ([\d., ]*) ?\|$", plan)
    clock = 0
    for hour, minute, lasts, asked in rows:
        assert clock == 60 * int(hour) + int(minute)
        clock += int(lasts)
        needed = sum(minutes[number] for number in asked.replace(" ", "").split(",") if number)
        assert needed <= int(lasts), f"the round at {hour}:{minute} asks for {needed} minutes"
    assert clock == 180


SOURCE = """# %% tags=["parameters"]
run_dir = "runs/default"

# %% [markdown]
# ### Exercise 3.1: A sum
#
# Difficulty ●●○○○, importance ●○○○○, 10 minutes

# %% tags=["stub"]
def total(numbers):
    raise NotImplementedError("add them")

# %% [markdown]
# ```{admonition} Hint
# :class: dropdown
# Add.
# ```

# %% tags=["solution"]
def total(numbers):
    return sum(numbers)

# %% tags=["check"]
total([1])

# %% [markdown]
# **What you should see.** One.
#
# **Comprehension.** Why?
#
# ```{admonition} Answer
# :class: dropdown
# Because.
# ```

# %% [markdown]
# ## What this does not show
"""


def read(folder: Path, source: str):
    path = folder / "03_sums.py"
    path.write_text(source)
    return list(stage_exercises(load_stage(path)))


def test_an_exercise_is_read_with_its_facts(tmp_path):
    (exercise,) = read(tmp_path, SOURCE)
    assert (exercise.id, exercise.title, exercise.function) == ("3.1", "A sum", "total")
    assert (exercise.difficulty, exercise.importance, exercise.minutes) == (2, 1, 10)
    assert exercise.dots("difficulty") == "●●○○○"
    assert exercise.anchor == "exercise-31-a-sum"
    assert exercise.cells == range(1, 7)


@pytest.mark.parametrize(
    ("there", "instead", "told"),
    [
        ("●●○○○,", "●●,", "needs a line such as: Difficulty"),
        ("# ### Exercise 3.1", "# ### Exercise 4.1", "the first number must be the stage's"),
        ('["stub"]', '["sketch"]', "needs one code cell tagged `stub`"),
        ('["check"]', '["solution"]', "needs one code cell tagged `solution`"),
        ("} Hint", "} Help", "lacks .*Hint"),
        ("**Comprehension.**", "Why.", "lacks .*Comprehension"),
        ("def total(numbers):\n    return", "def sum_up(numbers):\n    return", "the same one"),
    ],
)
def test_an_exercise_that_lacks_a_part_is_refused_by_name(tmp_path, there, instead, told):
    with pytest.raises(ExerciseError, match=f"03_sums.py, exercise ..1.*{told}"):
        read(tmp_path, SOURCE.replace(there, instead))


def test_a_failed_check_is_one_line_in_a_notebook():
    shell = InteractiveShell.instance()
    shown = []
    shell._showtraceback = lambda kind, value, lines: shown.extend(lines)
    imported = "from r2a_utils.teaching.checks.outcome import CheckFailed"
    shell.run_cell(f"{imported}\nraise CheckFailed('off by one')")
    InteractiveShell.clear_instance()
    assert shown == ["off by one"]


def test_an_error_in_the_participants_function_is_told_with_its_line():
    source = "def halve(n):\n    half = n / 0\n    return half\n"
    space = {}
    run_cell(source, space)
    with pytest.raises(outcome.CheckFailed) as failure:
        outcome.called(space["halve"], 4)
    told = "halve raised ZeroDivisionError: division by zero (line 2 of its cell: `half = n / 0`)"
    assert str(failure.value) == told


def test_a_function_without_return_is_told_so():
    with pytest.raises(outcome.CheckFailed, match="nothing returned None: does it end in"):
        outcome.called(lambda_named("nothing", lambda: None))


def lambda_named(name, function):
    function.__name__ = name
    return function


@pytest.mark.parametrize(
    ("found", "told"),
    [
        ([1.0, 2.0, 3.5], r"f gives 3.5 at index \(2,\) where 3 is right \(three\)\."),
        ([1.0, 2.0], r"f returned the shape \(2,\) where the shape \(3,\) is needed \(three\)\."),
        (6.0, "f: you added them up."),
        ([1.0, 2.0, float("nan")], r"f returned NaN or infinity \(three\)\."),
        ("abc", "f returned str, where numbers are needed"),
    ],
)
def test_a_result_is_compared_and_a_known_mistake_named(found, told):
    def f():
        """The participant's."""

    with pytest.raises(outcome.CheckFailed, match=told):
        outcome.compare(f, found, [1, 2, 3], {"you added them up": 6}, case="three")
    outcome.compare(f, (1, 2, 3 + 1e-6), [1, 2, 3], {})
