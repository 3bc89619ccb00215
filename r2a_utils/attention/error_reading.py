"""Debugging a wrong answer: which sentence of the reasoning was read when it was written?

A trace is debugged by what the query that writes its boxed answer reads, sentence by sentence. Over
many failed traces the question is how often the sentence that is read most is the one with the
first error. Whether a sentence is wrong is known for the bundled world only (`tiny.review`). Shown
in stage 04c.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float, Real
from scipy import stats

from r2a_utils.attention.logit_attribution import head_contributions
from r2a_utils.attention.weights import attention_rows
from r2a_utils.models.loading import ReasoningModel
from r2a_utils.stats import wilson_interval
from r2a_utils.texts.trace import Trace, answer_span, sentences
from r2a_utils.tiny.review import review


def answer_read(
    model: ReasoningModel, trace: Trace, heads: Sequence[tuple[int, int]]
) -> Float[np.ndarray, " token"]:
    """What the heads read, on average, where the boxed answer's first token is written: [token].

    Raises ValueError for a trace without a box.
    """
    write = answer_span(trace).start
    rows = attention_rows(model, trace, heads, slice(write - 1, write))
    return rows.mean(["head", "query"]).values


def answer_contribution(
    model: ReasoningModel, trace: Trace, heads: Sequence[tuple[int, int]]
) -> Float[np.ndarray, " token"]:
    """What the heads give, together, to the logit of the boxed answer's first token: [token].

    By the token that is read, in nats (see `logit_attribution.head_contributions`). Raises
    ValueError for a trace without a box.
    """
    writes = [answer_span(trace).start]
    given = head_contributions(model, trace, heads, writes=writes)
    return given.sum(["head", "query"]).values


def sentence_reading(trace: Trace, read: Real[np.ndarray, "*_"]) -> pd.DataFrame:
    """A reading by sentence of the reasoning: columns sentence, start, stop, text, mass, share.

    read: attention or contribution by token [token]. share: of the mass on the reasoning; NaN where
    that is 0.
    Raises ValueError for a reading of another length than the trace.
    """
    read = np.asarray(read, dtype=float)
    if read.shape != (len(trace),):
        raise ValueError(f"trace {trace.problem_id}: {len(trace)} tokens, but read {read.shape}")
    rows = [
        (i, s.start, s.stop, "".join(trace.tokens[s]).strip(), read[s].sum())
        for i, s in enumerate(sentences(trace))
    ]
    table = pd.DataFrame(rows, columns=["sentence", "start", "stop", "text", "mass"])
    total = table["mass"].sum()
    return table.assign(share=table["mass"] / total if total else np.nan)


def debugging_table(
    trace: Trace, read: np.ndarray, given: np.ndarray | None, error: slice | None
) -> pd.DataFrame:
    """What was read and what it gave, by sentence: columns text, mass, share, contribution, note.

    read, given: `answer_read` and `answer_contribution` of the trace; without the latter there is
    no column contribution. error: its first wrong sentence, where that is known.
    """
    table = sentence_reading(trace, read)
    shown = table[["text", "mass", "share"]]
    if given is not None:
        shown = shown.assign(contribution=sentence_reading(trace, given)["mass"])
    first = table["start"] == (error.start if error else -1)
    return shown.assign(note=np.where(first, "first error", ""))


def nearest_right(trace: Trace, right: Sequence[Trace]) -> Trace:
    """The right trace to show beside a wrong one: of its family and steps, nearest in length.

    A rule instead of a choice by hand. Where no trace of the same kind is right, the nearest in
    length alone.
    Raises ValueError where there is no right trace.
    """
    if not right:
        raise ValueError("no right trace to compare with")
    kind = [trace.meta.get(name) for name in ("family", "steps")]
    alike = [t for t in right if [t.meta.get(name) for name in ("family", "steps")] == kind]
    return min(alike or right, key=lambda other: abs(len(other) - len(trace)))


def error_hits(
    traces: Sequence[Trace],
    errors: Sequence[slice],
    readers: Mapping[str, Sequence[Real[np.ndarray, "*_"]]],
) -> pd.DataFrame:
    """How often the sentence read most is the one that holds the first error, a row a reader.

    errors: the first wrong sentence of each trace. readers: name → a reading [token] a trace.
    Columns reader, n, hits, rate, ci_low, ci_high (Wilson, 95%), chance (mean of 1 / number of
    sentences), p (that blind choices of sentences hit as often or more; exact).
    Raises ValueError for no traces, or not one error for each.
    """
    if not len(traces) == len(errors) > 0:
        raise ValueError(f"need one error a trace and one trace at least: {len(traces)} traces, "
                         f"{len(errors)} errors")  # fmt: skip
    chances = np.array([1 / len(sentences(trace)) for trace in traces])
    rows = []
    for name, reads in readers.items():
        hits = 0
        for trace, error, read in zip(traces, errors, reads, strict=True):
            table = sentence_reading(trace, read)
            top = table.loc[table["mass"].idxmax()]
            hits += top["start"] < error.stop and error.start < top["stop"]
        low, high = wilson_interval(int(hits), len(traces))
        rows.append(
            {
                "reader": name,
                "n": len(traces),
                "hits": int(hits),
                "rate": hits / len(traces),
                "ci_low": low,
                "ci_high": high,
                "chance": chances.mean(),
                "p": float(stats.poisson_binom.sf(int(hits) - 1, chances)),
            }
        )
    return pd.DataFrame(rows)


@dataclass(frozen=True)
class TopSentences:
    """Of the sentences read most, one a trace: shares of the traces.

    at_end: it is one of the last two of the reasoning, where the conclusion of a failed trace is
    wrong by definition. So it is asked of the `earlier_n` others alone whether they are wrong
    (earlier_wrong), beside the share of wrong ones among all sentences before the last two of
    those traces (earlier_by_chance); None without one.
    """

    at_end: float
    earlier_n: int
    earlier_wrong: float | None
    earlier_by_chance: float | None


def top_sentences(traces: Sequence[Trace], reads: Sequence[Real[np.ndarray, "*_"]]) -> TopSentences:
    """Where the sentence read most stands, and whether it is wrong, over traces of the bundled
    world, whose statements are known (`tiny.review`).
    """
    earlier = []
    for trace, read in zip(traces, reads, strict=True):
        spans = sentences(trace)
        best = int(np.argmax([read[span].sum() for span in spans]))
        wrong = [not statement.right for statement in review(trace)][:-2]
        if best < len(wrong):
            earlier.append((wrong[best], np.mean(wrong)))
    shares = np.mean(earlier, axis=0).tolist() if earlier else (None, None)
    return TopSentences(1 - len(earlier) / len(traces), len(earlier), *shares)
