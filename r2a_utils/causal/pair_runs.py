"""The two passes of a contrast pair, cached, and what they say of the answers before any patch.

LD = log p(clean answer) - log p(corrupted answer). A pair is worth patching where its two runs
differ in LD: the effect of a patch is measured in units of that gap.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from r2a_utils.causal.pairs import ContrastPair
from r2a_utils.engine.answer_logprobs import answer_caches, cached_scores, logit_difference
from r2a_utils.engine.patches import COMPONENTS, ActivationCache
from r2a_utils.models.loading import ReasoningModel

DIRECTIONS = ("denoising", "noising")

MIN_GAP = 1.0
"""Pairs with |LD_clean - LD_corrupted| below this (in nats: a factor e in the odds) are refused.

The effect divides by the gap, so its noise grows as 1/gap; and a bfloat16 logit near 30 moves in
steps of 0.125, which at a gap of 1 is an effect of 0.1, still readable in a figure.
"""


@dataclass(frozen=True, eq=False)
class PairRuns:
    """The cached passes of one pair in one direction, and their scores.

    `receivers` are the caches of `answer_caches`; `receiver_position` and `donor_position` map a
    clean position to the one in the receiver and in the donor. Scores are those of
    `engine/answer_logprobs.py`.
    """

    component: str
    direction: str
    receivers: dict[tuple[int, ...], ActivationCache]
    donor: ActivationCache
    receiver_ids: tuple[int, ...]
    receiver_position: dict[int, int]
    donor_position: dict[int, int]
    clean_scores: torch.Tensor
    corrupted_scores: torch.Tensor

    @classmethod
    def of(
        cls,
        model: ReasoningModel,
        pair: ContrastPair,
        component: str = "resid",
        direction: str = "denoising",
        min_gap: float = MIN_GAP,
    ) -> PairRuns:
        """Run both sequences of a pair, after checking that this is possible and worth it."""
        check_pair(model, pair)
        if component not in COMPONENTS:
            raise ValueError(f"unknown component {component!r}: choose from {COMPONENTS}")
        if direction not in DIRECTIONS:
            raise ValueError(f"unknown direction {direction!r}: choose from {DIRECTIONS}")
        denoising, itself = direction == "denoising", {p: p for p in pair.alignment}
        receiver_ids, donor_ids = pair.corrupted_ids, pair.clean_ids
        if not denoising:
            receiver_ids, donor_ids = donor_ids, receiver_ids
        receivers = answer_caches(model, receiver_ids, pair.answers, (component,))
        # The donor differs from the receiver only from some token on.
        first = next(iter(receivers.values()))
        donors = answer_caches(model, donor_ids, pair.answers, (component,), after=first)
        clean, corrupted = (donors, receivers) if denoising else (receivers, donors)
        runs = cls(
            component=component,
            direction=direction,
            receivers=receivers,
            donor=next(iter(donors.values())),
            receiver_ids=receiver_ids,
            receiver_position=pair.alignment if denoising else itself,
            donor_position=itself if denoising else pair.alignment,
            clean_scores=cached_scores(clean, pair.answers),
            corrupted_scores=cached_scores(corrupted, pair.answers),
        )
        if abs(runs.ld_clean - runs.ld_corrupted) < min_gap:
            raise ValueError(
                f"pair {pair.problem_id!r}: LD is {runs.ld_clean:.3f} clean and "
                f"{runs.ld_corrupted:.3f} corrupted, a gap below {min_gap:g}: the model hardly "
                "tells them apart; leave the pair out (see screen_pairs) or lower min_gap"
            )
        return runs

    @property
    def receiver(self) -> ActivationCache:
        return next(iter(self.receivers.values()))

    @property
    def receiver_scores(self) -> torch.Tensor:
        return self.corrupted_scores if self.direction == "denoising" else self.clean_scores

    @property
    def ld_clean(self) -> float:
        return logit_difference(self.clean_scores)

    @property
    def ld_corrupted(self) -> float:
        return logit_difference(self.corrupted_scores)

    @property
    def towards_donor(self) -> float:
        """LD_donor - LD_receiver, what an effect of 1 would move."""
        gap = self.ld_clean - self.ld_corrupted
        return gap if self.direction == "denoising" else -gap


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
