"""Is it one list of heads? The ranking among kinds of traces, and where the answer is written.

A list of Reasoning-Focus Heads comes from all traces and from all tokens of the answer. Here the
same heads are ranked on traces of one length, one family, one form of answer, and by the tokens
alone that write the boxed answer. Shown in stage 04.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from scipy import stats

from r2a_utils.attention.heads import Masses, answer_mass, attending, uniform_mass
from r2a_utils.attention.mass import token_set_mass
from r2a_utils.attention.trajectories import has_long_answer
from r2a_utils.models.loading import ReasoningModel
from r2a_utils.texts.trace import Trace, answer_span

FEWEST_OF_KIND = 2
"""Traces, in a kind and outside it, below which a mean over them would be a single one."""
MOST_FAMILIES = 8


def kinds_of_traces(traces: Sequence[Trace]) -> dict[str, Bool[np.ndarray, " trace"]]:
    """Which traces are of a kind: thirds by the reasoning's length, families, long answers or not.

    A family is the entry of that name in the problem's `meta`. Kinds of fewer than
    `FEWEST_OF_KIND` traces, or with fewer outside, are left out.
    """
    lengths = np.array(
        [t.segments["reasoning"].stop - t.segments["reasoning"].start for t in traces]
    )
    kinds = {}
    for third in np.array_split(np.argsort(lengths, kind="stable"), 3):
        if len(third):
            name = f"reasoning of {lengths[third].min()} to {lengths[third].max()} tokens"
            kinds[name] = np.isin(np.arange(len(traces)), third)
    families = np.array([str(trace.meta.get("family", "")) for trace in traces])
    if len(set(families)) <= MOST_FAMILIES:
        kinds |= {f"family {name}": families == name for name in sorted(set(families) - {""})}
    long = np.array([has_long_answer(trace) for trace in traces], dtype=bool)
    kinds |= {"long answers": long, "short answers": ~long}
    return {
        name: kind
        for name, kind in kinds.items()
        if min(kind.sum(), (~kind).sum()) >= FEWEST_OF_KIND
    }


def ranking_across(
    mass: Masses, kinds: Mapping[str, Bool[np.ndarray, " trace"]], k: int = 10
) -> pd.DataFrame:
    """The ranking among traces of a kind, against that of all others: a row a kind.

    kinds: `kinds_of_traces`. Columns kind, n, uniform (mean null), mass (mean over heads), spearman
    (of the heads' masses with those of all other traces), shared (how many of the kind's top k are
    in the top k of all others).
    """
    reading, null = attending(answer_mass(mass, "reasoning")), uniform_mass(mass).values
    rows = [
        {
            "kind": name,
            "n": int(kind.sum()),
            "uniform": null[kind].mean(),
            "mass": reading[kind].mean(),
            **_likeness(reading[kind], reading[~kind], k),
        }
        for name, kind in kinds.items()
    ]
    columns = ["kind", "n", "uniform", "mass", "spearman", "shared"]
    return pd.DataFrame(rows, columns=columns)


def ranking_where_written(
    model: ReasoningModel, mass: Masses, traces: Sequence[Trace], k: int = 10
) -> dict[str, float]:
    """The ranking by the tokens that write the boxed answer, against that by the whole answer.

    mass: segment masses of these traces. n (traces with a box), mass (mean over heads), spearman
    and shared as in `ranking_across`; empty where no trace has a box. The writing token is the one
    before each token of the box's content.
    """
    spans = [_boxed(trace) for trace in traces]
    boxed = np.array([span is not None for span in spans])
    if not boxed.any():
        return {}
    chosen = [trace for trace, span in zip(traces, spans, strict=True) if span]
    queries = [slice(span.start - 1, span.stop - 1) for span in spans if span]
    sets = [{"reasoning": trace.segments["reasoning"]} for trace in chosen]
    found = token_set_mass(model, chosen, sets, queries=queries)
    writing = attending(found.sel(token_set="reasoning").values.astype(np.float64))
    whole = attending(answer_mass(mass, "reasoning")[boxed])
    return {"n": len(chosen), "mass": writing.mean(), **_likeness(writing, whole, k)}


@dataclass(frozen=True)
class HeadLists:
    """Of the top k heads, how many stay the same elsewhere.

    least_kind: the kind of traces that shares the fewest (least_shared) with all other traces, and
    its rank correlation; None where the traces have no kinds. written_shared and written_spearman:
    of the ranking by the tokens that write the answer alone; None where no answer has a box.
    """

    k: int
    least_kind: str | None = None
    least_shared: int | None = None
    least_spearman: float | None = None
    written_shared: int | None = None
    written_spearman: float | None = None


def summarise_lists(across: pd.DataFrame, written: Mapping[str, float], k: int) -> HeadLists:
    """Sum up `ranking_across` and `ranking_where_written`."""
    least = {}
    if len(across):
        row = across.loc[across["shared"].idxmin()]
        least = {
            "least_kind": row["kind"],
            "least_shared": int(row["shared"]),
            "least_spearman": row["spearman"],
        }
    if written:
        least |= {f"written_{name}": written[name] for name in ("shared", "spearman")}
    return HeadLists(k, **least)


def _likeness(
    some: Float[np.ndarray, "some layer head"],
    others: Float[np.ndarray, "others layer head"],
    k: int,
) -> dict[str, float]:
    """How alike two sets of readings rank the heads."""
    inside, outside = (reading.mean(axis=0).ravel() for reading in (some, others))
    shared = set(np.argsort(-inside)[:k]) & set(np.argsort(-outside)[:k])
    return {"spearman": stats.spearmanr(inside, outside).statistic, "shared": len(shared)}


def _boxed(trace: Trace) -> slice | None:
    try:
        return answer_span(trace)
    except ValueError:
        return None
