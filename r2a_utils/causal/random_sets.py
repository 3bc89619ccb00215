"""What an intervention is compared with: random heads and random spans of the same size.

A set of heads that was chosen for a reason has to do more than equally many heads drawn from the
same layers, and a span of the reasoning more than an equally long span elsewhere. No model here.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Sequence
from math import comb, prod

import numpy as np
from jaxtyping import Float

from r2a_utils.stats import empirical_p
from r2a_utils.texts.trace import Trace

Head = tuple[int, int]
"""(layer, head)"""


def random_head_sets(
    heads: Sequence[Head],
    n_heads: int,
    n_sets: int = 100,
    seed: int = 0,
    without: Head | None = None,
) -> list[tuple[Head, ...]]:
    """Sets with as many heads in each layer as `heads`, drawn from all heads of these layers.

    `heads` themselves may be drawn: if their choice said nothing, their set would be one more of
    these, and its rank among them gives an exact p (see `against_random`). A set may come twice;
    `n_possible_sets` says of how many it is drawn. `n_heads` is the number of heads in a layer, and
    `without` a head that no set may hold. Raises ValueError where the heads are whole layers, so
    that no other set is like them. Stage 06.
    """
    if n_possible_sets(heads, n_heads, without) == 1:
        raise ValueError("the heads are whole layers: no other set is matched by layer")
    counts, rng = _by_layer(heads), np.random.default_rng(seed)
    return [
        tuple(
            (layer, int(head))
            for layer, count in counts.items()
            for head in sorted(rng.choice(_free(layer, n_heads, without), count, replace=False))
        )
        for _ in range(n_sets)
    ]


def n_possible_sets(heads: Sequence[Head], n_heads: int, without: Head | None = None) -> int:
    """How many sets have as many heads in each layer as `heads`, themselves included.

    None of them holds `without`.
    """
    counts = _by_layer(heads).items()
    return prod(comb(len(_free(layer, n_heads, without)), count) for layer, count in counts)


def against_random(
    values: Sequence[float] | Float[np.ndarray, " set"], alternative: str = "less"
) -> dict[str, float]:
    """The first value, of the set in question, beside the others, of random sets.

    Named numbers: `rfh`, the first; `median`, `low` and `high` (the extremes) of the others; `p`,
    that of `empirical_p`. Differences below 1e-6, rounding in float32, count as ties. Median and
    range, since one head that matters makes a mean of whatever sets happen to hold it.
    """
    own, *others = np.round(np.asarray(values, dtype=float), 6)
    return {
        "rfh": float(own),
        "median": float(np.median(others)),
        "low": float(min(others)),
        "high": float(max(others)),
        "p": empirical_p(own, others, alternative),
    }


def own_seed(trace: Trace, seed: int) -> list[int]:
    """A seed of a trace's own, so that no two traces share what is drawn."""
    return [seed, zlib.crc32(trace.problem_id.encode()), trace.sample]


def random_spans(
    trace: Trace,
    length: int,
    n: int,
    seed: int | Sequence[int] = 0,
    avoid: slice | None = None,
) -> list[slice]:
    """Equally long token spans before the answer, as controls for a knocked-out span.

    They never hold the first token, on which attention rests, and do not touch `avoid`. Spans may
    overlap one another. Traces that share a seed share the places; `own_seed` gives each its own.
    Raises ValueError where no such span exists.
    """
    stop = trace.segments["answer"].start
    avoid = avoid or slice(0, 0)
    starts = [
        start
        for start in range(1, stop - length + 1)
        if start >= avoid.stop or start + length <= avoid.start
    ]
    if not starts:
        raise ValueError(f"no span of {length} tokens before the answer that avoids {avoid}")
    drawn = np.random.default_rng(seed).choice(starts, n)
    return [slice(int(start), int(start) + length) for start in drawn]


def _free(layer: int, n_heads: int, without: Head | None) -> list[int]:
    return [head for head in range(n_heads) if (layer, head) != without]


def _by_layer(heads: Sequence[Head]) -> Counter:
    return Counter(layer for layer, _ in sorted(set(heads)))
