"""Is a head's reading of the reasoning a matter of distance? Against a head that knows only that.

A head that always looks twenty tokens back, or evenly at the last hundred, reads the reasoning
because the reasoning stands right before the answer; turning its borders (`heads.border_test`) does
not show that. What goes in are single rows of attention; this file runs no model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from r2a_utils.stats import bootstrap_mean_intervals


def distance_test(
    rows: Sequence[np.ndarray], segments: Sequence[Mapping[str, slice]], *, seed: int = 0
) -> pd.DataFrame:
    """How much more of the reasoning each head reads than its distance profile alone would give.

    rows: for each trace the answer's rows [head, query, key]; segments: each trace's. A head's
    profile is its mean attention by distance from the query, over all queries of all traces that
    have a token there; BOS is left out. Looking by distance only is the profile, cut to what a
    query can see and scaled to 1. Columns (a row a head, in the order given) share (of the head's
    attention off BOS, on the reasoning), by_distance (the same if it looked by distance only),
    excess, ci_low, ci_high (95% bootstrap over traces).

    The profile comes from the same queries, so that a head of distance alone has no excess, and one
    that follows the borders keeps only as much as the borders move against the query: the test
    errs on the side of distance.
    """
    n_heads, longest = len(rows[0]), max(row.shape[-1] for row in rows)
    total, seen = np.zeros((n_heads, longest)), np.zeros(longest)
    for row, places in zip(rows, segments, strict=True):
        for query, i in enumerate(range(places["answer"].start, places["answer"].stop)):
            total[:, :i] += row[:, query, i:0:-1]
            seen[:i] += 1
    profile = total / np.maximum(seen, 1)
    up_to = np.concatenate([np.zeros((n_heads, 1)), profile.cumsum(axis=1)], axis=1)
    shares, expected = np.zeros((2, len(rows), n_heads))
    for trace, (row, places) in enumerate(zip(rows, segments, strict=True)):
        span, queries = (
            places["reasoning"],
            np.arange(places["answer"].start, places["answer"].stop),
        )
        off_bos = row[..., 1:].sum(axis=-1)
        shares[trace] = (row[..., span].sum(axis=-1) / off_bos).mean(axis=-1)
        inside = up_to[:, queries - span.start + 1] - up_to[:, queries - span.stop + 1]
        expected[trace] = (inside / up_to[:, queries]).mean(axis=-1)
    low, high = bootstrap_mean_intervals(shares - expected, seed=seed)
    share, by_distance = shares.mean(axis=0), expected.mean(axis=0)
    return pd.DataFrame(
        {
            "share": share,
            "by_distance": by_distance,
            "excess": share - by_distance,
            "ci_low": low,
            "ci_high": high,
        }
    )
