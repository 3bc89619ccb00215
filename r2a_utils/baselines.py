"""What an intervention is compared with: random heads and random spans of the same size.

A set of heads that was chosen for a reason has to do more than equally many heads of the same
layers, and a span of the reasoning more than an equally long span elsewhere. Plain draws, no model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from r2a_utils.traces import Trace

Head = tuple[int, int]
"""(layer, head)"""


def random_head_sets(
    heads: Sequence[Head], n_heads: int, n_sets: int = 50, seed: int = 0
) -> list[tuple[Head, ...]]:
    """Sets with as many heads in each layer as `heads`, drawn from the layer's other heads.

    A layer that has too few others gives all of them, and the rest from `heads`; a set that equals
    `heads` is drawn again. `n_heads` is the number of heads in a layer.
    """
    chosen, rng = set(heads), np.random.default_rng(seed)
    counts = Counter(layer for layer, _ in sorted(chosen))
    if all(count == n_heads for count in counts.values()):
        raise ValueError("the heads are whole layers: no other set is matched by layer")
    sets: list[tuple[Head, ...]] = []
    while len(sets) < n_sets:
        drawn: list[Head] = []
        for layer, count in counts.items():
            order = rng.permutation(n_heads)
            # A stable sort: the others first, each kind in its random order.
            order = sorted(order, key=lambda head, layer=layer: (layer, head) in chosen)
            drawn += [(layer, int(head)) for head in sorted(order[:count])]
        if set(drawn) != chosen:
            sets.append(tuple(drawn))
    return sets


def random_spans(
    trace: Trace, length: int, n: int, seed: int = 0, avoid: slice | None = None
) -> list[slice]:
    """Equally long token spans before the answer, as controls for a knocked-out span.

    They never hold the first token, on which attention rests, and do not touch `avoid`. Spans may
    overlap one another. Raises ValueError where no such span exists.
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
