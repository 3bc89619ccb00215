"""The authors' traces graded anew: where our grader and theirs differ, and who is right.

The traces come from `paper/artefacts.py`. What came of the 400 that have been worked through is in
regrading.json, so that the book can show it without them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from r2a_utils.answers.equality import grade_math
from r2a_utils.paper import (
    CONDITIONS,
    END_OF_SENTENCE,
    MODEL_NAMES,
    load_originals,
    load_traces,
)
from r2a_utils.texts.boxed import extract_answer, final_answer
from r2a_utils.texts.problem import Problem
from r2a_utils.texts.tags import R1_TAGS


@dataclass(frozen=True)
class Regrading:
    """How two graders of the same traces compare.

    `traces` graded twice, the share of `agreement`, how many `disagreements`, and in how many of
    these R2A's grader was found right by hand (`r2a_right`).
    """

    traces: int
    agreement: float
    disagreements: int
    r2a_right: int


def reviewed_grades() -> dict:
    """What came of grading the authors' 400 traces again: counts, and the 13 disagreements.

    Comes with the package, so that the book can show it; `grading_disagreements` finds the same
    from the traces themselves. Stage 1.
    """
    return json.loads(Path(__file__).with_name("regrading.json").read_text(encoding="utf-8"))


def regraded_traces(folder: str | Path | None = None) -> pd.DataFrame:
    """`load_traces` with what `grade_math` makes of each: the columns final_answer and correct.

    Raises FileNotFoundError where the authors' data is not there.
    """
    traces = load_traces(folder)
    answers = traces["response"].map(response_answer)
    correct = [grade_math(*pair) for pair in zip(answers, traces["answer"], strict=True)]
    return traces.assign(final_answer=answers.map(final_answer), correct=correct)


def grading_disagreements(folder: str | Path | None = None) -> pd.DataFrame:
    """The authors' traces on which `grade_math` and their own grader differ, and who is right.

    Columns problem_id, model, condition, known_answer, final_answer, authors and r2a ("right" or
    "wrong"), and what a reader found who worked each case out by hand: who_is_right, because. A
    case that nobody has looked at is "not reviewed". Raises FileNotFoundError where the authors'
    data is not there.
    """
    traces = regraded_traces(folder)
    traces = traces[traces["correct"] != traces["is_answer_correct"].astype(bool)]
    found = pd.DataFrame(
        {
            "problem_id": traces["problem_id"],
            "model": traces["model_alias"].map(MODEL_NAMES),
            "condition": traces["condition"],
            "known_answer": traces["answer"],
            "final_answer": traces["final_answer"],
            "authors": np.where(traces["is_answer_correct"], "right", "wrong"),
            "r2a": np.where(traces["correct"], "right", "wrong"),
        }
    )
    reviewed = pd.DataFrame(reviewed_grades()["disagreements"])
    table = found.merge(reviewed, how="left", on=list(found))
    return table.fillna({"who_is_right": "not reviewed", "because": ""})


def original_answers(
    folder: str | Path, model_alias: str, problems: list[Problem], greedy: bool = False
) -> pd.DataFrame:
    """The *answers* frame of one model's fetched traces, both conditions, graded by `grade_math`.

    `problems` are MATH-500's. With it, `comparison.py` makes the paper's funnel and comparison
    anew, under either accounting rule. `n_tokens` is missing: the traces are texts. Raises KeyError
    for a trace whose problem is not given.
    """
    conditions = list(CONDITIONS.values())
    frame = pd.concat([load_originals(folder, model_alias, c, greedy) for c in conditions])
    known = {problem.id: problem for problem in problems}
    answers = [
        response_answer(row.response) if row.well_formed else "" for row in frame.itertuples()
    ]
    found = [extract_answer(answer) for answer in answers]
    correct = [
        box is not None and grade_math(answer, known[problem_id].answer)
        for box, answer, problem_id in zip(found, answers, frame["problem_id"], strict=True)
    ]
    meta = pd.DataFrame([known[problem_id].meta for problem_id in frame["problem_id"]])
    frame = frame.reset_index(drop=True).assign(answer=found, correct=correct, n_tokens=np.nan)
    return frame.drop(columns=["problem", "response"]).join(meta)


def response_answer(response: str) -> str:
    """The answer of a whole stored text: what follows its `</think>`, up to the end token."""
    return response.rpartition(R1_TAGS.close)[2].removesuffix(END_OF_SENTENCE)


def regraded_counts() -> pd.DataFrame:
    """Right answers of the authors' 400 traces by model under both graders, as `reviewed_grades`.

    Index model and n; column pairs (authors or regraded, count). Stage 1.
    """
    counts = pd.json_normalize(reviewed_grades()["rows"]).set_index(["model", "n"])
    counts.columns = pd.MultiIndex.from_tuples([tuple(c.split(".")) for c in counts.columns])
    return counts


def reviewed_disagreements() -> list[str]:
    """The cases in which the two graders differ, alike ones together, a line of Markdown each.

    Stage 1.
    """
    alike = ["problem_id", "known_answer", "who_is_right", "because"]
    cases = pd.DataFrame(reviewed_grades()["disagreements"]).value_counts(alike).items()
    return [
        f"- `{problem}`, known answer `{known}`, traces: {n}. {who} is right. {because}"
        for (problem, known, who, because), n in cases
    ]


def regrading_summary() -> Regrading:
    """What the book quotes of `reviewed_grades`. Stage 1."""
    reviewed = reviewed_grades()
    right = [case["who_is_right"] == "R2A" for case in reviewed["disagreements"]]
    return Regrading(
        traces=reviewed["traces"],
        agreement=reviewed["agreeing"] / reviewed["traces"],
        disagreements=len(right),
        r2a_right=sum(right),
    )
