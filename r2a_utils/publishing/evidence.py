"""Evidence: one number that speaks to a claim, and the one rule by which it is judged.

A verdict says what is shown, and nothing of why: a null stands like a hit. This file knows neither
the claims nor where their numbers come from.
"""

from __future__ import annotations

from dataclasses import dataclass

from r2a_utils.stats import FEWEST_FOR_A_MEAN

HOLDS, WEAK, OPPOSITE = "holds", "weak", "opposite"
CANNOT_TELL, NOT_TESTED = "cannot tell", "not tested"


@dataclass(frozen=True)
class Evidence:
    """One number that speaks to a claim, with its 95 % interval where it has one.

    null: the value at which the claim would be empty; larger values speak for the claim. large:
    from here on it holds and is not weak. untrained: what untrained models reach; a number between
    that and the null tells nothing. n: the cases behind it, where they may be too few for a mean.
    `told` says the number and the interval in words.
    """

    value: float | None
    null: float
    large: float
    told: str
    low: float | None = None
    high: float | None = None
    untrained: float | None = None
    n: int | None = None


def verdict(evidence: Evidence | None) -> str:
    """The rule: what one number says of a claim.

    *not tested* without a number's record, *cannot tell* without a number, from fewer than
    `FEWEST_FOR_A_MEAN` cases, or where the interval holds the null value or anything between it
    and what untrained models reach, *opposite* where all of it lies below, else *holds* if the
    number itself is as large as the claim needs, and *weak* if it is not. A number without an
    interval stands for its interval.
    """
    if evidence is None:
        return NOT_TESTED
    if evidence.value is None or (evidence.n is not None and evidence.n < FEWEST_FOR_A_MEAN):
        return CANNOT_TELL
    low = evidence.value if evidence.low is None else evidence.low
    high = evidence.value if evidence.high is None else evidence.high
    empty = evidence.null, evidence.null if evidence.untrained is None else evidence.untrained
    if low <= max(empty) and min(empty) <= high:
        return CANNOT_TELL
    if high < min(empty):
        return OPPOSITE
    return HOLDS if evidence.value >= evidence.large else WEAK
