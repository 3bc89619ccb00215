"""The printed lists beside a ranking that differs from them in a known way."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from r2a_utils.attention.published_heads import compare_lists, differing_heads, printed_heads
from r2a_utils.texts.trace import SEGMENTS

WHO = "R1-Qwen-1.5B"


def masses(best: list[tuple[int, int]]) -> xr.DataArray:
    """28 layers of 12 heads, in which these read the reasoning most, in this order."""
    values = np.full((5, 28, 12, 6, 6), 0.01, dtype=np.float32)
    values += np.linspace(0, 0.001, 5, dtype=np.float32)[:, None, None, None, None]
    source, target = SEGMENTS.index("answer"), SEGMENTS.index("reasoning")
    for rank, (layer, head) in enumerate(best):
        values[:, layer, head, source, target] += 0.9 - 0.01 * rank
    starts = np.tile(np.arange(6) * 10, (5, 1))
    return xr.DataArray(
        values,
        dims=("trace", "layer", "head", "from_segment", "to_segment"),
        coords={
            "from_segment": list(SEGMENTS),
            "to_segment": list(SEGMENTS),
            "segment_start": (("trace", "to_segment"), starts),
            "segment_stop": (("trace", "to_segment"), starts + 10),
        },
    )


def test_what_is_in_one_list_only_is_named():
    printed = printed_heads()[WHO]["reasoning-focus head"]
    assert len(printed) == 10
    other = next((0, head) for head in range(12) if (0, head) not in printed)
    same = differing_heads(WHO, masses(printed))
    assert same.empty
    table = differing_heads(WHO, masses([*printed[:9], other, printed[9]]))
    assert list(zip(table["layer"], table["head"], strict=True)) == [other, printed[9]]
    assert table["printed"].tolist() == [False, True] and table["rank"].tolist() == [10, 11]
    found = compare_lists({WHO: table})
    assert (found.shared, found.lost, found.lost_below_cut) == ({WHO: 9}, 1, 1)
    assert found.lost_retrieval == int(printed[9] in printed_heads()[WHO]["retrieval head"])


def test_nothing_compared_is_nothing_shared():
    found = compare_lists({})
    assert (found.shared, found.lost) == ({}, 0)


@pytest.mark.parametrize("who", ["R1-Llama-8B", "R1-Qwen-7B", WHO])
def test_each_model_has_three_printed_lists(who):
    assert {len(heads) for heads in printed_heads()[who].values()} == {10}
