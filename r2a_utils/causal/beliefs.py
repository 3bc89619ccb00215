"""Beliefs: when does the model know its answer, and when does its text say so?

The answer is the one that a trace ends in. After a share of the reasoning it is foretold in four
ways: by a linear probe of the state there (Boppana et al. 2026, arXiv:2603.05488), by forcing the
answer there (`answers/early_answering.py`), and by two monitors that read nothing but the text up
to there: the last possible answer that it names, and the same regression on how often each token
stands in it. Problems are the folds: what foretells a trace's answer has learnt on other problems
alone, and the probe's layer is chosen among those. A state may hold what the text says in words
that neither monitor understands; a probe that beats them both need not know what no reader could.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from sklearn.model_selection import GroupKFold

from r2a_utils.answers.early_answering import FRACTIONS, kept_sentences
from r2a_utils.answers.equality import same_answer
from r2a_utils.causal.answer_probes import best_layer, probe
from r2a_utils.engine.forward import run_with_cache
from r2a_utils.models.loading import ReasoningModel
from r2a_utils.stats import CONFIDENCE, bootstrap_interval, share_interval
from r2a_utils.texts.boxed import extract_answer
from r2a_utils.texts.trace import Trace, answer_span, sentences

PROBE, FORCED, NAMED, WORDS, COMMON = (
    "probe of the state",
    "forced answer",
    "last one named in the text",
    "words of the text",
    "most frequent answer",
)
READERS = (PROBE, FORCED, NAMED, WORDS, COMMON)
"""What foretells the answer; the last is what needs no trace at all."""
MONITORS = (NAMED, WORDS)
FOLDS = 5
FEWEST_EACH, FEWEST = 5, 20
"""Problems that an answer must be given to, and problems in all, below which nothing is probed."""

Vectors = Float[np.ndarray, "trace _width"]
Labels = Int[np.ndarray, " trace"]


def beliefs(
    model: ReasoningModel, traces: Sequence[Trace], early: pd.DataFrame, seed: int = 0
) -> pd.DataFrame:
    """Whether each reader foretells the answer of each trace after a share of its reasoning.

    `early` is the frame of `early_answers` for some of the traces; those are asked, and all are
    learnt from. An answer is its first token; traces without a box, and those whose answer fewer
    than `FEWEST_EACH` problems have, are left out. Columns problem_id, sample, family, fraction,
    reader and right. Without rows where fewer than `FEWEST` problems or two answers are left.
    """
    kept = _frequent([trace for trace in traces if extract_answer(trace.answer_text) is not None])
    rows = []
    names = [_answer(trace) for trace in kept]
    if len({trace.problem_id for trace in kept}) >= FEWEST and len(set(names)) > 1:
        labels, classes = pd.factorize(np.array(names))
        states = _states(model, kept)
        forced = early.set_index(["problem_id", "sample", "fraction"])["answer"]
        asked = [(trace.problem_id, trace.sample) in forced.index.droplevel(2) for trace in kept]
        for i, fraction in enumerate(FRACTIONS):
            counts = _token_counts(kept, fraction)
            told = _foretold(states[:, :, i], counts, labels, asked, kept, seed)
            named = [_last_named(trace, fraction, classes.tolist()) for trace in kept]
            for j in np.flatnonzero(asked):
                trace = kept[j]
                key = (trace.problem_id, trace.sample, fraction)
                answer = forced.get(key)
                answer = None if pd.isna(answer) else answer
                right = {
                    PROBE: told[PROBE][j] == labels[j],
                    FORCED: same_answer(answer, extract_answer(trace.answer_text)),
                    NAMED: named[j] == names[j],
                    WORDS: told[WORDS][j] == labels[j],
                    COMMON: told[COMMON][j] == labels[j],
                }
                family = trace.meta.get("family", "problems")
                rows += [
                    (trace.problem_id, trace.sample, family, fraction, reader, bool(right[reader]))
                    for reader in READERS
                ]
    columns = ["problem_id", "sample", "family", "fraction", "reader", "right"]
    return pd.DataFrame(rows, columns=columns)


def belief_curves(found: pd.DataFrame, confidence: float = CONFIDENCE) -> pd.DataFrame:
    """Share foretold by family, reader and fraction, with intervals; the unit is the problem.

    `found` is of `beliefs`. Columns family, reader, fraction, n, value, ci_low, ci_high.
    """
    rows = []
    for (family, reader, fraction), part in found.groupby(
        ["family", "reader", "fraction"], sort=False
    ):
        shares = part.groupby("problem_id")["right"].mean()
        low, high = share_interval(shares, confidence)
        row = {"family": family, "reader": reader, "fraction": fraction, "n": len(shares)}
        rows.append(row | {"value": shares.mean(), "ci_low": low, "ci_high": high})
    columns = ["family", "reader", "fraction", "n", "value", "ci_low", "ci_high"]
    return pd.DataFrame(rows, columns=columns)


@dataclass(frozen=True)
class Lead:
    """After which share of the reasoning the probe is most ahead of the better monitor.

    Shares of problems; `lead` (low to high, corrected for all fractions and families that were
    looked at) is the mean over problems of the probe less the monitor that is better there.
    """

    family: str
    n: int
    fraction: float
    probe: float
    forced: float
    monitor: float
    lead: float
    low: float
    high: float

    @property
    def ahead(self) -> bool:
        """Whether the probe foretells what neither reader of the text does."""
        return self.low > 0


def belief_record(found: pd.DataFrame, confidence: float = CONFIDENCE, seed: int = 0) -> dict:
    """What the prose quotes of `beliefs`: the probe's largest lead by family, ends of the curves.

    `n` problems were asked. `leads` are as `Lead` with `ahead`; `ends` has for each family and
    reader the share before any and after all of the reasoning.
    """
    families = list(dict.fromkeys(found["family"]))
    looks = max(len(families) * found["fraction"].nunique(), 1)
    leads, ends = [], []
    for family in families:
        of = found[found["family"] == family]
        table = of.pivot_table("right", ["fraction", "problem_id"], "reader", aggfunc="mean")
        if table.index.get_level_values("problem_id").nunique() < 2:
            continue
        best = max(
            (_lead(family, fraction, part, 1 - (1 - confidence) / looks, seed)
             for fraction, part in table.groupby("fraction")),
            key=lambda lead: (lead.low, lead.lead),
        )  # fmt: skip
        leads.append({**vars(best), "ahead": best.ahead})
        means = table.groupby("fraction").mean()
        ends.append({"family": family, "first": means.iloc[0].to_dict()})
        ends[-1]["last"] = means.iloc[-1].to_dict()
    return {"n": found["problem_id"].nunique(), "leads": leads, "ends": ends}


def _lead(family: str, fraction: float, part: pd.DataFrame, confidence: float, seed: int) -> Lead:
    better = max(MONITORS, key=lambda name: part[name].mean())
    low, high = bootstrap_interval(part[PROBE] - part[better], confidence, seed)
    shares = (float(part[name].mean()) for name in (PROBE, FORCED, better))
    lead = float((part[PROBE] - part[better]).mean())
    return Lead(family, len(part), float(fraction), *shares, lead, low, high)


def _foretold(
    states: Float[np.ndarray, "layer trace width"],
    counts: Vectors,
    labels: Labels,
    asked: Sequence[bool],
    traces: Sequence[Trace],
    seed: int,
) -> dict[str, Labels]:
    """What probe, words and the commonest answer say of the asked traces of every fold."""
    told = {name: np.full(len(labels), -1) for name in (PROBE, WORDS, COMMON)}
    problems = np.array([trace.problem_id for trace in traces])
    folds = GroupKFold(FOLDS, shuffle=True, random_state=seed)
    for known, other in folds.split(labels, groups=problems):
        new = other[np.array(asked)[other]]
        if not len(new):
            continue
        layer = best_layer(states[:, known], labels[known], problems[known].tolist(), seed)
        told[PROBE][new] = probe(states[layer, known], labels[known], states[layer, new])
        told[WORDS][new] = probe(counts[known], labels[known], counts[new])
        told[COMMON][new] = np.bincount(labels[known]).argmax()
    return told


def _frequent(traces: Sequence[Trace]) -> list[Trace]:
    pairs = {(_answer(trace), trace.problem_id) for trace in traces}
    problems = pd.Series([answer for answer, _ in pairs], dtype=object).value_counts()
    return [trace for trace in traces if problems[_answer(trace)] >= FEWEST_EACH]


def _states(
    model: ReasoningModel, traces: Sequence[Trace]
) -> Float[np.ndarray, "layer trace fraction width"]:
    """The residual stream before each layer, and before the final norm, where a share ends."""
    found = []
    for trace in traces:
        places = [_stop(trace, fraction) - 1 for fraction in FRACTIONS]
        cache = run_with_cache(model, trace.token_ids[: places[-1] + 1], ("resid",))
        found.append([layer[places].float().cpu().numpy() for layer in cache.activations["resid"]])
    return np.array(found, dtype=np.float32).swapaxes(0, 1)


def _stop(trace: Trace, fraction: float) -> int:
    """Where the kept share of the reasoning ends; of none, where the prompt does."""
    parts = sentences(trace)
    kept = kept_sentences(fraction, len(parts))
    return parts[kept - 1].stop if kept else parts[0].start


def _token_counts(traces: Sequence[Trace], fraction: float) -> Vectors:
    ids = sorted({i for trace in traces for i in trace.token_ids[: _stop(trace, fraction)]})
    column = {token: i for i, token in enumerate(ids)}
    counts = np.zeros((len(traces), len(ids)))
    for row, trace in zip(counts, traces, strict=True):
        for token in trace.token_ids[: _stop(trace, fraction)]:
            row[column[token]] += 1
    return counts


def _last_named(trace: Trace, fraction: float, answers: Sequence[str]) -> str | None:
    """The last of the possible answers that the question or the kept reasoning names."""
    possible = set(answers)
    said = (token.strip() for token in reversed(trace.tokens[: _stop(trace, fraction)]))
    return next((token for token in said if token in possible), None)


def _answer(trace: Trace) -> str:
    return trace.tokens[answer_span(trace).start].strip()
