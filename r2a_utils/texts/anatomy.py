"""The anatomy of one trace: an example worth looking at, its segments and sentences as tables.

This file knows what the first page shows of a trace. It knows no model and measures nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd
from transformers import PreTrainedTokenizerBase

from r2a_utils.texts.completions import Completion
from r2a_utils.texts.problem import Problem
from r2a_utils.texts.tags import R1_TAGS, Tags
from r2a_utils.texts.trace import Trace, cues, sentences


@dataclass(frozen=True)
class Anatomy:
    """What the book quotes of one trace, in tokens but for sentences and cues."""

    problem_id: str
    tokens: int
    reasoning_tokens: int
    answer_tokens: int
    sentences: int
    cues: int


def problems_of_steps(problems: Iterable[Problem], steps: int = 4) -> list[Problem]:
    """Those that need at least so many steps, or do not say in a number how many. Stage 00."""
    needed = ((problem, problem.meta.get("steps")) for problem in problems)
    return [p for p, n in needed if not isinstance(n, int | float) or n >= steps]


def telling_trace(
    completions: Iterable[Completion],
    tokenizer: PreTrainedTokenizerBase,
    word: str = "wait",
    tags: Tags = R1_TAGS,
) -> Trace:
    """The first trace in which the cue `word` stands, or else the first that is well formed.

    Raises ValueError, with what is wrong with the first completion, where none is. Stage 00.
    """
    traces, fault = [], "there are no completions"
    for completion in completions:
        try:
            traces.append(completion.to_trace(tokenizer, tags=tags))
        except ValueError as error:
            fault = fault if "trace" in fault else str(error)
    if not traces:
        raise ValueError(f"no trace is whole: {fault}")
    return next((t for t in traces if any(cue.word == word for cue in cues(t))), traces[0])


def segment_table(trace: Trace, characters: int = 72) -> pd.DataFrame:
    """A row a segment: its number of tokens, and the beginning of its text. Stage 00."""
    texts = [trace.segment_text(s).replace("\n", "⏎")[:characters] for s in trace.segments]
    counts = [len(trace.tokens[span]) for span in trace.segments.values()]
    return pd.DataFrame(
        {"tokens": counts, "text": texts}, index=pd.Index(list(trace.segments), name="segment")
    )


def sentence_table(trace: Trace) -> pd.DataFrame:
    """A row a sentence of the reasoning: first and last token, text, and its cues. Stage 00."""
    found = cues(trace)
    rows = [
        (
            f"{s.start}–{s.stop - 1}",
            "".join(trace.tokens[s]).strip(),
            ", ".join(cue.word for cue in found if s.start <= cue.position < s.stop),
        )
        for s in sentences(trace)
    ]
    return pd.DataFrame(rows, columns=["tokens", "sentence", "cue"])


def anatomy_of(trace: Trace) -> Anatomy:
    """The numbers of a trace that stage 00 quotes."""
    return Anatomy(
        problem_id=trace.problem_id,
        tokens=len(trace),
        reasoning_tokens=len(trace.tokens[trace.segments["reasoning"]]),
        answer_tokens=len(trace.tokens[trace.segments["answer"]]),
        sentences=len(sentences(trace)),
        cues=len(cues(trace)),
    )
