"""The authors' greedy traces on MATH-500, for another model to read (teacher forcing).

They come from the folder of the authors' data (R2A_PAPER_DATA), 100 problems a model. This file
knows them as problems and as completions; `artefacts.load_traces` knows their table.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from r2a_utils.paper import artefacts
from r2a_utils.texts.tags import R1_TAGS

TRACED = {"R1-Qwen-1.5B": "qwen-1p5B", "R1-Qwen-7B": "qwen-7B"}
"""The distills whose traces are there, and the authors' short names for them."""

# Where the prompt ends and the completion begins, as `render_prompt` writes them.
_PROMPT_ENDS = {
    "with_reasoning": R1_TAGS.open + R1_TAGS.after_open,
    "without_reasoning": R1_TAGS.close + R1_TAGS.after_close,
}


def traced_problems(name: str, folder: str | Path | None = None) -> list[dict]:
    """The problems of one distill's traces, as rows of MATH-500: unique_id, problem, answer, …"""
    traces = _traces(name, folder).query("condition == 'with_reasoning'")
    rows = traces.rename(columns={"problem_id": "unique_id"}).drop(columns="response")
    return rows.to_dict("records")


def paper_writer(name: str, folder: str | Path | None = None) -> Callable[..., str]:
    """`write(problem, condition)`: what the distill wrote after that prompt, without the end token.

    KeyError for a problem of which there is no trace.
    """
    traces = _traces(name, folder)
    responses = traces.set_index(["problem_id", "condition"])["response"].to_dict()

    def write(problem, condition: str) -> str:
        _, _, completion = responses[problem.id, condition].partition(_PROMPT_ENDS[condition])
        return completion.removesuffix(artefacts.END_OF_SENTENCE)

    return write


def _traces(name: str, folder: str | Path | None):
    traces = artefacts.load_traces(folder)
    return traces[traces["model_alias"] == TRACED[name]]
