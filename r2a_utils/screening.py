"""Which pairs of traces are worth patching, and how many are not, by reason.

A pair is kept if its traces can be aligned without padding, if the model tells its two sides apart
(the rule of `screen_pairs`) and writes either answer by itself, and if a single differing token of
the reasoning states its conclusion. What is left out is counted, never replaced.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from r2a_utils.models import ReasoningModel
from r2a_utils.pairs import ContrastPair
from r2a_utils.patching import screen_pairs
from r2a_utils.traces import Trace


@dataclass(frozen=True)
class Sifted:
    """The pairs that are kept, and how many went at each step, by reason."""

    kept: list[ContrastPair]
    counts: dict[str, int]


def sift(model: ReasoningModel, pairs: Iterable[tuple[Trace, Trace]]) -> Sifted:
    """Align (clean, corrupted) traces and keep those pairs that meet every rule above."""
    aligned, refused = [], 0
    for clean, corrupted in pairs:
        try:
            aligned.append(ContrastPair.from_traces(clean, corrupted))
        except ValueError:
            refused += 1
    told, kept = [], []
    if aligned:
        seen = screen_pairs(model, aligned)
        right = seen.kept & (seen.clean_rank == 0) & (seen.corrupted_rank == 0)
        told = [pair for pair, good in zip(aligned, right, strict=True) if good]
        kept = [pair for pair in told if pair.flipping_position is not None]
    counts = {
        "refused: cannot be aligned": refused,
        "left out: too small a gap, or not the answer that the model writes": len(aligned)
        - len(told),
        "left out: no single token states the conclusion": len(told) - len(kept),
        "kept": len(kept),
    }
    return Sifted(kept, counts)


def check_kept(by_protocol: dict[str, Sifted], protocol: str) -> None:
    """Raise ValueError, with what to do, where no pair is kept under one protocol."""
    if by_protocol[protocol].kept:
        return
    others = {name: len(found.kept) for name, found in by_protocol.items() if name != protocol}
    raise ValueError(
        f"no pair was kept under the protocol {protocol!r}: {by_protocol[protocol].counts}. Choose "
        f"another protocol (they keep {others}), raise n_pairs, put the question in another way "
        '(prompt_style="raw"), or let the model write the traces itself (source="model")'
    )
