"""The prose of executed notebooks: today's where the code is, else what they ran with."""

from __future__ import annotations

from copy import deepcopy

import nbformat
import pytest

from r2a_utils.runs.prose import in_todays_words
from r2a_utils.runs.stage import load_stage

SOURCE = """\
# %% [markdown]
# Old words.

# %% tags=["parameters"]
run_dir = "runs/default"
n = 3

# %%
print(n)

# %% [markdown]
# More words.

# %%
n + 1
"""


@pytest.fixture
def stage(tmp_path):
    path = tmp_path / "01_count.py"
    path.write_text(SOURCE.replace("Old", "New"))
    return load_stage(path)


@pytest.fixture
def executed(tmp_path):
    path = tmp_path / "01_old.py"
    path.write_text(SOURCE)
    page = nbformat.from_dict(deepcopy(load_stage(path).notebook))
    page.cells[1].source = 'run_dir = "runs/mine"\nn = 4'
    page.cells[2].outputs = [nbformat.v4.new_output("stream", text="4\n")]
    return page


def sources(page) -> list[str]:
    return [cell.source for cell in page.cells]


def test_a_sentence_is_mended_and_values_and_outputs_stay(stage, executed):
    page = in_todays_words(stage, executed)
    assert sources(page) == ["New words.", *sources(executed)[1:]]
    assert page.cells[2].outputs[0].text == "4\n"
    assert in_todays_words(stage, page) == page
    nbformat.validate(page)


@pytest.mark.parametrize("place", [2, 4])
def test_other_code_keeps_its_own_prose(stage, executed, place):
    executed.cells[place].source = "print(n + 1)"
    assert sources(in_todays_words(stage, executed))[0] == "Old words."
    del executed.cells[place]
    assert sources(in_todays_words(stage, executed))[0] == "Old words."


def test_what_ended_early_has_prose_up_to_its_end(stage, executed):
    del executed.cells[3:]
    assert sources(in_todays_words(stage, executed))[0] == "Old words."
    executed.metadata["r2a"] = {"ended": "nothing to count"}
    page = in_todays_words(stage, executed)
    assert sources(page) == ["New words.", *sources(executed)[1:]]
