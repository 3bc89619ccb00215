"""Contrast pairs with their two passes: made once, judged by them, and patched with them.

LD = log p(clean answer) - log p(corrupted answer). A pair is worth patching where its two passes
differ in LD: the effect of a patch is measured in units of that gap. This file records a pair,
says which pairs are worth patching (what is left out is counted, never replaced), and what a
transfer from one pass into the other reads and writes. How a patch is run, `patching.py` knows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import pandas as pd
from jaxtyping import Float
from torch import Tensor

from r2a_utils.causal.pairs import ContrastPair, SameAnswerError
from r2a_utils.engine.answer_logprobs import answer_caches, cached_scores, logit_difference
from r2a_utils.engine.patches import COMPONENTS, ActivationCache
from r2a_utils.models.loading import ReasoningModel
from r2a_utils.texts.problem import Problem
from r2a_utils.texts.trace import Trace, answer_span

DIRECTIONS = ("denoising", "noising")

MIN_GAP = 1.0
"""Pairs with |LD_clean - LD_corrupted| below this (in nats: a factor e in the odds) are refused.

The effect divides by the gap, so its noise grows as 1/gap; and a bfloat16 logit near 30 moves in
steps of 0.125, which at a gap of 1 is an effect of 0.1, still readable in a figure.
"""

Caches = dict[tuple[int, ...], ActivationCache]
"""Passes over one sequence, by the part of an answer that follows it (see `answer_caches`)."""


@dataclass(frozen=True, eq=False)
class RecordedPair:
    """A contrast pair, the caches of its two sequences, and the scores of both answers.

    Scores are [answer, (log-probability in nats, rank)], see `engine/answer_logprobs.py`. Made by
    `record_pair`.
    """

    pair: ContrastPair
    clean: Caches
    corrupted: Caches

    @property
    def components(self) -> tuple[str, ...]:
        """What was recorded, and can be patched."""
        return tuple(next(iter(self.clean.values())).activations)

    @cached_property
    def clean_scores(self) -> Float[Tensor, "2 2"]:
        return cached_scores(self.clean, self.pair.answers)

    @cached_property
    def corrupted_scores(self) -> Float[Tensor, "2 2"]:
        return cached_scores(self.corrupted, self.pair.answers)

    @property
    def ld_clean(self) -> float:
        return logit_difference(self.clean_scores)

    @property
    def ld_corrupted(self) -> float:
        return logit_difference(self.corrupted_scores)

    @property
    def gap(self) -> float:
        """LD_clean - LD_corrupted, nats."""
        return self.ld_clean - self.ld_corrupted

    @property
    def writes_both(self) -> bool:
        """Whether greedy decoding writes each side's own answer after it."""
        return bool(self.clean_scores[0, 1] == self.corrupted_scores[1, 1] == 0)

    def check_gap(self, min_gap: float) -> None:
        """Raise ValueError, with what to do, where the model hardly tells the two sides apart."""
        if abs(self.gap) < min_gap:
            raise ValueError(
                f"pair {self.pair.problem_id!r}: LD is {self.ld_clean:.3f} clean and "
                f"{self.ld_corrupted:.3f} corrupted, a gap below {min_gap:g}: the model hardly "
                "tells them apart; leave the pair out (see sift) or lower min_gap"
            )


def record_pair(
    model: ReasoningModel, pair: ContrastPair, components: Sequence[str] = ("resid",)
) -> RecordedPair:
    """Run both sequences of a pair once and keep what patching `components` needs.

    Raises ValueError for a pair of another model, for tokens outside the vocabulary, and for an
    unknown component. Stage 05 explains.
    """
    check_pair(model, pair)
    for component in components:
        if component not in COMPONENTS:
            raise ValueError(f"unknown component {component!r}: choose from {COMPONENTS}")
    components = ("resid", *components)  # what a patch that changes nothing writes
    corrupted = answer_caches(model, pair.corrupted_ids, pair.answers, components)
    # The clean sequence differs from the corrupted one only from some token on.
    first = next(iter(corrupted.values()))
    clean = answer_caches(model, pair.clean_ids, pair.answers, components, after=first)
    return RecordedPair(pair, clean, corrupted)


def recorded(
    model: ReasoningModel, pair: ContrastPair | RecordedPair, component: str = "resid"
) -> RecordedPair:
    """The pair as it was recorded, or recorded now.

    Raises ValueError where it was recorded without the component, otherwise as `record_pair`.
    """
    if isinstance(pair, ContrastPair):
        return record_pair(model, pair, (component,))
    if component not in COMPONENTS:
        raise ValueError(f"unknown component {component!r}: choose from {COMPONENTS}")
    if component not in pair.components:
        raise ValueError(
            f"pair {pair.pair.problem_id!r} was recorded without {component!r}: "
            f"record_pair(model, pair, components=({component!r},))"
        )
    return pair


@dataclass(frozen=True, eq=False)
class Transfer:
    """One component of a recorded pair in one direction: from the donor's into the receiver's pass.

    `receiver_position` and `donor_position` map a clean position to the one in each pass. Raises
    ValueError for an unknown direction.
    """

    recorded: RecordedPair
    component: str = "resid"
    direction: str = "denoising"

    def __post_init__(self) -> None:
        if self.direction not in DIRECTIONS:
            raise ValueError(f"unknown direction {self.direction!r}: choose from {DIRECTIONS}")

    @property
    def _denoising(self) -> bool:
        return self.direction == "denoising"

    @property
    def pair(self) -> ContrastPair:
        return self.recorded.pair

    @property
    def receivers(self) -> Caches:
        return self.recorded.corrupted if self._denoising else self.recorded.clean

    @property
    def receiver(self) -> ActivationCache:
        return next(iter(self.receivers.values()))

    @property
    def donor(self) -> ActivationCache:
        donors = self.recorded.clean if self._denoising else self.recorded.corrupted
        return next(iter(donors.values()))

    @property
    def receiver_ids(self) -> tuple[int, ...]:
        return self.pair.corrupted_ids if self._denoising else self.pair.clean_ids

    @property
    def receiver_position(self) -> dict[int, int]:
        return self.pair.alignment if self._denoising else self._itself

    @property
    def donor_position(self) -> dict[int, int]:
        return self._itself if self._denoising else self.pair.alignment

    @cached_property
    def _itself(self) -> dict[int, int]:
        return {position: position for position in self.pair.alignment}

    @property
    def receiver_scores(self) -> Float[Tensor, "2 2"]:
        return self.recorded.corrupted_scores if self._denoising else self.recorded.clean_scores

    @property
    def towards_donor(self) -> float:
        """LD_donor - LD_receiver, what an effect of 1 would move."""
        return self.recorded.gap if self._denoising else -self.recorded.gap


NOT_ENDED = "a text did not end"
NO_ANSWER = "a side has no answer to score"
SAME_ANSWER = "both sides end in the same answer"
NOT_ALIGNED = "not aligned up to the answer"
NOT_FOLLOWED = "the model prefers the same answer after both sides"
SMALL_GAP = "the model hardly tells the sides apart"
ANOTHER = "the model writes neither side's answer"
NOT_STATED = "no single token states the conclusion"
KEPT = "kept"
REASONS = (NO_ANSWER, SAME_ANSWER, NOT_ALIGNED, NOT_FOLLOWED, SMALL_GAP, ANOTHER, NOT_STATED, KEPT)
"""Why a pair is left out, in the order in which it is asked, or that it is kept."""


@dataclass(frozen=True, eq=False)
class Sifted:
    """The pairs that are kept, with their passes, and for each pair given a word of `REASONS`."""

    kept: list[RecordedPair]
    reasons: list[str]

    @property
    def counts(self) -> dict[str, int]:
        return {reason: self.reasons.count(reason) for reason in REASONS}


def sift(
    model: ReasoningModel, pairs: Sequence[tuple[Trace, Trace]], min_gap: float = MIN_GAP
) -> Sifted:
    """Align (clean, corrupted) traces, record them, and keep the pairs that can be patched.

    A pair is kept if its traces end in different answers and can be aligned without padding, if the
    model tells its two sides apart (|gap| >= `min_gap`, nats) and writes either answer by itself,
    and if a single differing token of the reasoning states its conclusion. That the answer follows
    the reasoning is not asked: an answer from the question alone is kept, and no patch flips it.
    The passes of the kept pairs stay in memory, on the model's device: a residual stream for each
    layer, and keys and values. Raises ValueError as `record_pair` does. Stage 05 shows the counts.
    """
    kept, reasons = [], []
    for sides in pairs:
        pair, reason = _aligned(*sides)
        if pair is not None:
            found = record_pair(model, pair)
            reason = _judged(found, min_gap)
            if reason == KEPT:
                kept.append(found)
        reasons.append(reason)
    return Sifted(kept, reasons)


def _aligned(clean: Trace, corrupted: Trace) -> tuple[ContrastPair | None, str]:
    try:
        for trace in (clean, corrupted):
            answer_span(trace)
    except ValueError:
        return None, NO_ANSWER
    try:
        return ContrastPair.from_traces(clean, corrupted), KEPT
    except SameAnswerError:
        return None, SAME_ANSWER
    except ValueError:
        return None, NOT_ALIGNED


def _judged(found: RecordedPair, min_gap: float) -> str:
    if found.ld_clean * found.ld_corrupted > 0:
        return NOT_FOLLOWED
    if abs(found.gap) < min_gap:
        return SMALL_GAP
    if not found.writes_both:
        return ANOTHER
    return KEPT if found.pair.flipping_position is not None else NOT_STATED


def family_of(problem: Problem) -> str:
    """What a problem calls its kind, where results are counted apart."""
    return _family(problem.meta)


def _family(meta: Mapping) -> str:
    return meta.get("family", "problems")


def families_of(pairs: Sequence[RecordedPair]) -> list[str]:
    """The family of each pair's clean problem, as `family_of` names it."""
    return [_family(recorded.pair.meta.get("clean", {})) for recorded in pairs]


def pair_funnel(
    problems: Sequence[tuple[Problem, Problem]], ended: Sequence[bool], sifted: Sifted
) -> pd.DataFrame:
    """What became of every pair asked: a row a reason, a column a family of problems, and all.

    `ended` says of each pair whether both texts did; `sifted` holds those, in their order.
    """
    reasons = iter(sifted.reasons)
    rows = [
        (family_of(problem), next(reasons) if done else NOT_ENDED)
        for (problem, _), done in zip(problems, ended, strict=True)
    ]
    frame = pd.DataFrame(rows, columns=["family", "reason"])
    table = pd.crosstab(frame["reason"], frame["family"])
    table = table.reindex([NOT_ENDED, *REASONS], fill_value=0)
    return table.assign(all=table.sum(axis=1))


def why_none_is_kept(counts: Mapping[str, Mapping[str, int]], protocol: str) -> str:
    """What patching needs, what it has, and what to do, where a protocol keeps no pair.

    `counts` are those of `sift`, by protocol. Stage 05 ends with it.
    """
    kept = {name: found[KEPT] for name, found in counts.items() if name != protocol}
    best = max(kept, key=kept.get, default=None)
    steps = "; ".join(f"{n}: {step}" for step, n in counts[protocol].items() if n and step != KEPT)
    need = f"Patching needs 1 pair, has 0 under the protocol {protocol!r} ({steps}). "
    if best and kept[best]:
        asked = sum(counts[best].values())
        return f"{need}Under {best!r} {kept[best]} of {asked} are kept: --set protocol={best}."
    return (
        f"{need}No other protocol keeps one. --set n_pairs=… asks more; --set prompt_style=raw "
        "puts the question in another way; --set source=model lets the model write the traces."
    )


def check_pair(model: ReasoningModel, pair: ContrastPair) -> None:
    """Raise ValueError for a pair that does not belong to the model."""
    name, size = f"pair {pair.problem_id!r}", model.vocab_size
    if pair.model and pair.model != model.name:
        raise ValueError(f"{name} was written by {pair.model!r}, and the model is {model.name!r}")
    for which, ids in zip(("clean", "corrupted"), pair.answers, strict=True):
        if not all(0 <= i < size for i in ids):
            raise ValueError(
                f"{name}: {which} answer {ids} outside the vocabulary of {size} tokens"
            )
    if not all(0 <= i < size for i in (*pair.clean_ids, *pair.corrupted_ids)):
        raise ValueError(f"{name}: a token lies outside the vocabulary of {size} tokens")
