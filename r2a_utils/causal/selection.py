"""Which pairs of traces are worth patching, and how many are not, by reason.

A pair is kept if its traces can be aligned without padding, if the model tells its two sides apart
(the rule of `screen_pairs`) and writes either answer by itself, and if a single differing token of
the reasoning states its conclusion. What is left out is counted, never replaced.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from r2a_utils.causal.pairs import ContrastPair
from r2a_utils.causal.patching import screen_pairs
from r2a_utils.models.loading import ReasoningModel
from r2a_utils.texts.trace import Trace


@dataclass(frozen=True)
class Sifted:
    """The pairs that are kept, and how many went at each step, by reason."""

    kept: list[ContrastPair]
    counts: dict[str, int]


def sift(
    model: ReasoningModel, pairs: Mapping[str, Sequence[tuple[Trace, Trace]]]
) -> dict[str, Sifted]:
    """Align (clean, corrupted) traces and keep those pairs that meet every rule above.

    `pairs` holds the same problems in the same order under each protocol, and so does the result;
    what the protocols of a problem have in common runs once.
    """
    aligned: list[tuple[str, ContrastPair]] = []
    for problem in zip(*pairs.values(), strict=True):
        for protocol, sides in zip(pairs, problem, strict=True):
            with suppress(ValueError):
                aligned.append((protocol, ContrastPair.from_traces(*sides)))
    n_aligned = Counter(protocol for protocol, _ in aligned)
    told = {protocol: [] for protocol in pairs}
    seen = screen_pairs(model, [pair for _, pair in aligned])
    for (protocol, pair), row in zip(aligned, seen.itertuples(), strict=True):
        if row.kept and row.clean_rank == row.corrupted_rank == 0:
            told[protocol].append(pair)
    sifted = {}
    for protocol, good in told.items():
        kept = [pair for pair in good if pair.flipping_position is not None]
        steps = {
            "refused: cannot be aligned": len(pairs[protocol]) - n_aligned[protocol],
            "left out: too small a gap, or not the answer that the model writes": (
                n_aligned[protocol] - len(good)
            ),
            "left out: no single token states the conclusion": len(good) - len(kept),
            "kept": len(kept),
        }
        sifted[protocol] = Sifted(kept, steps)
    return sifted


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
