"""What page 02b may and may not say: of a model that follows its reasoning, one that does not, and
one of which nothing is known.
"""

from __future__ import annotations

import re

import pytest

from r2a_utils.publishing.quoted_numbers import render
from r2a_utils.runs.stage import load_stages

PAGE = "02b_edited_thoughts"
SHARES = {"n": 40, "p": 0.001, "other": 0.0}
HIGH = {"follows": 0.96, "follows_low": 0.85, "follows_high": 0.99}
LOW = {"follows": 0.04, "follows_low": 0.01, "follows_high": 0.15}
KEPT = {"before": 0.96, "before_low": 0.85, "before_high": 0.99}
LOST = {"before": 0.04, "before_low": 0.01, "before_high": 0.15}
NO_HINTS = {"n": 0, "arms": {}, "followed_by_hint": [], "judge": None}


def record(verdict: str, swapped: dict, more: list[str]) -> dict:
    """A record of 40 thoughts; mistakes in an earlier step change nothing and have no rule."""
    edits = ("reworded", "dots", "empty", "shuffled", "conclusion removed")
    swap = {"n": 23, "reasoning": 0.9, "reasoning_low": None, "question": 0.1, "question_low": None}
    return {
        "n": 40,
        "verdict": verdict,
        "edits": {edit: {"same": 0.5} for edit in edits},
        "more_than_harmless": more,
        "outcomes": {
            "swapped": SHARES | swapped,
            "kept_earlier": SHARES | KEPT | {"follows": None},
            "written_on_earlier": SHARES | KEPT | {"follows": None},
        },
        "swap": swap,
        "removed": {"n": 0},
        "not_removed": {"n": 0},
    }


def prose(told: dict, hints: dict = NO_HINTS) -> str:
    """The page's text with these records, in one line."""
    cells = load_stages()[PAGE].notebook.cells
    text = "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    records = {"text_tests": told, "hints": hints, "model": {"name": "m"}}
    run = {"id": "default", "records": records}
    return re.sub(r"\s+", " ", render(text, PAGE, run, {}))


FOLLOWS = "The answer follows the text of the reasoning"
NEAR_END = "it takes what stands near the end"


def test_a_model_that_follows_its_reasoning_is_said_to():
    told = prose(record("reasoning", HIGH | LOST, ["dots", "empty"]))
    assert told.startswith(
        "# Stage 1: does the answer follow the text? The answer follows the text"
    )
    assert f"{FOLLOWS}: put after the question of a similar problem, a thought decides 96 %" in told
    assert "4 % stay as they were (n = 23 pairs)" in told
    assert "These change more answers than the harmless edit: dots; empty." in told
    assert NEAR_END in told and "propagate" not in told  # no rule says where the mistake leads


@pytest.mark.parametrize("verdict", ["question", "neither"])
def test_a_model_that_does_not_is_not(verdict):
    told = prose(record(verdict, LOW | KEPT, []))
    assert f"{FOLLOWS}:" not in told and NEAR_END not in told
    assert ("does not follow the text" in told) == (verdict == "question")
    assert ("Neither the reasoning nor the question" in told) == (verdict == "neither")
    assert "No edit changes more answers than the harmless one" in told


def test_where_nothing_was_edited_the_page_says_so_and_no_more():
    told = prose({"n": 0, "verdict": "neither", "outcomes": {}})
    assert "no {term}`trace` with a boxed answer" in told
    assert FOLLOWS not in told and NEAR_END not in told and "%" not in told
    assert "Hints need 2 problems" in told


def test_problems_that_cannot_be_paired_are_no_finding():
    told = record("neither", LOW | KEPT, [])
    del told["outcomes"]["swapped"]
    assert "no thought could be swapped" in prose(told) and FOLLOWS not in prose(told)


def test_a_hint_that_is_not_followed_is_not_said_to_be():
    arm = {"right": 0.9, "followed": 0.0, "followed_low": 0.0, "followed_high": 0.1,
           "n_followed": 0, "said_followed": None, "judged": None, "p": None}  # fmt: skip
    key = arm | {
        "followed": 0.5,
        "n_followed": 20,
        "said_followed": 0.25,
        "judged": 0.5,
        "p": 0.001,
    }
    hints = {"n": 40, "arms": {"no hint": arm, "a leaked key": arm | {"p": 1.0}}, "judge": None}
    told = record("reasoning", HIGH | LOST, [])
    quiet = prose(told, hints | {"followed_by_hint": []})
    assert "No hint is followed more often" in quiet and "says so" not in quiet.split("A leaked")[1]
    hints["arms"]["a leaked key"] = key
    loud = prose(told, hints | {"followed_by_hint": ["a leaked key"]})
    assert (
        "This hint is followed more often than its answer is given without it: a leaked key."
        in loud
    )
    assert "the thought says so in 5 of 20 cases (10 by the judge); right in 90 %" in loud
